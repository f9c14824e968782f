"""The 150 classes of ADE20K by PSPNet, the segmenter of SAM inversion for scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..weights.published import WeightFile, Weights, fit, plain_state, read_state
from ._segmenter import AbstractClassSegmenter, torchvision_package
from .classes import ADE20K, ADE20K_MERGING, Merging

FOLDER = "ade20k-resnet50dilated-ppm_deepsup"
HOST = f"http://sceneparsing.csail.mit.edu/model/pytorch/{FOLDER}/"
# Other networks of the same authors have files of the same names, hence the folder.
FILES = {
    part: WeightFile(f"{HOST}{part}_epoch_20.pth", minimal_size, folder=FOLDER)
    for part, minimal_size in (("encoder", 90_000_000), ("decoder", 110_000_000))
}
# Heads that only training uses.
TRAINING = ("decoder.cbr_deepsup.", "decoder.conv_last_deepsup.")


@dataclass(frozen=True, eq=False)
class ADE20KSegmenter(AbstractClassSegmenter):
    """Scenes in 150 classes, by PSPNet on a dilated ResNet-50, merged as in the published code of SAM inversion.

    Attributes:
        weights: A folder with ``encoder_epoch_20.pth`` and ``decoder_epoch_20.pth``; or the two of them, as paths or
            state dicts; or one file or state dict with names in "encoder." and "decoder.". If None, they are looked for
            in ``ade20k-resnet50dilated-ppm_deepsup`` inside the folder of :func:`saminv.weights.weights_folder`.

    Reference:
        Zhao et al., "Pyramid Scene Parsing Network", 2016, arXiv:1612.01105; Zhou et al., "Semantic Understanding of
        Scenes through the ADE20K Dataset", 2016, arXiv:1608.05442.
    """

    weights: Weights | Sequence[Weights] = field(default=None, repr=False)  # type: ignore[assignment]
    merging: Merging | Mapping[str, Sequence[str]] | None = ADE20K_MERGING
    size: int = 450

    classes: ClassVar[tuple[str, ...]] = ADE20K

    def _load(self) -> nn.Module:
        torchvision_package()
        from ._pspnet import PSPNet

        with torch.device("meta"):
            network = PSPNet(len(ADE20K))
        files = " and ".join(file.url for file in FILES.values())
        return fit(network, _both_parts(self.weights), files, unused=TRAINING)

    def _logits(self, network: nn.Module, seen: Tensor) -> Tensor:
        return network(seen)


def _both_parts(weights: Weights | Sequence[Weights]) -> Mapping[str, Tensor]:
    """State of encoder and decoder with names in "encoder." and "decoder."."""
    if isinstance(weights, Mapping):
        return plain_state(weights, "the given state dict")
    if isinstance(weights, Sequence) and not isinstance(weights, str):
        if len(weights) != len(FILES):
            raise InputError(f"weights of ade20k are two, encoder and decoder; got {len(weights)}.")
        given = dict(zip(FILES, weights, strict=True))
    elif weights is not None and Path(weights).expanduser().is_file():
        return read_state(Path(weights).expanduser())
    else:
        given = dict.fromkeys(FILES, weights)
    return {f"{part}.{name}": value for part, file in FILES.items() for name, value in file.read(given[part]).items()}
