"""Regions and mask resizing: parity with stored Pillow results, and the laws of a partition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import golden
from hypothesis import given
from hypothesis import strategies as st

from saminv._errors import InputError
from saminv.regions import Regions, resize_mask
from saminv.sites import Site

SPACES = ("W+", "F4", "F6")
CARS = (0.0, 0.125, 1.0, 0.875)
FORMULATIONS = ("paper", "published")
ABS = 1e-6


def site(size: int, frame=(0.0, 0.0, 1.0, 1.0)) -> Site:
    return Site(f"F{size}", "feature", (8, size, size), frame)


def random_mask(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def random_regions(batch: int = 2, size=(24, 24), formulation="paper", seed: int = 0) -> Regions:
    generator = torch.Generator().manual_seed(seed)
    return Regions(torch.randint(0, len(SPACES), (batch, *size), generator=generator), SPACES, formulation)


@pytest.mark.parametrize(
    ("source", "result"),
    [("in/mask", f"resized{n}") for n in (16, 32, 64, 128)]
    + [("in/mask_box", f"box_resized{n}") for n in (16, 32, 64, 128)]
    + [("in/mask_rect", "rect_resized_w10_h16")],
)
def test_published_matches_pillow(source, result):
    data = golden("sam_lanczos")
    expected = data[result]
    got = resize_mask(data[source][None, None].float(), tuple(expected.shape), formulation="published")
    assert (got[0, 0] - expected).abs().max() <= ABS


@pytest.mark.parametrize("name", ["sq64", "sq256", "cars192x256", "rect100x140"])
def test_published_matches_resized_masks(name):
    data = golden(f"sam_masks_{name}")
    height, width = data.meta["H"], data.meta["W"]
    margin = (width - height) / 2 / width
    for tau in data.meta["taus"]:
        for space, expected in data.under(f"tau{tau:g}/resized/").items():
            mask = data[f"tau{tau:g}/refined/{space}"]
            got = resize_mask(mask, tuple(expected.shape[-2:]), (0, margin, 1, 1 - margin), "published")
            assert (got - expected).abs().max() <= ABS, (tau, space)


def test_published_clips_per_image():
    weak, strong = 0.4 * random_mask(1, 1, 32, 32).float(), random_mask(1, 1, 32, 32, seed=1).float()
    both = resize_mask(torch.cat([weak, strong]), (64, 64), formulation="published")
    assert both[0].max() == pytest.approx(0.4)
    assert both[1].max() == 1 and both.min() == 0
    assert torch.equal(both[:1], resize_mask(weak, (64, 64), formulation="published"))


@pytest.mark.parametrize("size", [(16, 16), (7, 13), (32, 20)])
def test_paper_is_antialiased_bilinear(size):
    mask = random_mask(2, 1, 40, 52).float()
    expected = F.interpolate(mask.double(), size, mode="bilinear", antialias=True)
    assert (resize_mask(mask, size) - expected).abs().max() <= ABS


def test_paper_upsampling_is_bilinear():
    mask = random_mask(1, 1, 9, 6).float()
    expected = F.interpolate(mask.double(), (31, 24), mode="bilinear", align_corners=False)
    assert (resize_mask(mask, (31, 24)) - expected).abs().max() <= ABS


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(4, 4), (16, 16), (30, 31), (47, 53), (100, 128)])
def test_ones_and_zeros_are_exact(formulation, dtype, size):
    ones = torch.ones(2, 1, 47, 53, dtype=dtype)
    assert bool((resize_mask(ones, size, formulation=formulation) == 1).all())
    assert bool((resize_mask(torch.zeros_like(ones), size, formulation=formulation) == 0).all())


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_same_size_is_identity(formulation):
    mask = torch.rand(2, 1, 17, 23, dtype=torch.float64)
    assert torch.equal(resize_mask(mask, (17, 23), formulation=formulation), mask)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_frame_pads_exactly(formulation):
    mask = random_mask(1, 1, 192, 256)
    padded = resize_mask(mask, (256, 256), CARS, formulation)
    assert torch.equal(padded, F.pad(mask.float(), (0, 0, 32, 32)))
    small = resize_mask(mask, (32, 32), CARS, formulation)
    assert (
        small - resize_mask(F.pad(mask.float(), (0, 0, 32, 32)), (32, 32), formulation=formulation)
    ).abs().max() <= ABS


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_frame_of_a_margin_on_all_sides(formulation):
    mask = random_mask(2, 1, 64, 64)
    margin = 10 / 84
    frame = (margin, margin, 1 - margin, 1 - margin)
    expected = resize_mask(F.pad(mask.float(), (10,) * 4), (36, 36), formulation=formulation)
    assert (resize_mask(mask, (36, 36), frame, formulation) - expected).abs().max() <= ABS


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_a_margin_can_be_as_the_edge_is(formulation):
    mask = random_mask(2, 1, 64, 48)
    frame = (10 / 68, 10 / 84, 1 - 10 / 68, 1 - 10 / 84)
    expected = resize_mask(F.pad(mask.float(), (10,) * 4, mode="replicate"), (42, 34), formulation=formulation)
    assert (resize_mask(mask, (42, 34), frame, formulation, "edge") - expected).abs().max() <= ABS
    site = Site("F", "feature", (8, 42, 34), frame, beyond="edge")
    labels = torch.randint(0, 3, (2, 64, 48))
    regions = Regions(labels, ("W+", "F4", "F6"), formulation)
    if formulation == "paper":
        total = sum(regions.mask(space, site) for space in regions.spaces)
        assert (total - 1).abs().max() <= ABS
    with pytest.raises(InputError, match="beyond='mirror' is none of zero, edge"):
        resize_mask(mask, (42, 34), frame, formulation, "mirror")


def test_frame_beyond_the_grid_crops():
    mask = random_mask(1, 1, 64, 64)
    got = resize_mask(mask, (16, 16), (-0.5, 0.0, 1.5, 1.0))
    assert (got - resize_mask(mask[..., 16:48], (16, 16))).abs().max() <= ABS


@pytest.mark.parametrize(
    ("mask", "arguments", "message"),
    [
        (torch.ones(4, 4), ((2, 2),), "B, 1, H, W"),
        (torch.ones(1, 3, 4, 4), ((2, 2),), "B, 1, H, W"),
        (torch.ones(1, 1, 0, 4), ((2, 2),), "empty"),
        (torch.ones(1, 1, 4, 4), ((0, 2),), "at least 1"),
        (torch.ones(1, 1, 4, 4), ((2, 2), (0.5, 0, 0.5, 1)), "Frame"),
        (torch.ones(1, 1, 4, 4), ((2, 2), (1.5, 0, 2, 1)), "Frame"),
        (torch.ones(1, 1, 4, 4), ((2, 2), (-100, 0, 102, 1)), "less than one"),
        (torch.ones(1, 1, 4, 4), ((2, 2), (0, 0, 1, 1), "cubic"), "paper, published"),
    ],
)
def test_resize_errors(mask, arguments, message):
    with pytest.raises(InputError, match=message):
        resize_mask(mask, *arguments)


@given(
    seed=st.integers(0, 1000),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    h=st.integers(1, 48),
    w=st.integers(1, 48),
)
def test_paper_masks_stay_a_partition(seed, height, width, h, w):
    regions = random_regions(2, (height, width), seed=seed)
    where = Site("F", "feature", (1, h, w))
    masks = torch.stack([regions.mask(space, where) for space in SPACES])
    assert masks.shape == (3, 2, 1, h, w)
    assert (masks.sum(0) - 1).abs().max() <= ABS
    assert masks.min() >= 0 and masks.max() <= 1
    alone = regions.select([1]).mask("F4", where)
    assert torch.equal(alone, masks[1, 1:])


def test_masks_are_cached_by_space_size_and_frame():
    regions = random_regions()
    first = regions.mask("F4", site(16))
    assert regions.mask("F4", Site("other", "feature", (3, 16, 16))) is first
    assert regions.mask("F6", site(16)) is not first
    assert not torch.equal(regions.mask("F4", site(16, CARS)), first)
    assert regions == random_regions() and regions != random_regions(seed=1)


def test_mask_made_in_inference_mode_can_be_trained_on():
    with torch.inference_mode():
        regions = random_regions()
        regions.mask("F4", site(16))
    delta = torch.zeros(2, 1, 16, 16, requires_grad=True)
    (delta * regions.mask("F4", site(16))).sum().backward()
    assert delta.grad is not None and torch.equal(delta.grad, regions.mask("F4", site(16)))


def test_uniform_share_full_and_rows():
    regions = Regions.uniform(3, (8, 10), SPACES, "F4", formulation="published")
    assert len(regions) == 3 and regions.size == (8, 10) and regions.formulation == "published"
    assert regions.share("F4").tolist() == [1, 1, 1] and regions.share("W+").tolist() == [0, 0, 0]
    assert bool((regions.mask("F4", site(4)) == 1).all()) and bool((regions.mask("W+", site(4)) == 0).all())
    labels = regions.labels.clone()
    labels[1, :4] = 2
    changed = regions.with_labels(labels)
    assert changed.share("F6").tolist() == [0, 0.5, 0] and changed.formulation == "published"
    assert changed.full("F6").dtype == torch.bool and int(changed.full("F6").sum()) == 40
    assert int(torch.stack(list(changed.masks_dict().values())).sum()) == 3 * 80
    for rows in ([1, 0], torch.tensor([1, 0]), torch.tensor([True, True, False])):
        assert len(changed.select(rows)) == 2
    assert changed.select(1).share("F6").tolist() == [0.5]


def test_to_changes_the_masks_dtype():
    regions = random_regions()
    regions.mask("F4", site(8))
    double = regions.to("cpu", torch.float64)
    assert double.mask("F4", site(8)).dtype == torch.float64 and double != regions
    assert torch.equal(double.mask("F4", site(8)).float(), regions.mask("F4", site(8)))
    assert regions.to("cpu") == regions


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Regions(torch.zeros(1, 4, 4), SPACES), "int64"),
        (lambda: Regions(torch.zeros(4, 4, dtype=torch.int64), SPACES), "B, H, W"),
        (lambda: Regions(torch.full((1, 4, 4), 3), SPACES), "0..2"),
        (lambda: Regions(torch.full((1, 4, 4), -1), SPACES), "0..2"),
        (lambda: Regions(torch.zeros(1, 4, 4, dtype=torch.int64), ()), "at least one"),
        (lambda: Regions(torch.zeros(1, 4, 4, dtype=torch.int64), "W+"), "list"),
        (lambda: Regions(torch.zeros(1, 4, 4, dtype=torch.int64), ("F4", "F4")), "distinct"),
        (lambda: Regions(torch.zeros(1, 4, 4, dtype=torch.int64), SPACES, "best"), "paper"),
        (lambda: Regions.uniform(1, (4, 4), SPACES, "F8"), "W\\+, F4, F6"),
        (lambda: random_regions().mask("N", site(4)), "no region"),
        (lambda: random_regions().mask("F4", Site("styles", "styles", (12, 64))), "styles"),
    ],
)
def test_region_errors(build, message):
    with pytest.raises(InputError, match=message):
        build()
