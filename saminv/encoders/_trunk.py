"""What the encoders of this family share: residual trunks, the feature pyramid, and the heads that read styles off it.

Array names inside the blocks are those of the published networks.

Reference:
    IR-SE-50: Deng et al., 2018, arXiv 1801.07698, with squeeze and excitation (Hu et al., 2017, arXiv 1709.01507);
    residual networks: He et al., 2015, arXiv 1512.03385; the pyramid and map2style: Richardson et al., 2020,
    arXiv 2008.00951, section 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..generators._style_based import EqualLinear

WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages."""
IR_BLOCKS = (3, 4, 14, 3)
"""Blocks of the stages of IR-SE-50."""
RESNET_BLOCKS = (3, 4, 6, 3)
"""Blocks of the stages of ResNet-34."""
REDUCTION = 16
"""Factor by which squeeze and excitation narrows."""
SLOPE = 0.01
"""Of the leaky ReLU in map2style."""


class SqueezeExcitation(nn.Module):
    """Scale each channel of `[B, C, h, w]` by a factor in (0, 1) that depends on the means of all channels."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))))


class IRBlock(nn.Module):
    """Residual block of IR-SE-50: normalise, convolve, PReLU, convolve, normalise, squeeze and excite."""

    def __init__(self, inputs: int, outputs: int, stride: int, reduction: int = REDUCTION) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer: nn.Module | None = None
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcitation(outputs, reduction),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, h, w]` to `[B, outputs, h / stride, w / stride]`, sizes rounded up."""
        kept = every(x, self.stride)
        return (kept if self.shortcut_layer is None else self.shortcut_layer(kept)) + self.res_layer(x)


