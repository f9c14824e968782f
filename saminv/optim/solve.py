"""The one loop of the library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from tqdm import tqdm

from .._errors import InputError, Status
from .._types import Latents, flatten
from ..solution import Solution
from .precision import FULL, Precision
from .problem import Evaluation, Problem
from .slots import CHECK_EVERY, Slots, finished
from .solver import AbstractSolver, SolverState

Callback = Callable[[int, SolverState, Evaluation], None]


def solve(
    problem: Problem,
    solver: AbstractSolver,
    y0: Latents | None = None,
    *,
    max_steps: int = 300,
    precision: Precision = FULL,
    graph: str = "auto",
    callback: Callback | None = None,
    progress: bool = False,
) -> Solution:
    """Minimise a problem.

    Args:
        problem: B independent inversions.
        solver: Method, with its wrappers.
        y0: Start; the problem's own where None.
        max_steps: Steps of the schedule; 0 returns the start.
        precision: In which numbers the steps are computed.
        graph: "auto", "on" or "off": replay the steps as one CUDA graph, see :class:`saminv.optim.slots.Slots`.
        callback: Called with the step, the state and the evaluation after each step. The next step may overwrite their
            tensors.
        progress: Show a bar with loss and PSNR.

    Returns:
        The solver's result for each image. Ctrl-C ends the solve early, with status "interrupted" and what there is.

    Raises:
        InputError: If ``max_steps`` is not a whole number from 0 up, or ``y0`` does not fit the problem.
    """
    check_steps(max_steps)
    if y0 is not None:
        problem = replace(problem, warm=_checked_start(problem, y0))
    slots: Slots = Slots(solver, max_steps, precision, graph)
    slots.enter(problem, range(len(problem)), y0=y0)
    try:
        with tqdm(total=max_steps, disable=not progress, unit="step", desc="invert") as bar:
            index = 0
            # Steps that half precision spoils are taken again.
            while index < max_steps or (max_steps and precision.features is not None and slots.unfinished):
                evaluation = slots.step()
                assert slots.state is not None
                if callback is not None:
                    callback(index, slots.state, evaluation)
                bar.update()
                index += 1
                if index % CHECK_EVERY == 0:
                    _show(bar, evaluation)
                    if not bool(slots.state.running.any()):
                        break
    except KeyboardInterrupt:
        slots.interrupt()
    assert slots.state is not None
    slots.state.status[slots.state.running] = int(Status.COMPLETED)
    return finished(solver, slots.state, slots.taken)


def check_steps(max_steps: int) -> None:
    """Raise ``InputError`` unless this is a number of steps."""
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 0:
        raise InputError(f"steps must be a whole number from 0 up, got {max_steps!r}.")


def _checked_start(problem: Problem, y0: Latents) -> Latents:
    """``y0`` if it has the tensors of the problem's spaces."""
    own, given = flatten(problem.start()), flatten(y0)
    wrong = [name for name in own if name not in given or given[name].shape != own[name].shape]
    unknown = [name for name in given if name not in own]
    if wrong or unknown:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in own.items())
        raise InputError(f"y0 does not fit at {', '.join(wrong + unknown)}. This problem has: {shapes}.")
    return y0


def _show(bar: tqdm, evaluation: Evaluation) -> None:
    if not bar.disable:
        psnr = 10 * torch.log10(4 / evaluation.parts["l2"].clamp_min(1e-12))
        bar.set_postfix(loss=f"{evaluation.loss.median():.4f}", psnr=f"{psnr.median():.2f} dB", refresh=False)
