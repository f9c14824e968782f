"""What tau trades: PSNR against editability over eight values, on scenes with strangers, and the one-line call.

Writes the curve as a picture beside the JSON file, or into ``pictures/`` of the docs with ``--docs``.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from common import SAM, Options, Record, Scene, figure, invert, median, parse, report, run
from common import table as markdown
from measures import EditTrial, reconstruction

from saminv import Solution
from saminv.demo import CAR_SEGMENTS
from saminv.demo.scenes import SEGMENT_INDEX

TAUS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
ONE_LINE = (("W+", "F4", "F6"), 0.3)
PICTURE = "tau-curve.png"


def task(scene: Scene, options: Options) -> Record:
    """PSNR, edit effect and area in W+ for each tau, and whether the one-line call gives a mixed map."""
    trial = EditTrial(scene)
    by_tau = {}
    for tau in TAUS:
        solution = invert(scene, SAM, options, tau)
        scores = reconstruction(solution.image, scene.batch.images)
        by_tau[f"{tau:g}"] = {
            **scores,
            **trial.measure(solution),
            "share": {name: float(solution.regions.share(name)) for name in SAM},
        }
    spaces, tau = ONE_LINE
    return {"taus": by_tau, "mixed": mixed(scene, invert(scene, spaces, options, tau))}


def mixed(scene: Scene, solution: Solution) -> bool:
    """Whether most of the car or of the sky lies in W+, and most of the strangers later."""
    base, labels = solution.regions.full("W+")[:, 0], scene.batch.segments
    strangers = scene.batch.stranger_masks[:, 0] > 0.5

    def mostly(where: torch.Tensor) -> bool:
        return bool(where.any()) and float(base[where].float().mean()) > 0.5

    known = [torch.isin(labels, torch.tensor(CAR_SEGMENTS)), labels == SEGMENT_INDEX["sky"]]
    return any(mostly(where & ~strangers) for where in known) and not mostly(strangers)


def exceptions(numbers: list[float | None], falling: bool) -> int | None:
    """How many steps of a sequence go the wrong way."""
    known = [number for number in numbers if number is not None]
    pairs = list(pairwise(known))
    return sum(b > a if falling else b < a for a, b in pairs) if pairs else None


def curve(records: list[Record], key: str) -> list[float | None]:
    """Medians of a number along tau."""
    return [median(records, "taus", f"{tau:g}", key) for tau in TAUS]


def tau_table(records: list[Record]) -> str:
    """PSNR, effect, drift and area in W+ by tau."""
    columns = [curve(records, key) for key in ("psnr", "perceptual", "mean_effect", "mean_drift")]
    columns.append([median(records, "taus", f"{tau:g}", "share", "W+") for tau in TAUS])
    headers = ["tau", "PSNR (dB)", "demo perceptual", "mean effect", "drift outside", "area in W+"]
    return markdown(headers, [[f"{tau:g}", *row] for tau, row in zip(TAUS, zip(*columns))], digits=3)


def draw(records: list[Record], path: Path) -> None:
    """Plot PSNR and edit effect over tau."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, left = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    right = left.twinx()
    sides = ((left, "psnr", "PSNR (dB)", "tab:blue"), (right, "mean_effect", "edit effect", "tab:orange"))
    for axis, key, label, colour in sides:
        axis.plot(TAUS, [float("nan") if v is None else v for v in curve(records, key)], marker="o", color=colour)
        axis.set_ylabel(label, color=colour)
    left.set_xlabel("tau")
    left.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=130)
    pyplot.close(drawing)
    print(f"wrote {path}")


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("tau_sweep", __doc__, argv)
    records = run("tau_sweep", task, range(0, options.scenes, 2), options)
    share = sum(record["mixed"] for record in records) / len(records)
    found = [
        figure("rises of PSNR along tau", exceptions(curve(records, "psnr"), True), at_most=1),
        figure("falls of the edit effect along tau", exceptions(curve(records, "mean_effect"), False), at_most=1),
        figure("scenes for which the one-line call gives a mixed map", share, at_least=0.5),
    ]
    draw(records, options.out.parent / PICTURE if options.docs is None else options.docs / "pictures" / PICTURE)
    report("tau_sweep", options, [tau_table(records)], found, records)


if __name__ == "__main__":
    main()
