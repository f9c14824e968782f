"""Batched L-BFGS: known minima, independence of images, regions that change, what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import assert_close
from toys import (
    L2_ONLY,
    LinearGenerator,
    halves,
    plain_problem,
    same_latents,
    toy_problem,
    toy_stylegan2,
)

from saminv import InputError, Regions, Status
from saminv.metrics.pixel import MSE
from saminv.optim import LBFGS, Adam, BestSoFar, Objective, PlateauStop, solve
from saminv.optim.lbfgs import dot, two_loop
from saminv.optim.slots import Slots


@pytest.fixture(scope="module")
def linear():
    return LinearGenerator()


@pytest.fixture(scope="module")
def precise():
    return toy_stylegan2(torch.float64)


def test_a_linear_problem_reaches_its_minimum_in_few_steps(linear):
    problem = plain_problem(linear, count=3)
    best = linear.best_styles(problem.target)
    least = (linear.synthesis(best) - problem.target).square().mean((1, 2, 3))
    quick = solve(problem, LBFGS(), max_steps=40)
    assert_close(quick.stats["loss"], least, 1e-6)
    slow = solve(problem, BestSoFar(Adam(rate=0.1)), max_steps=40)
    assert (slow.stats["loss"] - least > 30 * (quick.stats["loss"] - least)).all()


def test_a_curved_problem_with_features(precise):
    names = ["W+", "F2"]
    problem = toy_problem(precise, names, batch=2, regions=halves(precise, 2, names), objective=Objective(MSE()))
    first = problem.loss(problem.start())[0]
    solution, slow = solve(problem, LBFGS(), max_steps=60), solve(problem, BestSoFar(Adam()), max_steps=60)
    assert (solution.stats["loss"] < slow.stats["loss"]).all() and (solution.stats["loss"] < first).all()


def test_the_loss_of_the_result_never_rises(precise):
    problem = toy_problem(precise, ["W+"], batch=2, objective=L2_ONLY)
    kept = []
    solve(problem, LBFGS(first=5.0, longest=50.0), max_steps=30, callback=lambda _, state, __: kept.append(state.value))
    values = torch.stack(kept)
    assert (values.diff(dim=0) <= 0).all() and (values[-1] < values[0]).all()


def test_the_two_loops_are_the_inverse_hessian_of_all_pairs(linear):
    """Against the dense update H <- (I - r s y') H (I - r y s') + r s s' (Nocedal and Wright, Eq. 7.16)."""
    problem = plain_problem(linear, count=2)
    slots = Slots(LBFGS(memory=4), 20)
    slots.enter(problem, range(2))
    for _ in range(7):
        slots.step()
    state = slots.state
    found = two_loop(state)["W+"]["w"].flatten(1).double()
    for row in range(2):
        steps, changes = (past["W+"]["w"][row].flatten(1).double() for past in (state.steps, state.changes))
        gradient = state.gradient["W+"]["w"][row].flatten().double()
        eye = torch.eye(len(gradient), dtype=torch.float64)
        inverse = eye * (steps[-1] @ changes[-1]) / (changes[-1] @ changes[-1])
        for s, y in zip(steps, changes):
            r = 1 / (s @ y)
            inverse = (eye - r * torch.outer(s, y)) @ inverse @ (eye - r * torch.outer(y, s)) + r * torch.outer(s, s)
        assert_close(found[row], inverse @ gradient, 1e-4)


def test_images_do_not_know_of_each_other(precise):
    problem = toy_problem(precise, ["W+"], batch=3, objective=L2_ONLY)
    together = solve(problem, LBFGS(), max_steps=12)
    for row in range(3):
        alone = solve(problem.select(torch.tensor([row])), LBFGS(), max_steps=12)
        assert_close(together.latents["W+"]["w"][row : row + 1], alone.latents["W+"]["w"], 1e-8)


