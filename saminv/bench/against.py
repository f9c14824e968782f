"""Published code beside ours: that both compute the same, what a step costs, and who is at a target first."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .._errors import BenchError, CheckpointError
from ..generators import save_generator
from .ceilings import device_name, middle
from .descent import Track, descend, evaluate, reached
from .families import AbstractFamily, find_family
from .guest import ANSWER, COMMON, POINTS, QUESTION, WEIGHTS, Guest
from .processes import Processes, in_turns
from .speed import time_steps
from .target import LEVELS, SOLVERS
from .workload import Workload, build_generator, descent_problem

OURS = "saminv"
OUR_FORMULATION = "Adam over W+, L2 and LPIPS at 256 or less, regularisers of w, features of the target kept"
IMAGE_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 5e-4
CHECKED = 2
"""Images of the gates."""


@dataclass(frozen=True)
class Gate:
    """One thing in which both have to agree.

    Attributes:
        what: In words.
        difference: Between both, relative.
        tolerance: What it may be.
    """

    what: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether they agree."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Cost:
    """What steps cost.

    Attributes:
        formulation: Of the steps, in words.
        milliseconds: Of every step that was timed, in every process.
        peak_gib: Peak memory.
    """

    formulation: str
    milliseconds: list[float]
    peak_gib: float


@dataclass
class AgainstReport:
    """Everything that was measured; no speed where a gate failed.

    Attributes:
        folder: Of the published code.
        family: What it is.
        workload: What both had to do.
        device: The machine, in words.
        threads: Of the CPU.
        levels: PSNR in dB that count as reached.
        gates: What both have to agree in, on the CPU in float32.
        costs: Of a step by contender, each in its own formulation.
        tracks: Descents to a common target under a common loss, by contender.
    """

    folder: str
    family: str
    workload: Workload
    device: str
    threads: int
    levels: Sequence[float]
    gates: list[Gate]
    costs: dict[str, Cost] = field(default_factory=dict)
    tracks: dict[str, list[Track]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether both compute the same."""
        return all(gate.passed for gate in self.gates)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "folder": self.folder,
            "family": self.family,
            "workload": asdict(self.workload),
            "device": self.device,
            "threads": self.threads,
            "passed": self.passed,
            "gates": [{**asdict(gate), "passed": gate.passed} for gate in self.gates],
            "costs": {n: {**asdict(cost), "median_ms": middle(cost.milliseconds)} for n, cost in self.costs.items()},
            "tracks": {name: [asdict(run) for run in runs] for name, runs in self.tracks.items()},
            "reached": reached(self.tracks, self.levels),
        }


def measure_against(
    folder: str | Path,
    workload: Workload,
    *,
    family: str | None = None,
    count: int = 20,
    solvers: Sequence[str] = ("adam",),
    steps: int = 200,
    every: int = 5,
    levels: Sequence[float] = LEVELS,
    threads: int | None = None,
    timeout: float = 1800,
    progress: bool = False,
) -> AgainstReport:
    """Run published code from a folder beside ours, with the same random weights.

    **The code in the folder is executed,** in processes of its own, with the rights of the caller.

    Args:
        folder: Of the published code.
        workload: Resolution, channels, batch, device and LPIPS.
        family: A name in ``FAMILIES``; the one that recognises the folder where None.
        count: Steps that are timed in each process.
        solvers: Of ours in the descent, names in ``SOLVERS``.
        steps, every, levels: Of the descent, as for :func:`measure_target`.
        threads: Of the CPU; torch's own choice where None.
        timeout: Seconds that a process of the published code may take.
        progress: Show a bar over the processes.

    Raises:
        InputError: If there is no such folder, or it looks like no family.
        BenchError: If the published code fails or takes too long, or has other arrays than its family.
    """
    theirs = find_family(Path(folder), family)
    known = {f"{OURS}, {name}": SOLVERS[name] for name in solvers}
    total = 4 + 4 + 2 * (1 + len(known)) + 3
    with tempfile.TemporaryDirectory(prefix="saminv-bench-") as name, Processes(threads, total, progress) as run:
        place = Path(name)
        guest = Guest(Path(folder), theirs, workload, place, run.threads, timeout)
        # Both are compared in float32 on the CPU, wherever they are timed.
        checked = replace(guest, workload=replace(workload, device="cpu"))
        checked.ask("export")
        mine = replace(workload, generator=run(_take_over, checked.workload, theirs, place))
        checked.ask("check")
        gates = run(_gates, replace(mine, device="cpu"), place)
        report = AgainstReport(
            str(folder), theirs.name, workload, run(device_name, workload.device), run.threads, sorted(levels), gates
        )
        if not report.passed:
            return report
        run(_write_common, mine, place)
        report.costs = _costs(run, guest, mine, count)
        for contender in in_turns([*known, theirs.name]):
            if contender in known:
                track = run(descend, mine, known[contender], steps, every)
            else:
                track = run(_evaluated, mine, place, guest.ask("descend", steps=steps, every=every))
            report.tracks.setdefault(contender, []).append(track)
    return report


