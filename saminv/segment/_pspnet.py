"""PSPNet on a dilated ResNet-50, with the tensor names of the published ADE20K weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

BINS = (1, 2, 3, 6)
POOLED = 512


def _unit(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> list[nn.Module]:
    """Convolution, normalisation and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class DilatedResNet50(nn.Module):
    """Features `[B, 2048, H/8, W/8]` of ResNet-50 with three convolutions at its entrance.

    The last two stages keep the resolution and dilate their convolutions by 2 and 4 instead; the first convolution of
    each, which would have had a stride, dilates by half of that.

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385; Yu, Koltun, Funkhouser,
        "Dilated Residual Networks", 2017, arXiv:1705.09914.
    """

    def __init__(self) -> None:
        super().__init__()
        for number, (inputs, outputs) in enumerate(((3, 64), (64, 64), (64, 128)), start=1):
            self.add_module(f"conv{number}", nn.Conv2d(inputs, outputs, 3, 2 if number == 1 else 1, 1, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(outputs))
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(128, 64, 3)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, dilation=2)
        self.layer4 = _stage(1024, 512, 3, dilation=4)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of normalised images `[B, 3, H, W]`."""
        for number in (1, 2, 3):
            x = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(x)).relu()
        return self.layer4(self.layer3(self.layer2(self.layer1(self.maxpool(x)))))


def _stage(inputs: int, width: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    outputs = width * Bottleneck.expansion
    shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    first = Bottleneck(inputs, width, stride, shortcut, dilation=max(1, dilation // 2))
    return nn.Sequential(first, *(Bottleneck(outputs, width, dilation=dilation) for _ in range(blocks - 1)))


class PyramidPooling(nn.Module):
    """Class logits `[B, classes, h, w]` from features and their means over grids of 1, 2, 3 and 6 cells a side.

    Reference:
        Zhao et al., "Pyramid Scene Parsing Network", 2016, arXiv:1612.01105, section 3.2.
    """

    def __init__(self, inputs: int = 2048, classes: int = 150) -> None:
        super().__init__()
        self.ppm = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(cells), *_unit(inputs, POOLED)) for cells in BINS)
        joined = inputs + len(BINS) * POOLED
        self.conv_last = nn.Sequential(*_unit(joined, POOLED, 3), nn.Dropout2d(0.1), nn.Conv2d(POOLED, classes, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits at the size of the features."""
        size = features.shape[-2:]
        pooled = [F.interpolate(branch(features), size, mode="bilinear", align_corners=False) for branch in self.ppm]
        return self.conv_last(torch.cat([features, *pooled], dim=1))


class PSPNet(nn.Module):
    """Encoder and decoder."""

    def __init__(self, classes: int = 150) -> None:
        super().__init__()
        self.encoder = DilatedResNet50()
        self.decoder = PyramidPooling(classes=classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits `[B, classes, H/8, W/8]` of normalised images `[B, 3, H, W]`."""
        return self.decoder(self.encoder(x))
