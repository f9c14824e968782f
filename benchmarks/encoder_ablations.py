"""Ablations of the demo's encoders: table 2 of the PadInv paper by encoder, and table 4 of the Feature-Style paper.

Every row is a training of ``--steps`` steps (:data:`saminv.demo.train_encoders.TRAININGS`); what is not trained yet is
trained first, one after the other with ``--workers`` threads, and goes on where it was interrupted. Those of the usual
length live where ``python -m saminv.demo.train_encoders NAME`` has them, in ``runs/encoder-NAME``, and of an encoder
that comes with the package that one is taken; others live below ``--cache``. The tables are about the encoders alone,
without a step: reconstruction, and edits of scenes with strangers.

Reference:
    Bai et al., 2022, arXiv 2203.11105, table 2; Yao et al., 2022, arXiv 2202.02183, table 4.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from common import FOLDER, Options, Record, Scene, batches_of, figure, median, parse, report, run, scenes_of_batch
from common import table as markdown
from measures import EditTrial, reconstruction

import saminv
from saminv.demo import train_encoders
from saminv.demo.encoders import NAMES
from saminv.encoders import ENCODERS, load_encoder
from saminv.train.encoder import BEST

TOGETHER = 8
"""Scenes that are inverted in one batch."""
STEPS: int = train_encoders.COMMON["steps"]
PADINV = {
    "plain": "W+",
    "padinv-p0": "+ P0",
    "padinv-p1": "+ P0, 1",
    "padinv-p3": "+ P0, 1, 3",
    "padinv-p5": "+ P0, 1, 3, 5",
    "padinv": "+ P0, 1, 3, 5, 7",
    "padinv-no-mean": "+ P0, 1, 3, 5, 7, without the mean-latent loss",
}
"""Trainings of the first table, and what their rows are called."""
GROWING = ("plain", "padinv-p0", "padinv-p1", "padinv-p3", "padinv-p5", "padinv")
"""Each has one padding more than the one before."""
STYLE = {
    "feature-style-a": "(A) one scale",
    "feature-style-b": "(B) no feature code",
    "feature-style-c": "(C) no samples",
    "feature-style-d": "(D) none of these",
}
"""Those of the second table."""
BASELINE = "feature-style-d"
GROUPS = {"strangers": "with strangers", "clean": "without"}
SCORES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "perceptual": "demo perceptual"}
RUNS = FOLDER.parent / "runs"


def trained(name: str, options: Options) -> str:
    """Name or path of the encoder of a training, which is trained if it is not there."""
    usual = options.steps == STEPS
    bundled = f"{NAMES}{name}"
    if usual and bundled in ENCODERS:
        return bundled
    folder = RUNS / f"encoder-{name}" if usual else options.cache / "encoders" / f"{name}-{options.steps}"
    print(f"training {name} in {folder}", file=sys.stderr)
    torch.set_num_threads(options.workers)
    # A training that has ended already takes no step.
    train_encoders.train(name, folder, precision=train_encoders.PRECISION, steps=None if usual else options.steps)
    return str(folder / BEST)


def opened(encoder: str) -> saminv.encoders.AbstractEncoder:
    """An encoder by name or path."""
    return ENCODERS.get(encoder)() if encoder in ENCODERS else load_encoder(encoder)


def task(encoder: str, chunk: Scene, options: Options) -> Record:
    """Scores and edits of what an encoder says of a batch of scenes; ``chunk.index`` counts batches."""
    scenes = scenes_of_batch(chunk.index, TOGETHER, options.scenes)
    images = torch.cat([scene.batch.images for scene in scenes])
    found = opened(encoder)
    spaces = ["W+", *sorted(found.provides - {"W+"})]
    settings = {"generator": "demo", "segmenter": "none", "invertibility": "measured"}
    solution = saminv.invert(images, spaces, encoder=found, steps=0, **settings)
    rows = []
    for k, scene in enumerate(scenes):
        one = solution[k]
        edits = EditTrial(scene).measure(one) if scene.strangers else {}
        group = "strangers" if scene.strangers else "clean"
        rows.append({group: {**reconstruction(one.image, scene.batch.images), **edits}})
    return {"rows": rows}


def measure(name: str, options: Options) -> Record:
    """All that is known of a training's encoder."""
    encoder = trained(name, options)
    arrays = b"" if encoder in ENCODERS else Path(encoder).read_bytes()
    digest = hashlib.sha256(arrays).hexdigest()[:12]
    chunks = run(
        f"ablation-{name}-{digest}", functools.partial(task, encoder), batches_of(TOGETHER, options.scenes), options
    )
    return {"training": name, "sha256": digest, "rows": [row for chunk in chunks for row in chunk["rows"]]}


def score(records: Sequence[Record], name: str, group: str, *key: str) -> float | None:
    """Median over the scenes of a group of what a training's encoder has; None without such a training."""
    rows = [row for record in records if record["training"] == name for row in record["rows"]]
    return median(rows, group, *key)


def table(records: Sequence[Record], titles: dict[str, str]) -> str:
    """Reconstruction and edits by training."""
    rows: list[list[object]] = []
    for name, title in titles.items():
        scores = [score(records, name, group, key) for group in GROUPS for key in SCORES]
        rows.append(
            [title, *scores, *(score(records, name, "strangers", f"mean_{key}") for key in ("effect", "drift"))]
        )
    heads = [f"{what}, {words}" for words in GROUPS.values() for what in SCORES.values()]
    return markdown(["Encoder alone", *heads, "mean effect", "drift outside"], rows, digits=3)


def difference(records: Sequence[Record], one: str, other: str, *path: str) -> float | None:
    """By how much a training's median at a path is above that of another."""
    first, second = (score(records, name, *path) for name in (one, other))
    return first - second if first is not None and second is not None else None


def figures(records: Sequence[Record]) -> list[Record]:
    """What the paper's tables are read for; none of it is held against a bar."""
    gains = [difference(records, more, less, "strangers", "psnr") for less, more in itertools.pairwise(GROWING)]
    known = [gain for gain in gains if gain is not None]
    found = [
        figure("least gain of one more padding down to P7, PSNR with strangers", min(known, default=None), unit="dB")
    ]
    pairs = {
        "W+ and P above W+": ("padinv", "plain"),
        "without the mean-latent loss minus with it": ("padinv-no-mean", "padinv"),
        **{f"{STYLE[name]} minus (D)": (name, BASELINE) for name in STYLE if name != BASELINE},
    }
    for label, (one, other) in pairs.items():
        for key, what, unit in (
            ("psnr", "PSNR", "dB"),
            ("perceptual", "perceptual distance", ""),
            ("mean_effect", "mean edit effect", ""),
        ):
            value = difference(records, one, other, "strangers", key)
            found.append(figure(f"{label}, {what} with strangers", value, unit=unit))
    return found


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("encoder_ablations", __doc__, argv, steps=STEPS)
    try:
        records = [measure(name, options) for name in (*PADINV, *STYLE)]
    except KeyboardInterrupt:
        print("\nThe training was interrupted. Call it again with the same settings, and it goes on.", file=sys.stderr)
        raise SystemExit(130) from None
    tables = [table(records, PADINV), table(records, STYLE)]
    report("encoder_ablations", options, tables, figures(records), records)


if __name__ == "__main__":
    main()
