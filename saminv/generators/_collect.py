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

    def result(self, image: Tensor | None, noise: str) -> Tensor | Features:
        """What a synthesis returns: the picture `[B, 3, H, W]`, or what was asked for instead of it.

        Args:
            image: The picture; None where all had come by before it.
            noise: The noise mode, for messages.

        Raises:
            InputError: If something that was asked for did not come by.
        """
        if not self.names:
            assert image is not None
            return image
        self.see(IMAGE, image)
        missing = ", ".join(name for name in self.names if name not in self.found)
        if missing:
            raise InputError(f"until={missing} is not computed with noise={noise!r} and these taps.")
        return self.found

    def see(self, name: str, x: Tensor | None) -> bool:
        """Keep ``x`` if it was asked for; True when nothing is missing any more."""
        if x is not None and name in self.names:
            self.found[name] = x.to(self.dtype)
            return len(self.found) == len(self.names)
        return False
