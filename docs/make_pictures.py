"""Makes the pictures of the documentation.

    python docs/make_pictures.py                     all of them
    python docs/make_pictures.py --only scenes       some of them

``scenes`` and ``strangers`` are contact sheets of the demo world, ``sheet`` is a scene inverted and edited, ``blend``,
``pair`` and ``codes`` combine inversions. The curve over τ is drawn by ``benchmarks/tau_sweep.py --docs``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import saminv
from saminv import images
from saminv.demo.report import SEED, run_demo
from saminv.editing import PairEdit
from saminv.editing.panels import draw_blend, draw_codes, draw_pair

HERE = Path(__file__).resolve().parent
QUALITY, SHEET_WIDTH = 90, 1600
PAIR = 1
KINDS = ("scenes", "strangers", "sheet", "blend", "pair", "codes")


def contact_sheet(batch: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Tile images `[B, 3, H, W]` row by row on white: `[1, 3, H', W']`."""
    _, _, height, width = batch.shape
    rows = -(-len(batch) // columns)
    canvas = batch.new_ones(1, 3, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for index, image in enumerate(batch):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[0, :, top : top + height, left : left + width] = image
    return canvas


def draw_scenes(arguments: argparse.Namespace) -> Path:
    """Scenes above, what the bundled generator makes of the same latents below."""
    generator = saminv.load_generator("demo")
    z = generator.sample_z(arguments.columns, arguments.seed)
    with torch.no_grad():
        samples = generator(z).clamp(-1, 1)
    scenes = saminv.demo.render(saminv.demo.factors_from_z(z)).images
    pictures = images.area_resize(torch.cat([scenes, samples]), arguments.size)
    return images.save(arguments.out / "scenes.jpg", contact_sheet(pictures, arguments.columns), quality=QUALITY)


def draw_strangers(arguments: argparse.Namespace) -> Path:
    """Scenes without strangers above, the same scenes with them below."""
    pictures = [
        saminv.demo.sample_scenes(arguments.columns, seed=arguments.seed, strangers=strangers).images
        for strangers in (False, True)
    ]
    resized = images.area_resize(torch.cat(pictures), arguments.size)
    return images.save(arguments.out / "strangers.jpg", contact_sheet(resized, arguments.columns), quality=QUALITY)


def draw_sheet(arguments: argparse.Namespace) -> Path:
    """The sheet that ``saminv demo`` makes, small enough for a page."""
    with tempfile.TemporaryDirectory() as folder:
        run_demo(saminv.invert, folder, steps=arguments.steps, seed=arguments.scene)
        sheet = images.load(Path(folder) / "sheet.png")
    return save_sheet(sheet.tensor, "demo-sheet", arguments)


def save_sheet(sheet: Tensor, name: str, arguments: argparse.Namespace) -> Path:
    """Write a sheet `[1, 3, H, W]`, small enough for a page."""
    height, width = sheet.shape[-2:]
    picture = images.area_resize(sheet, (round(height * SHEET_WIDTH / width), SHEET_WIDTH))
    return images.save(arguments.out / f"{name}.jpg", picture, quality=QUALITY)


def draw_blends(arguments: argparse.Namespace) -> Path:
    """The padding of one scene under the styles of another, and ways between pictures."""
    scenes = saminv.demo.sample_scenes(2, seed=arguments.pair)
    found = saminv.invert(scenes.images, ["W+", "P"], steps=arguments.steps)
    return save_sheet(draw_blend(found[0], found[1]), "blend-sheet", arguments)


def draw_pairs(arguments: argparse.Namespace) -> Path:
    """An edit that one pair of scenes shows, on two others."""
    scenes = saminv.demo.sample_scenes(3, seed=arguments.pair)
    found = saminv.invert(scenes.images, ["W+", "P"], steps=arguments.steps)
    factors = scenes.factors[:1].clone()
    column = list(saminv.demo.FACTORS).index("car_hue")
    factors[:, column] = 0.9 if float(factors[0, column]) < 0.5 else 0.1
    after = saminv.demo.render(factors).images
    pair = PairEdit(found[0], saminv.invert(after, ["W+", "P"], encoder=found[0], steps=arguments.steps))
    return save_sheet(draw_pair(pair, found[1:]), "pair-sheet", arguments)


def draw_layers(arguments: argparse.Namespace) -> Path:
    """What feature codes at layers 4 to 7 keep, and what styles change under them."""
    scenes = saminv.demo.sample_scenes(2, seed=arguments.pair).images
    pairs = {}
    for name in ("FS4", "FS5", "FS6", "FS7"):
        found = saminv.invert(scenes, ["W+", name], steps=arguments.steps)
        pairs[name] = found[0], found[1]
    return save_sheet(draw_codes(pairs), "codes-sheet", arguments)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="which pictures")
    parser.add_argument("--out", type=Path, default=HERE / "pictures", help="folder of the pictures")
    parser.add_argument("--size", type=int, default=96, help="side of a picture in a contact sheet, in pixels")
    parser.add_argument("--columns", type=int, default=8, help="pictures in a row of a contact sheet")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes of the contact sheets")
    parser.add_argument("--scene", type=int, default=SEED, help="seed of the scene of the sheet")
    parser.add_argument("--pair", type=int, default=PAIR, help="seed of the scenes that are combined")
    parser.add_argument("--steps", type=int, default=300, help="steps of each inversion")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Make the pictures that the command line asks for."""
    arguments = parse(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[argparse.Namespace], Path]] = {
        "scenes": draw_scenes,
        "strangers": draw_strangers,
        "sheet": draw_sheet,
        "blend": draw_blends,
        "pair": draw_pairs,
        "codes": draw_layers,
    }
    for kind in arguments.only:
        print(makers[kind](arguments))


if __name__ == "__main__":
    main()
