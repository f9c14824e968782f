"""The training loop that every trained thing shares: learning-rate schedule, averaged weights, checkpoints, a log."""

from __future__ import annotations

import contextlib
import copy
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .._errors import CheckpointError, TrainingError
from .._files import atomic_write
from ._logs import append_row, keep_rows

Model = TypeVar("Model", bound=nn.Module)
LOG, VALIDATION = "log.csv", "validation.csv"
MOST_LOST = 20
"""So many updates of the same weights in a row may have losses or gradients that are not finite."""


@dataclass(frozen=True)
class TrainerConfig:
    """How long and how fast to train.

    Attributes:
        steps: Optimiser steps in all.
        learning_rate: Held between ramp-up and decay.
        final_learning_rate: Where the decay, along half a cosine, ends.
        warmup: Steps of the linear ramp-up.
        decay: Share of the steps, at the end, over which the rate decays.
        at_once: Decay at once, at the beginning of that share, not along a cosine.
        betas: Adam's decay rates.
        average_decay: Decay of the averaged weights per step.
        average_half_life: Steps after which half of the averaged weights is new, instead of a decay.
        average_ramp: The half-life is at most this part of the steps taken so far.
        extra_rate: Rate of the further modules, as a factor on that of the model.
        extra_betas: Their decay rates.
        save_every: Steps between checkpoints and log rows.
        validate_every: Steps between validations; 0 for none.
        batch: Images of a step. Where it is given, rows say how many thousand images have been shown, "kimg", and how
            many in a second.
        log, validation: Names of the logs, CSV or JSON lines by their suffix.
    """

    steps: int
    learning_rate: float = 4e-3
    final_learning_rate: float = 5e-5
    warmup: int = 100
    decay: float = 1.0
    at_once: bool = False
    betas: tuple[float, float] = (0.9, 0.99)
    average_decay: float = 0.998
    average_half_life: float | None = None
    average_ramp: float = 0.05
    extra_rate: float = 1.0
    extra_betas: tuple[float, float] = (0.0, 0.99)
    save_every: int = 500
    validate_every: int = 0
    batch: int = 0
    log: str = LOG
    validation: str = VALIDATION

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        start = max(self.warmup, round((1 - self.decay) * self.steps))
        if self.at_once:
            return self.learning_rate if step < start else self.final_learning_rate
        progress = (step - start) / max(self.steps - start, 1)
        wave = 0.5 + 0.5 * math.cos(math.pi * min(max(progress, 0.0), 1.0))
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * wave

    def average(self, step: int) -> float:
        """Decay of the averaged weights at a step."""
        if self.average_half_life is None:
            return min(self.average_decay, (1 + step) / (10 + step))
        half_life = min(self.average_half_life, self.average_ramp * step)
        return 0.5 ** (1 / half_life) if half_life > 0 else 0.0