def test_images_enter_and_leave_while_others_run(precise):
    problem = toy_problem(precise, ["W+"], batch=2, objective=L2_ONLY)
    one, other = (problem.select(torch.tensor([row])) for row in range(2))
    slots = Slots(LBFGS(), 6)
    slots.enter(one, ["one"])
    for _ in range(3):
        slots.step()
    slots.enter(other, ["other"])
    left = []
    for _ in range(6):
        slots.step()
        left += slots.leave()
    assert [key for key, _ in left] == ["one", "other"]
    for (_, solution), alone in zip(left, (one, other)):
        assert_close(solution.latents["W+"]["w"], solve(alone, LBFGS(), max_steps=6).latents["W+"]["w"], 1e-8)


def test_a_space_that_wakes_up(linear):
    names = ("W+", "F1")
    asleep = plain_problem(linear, names, regions=Regions.uniform(1, (8, 8), names, "W+"))
    awake = asleep.with_regions(halves(linear, 1, names))
    slots = Slots(LBFGS(), 60)
    slots.enter(asleep, ["first"])
    for _ in range(10):
        slots.step()
    before = float(slots.state.value)
    slots.solver.rebase(slots.state, awake, torch.tensor([True]))
    slots.enter(awake, ["second"])
    for _ in range(40):
        slots.step()
    assert slots.state.base["F1"]["delta"][0].abs().max() > 0
    assert (slots.state.value < 0.9 * before).all()
    # An image that joins one which has not met the space yet brings its memory along.
    late = Slots(LBFGS(), 60)
    late.enter(asleep, ["first"])
    late.step()
    joined = late.state.join(slots.state)
    assert len(joined.gradient["F1"]["delta"]) == 3 and not joined.steps["F1"]["delta"][0].any()


def test_a_step_that_cannot_be_made_ends_the_image(linear):
    problem = plain_problem(linear)
    best = {"W+": {"w": linear.best_styles(problem.target)}}
    solution = solve(problem, LBFGS(patience=3), best, max_steps=200)
    assert solution.statuses == [Status.PLATEAU] and int(solution.stats["steps"]) < 200
    assert_close(solution.latents["W+"]["w"], best["W+"]["w"], 1e-3)


def test_a_plateau_ends_it(linear):
    solution = solve(plain_problem(linear), PlateauStop(BestSoFar(LBFGS()), patience=5), max_steps=500)
    assert solution.statuses == [Status.PLATEAU] and int(solution.stats["steps"]) < 100


def test_what_has_ended_stays_where_it_is(precise):
    problem = toy_problem(precise, ["W+"], batch=2, objective=L2_ONLY)
    slots = Slots(LBFGS(), 30)
    slots.enter(problem, range(2))
    for _ in range(5):
        slots.step()
    slots.state.status[0] = int(Status.INTERRUPTED)
    before = slots.state.select(torch.tensor([0]))
    for _ in range(5):
        slots.step()
    after = slots.state.select(torch.tensor([0]))
    assert same_latents(after.base, before.base) and same_latents(after.y, before.y)
    assert torch.equal(after.value, before.value)


def test_dot_is_per_image_and_of_the_first_ones_spaces():
    a = {"W+": {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}}
    b = {"W+": {"w": torch.tensor([[1.0, 1.0], [2.0, 0.0]])}, "F4": {"delta": torch.ones(2, 1)}}
    assert dot(a, b).tolist() == [3.0, 6.0]


@pytest.mark.parametrize("settings", [{"memory": 0}, {"patience": 0}, {"first": 0.0}, {"first": 2.0}])
def test_settings_that_are_none(settings):
    with pytest.raises(InputError, match="must be"):
        LBFGS(**settings)


def test_random_noise_is_refused(precise):
    problem = replace(toy_problem(precise, ["W+"]), noise="random")
    with pytest.raises(InputError, match="random noise changes them"):
        solve(problem, LBFGS(), max_steps=2)
