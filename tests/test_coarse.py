"""Later layers join a run one after another."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from toys import LinearGenerator, plain_problem, toy_problem, toy_stylegan2

from saminv import InputError
from saminv.optim import LBFGS, Adam, BestSoFar, CoarseToFine, Schedule, solve
from saminv.optim.slots import Slots

FLAT = Schedule(ramp_up=0, ramp_down=0)


def test_slots_and_features_join_in_the_order_of_their_layers():
    generator = toy_stylegan2()
    problem = toy_problem(generator, ["W+", "F4"])
    slots = Slots(CoarseToFine(Adam(schedule=FLAT), share=0.5), 40)
    slots.enter(problem, "a")
    start, joined, places = problem.start(), {}, generator.num_styles
    for step in range(40):
        slots.step()
        moved = (slots.state.y["W+"]["w"] != start["W+"]["w"]).any(dim=2)[0]
        for slot in range(places):
            if bool(moved[slot]):
                joined.setdefault(slot, step)
        if bool((slots.state.y["F4"]["delta"] != 0).any()):
            joined.setdefault("F4", step)
    expected = {slot: -(-20 * slot // places) for slot in range(places)}
    features = generator.feature_sites
    expected["F4"] = -(-20 * features.index("F4") // len(features))
    assert joined == expected


def test_with_no_share_it_is_the_solver_inside():
    problem = toy_problem(toy_stylegan2(torch.float64), ["W+", "F4"], batch=2)
    plain, wrapped = (solve(problem, solver, max_steps=12) for solver in (Adam(), CoarseToFine(Adam(), share=0)))
    assert_close(wrapped.image, plain.image, 0)


@pytest.mark.parametrize("solver", [Adam(rate=0.2), LBFGS()])
def test_it_ends_in_the_minimum(solver):
    generator = LinearGenerator()
    problem = plain_problem(generator, count=2)
    found = solve(problem, BestSoFar(CoarseToFine(solver)), max_steps=400)
    best = generator.synthesis(generator.best_styles(problem.target))
    assert_close(found.image, best, 1e-4)


def test_a_share_that_is_none():
    with pytest.raises(InputError, match="share must be from 0 to 1"):
        CoarseToFine(Adam(), share=1.5)
