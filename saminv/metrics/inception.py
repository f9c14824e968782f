"""The Inception v3 network of FID and KID, with the weights that TensorFlow's published metric used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weights.published import WeightFile, Weights, fit
from .features import AbstractExtractor

SIDE = 299
LENGTH = 2048
NORM_EPS = 1e-3

Kernel = int | tuple[int, int]
Step = Mapping[str, tuple[Any, ...]]
"""Units by name: channels, kernel and stride of each."""

FILE = WeightFile(
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    minimal_size=95_000_000,
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    aliases=("weights-inception-2015-12-05-6726825d.pth",),
)
"""The original TensorFlow weights of 2015-12-05, converted; pytorch-fid and torch-fidelity publish the same bytes."""


class InceptionFeatures(AbstractExtractor):
    """The 2,048 pooled features of the Inception v3 of the published FID and KID.

    Pictures `[B, 3, H, W]` in [-1, 1] are rounded to 256 levels, resized to 299 x 299 and passed as
    (level - 128) / 128. With ``resizing="clean"`` values are those of clean-fid, with ``"tensorflow"`` those of
    torchmetrics and torch-fidelity.

    Args:
        weights: File, folder that holds it, or state dict. None takes it from the folder of
            :func:`saminv.weights.weights_folder`, else fetches it there (95 MB). Weights whose SHA-256 is not that of
            the published file are used under the name "inception-other".
        resizing: A rule of :data:`saminv.metrics.features.RESIZING`.

    Raises:
        InputError: If there is no such rule.
        WeightsError: If the file is not on this machine and could not be fetched; says where to put it.
        CheckpointError: If it is damaged or holds another network. NVIDIA's ``inception-2015-12-05.pt`` is a program
            (TorchScript) with the same weights, and is refused.

    Reference:
        C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2015, arXiv:1512.00567.
    """

    name = "inception"
    side = SIDE
    length = LENGTH

    def __init__(self, weights: Weights = None, resizing: str = "clean") -> None:
        super().__init__(resizing)
        with torch.device("meta"):
            network = Inception()
        state = FILE.read(weights)
        self.network = fit(network, state, FILE.url, unused=("fc.", "AuxLogits."))
        if not _is_published(weights):
            self.name = "inception-other"

    def vectors(self, levels: Tensor) -> Tensor:
        found: Tensor = self.network((levels - 128) / 128)
        return found


def _is_published(weights: Weights) -> bool:
    if isinstance(weights, Mapping):
        return False
    digest = hashlib.sha256()
    with open(FILE.find(weights), "rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == FILE.sha256


class Unit(nn.Module):
    """Convolution without bias, normalisation, ReLU; a stride comes without padding."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, h, w]` to `[B, outputs, h', w']`."""
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Branches side by side whose results are joined over channels, the pooled one last.

    Args:
        inputs: Channels of the input.
        branches: Steps of each branch; a step is one unit by name, or several that begin where the last one ended.
        pooling: "average" or "max", both followed by a unit of ``pooled`` channels, or "halve".
        pooled: Channels of that unit.
    """

    def __init__(self, inputs: int, branches: Sequence[Sequence[Step]], pooling: str, pooled: int = 0) -> None:
        super().__init__()
        self.steps = [[list(step) for step in branch] for branch in branches]
        self.pooling = pooling
        for branch in branches:
            width = inputs
            for step in branch:
                for name, (outputs, *rest) in step.items():
                    self.add_module(name, Unit(width, outputs, *rest))
                width = outputs
        if pooled:
            self.branch_pool = Unit(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, h, w]` to `[B, outputs, h', w']`."""
        joined = []
        for steps in self.steps:
            found = [x]
            for names in steps:
                found = [self.get_submodule(name)(found[0]) for name in names]
            joined += found
        return torch.cat([*joined, self._pool(x)], dim=1)

    def _pool(self, x: Tensor) -> Tensor:
        if self.pooling == "halve":
            return F.max_pool2d(x, 3, stride=2)
        if self.pooling == "max":
            found: Tensor = self.branch_pool(F.max_pool2d(x, 3, stride=1, padding=1))
            return found
        # TensorFlow's average leaves out what lies beyond the border.
        found = self.branch_pool(F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False))
        return found


class Inception(nn.Module):
    """Inception v3 up to its pooled features, with torchvision's array names and the poolings of the FID network."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3, padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _block_a(192, 32), _block_a(256, 64), _block_a(288, 64)
        self.Mixed_6a = Block(
            288,
            [
                [{"branch3x3": (384, 3, 2)}],
                [{"branch3x3dbl_1": (64, 1)}, {"branch3x3dbl_2": (96, 3)}, {"branch3x3dbl_3": (96, 3, 2)}],
            ],
            "halve",
        )
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (_block_c(width) for width in (128, 160, 160, 192))
        self.Mixed_7a = Block(
            768,
            [
                [{"branch3x3_1": (192, 1)}, {"branch3x3_2": (320, 3, 2)}],
                [
                    {"branch7x7x3_1": (192, 1)},
                    {"branch7x7x3_2": (192, (1, 7))},
                    {"branch7x7x3_3": (192, (7, 1))},
                    {"branch7x7x3_4": (192, 3, 2)},
                ],
            ],
            "halve",
        )
        self.Mixed_7b, self.Mixed_7c = _block_e(1280, "average"), _block_e(2048, "max")

    def forward(self, x: Tensor) -> Tensor:
        """Pictures `[B, 3, 299, 299]` in [-1, 1] to `[B, 2048]`."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = F.max_pool2d(x, 3, stride=2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean(dim=(2, 3))


def _block_a(inputs: int, pooled: int) -> Block:
    branches: list[list[Step]] = [
        [{"branch1x1": (64, 1)}],
        [{"branch5x5_1": (48, 1)}, {"branch5x5_2": (64, 5)}],
        [{"branch3x3dbl_1": (64, 1)}, {"branch3x3dbl_2": (96, 3)}, {"branch3x3dbl_3": (96, 3)}],
    ]
    return Block(inputs, branches, "average", pooled)


def _block_c(width: int) -> Block:
    along, across = (1, 7), (7, 1)
    branches: list[list[Step]] = [
        [{"branch1x1": (192, 1)}],
        [{"branch7x7_1": (width, 1)}, {"branch7x7_2": (width, along)}, {"branch7x7_3": (192, across)}],
        [
            {"branch7x7dbl_1": (width, 1)},
            {"branch7x7dbl_2": (width, across)},
            {"branch7x7dbl_3": (width, along)},
            {"branch7x7dbl_4": (width, across)},
            {"branch7x7dbl_5": (192, along)},
        ],
    ]
    return Block(768, branches, "average", 192)


def _block_e(inputs: int, pooling: str) -> Block:
    along, across = (1, 3), (3, 1)
    branches: list[list[Step]] = [
        [{"branch1x1": (320, 1)}],
        [{"branch3x3_1": (384, 1)}, {"branch3x3_2a": (384, along), "branch3x3_2b": (384, across)}],
        [
            {"branch3x3dbl_1": (448, 1)},
            {"branch3x3dbl_2": (384, 3)},
            {"branch3x3dbl_3a": (384, along), "branch3x3dbl_3b": (384, across)},
        ],
    ]
    # The published network takes the maximum in its last block, where the paper averages.
    return Block(inputs, branches, pooling, 192)
