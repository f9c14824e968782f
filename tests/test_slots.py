"""Images enter and leave the slots of a batch without noticing each other."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_stylegan2

from saminv import InputError, Status
from saminv._arguments import make_recipe
from saminv._types import flatten
from saminv.images import Picture
from saminv.optim.slots import Slots
from saminv.optim.solve import solve

STEPS = 24
TOLERANCE = 1e-9
"""Relative, in float64: the sums of a batch are formed in another order."""


@pytest.fixture(scope="module")
def recipes():
    generator = toy_stylegan2(torch.float64)
    plain = {"generator": generator, "metric": "mse", "encoder": "mean", "steps": STEPS}
    return {
        # A threshold that some segments pass at once, some later, some never.
        "measured": make_recipe(["W+", "F4", "F6"], 0.05, segmenter="slic", invertibility="measured", **plain),
        "fixed": make_recipe(["F6"], segmenter="none", **plain),
        "published": make_recipe(["W+", "F4"], 0.05, segmenter="slic", formulation="published", **plain),
        "noise maps": make_recipe(["W", "N"], segmenter="none", **plain),
    }


@pytest.fixture(scope="module")
def pictures(recipes):
    generator = recipes["fixed"].generator
    images = generator.synthesis(generator.mapping(generator.sample_z(4, seed=5))).clamp(-1, 1)
    # Grain in ever larger parts, so that the pictures end in different spaces and at different times.
    grain = torch.rand(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    for row in range(4):
        images[row, :, :, : 8 * row] = grain[row, :, :, : 8 * row]
    return [Picture(image[None].float(), f"p{row}") for row, image in enumerate(images)]


def alone(recipe, picture):
    job = recipe.prepare([picture])
    return job.finish(solve(job.problem, job.solver, max_steps=recipe.steps))


def together(recipe, pictures, entries):
    """Solutions by name of pictures that enter at the given steps."""
    slots, jobs, found, step = None, {}, {}, 0
    while len(found) < len(pictures):
        for picture, entry in zip(pictures, entries):
            if entry == step:
                job = jobs[picture.name] = recipe.prepare([picture])
                slots = slots or Slots(job.solver, recipe.steps)
                slots.enter(job.problem, [picture.name], job.solver)
        if slots is not None and len(slots):
            slots.step()
            found |= {name: jobs[name].finish(solution) for name, solution in slots.leave()}
        step += 1
    return found


def assert_same(one, other):
    assert torch.equal(one.regions.labels, other.regions.labels)
    assert torch.equal(one.status, other.status)
    assert set(one.stats) == set(other.stats)
    for name, value in one.stats.items():
        assert_close(other.stats[name].double() + 1, value.double() + 1, TOLERANCE, name)
    for name, tensor in flatten(one.latents).items():
        assert_close(flatten(other.latents)[name] + 1, tensor + 1, TOLERANCE, name)
    assert one.provenance == other.provenance


@pytest.mark.parametrize("kind", ["measured", "fixed", "published", "noise maps"])
def test_a_picture_in_a_moving_batch_is_as_if_alone(recipes, pictures, kind):
    recipe = recipes[kind]
    found = together(recipe, pictures, [0, 0, 5, 17])
    for picture in pictures:
        assert_same(alone(recipe, picture), found[picture.name])


def test_the_pictures_really_differ_in_space_and_time(recipes, pictures):
    solutions = [alone(recipes["measured"], picture) for picture in pictures]
    assert len({int(solution.regions.labels.max()) for solution in solutions}) > 1


@settings(max_examples=5, deadline=None)
@given(entries=st.lists(st.integers(0, 2 * STEPS), min_size=2, max_size=3))
def test_any_times_of_entry_will_do(recipes, pictures, entries):
    recipe, some = recipes["measured"], pictures[: len(entries)]
    found = together(recipe, some, entries)
    for picture in some:
        assert_same(alone(recipe, picture), found[picture.name])


def test_a_batch_is_left_one_by_one_in_any_order(recipes, pictures):
    recipe = recipes["fixed"]
    job = recipe.prepare(pictures)
    slots = Slots(job.solver, recipe.steps)
    slots.enter(job.problem, "abcd")
    slots.step()
    assert slots.state is not None
    slots.state.status[1] = int(Status.PLATEAU)
    [(key, solution)] = slots.leave()
    assert (key, slots.keys, len(slots)) == ("b", ["a", "c", "d"], 3)
    assert_close(solution.target, job.problem.target[1:2], 0)
    assert_close(slots.state.problem.target, job.problem.target[[0, 2, 3]], 0)
    assert slots.leave() == []
    slots.interrupt()
    left = dict(slots.leave())
    assert list(left) == ["a", "c", "d"]
    assert {solution.statuses[0] for solution in left.values()} == {Status.INTERRUPTED}
    assert len(slots) == 0
    assert slots.leave() == []


def test_no_steps_return_the_start(recipes, pictures):
    recipe = recipes["fixed"]
    job = recipe.prepare(pictures[:1])
    slots = Slots(job.solver, 0)
    slots.enter(job.problem, ["a"])
    [(_, solution)] = slots.leave()
    assert_close(solution.image, job.problem.render(job.problem.start()), 0)


def test_spaces_are_idle_again_when_those_who_used_them_have_left(recipes, pictures):
    job = recipes["measured"].prepare(pictures[:2])
    problem = job.problem
    assert problem.idle == {"F4", "F6"}
    labels = problem.regions.labels.clone()
    labels[0, :4] = 1
    used = problem.with_regions(problem.regions.with_labels(labels))
    assert used.idle == {"F6"}
    assert used.select(torch.tensor([1])).idle == {"F4", "F6"}
    assert used.select(torch.tensor([1])).join(used.select(torch.tensor([0]))).idle == {"F6"}


def test_problems_of_other_spaces_do_not_share_a_batch(recipes, pictures):
    one, other = (recipes[kind].prepare(pictures[:1]).problem for kind in ("measured", "fixed"))
    with pytest.raises(InputError, match="same spaces"):
        one.join(other)
    with pytest.raises(InputError, match="same spaces and size"):
        one.regions.join(other.regions)
