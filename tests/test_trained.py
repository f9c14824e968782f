"""SAM on a small BigGAN-deep that has learned scenes: likeness rises along the spaces, edits do what they say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close
from trained import CLASSES, CONFIG, SIDE, WEIGHTS, factors_of, likeness, scenes, trained_biggan

import saminv
from saminv.demo.scenes import CAR_SEGMENTS, render
from saminv.generators import BigGANDeep

QUICK = {"metric": "mse", "device": "cpu", "steps": 50}
LABEL = 2

# A bar, or a wrong label, is far from what the generator makes.
pytestmark = pytest.mark.filterwarnings("ignore:.*looks far from what the generator makes")


@pytest.fixture(scope="module")
def generator() -> BigGANDeep:
    return trained_biggan()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Scenes that training has not seen, each with a bar that no scene has."""
    z = torch.randn(2, CONFIG.z_dim, generator=torch.Generator().manual_seed(11))
    found = scenes(z, torch.full((2,), LABEL))
    found[:, :, 3:8, 20:30] = torch.tensor([1.0, -1.0, 0.6])[:, None, None]
    return found


@pytest.fixture(scope="module")
def segments() -> torch.Tensor:
    """The bar and everything else."""
    labels = torch.zeros(2, SIDE, SIDE, dtype=torch.int64)
    labels[:, 3:8, 20:30] = 1
    return labels


@pytest.fixture(scope="module")
def solutions(generator, pictures, segments):
    """By spaces."""
    settings = {"generator": generator, "label": LABEL, "segmenter": segments, **QUICK}
    names = {"Z": ["Z"], "Z+": ["Z+"], "Z+ and F2": None, "F2": ["F2"]}
    return {name: saminv.invert(pictures, spaces, tau=0.02, **settings) for name, spaces in names.items()}


def test_it_has_learned_the_scenes(generator):
    assert generator.config == CONFIG and WEIGHTS.stat().st_size < 300_000
    assert likeness(generator) > 25.0
    z = generator.sample_z(64, seed=8)
    labels = torch.arange(64) % CLASSES
    wrong = scenes(z, (labels + 1) % CLASSES)
    right = scenes(z, labels)
    image = generator(z, F.one_hot(labels, CLASSES))
    errors = [(image - other).square().mean() for other in (right, wrong)]
    assert errors[0] < 0.5 * errors[1], "the class says the colour"


def test_statistics_of_a_truncation_suit_its_noise(generator):
    """Where the noise is scaled, the picture by its own rows is nearer to the scene than that by those of all noise."""
    z, label = 0.4 * generator.sample_z(128, seed=9), torch.arange(128) % CLASSES
    target, vectors = scenes(z, label), F.one_hot(label, CLASSES)
    errors = [(generator(z, vectors, t) - target).square().mean() for t in (0.4, 1.0)]
    assert not torch.equal(*errors) and errors[0] < 4 * errors[1]


def test_reconstruction_rises_along_the_spaces(solutions):
    psnr = {name: solution.stats["psnr"] for name, solution in solutions.items()}
    assert (psnr["Z+"] > psnr["Z"]).all()
    assert (psnr["Z+ and F2"] > psnr["Z+"] + 1).all()
    assert (psnr["F2"] >= psnr["Z+ and F2"] - 1).all()


def test_what_noise_cannot_make_goes_to_the_feature(solutions, segments):
    solution = solutions["Z+ and F2"]
    assert solution.spaces == ("Z+", "F2") and solution.regions.spaces == ("Z+", "F2")
    assert (solution.regions.labels[segments == 1] == 1).all()
    assert (solution.stats["share/Z+"] > 0.5).all()


def test_a_class_changes_the_colour_of_the_car(generator, solutions, pictures):
    """Along the edit, cars come nearer to those of the other class, and all else changes less."""
    z = torch.randn(2, CONFIG.z_dim, generator=torch.Generator().manual_seed(11))
    other = (LABEL + 2) % CLASSES
    wanted = render(factors_of(z, torch.full((2,), other)), SIDE)
    car = torch.isin(wanted.segments, torch.tensor(CAR_SEGMENTS))[:, None]
    for name in ("Z+", "Z+ and F2"):
        solution = solutions[name]
        edited = solution.edit(f"class:{other}")
        error = [((x - wanted.images).abs() * car).sum((1, 2, 3)) for x in (solution.image, edited)]
        assert (error[1] < 0.8 * error[0]).all()
        change = (edited - solution.image).abs()
        inside, outside = ((change * where).sum((1, 2, 3)) / where.sum((1, 2, 3)) for where in (car, ~car))
        assert (inside > 3 * outside).all()
        assert_close(solution.edit(f"class:{other}", 0.0), solution.image, 1e-5)


def test_a_wrong_label_is_made_good_by_the_class_space(generator):
    """Of a scene without a bar, since that would count most."""
    z = torch.randn(2, CONFIG.z_dim, generator=torch.Generator().manual_seed(11))
    target = scenes(z, torch.full((2,), LABEL))
    settings = {"generator": generator, "label": (LABEL + 2) % CLASSES, "segmenter": "none", **QUICK}
    fixed, free = (saminv.invert(target, spaces, **settings) for spaces in (["Z+"], ["Z+", "C"]))
    gain = free.stats["psnr"] - fixed.stats["psnr"]
    assert (gain > 0).all() and gain.mean() > 1
