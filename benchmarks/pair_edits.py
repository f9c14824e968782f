"""Edits from one pair of pictures, by padding (n_p) and by styles (n_s), as in table 3 of the padding space paper.

For each factor a pair of scenes differs in it alone. What their inversions differ in is added to other scenes, in P and
in W+. MSE_p and MSE_s are the mean squared changes of these outside what the factor itself would change in them, and
transfer is how far the factor moves in them, relative to the pair. The space is chosen by its effect on the pair, where
its pictures differ. Reach says what each space could do there: how much of the edit an inversion of the second picture
gets when only this space moves away from that of the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from common import Options, Record, Scene, figure, parse, report, run
from common import table as markdown
from measures import read_factor, vision
from torch import Tensor

import saminv
from saminv import Solution
from saminv.demo import FACTORS, render
from saminv.editing import PairEdit
from saminv.metrics import edit_effect

SPATIAL = ("cabin_height", "car_x", "car_size")
STYLE = ("car_hue", "car_lightness")
PAIRS = {**dict.fromkeys(SPATIAL, "P"), **dict.fromkeys(STYLE, "W+")}
"""Factors, and the space that the paper chooses for their kind."""
SPACES = ("W+", "P")
COLUMNS = ("P", "W+")
AMOUNT = 0.35
"""Change of a factor, as part of its range."""
MARGIN, VISIBLE = 4, 0.02
TOGETHER = 13
"""Scenes that are inverted in one batch."""
SCENES = 50


FROZEN = 1e-9
"""Rate of a space that is to stay where it is."""


def changed(factors: Tensor, factor: str, change: float) -> Tensor:
    """Factors `[B, K]` with one of them moved, as far as its range goes."""
    moved = factors.clone()
    moved[:, FACTORS.index(factor)] += change
    return moved.clamp(0, 1)


def change_of(first: Scene, factor: str) -> float:
    """How far the pair's factor moves: towards the side with more room."""
    return AMOUNT if float(first.batch.factors[0, FACTORS.index(factor)]) < 0.5 else -AMOUNT


def task(chunk: Scene, options: Options) -> Record:
    """Changes of a batch of scenes by each factor and space; ``chunk.index`` counts batches."""
    settings = {"generator": "demo", "steps": options.steps, "segmenter": "none", "invertibility": "measured"}
    numbers = range(1 + TOGETHER * chunk.index, 1 + min(TOGETHER * (chunk.index + 1), options.scenes))
    scenes = [Scene(k, False) for k in numbers]
    images = torch.cat([scene.batch.images for scene in scenes])
    start = torch.cat([scene.start for scene in scenes])
    others = saminv.invert(images, SPACES, encoder=start, **settings)
    first = Scene(0, False)
    pictures = [render(changed(first.batch.factors, factor, change_of(first, factor))).images for factor in PAIRS]
    before = saminv.invert(first.batch.images, SPACES, **settings)
    settings["encoder"] = Solution.join([before] * len(PAIRS))
    after = saminv.invert(torch.cat(pictures), SPACES, **settings)
    found: Record = {}
    for row, factor in enumerate(PAIRS):
        pair = PairEdit(before, after[row])
        outside = torch.cat([untouched(scene, factor, change_of(first, factor)) for scene in scenes])
        edited = {space: pair.apply(others, space).clamp(-1, 1) for space in SPACES}
        found[factor] = {
            "effects": pair.effects(),
            "chosen": pair.choose(),
            "outside": {space: mean_change(others.image, edited[space], outside) for space in SPACES},
            "transfer": {space: transfer(pair, others.image, edited[space], factor) for space in SPACES},
        }
    if chunk.index == 0:
        for space in SPACES:
            frozen = {other: FROZEN for other in SPACES if other != space}
            alone = saminv.invert(torch.cat(pictures), SPACES, rates=frozen, **settings)
            for row, factor in enumerate(PAIRS):
                found[factor].setdefault("reach", {})[space] = reach(PairEdit(before, alone[row]))
    return found


def untouched(scene: Scene, factor: str, change: float) -> Tensor:
    """`[1, H, W]`, 1 where a change of the factor alone leaves the scene's own picture as it is."""
    after = render(changed(scene.batch.factors, factor, change)).images
    touched = ((after - scene.batch.images).abs() > VISIBLE).any(dim=1, keepdim=True).float()
    return 1 - F.max_pool2d(touched, 2 * MARGIN + 1, 1, MARGIN)[:, 0]


def mean_change(before: Tensor, after: Tensor, where: Tensor) -> list[float]:
    """Mean squared change of each picture where a mask `[B, H, W]` is 1."""
    change = (after - before.clamp(-1, 1)).square().mean(dim=1)
    return (change * where).sum(dim=(1, 2)).div(where.sum(dim=(1, 2)).clamp_min(1)).tolist()


@torch.no_grad()
def transfer(pair: PairEdit, before: Tensor, after: Tensor, factor: str) -> list[float]:
    """How far the factor moves in each picture, relative to how far it moves in the pair."""
    shown = (read_factor(pair.before.target, factor), read_factor(pair.after.target, factor))
    reference = [value.expand(len(before)) for value in shown]
    read = (read_factor(before, factor), read_factor(after, factor))
    return edit_effect(*read, *reference, period=vision().config.period(factor)).tolist()


def reach(pair: PairEdit) -> float:
    """Part of the squared difference between the pair's pictures that the second solution explains, inside."""
    end, where = pair.after.target, pair.region
    errors = [((image.clamp(-1, 1) - end).square() * where).sum() for image in (pair.after.image, pair.before.image)]
    return float(1 - errors[0] / errors[1])


def over_scenes(records: Sequence[Record], factor: str, measure: str, space: str) -> Tensor:
    """What was measured in all scenes, `[N]`."""
    return torch.tensor([value for record in records for value in record[factor][measure][space]])


def factor_table(records: Sequence[Record]) -> str:
    """A row for each factor."""
    rows = []
    for factor, expected in PAIRS.items():
        once = records[0][factor]
        outside = [1e4 * float(over_scenes(records, factor, "outside", space).mean()) for space in COLUMNS]
        moved = [float(over_scenes(records, factor, "transfer", space).median()) for space in COLUMNS]
        pair = [once[measure][space] for measure in ("effects", "reach") for space in COLUMNS]
        rows.append([factor, *outside, outside[0] / outside[1], *moved, *pair, once["chosen"], expected])
    headers = ["Factor", "MSE_p, 1e-4", "MSE_s, 1e-4", "MSE_p : MSE_s"]
    headers += [f"{measure} of {space}" for measure in ("transfer", "effect", "reach") for space in COLUMNS]
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