class Trainer(Generic[Model]):
    """Trains one model; a killed run continues from its last checkpoint.

    Ctrl-C or SIGTERM ends a run after the step in hand, with a checkpoint; a second one ends it at once, without. An
    update whose loss or gradients are not finite is left out, with a warning; too many in a row end the run.

    Args:
        model: Module in training mode.
        config: Schedule.
        folder: Where ``checkpoint.pt`` and the logs live.
        extra: Further modules to keep in the checkpoint, by name; each that has weights gets an optimiser.

    Attributes:
        step: Steps taken.
        average: The model with averaged weights.
        best: Lowest validation loss and its step, "loss" and "step"; empty before the first validation.
    """

    def __init__(self, model: Model, config: TrainerConfig, folder: str | Path, **extra: nn.Module) -> None:
        self.model, self.config, self.folder, self.extra = model, config, Path(folder), extra
        self.folder.mkdir(parents=True, exist_ok=True)
        self.average: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=config.betas, fused=True)
        self.extra_optimisers = {
            name: torch.optim.Adam(module.parameters(), lr=config.learning_rate, betas=config.extra_betas, fused=True)
            for name, module in extra.items()
            if any(True for _ in module.parameters())
        }
        self.step, self.seconds = 0, 0.0
        self.best: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._busy = 0.0
        self._lost: dict[str, int] = {}
        self.load()
        # Rows of steps that a killed run took after its last checkpoint are written again when these are repeated.
        for name in (config.log, config.validation):
            keep_rows(self.folder / name, self.step)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint atomically.

        Raises:
            OutputError: If it cannot be written, for example because the disk is full; the last one stays.
        """
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "sums": self._sums,
            "counts": self._counts,
            "busy": self._busy,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "extra": {name: module.state_dict() for name, module in self.extra.items()},
            "extra_optimisers": {name: o.state_dict() for name, o in self.extra_optimisers.items()},
        }
        # Into a file of ours: torch hides why its own could not be written.
        with atomic_write(self.checkpoint) as path, path.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:
                # Nor does it say so where it fails on the way to the end of the file.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise

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
            for name, optimiser in self.extra_optimisers.items():
                optimiser.load_state_dict(state["extra_optimisers"][name])
        except Exception as error:
            raise CheckpointError(
                f"{self.checkpoint} does not fit this run ({error}); remove it to start anew."
            ) from error
        self.step, self.seconds = state["step"], state.get("seconds", 0.0)
        self.best, self._sums, self._busy = state.get("best", {}), state.get("sums", {}), state.get("busy", 0.0)
        # Older checkpoints have losses that every step had.
        since = (self.step - 1) % self.config.save_every + 1
        self._counts = state.get("counts", dict.fromkeys(self._sums, since))

    def run(
        self,
        compute: Callable[[int], dict[str, Tensor]],
        until: int | None = None,
        *,
        validate: Callable[[Model], dict[str, float]] | None = None,
        keep: Callable[[Model], object] | None = None,
        by: str = "loss",
    ) -> None:
        """Take steps until ``until`` (all where None).

        ``compute(step)`` returns the losses of one step by name; the one called "loss" is minimised. It must depend on
        the step alone for its random numbers, so that a resumed run sees the same data. Losses that some steps do not
        have are averaged over those that have them.

        ``validate(average)`` returns figures of the model with averaged weights, every ``config.validate_every`` steps
        and at the last one; where the one called ``by`` is lower than ever, ``keep(average)`` is called.

        Raises:
            KeyboardInterrupt: After Ctrl-C, once the checkpoint is written.
            TrainingError: If too many updates in a row are not finite.
            OutputError: If a log or the checkpoint cannot be written.
        """
        last = min(until or self.config.steps, self.config.steps)
        with tqdm(total=last, initial=self.step, unit="step", mininterval=5) as bar, _noted_interrupt() as interrupted:
            clock = time.time()
            while self.step < last:
                began = time.time()
                self._count(self._update(compute))
                self._busy += time.time() - began
                self.step += 1
                self.seconds, clock = self.seconds + time.time() - clock, time.time()
                bar.update()
                if validate is not None and self._due(self.config.validate_every):
                    self._validate(validate, keep, by)
                if self._due(self.config.save_every):
                    bar.set_postfix({name: f"{value:.4g}" for name, value in self._report().items()})
                    self.save()
                elif self.step == last or interrupted():
                    self.save()
                if interrupted():
                    raise KeyboardInterrupt

    def descend(self, loss: Tensor, extra: str | None = None) -> bool:
        """One step of the optimiser of the model, or of a further module; of no one else's weights.

        Returns:
            False if it was left out, because the loss or a gradient is not finite.

        Raises:
            TrainingError: If that has happened too often in a row.
        """
        optimiser = self.optimiser if extra is None else self.extra_optimisers[extra]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        name = extra or "model"
        if _finite(loss, [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]):
            optimiser.step()
            self._lost[name] = 0
            return True
        self._lost[name] = self._lost.get(name, 0) + 1
        if self._lost[name] >= MOST_LOST:
            raise TrainingError(
                f"Losses or gradients of the {name} were not finite {MOST_LOST} times in a row, up to step "
                f"{self.step}. The last checkpoint in {self.folder} is sound. Start anew in another folder with a "
                "lower learning rate, or in full precision."
            )
        if self._lost[name] == 1:
            warnings.warn(
                f"Step {self.step}: the loss of the {name} or its gradients are not finite; left out.", stacklevel=2
            )
        return False

    def _due(self, every: int) -> bool:
        return every > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def _count(self, losses: dict[str, Tensor]) -> None:
        # One look at the device.
        numbers = torch.stack([value.float().reshape(()) for value in losses.values()]).tolist()
        for name, number in zip(losses, numbers):
            known = math.isfinite(number)
            self._sums[name] = self._sums.get(name, 0.0) + (number if known else 0.0)
            self._counts[name] = self._counts.get(name, 0) + known

    def _report(self) -> dict[str, float]:
        """Write the mean losses since the last row of the log as a row."""
        counts = self._counts
        row = {name: total / counts[name] if counts[name] else math.nan for name, total in self._sums.items()}
        if self.config.batch:
            steps = (self.step - 1) % self.config.save_every + 1
            row["images_per_second"] = steps * self.config.batch / max(self._busy, 1e-9)
        self._log(self.config.log, row)
        self._sums, self._counts, self._busy = {}, {}, 0.0
        return row

    def _validate(
        self, validate: Callable[[Model], dict[str, float]], keep: Callable[[Model], object] | None, by: str
    ) -> None:
        with torch.no_grad():
            row = validate(self.average)
        # Kept before the checkpoint says so: a run killed between the two repeats the step and keeps the same again.
        if row[by] < self.best.get("loss", math.inf):
            self.best = {"loss": row[by], "step": self.step}
            if keep is not None:
                keep(self.average)
        self._log(self.config.validation, row)

    def _update(self, compute: Callable[[int], dict[str, Tensor]]) -> dict[str, Tensor]:
        rate = self.config.rate(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        for optimiser in self.extra_optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate * self.config.extra_rate
        losses = compute(self.step)
        self.descend(losses["loss"])
        self._follow()
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        decay = self.config.average(self.step)
        for mine, theirs in zip(self.average.parameters(), self.model.parameters()):
            mine.lerp_(theirs, 1 - decay)
        for kept, current in zip(self.average.buffers(), self.model.buffers()):
            kept.copy_(current)

    def _log(self, name: str, row: dict[str, float]) -> None:
        shown = {"kimg": self.step * self.config.batch / 1000} if self.config.batch else {}
        append_row(self.folder / name, {"step": self.step, "seconds": round(self.seconds, 1), **shown, **row})


def _finite(loss: Tensor, gradients: list[Tensor]) -> bool:
    """Whether a loss and all gradients are finite; one look at the device."""
    norm = torch.nn.utils.get_total_norm([loss.detach().reshape(1).to(torch.float32), *gradients])
    # The norm alone may overflow where no gradient does.
    return bool(torch.isfinite(norm)) or all(bool(torch.isfinite(value).all()) for value in (loss, *gradients))


@contextlib.contextmanager
def _noted_interrupt() -> Iterator[Callable[[], bool]]:
    """Inside, a first Ctrl-C or SIGTERM is only noted: it may fall into the middle of a step. The second is raised."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted: list[int] = []

    def note(number: int, frame: object) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
