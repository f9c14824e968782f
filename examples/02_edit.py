"""Edit an inversion: by a named direction, at several strengths, and by a direction of your own.

Writes one strip of pictures for each edit; the strengths go from left to right, the middle one is the reconstruction.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import saminv
from saminv import images
from saminv.editing import direction_names

STRENGTHS = [-2.0, -1.0, 0.0, 1.0, 2.0]


def larger_hills(generator, samples: int = 1000) -> torch.Tensor:
    """A direction from the contrast of two groups of samples; the demo's factors say which sample shows what."""
    z = generator.sample_z(samples, seed=1)
    height = saminv.demo.factors_from_z(z)[:, saminv.demo.FACTORS.index("hill_height")]
    w = generator.mapping(z)[:, 0]
    return (w[height > 0.75].mean(dim=0) - w[height < 0.25].mean(dim=0)) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=12, help="of the scene")
    parser.add_argument("--out", type=Path, default=Path("example-out"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    scene = saminv.demo.sample_scenes(1, seed=options.seed, strangers=True)
    solution = saminv.invert(scene.images, spaces=["W+", "F4", "F6", "F8"], steps=options.steps)
    known = direction_names(solution.generator)
    print("known directions:", ", ".join(known))

    edits = {name: name for name in ("car_hue", "car_size", "sky_hue") if name in known}
    edits["own"] = larger_hills(solution.generator)
    for name, direction in edits.items():
        edited = solution.edit(direction, STRENGTHS)
        change = (edited - solution.image).abs().mean(dim=(1, 2, 3))
        print(f"{name:10s} changes the picture by", " ".join(f"{value:.3f}" for value in change.tolist()))
        # [K, 3, H, W] side by side
        images.save(options.out / f"edit-{name}.png", torch.cat(list(edited), dim=-1))
    print(f"wrote {len(edits)} strips to {options.out}")


if __name__ == "__main__":
    main()
