"""Features of half precision: how far gradients are off, and that nothing is lost where the range is too narrow."""

from __future__ import annotations

import pytest
import torch
from toys import LinearGenerator, halves, toy_problem, toy_stylegan2

import saminv
from saminv import InputError, Status
from saminv._types import flatten
from saminv.metrics import MultiScale, get_metric
from saminv.metrics.pixel import MSE
from saminv.optim import Adam, BestSoFar, Objective, PlateauStop, solve
from saminv.optim.precision import FULL, PRECISIONS, Precision, find_precision
from saminv.optim.slots import Slots

GRADIENT_ERROR = {"fp16": 0.02, "bf16": 0.08}
"""Norm of the difference from float32, relative; TF32 has about 0.015 on W+ by the same measure."""
HALF = tuple(GRADIENT_ERROR)


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def problem(generator):
    spaces = ["W+", "F4", "P"]
    objective = Objective(get_metric("demo"), losses={"three": MultiScale("demo", 2)})
    return toy_problem(generator, spaces, batch=2, regions=halves(generator, 2, spaces[:2]), objective=objective)


@pytest.mark.parametrize("name", HALF)
def test_gradients_by_half_precision(problem, name):
    full, half = problem.evaluate(problem.start()), problem.evaluate(problem.start(), PRECISIONS[name])
    assert half.image.dtype is half.loss.dtype is torch.float32
    assert not torch.equal(half.image, full.image), "the features are of another type"
    torch.testing.assert_close(half.loss, full.loss, rtol=0.02, atol=0)
    for key, expected in flatten(full.gradients).items():
        found = flatten(half.gradients)[key]
        assert found.dtype is torch.float32
        assert float((found - expected).norm() / expected.norm()) < GRADIENT_ERROR[name], key


@pytest.mark.parametrize("settings", [{"architecture": "resnet"}, {"architecture": "orig"}, {"clamp": 1.0}])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_architecture_has_features_of_half_precision(settings, dtype):
    generator = toy_stylegan2(**settings)
    styles = generator.mapping(generator.sample_z(2, seed=0))
    site = generator.feature_sites[-2]
    full = generator.synthesis(styles, until=[site, "image"])
    half = generator.synthesis(styles, until=[site, "image"], dtype=dtype)
    for name in full:
        assert half[name].dtype is torch.float32
        error = float((half[name] - full[name]).abs().max() / full[name].abs().max())
        assert 0 < error < (0.01 if dtype is torch.float16 else 0.06), name


def test_large_styles_do_not_overflow(generator):
    """Float16 ends at 65504; the factors that it sees are near 1 whatever the styles are."""
    styles = 1e6 * generator.mapping(generator.sample_z(1, seed=0))
    with torch.no_grad():
        full, half = generator.synthesis(styles), generator.synthesis(styles, dtype=torch.float16)
    assert torch.isfinite(full).all()
    features = generator.synthesis(styles, until="F4", dtype=torch.float16)["F4"]
    assert torch.isfinite(features).all()
    assert half.shape == full.shape


def test_the_last_steps_have_full_precision(problem, monkeypatch):
    seen = []
    evaluate = type(problem).evaluate

    def watch(self, y, precision=FULL):
        seen.append(precision.features)
        return evaluate(self, y, precision)

    monkeypatch.setattr(type(problem), "evaluate", watch)
    solution = solve(problem, BestSoFar(Adam()), max_steps=20, precision=PRECISIONS["fp16"])
    assert seen == [torch.float16] * 18 + [None] * 2
    assert solution.stats["steps"].tolist() == [20, 20]


def test_losses_of_half_precision_are_forgotten_where_it_ends(problem):
    """A loss that half precision made too small would otherwise keep the iterate that it belongs to."""
    slots = Slots(BestSoFar(Adam()), 10, PRECISIONS["bf16"])
    slots.enter(problem, "ab")
    for _ in range(8):
        slots.step()
    slots.state.best_loss.fill_(0.0)
    slots.step()
    assert torch.isinf(slots.state.best_loss).all(), "the tenth step is the first of full precision"
    slots.step()
    assert all(float(solution.stats["loss"]) > 0 for _, solution in slots.leave())


