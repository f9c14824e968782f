"""Runs over folders: killed again and again, memory over many pictures, and what a batch is worth.

A run over many scenes is killed by SIGKILL at random moments until it has been killed as often as asked for, then left
to end; its results are held against those of a run that nobody disturbs. The resident memory of the latter is read
while it goes on. Throughput is that of a batch of 8 against one picture at a time, with all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common import FOLDER, Options, Record, figure, parse, report
from common import table as markdown

from saminv.demo.write_scenes import write_scenes
from saminv.runs import read_manifest

FIRST_SEED = 60_000
"""Seed of the first scene."""
KILLS = 30
WARM, MANY = 50, 200
"""Pictures after which memory is read first and last."""
THROUGHPUT_SCENES, THROUGHPUT_STEPS = 16, 60
CALM_STEPS = 20
"""Steps of each inversion in the runs whose results and memory are compared."""


def command(scenes: Path, out: Path, steps: int, batch: int, limit: int) -> list[str]:
    """A run by the command line."""
    options = ["--out", out, "--steps", steps, "--batch", batch, "--limit", limit, "--keep", "solution"]
    spaces = ["--spaces", "W+", "F4", "F6", "--invertibility", "measured"]
    return [sys.executable, "-m", "saminv.cli", "run", str(scenes), *map(str, options), *spaces]


def lines(out: Path) -> int:
    """Pictures that the manifest says have ended."""
    path = out / "manifest.jsonl"
    return max(path.read_bytes().count(b"\n") - 1, 0) if path.exists() else 0


def resident(process: subprocess.Popen) -> float:
    """Resident memory of a process in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def undisturbed(arguments: list[str], out: Path, count: int) -> Record:
    """Let a run go on to its end; seconds, and memory by the number of pictures that have ended."""
    shutil.rmtree(out, ignore_errors=True)
    begun, memory = time.perf_counter(), {}
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        ended = lines(out)
        for mark in (min(WARM, count // 2), count - 1):
            if ended >= mark and mark not in memory:
                memory[mark] = resident(process)
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the run ended with code {process.returncode}")
    return {"seconds": time.perf_counter() - begun, "memory": memory}


def disturbed(arguments: list[str], out: Path, count: int, kills: int, expected: float) -> Record:
    """Kill a run ``kills`` times at random moments that spread over its course, then let it end."""
    shutil.rmtree(out, ignore_errors=True)
    source, done = random.Random(0), 0
    while True:
        process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        # Starting takes a while, in which nothing ends: some kills fall into it, most after it.
        patience = source.uniform(0, min(8 + 2 * expected / (kills + 1), 0.9 * expected))
        try:
            process.wait(None if done == kills else patience)
            if lines(out) >= count and done < kills:
                print(f"ended after {done} kills")
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            print(f"\rkill {done}: {lines(out)} of {count} have ended", end="", file=sys.stderr)
    return {"kills": done, "code": process.returncode}


def results(out: Path) -> set[str]:
    """Files of results, by their path."""
    return {path.relative_to(out).as_posix() for path in (out / "results").rglob("*") if path.is_file()}


def compare(calm: Path, killed: Path) -> Record:
    """How the results of two runs differ."""
    (_, one), (_, other) = read_manifest(calm), read_manifest(killed)
    entries = [json.loads(line)["name"] for line in (killed / "manifest.jsonl").read_text().splitlines()[1:]]
    differences = [abs(one[name]["metrics"]["psnr"] - other[name]["metrics"]["psnr"]) for name in one if name in other]
    return {
        "same_files": results(calm) == results(killed),
        "lost": len(set(one) - set(other)),
        "twice": len(entries) - len(set(entries)),
        "largest_psnr_difference": max(differences, default=None),
    }


def throughput(scenes: Path, folder: Path) -> Record:
    """Images per minute by batch, without the time that a start takes."""
    found = {}
    for batch in (1, 8):
        out = folder / f"batch-{batch}"
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(
            command(scenes, out, THROUGHPUT_STEPS, batch, THROUGHPUT_SCENES),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        while process.poll() is None and not (out / "manifest.jsonl").exists():
            time.sleep(0.01)
        begun = time.perf_counter()
        process.wait()
        found[str(batch)] = 60 * THROUGHPUT_SCENES / (time.perf_counter() - begun)
    return found


def measure(options: Options, kills: int) -> Record:
    """Do all of it."""
    folder = options.cache / "folder_runs"
    scenes = folder / "scenes"
    write_scenes(scenes, options.scenes, FIRST_SEED)
    arguments = {
        name: command(scenes, folder / name, min(options.steps, CALM_STEPS), 8, options.scenes)
        for name in ("calm", "killed")
    }
    calm = undisturbed(arguments["calm"], folder / "calm", options.scenes)
    killed = disturbed(arguments["killed"], folder / "killed", options.scenes, kills, calm["seconds"])
    return {
        "calm": calm,
        **killed,
        **compare(folder / "calm", folder / "killed"),
        "per_minute": throughput(scenes, folder),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--kills", type=int, default=KILLS)
    known, rest = parser.parse_known_args(argv)
    options = parse("folder_runs", __doc__, rest, scenes=MANY)
    os.environ.setdefault("OMP_NUM_THREADS", str(options.workers))
    found = measure(options, known.kills)
    first, last = found["calm"]["memory"].values()
    rate = found["per_minute"]
    figures = [
        figure("kills", float(found["kills"]), at_least=known.kills),
        figure(
            "the killed run has the files of the undisturbed one (1 is yes)", float(found["same_files"]), at_least=1
        ),
        figure("pictures lost", float(found["lost"]), at_most=0),
        figure("pictures done twice", float(found["twice"]), at_most=0),
        figure("growth of memory between the two marks", last / first - 1, at_most=0.05),
        figure("throughput of batch 8 relative to batch 1", rate["8"] / rate["1"], at_least=1.5),
    ]
    rows = [[f"{batch} at a time", value] for batch, value in rate.items()]
    rows += [[f"MiB after {mark} pictures", value] for mark, value in found["calm"]["memory"].items()]
    rows.append(["largest difference of a PSNR, dB", found["largest_psnr_difference"]])
    report("folder_runs", options, [markdown(["", "measured"], rows)], figures, [found], page="performance.md")


if __name__ == "__main__":
    main()
    print(f"results lie in {FOLDER / 'results'}")
