"""Predicted invertibility in an inversion: when it is used, when errors are measured after all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import assert_close
from toys import toy_stylegan2

import saminv
from saminv import InputError, Regions
from saminv._arguments import make_recipe
from saminv._recipe import FAR_FROM_DOMAIN, FAR_TAU, known_errors
from saminv._types import flatten
from saminv.images import Picture
from saminv.optim import Escalate
from saminv.optim.slots import Slots
from saminv.optim.solve import solve
from saminv.segment import (
    PREDICTED_TAU,
    InvertibilityConfig,
    InvertibilityNet,
    PredictedInvertibility,
    Segments,
    load_invertibility,
    save_invertibility,
)

SPACES = ["W+", "F4", "F6"]
STEPS = 24


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2(torch.float64)


@pytest.fixture(scope="module")
def network(generator, tmp_path_factory):
    """The file of a network that knows W+ and F4, and finds a large part of everything hard in W+."""
    config = InvertibilityConfig(("W+", "F4"), generator.fingerprint, "mse", (32, 32), widths=(8, 8, 8), features=4)
    torch.manual_seed(0)
    net = InvertibilityNet(config).eval().requires_grad_(False)
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    save_invertibility(net, path)
    return path


@pytest.fixture()
def known(network, monkeypatch):
    """The network is the one that comes with the generator."""
    monkeypatch.setattr("saminv._arguments.find_network", lambda generator: network)


@pytest.fixture(scope="module")
def pictures(generator):
    """One picture of the generator, and one of grain, which is far from all of its pictures."""
    near = generator.synthesis(generator.mapping(generator.sample_z(1, seed=77))).clamp(-1, 1)
    far = torch.rand(near.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    return torch.cat([near, far]).float()


def settings(generator, **more):
    return {"generator": generator, "metric": "mse", "segmenter": "slic", "steps": STEPS} | more


@pytest.fixture()
def invert(generator):
    def call(images, tau=None, **more):
        return saminv.invert(images, SPACES, tau, **settings(generator, **more))

    return call


def test_auto_predicts_what_it_can_and_measures_what_is_far(known, generator, invert, network, pictures):
    with pytest.warns(UserWarning, match="far from what the generator makes"):
        solution = invert(pictures)
    assert solution.provenance["invertibility"] == "predicted"
    assert (solution.stats["domain_distance"] > FAR_FROM_DOMAIN).tolist() == [False, True]
    assert solution.stats["measured"].tolist() == [0, 1]
    assert solution.stats["tau"].tolist() == pytest.approx([PREDICTED_TAU, FAR_TAU])
    recipe = make_recipe(SPACES, **settings(generator, invertibility="measured"))
    job = recipe.prepare([Picture(pictures[:1], "near")])
    maps = {**PredictedInvertibility(network)(job.problem.target), "F6": torch.zeros(1, 1, 32, 32)}
    expected = saminv.allocate(maps, job.segments, SPACES, PREDICTED_TAU)
    assert torch.equal(solution.regions.labels[:1], expected.labels)


@pytest.mark.filterwarnings("ignore:.*far from what the generator makes")
@pytest.mark.parametrize("row", [0, 1])
def test_pictures_of_a_mixed_batch_are_as_if_alone(known, invert, pictures, row):
    both, alone = invert(pictures, 0.2), invert(pictures[row : row + 1], 0.2)
    assert torch.equal(both.regions.labels[row : row + 1], alone.regions.labels)
    assert int(both.status[row]) == int(alone.status[0])
    for name, value in flatten(alone.latents).items():
        assert_close(flatten(both.latents)[name][row : row + 1] + 1, value + 1, 1e-9)


@pytest.mark.filterwarnings("ignore:.*far from what the generator makes")
def test_they_share_slots(known, generator, pictures):
    recipe = make_recipe(SPACES, 0.2, **settings(generator))
    jobs = [recipe.prepare([Picture(image[None], str(row))]) for row, image in enumerate(pictures)]
    slots = Slots(jobs[0].solver, STEPS)
    for row, job in enumerate(jobs):
        slots.enter(job.problem, [row], job.solver)
    found = {}
    while len(slots):
        slots.step()
        found |= dict(slots.leave())
    for row, job in enumerate(jobs):
        alone = solve(job.problem, job.solver, max_steps=STEPS)
        assert torch.equal(found[row].regions.labels, alone.regions.labels)
        assert_close(found[row].image, alone.image, 1e-8)


@pytest.mark.filterwarnings("ignore:.*far from what the generator makes")
def test_predicted_is_predicted_whatever_the_picture(invert, network, pictures):
    solution = invert(pictures, 0.2, invertibility=str(network))
    assert "measured" not in solution.stats
    again = invert(pictures, 0.2, invertibility=PredictedInvertibility(network))
    assert torch.equal(solution.regions.labels, again.regions.labels)
    assert (solution.stats["steps"] > 0).all()


@pytest.mark.filterwarnings("ignore:.*far from what the generator makes")
def test_sweeps_and_targets_measure_what_is_far(known, generator, pictures):
    options = settings(generator)
    sweep = saminv.sweep(pictures, [0.0, 0.1, 5.0], SPACES, **options)
    assert [int(solution.regions.labels[1].max()) for solution in sweep.solutions] == [2, 2, 0]
    alone = saminv.sweep(pictures[1:], [0.0, 0.1, 5.0], SPACES, **options | {"invertibility": "measured"})
    for one, other in zip(sweep.solutions, alone.solutions):
        assert torch.equal(one.regions.labels[1:], other.regions.labels)
    found = saminv.invert(pictures, SPACES, "auto", target_psnr=5.0, **options)
    assert found.stats["target_met"].tolist() == [1, 1]


@pytest.mark.parametrize(("spaces", "relieved"), [(SPACES, True), (["F4", "F6"], False)])
def test_far_worse_segments_pull_styles_only(generator, network, pictures, spaces, relieved):
    recipe = make_recipe(spaces, **settings(generator, invertibility=network))
    target = recipe.prepare([Picture(pictures[:1], "near")]).problem.target
    halves = Segments((torch.arange(32) < 16).long().expand(1, 32, 32))
    maps = {space: torch.where(halves.ids == 0, 1.0, 0.3)[:, None] for space in spaces}
    recipe = replace(recipe, invertibility=PredictedInvertibility(network))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PredictedInvertibility, "__call__", lambda self, image: maps)
        means = known_errors(recipe, halves, target).means
    assert means[:, 0, 1].tolist() == pytest.approx([0.12 if relieved else 0.3] + [0.3] * (len(spaces) - 1))
    # Maps that somebody gives are taken as they are.
    given = replace(recipe, invertibility=saminv.GivenInvertibility(maps))
    assert known_errors(given, halves, target).means[0, 0, 1] == pytest.approx(0.3)


def test_a_network_that_does_not_suit_is_passed_by(known, generator, pictures):
    near = pictures[:1]
    for spaces, metric in ((["W+", "F5", "F6"], "mse"), (["W+"], "mse")):
        solution = saminv.invert(near, spaces, **settings(generator, metric=metric, steps=1))
        assert solution.provenance["invertibility"] == "measured"
    assert saminv.invert(near, SPACES, **settings(generator, steps=1)).provenance["invertibility"] == "predicted"


def test_a_network_of_another_generator_is_refused(network, pictures):
    with pytest.raises(InputError, match="another generator"):
        saminv.invert(
            pictures[:1], SPACES, **settings(toy_stylegan2(seed=1)), invertibility=PredictedInvertibility(network)
        )
    assert load_invertibility(network).config.spaces == ("W+", "F4")


def test_escalation_leaves_pictures_alone_that_are_not_measured(generator, pictures):
    recipe = make_recipe(SPACES, 0.0, **settings(generator, invertibility="measured", encoder="mean"))
    job = recipe.prepare([Picture(image[None], str(row)) for row, image in enumerate(pictures)])
    labels = torch.zeros_like(job.problem.regions.labels)
    labels[0, :, :16] = 1
    problem = job.problem.with_regions(Regions(labels, tuple(SPACES)))
    assert isinstance(job.solver, Escalate)
    solver = Escalate(job.solver.solver, recipe.metric, job.segments.ids, 0.0, measured=torch.tensor([False, True]))
    solution = solve(problem, solver, max_steps=STEPS)
    assert torch.equal(solution.regions.labels[0], labels[0])
    assert (solution.regions.labels[1] == 2).all()