def _costs(run: Processes, guest: Guest, mine: Workload, count: int) -> dict[str, Cost]:
    """What steps of both cost, each in its own formulation."""
    ours, theirs = Cost(OUR_FORMULATION, [], 0.0), Cost(guest.family.formulation, [], 0.0)
    found = {OURS: ours, guest.family.name: theirs}
    for name in in_turns(list(found)):
        if name == OURS:
            timed = run(time_steps, mine, count)
            milliseconds, peak = timed.milliseconds, timed.peak_gib
        else:
            said = guest.ask("steps", count=count)
            milliseconds, peak = said["milliseconds"], said["peak_gib"]
        cost = found[name]
        found[name] = Cost(cost.formulation, [*cost.milliseconds, *milliseconds], max(cost.peak_gib, peak))
    return found


def _take_over(workload: Workload, family: AbstractFamily, place: Path) -> str:
    """Turn the guest's weights into a generator of ours, whose file is returned, and draw what both have to render."""
    try:
        generator = family.convert(load_file(place / WEIGHTS), workload.config)
    except CheckpointError as error:
        raise BenchError(f"The published code has other arrays than the family {family.name!r}: {error}") from error
    source = torch.Generator().manual_seed(0)
    shapes = {
        "styles": (CHECKED, generator.num_styles, generator.style_dim),
        "cotangent": (CHECKED, 3, *generator.image_size),
    }
    save_file({name: torch.randn(shape, generator=source) for name, shape in shapes.items()}, place / QUESTION)
    return str(save_generator(generator, place / "ours.safetensors"))


def _gates(workload: Workload, place: Path) -> list[Gate]:
    """How far image and gradient of ours are from the guest's."""
    question, answer = load_file(place / QUESTION), load_file(place / ANSWER)
    styles = question["styles"].requires_grad_()
    image = build_generator(workload).synthesis(styles)
    assert isinstance(image, torch.Tensor)
    if image.shape != answer["image"].shape or styles.shape != answer["gradient"].shape:
        raise BenchError(f"The published code renders {list(answer['image'].shape)}, ours {list(image.shape)}.")
    (gradient,) = torch.autograd.grad((image * question["cotangent"]).sum(), styles)
    pixels = (image.detach() - answer["image"]).abs().max() / answer["image"].abs().max()
    slopes = (gradient - answer["gradient"]).norm() / answer["gradient"].norm()
    return [
        Gate("image: largest difference, relative to the largest pixel", float(pixels), IMAGE_TOLERANCE),
        Gate("gradient by the styles: norm of the difference, relative", float(slopes), GRADIENT_TOLERANCE),
    ]


def _write_common(workload: Workload, place: Path) -> None:
    """Write start and target of the descent."""
    problem = descent_problem(workload)
    found = {"start": problem.styles, "target": problem.target}
    save_file({name: tensor.cpu().contiguous() for name, tensor in found.items()}, place / COMMON)


def _evaluated(workload: Workload, place: Path, said: dict[str, Any]) -> Track:
    """The guest's descent as the common evaluator sees it."""
    points = [{"W+": {"w": w}} for w in load_file(place / POINTS)["w"]]
    psnr, loss = evaluate(descent_problem(workload), points)
    return Track(said["steps"], said["seconds"], psnr, loss, said["peak_gib"])
