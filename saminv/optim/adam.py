"""Adam with a clock and a rate per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError, Status
from .._types import Latents, map_latents
from ..ops.adam_step import adam_step
from .problem import Evaluation, Problem
from .schedule import Schedule
from .solver import SHARED, AbstractSolver, SolverState


@dataclass
class AdamState(SolverState):
    """Moments of the gradients, and the factor on the rate of each tensor."""

    first: Latents = field(default_factory=dict)
    second: Latents = field(default_factory=dict)
    scale: dict[str, dict[str, Tensor | float]] = field(default_factory=dict, metadata=SHARED)
    basis: Latents = field(default_factory=dict, metadata=SHARED)


@dataclass(frozen=True)
class Adam(AbstractSolver[AdamState]):
    """Adam.

    Attributes:
        rate: Learning rate.
        rates: Rate of single spaces by name or by family ("F", "FS"), instead of ``rate``.
        betas: Decay of the moments.
        schedule: Course of the rate.
        precondition: Take steps in the coordinates that the spaces propose: styles whitened by the covariance of w,
            feature deltas in units of each channel's standard deviation.
        principal: Turn the whitened coordinates to the principal axes of what the generator's layers make of styles.
            Adam weighs each coordinate by itself, and so finds how steep the objective is along each axis. Saves
            steps from a near start. From afar, at the same rate, some runs are lost.

    Reference:
        Kingma and Ba, 2015, arXiv 1412.6980.
    """

    rate: float = 0.05
    rates: Mapping[str, float] = field(default_factory=dict)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Schedule = field(default_factory=Schedule)
    precondition: bool = True
    principal: bool = False
    eps: float = 1e-8
    capturable = True

    def __post_init__(self) -> None:
        for rate in (self.rate, *self.rates.values()):
            if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < rate < float("inf"):
                raise InputError(f"A learning rate must be a positive number, got {rate!r}.")

    def init(self, problem: Problem, y0: Latents, horizon: int) -> AdamState:
        state = AdamState.fresh(problem, y0, horizon)
        state.first = map_latents(torch.zeros_like, state.y)
        state.second = map_latents(torch.zeros_like, state.y)
        for space in problem.spaces:
            rate = self.rates.get(space.name, self.rates.get(space.family, self.rate))
            value = state.y[space.name]
            factors = space.step_scale(problem.generator, value) if self.precondition else {}
            state.scale[space.name] = {key: rate * factors.get(key, 1.0) for key in value}
            bases = space.step_basis(problem.generator, value, self.principal) if self.precondition else {}
            state.basis[space.name] = bases
        return state

    @torch.no_grad()
    def update(self, state: AdamState, evaluation: Evaluation) -> AdamState:
        assert evaluation.gradients is not None
        running = state.running
        factor = self.schedule(state.step, state.horizon)
        count = (state.step + 1).double()
        first_bias, second_bias = 1 - self.betas[0] ** count, 1 - self.betas[1] ** count
        rate = torch.where(running, factor / first_bias, 0.0)
        settings: dict[str, Any] = {"betas": self.betas, "eps": self.eps}
        for name, gradients in evaluation.gradients.items():
            for key, gradient in gradients.items():
                x, basis, scale = state.y[name][key], state.basis[name].get(key), state.scale[name][key]
                moments = state.first[name][key], state.second[name][key]
                if basis is None:
                    adam_step(x, gradient, *moments, rate, second_bias, scale=scale, **settings)
                else:
                    move = adam_step(None, gradient @ basis, *moments, rate, second_bias, scale=scale, **settings)
                    x.sub_(move @ basis.t())
        state.step += running
        state.status.masked_fill_(running & (state.step >= state.horizon), int(Status.COMPLETED))
        return state

    def hasten(self, state: AdamState, which: Tensor) -> Tensor:
        descent = self.schedule.descent(state.horizon)
        early = which & (state.step < descent)
        state.step[early] = descent
        return early
