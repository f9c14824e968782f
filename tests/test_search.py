"""Sweeps over τ and the search for the τ that reaches a target."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import toy_stylegan2

import saminv
from saminv import GivenInvertibility, InputError, Regions
from saminv.segment import Segments, allocate
from saminv.segment.allocate import SegmentErrors

SPACES = ["W+", "F4", "F6"]
STEPS = 30


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def pictures(generator):
    images = generator.synthesis(generator.mapping(generator.sample_z(3, seed=77))).clamp(-1, 1)
    grain = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for row in range(3):
        images[row, :, :, : 8 * row] = grain[row, :, :, : 8 * row]
    return images


@pytest.fixture(scope="module")
def labels():
    """Four segments, the quarters of a picture."""
    return (torch.arange(32)[:, None] // 16 * 2 + torch.arange(32) // 16).long()


@pytest.fixture(scope="module")
def maps(labels):
    """Errors that differ from quarter to quarter, falling from space to space."""
    table = {"W+": [0.1, 0.2, 0.3, 0.4], "F4": [0.05, 0.1, 0.25, 0.3], "F6": [0.0, 0.05, 0.2, 0.01]}
    return {space: torch.tensor(values)[labels] for space, values in table.items()}


@pytest.fixture()
def settings_of(generator, labels, maps):
    return {
        "generator": generator,
        "metric": "mse",
        "segmenter": labels,
        "encoder": "mean",
        "steps": STEPS,
        "invertibility": GivenInvertibility(maps),
        "device": "cpu",
    }


# Which allocations there are.


@st.composite
def tables(draw):
    spaces, count = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    values = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5])
    rows = [[draw(values) for _ in range(count)] for _ in range(spaces)]
    ids = torch.arange(count)[None, None]
    return SegmentErrors(torch.tensor(rows)[:, None], Segments(ids), tuple(f"F{k}" for k in range(spaces)))


@given(tables())
def test_steps_are_all_allocations_from_editable_to_faithful(errors):
    taus = errors.steps(0)
    assert taus == sorted(taus, reverse=True)
    found = [errors.levels(tau)[0].tolist() for tau in taus]
    assert all(a != b for a, b in pairwise(found))
    every = [errors.levels(tau)[0].tolist() for tau in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)]
    assert all(levels in found for levels in every)


@given(tables())
def test_each_threshold_is_the_least_that_gives_its_allocation(errors):
    for tau in errors.steps(0):
        levels = errors.levels(tau)
        below = errors.levels(max(tau - 1e-4, 0.0))
        assert tau == 0 or not torch.equal(levels, below)


def test_segment_errors_allocate_as_allocate_does(labels, maps):
    segments = Segments(labels[None].repeat(2, 1, 1))
    errors = {space: value.expand(2, 1, 32, 32) for space, value in maps.items()}
    averaged = SegmentErrors.of(errors, segments, SPACES)
    tau = torch.tensor([0.15, 0.3])
    regions = allocate(errors, segments, SPACES, tau)
    assert averaged.allocate(tau) == regions
    assert averaged.select(torch.tensor([1])).allocate(0.3) == regions.select([1])


def test_selected_errors_forget_the_segments_of_others():
    ids = torch.zeros(2, 1, 4, dtype=torch.int64)
    ids[1, 0] = torch.arange(4)
    errors = SegmentErrors(torch.rand(2, 2, 4), Segments(ids), ("W+", "F4"))
    assert errors.select(torch.tensor([0])).means.shape == (2, 1, 1)
    assert len(errors.steps(0)) <= 2


# Segments that others pull.


def lying(means, areas):
    """Errors of one image: ``means`` by space, with segments of ``areas`` pixels."""
    ids = torch.repeat_interleave(torch.arange(len(areas)), torch.tensor(areas))[None, None]
    return SegmentErrors(torch.tensor(means)[:, None], Segments(ids), ("W+", "F4", "F6")[: len(means)])


def test_a_large_segment_waits_for_far_worse_ones_to_leave():
    errors = lying([[0.5, 1.5, 0.5, 0.1], [0.2, 0.5, 0.2, 0.1], [0.0] * 4], [50, 10, 1, 39])
    assert errors.levels(0.25)[0].tolist() == [1, 2, 1, 0]
    # The third covers 1 % only, and nothing is far worse than the second.
    assert errors.relieved().levels(0.25)[0].tolist() == [0, 2, 1, 0]
    assert errors.relieved().levels(0.15)[0].tolist() == [2, 2, 2, 0]


def test_without_far_worse_segments_nothing_is_relieved():
    errors = lying([[0.4, 1.0, 0.5], [0.1, 0.2, 0.1]], [30, 30, 40])
    assert torch.equal(errors.relieved().means, errors.means)


@given(tables(), st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5]), min_size=2, max_size=7))
def test_relief_keeps_the_order_and_what_leaves_first(errors, taus):
    relieved = errors.relieved()
    allocations = [relieved.levels(tau) for tau in sorted(set(taus), reverse=True)]
    assert all(bool((after >= before).all()) for before, after in pairwise(allocations))
    for tau, found in zip(sorted(set(taus), reverse=True), allocations):
        stayed = (found == 0) & (errors.levels(tau) > 0)
        # Who stays does so because the worst one leaves.
        assert not bool(stayed.any()) or int(found[0, errors.means[0, 0].argmax()]) > 0


# Sweeps.


def test_a_sweep_has_the_allocation_of_each_tau(pictures, settings_of, labels, maps):
    taus = [0.05, 0.15, 0.22, 0.35, 1.0]
    sweep = saminv.sweep(pictures, taus, SPACES, **settings_of)
    assert sweep.taus == tuple(taus)
    segments = Segments(labels[None].repeat(3, 1, 1))
    errors = {space: value.expand(3, 1, 32, 32) for space, value in maps.items()}
    for tau, solution in zip(taus, sweep.solutions):
        assert solution.regions == allocate(errors, segments, SPACES, tau)
        assert solution.stats["tau"].tolist() == pytest.approx([tau] * 3)
        assert solution.provenance["names"] == [f"image-{row}" for row in range(3)]


def test_masks_that_repeat_are_solved_once(pictures, settings_of):
    wide = saminv.sweep(pictures[:1], [0.5, 0.6, 1.0], SPACES, **settings_of)
    assert wide.work <= STEPS
    assert len({id(solution) for solution in wide.solutions}) == 3
    assert all(torch.equal(solution.image, wide.solutions[0].image) for solution in wide.solutions)
    other = saminv.sweep(pictures[:1], [0.15, 0.5], SPACES, **settings_of)
    assert STEPS < other.work <= 2 * STEPS


def test_a_sweep_costs_less_and_is_as_good(pictures, settings_of):
    taus, settings_of = [0.05, 0.15, 0.22, 0.35, 1.0], settings_of | {"steps": 120}
    sweep = saminv.sweep(pictures[:2], taus, SPACES, **settings_of)
    alone = [saminv.invert(pictures[:2], SPACES, tau, **settings_of) for tau in taus]
    assert sweep.work < sum(int(solution.stats["steps"].sum()) for solution in alone)
    for one, other in zip(alone, sweep.solutions):
        assert (other.stats["psnr"] - one.stats["psnr"]).min() > -0.3


def test_the_curve_is_plain(pictures, settings_of):
    curve = saminv.sweep(pictures[:2], [0.5, 0.1], SPACES, **settings_of).curve()
    assert [row["tau"] for row in curve] == [0.1, 0.5]
    assert all(len(row["psnr"]) == len(row["mse"]) == len(row["shares"]["F4"]) == 2 for row in curve)
    assert curve[0]["psnr"][1] > curve[1]["psnr"][1]


def test_measured_errors_are_measured_once(generator, pictures):
    settings = {"generator": generator, "metric": "mse", "segmenter": "slic", "encoder": "mean", "steps": STEPS}
    sweep = saminv.sweep(pictures, [0.02, 0.2, 1.0], SPACES, invertibility="measured", **settings)
    shares = [solution.stats["share/W+"] for solution in sweep.solutions]
    assert all((a <= b).all() for a, b in pairwise(shares))
    assert (shares[-1] > shares[0]).any()


@pytest.mark.parametrize(
    ("taus", "more", "message"),
    [
        ([], {}, "list of numbers"),
        (0.3, {}, "list of numbers"),
        ([-0.1], {}, "tau must be"),
        (["auto"], {}, "tau must be"),
        ([0.3], {"target_psnr": 20.0}, "takes taus"),
    ],
)
def test_impossible_sweeps_are_refused(pictures, settings_of, taus, more, message):
    with pytest.raises(InputError, match=message):
        saminv.sweep(pictures, taus, SPACES, **settings_of, **more)


# Targets.


def test_the_most_editable_allocation_that_reaches_the_target(pictures, settings_of, labels, maps):
    every = saminv.sweep(pictures[2:], [0.0, 0.01, 0.05, 0.1, 0.15, 0.25, 0.28, 0.35, 0.5], SPACES, **settings_of)
    psnr = [float(solution.stats["psnr"]) for solution in every.solutions]
    target = (psnr[0] + psnr[-1]) / 2
    found = saminv.invert(pictures[2:], SPACES, "auto", target_psnr=target, **settings_of)
    assert float(found.stats["target_met"]) == 1
    assert float(found.stats["psnr"]) >= target
    # The next more editable allocation, solved by itself, misses.
    tau = float(found.stats["tau"])
    errors = {space: value[None, None] for space, value in maps.items()}
    taus = SegmentErrors.of(errors, Segments(labels[None]), SPACES).steps(0)
    before = saminv.invert(pictures[2:], SPACES, taus[taus.index(pytest.approx(tau)) - 1], **settings_of)
    assert not torch.equal(before.regions.labels, found.regions.labels)
    assert float(before.stats["psnr"]) < target
    assert found.provenance["tau"] == "auto"
    assert found.provenance["target"] == {"stat": "psnr", "value": target}
    again = saminv.invert(pictures[2:], SPACES, tau, **settings_of)
    assert torch.equal(again.regions.labels, found.regions.labels), "tau gives the allocation"


def test_pictures_of_a_batch_have_their_own_tau(pictures, settings_of):
    found = saminv.invert(pictures, SPACES, "auto", target_psnr=16.0, **settings_of)
    assert found.stats["target_met"].all()
    assert found.regions.share("W+")[0] > found.regions.share("W+")[2]


def test_an_easy_target_keeps_all_in_the_most_editable_space(pictures, settings_of):
    found = saminv.invert(pictures, SPACES, "auto", target_psnr=1.0, **settings_of)
    assert (found.regions.share("W+") == 1).all()


def test_a_target_out_of_reach_is_said(pictures, settings_of):
    with pytest.warns(UserWarning, match="No allocation reaches psnr >= 90 for image"):
        found = saminv.invert(pictures[:1], SPACES, "auto", target_psnr=90.0, **settings_of)
    assert float(found.stats["target_met"]) == 0
    least = saminv.invert(pictures[:1], SPACES, 0.0, **settings_of)
    assert torch.equal(found.regions.labels, least.regions.labels)


def test_a_perceptual_target(pictures, settings_of):
    start = saminv.invert(pictures[2:], SPACES, 1.0, **settings_of)
    target = float(start.stats["mse"]) / 2
    found = saminv.invert(pictures[2:], SPACES, "auto", target_lpips=target, **settings_of)
    assert float(found.stats["mse"]) <= target


@pytest.mark.parametrize(
    ("tau", "more", "message"),
    [
        ("auto", {}, "needs one target"),
        ("auto", {"target_psnr": 20.0, "target_lpips": 0.1}, "needs one target"),
        ("auto", {"target_psnr": float("nan")}, "finite number"),
        ("auto", {"target_psnr": "high"}, "finite number"),
        ("auto", {"target_lpips": -1.0}, "above 0"),
        (0.3, {"target_psnr": 20.0}, "tau='auto'"),
        ("automatic", {}, "tau must be"),
    ],
)
def test_impossible_targets_are_refused(pictures, settings_of, tau, more, message):
    with pytest.raises(InputError, match=message):
        saminv.invert(pictures[:1], SPACES, tau, **settings_of, **more)


def test_fixed_regions_leave_nothing_to_choose(pictures, settings_of):
    regions = Regions.uniform(1, (32, 32), tuple(SPACES), "F4")
    with pytest.raises(InputError, match="fixed"):
        saminv.invert(pictures[:1], SPACES, "auto", target_psnr=9.0, **(settings_of | {"invertibility": regions}))


# τ by class.


def test_tau_by_class(labels, maps):
    segments = Segments(labels[None], {0: "car", 1: "sky", 2: "car", 3: "road"})
    errors = {space: value[None, None] for space, value in maps.items()}
    regions = allocate(errors, segments, SPACES, {"car": 0.3, "*": 0.1})
    assert [int(regions.labels[0][labels == k].unique()) for k in range(4)] == [0, 1, 0, 2]
    same = allocate(errors, segments, SPACES, {"*": 0.2})
    assert same == allocate(errors, segments, SPACES, 0.2)


def test_tau_by_class_goes_through_invert(generator, pictures):
    settings = {"segmenter": "demo", "metric": "demo", "steps": 4, "encoder": "mean"}
    scene = saminv.demo.sample_scenes(1, seed=5, strangers=True).images
    solution = saminv.invert(scene, SPACES, {"car": 1e6, "*": 0.0}, invertibility="measured", **settings)
    names = solution.provenance["segment_names"]
    car = [int(label) for label, name in names.items() if name == "car"]
    assert car
    inside = torch.isin(solution.segments, torch.tensor(car))
    assert (solution.regions.labels[inside] == 0).all()
    assert (solution.regions.labels[~inside] > 0).all()
    assert solution.provenance["tau"] == {"car": 1e6, "*": 0.0}


@pytest.mark.parametrize(
    ("tau", "names", "message"),
    [
        ({}, {0: "car"}, "needs names"),
        ({1: 0.3}, {0: "car"}, "needs names"),
        ({"car": -1.0}, {0: "car"}, "tau must be"),
        ({"car": 0.3}, {0: "car"}, "add '\\*'"),
        ({"car": 0.3, "*": 0.2}, {}, "no names"),
    ],
)
def test_impossible_taus_by_class_are_refused(labels, maps, tau, names, message):
    errors = {space: value[None, None] for space, value in maps.items()}
    with pytest.raises(InputError, match=message):
        allocate(errors, Segments(labels[None], names), SPACES, tau)
