"""Segmenters of detectron2: panoptic FPN and Mask R-CNN, trained on COCO."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._errors import InputError, MissingExtraError
from ..weights.published import WeightFile, fit
from ._instances import AbstractInstanceSegmenter, Instances
from .classes import COCO_MERGING, COCO_STUFF, COCO_THINGS, COCO_THINGS_MERGING, Merging

HOST = "https://dl.fbaipublicfiles.com/detectron2/"
# The last part of the published names begins the file's MD5.
PUBLISHED = {
    config: WeightFile(f"{HOST}{config}/{file}", minimal_size, md5=file[-10:-4], folder=f"detectron2/{config}")
    for config, file, minimal_size in (
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x", "139514544/model_final_dbfeb4.pkl", 180_000_000),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_3x", "139514569/model_final_c10459.pkl", 180_000_000),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_101_3x", "139514519/model_final_cafdb1.pkl", 250_000_000),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", "137260431/model_final_a54504.pkl", 170_000_000),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x", "137849600/model_final_f10217.pkl", 170_000_000),
        ("COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x", "138205316/model_final_a3ec72.pkl", 240_000_000),
    )
}
# Anchors, which older files list, follow from the configuration; the mean and deviation of pixels stand there too.
OLDER = ("proposal_generator.anchor_generator.cell_anchors",)
OWN = r"^pixel_(mean|std)$"


@dataclass(frozen=True, eq=False)
class AbstractDetectron2(AbstractInstanceSegmenter):
    """Segments by a predictor of detectron2.

    Attributes:
        weights: As for every network. A file of detectron2's model zoo, or a state dict with its names.
        config: A configuration of detectron2: a file, or a path inside its ``model_zoo/configs``.
        things: Names of the classes of objects, by the number that the predictor gives them.
        predictor: Used instead of one by ``config`` and ``weights``: a function of pixels uint8 `[H, W, 3]` in the
            order blue, green, red, such as a ``DefaultPredictor``.
    """

    config: str = ""
    things: Sequence[str] = COCO_THINGS
    predictor: Callable[[np.ndarray], Mapping[str, Any]] | None = field(default=None, repr=False)

    def _load(self) -> Any:
        if self.predictor is not None:
            return self.predictor
        predictor = build_predictor(self.config, size=self.size, threshold=self.threshold, overlap=self.overlap)
        name = self.config.removesuffix(".yaml")
        if name not in PUBLISHED and self.weights is None:
            raise InputError(f"There are no known weights for {self.config}; pass some. Known: {', '.join(PUBLISHED)}.")
        file = PUBLISHED.get(name, WeightFile(f"{HOST}{name}/model_final.pkl", 1))
        expected = file.url if name in PUBLISHED else f"the file trained with {self.config}"
        fit(predictor.model, file.read(self.weights), expected, unused=OLDER, own=OWN)
        return predictor

    def _segment(self, image: Tensor) -> Tensor:
        model = getattr(self.network, "model", None)
        if isinstance(model, nn.Module):
            model.to(image.device)
        pixels = ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).flip(-1)
        return self._read(self.network(np.ascontiguousarray(pixels.cpu().numpy()))).to(image.device)

    @abstractmethod
    def _read(self, outputs: Mapping[str, Any]) -> Tensor:
        """Return ids `[H, W]` from what the predictor says of one image."""


@dataclass(frozen=True, eq=False)
class Detectron2MaskRCNN(AbstractDetectron2):
    """Objects of the 80 classes of COCO, each by itself, by Mask R-CNN of detectron2; the rest is "background".

    Reference:
        He et al., "Mask R-CNN", 2017, arXiv:1703.06870.
    """

    merging: Merging | Mapping[str, Sequence[str]] | None = COCO_THINGS_MERGING
    config: str = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"

    def _classes(self) -> tuple[str, ...]:
        return ("background", *self.things)

    def _read(self, outputs: Mapping[str, Any]) -> Tensor:
        found = outputs["instances"]
        masks = torch.as_tensor(found.pred_masks).bool()
        instances = Instances(masks, torch.as_tensor(found.pred_classes) + 1, torch.as_tensor(found.scores))
        rest = torch.zeros(masks.shape[1:], dtype=torch.int64, device=masks.device)
        return self._ids(rest, instances.placed(self.threshold, self.overlap))


@dataclass(frozen=True, eq=False)
class Detectron2Panoptic(AbstractDetectron2):
    """Objects and stuff of COCO by panoptic FPN of detectron2: each object by itself, one segment for each stuff.

    What the network assigns to nothing is the segment "void".

    Attributes:
        stuff: Names of the classes of stuff, by the number that the predictor gives them.

    Reference:
        Kirillov et al., "Panoptic Feature Pyramid Networks", 2019, arXiv:1901.02446.
    """

    merging: Merging | Mapping[str, Sequence[str]] | None = COCO_MERGING
    config: str = "COCO-PanopticSegmentation/panoptic_fpn_R_101_3x.yaml"
    stuff: Sequence[str] = COCO_STUFF

    def _classes(self) -> tuple[str, ...]:
        return ("void", *self.things, *self.stuff)

    def _read(self, outputs: Mapping[str, Any]) -> Tensor:
        segments, infos = outputs["panoptic_seg"]
        rest = torch.zeros(segments.shape, dtype=torch.int64, device=segments.device)
        things = []
        # Without a score the predictor's own order, which is the most confident first.
        for info in sorted(infos, key=lambda info: -info.get("score", 0.0)):
            inside = segments == info["id"]
            if info["isthing"]:
                things.append((1 + info["category_id"], inside))
            else:
                rest[inside] = 1 + len(self.things) + info["category_id"]
        return self._ids(rest, things)


def build_predictor(config: str, *, size: int, threshold: float, overlap: float) -> Any:
    """Return a ``DefaultPredictor`` of detectron2 on the CPU with random weights, without touching the random state.

    Args:
        config: A configuration file, or its path inside detectron2's ``model_zoo/configs``.
        size: Shorter side, in pixels, at which the network looks at images.
        threshold: Objects of a lower score are left out.
        overlap: An object is left out of a panoptic image if more than this share of it belongs to more confident ones.

    Raises:
        MissingExtraError: If detectron2 is not installed.
        InputError: If there is no such configuration, or it is none of detectron2.
    """
    try:
        import detectron2
        from detectron2.config import get_cfg
        from detectron2.engine import DefaultPredictor
    except ImportError as error:
        raise MissingExtraError(
            "The segmenters of detectron2 need detectron2, which is installed from its source, as its own "
            'instructions say (docs/segmenters.md). The segmenter "maskrcnn" works without it.'
        ) from error
    # Not by detectron2.model_zoo, which needs a module that newer setuptools do not have.
    inside = Path(detectron2.__file__).parent / "model_zoo" / "configs" / config
    path = next((path for path in (Path(config).expanduser(), inside) if path.is_file()), None)
    if path is None:
        raise InputError(f"There is no configuration {config!r}, neither as a file nor as {inside}.")
    cfg = get_cfg()
    try:
        # A configuration is data; without this, it could name Python code to run.
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except Exception as error:
        raise InputError(f"{path} is no configuration of detectron2: {error}") from error
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = threshold
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = threshold
    cfg.MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH = overlap
    # It is meant in pixels of large photographs; small segments are merged by `clean` instead of becoming void.
    cfg.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = 0
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = size, round(size * 5 / 3)
    with torch.random.fork_rng(devices=[]):
        return DefaultPredictor(cfg)
