"""Published code as a guest: in processes of its own, which talk through files.

Such a process (``main``) imports the code in the folder that the user has named and so runs it, with the user's rights:
a process is no cage. What comes back are numbers and arrays (JSON and safetensors); nothing of the guest is imported or
unpickled outside of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .._errors import BenchError
from .._memory import keep_memory
from ..optim import Objective
from .ceilings import peak_memory, seconds_of
from .descent import WARM_UP, Recorder
from .families import FAMILIES, AbstractFamily
from .workload import COMMON_WEIGHTS, Workload, build_metric, noise_target

WEIGHTS, QUESTION, ANSWER, COMMON, POINTS = (
    f"{name}.safetensors" for name in ("weights", "question", "answer", "common", "points")
)
"""Files by which guest and host talk."""
PROGRAM = f"import pathlib, sys; from {__name__} import main; main(pathlib.Path(sys.argv[1]))"


@dataclass(frozen=True)
class Guest:
    """Published code that can be asked to do things.

    Attributes:
        folder: That holds the code.
        family: What it is.
        workload: Resolution, channels, batch and device.
        place: Folder of the files by which it talks.
        threads: Of the CPU.
        timeout: Seconds that a process may take.
    """

    folder: Path
    family: AbstractFamily
    workload: Workload
    place: Path
    threads: int
    timeout: float

    def ask(self, action: str, **settings: Any) -> dict[str, Any]:
        """Let a process do one of ``ACTIONS``, and return what it says.

        Raises:
            BenchError: If it fails, or takes too long.
        """
        job = {
            "action": action,
            "folder": str(self.folder.resolve()),
            "family": self.family.name,
            "workload": asdict(self.workload),
            "threads": self.threads,
            "settings": settings,
        }
        (self.place / "job.json").write_text(json.dumps(job), encoding="utf-8")
        answer = self.place / "answer.json"
        answer.unlink(missing_ok=True)
        code = self._run([sys.executable, "-c", PROGRAM, str(self.place)], action)
        if code or not answer.is_file():
            raise BenchError(f"The code in {self.folder} failed at {action!r} (exit code {code}): {self._last_words()}")
        found = json.loads(answer.read_text("utf-8"))
        assert isinstance(found, dict)
        return found

    def _run(self, command: list[str], action: str) -> int:
        # What it prints is no part of our report.
        with (self.place / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.place,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                _end(process)
                message = f"The code in {self.folder} took longer than {self.timeout:g} s at {action!r}; see --timeout."
                raise BenchError(message) from None
            except BaseException:
                _end(process)
                raise

    def _last_words(self) -> str:
        lines = (self.place / "output.txt").read_text("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


class Host:
    """What a process of the guest works with; the code is imported when it is made.

    Attributes:
        family: Whose code it is.
        generator: Frozen, with random weights that are the same ones in every process.
        device: Of everything.
        place: Folder of the files.
    """

    def __init__(self, job: Mapping[str, Any], place: Path) -> None:
        self.workload = Workload(**{**job["workload"], "spaces": tuple(job["workload"]["spaces"])})
        self.family, self.place = FAMILIES.get(job["family"]), place
        # Before the folder's own modules can stand in front of others.
        self.metric = build_metric(self.workload)
        self.device = torch.device(self.workload.device)
        torch.manual_seed(0)
        generator = self.family.build(Path(job["folder"]), self.workload.config)
        self.generator = _scattered(generator).eval().requires_grad_(False).to(self.device)

    def export(self) -> dict[str, Any]:
        """Write the weights."""
        arrays = {name: tensor.cpu().clone().contiguous() for name, tensor in self.generator.state_dict().items()}
        save_file(arrays, self.place / WEIGHTS)
        return {}

    def check(self) -> dict[str, Any]:
        """Write the image of given styles, and the gradient of a given weighted sum of its pixels."""
        question = self._read(QUESTION)
        styles = question["styles"].requires_grad_()
        image = self.family.render(self.generator, styles)
        (gradient,) = torch.autograd.grad((image * question["cotangent"]).sum(), styles)
        save_file({"image": image.detach().cpu().contiguous(), "gradient": gradient.cpu()}, self.place / ANSWER)
        return {}

    def steps(self, count: int) -> dict[str, Any]:
        """Time steps of its own projector."""
        start = self._read(COMMON)["start"]
        side = self.workload.resolution
        target = noise_target(self.workload.batch, (side, side)).to(self.device)
        step = self.family.projector(self.generator, self.metric, target, start)
        seconds = seconds_of(step, self.device, repeats=count, warm_up=WARM_UP)
        return {"milliseconds": [1000 * value for value in seconds], "peak_gib": peak_memory(self.device)}

    def descend(self, steps: int, every: int) -> dict[str, Any]:
        """Come down to the common target under the common loss by Adam at its own rates."""
        common = self._read(COMMON)
        objective = Objective(self.metric, COMMON_WEIGHTS)
        prepared = objective.prepare(common["target"])
        recorder = Recorder(self.device, every, steps)

        def run(count: int, seen: Recorder | None) -> None:
            w = common["start"].clone().requires_grad_()
            adam = torch.optim.Adam([w], betas=(0.9, 0.999))
            if seen:
                seen.start({"W+": {"w": w}})
            for step in range(count):
                adam.param_groups[0]["lr"] = self.family.rate(step, steps)
                image = self.family.render(self.generator, w)
                loss = objective.total(objective.reconstruction(image, prepared)).sum()
                adam.zero_grad(set_to_none=True)
                loss.backward()
                adam.step()
                if seen:
                    seen.see(step + 1, lambda: {"W+": {"w": w}})

        run(WARM_UP, None)
        run(steps, recorder)
        points = torch.stack([point["W+"]["w"] for point in recorder.points])
        save_file({"w": points}, self.place / POINTS)
        return {"steps": recorder.steps, "seconds": recorder.seconds, "peak_gib": peak_memory(self.device)}

    def _read(self, name: str) -> dict[str, Tensor]:
        return {key: tensor.to(self.device) for key, tensor in load_file(self.place / name).items()}


ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "export": Host.export,
    "check": Host.check,
    "steps": Host.steps,
    "descend": Host.descend,
}
"""What a guest can be asked to do."""


def _scattered(generator: nn.Module) -> nn.Module:
    """The generator with biases and noise strengths that matter: published code begins with zeros and ones."""
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith(("bias", "noise_strength")):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return generator


def main(place: Path) -> None:
    """Do the job in a folder."""
    job = json.loads((place / "job.json").read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    # As in our own processes.
    keep_memory()
    found = ACTIONS[job["action"]](Host(job, place), **job["settings"])
    (place / "answer.json").write_text(json.dumps(found), encoding="utf-8")
