"""Segmenters by networks: merging of classes, instances that overlap, cleaning, and those of torchvision."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segmenter_states import filled
from torch import nn

from saminv._errors import CheckpointError, InputError, MissingExtraError
from saminv.segment import SEGMENTERS, Merging, Segments, clean
from saminv.segment import torchvision as ours
from saminv.segment._instances import AbstractInstanceSegmenter, Instances
from saminv.segment._segmenter import AbstractClassSegmenter, normalised
from saminv.segment.classes import (
    ADE20K,
    ADE20K_MERGING,
    CELEBA_MASK,
    COCO_91,
    COCO_MERGING,
    COCO_STUFF,
    COCO_THINGS,
    COCO_THINGS_MERGING,
    FACE_MERGING,
    VOC,
)

NETWORKS = ("deeplabv3", "lraspp", "maskrcnn", "detectron2-panoptic", "detectron2-maskrcnn", "ade20k", "face-parsing")
COLOURS = ("black", "red", "green", "blue")


def halves(height: int = 37, width: int = 61, batch: int = 1) -> torch.Tensor:
    """The left half is red, the right half blue; every further image of a batch has more red."""
    image = torch.full((batch, 3, height, width), -1.0)
    for row in range(batch):
        edge = width // 2 + 3 * row
        image[row, 0, :, :edge], image[row, 2, :, edge:] = 1, 1
    return image


@dataclass(frozen=True, eq=False)
class ByColour(AbstractClassSegmenter):
    """Names pixels by their strongest colour."""

    size: int = 40

    classes: ClassVar[tuple[str, ...]] = COLOURS

    def _load(self):
        return nn.Identity()

    def _logits(self, network, seen):
        return torch.cat([torch.zeros_like(seen[:, :1]), seen], dim=1)


# Class names and merging


def test_class_lists():
    assert [len(names) for names in (VOC, COCO_91, COCO_THINGS, COCO_STUFF)] == [21, 91, 80, 54]
    assert [len(names) for names in (ADE20K, CELEBA_MASK)] == [150, 19]
    for names in (VOC, COCO_91, (*COCO_THINGS, *COCO_STUFF), ADE20K, CELEBA_MASK):
        assert len(set(names)) == len(names) and all(name == name.strip() and name for name in names)
    assert [ADE20K[k] for k in (3, 6, 9, 13, 20, 21, 29, 60, 83, 102, 149)] == [
        *("floor", "road", "grass", "earth", "car", "water", "field", "river", "truck", "van", "flag")
    ]
    assert [CELEBA_MASK[k] for k in (1, 6, 9, 13, 17)] == ["skin", "eye_g", "ear_r", "l_lip", "hair"]


def test_class_lists_are_those_of_torchvision():
    from torchvision.models import detection, segmentation

    theirs = detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert [a for a, b in zip(theirs, COCO_91, strict=True) if a not in (b, "N/A")] == ["__background__"]
    assert [name for name in theirs if name != "N/A"][1:] == list(COCO_THINGS)
    assert segmentation.DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"][1:] == list(VOC[1:])


def test_published_merging():
    names, table = ADE20K_MERGING.resolve(ADE20K)
    together = [{"floor", "road", "earth"}, {"river", "water"}, {"car", "truck", "van"}, {"grass", "field"}]
    assert len(names) == 150 - 2 - 1 - 2 - 1
    for group in together:
        assert {
            name for name, index in zip(ADE20K, table, strict=True) if index == table[ADE20K.index(min(group))]
        } == group
    names, table = FACE_MERGING.resolve(CELEBA_MASK)
    assert names == ("background", "face", "eye_g", "ear_r", "neck_l", "cloth", "hair", "hat")
    assert [k for k, index in enumerate(table) if names[index] == "face"] == [1, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14]
    COCO_MERGING.resolve((*COCO_THINGS, *COCO_STUFF))
    assert COCO_THINGS_MERGING.resolve(COCO_91)[0].count("car") == 1


def test_the_name_of_a_group_stands_for_its_class():
    names, table = Merging({"car": ["van"], "way": ("road",)}).resolve(("sky", "van", "road", "car"))
    assert names == ("sky", "car", "way") and table == (0, 1, 2, 1)
    assert Merging().resolve(("a", "b")) == (("a", "b"), (0, 1))
    assert Merging.of(None).groups == {} and Merging.of({"a": ["b"]}) == Merging({"a": ("b",)})


@given(st.dictionaries(st.sampled_from("abcxyz"), st.lists(st.sampled_from("abcdefgh"), max_size=4), max_size=4))
def test_merging_laws(groups):
    classes = tuple("abcdefgh")
    try:
        merging = Merging(groups)
    except InputError:
        flat = [(member, group) for group, members in groups.items() for member in {*members, group}]
        assert len({member for member, _ in flat}) < len(flat)
        return
    names, table = merging.resolve(classes)
    assert len(set(names)) == len(names) and set(table) == set(range(len(names)))
    for name, index in zip(classes, table, strict=True):
        owners = [group for group, members in groups.items() if name in members]
        assert names[index] == (owners[0] if owners else name)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"ground": ["flor"]}, "Close ones: 'floor'"),
        ({"a": ["car"], "b": ["car"]}, "two groups, 'a' and 'b'"),
        ({"car": ["van"], "b": ["car"]}, "member of the group 'b'"),
        ({"car": "van"}, "lists of class names"),
        ({"car": [3]}, "lists of class names"),
        ([("car", "van")], "mapping"),
    ],
)
def test_merging_refuses(groups, message):
    with pytest.raises(InputError, match=message):
        Merging.of(groups).resolve(ADE20K)


def test_unknown_classes_of_a_short_list_are_answered_with_all():
    with pytest.raises(InputError, match=r"qqq.*background, skin, .*hat"):
        Merging({"x": ["qqq"]}).resolve(CELEBA_MASK)


# Cleaning


def test_clean_removes_specks_and_small_segments():
    ids = torch.zeros(1, 40, 40, dtype=torch.int64)
    ids[:, :, 20:] = 1
    ids[:, 5, 5] = 1
    ids[:, 30:33, 2:5] = 7
    assert clean(ids, min_fraction=0.0, min_island=0.0).equal(ids)
    cleaned = clean(ids, min_fraction=0.005, min_island=0.002)
    assert cleaned[0, 5, 5] == 0 and (cleaned == 7).sum() == 9
    assert clean(ids, min_fraction=0.01, min_island=0.002).unique().tolist() == [0, 1]


# Segments of classes


@pytest.mark.parametrize("size", [(37, 61), (40, 40), (64, 33), (7, 90), (1, 1)])
def test_classes_come_back_at_the_size_of_the_image(size):
    segments = ByColour(min_fraction=0, min_island=0)(halves(*size))
    assert segments.ids.shape == (1, *size) and segments.ids.dtype == torch.int64
    if min(size) > 30:
        assert (segments.ids[0] == 1).float().mean() == pytest.approx((size[1] // 2) / size[1], abs=0.02)
        assert segments.names == {1: "red", 3: "blue"}


def test_images_of_a_batch_do_not_depend_on_each_other():
    image = halves(batch=3).double()
    segments = ByColour()(image)
    for row in range(3):
        assert ByColour()(image[row : row + 1]).ids[0].equal(segments.ids[row])
    assert not segments.ids[0].equal(segments.ids[2])


def test_merged_classes_are_one_segment():
    segments = ByColour(merging={"bright": ["red", "blue"]})(halves())
    assert segments.names == {1: "bright"} and segments.count().tolist() == [1]


def test_what_the_network_sees():
    seen = ByColour(size=64)._seen_size(100, 150), ByColour(size=64)._seen_size(10, 1000)
    assert seen == ((64, 96), (32, 160))
    grey = normalised(torch.zeros(1, 3, 2, 2))[0, :, 0, 0]
    assert grey.tolist() == pytest.approx([(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_fraction": 1}, "min_fraction"),
        ({"min_island": -0.1}, "min_island"),
        ({"size": 8}, "at least 32"),
        ({"size": 64.0}, "at least 32"),
        ({"merging": {"x": ["rad"]}}, "'red'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        ByColour(**settings)


# Instances


@dataclass(frozen=True, eq=False)
class Found(AbstractInstanceSegmenter):
    """Finds what it was told."""

    found: Instances = None

    classes: ClassVar[tuple[str, ...]] = ("background", "person", "car", "truck")

    def _load(self):
        return None

    def _segment(self, image):
        rest = torch.zeros(image.shape[1:], dtype=torch.int64)
        return self._ids(rest, self.found.placed(self.threshold, self.overlap))


def boxes(*corners: tuple[int, int, int, int], classes, scores, size=(20, 30)) -> Instances:
    masks = torch.zeros(len(corners), *size, dtype=torch.bool)
    for mask, (top, bottom, left, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return Instances(masks, torch.tensor(classes, dtype=torch.int64), torch.tensor(scores))


TWO = boxes((0, 10, 0, 10), (0, 10, 6, 16), classes=[2, 1], scores=[0.6, 0.9])


def test_the_more_confident_object_is_on_top():
    segments = Found(found=TWO)(torch.zeros(1, 3, 20, 30))
    person, car = 1 + 4, 2 + 4
    assert segments.names == {0: "background", person: "person", car: "car"}
    counts = {label: int((segments.ids == label).sum()) for label in segments.names}
    assert counts == {0: 600 - 160, person: 100, car: 60}
    assert (segments.ids[0, 0, 6:16] == person).all()


def test_objects_that_are_mostly_covered_or_unsure_are_left_out():
    image = torch.zeros(1, 3, 20, 30)
    assert "car" not in Found(found=TWO, overlap=0.3)(image).names.values()
    assert "car" in Found(found=TWO, overlap=0.4)(image).names.values()
    assert "car" not in Found(found=TWO, threshold=0.7)(image).names.values()
    hidden = boxes((0, 9, 0, 9), (2, 5, 2, 5), classes=[1, 2], scores=[0.9, 0.8])
    assert set(Found(found=hidden, overlap=1.0)(image).names.values()) == {"background", "person"}


def test_nothing_found_is_background():
    nothing = boxes(classes=[], scores=[])
    segments = Found(found=nothing)(torch.zeros(2, 3, 20, 30))
    assert segments.names == {0: "background"} and segments.count().tolist() == [1, 1]


def test_objects_of_a_class_are_counted_after_merging():
    three = boxes((0, 8, 0, 8), (0, 8, 10, 18), (10, 18, 0, 8), classes=[2, 3, 2], scores=[0.7, 0.9, 0.8])
    merging = {"vehicle": ["car", "truck"]}
    segments = Found(found=three, merging=merging)(torch.zeros(1, 3, 20, 30))
    assert segments.names == {0: "background", 5: "vehicle", 8: "vehicle", 11: "vehicle"}
    assert [int(segments.ids[0, y, x]) for y, x in ((0, 10), (10, 0), (0, 0))] == [5, 8, 11]
    fused = Found(found=three, merging=merging, separate=False)(torch.zeros(1, 3, 20, 30))
    assert fused.names == {0: "background", 2: "vehicle"} and (fused.ids == 2).sum() == 3 * 64


@given(seed=st.integers(0, 10_000), threshold=st.floats(0, 1), overlap=st.floats(0, 1))
def test_placed_objects_laws(seed, threshold, overlap):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(5, 6, 7, generator=generator) < torch.rand(5, 1, 1, generator=generator)
    scores = torch.rand(5, generator=generator)
    placed = Instances(masks, torch.arange(5), scores).placed(threshold, overlap)
    labels = [label for label, _ in placed]
    assert scores[labels].tolist() == sorted(scores[labels].tolist(), reverse=True)
    covered = torch.zeros(6, 7, dtype=torch.bool)
    for label, mask in placed:
        assert scores[label] >= threshold and mask.equal(masks[label] & ~covered) and mask.any()
        assert int(mask.sum()) >= (1 - overlap) * int(masks[label].sum()) - 1e-6
        covered |= masks[label]


@pytest.mark.parametrize("settings", [{"threshold": 1.5}, {"overlap": -0.1}, {"threshold": float("nan")}])
def test_instance_settings_are_checked(settings):
    with pytest.raises(InputError, match="threshold and overlap"):
        Found(found=TWO, **settings)


# torchvision


@pytest.fixture(scope="module")
def lraspp_state():
    return filled(ours._unfilled(ours.torchvision_package().models.segmentation.lraspp_mobilenet_v3_large))


@pytest.mark.parametrize("segmenter", [ours.LRASPP, ours.DeepLabV3])
def test_segmentation_networks_are_those_of_torchvision(segmenter, lraspp_state):
    from torchvision.models import segmentation

    with torch.device("meta"):
        if segmenter is ours.LRASPP:
            theirs, settings = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None), {}
        else:
            # With the head for training, as the published files have it.
            theirs = segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, aux_loss=True)
            settings = {"backbone": "mobilenet"}
    state = filled(theirs, 1)
    theirs.load_state_dict(state, assign=True)
    image = halves(64, 88).add(torch.randn(3, 64, 88, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    segments = segmenter(weights=state, size=64, min_fraction=0, min_island=0, **settings)(image)
    with torch.no_grad():
        expected = theirs.eval()(normalised(image))["out"].argmax(1)
    assert segments.ids.equal(expected) and segments.count().item() > 1
    assert segments.names == {label: VOC[label] for label in expected.unique().tolist()}


def test_mask_rcnn_is_that_of_torchvision_in_spite_of_older_names(monkeypatch):
    from torchvision.models import detection

    for name in ("kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, **_: tensor)
    state = filled(ours._unfilled(detection.maskrcnn_resnet50_fpn), 2)
    # Quiet heads: boxes stay near their anchors, and masks fill them.
    for name, value in state.items():
        value *= 0.001 if "bbox_pred" in name else 0.01 if "cls_score" in name or "mask_fcn_logits" in name else 1
    state["roi_heads.mask_predictor.mask_fcn_logits.bias"] += 1
    older = {older_name(name): value for name, value in state.items() if "num_batches" not in name}
    assert len(set(older) - set(state)) == 16 + 2 + 8
    official = detection.MaskRCNN_ResNet50_FPN_Weights
    monkeypatch.setattr(official, "get_state_dict", lambda self, **_: dict(older))
    settings = {"min_size": 64, "max_size": 107, "box_score_thresh": 0.02}
    theirs = detection.maskrcnn_resnet50_fpn(weights=official.COCO_V1, **settings).eval()
    segmenter = ours.MaskRCNN(weights=older, size=64, threshold=0.02, min_fraction=0, min_island=0)
    image = halves(64, 80)
    found = segmenter(image)
    # Two kinds of normalisation layers round differently, which these random weights amplify.
    seen = [(image[0].double() + 1) / 2]
    with torch.no_grad():
        a, b = theirs.double()(seen)[0], segmenter.network.double()(seen)[0]
    assert len(a["labels"]) > 1 and a["labels"].equal(b["labels"])
    for name in ("boxes", "scores", "masks"):
        assert torch.allclose(a[name], b[name], atol=1e-6), name
    assert found.ids.shape == (1, 64, 80) and set(found.names.values()) <= {*COCO_91, "car"}
    assert len(found.names) == found.count().item() > 1
    assert found.names[0] == "background"


def older_name(name: str) -> str:
    """The name of 2019 of a tensor of Mask R-CNN."""
    parts = name.split(".")
    if "_blocks" in name:
        return ".".join(parts[:4] + parts[5:])
    if name.startswith("rpn.head.conv."):
        return f"rpn.head.conv.{parts[-1]}"
    if name.startswith("roi_heads.mask_head."):
        return f"roi_heads.mask_head.mask_fcn{int(parts[2]) + 1}.{parts[-1]}"
    return name


def test_building_a_segmenter_leaves_the_random_state_alone(lraspp_state):
    before = torch.get_rng_state()
    ours.LRASPP(weights=lraspp_state)
    assert torch.get_rng_state().equal(before)


def test_wrong_weights_of_torchvision(lraspp_state):
    with pytest.raises(InputError, match="resnet50, resnet101, mobilenet"):
        ours.DeepLabV3(backbone="resnet18")
    with pytest.raises(CheckpointError, match=r"backbone\.conv1\.weight.*deeplabv3_resnet50_coco"):
        ours.DeepLabV3(weights=lraspp_state)


def test_missing_torchvision_names_the_extra(monkeypatch, lraspp_state):
    monkeypatch.setitem(sys.modules, "torchvision.models.segmentation", None)
    with pytest.raises(MissingExtraError, match=r"saminv\[segment\]"):
        ours.LRASPP(weights=lraspp_state)


# The registry


def test_networks_are_registered_by_name_only():
    assert set(NETWORKS) <= set(SEGMENTERS)
    code = "import sys, saminv.segment; print([m for m in ('torchvision', 'detectron2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NETWORKS)
def test_registered_names_lead_to_segmenters(name):
    entry = SEGMENTERS.get(name)
    assert issubclass(entry, (AbstractClassSegmenter, AbstractInstanceSegmenter))


@pytest.mark.parametrize(
    "image", [torch.zeros(3, 8, 8), torch.full((1, 3, 8, 8), float("nan")), np.zeros((1, 3, 8, 8))]
)
def test_wrong_images_are_refused(image):
    with pytest.raises(InputError, match=r"needs|not a number"):
        ByColour()(image)


def test_segments_name_every_id():
    segments = ByColour()(halves(batch=2))
    assert isinstance(segments, Segments) and set(segments.names) == set(segments.ids.unique().tolist())
