"""Padding and feature codes as spaces: what each adds to W+, and what it costs in editability.

The first table has the rows of the padding space paper's table 2, by optimisation: W+, then with more and more padding.
The second compares feature codes at K = 4 to 7 (figure 22 of the Feature-Style paper) in distortion and style mixing:
how much of the picture follows the other picture's styles when the code stays. The third is about SAM: what padding,
which acts on the whole border under every mask, adds and costs there. All scenes are inverted in batches. Those without
strangers see only the rows that a bar compares, and only some scenes of the first batches see all feature codes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import torch
from common import (
    Options,
    Record,
    Scene,
    batches_of,
    figure,
    kept,
    median,
    parse,
    report,
    run,
    scenes_of_batch,
)
from common import table as markdown
from measures import EDITED, EditTrial, reconstruction
from torch import Tensor

import saminv
from saminv import Solution
from saminv.editing import blend

TOGETHER = 8
"""Scenes that are inverted in one batch."""
ABLATED = 4
"""Scenes of a batch that see all feature codes."""
PADDED = {
    "W+": ["W+"],
    "+ P0": ["W+", "P0"],
    "+ P0, 1": ["W+", "P0-1"],
    "+ P0, 1, 3": ["W+", "P0-3"],
    "+ P0, 1, 3, 5": ["W+", "P0-5"],
    "+ P0, 1, 3, 5, 7": ["W+", "P"],
    "+ P0, 1, 3, 5, 7, 9": ["W+", "P0-9"],
}
CODED = {f"FS{k}": ["W+", f"FS{k}"] for k in range(4, 8)} | {"FS5 and P7": ["W+", "FS5", "P7"]}
MASKED = {"W+ and masked F6": ["W+", "F6"], "W+, P and masked F6": ["W+", "P", "F6"]}
FULL = "+ P0, 1, 3, 5, 7"
LARGER = "+ P0, 1, 3, 5, 7, 9"
USUAL = "FS5"
COMPARED = ("W+", FULL, USUAL)
"""Rows that are measured without strangers too."""
GROUPS = {"strangers": "with strangers", "clean": "without"}


def task(chunk: Scene, options: Options) -> Record:
    """Scores of a batch of scenes by row; ``chunk.index`` counts batches, even ones have strangers."""
    scenes = scenes_of_batch(chunk.index, TOGETHER, options.scenes)
    images = torch.cat([scene.batch.images for scene in scenes])
    start = torch.cat([scene.start for scene in scenes])
    trials = [EditTrial(scene) for scene in scenes]
    rows: list[Record] = [{} for _ in scenes]
    for name, spaces in rows_of(chunk.index).items():
        settings: Record = {"generator": "demo", "steps": options.steps}
        if name not in MASKED:
            settings |= {"segmenter": "none", "invertibility": "measured"}
        count = min(len(scenes), ABLATED if name in CODED and name != USUAL else TOGETHER)
        make = functools.partial(saminv.invert, images[:count], spaces, encoder=start[:count], **settings)
        solution = kept(["padding", chunk.index, count, spaces, settings], make, options)
        mixed = style_share(solution) if name in CODED and count > 1 else None
        for k, scene in enumerate(scenes[:count]):
            one = solution[k]
            rows[k][name] = {**reconstruction(one.image, scene.batch.images), **trials[k].measure(one)}
            if mixed is not None:
                rows[k][name]["mixing"] = mixed[k]
    group = "strangers" if scenes[0].strangers else "clean"
    return {"scenes": [{group: row} for row in rows]}


def rows_of(batch: int) -> dict[str, list[str]]:
    """Names and spaces of the rows that a batch measures."""
    strangers, first = batch % 2 == 0, batch < 2
    coded = {name: spaces for name, spaces in CODED.items() if first or name == USUAL}
    padded = {name: spaces for name, spaces in PADDED.items() if strangers or name in COMPARED}
    return {**padded, **coded, **(MASKED if strangers else {})}


@torch.no_grad()
def style_share(solution: Solution) -> list[float]:
    """How far colours follow the other picture's styles, where each picture's code gets the styles of the next one.

    Part of the way from the mean colours of the code's picture to those of the styles' picture, over an 8 x 8 grid.
    """
    count = len(solution)
    turned = Solution.join([solution[(k + 1) % count] for k in range(count)])
    code = [name for name in solution.latents if name != "W+"]
    mixed = colours(blend(turned, solution, code))
    own, other = colours(solution.image), colours(turned.image)
    way = other - own
    return ((mixed - own) * way).sum(dim=1).div(way.square().sum(dim=1).clamp_min(1e-9)).tolist()


def colours(image: Tensor) -> Tensor:
    """Mean colours of the cells of a grid `[B, 192]`."""
    return torch.nn.functional.adaptive_avg_pool2d(image.clamp(-1, 1), 8).flatten(1)


def padding_table(records: Sequence[Record]) -> str:
    """Medians by amount of padding."""
    rows = []
    for name in PADDED:
        figures = [median(records, group, name, key) for group in GROUPS for key in ("psnr", "perceptual")]
        rows.append([name, *figures, *edit_figures(records, name)])
    return markdown(["Space", *headers(), *EDITED, "drift outside"], rows, digits=3)


def masked_table(records: Sequence[Record]) -> str:
    """Medians of SAM without and with padding, with strangers."""
    rows = []
    for name in MASKED:
        figures = [median(records, "strangers", name, key) for key in ("psnr", "perceptual")]
        rows.append([name, *figures, *edit_figures(records, name)])
    return markdown(["Spaces", "PSNR (dB)", "demo perceptual", *EDITED, "drift outside"], rows, digits=3)


def edit_figures(records: Sequence[Record], name: str) -> list[float | None]:
    """Medians of the effect of each edit, and of the drift, with strangers."""
    effects = [median(records, "strangers", name, "effect", factor) for factor in EDITED]
    return [*effects, median(records, "strangers", name, "mean_drift")]


def code_table(records: Sequence[Record]) -> str:
    """Medians by place of the feature code, over the scenes that see all of them."""
    rows = []
    records = [record for record in records for row in record.values() if all(name in row for name in CODED)]
    for name in CODED:
        figures = [median(records, group, name, key) for group in GROUPS for key in ("psnr", "perceptual")]
        effect = median(records, "strangers", name, "mean_effect")
        rows.append([name, *figures, effect, median(records, "clean", name, "mixing")])
    return markdown(["Space", *headers(), "mean effect", "style mixing"], rows, digits=3)


def headers() -> list[str]:
    """Of the figures of both groups of scenes."""
    return [f"{what}, {words}" for words in GROUPS.values() for what in ("PSNR (dB)", "demo perceptual")]


def difference(records: Sequence[Record], group: str, one: str, other: str, key: str = "psnr") -> float | None:
    """Difference of two medians."""
    found = [median(records, group, name, key) for name in (one, other)]
    return found[0] - found[1] if found[0] is not None and found[1] is not None else None


def figures(records: Sequence[Record]) -> list[Record]:
    """The figures that are held against bars."""
    names = list(PADDED)[: list(PADDED).index(FULL) + 1]
    falls = [difference(records, "strangers", after, before) for before, after in itertools.pairwise(names)]
    return [
        figure(
            "least gain of one more padding down to P7, PSNR with strangers",
            min((value for value in falls if value is not None), default=None),
            at_least=-0.1,
            unit="dB",
        ),
        figure(
            "W+ and P above W+, PSNR with strangers",
            difference(records, "strangers", FULL, "W+"),
            at_least=1.5,
            unit="dB",
        ),
        figure("what P9 adds, PSNR with strangers", difference(records, "strangers", LARGER, FULL), unit="dB"),
        figure(
            "mean edit effect of W+ and P above that of W+, with strangers",
            difference(records, "strangers", FULL, "W+", "mean_effect"),
        ),
        figure(
            "mean edit effect of W+, P and masked F6 above that without P",
            difference(records, "strangers", *reversed(MASKED), "mean_effect"),
        ),
        *(
            figure(
                f"perceptual distance of {USUAL} above that of W+ and P, {words}",
                difference(records, group, USUAL, FULL, "perceptual"),
                at_most=0,
            )
            for group, words in GROUPS.items()
        ),
    ]


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("padding", __doc__, argv)
    batches = batches_of(TOGETHER, options.scenes)
    records = [scene for chunk in run("padding", task, batches, options) for scene in chunk["scenes"]]
    tables = [padding_table(records), code_table(records), masked_table(records)]
    report("padding", options, tables, figures(records), records)


if __name__ == "__main__":
    main()
