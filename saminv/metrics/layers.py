"""Losses of the Feature-Style paper: a perceptual distance at three scales, identity and face parsing in five layers.

The two networks are read from files: an ArcFace iresnet-50 (``backbone.pth`` of its authors), and the BiSeNet face
parser (``79999_iter.pth``), of which only the ResNet-18 is used. Neither comes with this package.

Reference:
    Yao et al., 2022, arXiv 2202.02183, Eq. 3, 6 and 7.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError, MissingExtraError
from ..images import area_resize
from ..weights.published import fit, plain_state, read_state
from ._base import AbstractMetric, Prepared, get_metric

SCALES = 3
ARCFACE_SIDE = 112
ARCFACE_BLOCKS = (3, 4, 14, 3)
ARCFACE_WIDTHS = (64, 128, 256, 512)
PARSER_SIDE = 512
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class MultiScale(AbstractMetric):
    """A metric summed over an image and its halvings by area (Eq. 3).

    Args:
        metric: Name, or metric.
        scales: Number of sizes, the image itself among them.

    Raises:
        InputError: If there is not at least one scale.
    """

    def __init__(self, metric: str | AbstractMetric, scales: int = SCALES) -> None:
        super().__init__()
        if scales < 1:
            raise InputError(f"scales must be at least 1, got {scales}.")
        self.metric, self.scales = get_metric(metric), scales
        self.name = f"{self.metric.name}-x{scales}"
        self.higher_is_better = self.metric.higher_is_better
        self.spatial = False
        self.smallest = self.metric.smallest * 2 ** (scales - 1)

    def with_features(self, dtype: torch.dtype) -> AbstractMetric:
        return MultiScale(self.metric.with_features(dtype), self.scales)

    def _prepare(self, target: Tensor) -> Sequence[Tensor]:
        return [tensor for part in self._views(target) for tensor in self.metric.prepare(part).tensors]

    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        views = self._views(image)
        count = len(prepared.tensors) // self.scales
        parts = [prepared.tensors[k * count : (k + 1) * count] for k in range(self.scales)]
        pairs = zip(views, parts)
        sizes = [(view.shape[-2], view.shape[-1]) for view in views]
        scores = [
            self.metric(view, Prepared(self.metric.name, tensors, size)) for (view, tensors), size in zip(pairs, sizes)
        ]
        return torch.stack(scores).sum(dim=0)

    def _map(self, image: Tensor, prepared: Prepared) -> Tensor:
        raise NotImplementedError

    def _views(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        return [image] + [area_resize(image, (height >> k, width >> k)) for k in range(1, self.scales)]


class LayerCosines(AbstractMetric):
    """Sum over layers of 1 minus the cosine between the features of two images (Eq. 6 and 7)."""

    spatial = False

    @abstractmethod
    def layers(self, image: Tensor) -> Sequence[Tensor]:
        """Features of images in [-1, 1], one `[B, ...]` per layer."""

    def _prepare(self, target: Tensor) -> Sequence[Tensor]:
        return [F.normalize(layer.flatten(1), dim=1) for layer in self.layers(target)]

    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        pairs = zip(self._prepare(image), prepared.tensors)
        return torch.stack([1 - (a * b).sum(dim=1) for a, b in pairs]).sum(dim=0)

    def _map(self, image: Tensor, prepared: Prepared) -> Tensor:
        raise NotImplementedError


class MultiLayerIdentity(LayerCosines):
    """Identity: the four stages of an ArcFace iresnet-50, and its embedding (Eq. 6).

    Images are resized to 112 x 112; they should be aligned faces.

    Args:
        weights: File of ArcFace's authors for iresnet-50, or its state dict.

    Raises:
        CheckpointError: If the file is missing, damaged, or of another network.
    """

    name = "identity-layers"

    def __init__(self, weights: str | PathLike | Mapping[str, Tensor]) -> None:
        super().__init__()
        with torch.device("meta"):
            network = ArcFace()
        self.network = fit(network, given_state(weights), "ArcFace's backbone.pth for iresnet-50")

    def layers(self, image: Tensor) -> Sequence[Tensor]:
        return self.network(resized(image, ARCFACE_SIDE).to(next(self.network.parameters()).dtype))


class MultiLayerParsing(LayerCosines):
    """Face parsing: the stem and the four stages of the face parser's ResNet-18 (Eq. 7).

    Args:
        weights: File of the published BiSeNet face parser, or its state dict.

    Raises:
        CheckpointError: If the file is missing, damaged, or of another network.
        MissingExtraError: If torchvision is not there.
    """

    name = "parsing-layers"

    def __init__(self, weights: str | PathLike | Mapping[str, Tensor]) -> None:
        super().__init__()
        prefix = "cp.resnet."
        state = {key.removeprefix(prefix): x for key, x in given_state(weights).items() if key.startswith(prefix)}
        self.network = fit(_resnet18(), state, "the face parser's 79999_iter.pth", unused=("fc.",))
        mean, spread = (torch.tensor(values).reshape(3, 1, 1) for values in IMAGENET)
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def layers(self, image: Tensor) -> Sequence[Tensor]:
        net: Any = self.network
        x = (resized(image, PARSER_SIDE).to(self.mean.dtype) * 0.5 + 0.5 - self.mean) / self.spread
        found = [net.maxpool(net.bn1(net.conv1(x)).relu())]
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            found.append(stage(found[-1]))
        return found


class ArcFace(nn.Module):
    """iresnet with the array names of ArcFace's authors; ``forward`` gives the four stages and the embedding.

    Args:
        blocks: Numbers of blocks of the four stages; those of iresnet-50 unless given.
        widths: Channels of the four stages.
    """

    def __init__(self, blocks: Sequence[int] = ARCFACE_BLOCKS, widths: Sequence[int] = ARCFACE_WIDTHS) -> None:
        super().__init__()
        unit = functools.partial(nn.BatchNorm2d, eps=1e-5)
        width = widths[0]
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1, bias=False), unit(width)
        self.prelu = nn.PReLU(width)
        for number, (count, outputs) in enumerate(zip(blocks, widths), start=1):
            stage = [ArcFaceBlock(width if k == 0 else outputs, outputs, 2 if k == 0 else 1) for k in range(count)]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            width = outputs
        self.bn2 = unit(width)
        self.fc = nn.Linear(width * 7 * 7, 512)
        self.features = nn.BatchNorm1d(512, eps=1e-5)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images `[B, 3, 112, 112]` in [-1, 1]; five tensors `[B, ...]`."""
        x = self.prelu(self.bn1(self.conv1(image)))
        found = []
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
            found.append(x)
        return [*found, self.features(self.fc(self.bn2(x).flatten(1)))]


class ArcFaceBlock(nn.Module):
    """Residual block of iresnet: normalise, convolve, normalise, PReLU, convolve, normalise."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        unit = functools.partial(nn.BatchNorm2d, eps=1e-5)
        self.bn1, self.conv1 = unit(inputs), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2, self.prelu = unit(outputs), nn.PReLU(outputs)
        self.conv2, self.bn3 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False), unit(outputs)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), unit(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, h, w]` to `[B, outputs, h / stride, w / stride]`."""
        kept = x if self.downsample is None else self.downsample(x)
        return kept + self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))


def given_state(weights: str | PathLike | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors of a file, or of the state dict that is given instead of it."""
    return plain_state(weights, "the given state dict") if isinstance(weights, Mapping) else read_state(Path(weights))


def resized(image: Tensor, side: int) -> Tensor:
    """Images as squares of a side, averaged where they are larger."""
    return F.interpolate(image, (side, side), mode="bilinear", align_corners=False, antialias=True)


def _resnet18() -> nn.Module:
    try:
        from torchvision.models import resnet18
    except ImportError as error:
        raise MissingExtraError("The face parser needs torchvision: pip install torchvision") from error
    with torch.device("meta"):
        network = resnet18(weights=None)
    del network.fc
    return network
