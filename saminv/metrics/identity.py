"""Likeness of faces: cosine similarity in the embedding of a face recognition network that the user brings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import CheckpointError, InputError, WeightsError
from ..images import area_resize
from ..weights import weights_folder
from ..weights.published import fit
from ._base import AbstractMetric, Prepared
from .layers import ARCFACE_SIDE, ArcFace, given_state, resized

FOLDER = "arcface"
FILES = ("backbone.pth", "model_ir_se50.pth")
"""Names under which the two usual files are looked for in the folder of weights."""

ALIGNED_SIDE = 256
ALIGNED_ROWS, ALIGNED_COLUMNS = slice(35, 223), slice(32, 220)
"""Where the face is in pictures that are aligned like FFHQ, at 256 x 256."""

SQUEEZE = 16
CROPS = ("whole", "ffhq")
NEEDED = "ArcFace's backbone.pth (iresnet), or an IR or IR-SE network such as model_ir_se50.pth"


class IdentitySimilarity(AbstractMetric):
    """Cosine between the identities of two faces: embeddings `[512]` of ArcFace. In [-1, 1], 1 for one face.

    The published tables of inversion call it ID. Two layouts of files are known: iresnet as ArcFace's authors publish
    it (``backbone.pth``, 18 to 200 layers), and IR or IR-SE as pSp and e4e do (``model_ir_se50.pth``; CurricularFace's
    IR-101). Networks see squares of 112 x 112 pixels. Values of different networks or crops do not compare.

    Args:
        weights: File or state dict; None looks for one of the usual names below ``arcface`` in the folder of
            :func:`saminv.weights.weights_folder`. The files are published without checksums, so none is fetched.
        crop: What the network sees. ``"whole"``: the picture, resized bilinearly with antialiasing; for faces that are
            cut as ArcFace wants them. ``"ffhq"``: the middle of pictures aligned like FFHQ or CelebA-HQ, by averaging
            areas to 256 x 256, the cut of pSp's identity loss, and averaging areas again.

    Raises:
        InputError: If the crop is unknown.
        WeightsError: If no weights are given or found.
        CheckpointError: If the file is damaged, or of another network.

    Reference:
        J. Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019, arXiv:1801.07698;
        as a metric of inversion: Yao et al., 2022, arXiv:2202.02183, table 1.
    """

    name = "identity"
    higher_is_better = True
    spatial = False

    def __init__(self, weights: str | PathLike | Mapping[str, Tensor] | None = None, crop: str = "whole") -> None:
        super().__init__()
        if crop not in CROPS:
            raise InputError(f"There is no crop {crop!r}; there are: {', '.join(CROPS)}.")
        self.crop = crop
        self.network = load_face_network(_usual_file() if weights is None else weights)

    def embed(self, image: Tensor) -> Tensor:
        """Identities `[B, 512]` of unit length, of faces `[B, 3, H, W]` in [-1, 1]; differentiable."""
        self._check_image(image, "image")
        if self.crop == "ffhq":
            aligned = area_resize(image, ALIGNED_SIDE)
            face = area_resize(aligned[..., ALIGNED_ROWS, ALIGNED_COLUMNS], ARCFACE_SIDE)
        else:
            face = resized(image, ARCFACE_SIDE)
        found = self.network(face.to(next(self.network.parameters()).dtype))
        return F.normalize(found[-1] if isinstance(found, list) else found, dim=1)

    def train(self, mode: bool = True) -> IdentitySimilarity:
        """Stay in evaluation mode: statistics of batches have no place in a metric."""
        return super().train(False)  # type: ignore[return-value]

    def _prepare(self, target: Tensor) -> Sequence[Tensor]:
        return (self.embed(target),)

    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        return (self.embed(image) * prepared.tensors[0]).sum(dim=1)

    def _map(self, image: Tensor, prepared: Prepared) -> Tensor:
        raise AssertionError("map() refuses metrics that are not spatial")


class FaceResNet(nn.Module):
    """IR and IR-SE networks with the array names of InsightFace_Pytorch, which pSp, e4e and CurricularFace use.

    Args:
        blocks: Inputs, outputs and stride of each block.
        squeeze: Whether blocks weigh their channels (IR-SE).
        affine: Whether the embedding's normalisation has a scale and a shift.
    """

    def __init__(self, blocks: Sequence[tuple[int, int, int]], squeeze: bool, affine: bool) -> None:
        super().__init__()
        first, last = blocks[0][0], blocks[-1][1]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)
        )
        self.body = nn.Sequential(*(FaceBlock(*shape, squeeze) for shape in blocks))
        side = ARCFACE_SIDE // 2 ** sum(stride == 2 for *_, stride in blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(last),
            nn.Identity(),
            nn.Flatten(),
            nn.Linear(last * side**2, 512),
            nn.BatchNorm1d(512, affine=affine),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Faces `[B, 3, 112, 112]` in [-1, 1] to embeddings `[B, 512]` of any length."""
        found: Tensor = self.output_layer(self.body(self.input_layer(image)))
        return found


