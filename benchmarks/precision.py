"""What half precision and graphs cost in quality: the same scenes in strict float32 and as a GPU takes its steps.

Scenes are inverted by SAM up to F8, one after another in float32, step by step, and again in half precision by
replayed steps: float16 on a GPU, bfloat16 on the CPU, where both only stand for what a GPU does.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from common import SAM, Options, Record, Scene, figure, parse, report, run
from common import table as markdown

import saminv

STRICT, FAST = "fp32, step by step", "half precision, replayed"


def half() -> str:
    """The half precision of this machine."""
    return "fp16" if torch.cuda.is_available() else "bf16"


def task(scene: Scene, options: Options) -> Record:
    """PSNR and perceptual distance of a scene both ways."""
    ways = {STRICT: {"precision": "fp32", "graph": "off"}, FAST: {"precision": half(), "graph": "on"}}
    found = {}
    for name, settings in ways.items():
        solution = saminv.invert(
            scene.batch.images, list(SAM), encoder=scene.start, generator="demo", steps=options.steps, **settings
        )
        found[name] = {"psnr": float(solution.stats["psnr"]), "demo": float(solution.stats["demo"])}
    return found


def column(records: Sequence[Record], name: str, key: str) -> list[float]:
    """A number of all scenes."""
    return [record[name][key] for record in records]


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("precision", __doc__, argv, scenes=20)
    records = run("precision", task, range(options.scenes), options)
    rows = [
        [name, statistics.median(column(records, name, "psnr")), statistics.median(column(records, name, "demo"))]
        for name in (STRICT, FAST)
    ]
    lost = [a - b for a, b in zip(column(records, STRICT, "psnr"), column(records, FAST, "psnr"))]
    grown = [b / a - 1 for a, b in zip(column(records, STRICT, "demo"), column(records, FAST, "demo"))]
    found = [
        figure(f"median loss of PSNR by {half()}", statistics.median(lost), at_most=0.1, unit="dB"),
        figure("median growth of the perceptual distance", statistics.median(grown), at_most=0.01),
        figure("largest loss of PSNR", max(lost), unit="dB"),
    ]
    table = markdown(["Steps", "PSNR (dB)", "demo perceptual"], rows)
    report("precision", options, [table], found, records, page="performance.md")


if __name__ == "__main__":
    main()
