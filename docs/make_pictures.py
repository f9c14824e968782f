"""Makes the pictures of the documentation.

    python docs/make_pictures.py                     all of them
    python docs/make_pictures.py --only scenes       some of them

``scenes`` and ``strangers`` are contact sheets of the demo world, ``sheet`` is a scene inverted and edited. The curve
over τ is drawn by ``benchmarks/tau_sweep.py --docs``.
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

HERE = Path(__file__).resolve().parent
QUALITY, SHEET_WIDTH = 90, 1600
KINDS = ("scenes", "strangers", "sheet")


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
    height, width = sheet.size
    picture = images.area_resize(sheet.tensor, (round(height * SHEET_WIDTH / width), SHEET_WIDTH))
    return images.save(arguments.out / "demo-sheet.jpg", picture, quality=QUALITY)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="which pictures")
    parser.add_argument("--out", type=Path, default=HERE / "pictures", help="folder of the pictures")
    parser.add_argument("--size", type=int, default=96, help="side of a picture in a contact sheet, in pixels")
    parser.add_argument("--columns", type=int, default=8, help="pictures in a row of a contact sheet")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes of the contact sheets")
    parser.add_argument("--scene", type=int, default=SEED, help="seed of the scene of the sheet")
    parser.add_argument("--steps", type=int, default=300, help="steps of each inversion of the sheet")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Make the pictures that the command line asks for."""
    arguments = parse(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[argparse.Namespace], Path]] = {
        "scenes": draw_scenes,
        "strangers": draw_strangers,
        "sheet": draw_sheet,
    }
    for kind in arguments.only:
        print(makers[kind](arguments))


if __name__ == "__main__":
    main()
