"""The lean formulation by torch.compile: the baseline that a kernel written by hand has to beat.

Loss and gradients are traced as one graph of elementary operations, by the reference of every op, so that the compiler
may fuse across all of them. The solver's step is not part of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from .._types import Latents, flatten, unflatten
from ..ops import using
from ..optim import Evaluation, Problem
from ..optim.precision import FULL, Precision


class CompiledProblem(Problem):
    """A problem whose evaluation is compiled at the first call."""

    def evaluate(self, y: Latents, precision: Precision = FULL) -> Evaluation:
        assert precision.features is None, "the baseline is compiled in full precision"
        names, function = self._compiled
        flat = self._moving(y)
        # Always in the same mode: another one would be compiled anew.
        with torch.no_grad():
            loss, image, *rest = function(*flat.values())
        gradients = unflatten(dict(zip(flat, rest[len(names) :])))
        return Evaluation(loss, dict(zip(names, rest)), gradients, image)

    def _moving(self, y: Latents) -> dict[str, Tensor]:
        return flatten({name: value for name, value in y.items() if name not in self.idle})

    @functools.cached_property
    def _compiled(self) -> tuple[list[str], Callable[..., list[Tensor]]]:
        """Names of the parts of the loss, and the function from latents to loss, image, parts and gradients."""
        from torch.fx.experimental.proxy_tensor import make_fx

        start = self._moving(self.start())
        names: list[str] = []

        def evaluate(*tensors: Tensor) -> list[Tensor]:
            found = super(CompiledProblem, self).evaluate(unflatten(dict(zip(start, tensors))))
            assert found.gradients is not None
            names[:] = found.parts
            return [found.loss, found.image, *found.parts.values(), *flatten(found.gradients).values()]

        with using("reference"):
            # Once as it is: what is computed once and kept has no place in the graph.
            evaluate(*start.values())
            graph = make_fx(evaluate)(*start.values())
        return names, torch.compile(graph, dynamic=False)
