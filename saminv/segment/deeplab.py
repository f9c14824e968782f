"""DeepLabV3+ on a ResNet, under the array names of the published invertibility networks.

The encoder keeps a sixteenth of the image's resolution; parallel dilated convolutions see it at several scales, and the
decoder joins them with the features at a quarter of the resolution. Its parts also serve other encoders
(:mod:`saminv.segment.backbones`).

Reference:
    L.-C. Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", 2018,
    arXiv:1802.02611; the multi-grid of the last stage: L.-C. Chen et al., 2017, arXiv:1706.05587, section 4.3;
    residual networks: K. He et al., 2015, arXiv:1512.03385.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = (3, 4, 23, 3)
"""Residual blocks of the stages of ResNet-101."""
RATES = (1, 6, 12, 18)
"""Dilations of the parallel convolutions at a sixteenth of the resolution."""
MULTI_GRID = (1, 2, 4)
"""Factors on the dilation of the last stage's blocks."""
WIDTHS = (64, 128, 256, 512, 256, 48, 256)
"""Published widths: the four stages (before their expansion), the pyramid, the low-level features, the decoder."""
EXPANSION = 4


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions; the 3x3 one has the stride and the dilation."""

    def __init__(self, inputs: int, planes: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        outputs = planes * EXPANSION
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + kept)


class DilatedResNet(nn.Module):
    """ResNet-101 whose last stage dilates instead of halving; returns features at 1/4 and at 1/16.

    Args:
        planes: Widths of the four stages before their expansion.
    """

    def __init__(self, planes: Sequence[int] = WIDTHS[:4]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, planes[0], 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        grids = [(1,) * count for count in BLOCKS[:3]] + [tuple(2 * factor for factor in MULTI_GRID)]
        inputs = planes[0]
        for k, (width, dilations, stride) in enumerate(zip(planes, grids, (1, 2, 2, 1)), start=1):
            blocks = []
            for place, dilation in enumerate(dilations):
                blocks.append(Bottleneck(inputs, width, stride if place == 0 else 1, dilation))
                inputs = width * EXPANSION
            self.add_module(f"layer{k}", nn.Sequential(*blocks))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, padding=1)
        low = self.get_submodule("layer1")(x)
        x = low
        for name in ("layer2", "layer3", "layer4"):
            x = self.get_submodule(name)(x)
        return low, x


class _Atrous(nn.Module):
    def __init__(self, inputs: int, outputs: int, rate: int) -> None:
        super().__init__()
        kernel, padding = (1, 0) if rate == 1 else (3, rate)
        self.atrous_conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=rate, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.atrous_conv(x)))


class AtrousPyramid(nn.Module):
    """Parallel convolutions at several dilations and the mean of the image, joined by a 1x1 convolution (ASPP)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        for k, rate in enumerate(RATES, start=1):
            self.add_module(f"aspp{k}", _Atrous(inputs, width, rate))
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.conv1 = nn.Conv2d((len(RATES) + 1) * width, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        scales = [self.get_submodule(f"aspp{k}")(x) for k in range(1, len(RATES) + 1)]
        mean = self.global_avg_pool(x).expand(-1, -1, *x.shape[2:])
        return self.dropout(F.relu(self.bn1(self.conv1(torch.cat([*scales, mean], dim=1)))))


class Decoder(nn.Module):
    """Joins the pyramid with the low-level features, at the resolution of the latter.

    Args:
        low_inputs: Channels of the low-level features.
        pyramid: Channels of the pyramid.
        low_width: To which the low-level features are reduced, so that they do not outweigh the pyramid.
        width: Of the decoder.
        outputs: Channels that come out.
    """

    def __init__(self, low_inputs: int, pyramid: int, low_width: int, width: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(low_inputs, low_width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(low_width)
        self.last_conv = nn.Sequential(
            nn.Conv2d(pyramid + low_width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(width, outputs, 1),
        )

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        low = F.relu(self.bn1(self.conv1(low)))
        return self.last_conv(torch.cat([enlarge(x, low.shape[2:]), low], dim=1))


class DeepLab(nn.Module):
    """The shared part of the published invertibility networks: image `[B, 3, H, W]` to `[B, outputs, H, W]`.

    Args:
        widths: As :data:`WIDTHS`.
        outputs: Channels that the heads share.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, outputs: int = 8) -> None:
        super().__init__()
        *planes, pyramid, low, width = widths
        self.backbone = DilatedResNet(planes)
        self.aspp = AtrousPyramid(planes[-1] * EXPANSION, pyramid)
        self.decoder = Decoder(planes[0] * EXPANSION, pyramid, low, width, outputs)

    def forward(self, image: Tensor) -> Tensor:
        low, high = self.backbone(image)
        return enlarge(self.decoder(self.aspp(high), low), image.shape[2:])


class PublishedHead(nn.Module):
    """Head of a published invertibility network: shared features `[B, C, H, W]` to `[B, 1, H, W]`, before the ReLU."""

    def __init__(self, inputs: int, width: int = 4) -> None:
        super().__init__()
        self.m = nn.Sequential(
            nn.ConvTranspose2d(inputs, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(width, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.m(x)


def widths_of(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Widths, as :data:`WIDTHS`, of arrays under the published names.

    Raises:
        KeyError: If an array is missing; it is named.
    """
    planes = [f"backbone.layer{k}.0.conv1.weight" for k in range(1, 5)]
    names = [*planes, "aspp.conv1.weight", "decoder.conv1.weight", "decoder.last_conv.0.weight"]
    return tuple(state[name].shape[0] for name in names)


def enlarge(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear enlargement that maps corners to corners, as published."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
