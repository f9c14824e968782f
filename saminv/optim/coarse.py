"""Coarse to fine: later layers join a run one after another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._errors import InputError
from .._types import Latents, per_image
from ..spaces._base import AbstractSpace, AbstractStyleSpace
from .problem import Evaluation, Problem
from .wrappers import AbstractWrapper, WrappedState


@dataclass(frozen=True)
class CoarseToFine(AbstractWrapper):
    """Lets the styles of the first layers move from the start, and those of later layers, and later features, join in.

    A slot at the k-th of L places joins after ``share * k / L`` of the run, a feature space likewise by its place among
    the features. What is early decides where things are; what is late cannot paint over it before that is settled.

    Attributes:
        share: Part of the run after which everything moves.
    """

    share: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InputError(f"share must be from 0 to 1, got {self.share}.")

    def update(self, state: WrappedState, evaluation: Evaluation) -> WrappedState:
        assert evaluation.gradients is not None
        latest = self.share * state.horizon
        spaces = {space.name: space for space in state.problem.spaces}
        gradients: Latents = {}
        for name, value in evaluation.gradients.items():
            gradients[name] = {}
            for key, gradient in value.items():
                depth = _depth(spaces[name], state.problem, gradient)
                joined = per_image(state.step, gradient) >= latest * depth
                gradients[name][key] = torch.where(joined, gradient, torch.zeros_like(gradient))
        return super().update(state, replace(evaluation, gradients=gradients))


def _depth(space: AbstractSpace, problem: Problem, gradient: Tensor) -> Tensor:
    """Place of a tensor among the layers, from 0 up to 1, broadcastable to it; 0 for what belongs to none."""
    if isinstance(space, AbstractStyleSpace) and gradient.dim() == 3:
        slots = gradient.shape[1]
        return (torch.arange(slots, device=gradient.device) / slots)[:, None]
    features = problem.generator.feature_sites
    place = 0.0
    if space.spatial:
        site = space.sites(problem.generator)[0].removesuffix(".block")
        place = features.index(site) / len(features)
    return torch.full((1,), place, device=gradient.device)