class BasicBlock(nn.Module):
    """Residual block of ResNet-34."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.downsample is None else self.downsample(every(x, self.stride))
        return F.relu(kept + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Trunk(nn.Module):
    """Four stages of residual blocks; a picture `[B, C, H, W]` becomes features at 1/2, 1/4, 1/8 and 1/16 of its size.

    Args:
        inputs: Channels of the picture.
        widths: Channels of the stages.
        blocks: Blocks of the stages.
        reduction: Of squeeze and excitation.
        resnet: ResNet-34 (whose first convolution halves, and whose first stage does not), not IR-SE-50.
    """

    def __init__(
        self,
        inputs: int = 3,
        widths: Sequence[int] = WIDTHS,
        blocks: Sequence[int] = IR_BLOCKS,
        reduction: int = REDUCTION,
        *,
        resnet: bool = False,
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if resnet else (3, 1)
        self.stem = nn.Sequential(
            nn.Conv2d(inputs, widths[0], kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.PReLU(widths[0]),
        )
        self.stages = nn.ModuleList()
        for place, ((before, width), count) in enumerate(zip(itertools.pairwise((widths[0], *widths)), blocks)):
            first = 1 if resnet and place == 0 else 2
            chain: list[nn.Module] = []
            for k in range(count):
                sizes = (before if k == 0 else width, width, first if k == 0 else 1)
                chain.append(BasicBlock(*sizes) if resnet else IRBlock(*sizes, reduction))
            self.stages.append(nn.Sequential(*chain))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The output of each stage, the finest first."""
        found = [self.stem(x)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[1:]


class Pyramid(nn.Module):
    """Adds coarse features to finer ones, from the top down; all levels have as many channels as the coarsest.

    Args:
        inputs: Channels of the features, the finest first.
    """

    def __init__(self, inputs: Sequence[int]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(width, inputs[-1], 1) for width in inputs[:-1])

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """One `[B, C, h, w]` for each feature, in their order."""
        found = [features[-1]]
        for lateral, feature in zip(reversed(self.laterals), reversed(features[:-1])):
            found.insert(0, enlarge(found[0], feature) + lateral(feature))
        return found


class Map2Style(nn.Module):
    """Convolutions that halve a feature until one position is left, and a linear layer: `[B, C, h, w]` to `[B, D]`.

    Args:
        inputs: Channels of the feature.
        outputs: Dimension of the style.
        depth: Number of halvings.
        width: Channels of the convolutions; as many as outputs where 0, as published.
    """

    def __init__(self, inputs: int, outputs: int, depth: int, width: int = 0) -> None:
        super().__init__()
        width, layers = width or outputs, list[nn.Module]()
        for k in range(depth):
            layers += [nn.Conv2d(width if k else inputs, width, 3, 2, padding=1), nn.LeakyReLU(SLOPE)]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


class StyleBranch(nn.Module):
    """Trunk, pyramid and a map2style for each style.

    Args:
        inputs: Channels of the picture.
        style_dim: Dimension of a style.
        side: Longer side of the picture.
        per_level: Number of styles that are read off each level of the pyramid, the coarsest first.
        widths, blocks, reduction, resnet: Of the trunk.
        pyramid: Whether there are finer levels than the last stage.
        head_width: Channels inside each map2style; as many as a style has numbers where 0.
        pooled: Side of the grids to which the features of all stages are averaged. Where it is not 0, styles are linear
            in these, over ``head_width`` numbers that they share, in place of the map2styles. Learns several times
            faster.
    """

    def __init__(
        self,
        inputs: int,
        style_dim: int,
        side: int,
        per_level: Sequence[int],
        widths: Sequence[int],
        blocks: Sequence[int],
        reduction: int,
        resnet: bool = False,
        pyramid: bool = True,
        head_width: int = 0,
        pooled: int = 0,
    ) -> None:
        super().__init__()
        self.per_level, self.pooled = tuple(per_level), pooled
        self.trunk = Trunk(inputs, widths, blocks, reduction, resnet=resnet)
        self.pyramid = Pyramid(widths[1:]) if pyramid else None
        coarsest = (side // 16).bit_length() - 1
        depths = [coarsest + level for level, count in enumerate(per_level) for _ in range(count)]
        if pooled:
            self.shared = nn.Linear(sum(widths) * pooled**2, head_width or style_dim)
            self.heads = nn.ModuleList(nn.Linear(head_width or style_dim, style_dim) for _ in depths)
            return
        self.heads = nn.ModuleList(Map2Style(widths[3], style_dim, depth, head_width) for depth in depths)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Codes `[B, L, D]`, and the levels that they are read off, the finest first."""
        stages = self.trunk(x)
        features = stages[1:]
        levels = features[-1:] if self.pyramid is None else self.pyramid(features)
        if self.pooled:
            found = self.shared(pooled_stages(stages, self.pooled))
            return torch.stack([head(found) for head in self.heads], dim=1), levels
        owners = [level for level, count in enumerate(self.per_level) for _ in range(count)]
        return torch.stack([head(levels[-1 - level]) for head, level in zip(self.heads, owners)], dim=1), levels


def pooled_stages(stages: Sequence[Tensor], side: int) -> Tensor:
    """Features `[B, C, h, w]` of all stages, averaged to grids of one size and joined `[B, F]`."""
    return torch.cat([F.adaptive_avg_pool2d(stage, side) for stage in stages], dim=1).flatten(1)


def every(x: Tensor, stride: int) -> Tensor:
    """Every ``stride``-th position of `[B, C, h, w]`.

    A 1x1 convolution with that stride is one of these alone. On the CPU its own weight gradient writes beyond its
    memory in some releases of torch, for channels-last features whose channels are no multiple of 8.
    """
    return x if stride == 1 else x[:, :, ::stride, ::stride]


def usual_levels(num_styles: int) -> tuple[int, int, int]:
    """How many styles each level gives, the coarsest first: 3 coarse, 4 middle, and the rest fine."""
    coarse, middle = min(3, num_styles), min(4, max(0, num_styles - 3))
    return (coarse, middle, num_styles - coarse - middle)


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear enlargement to the size of another tensor, which maps corners to corners, as published."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)
