"""Edits from one pair of pictures, by padding (n_p) and by styles (n_s), as in table 3 of the padding space paper.

For each factor a pair of scenes differs in it alone. What their inversions differ in is added to other scenes, in P and
in W+; MSE_p and MSE_s are the mean squared changes of these outside what the factor itself would change in them. The
space is chosen by the effect on the pair, inside the region where its pictures differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from common import Options, Record, Scene, figure, parse, report, run
from common import table as markdown
from torch import Tensor

import saminv
from saminv import Solution
from saminv.demo import FACTORS, render
from saminv.editing import PairEdit

SPATIAL = ("cabin_height", "car_x", "car_size")
STYLE = ("car_hue", "car_lightness")
PAIRS = {**dict.fromkeys(SPATIAL, "P"), **dict.fromkeys(STYLE, "W+")}
"""Factors, and the space that the paper chooses for their kind."""
SPACES = ("W+", "P")
AMOUNT = 0.35
"""Change of a factor, as part of its range."""
MARGIN, VISIBLE = 4, 0.02
TOGETHER = 13
"""Scenes that are inverted in one batch."""
SCENES = 50


def changed(factors: Tensor, factor: str) -> Tensor:
    """Factors `[B, K]` with one of them moved, towards the side with more room."""
    column = FACTORS.index(factor)
    moved = factors.clone()
    moved[:, column] += torch.where(factors[:, column] < 0.5, AMOUNT, -AMOUNT)
    return moved.clamp(0, 1)


def task(chunk: Scene, options: Options) -> Record:
    """Changes of a batch of scenes by each factor and space; ``chunk.index`` counts batches."""
    settings = {"generator": "demo", "steps": options.steps, "segmenter": "none", "invertibility": "measured"}
    numbers = range(1 + TOGETHER * chunk.index, 1 + min(TOGETHER * (chunk.index + 1), options.scenes))
    scenes = [Scene(k, False) for k in numbers]
    images = torch.cat([scene.batch.images for scene in scenes])
    start = torch.cat([scene.start for scene in scenes])
    others = saminv.invert(images, SPACES, encoder=start, **settings)
    first = Scene(0, False).batch
    pictures = torch.cat([render(changed(first.factors, factor)).images for factor in PAIRS])
    before = saminv.invert(first.images, SPACES, **settings)
    after = saminv.invert(pictures, SPACES, encoder=Solution.join([before] * len(PAIRS)), **settings)
    found: Record = {}
    for row, factor in enumerate(PAIRS):
        pair = PairEdit(before, after[row])
        outside = torch.cat([untouched(scene, factor) for scene in scenes])
        changes = {}
        for space in SPACES:
            change = (pair.apply(others, space).clamp(-1, 1) - others.image.clamp(-1, 1)).square().mean(dim=1)
            changes[space] = (change * outside).sum(dim=(1, 2)).div(outside.sum(dim=(1, 2)).clamp_min(1)).tolist()
        found[factor] = {"effects": pair.effects(), "chosen": pair.choose(), "outside": changes}
    return found


def untouched(scene: Scene, factor: str) -> Tensor:
    """`[1, H, W]`, 1 where a change of the factor alone leaves the scene's own picture as it is."""
    after = render(changed(scene.batch.factors, factor)).images
    touched = ((after - scene.batch.images).abs() > VISIBLE).any(dim=1, keepdim=True).float()
    return 1 - F.max_pool2d(touched, 2 * MARGIN + 1, 1, MARGIN)[:, 0]


def mean_outside(records: Sequence[Record], factor: str, space: str) -> float:
    """Mean over all scenes."""
    found = [value for record in records for value in record[factor]["outside"][space]]
    return sum(found) / len(found)


def factor_table(records: Sequence[Record]) -> str:
    """A row for each factor."""
    rows = []
    for factor, expected in PAIRS.items():
        padded, styled = (1e4 * mean_outside(records, factor, space) for space in ("P", "W+"))
        effects = records[0][factor]["effects"]
        row = [factor, padded, styled, padded / styled, effects["P"], effects["W+"], records[0][factor]["chosen"]]
        rows.append([*row, expected])
    headers = ["Factor", "MSE_p, 1e-4", "MSE_s, 1e-4", "MSE_p : MSE_s", "effect of P", "effect of W+"]
    return markdown([*headers, "chosen", "paper's kind"], rows)


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("pair_edits", __doc__, argv, scenes=SCENES)
    records = run("pair_edits", task, range(-(-options.scenes // TOGETHER)), options)
    agreed = sum(records[0][factor]["chosen"] == expected for factor, expected in PAIRS.items())
    found = [figure("factors whose chosen space is the paper's, of 5", float(agreed), at_least=4)]
    report("pair_edits", options, [factor_table(records)], found, records)


if __name__ == "__main__":
    main()
