"""The published SAM code, number by number: image formation, edits, priors and the optimisation itself."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import assert_close, golden, relative_difference
from test_stylegan2 import config_of

from saminv.checkpoints import stylegan2_from_nvlabs
from saminv.editing.apply import render_edit
from saminv.generators import LatentStatistics
from saminv.generators._base import STATISTICS_SAMPLES
from saminv.images import from_uint8
from saminv.optim import Adam, Objective, Problem, Schedule, solve
from saminv.optim.objective import PUBLISHED_WEIGHTS
from saminv.regions import Regions
from saminv.segment import Segments, allocate
from saminv.sites import Add, Replace
from saminv.spaces import resolve_spaces
from saminv.spaces._base import SpaceOptions
from saminv.spaces.priors import deviation, gaussian_prior

FEATURES = ("F4", "F6", "F8", "F10")
PUBLISHED = SpaceOptions(formulation="published", tap_point="block", skip="published", whiten_features=False)


@pytest.fixture(scope="module")
def generator():
    data = golden("sam_generator256")
    return stylegan2_from_nvlabs(data.under("state/"), config_of(data.meta))


@pytest.fixture(scope="module")
def forward():
    return golden("sam_forward")


def published_taps(data, gradient=False, dtype=torch.float32):
    """Deltas added after the blocks, under the stored masks."""
    deltas = {f: data[f"in/latent/{f}"].to(dtype).requires_grad_(gradient) for f in FEATURES}
    return deltas, [Add(f"{f}.block", deltas[f], data[f"in/mask/{f}"].to(dtype)) for f in FEATURES]


class StoredRegions(Regions):
    """Regions whose masks are the soft masks of the golden file, whatever the labels."""

    stored: dict

    def mask(self, space, site):
        return self.stored[space]


def stored_regions(data) -> Regions:
    regions = StoredRegions(torch.zeros(1, 256, 256, dtype=torch.long), ("W+", *FEATURES), "published")
    object.__setattr__(regions, "stored", {f: data[f"in/mask/{f}"] for f in FEATURES})
    return regions


def test_generator_itself(generator):
    data = golden("sam_generator256")
    styles = generator.mapping(data["in/z"])
    assert_close(styles, data["map/ws"], 1e-5)
    assert_close(generator.synthesis(styles), data["syn_ws/img_const"], 1e-5)


def test_joint_image(generator, forward):
    _, taps = published_taps(forward)
    assert_close(generator.synthesis(forward["in/latent/W+"], taps), forward["joint/img"], 1e-5)


def test_joint_gradients(generator, forward):
    # In float32 a value next to 0 falls onto one side or the other of a leaky ReLU, by the processor's order of sums.
    exact = copy.deepcopy(generator).double()
    styles = forward["in/latent/W+"].double().requires_grad_()
    deltas, taps = published_taps(forward, gradient=True, dtype=torch.float64)
    loss = 500 * exact.synthesis(styles, taps).square().mean()
    gradients = torch.autograd.grad(loss, [styles, *deltas.values()])
    for name, gradient in zip(("W+", *FEATURES), gradients):
        assert_close(gradient, forward[f"joint/grad/{name}"], 3e-5, name)


@pytest.mark.parametrize("space", ["W+", *FEATURES])
def test_single_spaces(generator, forward, space):
    taps = [] if space == "W+" else [Add(f"{space}.block", forward[f"in/latent/{space}"])]
    image = generator.synthesis(forward["in/latent/W+"], taps)
    assert_close(image, golden("sam_single")[f"single/{space}"], 1e-5)


def test_random_noise_as_published(generator, forward):
    data = golden("sam_random_noise")
    noise = [Replace(f"noise{i}", data[f"noise_draw{i:02d}"]) for i in range(13)]
    image = generator.synthesis(forward["in/latent/W+"], [*published_taps(forward)[1], *noise])
    assert_close(image, data["img"], 1e-5)


@pytest.mark.parametrize("feature", FEATURES)
def test_partial_forward(generator, forward, feature):
    site = f"{feature}.block"
    found = generator.synthesis(forward["in/latent/W+"], published_taps(forward)[1], until=site)
    assert_close(found[site], golden("sam_edit")[f"partial/{feature}"], 1e-5)


@pytest.mark.parametrize("key, strength", [("edit/img", 1.0), ("edit/img_zero_dir", 0.0)])
def test_published_edit(generator, forward, key, strength):
    spaces = resolve_spaces(["W+", *FEATURES], generator, PUBLISHED)
    latents = {"W+": {"w": forward["in/latent/W+"]}} | {f: {"delta": forward[f"in/latent/{f}"]} for f in FEATURES}
    change = strength * forward["in/edit_dir"]
    image = render_edit(generator, spaces, latents, stored_regions(forward), change)
    assert_close(image, golden("sam_edit")[key], 1e-5)


@pytest.mark.parametrize("tap_point", ["layer", "block"])
def test_our_edit_of_strength_zero_is_the_reconstruction_with_soft_masks(generator, forward, tap_point):
    spaces = resolve_spaces(["W+", *FEATURES], generator, SpaceOptions(tap_point=tap_point))
    latents = {"W+": {"w": forward["in/latent/W+"]}} | {f: {"delta": forward[f"in/latent/{f}"]} for f in FEATURES}
    regions = stored_regions(forward)
    taps = [t for s in spaces[1:] for t in s.bind(generator, latents[s.name], regions.mask(s.name, None))]
    reconstruction = generator.synthesis(forward["in/latent/W+"], taps)
    edited = render_edit(generator, spaces, latents, regions, torch.zeros_like(forward["in/edit_dir"]))
    assert_close(edited, reconstruction, 1e-5)
    published = golden("sam_edit")["edit/img_zero_dir"]
    assert relative_difference(published, forward["joint/img"]) > 0.05, "the published zero edit is off"


@pytest.fixture(scope="module")
def stored_statistics(generator):
    data = golden("sam_mvg")
    zeros = torch.zeros(64, 64, dtype=torch.float64)
    return LatentStatistics(
        mean_w=data["stats/mean_w"],
        mean_v=data["stats/mean_v"],
        mean_v_published=data["stats/mean_v"],
        inverse_covariance_w=data["stats/inv_cov_w"],
        inverse_covariance_v=data["stats/inv_cov_v"],
        precision_v=zeros,
        factor_w=zeros,
    )


def test_statistics_from_scratch(generator, stored_statistics):
    samples = generator.mapping(golden("sam_mvg")["in/z_samples"])[:, 0]
    statistics = LatentStatistics.from_samples(samples)
    assert_close(statistics.mean_w, stored_statistics.mean_w, 2e-6)
    assert_close(statistics.mean_v_published, stored_statistics.mean_v, 2e-6)
    assert_close(statistics.inverse_covariance_v, stored_statistics.inverse_covariance_v, 1e-4)
    assert_close(statistics.inverse_covariance_w, stored_statistics.inverse_covariance_w, 1e-4)


def test_gaussian_prior_and_its_gradient(stored_statistics):
    data = golden("sam_mvg")
    styles = data["in/wplus"].requires_grad_()
    prior = gaussian_prior(styles, stored_statistics, "published")
    assert_close(prior, data["compute_mvg/W+"].reshape(1), 1e-9)
    (gradient,) = torch.autograd.grad(prior.sum(), styles)
    assert_close(gradient, data["compute_mvg/grad_W+"], 1e-5)
    batch = gaussian_prior(data["in/wplus_batch"], stored_statistics, "published")
    assert_close(batch.mean(), data["b_compute_mvg/W+"], 1e-9)


def test_paper_prior_is_centred_on_the_mean_of_the_gaussianised_w(generator):
    w = generator.mapping(generator.sample_z(2000, seed=3))
    statistics = generator.statistics()
    paper = gaussian_prior(w, statistics, "paper").mean() / generator.num_styles
    published = gaussian_prior(w, statistics, "published").mean() / generator.num_styles
    # The mean squared Mahalanobis distance of samples is the trace, and smallest from their own mean.
    expected = torch.linalg.solve(statistics.inverse_covariance_v, statistics.precision_v).trace()
    assert abs(float(paper) - float(expected)) < 2.0
    assert 0.9 * generator.style_dim < float(expected) < generator.style_dim
    assert float(published) > float(paper)


@pytest.mark.parametrize("case, styles", [("batch3", "in/wplus_batch"), ("W+", "in/wplus")])
def test_deviation_as_published(case, styles):
    data = golden("sam_mvg")
    w = data[styles].requires_grad_()
    loss = deviation(w, "published").mean()
    assert_close(loss, data[f"delta_loss/{case}"], 1e-6)
    (gradient,) = torch.autograd.grad(loss, w)
    assert_close(gradient, data[f"delta_loss/grad_{case}"], 1e-5)


def test_deviation_of_identical_styles_has_zero_gradient():
    w = torch.ones(1, 14, 64).requires_grad_()
    loss = deviation(w, "published")
    (gradient,) = torch.autograd.grad(loss.sum(), w)
    assert float(loss.detach()) == 0 and not bool(gradient.any())


def test_paper_deviation_is_the_sum_of_squared_norms():
    w = golden("sam_mvg")["in/wplus_batch"]
    expected = sum((w[:, n] - w[:, 0]).norm(dim=1) ** 2 for n in range(1, w.shape[1]))
    assert_close(deviation(w, "paper"), expected, 1e-6)


def published_problem(generator, statistics, dtype) -> tuple[Problem, Adam]:
    """The problem of the published script, with its perceptual weight set to 0 as in the golden run."""
    generator = copy.deepcopy(generator).to(dtype)
    generator._statistics = {(None, STATISTICS_SAMPLES): statistics}
    data = golden("sam_optim")
    error = {name: data[f"in/invmap/{name}"] for name in ("W+", *FEATURES)}
    segments = Segments(data["in/segments"][None])
    regions = allocate(error, segments, ["W+", *FEATURES], 0.225, formulation="published")
    objective = Objective(weights=PUBLISHED_WEIGHTS | {"perceptual": 0.0}, loss_size=256, clamp=True)
    problem = Problem(
        generator=generator,
        target=from_uint8(data["in/target_uint8"].numpy()).to(dtype),
        styles=data["in/w_init"].to(dtype),
        spaces=resolve_spaces(["W+", *FEATURES], generator, PUBLISHED),
        regions=regions,
        objective=objective,
    )
    return problem, Adam(schedule=Schedule(first=0), precondition=False)


# Float64 shows that the arithmetic is the same. In float32 rounding decides at the end of the schedule of 10: a
# gradient passes through zero, where Adam turns rounding into whole steps, so the losses of its last two steps are left
# to float64.
@pytest.mark.parametrize(
    "dtype, steps, losses, loss_tolerance, styles_tolerance, feature_tolerance",
    [
        (torch.float64, 2, 2, 2e-6, 1e-6, 1e-4),
        (torch.float64, 10, 10, 2e-6, 5e-5, 2e-3),
        (torch.float64, 40, 40, 2e-6, 5e-5, 2e-3),
        (torch.float32, 2, 2, 1e-5, 1e-6, 1e-4),
        (torch.float32, 10, 8, 1e-5, 2e-4, 2e-3),
        (torch.float32, 40, 40, 1e-5, 2e-4, 2e-3),
    ],
)
def test_optimisation_follows_the_published_script(
    generator, stored_statistics, dtype, steps, losses, loss_tolerance, styles_tolerance, feature_tolerance
):
    data = golden("sam_optim")
    problem, solver = published_problem(generator, stored_statistics, dtype)
    seen: dict[str, list] = {"l2": [], "prior": [], "deviation": [], "feature": [], "image": []}

    def watch(step, state, evaluation):
        for name in ("l2", "prior", "deviation", "feature"):
            seen[name].append(float(evaluation.parts[name]))
        seen["image"] = [evaluation.image]

    solution = solve(problem, solver, max_steps=steps, callback=watch)
    expected = data[f"N{steps}/mse_per_step"][:losses]
    assert_close(torch.tensor(seen["l2"])[:losses], expected, loss_tolerance, "squared error of each step")
    assert (solution.latents["W+"]["w"] - data[f"N{steps}/latent/W+"]).abs().max() < styles_tolerance
    for feature in FEATURES:
        if f"N{steps}/latent/{feature}" in data:
            difference = solution.latents[feature]["delta"] - data[f"N{steps}/latent/{feature}"]
            assert difference.abs().max() < feature_tolerance, feature
    if steps == 40:
        assert (seen["image"][0] - data["N40/img_last_step"]).abs().max() < 2e-3
