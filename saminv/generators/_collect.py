"""What ``until`` asks for, gathered on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .._errors import InputError
from .._types import Features
from ..sites import Site
from ._base import IMAGE


class Collector:
    """Gathers the tensors that ``until`` asks for and says when all are there.

    Attributes:
        names: What was asked for; empty for the picture alone.
        found: What has come by.

    Raises:
        InputError: If a name is no site of the generator.
    """

    def __init__(self, until: str | Sequence[str] | None, sites: Mapping[str, Site], dtype: torch.dtype) -> None:
        self.dtype = dtype
        names = [until] if isinstance(until, str) else list(until or ())
        for name in names:
            if name not in sites and name != IMAGE:
                raise InputError(f"until={name!r} is no site of this generator. It has: {', '.join(sites)}.")
        self.names, self.found = names, Features()

    def check(self, noise: str) -> None:
        """Raise if something that was asked for did not come by."""
        missing = ", ".join(name for name in self.names if name not in self.found)
        if missing:
            raise InputError(f"until={missing} is not computed with noise={noise!r} and these taps.")

    def see(self, name: str, x: Tensor | None) -> bool:
        """Keep ``x`` if it was asked for; True when nothing is missing any more."""
        if x is not None and name in self.names:
            self.found[name] = x.to(self.dtype)
            return len(self.found) == len(self.names)
        return False
