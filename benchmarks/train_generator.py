"""Training of a generator on a folder of pictures: images per second, and whether its score falls.

Scenes are rendered at 64 pixels, written as PNG files and read back as anybody's pictures would be; ``--scenes`` says
how many. A generator is then trained on them for ``--steps`` steps with the usual settings of a processor and
``--workers`` threads. The score is the Fréchet distance of features of the demo's vision network; it is no FID. An
interrupted training goes on, and so does a finished one where more steps are asked for.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import scipy.stats
import torch
from common import Options, Record, figure, parse, ratio, report, state_of_code, table
from tqdm import tqdm

import saminv
from saminv import images
from saminv.demo import sample_scenes
from saminv.train import GeneratorTraining, prepare_pictures, train_generator, training_for
from saminv.train._logs import read_rows
from saminv.train.generator import CURVE, SAMPLES
from saminv.train.plots import check_plots
from saminv.train.settings import LOG, SCORES

SIDE = 64
FIRST_SEED = 3_000_000
"""Seed of the first scenes; other trainings and the held-out scenes have theirs elsewhere."""
TOGETHER = 50
SCORED = 500
SAVE_KIMG, SCORE_KIMG = 2.0, 10.0
LEAST_SCORES = 8
"""Of a training that is too short for one each ``SCORE_KIMG``."""


def write_pictures(folder: Path, count: int) -> Path:
    """Write scenes as PNG files; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in tqdm(range(0, count, TOGETHER), unit="batch", desc="scenes"):
        paths = [folder / f"scene-{k:05d}.png" for k in range(first, min(first + TOGETHER, count))]
        if not all(path.exists() for path in paths):
            for path, scene in zip(paths, sample_scenes(len(paths), FIRST_SEED + first, size=SIDE).images):
                images.save(path, scene)
    return folder


def settings(options: Options) -> GeneratorTraining:
    """The usual training of so many steps."""
    usual = training_for(SIDE, options.scenes)
    batch = min(usual.batch, options.scenes)
    kimg = options.steps * batch / 1000
    return training_for(
        SIDE,
        options.scenes,
        batch=batch,
        kimg=kimg,
        score_kimg=min(SCORE_KIMG, kimg / LEAST_SCORES),
        save_kimg=min(SAVE_KIMG, kimg / LEAST_SCORES),
        score_images=min(SCORED, options.scenes),
    )


def place_of(options: Options) -> Path:
    """Folder of the training, another one whenever the code or its settings change, but for its length."""
    training = settings(options)
    marks = f"{training.score_kimg} {training.save_kimg}"
    digest = hashlib.sha256(f"{state_of_code()} {options.scenes} {marks}".encode())
    for path in sorted((Path(saminv.__file__).parent / "train").glob("*.py")):
        digest.update(path.read_bytes())
    return options.cache / "train_generator" / digest.hexdigest()[:32]


def train(options: Options) -> tuple[Path, list[Record]]:
    """Train, or go on; returns the folder and a record per score."""
    place = place_of(options)
    torch.set_num_threads(options.workers)
    saminv.keep_memory()
    sources = write_pictures(options.cache / "train_generator" / f"scenes-{SIDE}-{options.scenes}", options.scenes)
    data = prepare_pictures(sources, options.cache / "train_generator" / "pictures", SIDE)
    try:
        train_generator(data, place, settings(options), command=options.command)
    except KeyboardInterrupt:
        print("\nThe training was interrupted. Call it again with the same settings, and it goes on.", file=sys.stderr)
        raise SystemExit(130) from None
    speeds = {row["step"]: row["images_per_second"] for row in read_rows(place / LOG)}
    rows = [row for row in read_rows(place / SCORES) if row["step"] <= options.steps]
    return place, [{**row, "images_per_second": speeds.get(row["step"])} for row in rows]


def score_table(records: Sequence[Record]) -> str:
    """Scores and speed over the training."""
    rows = [[f"{row['kimg']:.1f}", row["score"], row["images_per_second"], row["seconds"] / 60] for row in records]
    return table(["thousand images shown", "score", "images per second", "minutes in all"], rows, digits=1)


def falling(scores: Sequence[float]) -> list[Record]:
    """Whether scores fall: late ones by early ones, and how well they are ordered."""
    part = max(1, len(scores) // 4)
    few = len(scores) < LEAST_SCORES
    first, last = (None, None) if few else (statistics.mean(scores[:part]), statistics.mean(scores[-part:]))
    order = None if few else float(scipy.stats.spearmanr(range(len(scores)), scores).statistic)
    return [
        figure("mean score of the last quarter, as a part of the first quarter's", ratio(last, first), at_most=0.7),
        figure("rank correlation of scores and images shown", order, at_most=-0.7),
    ]


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("train_generator", __doc__, argv, scenes=2000, steps=9375)
    place, records = train(options)
    speeds = [row["images_per_second"] for row in records if row["images_per_second"]]
    found = [
        figure(f"images per second at {SIDE} pixels", statistics.median(speeds) if speeds else None),
        *falling([row["score"] for row in records]),
    ]
    report("train_generator", options, [score_table(records)], found, records, page="performance.md")
    if options.docs is not None and check_plots():
        pictures = options.docs / "pictures"
        pictures.mkdir(exist_ok=True)
        shutil.copy(place / CURVE, pictures / "train_generator_curve.png")
        last = max((place / SAMPLES).glob("*.png"))
        shutil.copy(last, pictures / "train_generator_samples.png")


if __name__ == "__main__":
    main()
