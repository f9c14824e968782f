"""What edits do: the change of the car's hue, size and position, and what they change besides.

Effects are changes of the factor read off the picture, relative to the same edit of the scene's own in-domain code; 1
is as much as the generator itself does. Drift is the RMS change of the picture outside the edited object. Scenes with
strangers only: elsewhere SAM equals W+.
"""

from __future__ import annotations

import statistics

from common import METHODS, SINGLE, Options, Record, Scene, figure, invert, median, parse, ratio, report, run, values
from common import table as markdown
from measures import EDITED, EditTrial, car_area, reconstruction

STAYED = 0.9
"""Part of the car's area in W+ from which on the car counts as lying in W+."""
PUBLISHED = {"SAM": "SAM, skip image not blended", "F10": "F10, skip image not blended"}


def task(scene: Scene, options: Options) -> Record:
    """Scores and edits of all inversions of a scene."""
    trial = EditTrial(scene)
    rows: Record = {}
    for name, spaces in METHODS.items():
        solution = invert(scene, spaces, options)
        rows[name] = {**reconstruction(solution.image, scene.batch.images), **trial.measure(solution)}
        if name in PUBLISHED:
            rows[PUBLISHED[name]] = trial.measure(solution, skip="published")
        if name == "SAM":
            inside, whole = car_area(scene, solution)
    moved = {name: float((after - before).abs()) for name, (before, after) in trial.references.items()}
    return {"rows": rows, "car_share": inside / whole if whole else None, "reference_change": moved}


def edit_table(records: list[Record]) -> str:
    """Median scores, effects and drift by method."""
    rows = []
    for name in [*METHODS, *PUBLISHED.values()]:
        effects = [median(records, "rows", name, "effect", factor) for factor in EDITED]
        drifts = [median(records, "rows", name, f"mean_{key}") for key in ("effect", "drift", "stranger_drift")]
        rows.append([name, median(records, "rows", name, "psnr"), *effects, *drifts])
    headers = ["Inversion", "PSNR (dB)", *EDITED, "mean effect", "drift outside", "drift of strangers"]
    return markdown(headers, rows, digits=3)


def beats_sam(records: list[Record], name: str) -> bool:
    """Whether a single space is above SAM in both PSNR and mean edit effect."""
    pairs = [
        (median(records, "rows", name, key), median(records, "rows", "SAM", key)) for key in ("psnr", "mean_effect")
    ]
    return all(single is not None and sam is not None and single > sam for single, sam in pairs)


def paired_ratio(records: list[Record], key: str) -> float | None:
    """Median over the scenes of a number of SAM relative to that of W+ on the same scene."""
    found = [ratio(record["rows"]["SAM"][key], record["rows"]["W+"][key]) for record in records]
    known = [value for value in found if value is not None]
    return statistics.median(known) if known else None


def figures(records: list[Record]) -> list[Record]:
    """The figures that are held against bars."""
    stayed = [record for record in records if (record["car_share"] or 0) >= STAYED]
    found = [figure("scenes whose car SAM leaves in W+", len(stayed))]
    for name in EDITED:
        sam, base = (median(stayed, "rows", row, "effect", name) for row in ("SAM", "W+"))
        found.append(figure(f"{name}: effect of SAM relative to W+, car in W+", ratio(sam, base), at_least=0.8))
    for name in EDITED:
        found.append(
            figure(f"{name}: effect of F10 alone", median(records, "rows", "F10", "effect", name), at_most=0.2)
        )
    for key in ("drift", "stranger_drift"):
        sam, base = (median(records, "rows", row, f"mean_{key}") for row in ("SAM", "W+"))
        bar = {"at_most": 1.0} if key == "drift" else {}
        label = f"{key.replace('_', ' ')} of SAM relative to W+"
        found.append(figure(f"{label}, ratio of the medians", ratio(sam, base), **bar))
        found.append(figure(f"{label}, median of the ratios", paired_ratio(records, f"mean_{key}"), **bar))
    beaten = sum(beats_sam(records, name) for name in SINGLE)
    found.append(figure("single spaces above SAM in both PSNR and effect", beaten, at_most=0))
    for name, other in PUBLISHED.items():
        blend, published = (median(records, "rows", row, "mean_drift") for row in (name, other))
        added = published - blend if published is not None and blend is not None else None
        found.append(figure(f"drift that {name} has more when the skip image is not blended", added))
    for name in EDITED:
        moved = values(records, "reference_change", name)
        found.append(figure(f"{name}: change of the scene's own code", statistics.median(moved) if moved else None))
    return found


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("editing", __doc__, argv)
    records = run("editing", task, range(0, options.scenes, 2), options)
    report("editing", options, [edit_table(records)], figures(records), records)


if __name__ == "__main__":
    main()
