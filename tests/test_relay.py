"""Two solvers one after the other."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from toys import (
    L2_ONLY,
    LinearGenerator,
    random_pictures,
    toy_problem,
    toy_stylegan2,
)

from saminv import InputError, Status
from saminv.optim import LBFGS, Adam, BestSoFar, PlateauStop, Relay, Schedule, solve
from saminv.optim.slots import Slots

CONSTANT = Adam(rate=0.05, schedule=Schedule(ramp_up=0.0, ramp_down=0.0))


@pytest.fixture(scope="module")
def problem():
    return toy_problem(toy_stylegan2(torch.float64), ["W+"], batch=2, objective=L2_ONLY)


def test_each_has_its_part(problem):
    both = solve(problem, Relay(CONSTANT, LBFGS(), share=0.5), max_steps=20)
    first = solve(problem, CONSTANT, max_steps=10)
    # The second one's first look is at where the first one has come to.
    second = solve(problem, LBFGS(), first.latents, max_steps=10)
    assert_close(both.latents["W+"]["w"], second.latents["W+"]["w"], 1e-9)
    assert both.statuses == [Status.COMPLETED] * 2 and both.stats["steps"].tolist() == [20, 20]


def test_a_run_that_ends_before_the_handover_is_the_first_ones(problem):
    slots = Slots(Relay(CONSTANT, LBFGS(), share=0.5), 20)
    slots.enter(problem, range(2))
    for _ in range(4):
        slots.step()
    slots.interrupt()
    left = [solution.latents["W+"]["w"] for _, solution in slots.leave()]
    plain = Slots(CONSTANT, 20)
    plain.enter(problem, range(2))
    for _ in range(4):
        plain.step()
    assert torch.equal(torch.cat(left), plain.state.y["W+"]["w"])


def test_images_in_different_parts_share_a_batch(problem):
    solver = Relay(CONSTANT, LBFGS(), share=0.5)
    slots = Slots(solver, 10)
    one, other = (problem.select(torch.tensor([row])) for row in range(2))
    slots.enter(one, ["one"])
    for _ in range(4):
        slots.step()
    slots.enter(other, ["other"])
    left = []
    for _ in range(10):
        slots.step()
        left += slots.leave()
    assert [key for key, _ in left] == ["one", "other"]
    for (_, solution), alone in zip(left, (one, other)):
        assert_close(solution.latents["W+"]["w"], solve(alone, solver, max_steps=10).latents["W+"]["w"], 1e-8)


def test_a_plateau_hands_over_early():
    linear = LinearGenerator()
    problem = toy_problem(linear, ("W+",), target=random_pictures(1), objective=L2_ONLY)
    solver = PlateauStop(BestSoFar(Relay(Adam(rate=1e-6), LBFGS(), share=0.5)), patience=3)
    solution = solve(problem, solver, max_steps=200)
    least = (linear.synthesis(linear.best_styles(problem.target)) - problem.target).square().mean()
    assert_close(solution.stats["loss"], least[None], 1e-3)
    assert int(solution.stats["steps"]) < 110, "the second half is left, not the first one"


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_shares_that_are_none(share):
    with pytest.raises(InputError, match="between 0 and 1"):
        Relay(Adam(), LBFGS(), share=share)
