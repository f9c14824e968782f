"""BiSeNet on ResNet-18, with the tensor names of the published face parser."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18


class ConvUnit(nn.Module):
    """Convolution, normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Same size as ``x``."""
        return self.bn(self.conv(x)).relu()


class AttentionRefinement(nn.Module):
    """Features whose channels are weighted by what their mean over the image says."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvUnit(inputs, outputs)
        self.conv_atten = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Same size as ``x``."""
        x = self.conv(x)
        return x * self.bn_atten(self.conv_atten(_mean(x))).sigmoid()


class ContextPath(nn.Module):
    """Features at an eighth of the resolution: the backbone's own, and those that know the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = resnet18(weights=None)
        del self.resnet.fc
        self.arm16, self.arm32 = AttentionRefinement(256, 128), AttentionRefinement(512, 128)
        self.conv_head16, self.conv_head32 = ConvUnit(128, 128), ConvUnit(128, 128)
        self.conv_avg = ConvUnit(512, 128, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, each `[B, 128, H/8, W/8]`."""
        net = self.resnet
        eighth = net.layer2(net.layer1(net.maxpool(net.bn1(net.conv1(x)).relu())))
        sixteenth = net.layer3(eighth)
        last = net.layer4(sixteenth)
        context = self.arm32(last) + self.conv_avg(_mean(last))
        context = self.conv_head32(F.interpolate(context, sixteenth.shape[-2:], mode="nearest"))
        context = self.arm16(sixteenth) + context
        return eighth, self.conv_head16(F.interpolate(context, eighth.shape[-2:], mode="nearest"))


class FeatureFusion(nn.Module):
    """Joins two features, with a residual weighting of the channels by their means."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        self.convblk = ConvUnit(channels, channels, kernel=1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Both `[B, 128, h, w]`; returns `[B, 256, h, w]`."""
        joined = self.convblk(torch.cat([detail, context], dim=1))
        return joined * (1 + self.conv2(self.conv1(_mean(joined)).relu()).sigmoid())


class Head(nn.Module):
    """Class logits of features."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvUnit(inputs, inputs)
        self.conv_out = nn.Conv2d(inputs, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, classes, h, w]` of features `[B, inputs, h, w]`."""
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """Class logits at the size of the image; the backbone's early features stand in for a spatial path of their own.

    Reference:
        Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", 2018,
        arXiv:1808.00897.
    """

    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion()
        self.conv_out = Head(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, classes, H, W]` of normalised images `[B, 3, H, W]`."""
        logits = self.conv_out(self.ffm(*self.cp(x)))
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=True)


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)
