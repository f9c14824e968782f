"""How well scenes are reconstructed: in-domain scenes in W+, scenes with strangers in all spaces and by SAM.

Scenes with strangers are inverted in W, in W+, in each feature layer alone (for the whole picture), and by SAM with
the default tau up to F8 and up to F10. The row "strangers pasted" is what masks alone give: a W+ inversion of the same
scene rendered without its strangers, over which the strangers are composited from the picture by their exact masks; it
knows both the masks and what the strangers hide, which no method is told.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from common import METHODS, SAM, SINGLE, Options, Record, Scene, figure, generator, invert, median, parse, report, run
from common import table as markdown
from measures import agreement, car_area, reconstruction

from saminv._recipe import DEFAULT_TAU
from saminv.demo import factors_from_z, render
from saminv.demo.train_generator import sharpness

PASTED = "strangers pasted"
LABELS = {"SAM": f"SAM ({', '.join(SAM)})", "SAM with F10": f"SAM ({', '.join(METHODS['SAM with F10'])})"}


def task(scene: Scene, options: Options) -> Record:
    """Scores of all inversions of a scene, their status, and where SAM put its segments."""
    target = scene.batch.images
    if not scene.strangers:
        solution = invert(scene, ("W+",), options)
        return {"rows": {"in-domain": reconstruction(solution.image, target)}, "status": {"W+": _status(solution)}}
    solutions = {name: invert(scene, spaces, options) for name, spaces in METHODS.items()}
    rows = {name: reconstruction(solution.image, target) for name, solution in solutions.items()}
    mask = scene.batch.stranger_masks
    clean = invert(scene.clean, ("W+",), options).image.clamp(-1, 1)
    rows[PASTED] = reconstruction(torch.lerp(clean, target, mask), target)
    sam = solutions["SAM"]
    single = {name: solutions[name] for name in SAM}
    return {
        "rows": rows,
        "status": {name: _status(solution) for name, solution in solutions.items()},
        "car_area": car_area(scene, sam),
        "agreement": agreement(sam, single, DEFAULT_TAU),
        "share": {name: float(sam.regions.share(name)) for name in sam.regions.spaces},
    }


def _status(solution) -> str:
    return solution.statuses[0].name.lower()


@torch.no_grad()
def sample_sharpness(count: int) -> float:
    """Mean gradient magnitude of samples relative to that of the scenes which they stand for."""
    z = generator().sample_z(count, 10_000_001)
    images = torch.cat([generator().synthesis(generator().mapping(part)) for part in z.split(8)])
    return sharpness(images.clamp(-1, 1)) / sharpness(render(factors_from_z(z)).images)


def share(records: list[Record], key: str) -> float | None:
    """Sum of the parts over the sum of the wholes of pairs in the records."""
    pairs = [record[key] for record in records if key in record]
    whole = sum(pair[1] for pair in pairs)
    return sum(pair[0] for pair in pairs) / whole if whole else None


def score_table(records: list[Record]) -> str:
    """Median scores by method."""
    names = ["in-domain", *SINGLE, "SAM", "SAM with F10", PASTED]
    rows = []
    for name in names:
        label = "W+, scenes without strangers" if name == "in-domain" else LABELS.get(name, name)
        rows.append([label, *(median(records, "rows", name, key) for key in ("psnr", "ssim", "perceptual"))])
    return markdown(["Inversion", "PSNR (dB)", "SSIM", "demo perceptual"], rows, digits=3)


def status_table(records: list[Record]) -> str:
    """How often the inversions of each method ended in which way."""
    counts: dict[tuple[str, str], int] = {}
    for record in records:
        for name, status in record["status"].items():
            counts[name, status] = counts.get((name, status), 0) + 1
    kinds = sorted({status for _, status in counts})
    names = [name for name in METHODS if any(key[0] == name for key in counts)]
    return markdown(["Inversion", *kinds], [[name, *(counts.get((name, kind), 0) for kind in kinds)] for name in names])


def figures(records: list[Record], sharp: float) -> list[Record]:
    """The figures that are held against bars."""
    psnr = {name: median(records, "rows", name, "psnr") for name in ("in-domain", *METHODS, PASTED)}
    known = [psnr[name] for name in SINGLE if psnr[name] is not None]
    rising = int(all(a < b for a, b in pairwise(known))) if known else None
    gain = psnr["SAM"] - psnr["W+"] if psnr["SAM"] is not None and psnr["W+"] is not None else None
    return [
        figure("W+ on scenes without strangers, median PSNR", psnr["in-domain"], at_least=30, unit="dB"),
        figure("sharpness of samples relative to scenes", sharp, at_least=0.9),
        figure("SAM, median PSNR", psnr["SAM"], at_least=29, unit="dB"),
        figure("SAM above W+", gain, at_least=5, unit="dB"),
        figure("SAM with F10, median PSNR", psnr["SAM with F10"], at_least=30, unit="dB"),
        figure("single spaces rise from W to F10 (1 is yes)", rising, at_least=1),
        figure("in-domain car area that stays in W+", share(records, "car_area"), at_least=0.9),
        figure("segments where separate inversions would put them", share(records, "agreement"), at_least=0.85),
    ]


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("quality", __doc__, argv)
    records = run("quality", task, range(options.scenes), options)
    sharp = sample_sharpness(min(64, 8 * options.scenes))
    tables = [score_table(records), status_table(records)]
    report("quality", options, tables, figures(records, sharp), records)


if __name__ == "__main__":
    main()
