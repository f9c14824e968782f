"""Reading a checkpoint of 360 MB: time and memory beside torch.load, which reads the same arrays in torch's own form.

The file is a pickle as NVIDIA's code writes it: each tensor is a torch stream of its own inside of the pickle. All of
it is one generator. Every reading is a process of its own, in turns, with the file in the cache of the system.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from common import FOLDER, Options, Record, figure, parse, report
from common import table as markdown

from saminv.generators import StyleGAN2, StyleGAN2Config

SIZE = 360_000_000
"""Bytes of the file, at least."""
TURNS = 5
READERS = {
    "torch.load": "torch.load(path, map_location='cpu', weights_only=True)",
    "read_checkpoint": "read_checkpoint(path)",
    "load_generator": "saminv.load_generator(path)",
}
CHILD = """
import json, sys, time
import torch
import saminv
from saminv.bench.ceilings import peak_memory
from saminv.checkpoints import read_checkpoint
torch.set_num_threads({threads})
torch.zeros(1) + 1
path = sys.argv[1]
before = peak_memory()
start = time.perf_counter()
found = {call}
seconds = time.perf_counter() - start
print(json.dumps([seconds, (peak_memory() - before) * 2**30]))
"""


def published_name(name: str) -> str:
    """NVIDIA's name of one of our arrays: synthesis.b16.conv0.weight is our layers.3.weight."""
    if name in ("const", "w_avg"):
        return "synthesis.b4.const" if name == "const" else "mapping.w_avg"
    if name.startswith("mapping_network"):
        return re.sub(r"mapping_network\.layers\.(\d+)", r"mapping.fc\1", name)
    kind, number, rest = name.split(".", 2)
    layer = int(number)
    part = "torgb" if kind == "torgb" else "conv0" if layer % 2 else "conv1"
    return f"synthesis.b{4 << ((layer + 1) // 2)}.{part}.{rest}"


def write_files(folder: Path) -> dict[str, Path]:
    """The pickle, and the same arrays as torch saves them, by the names of readers."""
    widths = {"channel_base": 1 << 16, "channel_max": 928}
    state = StyleGAN2(StyleGAN2Config(resolution=1024, **widths)).state_dict()
    content = {"G_ema": {published_name(name): x.contiguous().clone() for name, x in state.items()}}
    ours, theirs = folder / "network.pkl", folder / "network.pt"
    with open(ours, "wb") as file:
        pickle.dump(content, file, protocol=3)
    torch.save(content, theirs)
    return {name: theirs if name == "torch.load" else ours for name in READERS}


def read_once(reader: str, path: Path, threads: int) -> tuple[float, float]:
    """Seconds and bytes of one reading."""
    code = CHILD.format(call=READERS[reader], threads=threads)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, env=environment
    )
    seconds, memory = json.loads(done.stdout)
    return seconds, memory


def measure(options: Options) -> Record:
    """Median time and largest peak of every reader, and the size of the file."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder))
        size = files["load_generator"].stat().st_size
        assert size >= SIZE, size
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in READERS}
        for turn in range(TURNS):
            for name in list(READERS)[:: 1 if turn % 2 else -1]:
                found[name].append(read_once(name, files[name], options.workers))
    rows = {
        name: {"seconds": statistics.median(s for s, _ in runs), "bytes": max(b for _, b in runs), "all": runs}
        for name, runs in found.items()
    }
    return {"size": size, "readers": rows}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parse("reading", __doc__, argv)
    found = measure(options)
    size, readers = found["size"], found["readers"]
    base = readers["torch.load"]["seconds"]
    rows = [[n, r["seconds"], r["seconds"] / base, r["bytes"] / size] for n, r in readers.items()]
    slower = {name: readers[name]["seconds"] / base for name in ("read_checkpoint", "load_generator")}
    figures = [figure("size of the file", size / 1e6, at_least=360, unit="MB")]
    figures += [figure(f"time of {name} relative to torch.load", x, at_most=2) for name, x in slower.items()]
    figures += [
        figure(f"peak memory of {name} relative to the file", readers[name]["bytes"] / size, at_most=2.2)
        for name in slower
    ]
    headers = ["Reader", "seconds", "relative to torch.load", "peak memory relative to the file"]
    report("reading", options, [markdown(headers, rows)], figures, [found], page="performance.md")


if __name__ == "__main__":
    main()
    print(f"results lie in {FOLDER / 'results'}")
