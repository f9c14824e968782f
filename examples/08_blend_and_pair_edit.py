"""Two pictures combined: the padding of one under the styles of the other, and an edit that one pair shows.

Writes a sheet of the blend with both interpolations (Fig. 6 to 8 of the padding space paper), and a sheet of an edit
that is learnt from a scene before and after a change of one of its factors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import saminv
from saminv import images
from saminv.editing import PairEdit
from saminv.editing.panels import draw_blend, draw_pair

SPACES = ["W+", "P"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--factor", default="car_hue", choices=saminv.demo.FACTORS, metavar="FACTOR")
    parser.add_argument("--seed", type=int, default=1, help="of the scenes")
    parser.add_argument("--out", type=Path, default=Path("example-out"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    scenes = saminv.demo.sample_scenes(3, seed=options.seed)

    found = saminv.invert(scenes.images, SPACES, steps=options.steps)
    a, b, others = found[0], found[1], found[1:]
    images.save(options.out / "blend-sheet.png", draw_blend(a, b))

    # The same scene with one factor moved to the other end of its range.
    column = list(saminv.demo.FACTORS).index(options.factor)
    factors = scenes.factors[:1].clone()
    factors[:, column] = 0.9 if float(factors[0, column]) < 0.5 else 0.1
    after = saminv.invert(saminv.demo.render(factors).images, SPACES, encoder=a, steps=options.steps)
    pair = PairEdit(a, after)
    print(f"{options.factor}:", "  ".join(f"{space} {effect:.2f}" for space, effect in pair.effects().items()))
    images.save(options.out / "pair-sheet.png", draw_pair(pair, others))
    print(options.out / "blend-sheet.png", options.out / "pair-sheet.png", sep="\n")


if __name__ == "__main__":
    main()
