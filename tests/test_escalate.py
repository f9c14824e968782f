"""Invertibility by measurement on planted errors: where segments end, and when they move."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import (
    L2_ONLY,
    LinearGenerator,
    PlantedErrors,
    plain_problem,
    random_pictures,
    toy_problem,
)

from saminv import Regions
from saminv.optim import Adam, BestSoFar, Escalate, PlateauStop, solve
from saminv.segment import Segments, allocate

SPACES = ("W+", "F0", "F1", "F2")


@pytest.fixture(scope="module")
def linear():
    return LinearGenerator()


GRID = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(8) // 4)[None]
"""Four segments, the quarters of a picture of 8 x 8 pixels."""


def planted(means):
    """Error maps `[S, B, 1, 8, 8]` whose mean over the quarters is ``means`` `[S, B, 4]`."""
    means = torch.as_tensor(means, dtype=torch.float64)
    means = means[:, None] if means.dim() == 2 else means
    flat = means.gather(2, GRID.flatten()[None, None].expand(*means.shape[:2], -1))
    ripple = torch.linspace(-0.02, 0.02, 4).repeat(8, 2).double()
    return flat.reshape(*means.shape[:2], 1, 8, 8) + ripple - ripple[:4, :4].mean()


def climb(linear, metric, tau, steps=60, names=SPACES, **settings):
    """A run with plateaus far away, so that looks come at fixed shares unless ``settings`` say otherwise."""
    batch = metric.table.shape[1]
    problem = plain_problem(linear, names, count=batch, regions=Regions.uniform(batch, (8, 8), names, names[0]))
    shares = {"first_share": 0.3, "later_share": 0.1, "last_share": 0.2, "patience": 1000}
    solver = Escalate(BestSoFar(Adam()), metric, GRID.expand(batch, -1, -1), tau, **(shares | settings))
    states = []

    def watch(step, state, evaluation):
        metric.watch(step, state, evaluation)
        states.append((state.level.clone(), state.looks.clone(), state.settled.clone(), state.clock.clone()))

    return solve(problem, solver, max_steps=steps, callback=watch), states


ERRORS = [[0.1, 0.5, 0.5, 0.9], [0.1, 0.2, 0.5, 0.9], [0.1, 0.1, 0.2, 0.9], [0.0, 0.0, 0.1, 0.8]]


class LookErrors(PlantedErrors):
    """Planted errors of the first quarters by look, the last one staying; the others have none."""

    def __init__(self, by_look):
        super().__init__(planted(torch.zeros(1, 4)))
        self.by_look, self.looked = by_look, 0

    def map(self, image, prepared):
        means = torch.zeros(1, 4, dtype=torch.float64)
        for segment, errors in enumerate(self.by_look):
            means[0, segment] = errors[min(self.looked, len(errors) - 1)]
        self.looked += 1
        return planted(means)[0]


def levels(solution):
    return solution.regions.labels[:, ::4, ::4].flatten(1).tolist()


def test_segments_end_in_the_first_space_that_is_good_enough(linear):
    metric = PlantedErrors(planted(ERRORS))
    solution, states = climb(linear, metric, 0.3)
    assert levels(solution) == [[0, 1, 2, 3]]
    assert states[-1][2].all(), "settled"
    assert solution.regions.spaces == SPACES


def test_tau_zero_sends_everything_to_the_last_space_and_a_huge_one_nothing(linear):
    table = planted(ERRORS).clamp_min(1e-3)
    assert levels(climb(linear, PlantedErrors(table), 0.0)[0]) == [[3, 3, 3, 3]]
    solution, states = climb(linear, PlantedErrors(table), 1e9)
    assert levels(solution) == [[0, 0, 0, 0]]
    assert states[-1][1].item() == 1, "one look is enough to settle"


@pytest.mark.parametrize("names", [SPACES[:2], SPACES])
def test_wrappers_may_stand_outside_of_the_measuring_one(linear, names):
    """The loop and the outer wrappers go on with the regions that the inner one has found."""
    metric = PlantedErrors(planted(torch.full((len(names), 4), 0.6)))
    regions = Regions.uniform(1, (8, 8), names, "W+")
    problem = plain_problem(linear, names, regions=regions)
    inside = Escalate(Adam(rate=0.1), metric, GRID, 0.3, patience=1000, first_share=0.3)
    outside = solve(problem, BestSoFar(PlateauStop(inside, patience=1000)), max_steps=40, callback=metric.watch)
    assert (outside.regions.labels == len(names) - 1).all()
    again = PlantedErrors(metric.table)
    usual = Escalate(BestSoFar(Adam(rate=0.1)), again, GRID, 0.3, patience=1000, first_share=0.3)
    expected = solve(problem, usual, max_steps=40, callback=again.watch)
    assert_close(outside.image, expected.image, 1e-12)


def test_an_error_of_exactly_tau_passes(linear):
    table = torch.full((4, 1, 1, 8, 8), 0.25, dtype=torch.float64)
    assert levels(climb(linear, PlantedErrors(table), 0.25)[0]) == [[0, 0, 0, 0]]


def test_a_look_moves_a_segment_by_one_space_at_most(linear):
    metric = PlantedErrors(planted(ERRORS))
    _, states = climb(linear, metric, 0.05)
    before, seen = torch.zeros_like(states[0][0]), torch.zeros_like(states[0][1])
    for level, looks, _, clock in states:
        moved = level - before
        assert ((moved == 0) | (moved == 1)).all()
        assert not moved.any() or (looks > seen).all()
        assert not (looks > seen).any() or (clock == 0).all()
        before, seen = level, looks


def levels_over_time(states, segment):
    """The levels that a segment had one after the other, by the number of looks so far."""
    return {int(looks): int(level[0, segment]) for level, looks, _, _ in states}


def test_the_worst_leave_the_styles_first(linear):
    """0.9 is above twice 0.3, so 0.5 waits for it to be gone; after that it is below tau or goes as well."""
    relieved = LookErrors([[0.9, 0.1], [0.5, 0.2]])
    solution, states = climb(linear, relieved, 0.3, names=SPACES[:2])
    assert levels(solution)[0][:2] == [1, 0] and states[-1][2].all()
    still_bad = LookErrors([[0.9, 0.1], [0.5, 0.45]])
    solution, states = climb(linear, still_bad, 0.3, names=SPACES[:2])
    assert levels_over_time(states, 1)[1] == 0
    assert levels(solution)[0][:2] == [1, 1]
    small = climb(linear, LookErrors([[0.9, 0.1], [0.5, 0.2]]), 0.3, names=SPACES[:2], least_area=0.5)
    assert levels(small[0])[0][:2] == [1, 1], "small segments have little say in the styles and do not wait"


def test_later_layers_wait_for_what_falls_fast(linear):
    """In the third space, 0.45 after 0.8 leads to 0.25 at the next look, but 0.6 leads to 0.45 only."""
    fast, slow = [0.9, 0.8, 0.45, 0.2], [0.9, 0.8, 0.6, 0.2]
    solution, states = climb(linear, LookErrors([fast, slow]), 0.3)
    assert levels(solution)[0][:2] == [2, 3] and states[-1][2].all()
    assert levels_over_time(states, 0) == {0: 0, 1: 1, 2: 2, 3: 2, 4: 2}
    deceived = climb(linear, LookErrors([[0.9, 0.8, 0.45, 0.42]]), 0.3)[0]
    assert levels(deceived)[0][0] == 3, "it did not go on falling"


def test_small_segments_wait_in_all_spaces_but_never_at_the_first_look(linear):
    errors = [[0.9, 0.45, 0.2]]
    solution, states = climb(linear, LookErrors(errors), 0.3, small_area=0.5)
    assert levels(solution)[0][0] == 1
    assert levels_over_time(states, 0)[1] == 1
    assert levels(climb(linear, LookErrors(errors), 0.3, small_area=0.25)[0])[0][0] == 2, "a quarter is not below it"


def test_each_image_may_have_a_tau_of_its_own(linear):
    means = 0.02 + torch.tensor(ERRORS)[:, None].expand(-1, 3, -1)
    taus = torch.tensor([0.3, 0.15, 1.0], dtype=torch.float64)
    solution, _ = climb(linear, PlantedErrors(planted(means)), taus)
    assert levels(solution) == [[0, 1, 2, 3], [0, 2, 3, 3], [0, 0, 0, 0]]
    segments = Segments(GRID.expand(3, -1, -1))
    assert solution.regions == allocate(dict(zip(SPACES, planted(means))), segments, SPACES, taus)


def test_regions_are_whole_segments_at_all_times(linear):
    metric = PlantedErrors(planted(ERRORS))
    climb(linear, metric, 0.15)
    assert len({tuple(labels.flatten().tolist()) for labels in metric.history}) > 2
    for labels in metric.history:
        assert all(labels[0][GRID[0] == segment].unique().numel() == 1 for segment in range(4))


def test_each_image_has_its_own_levels_and_clock(linear):
    means = torch.stack([torch.tensor(ERRORS), torch.zeros(4, 4), torch.full((4, 4), 0.6)], dim=1)
    solution, states = climb(linear, PlantedErrors(planted(means)), 0.3)
    assert levels(solution) == [[0, 1, 2, 3], [0, 0, 0, 0], [3, 3, 3, 3]]
    settled_at = [next(i for i, state in enumerate(states) if state[2][row]) for row in range(3)]
    assert settled_at[1] < settled_at[0]
    for row in range(3):
        alone, _ = climb(linear, PlantedErrors(planted(means[:, row : row + 1])), 0.3)
        assert levels(alone) == [levels(solution)[row]]


def test_an_image_that_plateaus_early_is_looked_at_early(linear):
    """Looks come after a plateau, not at a fixed step; the clock of one image does not move the other's."""
    target = torch.cat([linear.synthesis(linear.mapping(linear.sample_z(1, seed=3))), random_pictures(1)])
    styles = linear.mapping(torch.cat([linear.sample_z(1, seed=3), 9 * linear.sample_z(1, seed=4)]))
    regions = Regions.uniform(2, (8, 8), SPACES, "W+")
    problem = toy_problem(linear, SPACES, target=target, styles=styles, objective=L2_ONLY, regions=regions)
    metric = PlantedErrors(planted(torch.full((4, 2, 4), 0.6)))
    solver = Escalate(Adam(rate=0.2), metric, GRID.expand(2, -1, -1), 0.3, patience=5, first_share=0.5)
    looks = []

    def watch(step, state, evaluation):
        metric.watch(step, state, evaluation)
        looks.append(state.looks.clone())

    solve(problem, solver, max_steps=60, callback=watch)
    first = (torch.stack(looks) > 0).int().argmax(dim=0).tolist()
    assert first[0] < 10 and first[1] >= 29


