"""Invert a scene with things that the generator never saw, and look at the result.

Writes scene.png, reconstruction.png, sheet.png and scene.safetensors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import saminv
from saminv import images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=12, help="of the scene")
    parser.add_argument("--out", type=Path, default=Path("example-out"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    scene = saminv.demo.sample_scenes(1, seed=options.seed, strangers=True)
    solution = saminv.invert(scene.images, spaces=["W+", "F4", "F6"], tau=0.3, steps=options.steps)

    print(solution.statuses[0].sentence)
    print(f"PSNR {solution.stats['psnr'].item():.2f} dB after {solution.stats['steps'].item()} steps")
    for name in solution.regions.spaces:
        print(f"{name:3s} holds {solution.regions.share(name).item():.1%} of the picture")

    images.save(options.out / "scene.png", scene.images)
    images.save(options.out / "reconstruction.png", solution.image)
    images.save(options.out / "sheet.png", solution.sheet())
    solution.save(options.out / "scene.safetensors")
    print(f"wrote {options.out / 'sheet.png'}")


if __name__ == "__main__":
    main()
