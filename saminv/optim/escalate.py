"""Invertibility by measurement: segments climb from W+ to later layers until their error is at most tau.

No trained network is needed, so this works on any generator. All segments start in the most editable space. When an
image has reached a plateau, the spatial perceptual error of its current reconstruction is averaged over each segment;
segments above tau move to the next space, and the run goes on warm. Two kinds of segments wait for the next look
instead: large ones in the style space while there are far worse ones in it, because these pull the styles away from
what the rest needs; and those in later layers, or small ones, whose error falls so fast that it would be at most tau
by then. It ends when none is above tau or all of those are in the last space.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .._types import Latents
from ..metrics._base import AbstractMetric, Prepared
from ..segment._base import LARGE_AREA, dense_ids, paint, segment_mean
from .problem import Evaluation, Problem
from .wrappers import AbstractWrapper, WrappedState


@dataclass
class EscalateState(WrappedState):
    """Level and history of each segment.

    Attributes:
        index: Dense segment number of each pixel `[B, H, W]`.
        level: Space of each segment `[B, S]`, counted along the regions' spaces.
        settled: `[B]`, True where no segment will move any more.
        clock: Steps since the image's regions last changed `[B]`.
        lowest, waited: Plateau detection as in :class:`saminv.optim.PlateauStop`.
        looks: How often the errors of each image were looked at `[B]`.
        previous: Mean errors at the image's last look `[B, S]`, 0 before the first one.
        tau: Threshold of each segment `[B, S]`.
        table: Mean error of each segment in each space when it was last looked at there `[B, S, L]`; infinite where it
            never was.
    """

    index: Tensor = field(default_factory=lambda: torch.empty(0))
    sizes: Tensor = field(default_factory=lambda: torch.empty(0))
    level: Tensor = field(default_factory=lambda: torch.empty(0))
    settled: Tensor = field(default_factory=lambda: torch.empty(0))
    clock: Tensor = field(default_factory=lambda: torch.empty(0))
    lowest: Tensor = field(default_factory=lambda: torch.empty(0))
    waited: Tensor = field(default_factory=lambda: torch.empty(0))
    looks: Tensor = field(default_factory=lambda: torch.empty(0))
    previous: Tensor = field(default_factory=lambda: torch.empty(0))
    tau: Tensor = field(default_factory=lambda: torch.empty(0))
    table: Tensor = field(default_factory=lambda: torch.empty(0))
    prepared: Prepared | None = None


@dataclass(frozen=True)
class Escalate(AbstractWrapper):
    """Measures invertibility while it inverts; wraps the solver that does the descent.

    Attributes:
        metric: Spatial perceptual metric of the error maps.
        segments: Segment ids `[B, H, W]`.
        tau: Largest mean error of a segment that stays in its space; one for all images, one for
            each `[B]`, or one for each segment `[B, S]`, counted as by :func:`saminv.segment.dense_ids`.
        patience, tolerance: A plateau is ``patience`` steps without a relative fall of the loss by ``tolerance``.
        first_share: Share of the run after which an image's first look happens even without a plateau.
        later_share: The same for its later looks, counted from the one before.
        last_share: Share of the run, at its end, in which no segment moves.
        worst_factor, least_area: Segments above this many times tau leave the style space before others above tau do
            that cover at least this share of the image.
        patient_level: From this space on (the style space is 0), segments above tau wait while their error falls fast
            enough. A large segment that waited in the first feature space would often pass in the end, but show little.
        small_area: Segments that cover less than this share of the image wait likewise in all spaces.
        measured: `[B]`, the images whose segments may move; all where None. The others keep the regions of the problem.
    """

    metric: AbstractMetric
    segments: Tensor
    tau: float | Tensor
    patience: int = 15
    tolerance: float = 0.02
    first_share: float = 0.40
    later_share: float = 0.10
    last_share: float = 0.20
    worst_factor: float = 2.0
    least_area: float = LARGE_AREA
    patient_level: int = 2
    small_area: float = 0.01
    measured: Tensor | None = None

    def init(self, problem: Problem, y0: Latents, horizon: int) -> EscalateState:
        index, sizes = dense_ids(self.segments)
        count, device = len(problem), problem.target.device
        zeros = torch.zeros(count, dtype=torch.int64, device=device)
        settled = torch.full((count,), len(problem.regions.spaces) == 1, device=device)
        if self.measured is not None:
            settled |= ~self.measured.to(device)
        return EscalateState.around(
            self.solver.init(problem, y0, horizon),
            index=index,
            sizes=sizes,
            level=torch.zeros_like(sizes),
            settled=settled,
            clock=zeros,
            lowest=torch.full((count,), torch.inf, dtype=torch.float64, device=device),
            waited=zeros.clone(),
            looks=zeros.clone(),
            previous=torch.zeros(sizes.shape, device=device),
            tau=self._taus(sizes),
            table=torch.full((*sizes.shape, len(problem.regions.spaces)), torch.inf, device=device),
            prepared=self.metric.prepare(problem.target),
        )

    def _taus(self, sizes: Tensor) -> Tensor:
        """The threshold of each segment `[B, S]`."""
        tau = torch.as_tensor(self.tau, dtype=torch.float64, device=sizes.device)
        return (tau if tau.dim() == 2 else tau.reshape(-1, 1)).expand(sizes.shape).clone()

    @torch.no_grad()
    def update(self, state: EscalateState, evaluation: Evaluation) -> EscalateState:  # type: ignore[override]
        fell = evaluation.loss < state.lowest * (1 - self.tolerance)
        state.lowest = torch.where(fell, evaluation.loss.double(), state.lowest)
        state.waited = torch.where(fell, 0, state.waited + 1)
        state.inner = self.solver.update(state.inner, evaluation)
        state.clock += 1
        return state

    @torch.no_grad()
    def attend(self, state: EscalateState, evaluation: Evaluation) -> None:  # type: ignore[override]
        super().attend(state, evaluation)
        due = self._due(state)
        if bool(due.any()):
            self._look(state, evaluation, due)

    def _due(self, state: EscalateState) -> Tensor:
        """Images whose errors are to be looked at now."""
        horizon = state.horizon
        limit = torch.where(state.looks == 0, int(self.first_share * horizon), int(self.later_share * horizon))
        arrived = (state.waited >= self.patience) | (state.clock >= limit.clamp_min(1))
        # The very last look must leave time for the features it brings in.
        late = state.step >= int((1 - self.last_share) * horizon)
        return arrived & ~late & ~state.settled & state.running

    def _look(self, state: EscalateState, evaluation: Evaluation, due: Tensor) -> None:
        assert state.prepared is not None
        regions = state.problem.regions
        error = self.metric.map(evaluation.image, state.prepared)
        mean = segment_mean(error, state.index, state.level.shape[1])
        tau = state.tau.to(mean.dtype)
        seen = state.table.scatter(2, state.level[:, :, None], mean.to(state.table.dtype)[:, :, None])
        state.table = torch.where(due[:, None, None], seen, state.table)
        last = len(regions.spaces) - 1
        above = (mean > tau) & (state.level < last) & (state.sizes > 0) & due[:, None]
        state.settled |= due & ~above.any(dim=1)
        above &= ~self._catching_up(state, mean, tau)
        above &= ~self._pulled(state, mean, tau, above)
        state.previous = torch.where(due[:, None], mean, state.previous)
        changed = above.any(dim=1)
        state.looks += due
        state.clock, state.waited = state.clock.masked_fill(due, 0), state.waited.masked_fill(due, 0)
        if bool(changed.any()):
            state.level = state.level + above
            state.lowest = state.lowest.masked_fill(changed, torch.inf)
            labels = torch.where(changed[:, None, None], paint(state.level, state.index).long(), regions.labels)
            self.rebase(state, state.problem.with_regions(regions.with_labels(labels)), changed)

    def _catching_up(self, state: EscalateState, mean: Tensor, tau: Tensor) -> Tensor:
        """Segments `[B, S]` that may wait, and will be at most tau by the next look if they go on as since the last."""
        may_wait = (state.level >= self.patient_level) | (_area(state) < self.small_area)
        return may_wait & (mean.square() <= tau * state.previous)

    def _pulled(self, state: EscalateState, mean: Tensor, tau: Tensor, above: Tensor) -> Tensor:
        """Segments `[B, S]` in the style space that may fit once far worse ones have left it."""
        styles = state.level == 0
        worst = above & styles & (mean > self.worst_factor * tau)
        return styles & ~worst & (_area(state) >= self.least_area) & worst.any(dim=1, keepdim=True)


def _area(state: EscalateState) -> Tensor:
    """Share of its image that each segment covers `[B, S]`."""
    return state.sizes / state.index[0].numel()
