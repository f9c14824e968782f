"""Edit, invert, undo the edit; codes under the prior."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import assert_close
from torch import Tensor
from toys import toy_stylegan2

import saminv
from saminv import InputError
from saminv.editing import editing_consistency, latent_distance
from saminv.generators._base import gaussianise
from saminv.spaces.priors import prior_distance

SETTINGS = {"metric": "mse", "segmenter": "none", "encoder": "mean", "steps": 2}


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def solution(generator) -> saminv.Solution:
    pictures = generator.synthesis(generator.mapping(generator.sample_z(2, seed=3))).clamp(-1, 1)
    return saminv.invert(pictures, ["W+"], generator=generator, **SETTINGS)


@pytest.fixture(scope="module")
def direction(generator) -> Tensor:
    return torch.randn(generator.style_dim, generator=torch.Generator().manual_seed(1))


def with_styles(solution: saminv.Solution, styles: Tensor) -> saminv.Solution:
    """The same solution with other codes."""
    return replace(solution, latents={**solution.latents, "W+": {"w": styles}})


def test_an_inversion_that_knows_the_edit_is_consistent(solution, generator, direction):
    styles, strength = solution.latents["W+"]["w"], 0.7
    seen = []

    def perfect(pictures: Tensor) -> saminv.Solution:
        seen.append(pictures)
        return with_styles(solution, styles + strength * direction)

    found = editing_consistency(solution, direction, strength, invert=perfect)
    assert_close(seen[0], generator.synthesis(styles + strength * direction).clamp(-1, 1), 1e-5)
    assert torch.equal(found.edited, seen[0])
    assert found.latent.max() < 1e-5 and found.relative.max() < 1e-5
    assert_close(found.returned, generator.synthesis(styles).clamp(-1, 1), 1e-4)


def test_an_inversion_that_ignores_the_edit_is_off_by_its_length(solution, generator, direction):
    found = editing_consistency(solution, direction, -2.0, invert=lambda _: solution)
    length = 2 * direction.norm() * generator.num_styles**0.5
    assert_close(found.latent, length.expand(2), 1e-5)
    assert_close(found.relative, torch.ones(2), 1e-5)


def test_pictures_are_inverted_with_gradients(solution, generator, direction):
    def method(pictures: Tensor) -> saminv.Solution:
        assert torch.is_grad_enabled()
        return saminv.invert(pictures, ["W+", "F4"], generator=generator, **SETTINGS)

    with torch.no_grad():
        found = editing_consistency(solution, direction, 0.1, invert=method)
    assert found.latent.shape == (2,) and bool((found.latent > 0).all())
    assert found.returned.shape == solution.image.shape


def test_rounds_that_cannot_be_made(solution, direction):
    with pytest.raises(InputError, match="changes nothing"):
        editing_consistency(solution, direction, 0.0, invert=lambda _: solution)
    for wrong in (None, solution[0]):
        with pytest.raises(InputError, match="same 2 pictures"):
            editing_consistency(solution, direction, invert=lambda _, wrong=wrong: wrong)
    lost = replace(solution, generator=None)
    for call in (lambda: editing_consistency(lost, direction, invert=lambda _: lost), lambda: latent_distance(lost)):
        with pytest.raises(InputError, match="no generator"):
            call()


def test_distance_under_the_prior_is_that_of_scipy(generator):
    distance = pytest.importorskip("scipy.spatial.distance")
    statistics = generator.statistics()
    styles = generator.mapping(generator.sample_z(3, seed=5)) + 0.3 * torch.randn(3, generator.num_styles, 12)
    values = gaussianise(styles.double()).numpy()
    for formulation, centre, precision in (
        ("paper", statistics.mean_v, statistics.precision_v),
        ("published", statistics.mean_v_published, statistics.inverse_covariance_v),
    ):
        single = [[distance.mahalanobis(v, centre.numpy(), precision.numpy()) for v in code] for code in values]
        expected = torch.tensor(single, dtype=torch.float64).square().mean(dim=1).sqrt()
        assert_close(prior_distance(styles, statistics, formulation), expected, 1e-5)


def test_samples_lie_at_the_root_of_their_dimension(generator, solution):
    styles = generator.mapping(generator.sample_z(400, seed=6))
    typical = prior_distance(styles, generator.statistics()).square().mean().sqrt()
    # The floor of the eigenvalues takes a little.
    assert 0.9 < typical.item() / generator.style_dim**0.5 < 1.02
    near = with_styles(solution, styles[:2])
    far = with_styles(solution, generator.statistics().mean_w.float() + 5 * (styles[:2] - styles.mean(dim=0)))
    assert_close(latent_distance(near), prior_distance(styles[:2], generator.statistics()), 1e-6)
    assert bool((latent_distance(far) > 2 * latent_distance(near)).all())