class FaceBlock(nn.Module):
    """Residual block: normalise, convolve, PReLU, convolve, normalise, and weigh the channels if asked."""

    def __init__(self, inputs: int, outputs: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            *([ChannelGate(outputs)] if squeeze else []),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, h, w]` to `[B, outputs, h / stride, w / stride]`."""
        found: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return found


class ChannelGate(nn.Module):
    """Squeeze and excitation: each channel is weighed by what the means of all channels say."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(width // SQUEEZE, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width, h, w]` to the same."""
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * self.fc2(self.fc1(means).relu()).sigmoid()


def load_face_network(weights: str | PathLike | Mapping[str, Tensor]) -> nn.Module:
    """Build the network that a file or a state dict is for, by its array names, frozen and in evaluation mode.

    Raises:
        WeightsError: If there is no such file.
        CheckpointError: If it is damaged, or of another network.
    """
    if not isinstance(weights, Mapping) and not Path(weights).expanduser().is_file():
        raise WeightsError(f"There is no file {weights}. Needed is {NEEDED}.")
    state = given_state(weights)
    layout: Any = None
    with torch.device("meta"):
        if "input_layer.0.weight" in state:
            layout = FaceResNet(*_face_shape(state))
        elif "layer1.0.conv1.weight" in state and "fc.weight" in state:
            layout = ArcFace(_stage_lengths(state))
    if layout is None:
        first = next(iter(state))
        raise CheckpointError(f"These are no weights of a face network; the first is {first!r}. Needed is {NEEDED}.")
    return fit(layout, state, NEEDED)


def _face_shape(state: Mapping[str, Tensor]) -> tuple[list[tuple[int, int, int]], bool, bool]:
    """Arguments of :class:`FaceResNet`. Each width begins with a block of stride 2, also the first, which is narrow."""
    numbers = {int(match[1]) for name in state if (match := re.match(r"body\.(\d+)\.", name))}
    blocks: list[tuple[int, int, int]] = []
    for number in range(len(numbers)):
        kernel = state.get(f"body.{number}.res_layer.1.weight")
        if kernel is None or kernel.dim() != 4:
            raise CheckpointError(f"These weights lack the block {number} of a face network. Needed is {NEEDED}.")
        outputs, inputs = kernel.shape[:2]
        blocks.append((inputs, outputs, 2 if not blocks or inputs != outputs else 1))
    if not blocks:
        raise CheckpointError(f"These weights have no blocks of a face network. Needed is {NEEDED}.")
    return blocks, any(".res_layer.5." in name for name in state), "output_layer.4.weight" in state


def _stage_lengths(state: Mapping[str, Tensor]) -> list[int]:
    """Numbers of blocks of the four stages of an iresnet."""
    found = [re.match(r"layer(\d)\.(\d+)\.", name) for name in state]
    pairs = {(int(match[1]), int(match[2])) for match in found if match}
    return [sum(stage == number for stage, _ in pairs) for number in range(1, 5)]


def _usual_file() -> Path:
    folder = weights_folder() / FOLDER
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(
        f"The metric 'identity' needs the weights of a face network: {NEEDED}. They are published without checksums "
        f"and are not fetched. Pass the file (weights=...), or put it at {folder / FILES[0]} or {folder / FILES[1]}."
    )
