"""What the heads of an invertibility network share: images in [-1, 1] to a few channels at the image's resolution.

How to add one: a module with ``forward(image [B, 3, H, W]) -> [B, features, H, W]`` for any size, constructed from
``(features, widths)`` where empty ``widths`` mean its own defaults; register it in ``BACKBONES``.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import CheckpointError, InputError, MissingExtraError
from .._registry import Registry
from ..metrics.vision import SLOPE, VisionNet, _convolution, _stage
from ..weights.published import read_state
from .deeplab import EXPANSION, WIDTHS, AtrousPyramid, Decoder, DeepLab, enlarge

BACKBONES: Registry[Callable[[int, Sequence[int]], nn.Module]] = Registry("invertibility backbone")

SMALL_WIDTHS = (16, 24, 48, 96, 128, 32)
"""Channels of the stages of the demo's vision network, then of the decoder."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the colours in [0, 1] that torchvision's weights expect."""
_UNUSED = ("fc.", "classifier.", "avgpool.")


@BACKBONES.register("small")
class Small(nn.Module):
    """Plain convolutions as in the demo's vision network, the image's mean, and a decoder from coarse to fine.

    The stages have the shapes of :class:`~saminv.metrics.vision.VisionNet`'s, so training may start from it.

    Args:
        features: Channels that come out.
        widths: Channels of the stages (each after the first halves the grid), then of the decoder.
    """

    def __init__(self, features: int, widths: Sequence[int] = ()) -> None:
        super().__init__()
        *channels, width = widths or SMALL_WIDTHS
        if not channels:
            raise InputError(f"The small backbone needs widths of its stages and of its decoder, not {list(widths)}.")
        pairs = itertools.pairwise((3, *channels))
        last = len(channels) - 1
        self.stages = nn.ModuleList(_stage(a, b, 1 + (k == last), halve=k > 0) for k, (a, b) in enumerate(pairs))
        self.context = nn.Conv2d(channels[-1], width, 1)
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.merges = nn.ModuleList(_convolution(width, width) for _ in channels[1:])
        self.last = _convolution(width, features)

    def forward(self, image: Tensor) -> Tensor:
        taps = []
        x = image
        for stage in self.stages:
            x = stage(x)
            taps.append(x)
        # How hard a place is depends on the rest of the scene too: the styles are shared.
        x = self.laterals[-1](x) + self.context(x.mean(dim=(2, 3), keepdim=True))
        for k in range(len(taps) - 2, -1, -1):
            x = self.merges[k](F.leaky_relu(x, SLOPE))
            x = F.interpolate(x, size=taps[k].shape[-2:], mode="bilinear", align_corners=False)
            x = x + self.laterals[k](taps[k])
        return self.last(F.leaky_relu(x, SLOPE))

    def init_from_vision(self, vision: VisionNet) -> None:
        """Copy the stages of a trained vision network.

        Raises:
            InputError: If its stages have other shapes.
        """
        try:
            self.stages.load_state_dict(vision.stages.state_dict())
        except RuntimeError as error:
            raise InputError(
                f"The vision network's stages have {list(vision.config.channels)} channels and "
                f"{list(vision.config.depths)} convolutions; they do not fit this backbone: {error}"
            ) from error


class TorchvisionDeepLab(nn.Module):
    """DeepLabV3+ over one of torchvision's networks, whose last stage is dilated; any size of at least 2 x 2.

    Args:
        encoder: Gives the low-level features and those at a sixteenth of the resolution.
        channels: Of both.
        features: Channels that come out.
        widths: Of the pyramid, the low-level features and the decoder.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: _Encoder, channels: tuple[int, int], features: int, widths: Sequence[int]) -> None:
        super().__init__()
        pyramid, low, width = widths or WIDTHS[4:]
        self.encoder = encoder
        self.aspp = AtrousPyramid(channels[1], pyramid)
        self.decoder = Decoder(channels[0], pyramid, low, width, features)
        for name, values in zip(("mean", "std"), IMAGENET):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        low, high = self.encoder((0.5 * image + 0.5 - self.mean) / self.std)
        return enlarge(self.decoder(self.aspp(high), low), image.shape[2:])

    def load_encoder(self, path: str | Path) -> None:
        """Load the encoder from a file with torchvision's classification weights (.pth or .safetensors).

        Raises:
            CheckpointError: If the file is missing or damaged, or of another network.
        """
        state = {key.removeprefix("features."): value for key, value in read_state(Path(path)).items()}
        wanted = self.encoder.state_dict().keys()
        kept = {key: value for key, value in state.items() if key in wanted or not key.startswith(_UNUSED)}
        try:
            self.encoder.load_state_dict(kept)
        except RuntimeError as error:
            raise CheckpointError(f"{path} does not hold the weights of this backbone: {error}") from error


class _Encoder(nn.Sequential):
    """A chain that also returns what comes out of the link named ``tap``."""

    tap: str = ""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        low = x = image
        for name, link in self.named_children():
            x = link(x)
            if name == self.tap:
                low = x
        return low, x


def _encoder(links: Mapping[str, nn.Module], tap: str) -> _Encoder:
    encoder = _Encoder(OrderedDict(links))
    encoder.tap = tap
    return encoder


def _resnet(name: str) -> Callable[[int, Sequence[int]], nn.Module]:
    def build(features: int, widths: Sequence[int] = ()) -> nn.Module:
        network = getattr(_torchvision(), name)(weights=None, replace_stride_with_dilation=[False, False, True])
        links = {key: link for key, link in network.named_children() if not f"{key}.".startswith(_UNUSED)}
        return TorchvisionDeepLab(_encoder(links, "layer1"), (64 * EXPANSION, 512 * EXPANSION), features, widths)

    return build


def _mobilenet(features: int, widths: Sequence[int] = ()) -> nn.Module:
    links = dict(_torchvision().mobilenet_v3_large(weights=None, dilated=True).features.named_children())
    # Block 3 is the last one at a quarter of the resolution; 24 and 960 are the widths of the architecture.
    return TorchvisionDeepLab(_encoder(links, "3"), (24, 960), features, widths)


def _published(features: int, widths: Sequence[int] = ()) -> nn.Module:
    return DeepLab(widths or WIDTHS, features)


BACKBONES.add("deeplab-resnet50", _resnet("resnet50"))
BACKBONES.add("deeplab-resnet101", _resnet("resnet101"))
BACKBONES.add("deeplab-mobilenetv3", _mobilenet)
BACKBONES.add("sam-deeplab", _published)


def _torchvision() -> Any:
    try:
        import torchvision.models
    except ImportError as error:
        raise MissingExtraError(
            'The backbones "deeplab-..." need torchvision: pip install torchvision. The backbone "small" works without.'
        ) from error
    return torchvision.models
