"""The generator's weights as a space, spaces that are frozen, and a size of the loss at which a picture is done."""

from __future__ import annotations

import copy

import pytest
import torch
from toys import L2_ONLY, random_pictures, same_latents, toy_problem, toy_stylegan2

import saminv
from saminv import InputError, Status
from saminv._arguments import DEFAULT_WEIGHT_RATE
from saminv.generators._base import WEIGHTS
from saminv.optim import Adam, BestSoFar, Objective, StopAt, solve
from saminv.sites import Add, Replace, Taps
from saminv.spaces import make_space
from saminv.spaces._base import SpaceOptions
from saminv.spaces.noise import correlation

pytestmark = pytest.mark.filterwarnings("ignore:.*looks far from what the generator makes")


@pytest.fixture(scope="module")
def toy():
    return toy_stylegan2(torch.float64)


@pytest.fixture(scope="module")
def styles(toy):
    return toy.mapping(toy.sample_z(3, seed=5))


@pytest.fixture
def quick(toy):
    """A short inversion into a toy by squared error."""
    settings = {"generator": toy_stylegan2(), "metric": "mse", "segmenter": "none", "steps": 20}
    return lambda pictures, *args, **more: saminv.invert(pictures, *args, **{**settings, **more})


class TestSite:
    """A synthesis by weights of each image's own."""

    def test_the_row_holds_all_weights_of_the_synthesis(self, toy):
        assert toy.site(WEIGHTS).kind == "weight"
        count = sum(x.numel() for name, x in toy.named_parameters() if not name.startswith("mapping_network"))
        assert toy.site(WEIGHTS).shape == (count,)

    def test_each_image_is_made_by_its_own_generator(self, toy, styles):
        delta = 0.05 * torch.randn(3, *toy.site(WEIGHTS).shape, dtype=torch.float64)
        found = toy.synthesis(styles, [Add(WEIGHTS, delta)])
        for row in range(3):
            other, offset = copy.deepcopy(toy), 0
            for name, shape in toy.tunable.items():
                part = delta[row, offset : offset + shape.numel()].view(shape)
                other.get_parameter(name).data += part
                offset += shape.numel()
            torch.testing.assert_close(found[row : row + 1], other.synthesis(styles[row : row + 1]))
        assert not torch.allclose(found, toy.synthesis(styles))

    def test_zero_is_the_generator_itself(self, toy, styles):
        zero = torch.zeros(3, *toy.site(WEIGHTS).shape, dtype=torch.float64)
        torch.testing.assert_close(toy.synthesis(styles, [Add(WEIGHTS, zero)]), toy.synthesis(styles))

    def test_other_taps_and_features(self, toy, styles):
        """Taps of a batch go to the image that they are for; what they share is shared."""
        delta = 0.05 * torch.randn(3, *toy.site(WEIGHTS).shape, dtype=torch.float64)
        shape = toy.site("F2").shape
        change = [Add("F2", torch.randn(3, *shape, dtype=torch.float64)), Replace("styles", styles)]
        common = [Replace("noise1", torch.randn(1, 1, 8, 8, dtype=torch.float64))]
        found = toy.synthesis(styles[:1], [*change, *common, Add(WEIGHTS, delta)], until=["F3", "image"])
        assert set(found) == {"F3", "image"} and len(found["image"]) == 3
        for row in range(3):
            one = slice(row, row + 1)
            own = [Add("F2", change[0].delta[one]), Replace("styles", styles[one]), Add(WEIGHTS, delta[one])]
            single = toy.synthesis(styles[:1], [*own, *common], until=["F3", "image"])
            for name, x in single.items():
                torch.testing.assert_close(x, found[name][one])

    def test_gradients(self):
        toy = toy_stylegan2(torch.float64, resolution=8, channel_base=16, channel_max=2, w_dim=3, z_dim=3)
        styles = toy.mapping(toy.sample_z(2, seed=1))
        delta = 0.1 * torch.randn(2, *toy.site(WEIGHTS).shape, dtype=torch.float64)
        assert torch.autograd.gradcheck(
            lambda d: toy.synthesis(styles, [Add(WEIGHTS, d)]).square().mean(dim=(1, 2, 3)), delta.requires_grad_()
        )

    def test_the_generator_remembers_nothing(self, toy, styles):
        """What is kept of a frozen weight is not taken for what belongs to another one that lies at the same place."""
        before = toy.synthesis(styles)
        with torch.no_grad():
            for seed in range(3):
                torch.manual_seed(seed)
                delta = torch.randn(3, *toy.site(WEIGHTS).shape, dtype=torch.float64)
                first = toy.synthesis(styles, [Add(WEIGHTS, delta)])
                assert torch.equal(first, toy.synthesis(styles, [Add(WEIGHTS, delta)]))
        assert torch.equal(before, toy.synthesis(styles))

    def test_other_taps_than_sums_are_refused(self, toy, styles):
        row = torch.zeros(3, *toy.site(WEIGHTS).shape, dtype=torch.float64)
        for taps in ([Replace(WEIGHTS, row)], [Add(WEIGHTS, row), Add(WEIGHTS, row)], [Add(WEIGHTS, row, row)]):
            with pytest.raises(InputError, match="one change that is added"):
                toy.synthesis(styles, taps)
        assert WEIGHTS not in Taps([Add(WEIGHTS, row)]).without(WEIGHTS, 0)


