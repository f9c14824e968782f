"""The demo's encoders: how many steps their starts save, what they say alone, and what edits of that do.

Scenes without strangers and with them, in batches. The first table compares starts: the PSNR that runs of several
lengths reach from an encoder's start, beside what 300 steps from the mean w reach, into W+ alone and into all spaces
of SAM. The budget of a run fixes its schedule, so every number of steps is a run of its own. The second table is about
the encoders alone, without a step: reconstruction, and edits of scenes with strangers. PadInv's network without padding
is not shipped; its row is left out unless it was trained:

    python -m saminv.demo.train_encoders plain --folder runs/encoder-plain

So are rows of encoders that do not come with the package.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common import FOLDER, SAM, Options, Record, Scene, figure, median, parse, report, run
from common import table as markdown
from measures import EDITED, EditTrial, reconstruction

import saminv
from saminv.encoders import ENCODERS

TOGETHER = 8
"""Scenes that are inverted in one batch."""
COLD = 300
BUDGETS = (30, 60, 100, COLD)


@dataclass(frozen=True)
class Warm:
    """A start by an encoder, and what it is held against.

    Attributes:
        encoder: Its name.
        spaces: That the run is in.
        cold: Spaces of the run of :data:`COLD` steps from the mean w.
        budgets: Steps of the runs.
    """

    encoder: str
    spaces: tuple[str, ...]
    cold: tuple[str, ...]
    budgets: tuple[int, ...] = BUDGETS


WARM = {
    "W+": Warm("demo-feature-style", ("W+",), ("W+",)),
    "W+ and FS5, against W+": Warm("demo-feature-style", ("W+", "FS5"), ("W+",), (30, 60)),
    "SAM": Warm("demo-sam", SAM, SAM),
}
PLAIN = "PadInv's without padding"
ALONE = {
    "padinv": (["W+", "P"], "demo-padinv"),
    "padinv, W+ only": (["W+"], "demo-padinv"),
    "feature-style": (["W+", "FS5"], "demo-feature-style"),
    "feature-style, W+ only": (["W+"], "demo-feature-style"),
    "sam": (list(SAM), "demo-sam"),
    "sam, W+ only": (["W+"], "demo-sam"),
}
PLAIN_FILE = FOLDER.parent / "runs" / "encoder-plain" / "encoder.safetensors"
GROUPS = {"strangers": "with strangers", "clean": "without"}


def task(chunk: Scene, options: Options) -> Record:
    """Scores of a batch of scenes by row; ``chunk.index`` counts batches, even ones have strangers."""
    first = 2 * TOGETHER * (chunk.index // 2) + chunk.index % 2
    scenes = [Scene.numbered(k) for k in range(first, options.scenes, 2)[:TOGETHER]]
    images = torch.cat([scene.batch.images for scene in scenes])
    scale = options.steps / COLD
    rows: list[Record] = [{"starts": {}, "alone": {}} for _ in scenes]
    known: Record = {}

    def reached(spaces: Sequence[str], start: str, budget: int) -> list[float]:
        steps = max(1, round(scale * budget))
        solution = saminv.invert(images, spaces, encoder=start, steps=steps, **settings_of(spaces))
        return [float(psnr) for psnr in solution.stats["psnr"]]

    for name, warm in there(WARM).items():
        cold = known.setdefault(warm.cold, [])
        cold += [] if cold else reached(warm.cold, "mean", COLD)
        found = {("mean", COLD): cold}
        found |= {(warm.encoder, budget): reached(warm.spaces, warm.encoder, budget) for budget in warm.budgets}
        for (start, budget), values in found.items():
            for row, psnr in zip(rows, values):
                row["starts"].setdefault(name, {}).setdefault(start, {})[str(budget)] = psnr
    for name, (spaces, given) in alone_of(PLAIN_FILE).items():
        solution = saminv.invert(images, spaces, encoder=given, steps=0, **settings_of(spaces))
        for k, (row, scene) in enumerate(zip(rows, scenes)):
            one = solution[k]
            edits = EditTrial(scene).measure(one) if scene.strangers else {}
            row["alone"][name] = {**reconstruction(one.image, scene.batch.images), **edits}
    group = "strangers" if scenes[0].strangers else "clean"
    return {"scenes": [{group: row} for row in rows]}


def settings_of(spaces: Sequence[str]) -> Record:
    """How pictures are inverted into some spaces."""
    usual: Record = {"generator": "demo"}
    return usual if tuple(spaces) == SAM else {**usual, "segmenter": "none", "invertibility": "measured"}


def alone_of(plain: Path) -> dict[str, tuple[list[str], str]]:
    """Spaces and encoder of each row of the second table."""
    known = shipped(ALONE)
    return {PLAIN: (["W+"], str(plain)), **known} if plain.is_file() else known


def shipped(rows: dict[str, tuple[list[str], str]]) -> dict[str, tuple[list[str], str]]:
    """Those whose encoder comes with the package."""
    return {name: row for name, row in rows.items() if row[1] in ENCODERS}


def there(starts: dict[str, Warm]) -> dict[str, Warm]:
    """Those whose encoder comes with the package."""
    return {name: warm for name, warm in starts.items() if warm.encoder in ENCODERS}


def gains(records: Sequence[Record], name: str, budget: int) -> list[float]:
    """By how many dB so many steps from the encoder are above the cold start, by scene."""
    rows = [row["starts"][name] for record in records for row in record.values()]
    return [row[WARM[name].encoder][str(budget)] - row["mean"][str(COLD)] for row in rows]


def start_table(records: Sequence[Record]) -> str:
    """Medians by start and budget."""
    rows: list[list[object]] = []
    for name, warm in there(WARM).items():
        for start, budget in (("mean", COLD), *itertools.product([warm.encoder], warm.budgets)):
            psnr = [median(records, group, "starts", name, start, str(budget)) for group in GROUPS]
            found = [] if start == "mean" else gains(records, name, budget)
            rest = [statistics.median(found), sum(x < -1 for x in found)] if found else [None, None]
            rows.append([name, start, str(budget), *psnr, *rest])
    headers = [f"PSNR {words} (dB)" for words in GROUPS.values()]
    return markdown(["Spaces", "start", "steps", *headers, "median gain (dB)", "scenes 1 dB below"], rows)


def alone_table(records: Sequence[Record]) -> str:
    """Medians of the encoders alone, and of edits of what they say."""
    rows: list[list[object]] = []
    for name in alone_of(PLAIN_FILE):
        scores = [median(records, group, "alone", name, key) for group in GROUPS for key in ("psnr", "perceptual")]
        effects = [median(records, "strangers", "alone", name, "effect", factor) for factor in EDITED]
        drifts = [median(records, "strangers", "alone", name, f"mean_{key}") for key in ("effect", "drift")]
        rows.append([name, *scores, *effects, *drifts])
    heads = [f"{what}, {words}" for words in GROUPS.values() for what in ("PSNR (dB)", "demo perceptual")]
    return markdown(["Encoder alone", *heads, *EDITED, "mean effect", "drift outside"], rows, digits=3)


def enough(records: Sequence[Record], name: str) -> float | None:
    """Least budget from which half of the scenes are at the PSNR of their cold start or above it."""
    reached = [budget for budget in WARM[name].budgets if statistics.median(gains(records, name, budget)) >= 0]
    return float(min(reached)) if reached else None


def difference(records: Sequence[Record], group: str, one: str, other: str, key: str) -> float | None:
    """Difference of two medians of encoders alone."""
    found = [median(records, group, "alone", name, key) for name in (one, other)]
    return found[0] - found[1] if found[0] is not None and found[1] is not None else None


def figures(records: Sequence[Record]) -> list[Record]:
    """The figures that are held against bars."""
    found = []
    for name, warm in there(WARM).items():
        label = f"steps from {warm.encoder} to the PSNR of {COLD} from the mean w, {name}"
        found.append(figure(label, enough(records, name), at_most=60))
        if COLD in warm.budgets:
            final = statistics.median(gains(records, name, COLD))
            found.append(
                figure(f"final PSNR from {warm.encoder}, median gain, {name}", final, at_least=-0.1, unit="dB")
            )
    for group, words in GROUPS.items():
        gain = difference(records, group, "padinv", PLAIN, "psnr")
        found.append(figure(f"padinv above the same without padding, PSNR {words}", gain, at_least=2, unit="dB"))
        closer = difference(records, group, "feature-style", "padinv", "perceptual")
        found.append(figure(f"perceptual distance of feature-style above padinv, {words}", closer, at_most=0))
    return found


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("encoders", __doc__, argv)
    if not shipped(ALONE):
        raise SystemExit("No encoder comes with this version of the package, so there is nothing to measure.")
    pairs = -(-options.scenes // (2 * TOGETHER))
    chunks = [k for k in range(2 * pairs) if range(2 * TOGETHER * (k // 2) + k % 2, options.scenes, 2)]
    records = [scene for chunk in run("encoders", task, chunks, options) for scene in chunk["scenes"]]
    report("encoders", options, [start_table(records), alone_table(records)], figures(records), records)


if __name__ == "__main__":
    main()
