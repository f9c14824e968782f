"""The training loop that every trained thing shares: learning-rate schedule, averaged weights, checkpoints, a log."""

from __future__ import annotations

import contextlib
import copy
import csv
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .._errors import CheckpointError
from .._files import atomic_write

Model = TypeVar("Model", bound=nn.Module)
LOG, VALIDATION = "log.csv", "validation.csv"


@dataclass(frozen=True)
class TrainerConfig:
    """How long and how fast to train.

    Attributes:
        steps: Optimiser steps in all.
        learning_rate: Held between ramp-up and decay.
        final_learning_rate: Where the decay, along half a cosine, ends.
        warmup: Steps of the linear ramp-up.
        decay: Share of the steps, at the end, over which the rate decays.
        betas: Adam's decay rates.
        average_decay: Decay of the averaged weights per step.
        save_every: Steps between checkpoints and log rows.
        validate_every: Steps between validations; 0 for none.
    """

    steps: int
    learning_rate: float = 4e-3
    final_learning_rate: float = 5e-5
    warmup: int = 100
    decay: float = 1.0
    betas: tuple[float, float] = (0.9, 0.99)
    average_decay: float = 0.998
    save_every: int = 500
    validate_every: int = 0

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        start = max(self.warmup, round((1 - self.decay) * self.steps))
        progress = (step - start) / max(self.steps - start, 1)
        wave = 0.5 + 0.5 * math.cos(math.pi * min(max(progress, 0.0), 1.0))
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * wave


class Trainer(Generic[Model]):
    """Trains one model; a killed run continues from its last checkpoint.

    Ctrl-C ends a run after the step in hand, with a checkpoint; a second one ends it at once, without.

    Args:
        model: Module in training mode.
        config: Schedule.
        folder: Where ``checkpoint.pt``, ``log.csv`` and ``validation.csv`` live.
        extra: Further modules and optimisers to keep in the checkpoint, by name.

    Attributes:
        step: Steps taken.
        average: The model with averaged weights.
        best: Lowest validation loss and its step, "loss" and "step"; empty before the first validation.
    """

    def __init__(self, model: Model, config: TrainerConfig, folder: str | Path, **extra: nn.Module) -> None:
        self.model, self.config, self.folder, self.extra = model, config, Path(folder), extra
        self.folder.mkdir(parents=True, exist_ok=True)
        self.average: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=config.betas)
        self.extra_optimisers = {
            name: torch.optim.Adam(module.parameters(), lr=config.learning_rate, betas=(0.0, 0.99))
            for name, module in extra.items()
        }
        self.step, self.seconds = 0, 0.0
        self.best: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self.load()
        # Rows of steps that a killed run took after its last checkpoint are written again when these are repeated.
        for name in (LOG, VALIDATION):
            keep_rows(self.folder / name, self.step)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "sums": self._sums,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "extra": {name: module.state_dict() for name, module in self.extra.items()},
            "extra_optimisers": {name: o.state_dict() for name, o in self.extra_optimisers.items()},
        }
        with atomic_write(self.checkpoint) as path:
            torch.save(state, path)

    def load(self) -> None:
        """Continue from the checkpoint if there is one.

        Raises:
            CheckpointError: If it is damaged or belongs to another model.
        """
        if not self.checkpoint.exists():
            return
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            for name, module in self.extra.items():
                module.load_state_dict(state["extra"][name])
                self.extra_optimisers[name].load_state_dict(state["extra_optimisers"][name])
        except Exception as error:
            raise CheckpointError(
                f"{self.checkpoint} does not fit this run ({error}); remove it to start anew."
            ) from error
        self.step, self.seconds = state["step"], state.get("seconds", 0.0)
        self.best, self._sums = state.get("best", {}), state.get("sums", {})

    def run(
        self,
        compute: Callable[[int], dict[str, Tensor]],
        until: int | None = None,
        *,
        validate: Callable[[Model], dict[str, float]] | None = None,
        keep: Callable[[Model], object] | None = None,
    ) -> None:
        """Take steps until ``until`` (all where None).

        ``compute(step)`` returns the losses of one step by name; the one called "loss" is minimised. It must depend on
        the step alone for its random numbers, so that a resumed run sees the same data.

        ``validate(average)`` returns figures of the model with averaged weights, every ``config.validate_every`` steps
        and at the last one; where its "loss" is lower than ever, ``keep(average)`` is called.

        Raises:
            KeyboardInterrupt: After Ctrl-C, once the checkpoint is written.
        """
        last = min(until or self.config.steps, self.config.steps)
        with tqdm(total=last, initial=self.step, unit="step", mininterval=5) as bar, _noted_interrupt() as interrupted:
            clock = time.time()
            while self.step < last:
                losses = self._update(compute)
                for name, value in losses.items():
                    self._sums[name] = self._sums.get(name, 0.0) + float(value)
                self.step += 1
                self.seconds, clock = self.seconds + time.time() - clock, time.time()
                bar.update()
                if validate is not None and self._due(self.config.validate_every):
                    self._validate(validate, keep)
                if self._due(self.config.save_every):
                    bar.set_postfix({name: f"{value:.4g}" for name, value in self._report().items()})
                    self.save()
                elif self.step == last or interrupted():
                    self.save()
                if interrupted():
                    raise KeyboardInterrupt

    def _due(self, every: int) -> bool:
        return every > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def _report(self) -> dict[str, float]:
        """Write the mean losses since the last row of the log as a row."""
        count = (self.step - 1) % self.config.save_every + 1
        row = {name: total / count for name, total in self._sums.items()}
        self._log(LOG, row)
        self._sums = {}
        return row

    def _validate(self, validate: Callable[[Model], dict[str, float]], keep: Callable[[Model], object] | None) -> None:
        with torch.no_grad():
            row = validate(self.average)
        # Kept before the checkpoint says so: a run killed between the two repeats the step and keeps the same again.
        if row["loss"] < self.best.get("loss", math.inf):
            self.best = {"loss": row["loss"], "step": self.step}
            if keep is not None:
                keep(self.average)
        self._log(VALIDATION, row)

    def _update(self, compute: Callable[[int], dict[str, Tensor]]) -> dict[str, Tensor]:
        rate = self.config.rate(self.step)
        for optimiser in (self.optimiser, *self.extra_optimisers.values()):
            for group in optimiser.param_groups:
                group["lr"] = rate
        losses = compute(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        self.optimiser.step()
        self._follow()
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        for mine, theirs in zip(self.average.parameters(), self.model.parameters()):
            mine.lerp_(theirs, 1 - decay)
        for kept, current in zip(self.average.buffers(), self.model.buffers()):
            kept.copy_(current)

    def _log(self, name: str, row: dict[str, float]) -> None:
        path = self.folder / name
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["step", "seconds", *row])
            writer.writerow([self.step, f"{self.seconds:.1f}", *(f"{value:.6g}" for value in row.values())])


def keep_rows(path: Path, step: int) -> None:
    """Drop the rows of a log, if there is one, that belong to steps after ``step`` or are not whole."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    kept = [row for row in rows if len(row) == len(head) and row[0].isdigit() and int(row[0]) <= step]
    if not kept:
        path.unlink()
    elif len(kept) < len(rows):
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([head, *kept])


@contextlib.contextmanager
def _noted_interrupt() -> Iterator[Callable[[], bool]]:
    """Inside, a first Ctrl-C is only noted, since it might fall into the middle of a step; a second one is raised."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted: list[int] = []

    def note(number: int, frame: object) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, previous or signal.default_int_handler)
