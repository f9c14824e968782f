"""Write random scenes as PNG files: a folder of pictures for runs and for training.

    python -m saminv.demo.write_scenes --out scenes --count 400

Every other scene has strangers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from .. import images
from .._files import ensure_folder
from .strangers import sample_scenes

FIRST_SEED = 2_000_000
"""Seed of the first scene. Trainings of the generator and the vision network draw theirs from other ranges."""


def write_scenes(folder: str | Path, count: int, first_seed: int = FIRST_SEED) -> list[Path]:
    """Write ``count`` scenes of one seed each, ``scene-<seed>.png``, and return their paths; those there are kept.

    Raises:
        OutputError: If the folder cannot be written.
    """
    place, paths = ensure_folder(folder), []
    for seed in tqdm(range(first_seed, first_seed + count), unit="scene"):
        path = place / f"scene-{seed}.png"
        if not path.exists():
            images.save(path, sample_scenes(1, seed, strangers=seed % 2 == 0).images)
        paths.append(path)
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"), help="folder (runs/scenes)")
    parser.add_argument("--count", type=int, default=400, help="number of scenes (400)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help=f"of the first scene ({FIRST_SEED})")
    arguments = parser.parse_args()
    write_scenes(arguments.out, arguments.count, arguments.seed)
