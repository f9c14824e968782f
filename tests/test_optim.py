"""The loop, its solvers and wrappers, on problems whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import (
    L2_ONLY,
    LinearGenerator,
    SaysNan,
    halves,
    perturbed,
    plain_problem,
    random_pictures,
    same_latents,
    toy_problem,
    toy_stylegan2,
)

from saminv import InputError, Regions, Status
from saminv.metrics.pixel import MSE
from saminv.optim import Adam, BestSoFar, Escalate, Objective, PlateauStop, Problem, Schedule, solve
from saminv.optim.objective import PAPER_WEIGHTS, PUBLISHED_WEIGHTS
from saminv.spaces import resolve_spaces
from saminv.spaces._base import SpaceOptions

CONSTANT = Schedule(ramp_up=0.0, ramp_down=0.0)
SPACES = ("W+", "F0", "F1", "F2")


@pytest.fixture(scope="module")
def linear():
    return LinearGenerator()


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def precise():
    return toy_stylegan2(torch.float64)


class Track:
    """A callback that remembers the losses and latents that a solve looked at."""

    def __init__(self):
        self.losses, self.steps, self.status = [], [], []

    def __call__(self, index, state, evaluation):
        self.losses.append(evaluation.loss.clone())
        self.steps.append(state.step.clone())
        self.status.append(state.status.clone())


def test_a_linear_problem_reaches_its_closed_form_minimum(linear):
    problem = plain_problem(linear, count=3)
    best = linear.best_styles(problem.target)
    least = (linear.synthesis(best) - problem.target).square().mean((1, 2, 3))
    solution = solve(problem, BestSoFar(Adam(rate=0.1)), max_steps=400)
    assert least.min() > 0.1, "the targets are out of reach"
    assert_close(solution.stats["loss"], least, 1e-7)
    assert (solution.latents["W+"]["w"] - best).abs().max() < 1e-3


def test_a_feature_takes_up_what_the_styles_cannot(linear):
    whole = Regions.uniform(1, linear.image_size, ("W+", "F2"), "F2")
    solution = solve(plain_problem(linear, ["W+", "F2"], regions=whole), BestSoFar(Adam(rate=0.1)), max_steps=400)
    assert solution.stats["loss"] < 1e-8
    half = halves(linear, 1, ("W+", "F2"))
    solution = solve(plain_problem(linear, ["W+", "F2"], regions=half), BestSoFar(Adam(rate=0.1)), max_steps=400)
    error = (solution.image - solution.target).square().mean(1, keepdim=True)
    assert error[half.full("F2")].max() < 1e-6
    assert error[half.full("W+")].mean() > 0.05


@pytest.mark.parametrize("name", ["W", "W+"])
def test_known_styles_are_found_again(generator, name):
    w = generator.mapping(generator.sample_z(2, seed=8))
    target = generator.synthesis(w)
    start = generator.mapping(generator.sample_z(2, seed=8) + 0.3 * generator.sample_z(2, seed=9))
    problem = toy_problem(generator, [name], target=target, styles=start, objective=L2_ONLY)
    first = problem.loss(problem.start())[0]
    solution = solve(problem, BestSoFar(Adam()), max_steps=200)
    assert (first > 0.03).all()
    assert (solution.stats["loss"] < 5e-3 * first).all()
    assert (solution.stats["psnr"] > 42).all()


def test_zero_steps_return_the_start(linear):
    y0 = perturbed(plain_problem(linear, ["W+", "F1"]))
    solver = PlateauStop(BestSoFar(Adam()))
    solution = solve(plain_problem(linear, ["W+", "F1"]), solver, y0, max_steps=0)
    assert same_latents(solution.latents, y0)
    assert solution.statuses == [Status.COMPLETED]
    assert solution.stats["steps"].tolist() == [0]


def test_one_step_is_a_step(linear):
    problem = plain_problem(linear)
    solution = solve(problem, BestSoFar(Adam(rate=0.01)), max_steps=1)
    assert not same_latents(solution.latents, problem.start())
    assert (solution.stats["loss"] < problem.loss(problem.start())[0]).all()


def test_the_same_problem_gives_the_same_bits(generator):
    problem = toy_problem(generator, ["W+", "F4", "N"], batch=2)
    solver = PlateauStop(BestSoFar(Adam()))
    first, second = (solve(problem, solver, max_steps=6) for _ in range(2))
    assert same_latents(first.latents, second.latents)
    assert all(torch.equal(value, second.stats[key]) for key, value in first.stats.items())


def test_random_noise_is_as_random_as_the_seed(generator):
    problem = replace(toy_problem(generator, ["W+"]), noise="random")

    def run(seed):
        torch.manual_seed(seed)
        return solve(problem, Adam(), max_steps=3).latents["W+"]["w"]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_a_solve_leaves_its_arguments_alone(linear):
    problem = plain_problem(linear, ["W+", "F1"])
    y0 = perturbed(problem)
    before = {s: {k: t.clone() for k, t in value.items()} for s, value in y0.items()}
    start = problem.start()
    solve(problem, Escalate(BestSoFar(Adam()), MSE(), torch.zeros(1, 8, 8, dtype=torch.int64), 0.0), y0, max_steps=9)
    assert same_latents(before, y0) and same_latents(start, problem.start())
    assert not problem.regions.labels.any() or problem.regions == plain_problem(linear, ["W+", "F1"]).regions


@pytest.mark.parametrize("steps", [-1, 1.5, 2.0, True, False, "3", None, math.nan])
def test_steps_that_are_no_count(linear, steps):
    with pytest.raises(InputError, match="steps must be a whole number from 0 up"):
        solve(plain_problem(linear), Adam(), max_steps=steps)


@pytest.mark.parametrize("rate", [0, 0.0, -0.1, math.nan, math.inf, True, "0.1", None])
def test_rates_that_are_none(rate):
    with pytest.raises(InputError, match="learning rate must be a positive number"):
        Adam(rate=rate)
    with pytest.raises(InputError, match="learning rate must be a positive number"):
        Adam(rates={"W+": 0.1, "F4": rate})


def test_starts_that_do_not_fit(linear):
    problem = plain_problem(linear, ["W+", "F1"])
    good = problem.start()
    for broken in (
        {},
        {"W+": good["W+"]},
        {**good, "F2": good["F1"]},
        {**good, "F1": {}},
        {**good, "W+": {"w": good["W+"]["w"].repeat(2, 1, 1)}},
    ):
        with pytest.raises(InputError, match=r"y0 does not fit at .*This problem has: W\+/w \[1, 3, 4\], F1/delta"):
            solve(problem, Adam(), broken, max_steps=1)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"target": torch.zeros(2, 3, 8, 9)}, "target must be"),
        ({"target": torch.zeros(2, 1, 8, 8)}, "target must be"),
        ({"target": torch.zeros(3, 8, 8)}, "target must be"),
        ({"styles": torch.zeros(1, 3, 4)}, r"styles must be \[2, 3, 4\]"),
        ({"styles": torch.zeros(2, 3, 5)}, r"styles must be \[2, 3, 4\]"),
        ({"regions": Regions.uniform(1, (8, 8), ("W+", "F1"), "W+")}, "regions are for 1 images"),
        ({"regions": Regions.uniform(2, (4, 4), ("W+", "F1"), "W+")}, "GivenRegions resizes"),
        ({"regions": Regions.uniform(2, (8, 8), ("W+",), "W+")}, "differ at F1"),
        ({"regions": Regions.uniform(2, (8, 8), ("W+", "F1", "F2"), "W+")}, "differ at F2"),
        ({"spaces": ()}, "exactly one style space"),
    ],
)
def test_parts_of_a_problem_that_do_not_fit(linear, change, words):
    problem = plain_problem(linear, ["W+", "F1"], count=2)
    with pytest.raises(InputError, match=words):
        replace(problem, **change)


def test_two_style_spaces_are_no_problem(linear):
    problem = plain_problem(linear)
    both = resolve_spaces(["W+"], linear) + resolve_spaces(["W"], linear)
    with pytest.raises(InputError, match="exactly one style space"):
        replace(problem, spaces=both)


def test_the_solution_of_a_bare_solve_can_be_edited_as_it_was_made(generator):
    """Edits need the options of the spaces, so a solve must write them down."""
    options = SpaceOptions(tap_point="block", skip="published")
    problem = toy_problem(generator, ["W+", "F4"], options=options)
    binary = Regions.uniform(1, (32, 32), ("W+", "F4"), "F4")
    solution = solve(replace(problem, regions=binary, noise="none"), Adam(), max_steps=3)
    assert solution.provenance["space_options"]["tap_point"] == "block"
    assert_close(solution.edit(torch.zeros(generator.style_dim), 0.0), solution.image, 1e-6)


@pytest.mark.parametrize("solver", [Adam(rate=0.1), BestSoFar(Adam(rate=0.1))])
def test_passing_idle_spaces_by_changes_no_bit(precise, solver):
    names = ["W+", "F2", "F4"]
    regions = halves(precise, 2, ["W+", "F2"])
    problem = toy_problem(precise, names, batch=2, regions=replace(regions, spaces=tuple(names)))
    assert problem.idle == {"F4"}
    evaluation = problem.evaluate(problem.start())
    assert set(evaluation.gradients) == {"W+", "F2"}
    # A start of their own, even if it is the same one, makes all spaces active.
    fast, slow = (solve(problem, solver, y0, max_steps=6) for y0 in (None, problem.start()))
    assert not fast.latents["F4"]["delta"].any() and fast.latents["F2"]["delta"].any()
    assert same_latents(fast.latents, slow.latents)
    assert torch.equal(fast.image, slow.image)
    assert all(torch.equal(fast.stats[name], slow.stats[name]) for name in slow.stats)


def test_a_space_is_idle_until_it_gets_its_first_pixel(linear):
    problem = plain_problem(linear, SPACES[:3], regions=Regions.uniform(1, (8, 8), SPACES[:3], "W+"))
    assert problem.idle == {"F0", "F1"}
    later = problem.with_regions(Regions.uniform(1, (8, 8), SPACES[:3], "F1"))
    assert later.idle == {"F0"}
    assert later.with_regions(problem.regions).idle == {"F0"}, "its delta may not be zero any more"
    assert replace(problem, warm=perturbed(problem), _start=None, _touched=None).idle == frozenset()
    parts = problem.evaluate(problem.start()).parts
    assert set(parts) == set(problem.loss(problem.start())[1])


def noisy(linear, **settings):
    """A descent so fast that the loss goes up and down."""
    return plain_problem(linear, count=3, **settings), Adam(rate=1.5, schedule=CONSTANT)


def test_best_so_far_is_never_above_anything_visited(linear):
    problem, adam = noisy(linear)
    track = Track()
    kept = solve(problem, BestSoFar(adam), max_steps=12, callback=track)
    last = solve(problem, adam, max_steps=12)
    visited = torch.stack([*track.losses, last.stats["loss"]])
    assert torch.equal(kept.stats["loss"], visited.amin(dim=0))
    assert (visited.diff(dim=0) > 0).any(), "the descent is not monotone"
    assert len({int(i) for i in visited.argmin(dim=0)} - {12}) > 0


def test_the_last_iterate_counts(linear):
    problem = plain_problem(linear)
    slow = Adam(rate=1e-3, schedule=CONSTANT)
    assert same_latents(
        solve(problem, BestSoFar(slow), max_steps=5).latents,
        solve(problem, slow, max_steps=5).latents,
    )


def test_best_so_far_begins_anew_when_regions_change(linear):
    """After a rebase the images that changed forget their best loss; the others keep it."""
    problem, adam = noisy(linear)
    solver = BestSoFar(adam)
    state = solver.init(problem, problem.start(), 10)
    state = solver.update(state, problem.evaluate(state.y))
    before = state.best_loss.clone()
    changed = torch.tensor([True, False, True])
    solver.rebase(state, problem, changed)
    assert torch.equal(state.best_loss.isinf(), changed)
    assert state.best_loss[1] == before[1]
    worse = problem.evaluate(perturbed(problem, 5.0))
    solver.update(state, worse)
    assert torch.equal(state.best_loss, torch.where(changed, worse.loss, before))


def test_a_plateau_ends_an_image_early(linear):
    problem = plain_problem(linear, count=2)
    solver = PlateauStop(BestSoFar(Adam(rate=0.1)), patience=10, tolerance=0.01)
    track = Track()
    solution = solve(problem, solver, max_steps=400, callback=track)
    assert solution.statuses == [Status.PLATEAU] * 2
    assert (solution.stats["steps"] < 300).all()
    assert len(track.losses) < 300
    # The ramp-down, a quarter of the run, is still taken.
    assert (solution.stats["steps"] > 100).all()
    full = solve(problem, BestSoFar(Adam(rate=0.1)), max_steps=400)
    assert full.stats["steps"].tolist() == [400, 400]
    assert_close(solution.stats["loss"], full.stats["loss"], 0.01)


def test_each_image_has_its_own_plateau(linear):
    """One picture that is solved at the start, and one far away."""
    target = torch.cat([linear.synthesis(linear.mapping(linear.sample_z(1, seed=3))), random_pictures(1)])
    styles = linear.mapping(torch.cat([linear.sample_z(1, seed=3), 9 * linear.sample_z(1, seed=4)]))
    problem = toy_problem(linear, ["W+"], target=target, styles=styles, objective=L2_ONLY)
    solution = solve(problem, PlateauStop(Adam(rate=0.02), patience=8), max_steps=60)
    assert solution.statuses == [Status.PLATEAU, Status.COMPLETED]
    first, second = solution.stats["steps"].tolist()
    assert first < second == 60


def test_a_plateau_in_the_ramp_down_shortens_nothing_and_is_none(linear):
    target = linear.synthesis(linear.mapping(linear.sample_z(1, seed=3)))
    problem = toy_problem(linear, ["W+"], target=target, objective=L2_ONLY)
    solution = solve(problem, PlateauStop(Adam(), patience=35), max_steps=40)
    assert solution.statuses == [Status.COMPLETED]
    assert solution.stats["steps"].tolist() == [40]


def test_plateau_stop_without_a_plateau_changes_nothing(linear):
    problem = plain_problem(linear, count=2)
    with_stop = solve(problem, PlateauStop(BestSoFar(Adam()), patience=100), max_steps=20)
    assert same_latents(with_stop.latents, solve(problem, BestSoFar(Adam()), max_steps=20).latents)


@pytest.mark.parametrize("wrap", [BestSoFar, lambda adam: PlateauStop(BestSoFar(adam)), lambda adam: adam])
def test_a_loss_that_is_not_a_number_ends_its_image_only(linear, wrap):
    def run(rows, nan_rows=()):
        problem = plain_problem(linear, ["W+", "F1"], count=3)
        problem = replace(
            problem,
            target=problem.target[rows],
            styles=problem.styles[rows],
            regions=problem.regions.select(rows),
            objective=Objective(SaysNan(nan_rows, call=6)),
            _prepared=None,
            _start=None,
        )
        track = Track()
        return solve(problem, wrap(Adam()), max_steps=12, callback=track), track

    solution, track = run([0, 1, 2], [1])
    assert solution.statuses == [Status.COMPLETED, Status.NON_FINITE, Status.COMPLETED]
    assert solution.stats["steps"].tolist() == [12, 6, 12]
    assert torch.isfinite(solution.image).all()
    for row in (0, 2):
        alone, _ = run([row])
        for space, value in alone.latents.items():
            for key, tensor in value.items():
                assert (solution.latents[space][key][row : row + 1] - tensor).abs().max() < 1e-12
        assert (alone.stats["loss"] - solution.stats["loss"][row]).abs() < 1e-12
    visited = torch.stack(track.losses[:6])[:, 1]
    assert torch.isfinite(visited).all() and track.losses[6][1] == math.inf
    if wrap is BestSoFar:
        assert_close(solution.stats["loss"][1], visited.min(), 1e-12)


def test_a_gradient_that_is_not_a_number_ends_its_image_too(linear):
    class RootError(MSE):
        """A loss that is fine at 0 and has no slope there."""

        def _score(self, image, prepared):
            return super()._score(image, prepared).sqrt()

    styles = linear.mapping(linear.sample_z(1, seed=3)).repeat(2, 1, 1)
    problem = toy_problem(linear, ["W+"], batch=2, styles=styles, objective=Objective(RootError()))
    target = torch.cat([problem.render(problem.start())[:1], random_pictures(1)])
    problem = replace(problem, target=target, _prepared=None)
    solution = solve(problem, BestSoFar(Adam()), max_steps=5)
    assert solution.statuses == [Status.NON_FINITE, Status.COMPLETED]
    assert torch.equal(solution.latents["W+"]["w"][:1], styles[:1])
    assert solution.stats["steps"].tolist() == [0, 5]


def test_all_images_lost_at_once_ends_the_solve(linear):
    track = Track()
    problem = replace(plain_problem(linear, count=2), objective=Objective(SaysNan([0, 1], call=0)), _prepared=None)
    start = problem.start()
    solution = solve(problem, BestSoFar(Adam()), max_steps=100, callback=track)
    assert solution.statuses == [Status.NON_FINITE] * 2
    assert same_latents(solution.latents, start)
    assert len(track.losses) <= 5


@pytest.mark.parametrize("at", [0, 7])
def test_an_interrupt_gives_the_best_so_far(linear, at):
    track = Track()

    def interrupt(index, state, evaluation):
        track(index, state, evaluation)
        if index == at:
            raise KeyboardInterrupt

    problem, adam = noisy(linear)
    solution = solve(problem, PlateauStop(BestSoFar(adam)), max_steps=50, callback=interrupt)
    assert solution.statuses == [Status.INTERRUPTED] * 3
    assert solution.stats["steps"].tolist() == [at + 1] * 3
    assert (solution.stats["loss"] <= torch.stack(track.losses).amin(0)).all()


def test_an_interrupt_leaves_finished_images_their_status(linear):
    problem = replace(plain_problem(linear, count=2), objective=Objective(SaysNan([1], call=1)), _prepared=None)

    def interrupt(index, state, evaluation):
        if index == 3:
            raise KeyboardInterrupt

    solution = solve(problem, BestSoFar(Adam()), max_steps=50, callback=interrupt)
    assert solution.statuses == [Status.INTERRUPTED, Status.NON_FINITE]


def test_other_exceptions_of_a_callback_come_through(linear):
    def fail(index, state, evaluation):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        solve(plain_problem(linear), Adam(), max_steps=2, callback=fail)


def test_progress_is_shown_with_loss_and_psnr(linear, capsys):
    solve(plain_problem(linear), Adam(), max_steps=10, progress=True)
    shown = capsys.readouterr().err
    assert "loss=" in shown and "psnr=" in shown and "10/10" in shown
    solve(plain_problem(linear), Adam(), max_steps=10)
    assert capsys.readouterr().err == ""


def published_rate(step, steps):
    t = step / steps
    return (0.5 - 0.5 * math.cos(math.pi * min(1, (1 - t) / 0.25))) * min(1, t / 0.05)


@pytest.mark.parametrize("steps", [1, 2, 10, 40, 1001])
def test_the_published_schedule(steps):
    clock = torch.arange(steps)
    factor = Schedule(first=0)(clock, steps)
    expected = torch.tensor([published_rate(step, steps) for step in range(steps)], dtype=torch.float64)
    assert factor[0] == 0
    assert (factor - expected).abs().max() < 1e-12


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 2000), st.floats(0, 0.9), st.floats(0, 0.9), st.integers(0, 1))
def test_any_schedule_rises_stays_and_falls(steps, up, down, first):
    schedule = Schedule(up, down, first)
    factor = schedule(torch.arange(steps), steps)
    assert ((factor >= 0) & (factor <= 1)).all()
    peak = int(factor.argmax())
    assert (factor[: peak + 1].diff() >= -1e-12).all() and (factor[peak:].diff() <= 1e-12).all()
    assert first == 0 or factor[0] > 0
    assert 0 <= schedule.descent(steps) <= steps


def test_clocks_of_a_schedule_are_per_image():
    factor = Schedule()(torch.tensor([0, 50, 99, 50]), 100)
    alone = [Schedule()(torch.tensor([step]), 100) for step in (0, 50, 99, 50)]
    assert torch.equal(factor, torch.cat(alone))


@pytest.mark.parametrize("names", [["W+"], ["W", "F4", "N"]])
@pytest.mark.parametrize("rates", [{}, {"W+": 0.01, "W": 0.02, "F": 0.3, "N": 0.1}])
def test_adam_is_the_adam_of_torch(precise, names, rates):
    problem = toy_problem(precise, names, objective=Objective(MSE()))
    solution = solve(problem, Adam(rate=0.07, rates=rates, schedule=CONSTANT, precondition=False), max_steps=8)
    y = problem.start()
    groups = [
        {"params": list(value.values()), "lr": rates.get(space, rates.get(space[0], 0.07))}
        for space, value in y.items()
    ]
    theirs = torch.optim.Adam(groups)
    for _ in range(8):
        for space, value in problem.evaluate(y).gradients.items():
            for key, gradient in value.items():
                y[space][key].grad = gradient
        theirs.step()
    for space, value in y.items():
        for key, tensor in value.items():
            assert (solution.latents[space][key] - tensor).abs().max() < 1e-10, f"{space}/{key}"


@pytest.mark.parametrize("principal", [False, True])
def test_preconditioned_steps_are_adam_in_whitened_coordinates(precise, principal):
    """w = B u: Adam on u, mapped back; and features in units of their channels."""
    problem = toy_problem(precise, ["W+", "F4"], objective=Objective(MSE()))
    solution = solve(problem, Adam(rate=0.05, schedule=CONSTANT, principal=principal), max_steps=5)
    basis = precise.style_axes() if principal else precise.statistics().factor_w
    start = problem.start()
    u = torch.linalg.solve(basis, start["W+"]["w"].transpose(1, 2)).transpose(1, 2).contiguous()
    unit = precise.feature_deviation("F4")[:, None, None]
    v = start["F4"]["delta"] / unit
    theirs = torch.optim.Adam([u, v], lr=0.05)
    for _ in range(5):
        gradients = problem.evaluate({"W+": {"w": u @ basis.t()}, "F4": {"delta": v * unit}}).gradients
        u.grad = gradients["W+"]["w"] @ basis
        # The solver scales the step, not the gradient; Adam does not see the difference but for its eps.
        v.grad = gradients["F4"]["delta"]
        theirs.step()
    assert (solution.latents["W+"]["w"] - u @ basis.t()).abs().max() < 1e-9
    assert (solution.latents["F4"]["delta"] - v * unit).abs().max() < 1e-9


# The objective.


def test_the_view_is_an_area_average(generator):
    image = random_pictures(2, 32)
    assert torch.equal(Objective(loss_size=32).view(image), image)
    assert torch.equal(Objective(loss_size=None).view(image), image)
    halved = Objective(loss_size=16).view(image)
    assert_close(halved, image.reshape(2, 3, 16, 2, 16, 2).mean((3, 5)), 1e-12)
    wide = Objective(loss_size=16).view(image[:, :, :24])
    assert wide.shape == (2, 3, 12, 16)


def test_clamping_is_the_published_choice_and_has_no_gradient_outside():
    image = torch.full((1, 3, 8, 8), 1.5, requires_grad=True)
    clamped = Objective(clamp=True)
    target = clamped.prepare(torch.zeros(1, 3, 8, 8))
    loss = clamped.reconstruction(image, target)["l2"]
    assert loss.item() == 1.0 and not torch.autograd.grad(loss, image)[0].any()
    assert Objective().reconstruction(image, target)["l2"].item() == 2.25


def test_the_total_is_the_weighted_sum_of_the_parts(generator):
    weights = {"l2": 2.0, "perceptual": 0.5, "prior": 1e-3, "deviation": 0.1, "feature": 1e-3, "noise": 0.7}
    weights["correlation"] = 0.2
    problem = toy_problem(generator, ["W+", "F4", "N"], batch=2, objective=Objective(MSE(), weights))
    total, parts = problem.loss(perturbed(problem))
    assert set(parts) == set(weights)
    assert_close(total, sum(weights[name] * value for name, value in parts.items()), 1e-6)
    assert torch.equal(parts["l2"], parts["perceptual"])


@pytest.mark.parametrize("left_out", ["l2", "perceptual", "prior", "feature"])
def test_a_part_without_weight_is_left_out(generator, left_out):
    weights = {name: weight for name, weight in PAPER_WEIGHTS.items() if name != left_out}
    problem = toy_problem(generator, ["W+", "F4"], objective=Objective(MSE(), weights))
    total, parts = problem.loss(perturbed(problem))
    counted = [name for name in parts if name != left_out]
    assert_close(total, sum(weights[name] * parts[name] for name in counted), 1e-6)
    assert left_out != "perceptual" or left_out not in parts


def test_the_perceptual_weight_weighs_the_metric(generator):
    def total(weight):
        problem = toy_problem(generator, ["W+"], objective=Objective(MSE(), {"l2": 1.0, "perceptual": weight}))
        return problem.loss(problem.start())[0]

    assert_close(total(3.0), 4 * total(0.0), 1e-6)


def test_published_and_paper_form_of_the_feature_term(generator):
    """Eq. 3.7: a sum of squares, or 5 times their mean."""
    assert PUBLISHED_WEIGHTS["feature"] == 5.0
    parts = {}
    for formulation in ("paper", "published"):
        options = SpaceOptions(formulation=formulation, whiten_features=False)
        problem = toy_problem(generator, ["W+", "F4"], options=options)
        y = perturbed(problem)
        parts[formulation] = problem.loss(y)[1]["feature"]
    delta = y["F4"]["delta"]
    assert_close(parts["paper"], delta.square().sum((1, 2, 3)), 1e-5)
    assert_close(parts["published"], delta.square().mean((1, 2, 3)), 1e-5)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_that_are_none(weight):
    with pytest.raises(InputError, match="weight of 'l2' must be a number from 0 up"):
        Objective(weights={"l2": weight})


def test_the_parts_of_the_result_are_in_its_numbers(linear):
    problem: Problem = plain_problem(linear, ["W+", "F1"], count=2)
    solution = solve(problem, BestSoFar(Adam()), max_steps=3)
    total, parts = problem.loss(solution.latents)
    assert torch.equal(solution.stats["loss"], total)
    assert all(torch.equal(solution.stats[f"loss/{name}"], value) for name, value in parts.items())
    error = (solution.image - problem.target).square().mean((1, 2, 3))
    assert_close(solution.stats["psnr"], 10 * torch.log10(4 / error), 1e-12)
    assert all(value.shape == (2,) for value in solution.stats.values())
