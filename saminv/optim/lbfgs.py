"""L-BFGS for a batch: each image has its own memory and its own line search.

A step is one evaluation. Each image looks at one point along its direction; it accepts the point if the loss has fallen
enough, and takes a shorter step from where it stood otherwise. So images that search do not hold up those that descend.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._errors import InputError, Status
from .._types import Latents, copy_images, map_latents, per_image
from .problem import Evaluation, Problem
from .solver import SHARED, AbstractSolver, SolverState

if TYPE_CHECKING:
    from typing_extensions import Self

FRESH = -1
"""Count of shortened steps of an image whose next point is accepted whatever its loss."""
DECREASE = 1e-4
"""Part of the expected fall of the loss that a point has to reach."""


@dataclass
class LBFGSState(SolverState):
    """Where each image stands, where it is going, and what it remembers.

    Attributes:
        base: Accepted latents; ``y`` is the point that is looked at next.
        gradient, direction: At the accepted latents, in the coordinates of the steps.
        steps, changes: Last steps and changes of the gradient, each tensor `[B, M, ...]`, the newest at the end.
        curvature: 1 / (step * change) of each pair `[B, M]`, 0 where there is none.
        value, slope: Loss at the accepted latents and its slope along the direction, `[B]`.
        length: Of the step to ``y``, in units of the direction, `[B]`.
        shortened: How often the step has been shortened, `[B]`.
        scale, basis: Coordinates of the steps.
    """

    base: Latents = field(default_factory=dict)
    gradient: Latents = field(default_factory=dict)
    direction: Latents = field(default_factory=dict)
    steps: Latents = field(default_factory=dict)
    changes: Latents = field(default_factory=dict)
    curvature: Tensor = field(default_factory=lambda: torch.empty(0))
    value: Tensor = field(default_factory=lambda: torch.empty(0))
    slope: Tensor = field(default_factory=lambda: torch.empty(0))
    length: Tensor = field(default_factory=lambda: torch.empty(0))
    shortened: Tensor = field(default_factory=lambda: torch.empty(0))
    scale: Latents = field(default_factory=dict, metadata=SHARED)
    basis: Latents = field(default_factory=dict, metadata=SHARED)

    def join(self, other: Self) -> Self:
        # Spaces that were idle so far have nothing to remember.
        known: Self = _remembering(self, other)
        return super(LBFGSState, known).join(_remembering(other, self))


@dataclass(frozen=True)
class LBFGS(AbstractSolver[LBFGSState]):
    """Limited-memory BFGS with backtracking, for objectives that do not change from step to step.

    Attributes:
        memory: Pairs of steps and gradient changes that are kept; each needs twice the memory of the latents.
        first: Root mean square of the first step, in the coordinates of the steps.
        longest: Bound on that of every step.
        patience: How often a step is shortened before the memory is dropped, or the image ends where there is none.
        precondition: Take steps in the coordinates that the spaces propose, as for :class:`Adam`.

    Reference:
        Nocedal and Wright, Numerical Optimization, 2nd edition, 2006, algorithms 7.4 and 3.1.
    """

    memory: int = 10
    first: float = 0.1
    longest: float = 1.0
    patience: int = 8
    precondition: bool = True
    capturable = True

    def __post_init__(self) -> None:
        if self.memory < 1 or self.patience < 1:
            raise InputError(f"memory and patience must be from 1 up, got {self.memory} and {self.patience}.")
        if not 0 < self.first <= self.longest:
            raise InputError(f"first must be positive and at most longest, got {self.first} and {self.longest}.")

    def init(self, problem: Problem, y0: Latents, horizon: int) -> LBFGSState:
        if problem.noise == "random":
            raise InputError("L-BFGS compares losses of several steps; random noise changes them. Use noise='const'.")
        state = LBFGSState.fresh(problem, y0, horizon)
        state.base = map_latents(lambda tensor: tensor.clone(), state.y)
        zeros = torch.zeros(len(problem), device=problem.target.device, dtype=torch.float64)
        state.curvature = zeros[:, None].repeat(1, self.memory)
        state.value, state.slope, state.length = zeros.clone(), zeros.clone(), zeros.clone()
        state.shortened = torch.full_like(zeros, FRESH, dtype=torch.int64)
        for space in problem.spaces:
            value = state.y[space.name]
            state.scale[space.name] = space.step_scale(problem.generator, value) if self.precondition else {}
            state.basis[space.name] = space.step_basis(problem.generator, value) if self.precondition else {}
        return state

    @torch.no_grad()
    def update(self, state: LBFGSState, evaluation: Evaluation) -> LBFGSState:
        assert evaluation.gradients is not None
        if not evaluation.gradients:
            # Nothing moves yet.
            self._count(state, state.running)
            return state
        gradient = _into_steps(state, evaluation.gradients)
        self._make_room(state, gradient)
        loss, running, fresh = evaluation.loss.double(), state.running, state.shortened == FRESH
        fell = loss <= state.value + DECREASE * state.length * state.slope
        accepted = running & (fresh | fell)
        self._remember(state, gradient, accepted & ~fresh)
        for name, value in gradient.items():
            for key, tensor in value.items():
                copy_images(state.base[name][key], state.y[name][key], accepted)
                copy_images(state.gradient[name][key], tensor, accepted)
        shorter = self._shorter(state, loss)
        state.value = torch.where(accepted, loss, state.value)
        self._turn(state, accepted)
        self._shorten(state, running & ~accepted, shorter)
        self._count(state, running)
        self._move(state, running)
        return state

    def _count(self, state: LBFGSState, running: Tensor) -> None:
        state.step += running
        state.status.masked_fill_(state.running & (state.step >= state.horizon), int(Status.COMPLETED))

    def result(self, state: LBFGSState) -> Latents:
        return state.base

    def rebase(self, state: LBFGSState, problem: Problem, changed: Tensor) -> None:
        super().rebase(state, problem, changed)
        state.shortened = state.shortened.masked_fill(changed, FRESH)
        state.curvature = state.curvature.masked_fill(changed[:, None], 0)

    def hasten(self, state: LBFGSState, which: Tensor) -> Tensor:
        early = which & (state.step < state.horizon - 1)
        state.step[early] = state.horizon - 1
        return early

    def _make_room(self, state: LBFGSState, gradient: Latents) -> None:
        """Begin to remember spaces that have a gradient for the first time."""
        for name, value in gradient.items():
            if name not in state.gradient:
                state.gradient[name] = {key: torch.zeros_like(tensor) for key, tensor in value.items()}
                state.direction[name] = {key: torch.zeros_like(tensor) for key, tensor in value.items()}
                for past in (state.steps, state.changes):
                    past[name] = {key: _pairs(tensor, self.memory) for key, tensor in value.items()}

    def _remember(self, state: LBFGSState, gradient: Latents, moved: Tensor) -> None:
        """Keep the last step and the change of the gradient of the images ``moved``, where the loss curves upwards."""
        step = map_latents(lambda d: per_image(state.length, d).to(d.dtype) * d, _of(state.direction, gradient))
        change = map_latents(torch.sub, gradient, _of(state.gradient, gradient))
        product = dot(step, change)
        curved = moved & (product > 1e-10 * (dot(step, step) * dot(change, change)).sqrt())
        for past, newest in ((state.steps, step), (state.changes, change)):
            for name, value in newest.items():
                for key, tensor in value.items():
                    old = past[name][key]
                    copy_images(old, torch.cat([old[:, 1:], tensor[:, None]], dim=1), curved)
        inverse = 1 / torch.where(curved, product, 1.0)
        shifted = torch.cat([state.curvature[:, 1:], inverse[:, None]], dim=1)
        state.curvature = torch.where(curved[:, None], shifted, state.curvature)

    def _turn(self, state: LBFGSState, which: Tensor) -> None:
        """Give the images ``which`` a direction, and the length of the first step along it."""
        downhill = map_latents(torch.neg, two_loop(state))
        slope = dot(downhill, state.gradient)
        # Rounding may have spoilt the memory.
        spoilt = which & ~((slope < 0) & torch.isfinite(slope))
        state.curvature = state.curvature.masked_fill(spoilt[:, None], 0)
        downhill = map_latents(
            lambda d, g: torch.where(per_image(spoilt, d), -g, d), downhill, _of(state.gradient, downhill)
        )
        for name, value in downhill.items():
            for key, tensor in value.items():
                copy_images(state.direction[name][key], tensor, which)
        size = largest_rms(state.direction).clamp_min(1e-300)
        known = (state.curvature != 0).any(dim=1)
        length = torch.where(known, (self.longest / size).clamp_max(1.0), self.first / size)
        state.slope = torch.where(which, dot(state.direction, state.gradient), state.slope)
        state.length = torch.where(which, length, state.length)
        state.shortened = state.shortened.masked_fill(which, 0)

    def _shorter(self, state: LBFGSState, loss: Tensor) -> Tensor:
        """Lengths at which parabolas through value, slope and the new loss are lowest, within bounds."""
        expected = state.slope * state.length
        above = loss - state.value - expected
        ratio = torch.where(above > 0, -0.5 * expected / above, 0.5)
        return state.length * torch.nan_to_num(ratio, nan=0.1).clamp(0.1, 0.5)

    def _shorten(self, state: LBFGSState, which: Tensor, shorter: Tensor) -> None:
        """Shorten the step of the images ``which``; those that have done so too often begin anew, or end."""
        state.length = torch.where(which, shorter, state.length)
        state.shortened += which
        stuck = which & (state.shortened >= self.patience)
        known = (state.curvature != 0).any(dim=1)
        state.status.masked_fill_(stuck & ~known, int(Status.PLATEAU))
        again = stuck & known
        state.curvature = state.curvature.masked_fill(again[:, None], 0)
        self._turn(state, again)

    def _move(self, state: LBFGSState, running: Tensor) -> None:
        """Put the latents of the images that were running where they are to be looked at next."""
        for name, value in state.direction.items():
            for key, direction in value.items():
                move = direction * per_image(state.length, direction).to(direction.dtype)
                basis, scale = state.basis[name].get(key), state.scale[name].get(key)
                move = move if basis is None else move @ basis.t()
                move = move if scale is None else move * scale
                copy_images(state.y[name][key], state.base[name][key] + move, running)


def two_loop(state: LBFGSState) -> Latents:
    """The inverse Hessian of each image times its gradient (algorithm 7.4)."""
    q = map_latents(lambda tensor: tensor.clone(), state.gradient)
    pairs = range(state.curvature.shape[1])
    weights = []
    for k in reversed(pairs):
        step, change = _pair(state, k)
        weights.append(state.curvature[:, k] * dot(step, q))
        q = map_latents(lambda x, c, a=weights[-1]: x - per_image(a, x).to(x.dtype) * c, q, change)
    newest = _pair(state, pairs[-1])[1]
    curvature = state.curvature[:, -1] * dot(newest, newest)
    first = torch.where(curvature > 0, 1 / torch.where(curvature > 0, curvature, 1.0), 1.0)
    q = map_latents(lambda x: x * per_image(first, x).to(x.dtype), q)
    for k, weight in zip(pairs, reversed(weights)):
        step, change = _pair(state, k)
        rest = weight - state.curvature[:, k] * dot(change, q)
        q = map_latents(lambda x, s, a=rest: x + per_image(a, x).to(x.dtype) * s, q, step)
    return q


def dot(a: Latents, b: Latents) -> Tensor:
    """Inner product of each image's latents `[B]`, in double precision; spaces of ``a`` only."""
    parts = [
        (tensor * b[name][key]).flatten(1).sum(dim=1, dtype=torch.float64)
        for name, value in a.items()
        for key, tensor in value.items()
    ]
    return torch.stack(parts).sum(dim=0)