class TestSpace:
    """G as a variable of an inversion."""

    def test_it_moves_the_weights_around_a_pivot(self, toy):
        problem = toy_problem(toy, ["W", "G"], batch=2, objective=L2_ONLY)
        pivot = solve(toy_problem(toy, ["W"], batch=2, objective=L2_ONLY), Adam(rate=0.05), max_steps=60)
        y0 = {**problem.start(), **pivot.latents}
        frozen = toy_problem(toy, ["W", "G"], batch=2, objective=L2_ONLY, frozen={"W"})
        tuned = solve(frozen, BestSoFar(Adam(rate=1e-3)), y0, max_steps=60)
        assert same_latents({"W": tuned.latents["W"]}, pivot.latents)
        assert (tuned.stats["psnr"] > pivot.stats["psnr"] + 3).all()
        assert tuned.latents["G"]["delta"].abs().amax() < 0.1
        torch.testing.assert_close(frozen.render(tuned.latents), tuned.image)

    def test_an_image_does_not_depend_on_its_batch(self, toy):
        problem = toy_problem(toy, ["W", "G"], batch=3, objective=L2_ONLY)
        whole = solve(problem, Adam(rate=1e-3), max_steps=4)
        alone = solve(problem.select(torch.tensor([1])), Adam(rate=1e-3), max_steps=4)
        for space in ("W", "G"):
            for key, tensor in alone.latents[space].items():
                torch.testing.assert_close(tensor[0], whole.latents[space][key][1])

    def test_its_usual_rate_is_that_of_pivotal_tuning(self, quick):
        recipe = saminv._arguments.make_recipe(["W", "G"], generator=toy_stylegan2(), metric="mse", segmenter="none")
        assert recipe.descent.rates["G"] == DEFAULT_WEIGHT_RATE == 3e-4

    def test_solutions_edit_and_load(self, quick, tmp_path):
        solution = quick(random_pictures(2), ["W", "G"], rates={"G": 1e-3})
        loaded = saminv.Solution.load(solution.save(tmp_path / "tuned.safetensors"), generator=solution.generator)
        torch.testing.assert_close(loaded.edit(torch.zeros(12)), solution.image)
        assert not torch.allclose(loaded.edit(torch.ones(12)), solution.image)

    def test_locality_holds_what_is_near_the_pivot(self, toy):
        found = {}
        for weight in (0.0, 10.0):
            objective = Objective(weights={"l2": 1.0, "locality": weight})
            problem = toy_problem(toy, ["W", "G"], batch=2, objective=objective, frozen={"W"})
            parts = problem.loss(problem.start())[1]
            assert ("locality" in parts) == bool(weight)
            solution = solve(problem, Adam(rate=1e-3), max_steps=40)
            anchors = make_space("G", toy, SpaceOptions()).anchors(toy, problem.styles)
            moved = toy.synthesis(anchors, [Add(WEIGHTS, solution.latents["G"]["delta"])]) - toy.synthesis(anchors)
            found[weight] = moved.square().mean(dim=(1, 2, 3))
            if weight:
                assert (parts["locality"] < 1e-20).all(), "nothing has moved yet"
                torch.testing.assert_close(problem.loss(solution.latents)[1]["locality"], found[weight])
        assert (found[10.0] < 0.5 * found[0.0]).all()

    def test_anchors_are_as_far_as_samples_are_from_the_mean(self, toy):
        styles = toy.mapping(toy.sample_z(4, seed=9))
        space = make_space("G", toy, SpaceOptions())
        distance = (space.anchors(toy, styles) - styles).square().sum(dim=2).sqrt()
        samples = toy.mapping(toy.sample_z(2000, seed=0))[:, 0]
        typical = (samples - samples.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        torch.testing.assert_close(distance, typical.expand_as(distance), rtol=0.05, atol=0)


class TestFrozen:
    """Spaces that stay where they start."""

    def test_they_have_no_gradient_and_do_not_move(self, toy):
        problem = toy_problem(toy, ["W+", "F2"], batch=2, frozen={"W+"})
        assert set(problem.evaluate(problem.start()).gradients) == {"F2"}
        solution = solve(problem, BestSoFar(Adam(rate=0.1)), max_steps=5)
        assert same_latents({"W+": problem.start()["W+"]}, {"W+": solution.latents["W+"]})
        assert not same_latents({"F2": problem.start()["F2"]}, {"F2": solution.latents["F2"]})

    @pytest.mark.parametrize("solver", ["adam", "coarse-to-fine", "lbfgs", "adam-lbfgs"])
    def test_by_every_solver(self, quick, solver):
        pictures = random_pictures(1)
        start = quick(pictures, ["W+"], steps=0)
        found = quick(pictures, ["W+", "F2"], encoder=start, frozen=["W+"], solver=solver, invertibility="measured")
        assert torch.equal(found.latents["W+"]["w"], start.latents["W+"]["w"])

    @pytest.mark.parametrize("frozen", [["F9"], ["W+", "F2"], "W+", 3])
    def test_what_cannot_be(self, quick, frozen):
        with pytest.raises(InputError, match=r"frozen must name some of the spaces W\+, F2"):
            quick(random_pictures(1), ["W+", "F2"], frozen=frozen)


class TestStopAt:
    """A size of the loss at which a picture is done."""

    def test_a_picture_ends_where_it_is_small_enough(self, toy):
        problem = toy_problem(toy, ["W+"], batch=2, objective=L2_ONLY)
        free = solve(problem, BestSoFar(Adam(rate=0.05)), max_steps=60)
        goal = 4 * float(free.stats["loss"].min())
        found = solve(problem, StopAt(BestSoFar(Adam(rate=0.05)), "l2", goal), max_steps=60)
        assert Status.REACHED in found.statuses
        for row, status in enumerate(found.statuses):
            assert (status is Status.REACHED) == bool(found.stats["loss"][row] <= goal)

    def test_it_returns_what_was_looked_at(self, toy):
        problem = toy_problem(toy, ["W+"], batch=2, objective=L2_ONLY)
        at_once = solve(problem, StopAt(BestSoFar(Adam(rate=0.05)), "l2", 100.0), max_steps=10)
        assert at_once.statuses == [Status.REACHED] * 2
        assert same_latents(problem.start(), at_once.latents)

    def test_by_name(self, quick):
        found = quick(random_pictures(1), ["W+"], stop_at={"l2": 100.0})
        assert found.statuses == [Status.REACHED] and "asked for" in found.statuses[0].sentence

    @pytest.mark.parametrize("given", [{"l2": -1.0}, {"l2": float("nan")}, {"l2": "small"}, {"l2": True}])
    def test_sizes_that_are_none(self, quick, given):
        with pytest.raises(InputError, match="number from 0 up"):
            quick(random_pictures(1), ["W+"], stop_at=given)

    def test_unknown_parts(self, quick):
        with pytest.raises(InputError, match=r"no part .likeness.\. It has: l2"):
            quick(random_pictures(1), ["W+"], stop_at={"likeness": 1.0})
        with pytest.raises(InputError, match="must map parts"):
            quick(random_pictures(1), ["W+"], stop_at=0.06)


class TestCorrelation:
    """How far noise is from white."""

    def test_white_noise_has_little_and_a_wave_has_much(self):
        torch.manual_seed(0)
        white = torch.randn(4, 1, 32, 32, dtype=torch.float64)
        wave = torch.sin(torch.arange(32, dtype=torch.float64) / 5).expand(1, 1, 32, 32) * 2**0.5
        assert (correlation(white) < 0.5).all() and correlation(wave) > 1

    def test_by_hand(self):
        maps = torch.randn(2, 1, 16, 16, dtype=torch.float64)
        half = 2 * maps.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
        expected = sum(
            (x * torch.cat([x.narrow(axis, -1 % x.shape[axis], 1), x.narrow(axis, 0, x.shape[axis] - 1)], axis))
            .mean(dim=(1, 2, 3))
            .square()
            for x in (maps, half)
            for axis in (2, 3)
        )
        torch.testing.assert_close(correlation(maps), expected)
