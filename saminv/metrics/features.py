"""Pictures as vectors, for metrics that compare sets of pictures.

A picture is rounded to the 256 levels of a file, resized, and passed through a frozen network. Networks and rules of
resizing move a distance more than most methods do: every extractor names both, and statistics of different ones are
refused.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from .._registry import Registry
from ._base import check_images
from .vision import VisionNet, load_vision

DEMO_SIDE = 128
DEMO_SCALE = 10.0
"""Brings the demo's features to the size of Inception's, on which the kernel of KID and readers' eyes are set."""


class AbstractExtractor(nn.Module, ABC):
    """A frozen network that makes one vector of a picture.

    Attributes:
        name: Name in the registry, and in tables.
        side: Height and width in pixels that the network sees; pictures are resized to it without keeping their ratio.
        resizing: A rule of :data:`RESIZING`.
        length: Of the vectors.
    """

    name: str
    side: int
    length: int

    def __init__(self, resizing: str) -> None:
        super().__init__()
        if resizing not in RESIZING:
            raise InputError(f"There is no rule of resizing {resizing!r}; there are: {', '.join(RESIZING)}.")
        self.resizing = resizing
        self._fingerprint: str | None = None

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Vectors `[B, length]` of pictures `[B, 3, H, W]` in [-1, 1] (clamped).

        Raises:
            InputError: If these are no pictures, or hold values that are not finite.
        """
        check_images(images, "pictures")
        if not bool(torch.isfinite(images).all()):
            raise InputError("The pictures hold values that are NaN or infinite; they cannot be compared.")
        weight = next(self.parameters())
        levels = ((images.to(weight.device).float().clamp(-1, 1) + 1) * 127.5).round().to(weight.dtype)
        # A GPU would round factors of convolutions to 10 bits; sets are compared with statistics made elsewhere.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self.vectors(RESIZING[self.resizing](levels, self.side))

    @abstractmethod
    def vectors(self, levels: Tensor) -> Tensor:
        """Vectors `[B, length]` of pictures `[B, 3, side, side]` in [0, 255]."""

    def train(self, mode: bool = True) -> AbstractExtractor:
        """Stay in evaluation mode: statistics of batches have no place in a metric."""
        return super().train(False)  # type: ignore[return-value]

    @property
    def what(self) -> str:
        """Network, resizing and size, as a table's header says it."""
        return f"{self.name}, resized to {self.side} x {self.side} by {self.resizing}"

    def fingerprint(self) -> str:
        """SHA-256 over the rule of resizing and all weights: equal ones give comparable vectors."""
        if self._fingerprint is None:
            digest = hashlib.sha256(self.what.encode())
            for name, tensor in sorted(self.state_dict().items()):
                array = np.ascontiguousarray(tensor.detach().cpu().contiguous().float().numpy())
                digest.update(f"{name}{array.shape}".encode())
                digest.update(array.tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


class DemoFeatures(AbstractExtractor):
    """Features of the demo's vision network, for car scenes without any further file.

    The means over the picture of the network's last features, times 10, `[128]`, on 128 x 128 pixels. Distances on
    them are not FID or KID as published: that network knows car scenes only, and "demo" stands in their names.

    Args:
        network: The network to use; the bundled one if None.
        resizing: A rule of :data:`RESIZING`.

    Raises:
        InputError: If there is no such rule.
        CheckpointError: If the bundled weights are missing or damaged.
    """

    name = "demo"
    side = DEMO_SIDE

    def __init__(self, network: VisionNet | None = None, resizing: str = "clean") -> None:
        super().__init__(resizing)
        self.network = load_vision() if network is None else network
        self.length = self.network.config.channels[-1]

    def vectors(self, levels: Tensor) -> Tensor:
        return DEMO_SCALE * self.network.features(levels / 127.5 - 1)[-1].mean(dim=(2, 3))


def resize_clean(levels: Tensor, side: int) -> Tensor:
    """Bicubic with antialiasing, as PIL does it on floats, kept in [0, 255]; the rule of clean-fid.

    Reference:
        G. Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", 2022, arXiv:2104.11222.
    """
    if tuple(levels.shape[-2:]) == (side, side):
        return levels
    # In float32 the weights of the filter keep four digits only.
    found = F.interpolate(levels.double(), (side, side), mode="bicubic", align_corners=False, antialias=True)
    return found.clamp(0, 255).to(levels.dtype)


def resize_tensorflow(levels: Tensor, side: int) -> Tensor:
    """Bilinear without antialiasing, corner of the first pixel on corner of the first; the rule of the original FID.

    So does TensorFlow 1, and so do torchmetrics and torch-fidelity.
    """
    for axis in (2, 3):
        size = levels.shape[axis]
        place = torch.arange(side, device=levels.device, dtype=levels.dtype) * (size / side)
        low = place.long()
        part = (place - low).unflatten(0, (-1, 1) if axis == 2 else (1, -1))
        begin, end = (levels.index_select(axis, index.clamp_max(size - 1)) for index in (low, low + 1))
        levels = torch.lerp(begin, end, part)
    return levels


RESIZING: dict[str, Callable[[Tensor, int], Tensor]] = {"clean": resize_clean, "tensorflow": resize_tensorflow}
"""Rules by name: what turns `[B, 3, H, W]` in [0, 255] into `[B, 3, side, side]`."""

EXTRACTORS: Registry[Callable[..., AbstractExtractor]] = Registry("feature extractor")


def get_extractor(name: str | AbstractExtractor, **options: Any) -> AbstractExtractor:
    """Build the feature extractor called ``name``; one that is built already is returned as it is.

    Raises:
        InputError: If the name is unknown, or options are given with an extractor that is built already.
        WeightsError: If its weights are neither here nor can be fetched.
    """
    if isinstance(name, AbstractExtractor):
        if options:
            raise InputError(f"The extractor {name.name!r} is built already; it takes no options.")
        return name
    return EXTRACTORS.get(name)(**options)
