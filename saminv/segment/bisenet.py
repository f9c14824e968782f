"""The parts of a face by BiSeNet, the segmenter of SAM inversion for faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..weights.published import WeightFile, fit
from ._segmenter import AbstractClassSegmenter, torchvision_package
from .classes import CELEBA_MASK, FACE_MERGING, Merging

FILE = WeightFile(
    "https://github.com/xinntao/facexlib/releases/download/v0.2.0/parsing_bisenet.pth",
    53_289_463,
    sha256="468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
    # The name under which its authors published it, by a sharing site that has no direct link.
    aliases=("79999_iter.pth",),
)
# Heads that only training uses.
TRAINING = ("conv_out16.", "conv_out32.")


@dataclass(frozen=True, eq=False)
class FaceParser(AbstractClassSegmenter):
    """Parts of an aligned face by BiSeNet, with all that is skin merged as in the published code of SAM inversion.

    The network sees the image as a square of ``size``, as it was trained.

    Reference:
        Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", 2018,
        arXiv:1808.00897; classes: Lee et al., "MaskGAN", 2019, arXiv:1907.11922.
    """

    merging: Merging | Mapping[str, Sequence[str]] | None = FACE_MERGING
    size: int = 512

    classes: ClassVar[tuple[str, ...]] = CELEBA_MASK

    def _load(self) -> nn.Module:
        torchvision_package()
        from ._bisenet import BiSeNet

        with torch.device("meta"):
            network = BiSeNet(len(CELEBA_MASK))
        return fit(network, FILE.read(self.weights), f"{FILE.aliases[0]}, {FILE.url}", unused=TRAINING)

    def _logits(self, network: nn.Module, seen: Tensor) -> Tensor:
        return network(seen)

    def _seen_size(self, height: int, width: int) -> tuple[int, int]:
        return self.size, self.size
