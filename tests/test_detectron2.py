"""Segmenters of detectron2, on recorded kinds of outputs, and really run where detectron2 is installed."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from saminv._errors import CheckpointError, InputError, MissingExtraError
from saminv.segment.classes import COCO_STUFF, COCO_THINGS
from saminv.segment.detectron2 import PUBLISHED, Detectron2MaskRCNN, Detectron2Panoptic, build_predictor

needs_detectron2 = pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is None,
    reason="detectron2 is not installed; it is installed from its source, see docs/segmenters.md",
)
KEEP = {"min_fraction": 0, "min_island": 0}
IMAGE = torch.linspace(-1, 1, 2 * 3 * 12 * 16).reshape(2, 3, 12, 16)


class Predictor:
    """Says what it was told, and keeps the pixels that it was shown."""

    def __init__(self, outputs) -> None:
        self.outputs, self.seen = outputs, []

    def __call__(self, pixels):
        self.seen.append(pixels)
        return self.outputs


def thing(name: str) -> int:
    return COCO_THINGS.index(name)


def stuff(name: str) -> int:
    return COCO_STUFF.index(name)


def panoptic(*infos, rows: int = 4) -> Predictor:
    """Segment k + 1 of `infos` has the k-th band of rows; what is left is void."""
    segments = torch.zeros(12, 16, dtype=torch.int32)
    for number, info in enumerate(infos):
        segments[number * rows : (number + 1) * rows] = info["id"]
    return Predictor({"panoptic_seg": (segments, list(infos))})


def instances(masks, classes, scores) -> Predictor:
    found = SimpleNamespace(pred_masks=masks, pred_classes=torch.tensor(classes), scores=torch.tensor(scores))
    return Predictor({"instances": found})


def test_panoptic_names_things_stuff_and_void():
    predictor = panoptic(
        {"id": 1, "isthing": True, "score": 0.9, "category_id": thing("cat"), "instance_id": 0},
        {"id": 5, "isthing": False, "category_id": stuff("sky"), "area": 64},
    )
    segments = Detectron2Panoptic(predictor=predictor, **KEEP)(IMAGE[:1])
    assert [segments.names[int(segments.ids[0, row, 0])] for row in (0, 4, 8)] == ["cat", "sky", "void"]
    assert segments.ids.dtype == torch.int64 and segments.count().tolist() == [3]


def test_panoptic_objects_of_a_class_stay_apart_and_stuff_is_merged():
    predictor = panoptic(
        {"id": 1, "isthing": True, "score": 0.6, "category_id": thing("car")},
        {"id": 2, "isthing": True, "score": 0.9, "category_id": thing("truck")},
        {"id": 3, "isthing": False, "category_id": stuff("road")},
        {"id": 4, "isthing": False, "category_id": stuff("floor-wood")},
        rows=3,
    )
    segmenter = Detectron2Panoptic(predictor=predictor, **KEEP)
    segments = segmenter(IMAGE[:1])
    first, second, road, floor = segments.ids[0, ::3, 0].tolist()
    car = segmenter.names.index("car")
    # The truck is the more confident of the two.
    assert (second, first) == (car + len(segmenter.names), car + 2 * len(segmenter.names))
    assert road == floor and segments.names == {first: "car", second: "car", road: "ground"}
    together = Detectron2Panoptic(predictor=predictor, separate=False, **KEEP)(IMAGE[:1])
    assert together.names == {car: "car", road: "ground"}
    mixed = Detectron2Panoptic(predictor=predictor, merging={"all": ["car", "road"]}, **KEEP)(IMAGE[:1])
    assert sorted(mixed.names.values()) == ["all", "all", "floor-wood", "truck"]


def test_panoptic_without_any_segment_is_void():
    segments = Detectron2Panoptic(predictor=panoptic(), **KEEP)(IMAGE)
    assert segments.names == {0: "void"} and segments.count().tolist() == [1, 1]


def test_small_void_is_given_to_a_neighbour():
    predictor = panoptic({"id": 1, "isthing": False, "category_id": stuff("sea")}, rows=11)
    predictor.outputs["panoptic_seg"][0][11, 1:] = 1
    segments = Detectron2Panoptic(predictor=predictor, min_fraction=0.02)(IMAGE[:1])
    assert set(segments.names.values()) == {"sea"}


def test_mask_rcnn_resolves_overlaps_and_counts():
    masks = torch.zeros(4, 12, 16, dtype=torch.bool)
    masks[0, :6, :8], masks[1, :6, 4:12], masks[2, :2, :2], masks[3, 8:, :] = True, True, True, True
    predictor = instances(masks, [thing("dog"), thing("dog"), thing("bird"), thing("bear")], [0.9, 0.8, 0.7, 0.3])
    segmenter = Detectron2MaskRCNN(predictor=predictor, **KEEP)
    segments = segmenter(IMAGE[:1])
    dog, count = segmenter.names.index("dog"), len(segmenter.names)
    assert segments.names == {0: "background", dog + count: "dog", dog + 2 * count: "dog"}
    areas = [int((segments.ids == label).sum()) for label in (0, dog + count, dog + 2 * count)]
    assert areas == [192 - 72, 48, 24]
    low = Detectron2MaskRCNN(predictor=predictor, threshold=0.2, **KEEP)(IMAGE[:1])
    assert "bear" in low.names.values() and "bird" not in low.names.values()


def test_mask_rcnn_that_finds_nothing():
    predictor = instances(torch.zeros(0, 12, 16, dtype=torch.bool), [], [])
    segments = Detectron2MaskRCNN(predictor=predictor)(IMAGE)
    assert segments.names == {0: "background"} and segments.ids.shape == (2, 12, 16)


def test_pixels_are_blue_green_red_bytes():
    predictor = panoptic()
    image = torch.full((1, 3, 12, 16), -1.0)
    image[:, 0], image[:, 1] = 1.0, 0.0
    Detectron2Panoptic(predictor=predictor)(torch.cat([image, -image]))
    first, second = predictor.seen
    assert first.shape == (12, 16, 3) and first.dtype == np.uint8 and first.flags.c_contiguous
    assert first[0, 0].tolist() == [0, 128, 255] and second[0, 0].tolist() == [255, 128, 0]


def test_other_classes_can_be_named():
    info = {"id": 1, "isthing": True, "score": 1.0, "category_id": 1}
    settings = {"things": ("cow", "mug"), "stuff": ("things", "sky"), "merging": None}
    segments = Detectron2Panoptic(predictor=panoptic(info), **settings, **KEEP)(IMAGE[:1])
    assert sorted(segments.names.values()) == ["mug", "void"]


@pytest.mark.parametrize("segmenter", [Detectron2MaskRCNN, Detectron2Panoptic])
def test_missing_detectron2_says_so(segmenter, monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(MissingExtraError, match=r"installed from its source.*maskrcnn"):
        segmenter()


def quiet(model: torch.nn.Module) -> None:
    """Random weights whose boxes stay near their anchors, and whose scores are alike."""
    for name, value in model.state_dict().items():
        if "bbox_pred" in name or "anchor_deltas" in name or "cls_score" in name:
            value.mul_(0.001)


@needs_detectron2
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("segmenter", "config"),
    [
        (Detectron2Panoptic, "COCO-PanopticSegmentation/panoptic_fpn_R_50_3x.yaml"),
        (Detectron2MaskRCNN, "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"),
    ],
)
def test_detectron2_with_random_weights(segmenter, config, tmp_path):
    from detectron2.data import MetadataCatalog

    before = torch.get_rng_state()
    predictor = build_predictor(config, size=96, threshold=0.005, overlap=0.5)
    assert torch.get_rng_state().equal(before) and predictor.cfg.MODEL.WEIGHTS == ""
    metadata = MetadataCatalog.get(predictor.cfg.DATASETS.TEST[0])
    assert tuple(metadata.thing_classes) == COCO_THINGS
    quiet(predictor.model)
    settings = {"size": 96, "threshold": 0.005, **KEEP}
    image = torch.rand(2, 3, 60, 80, generator=torch.Generator().manual_seed(1)) * 2 - 1
    made = segmenter(predictor=predictor, **settings)
    segments = made(image)
    assert segments.ids.shape == (2, 60, 80) and set(segments.names.values()) <= set(made.names)
    assert int(segments.count().min()) > 1
    assert made(image[1:]).ids[0].equal(segments.ids[1])
    if segmenter is Detectron2Panoptic:
        assert tuple(metadata.stuff_classes) == COCO_STUFF
        found = predictor(
            np.ascontiguousarray(((image[0] + 1) * 127.5).round().byte().permute(1, 2, 0).flip(-1).numpy())
        )
        ids, infos = found["panoptic_seg"]
        assert int(segments.count()[0]) == len(infos) + int((ids == 0).any())
    # A file as in the model zoo: numpy arrays in a pickle, with anchors that newer models do not list.
    arrays = {name: value.numpy() for name, value in predictor.model.state_dict().items()}
    arrays["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((3, 4), np.float32)
    arrays.pop("pixel_mean", None)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "nobody"}))
    again = segmenter(config=config, weights=tmp_path / "model.pkl", **settings)
    assert again(image).ids.equal(segments.ids)
    del arrays["backbone.bottom_up.stem.conv1.weight"]
    with pytest.raises(CheckpointError, match=r"stem\.conv1\.weight.*model_final"):
        segmenter(config=config, weights={name: torch.from_numpy(value) for name, value in arrays.items()})


@needs_detectron2
@pytest.mark.filterwarnings("ignore")
def test_configurations_of_detectron2(tmp_path, monkeypatch):
    import detectron2

    folder = Path(detectron2.__file__).parent / "model_zoo" / "configs"
    for config in PUBLISHED:
        assert (folder / f"{config}.yaml").is_file(), config
    with pytest.raises(InputError, match=r"no configuration 'none\.yaml'"):
        Detectron2Panoptic(config="none.yaml")
    monkeypatch.chdir(tmp_path)
    unsafe = tmp_path / "unsafe.yaml"
    unsafe.write_text('VERSION: 2\nMODEL:\n  WEIGHTS: !!python/object/apply:os.mkdir ["attacked"]\n')
    with pytest.raises(InputError, match="is no configuration of detectron2"):
        build_predictor(str(unsafe), size=96, threshold=0.5, overlap=0.5)
    assert not (tmp_path / "attacked").exists()
    with pytest.raises(InputError, match="no known weights"):
        Detectron2MaskRCNN(config="COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml")
