"""A folder of pictures: inverted in batches, resumable, with a summary and a gallery.

Without a folder of your own, a few scenes are drawn. Call it twice: the second call has nothing left to do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import saminv
from saminv import images
from saminv.runs import describe_run, run, summarise_run, write_gallery


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="*", help="files and folders (scenes that are drawn for it)")
    parser.add_argument("--spaces", nargs="+", default=["W+", "F4", "F6", "F8"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--count", type=int, default=6, help="number of scenes, where no pictures are named")
    parser.add_argument("--out", type=Path, default=Path("example-out"))
    options = parser.parse_args()

    pictures = options.pictures or [draw(options.out / "scenes", options.count)]
    report = run(pictures, options.out / "run", options.spaces, steps=options.steps)
    print(f"{report.done} of {report.total} done, {report.fresh} of them now")
    for name, reason in report.failed.items():
        print(f"passed over {name}: {reason}")

    summary = summarise_run(options.out / "run")
    print(describe_run(summary))
    print(write_gallery(summary, options.out / "run"))


def draw(folder: Path, count: int) -> Path:
    """Write scenes, every other one with strangers; returns their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        scene = saminv.demo.sample_scenes(1, seed=seed, strangers=seed % 2 == 0)
        images.save(folder / f"scene-{seed}.png", scene.images)
    return folder


if __name__ == "__main__":
    main()
