"""StyleGAN3, configurations T and R, against arrays of the published code, and what inversion relies on."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import GOLDEN_DIRS, assert_all_close, assert_close, golden, relative_difference
from toys import random_pictures, toy_stylegan3

import saminv
from saminv import CheckpointError, InputError
from saminv.checkpoints import stylegan3_from_nvlabs
from saminv.generators import StyleGAN3, StyleGAN3Config, save_generator
from saminv.regions import Regions
from saminv.sites import Add
from saminv.spaces import available_spaces, resolve_spaces

# Of golden/README.md.
TOLERANCE = 2e-5
CASES = ("sg3_t64", "sg3_r64")
FULL = ("nvlabs_sg3_t_1024", "nvlabs_sg3_r_1024", "nvlabs_sg3_t_256", "nvlabs_sg3_r_256")
CONFIGURATIONS = {"T": {}, "R": {"kernel": 1, "radial": True}}


@pytest.fixture(params=CASES)
def data(request):
    return golden(request.param)


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def toy(request):
    return toy_stylegan3(**CONFIGURATIONS[request.param])


def key_list(name):
    """Names and shapes of a network of full size, and the geometry of its layers."""
    for folder in GOLDEN_DIRS:
        path = folder / "keys" / f"{name}.json"
        if path.is_file():
            return json.loads(path.read_text())
    pytest.skip(f"golden/keys/{name}.json is absent")


# Parity.


def test_published_numbers(data):
    arrays, z, wplus = data.under("state/"), data["in/z"], data["in/wplus"]
    generator = stylegan3_from_nvlabs(arrays, data.meta["generator_kwargs"])
    label = data["in/c"] if data["in/c"].shape[1] else None
    cutoff = data.meta["cutoff"]
    features = generator.synthesis(wplus, until=generator.feature_sites)
    image = generator.synthesis(wplus)
    names = [layer["name"] for layer in data.meta["layers"]]
    found = {
        "map/ws": generator.mapping(z, label),
        "map/ws_psi0.7": generator.mapping(z, label, 0.7),
        f"map/ws_psi0.7_cutoff{cutoff}": generator.mapping(z, label, 0.7, cutoff),
        "layer/input": generator.input(wplus[:, 0])[:1],
        **{f"layer/{name}": features[f"F{layer}"][:1] for layer, name in enumerate(names[:-1])},
        f"layer/{names[-1]}": image[:1] / generator.config.output_scale,
        "img/wplus": image,
        "img/ws": generator(z, label),
        "img/psi0.7": generator(z, label, 0.7),
    }
    for key, inverse in (
        ("transformed", data["in/transform_inverse"]),
        ("scale1.6", torch.diag(torch.tensor([1.6, 1.6, 1]))),
    ):
        generator.set_transform(inverse.inverse())
        found[f"img/wplus_{key}"] = generator.synthesis(wplus)
    generator.set_transform()
    assert torch.equal(generator.synthesis(wplus), image)
    generator.track_magnitudes(wplus)
    found["ema/magnitude_after_update"] = torch.stack([m.magnitude_ema for m in [*generator.layers, generator.torgb]])
    assert_all_close(f"{generator.family} {'R' if generator.config.radial else 'T'}", found, data.results(), TOLERANCE)


def test_settings_follow_from_names_and_shapes(data):
    arrays = data.under("state/")
    told, inferred = stylegan3_from_nvlabs(arrays, data.meta["generator_kwargs"]), stylegan3_from_nvlabs(arrays)
    assert told.config == inferred.config and told.fingerprint == inferred.fingerprint


def test_designed_filters_are_the_stored_ones(data):
    stored = stylegan3_from_nvlabs(data.under("state/"))
    designed = StyleGAN3(stored.config).state_dict()
    names = [name for name in designed if name.endswith("_filter")]
    assert len(names) == 2 * stored.config.num_layers
    for name in names:
        assert_close(designed[name], stored.state_dict()[name], 2e-6, name)


def test_stored_filters_are_kept(data):
    arrays = data.under("state/")
    name = next(name for name in arrays if name.endswith("up_filter"))
    arrays[name] = arrays[name] * 1.5
    assert torch.equal(stylegan3_from_nvlabs(arrays).layers[0].up_filter, arrays[name])


@pytest.mark.parametrize("name", FULL)
def test_geometry_of_full_size(name):
    """Rates, cutoffs, sizes, paddings and channels of the published networks, from the presets alone."""
    found = key_list(name)
    rotation = "_r_" in name
    preset = {"channel_base": 65536, "channel_max": 1024, "kernel": 1, "radial": True} if rotation else {}
    config = StyleGAN3Config(int(name.rpartition("_")[2]), **preset)
    shapes = {key: shape for key, shape, _ in found["keys"]}
    assert found["meta"]["num_ws"] == config.num_layers + 2
    for layer, expected in enumerate(found["meta"]["layers"]):
        band = config.band(layer)
        assert band.size == expected["out_size"] and band.rate == expected["out_rate"]
        assert math.isclose(band.cutoff, expected["out_cutoff"]) and config.channels(layer) == expected["out_ch"]
        assert math.isclose(band.half_width, expected["out_half_width"])
        assert shapes[f"synthesis.{expected['name']}.affine.weight"][0] == config.channels(max(layer - 1, 0))


@pytest.mark.parametrize("name", FULL)
def test_names_and_shapes_of_full_size(name):
    keys = key_list(name)["keys"]
    generator = stylegan3_from_nvlabs({key: torch.zeros(shape) for key, shape, _ in keys})
    rotation = "_r_" in name
    assert (generator.config.kernel, generator.config.radial) == ((1, True) if rotation else (3, False))
    assert generator.image_size == (int(name.rpartition("_")[2]),) * 2
    assert len(generator.state_dict()) == len(keys)


def test_paddings_of_the_published_layers(data):
    generator = stylegan3_from_nvlabs(data.under("state/"))
    for module, expected in zip(generator.layers, data.meta["layers"]):
        assert list(module.padding) == expected["padding"]
        assert (module.up, module.down) == (expected["up"], expected["down"])


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        ({"bogus": torch.zeros(1)}, {}, "'bogus' is no array"),
        ({"synthesis.L3_36_8.weight": None}, {}, "missing|has no sense"),
        ({"synthesis.L3_36_8.bias": None}, {}, r"layers\.3\.bias"),
        ({"synthesis.L3_36_8.up_filter": torch.zeros(8)}, {}, r"layers\.3\.up_filter"),
        ({"mapping.fc0.weight": None}, {}, r"mapping\.fc0\.weight"),
        ({}, {"margin_size": 8}, "L0_36_8, whose grid has 32 samples"),
        ({}, {"num_critical": 20}, "num_critical must lie in"),
        ({}, {"first_cutoff": "two"}, "has no sense"),
        ({}, {"mapping_kwargs": 3}, "has no sense"),
        ({"synthesis.L3_36_8.weight": torch.zeros(())}, {}, "has no sense"),
    ],
)
def test_arrays_that_do_not_fit(change, settings, words):
    arrays = {**golden("sg3_t64").under("state/"), **change}
    with pytest.raises(CheckpointError, match=words):
        stylegan3_from_nvlabs({name: tensor for name, tensor in arrays.items() if tensor is not None}, settings)


def test_nothing_is_no_generator():
    with pytest.raises(CheckpointError):
        stylegan3_from_nvlabs({})


# The generator.


def test_settings_that_make_no_sense():
    for settings, words in (
        ({"resolution": 48}, "power of two"),
        ({"num_critical": 14}, "num_critical"),
        ({"channel_table": (4, 4)}, "channel_table"),
        ({"filter_size": 10**9}, "filter_size"),
        ({"first_cutoff": 5.0}, "Stopbands"),
        ({"last_stopband_rel": 1.0}, "Stopbands"),
    ):
        with pytest.raises(InputError, match=words):
            StyleGAN3Config(**settings)


def test_sites(toy):
    assert toy.num_styles == 8 and toy.feature_sites == tuple(f"F{layer}" for layer in range(6))
    assert {site.kind for site in toy.sites.values()} == {"styles", "feature", "weight"}
    for layer in range(6):
        site, band = toy.site(f"F{layer}"), toy.config.band(layer)
        left, top, right, bottom = site.frame
        assert left == top and right == bottom and math.isclose(left + right, 1)
        assert math.isclose((right - left) * site.shape[-1], band.rate)
    assert toy.site("F5").frame == (0, 0, 1, 1) and toy.site("F5").shape[-1] == 32


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [
        (1024, ("F1", "F3", "F4", "F6")),
        (512, ("F1", "F3", "F5", "F7")),
        (256, ("F2", "F4", "F6", "F9")),
        (64, ("F3", "F7")),
    ],
)
def test_default_spaces_have_16_to_128_samples_per_picture(resolution, expected):
    generator = StyleGAN3(StyleGAN3Config(resolution, w_dim=4, z_dim=4, channel_max=2))
    assert generator.default_spaces == ("W+", *expected)
    rates = [generator.config.band(int(name[1:])).rate for name in expected]
    assert rates == [16, 32, 64, 128][: len(rates)]
    resolve_spaces(generator.default_spaces, generator)


def test_every_site_is_seen_and_changes_the_picture(toy):
    styles = toy.mapping(toy.sample_z(2, seed=3))
    base = toy.synthesis(styles)
    for name, site in toy.sites.items():
        if site.kind == "weight":
            continue
        found = toy.synthesis(styles, until=name)[name]
        assert found.shape[1:] == site.shape
        changed = toy.synthesis(styles, [Add(name, torch.ones_like(found))])
        assert (changed - base).abs().max() > 1e-3, name


@pytest.mark.parametrize("name", ["F1", "F3", "F5"])
def test_a_mask_lies_where_the_picture_is(toy, name):
    """A change of a pixel of a feature shows at its place in the picture, although the grid is larger."""
    site = toy.site(name)
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, 20:26, 4:10] = 1
    mask = Regions(labels, ("W+", name)).mask(name, site)
    styles = toy.mapping(toy.sample_z(1, seed=3))
    delta = 3 * torch.ones(1, *site.shape)
    change = (toy.synthesis(styles, [Add(name, delta, mask)]) - toy.synthesis(styles)).abs().sum(dim=1)[0]
    inside = change[18:28, 2:12].sum() / change.sum()
    # A tenth of the picture; the first layers blur the place.
    assert inside > {"F1": 0.3, "F3": 0.35, "F5": 0.9}[name]


def test_a_picture_is_moved_as_the_matrix_says():
    """A turn by 90 degrees of a network of kernels of one sample is a turn of its picture."""
    toy = toy_stylegan3(**CONFIGURATIONS["R"], num_layers=8, margin=10)
    with torch.no_grad():
        toy.input.affine.weight.zero_()
    styles = toy.mapping(toy.sample_z(1, seed=3))
    base, before = toy.synthesis(styles), toy.fingerprint
    clockwise = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    toy.set_transform(clockwise)
    assert toy.fingerprint != before
    assert relative_difference(toy.synthesis(styles), base.rot90(-1, (2, 3))) < 0.02
    toy.set_transform(torch.tensor([[1.0, 0.0, 0.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    right = toy.synthesis(styles)
    assert relative_difference(right[..., 8:], base[..., :-8]) < 0.1
    toy.set_transform()
    assert torch.equal(toy.synthesis(styles), base) and toy.fingerprint == before


@pytest.mark.parametrize("matrix", [torch.zeros(3, 3), torch.eye(2), torch.full((3, 3), torch.nan), torch.ones(3, 3)])
def test_matrices_that_move_nothing(toy, matrix):
    with pytest.raises(InputError, match="invertible"):
        toy.set_transform(matrix)


def test_rows_do_not_see_each_other():
    toy = toy_stylegan3(torch.float64)
    styles = toy.mapping(toy.sample_z(3, seed=3))
    alone = torch.cat([toy.synthesis(styles[row : row + 1]) for row in range(3)])
    assert_close(toy.synthesis(styles), alone, 1e-12)


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_derivatives(kind):
    small = {
        "resolution": 16,
        "w_dim": 3,
        "z_dim": 3,
        "channel_max": 2,
        "num_layers": 3,
        "margin": 1,
        "num_critical": 1,
    }
    generator = toy_stylegan3(torch.float64, **CONFIGURATIONS[kind] | small)
    source = torch.Generator().manual_seed(0)
    styles = torch.randn(1, 5, 3, generator=source, dtype=torch.float64).requires_grad_()
    delta = torch.randn(1, *generator.site("F1").shape, generator=source, dtype=torch.float64).requires_grad_()

    def picture(styles, delta):
        return generator.synthesis(styles, [Add("F1", delta)])

    assert torch.autograd.gradcheck(picture, (styles, delta), fast_mode=True)
    assert torch.autograd.gradgradcheck(picture, (styles, delta), fast_mode=True)


def test_weights_can_be_trained(toy):
    model = StyleGAN3(toy.config)
    model.load_state_dict(toy.state_dict())
    model(model.sample_z(2, seed=0)).square().mean().backward()
    assert [name for name, x in model.named_parameters() if x.grad is None or not x.grad.any()] == []


def test_magnitudes_follow_what_comes_in(toy):
    model = StyleGAN3(toy.config).freeze()
    styles = model.mapping(model.sample_z(4, seed=0))
    model.track_magnitudes(styles, decay=0.5)
    assert_close(model.layers[0].magnitude_ema, 0.5 + 0.5 * model.input(styles[:, 0]).square().mean(), 1e-6)
    model.track_magnitudes(styles, decay=0.0)
    model.track_magnitudes(styles, decay=0.0)
    seen = model.synthesis(styles, until="F0")["F0"].square().mean()
    assert_close(model.layers[1].magnitude_ema, seen, 1e-6)


def test_sam_on_a_random_network(toy):
    """The later the layer, the more of smooth grain, which no style makes, is reconstructed."""
    pictures = F.interpolate(random_pictures(2).float(), size=(32, 32), mode="bilinear")
    settings = {"generator": toy, "metric": "mse", "segmenter": "none", "encoder": "mean", "steps": 40}
    found = [saminv.invert(pictures, spaces, **settings).stats["psnr"] for spaces in (["W"], ["F1"], ["F4"])]
    assert (torch.stack(found).diff(dim=0) > 1).all(), found
    solution = saminv.invert(pictures, **settings | {"tau": 0.001, "steps": 4})
    assert solution.spaces == toy.default_spaces == ("W+", "F1")
    assert_close(solution.edit(torch.ones(12), 0.0), solution.image, 1e-5)


def test_its_file(toy, tmp_path):
    path = save_generator(toy, tmp_path / "toy.safetensors")
    loaded = saminv.load_generator(path)
    assert isinstance(loaded, StyleGAN3) and loaded.config == toy.config and loaded.fingerprint == toy.fingerprint
    z = toy.sample_z(2, seed=1)
    assert torch.equal(loaded(z), toy(z))


def test_what_it_has_not(toy):
    assert not {"N", "P"} & set(available_spaces(toy))
    styles = toy.mapping(toy.sample_z(1, seed=1))
    for mode in ("none", "random"):
        assert torch.equal(toy.synthesis(styles, noise=mode), toy.synthesis(styles))
    with pytest.raises(InputError, match="noise must be one of"):
        toy.synthesis(styles, noise="fresh")
    with pytest.raises(InputError, match=r"\[B, 8, 12\]"):
        toy.synthesis(styles[:, :7])
    with pytest.raises(InputError, match="no site 'P0'"):
        toy.synthesis(styles, [Add("P0", torch.zeros(1))])