def largest_rms(latents: Latents) -> Tensor:
    """Largest root mean square among the tensors of each image `[B]`."""
    parts = [t.flatten(1).square().mean(dim=1, dtype=torch.float64) for v in latents.values() for t in v.values()]
    return torch.stack(parts).amax(dim=0).sqrt()


def _into_steps(state: LBFGSState, gradients: Latents) -> Latents:
    """Gradients with respect to the coordinates of the steps."""
    found: Latents = {}
    for name, value in gradients.items():
        found[name] = {}
        for key, gradient in value.items():
            basis, scale = state.basis[name].get(key), state.scale[name].get(key)
            gradient = gradient if basis is None else gradient @ basis
            found[name][key] = gradient if scale is None else gradient * scale
    return found


def _pair(state: LBFGSState, k: int) -> tuple[Latents, Latents]:
    """The k-th step and change."""
    steps, changes = (map_latents(lambda tensor: tensor[:, k], past) for past in (state.steps, state.changes))
    return steps, changes


def _of(latents: Latents, like: Latents) -> Latents:
    """The spaces of ``like`` only."""
    return {name: latents[name] for name in like}


def _pairs(tensor: Tensor, memory: int) -> Tensor:
    """Zeros for the pairs of a tensor `[B, ...]`: `[B, M, ...]`."""
    return tensor.new_zeros((len(tensor), memory, *tensor.shape[1:]))


def _remembering(state: Any, other: LBFGSState) -> Any:
    """``state`` with zeros for what only the other one remembers."""
    missing = [name for name in other.gradient if name not in state.gradient]
    if not missing:
        return state
    memory = state.curvature.shape[1]
    plain = {name: {key: torch.zeros_like(x) for key, x in state.y[name].items()} for name in missing}
    pairs = {name: {key: _pairs(x, memory) for key, x in state.y[name].items()} for name in missing}
    return replace(
        state,
        gradient={**state.gradient, **plain},
        direction={**state.direction, **plain},
        steps={**state.steps, **pairs},
        changes={**state.changes, **pairs},
    )
