"""SAM on a small StyleGAN1 and a small StyleGAN3 that have learned scenes: reconstruction rises along the spaces."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close
from trained_stylegans import CONFIGS, FOLDER, SIDE, likeness, scenes, trained, weights_of

import saminv
from saminv import Solution
from saminv.cli import main
from saminv.generators import StyleGAN1, StyleGAN3

QUICK = {"metric": "mse", "device": "cpu", "encoder": "mean", "steps": 40}
# Of spaces that the family has, an early feature, its default and a late one.
FEATURES = {"stylegan1": ("F3", "F5", "F7"), "stylegan3": ("F0", "F1", "F3")}


@pytest.fixture(scope="module", params=CONFIGS)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def generator(family) -> StyleGAN1 | StyleGAN3:
    return trained(family)


@pytest.fixture(scope="module")
def pictures(generator) -> torch.Tensor:
    """Scenes that training has not seen, each with a bar that no scene has."""
    found = scenes(torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(11)))
    found[:, :, 3:8, 20:30] = torch.tensor([1.0, -1.0, 0.6])[:, None, None]
    return found


@pytest.fixture(scope="module")
def segments() -> torch.Tensor:
    """The bar and everything else."""
    labels = torch.zeros(2, SIDE, SIDE, dtype=torch.int64)
    labels[:, 3:8, 20:30] = 1
    return labels


@pytest.fixture(scope="module")
def solutions(family, generator, pictures, segments):
    """By spaces."""
    settings = {"generator": generator, "segmenter": segments, **QUICK}
    names = {"W": ["W"], "W+": ["W+"], "default": None, **{name: [name] for name in FEATURES[family]}}
    return {name: saminv.invert(pictures, spaces, tau=0.08, **settings) for name, spaces in names.items()}


def test_it_has_learned_the_scenes(family, generator):
    assert generator.config == CONFIGS[family]
    assert weights_of(family).parent == FOLDER and weights_of(family).stat().st_size < 300_000
    assert likeness(generator) > 18.5


def test_reconstruction_rises_along_the_spaces(family, solutions):
    psnr = {name: solution.stats["psnr"] for name, solution in solutions.items()}
    early, middle, late = FEATURES[family]
    for less, more in (("W", "W+"), ("W+", early), (early, middle), (middle, late)):
        assert (psnr[more] > psnr[less]).all(), f"{more} over {less}: {psnr}"
    assert (psnr["default"] > psnr["W+"] + 0.5).all(), str(psnr)


def test_what_styles_cannot_make_goes_to_the_feature(family, generator, solutions, segments):
    solution, feature = solutions["default"], FEATURES[family][1]
    assert solution.spaces == generator.default_spaces == ("W+", feature)
    assert (solution.regions.labels[segments == 1] == 1).all()
    assert (solution.regions.labels[segments == 0] == 0).all()


def test_a_feature_ends_the_influence_of_the_styles_before_it(family, generator, solutions):
    """An edit of the slots up to a layer moves what is in W+, and nothing of a picture that is in that layer."""
    feature = FEATURES[family][1]
    # Slot 0 of a StyleGAN3 belongs to its input.
    slots = int(feature[1:]) + (2 if isinstance(generator, StyleGAN3) else 1)
    z = generator.sample_z(1000, seed=6)
    w, direction = generator.mapping(z)[:, 0], torch.zeros(generator.num_styles, generator.style_dim)
    direction[:slots] = w[z[:, 0] > 0.7].mean(dim=0) - w[z[:, 0] < -0.7].mean(dim=0)
    change = {name: (s.edit(direction) - s.image).abs().mean() for name, s in solutions.items()}
    assert change["W+"] > 0.01 and change["default"] > 0.01
    # The margin of a StyleGAN3 lies under no mask, and filters reach from there into the picture.
    assert change[feature] < (1e-5 if isinstance(generator, StyleGAN1) else 0.1 * change["W+"])


def test_a_solution_goes_through_a_file(family, generator, solutions, tmp_path):
    solution = solutions["default"]
    loaded = Solution.load(solution.save(tmp_path / "s.safetensors"), weights_of(family))
    direction = torch.ones(generator.style_dim)
    assert_close(loaded.edit(direction, 0.5), solution.edit(direction, 0.5), 1e-6)


def test_its_description(family, generator, capsys):
    assert main(["info", "--generator", str(weights_of(family))]) == 0
    text = capsys.readouterr().out
    for word in (type(generator).__name__, "32 x 32", generator.fingerprint, ", ".join(generator.default_spaces)):
        assert word in text
    assert ("noise0" in text) == isinstance(generator, StyleGAN1)


def test_steps_as_of_a_graph_and_features_that_are_not_whitened(generator, pictures):
    settings = {"generator": generator, "segmenter": "none", **QUICK, "steps": 3}
    plain = saminv.invert(pictures, **settings, graph="off")
    assert_close(saminv.invert(pictures, **settings, graph="on").image, plain.image, 1e-5)
    published = saminv.invert(pictures, **settings, formulation="published", tap_point="block", skip="published")
    assert torch.isfinite(published.image).all()
    with pytest.raises(saminv.InputError, match="precision='bf16' needs a generator"):
        saminv.invert(pictures, **settings, precision="bf16")