class TooNarrow(MSE):
    """Squared error that overflows in half precision from some step on, for the first image."""

    def __init__(self, step):
        super().__init__()
        self.step, self.calls = step, 0

    def with_features(self, dtype):
        return _Overflows(self)


class _Overflows(MSE):
    def __init__(self, owner):
        super().__init__()
        self.owner = [owner]

    def _score(self, image, prepared):
        [owner] = self.owner
        owner.calls += 1
        score = super()._score(image, prepared)
        return score + torch.where(torch.arange(len(score)) == 0, torch.inf, 0.0) if owner.calls > owner.step else score


def test_a_step_that_half_precision_spoils_is_taken_again(generator):
    spaces, metric = ["W+", "F4"], TooNarrow(3)
    problem = toy_problem(generator, spaces, batch=2, regions=halves(generator, 2, spaces), objective=Objective(metric))
    seen = []

    def watch(step, state, evaluation):
        seen.append(torch.isfinite(evaluation.loss).tolist())

    solution = solve(
        problem, PlateauStop(BestSoFar(Adam())), max_steps=12, precision=PRECISIONS["fp16"], callback=watch
    )
    assert solution.statuses == [Status.COMPLETED, Status.COMPLETED]
    assert solution.stats["steps"].tolist() == [12, 12]
    assert metric.calls == 4, "from there on all steps of the batch have full precision"
    assert [row for row, (first, second) in enumerate(seen) if not first] == [3] and all(second for _, second in seen)
    assert len(seen) == 13, "one step was taken twice by the first image"
    assert (solution.stats["psnr"] > 10).all()


def test_half_precision_ends_where_full_precision_does(generator):
    spaces = ["W+", "F4"]
    problem = toy_problem(generator, spaces, batch=2, regions=halves(generator, 2, spaces))
    found = {
        name: solve(problem, BestSoFar(Adam()), max_steps=60, precision=PRECISIONS[name]) for name in ("fp32", *HALF)
    }
    for name in HALF:
        assert (found[name].stats["psnr"] - found["fp32"].stats["psnr"]).abs().max() < 0.5, name


def test_which_precision_a_name_is(generator):
    assert find_precision("auto", generator) == FULL
    assert find_precision("bf16", generator).features is torch.bfloat16
    assert find_precision("tf32", generator).tf32 and find_precision("tf32", generator).features is None
    assert PRECISIONS["fp16"].full == Precision("fp16", None, True)
    with pytest.raises(InputError, match=r"precision='half' is unknown; use 'auto', 'fp32', 'tf32', 'fp16', 'bf16'\."):
        find_precision("half", generator)
    with pytest.raises(InputError, match="LinearGenerator is for 'fp32' and 'tf32'"):
        find_precision("fp16", LinearGenerator())


def test_the_scale_of_gradients_suits_the_picture():
    fp16 = PRECISIONS["fp16"]
    assert fp16.gradient_scale(3 * 256 * 256) == 2.0**12
    assert PRECISIONS["bf16"].gradient_scale(3 * 256 * 256) == FULL.gradient_scale(3 * 256 * 256) == 1.0


def test_the_front_door(generator):
    image = generator.synthesis(generator.mapping(generator.sample_z(1, seed=3))).clamp(-1, 1)
    plain = {"generator": generator, "metric": "mse", "encoder": "mean", "steps": 4, "segmenter": "none"}
    solution = saminv.invert(image, ["W+"], precision="bf16", **plain)
    assert solution.provenance["precision"] == "bf16"
    assert saminv.invert(image, ["W+"], **plain).provenance["precision"] == "fp32"
    with pytest.raises(InputError, match="graph must be one of"):
        saminv.invert(image, ["W+"], graph="maybe", **plain)
