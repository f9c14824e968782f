"""Segmenters of torchvision: DeepLabV3, LRASPP and Mask R-CNN, trained on COCO."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..weights.published import WeightFile, fit
from ._instances import AbstractInstanceSegmenter, Instances
from ._segmenter import AbstractClassSegmenter, torchvision_package
from .classes import COCO_91, COCO_THINGS_MERGING, VOC, Merging

HOST = "https://download.pytorch.org/models/"


def _file(name: str, minimal_size: int) -> WeightFile:
    """A file of torchvision, whose name ends with the beginning of its SHA-256."""
    return WeightFile(HOST + name, minimal_size, sha256=name.removesuffix(".pth").rsplit("-", 1)[1])


DEEPLAB_FILES = {
    "resnet50": _file("deeplabv3_resnet50_coco-cd0a2569.pth", 168_000_000),
    "resnet101": _file("deeplabv3_resnet101_coco-586e9e4e.pth", 244_000_000),
    "mobilenet": _file("deeplabv3_mobilenet_v3_large-fc3c493d.pth", 44_000_000),
}
LRASPP_FILE = _file("lraspp_mobilenet_v3_large-d234d4ea.pth", 13_000_000)
MASKRCNN_FILE = _file("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 178_000_000)

# The head that only training uses; our networks are built without it.
TRAINING = ("aux_classifier.",)


@dataclass(frozen=True, eq=False)
class DeepLabV3(AbstractClassSegmenter):
    """The 20 classes of Pascal VOC and background, by DeepLabV3 of torchvision.

    Attributes:
        backbone: "resnet50", "resnet101" or "mobilenet", which is the smallest and fastest.

    Reference:
        Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, arXiv:1706.05587.
    """

    backbone: str = "resnet50"

    classes: ClassVar[tuple[str, ...]] = VOC

    def _check(self) -> None:
        super()._check()
        if self.backbone not in DEEPLAB_FILES:
            raise InputError(f"deeplabv3 has no backbone {self.backbone!r}. It has: {', '.join(DEEPLAB_FILES)}.")

    def _load(self) -> nn.Module:
        models = torchvision_package().models.segmentation
        builder = {"mobilenet": "deeplabv3_mobilenet_v3_large"}.get(self.backbone, f"deeplabv3_{self.backbone}")
        file = DEEPLAB_FILES[self.backbone]
        return fit(_unfilled(getattr(models, builder)), file.read(self.weights), file.url, unused=TRAINING)

    def _logits(self, network: nn.Module, seen: Tensor) -> Tensor:
        return network(seen)["out"]


@dataclass(frozen=True, eq=False)
class LRASPP(AbstractClassSegmenter):
    """The 20 classes of Pascal VOC and background, by LRASPP of torchvision on MobileNetV3: small and fast.

    Reference:
        Howard et al., "Searching for MobileNetV3", 2019, arXiv:1905.02244.
    """

    classes: ClassVar[tuple[str, ...]] = VOC

    def _load(self) -> nn.Module:
        network = _unfilled(torchvision_package().models.segmentation.lraspp_mobilenet_v3_large)
        return fit(network, LRASPP_FILE.read(self.weights), LRASPP_FILE.url, unused=TRAINING)

    def _logits(self, network: nn.Module, seen: Tensor) -> Tensor:
        return network(seen)["out"]


@dataclass(frozen=True, eq=False)
class MaskRCNN(AbstractInstanceSegmenter):
    """Objects of the 80 classes of COCO, each by itself, by Mask R-CNN of torchvision; the rest is "background".

    Reference:
        He et al., "Mask R-CNN", 2017, arXiv:1703.06870.
    """

    merging: Merging | Mapping[str, Sequence[str]] | None = COCO_THINGS_MERGING

    classes: ClassVar[tuple[str, ...]] = COCO_91

    def _load(self) -> nn.Module:
        build = torchvision_package().models.detection.maskrcnn_resnet50_fpn
        # Its anchors are no part of the state dict, so it cannot be built on the meta device.
        with torch.random.fork_rng(devices=[]):
            network = build(
                weights=None,
                weights_backbone=None,
                min_size=self.size,
                max_size=round(self.size * 5 / 3),
                box_score_thresh=self.threshold,
            )
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                # As in torchvision for these weights: they were trained with normalisation that adds nothing.
                part.eps = 0.0
        return fit(network, present_names(MASKRCNN_FILE.read(self.weights)), MASKRCNN_FILE.url)

    def _segment(self, image: Tensor) -> Tensor:
        found = self.network.to(image.device)([(image + 1) / 2])[0]
        instances = Instances(found["masks"][:, 0] >= 0.5, found["labels"], found["scores"])
        rest = torch.zeros(image.shape[1:], dtype=torch.int64, device=image.device)
        return self._ids(rest, instances.placed(self.threshold, self.overlap))


OLDER_NAMES = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^rpn\.head\.conv\.(weight|bias)$"), r"rpn.head.conv.0.0.\1"),
)
MASK_LAYER = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)$")


def present_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors of Mask R-CNN, whose published file is older than torchvision's names, their present names."""

    def rename(name: str) -> str:
        for older, present in OLDER_NAMES:
            name = older.sub(present, name)
        return MASK_LAYER.sub(lambda match: f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}", name)

    return {rename(name): value for name, value in state.items()}


def _unfilled(build: Any) -> nn.Module:
    """A network of torchvision without weights: nothing is initialised, and no random state is touched."""
    with torch.device("meta"):
        return build(weights=None, weights_backbone=None)