def test_nothing_moves_in_the_last_share(linear):
    table = planted(torch.full((4, 4), 0.6))
    metric = PlantedErrors(table)
    climb(linear, metric, 0.3, steps=50, first_share=0.5, later_share=0.01, last_share=0.4)
    moves = [i for i in range(1, 50) if not torch.equal(metric.history[i], metric.history[i - 1])]
    assert moves and max(moves) <= 30
    late = PlantedErrors(table)
    climb(linear, late, 0.3, steps=50, first_share=0.9, last_share=0.4)
    assert not any(labels.any() for labels in late.history)


def test_one_space_is_settled_from_the_start(linear):
    metric = PlantedErrors(planted(torch.ones(1, 4)))
    solution, states = climb(linear, metric, 0.0, names=("W+",))
    assert states[0][2].all() and levels(solution) == [[0, 0, 0, 0]]
    assert not states[-1][1].any(), "it is never looked at"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0.05, 0.2, 0.4, 0.8]), min_size=4, max_size=4), min_size=4, max_size=4))
def test_measuring_agrees_with_the_tau_rule(means):
    linear = LinearGenerator()
    table = planted(means)
    solution, _ = climb(linear, PlantedErrors(table), 0.3, steps=20)
    error = dict(zip(SPACES, table))
    assert solution.regions == allocate(error, Segments(GRID), SPACES, 0.3)


def test_the_run_goes_on_warm_after_a_climb(linear):
    """A segment that climbs keeps the styles that it had."""
    metric = PlantedErrors(planted(torch.full((4, 4), 0.6)))
    problem = plain_problem(linear, SPACES, regions=Regions.uniform(1, (8, 8), SPACES, "W+"))
    solver = Escalate(Adam(rate=0.01), metric, GRID, 0.3, patience=1000, first_share=0.5)
    images = []

    def watch(step, state, evaluation):
        metric.watch(step, state, evaluation)
        images.append(evaluation.image)

    solve(problem, solver, max_steps=20, callback=watch)
    steps = torch.stack(images).diff(dim=0).abs().amax(dim=(1, 2, 3, 4))
    assert steps.max() < 0.2, "no jump at a climb"
