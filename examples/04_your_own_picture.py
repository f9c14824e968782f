"""Invert and edit a picture of any size and shape, and put the result back into it.

Without a picture, a wide scene is rendered to a file first. Writes NAME-inverted.png and NAME-edited.png in the size of
the picture, and NAME-sheet.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import saminv
from saminv import images
from saminv.editing import direction_names


def wide_scene(path: Path) -> Path:
    """Render a scene and cut a wide strip out of it, as a stand-in for a photograph."""
    scene = saminv.demo.sample_scenes(1, seed=24, strangers=True, size=256)
    return images.save(path, scene.images[..., 20:240, :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, nargs="?", help="picture file; a rendered scene if not given")
    parser.add_argument("--spaces", nargs="+", default=["W+", "F4", "F6", "F8"])
    parser.add_argument("--fit", choices=("auto", "crop", "letterbox"), default="auto")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("example-out"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    path = options.picture or wide_scene(options.out / "wide.png")
    picture = images.load(path)
    solution = saminv.invert(path, options.spaces, steps=options.steps, fit_mode=options.fit)
    crop = images.Crop.from_dict(solution.provenance["crops"][0])
    print(f"{path}: {picture.size[1]} x {picture.size[0]} pixels, fitted by {crop.mode}")
    print(f"PSNR {solution.stats['psnr'].item():.2f} dB")
    distance = solution.stats["domain_distance"].item()
    print(f"its nearest sample is {distance:.1f} times as far away as samples are from each other")

    pasted = images.paste_back(picture, solution.image, crop)
    images.save(options.out / f"{path.stem}-inverted.png", pasted)
    known = direction_names(solution.generator)
    if known:
        name = "car_hue" if "car_hue" in known else known[0]
        edited = torch.nan_to_num(solution.edit(name, 1.0))
        images.save(options.out / f"{path.stem}-edited.png", images.paste_back(picture, edited, crop))
        print(f"edited by {name}")
    images.save(options.out / f"{path.stem}-sheet.png", solution.sheet())
    print(f"wrote the results to {options.out}")


if __name__ == "__main__":
    main()
