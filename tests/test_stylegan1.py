"""StyleGAN1 against arrays of three published codes, and the properties that inversion relies on."""

from __future__ import annotations

import json
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from helpers import GOLDEN_DIRS, assert_all_close, assert_close, golden
from toys import random_pictures, toy_stylegan1

import saminv
from saminv import CheckpointError, InputError
from saminv.checkpoints import stylegan1_from_genforce, stylegan1_from_rosinality, stylegan1_from_tensorflow
from saminv.generators import StyleGAN1, StyleGAN1Config, save_generator
from saminv.ops.instance_padding import pad_ring
from saminv.sites import Add, Pad, Replace
from saminv.spaces import available_spaces, make_space
from saminv.spaces._base import SpaceOptions

# Of golden/README.md; TensorFlow is another framework.
TENSORFLOW, GENFORCE, ROSINALITY = 5e-5, 3e-5, 3e-5


@pytest.fixture(scope="module")
def toy():
    return toy_stylegan1()


@pytest.fixture(scope="module")
def genforce():
    return golden("sg1_genforce")


@pytest.fixture(scope="module")
def rosinality():
    return golden("sg1_rosinality")


# Parity.


def test_tensorflow():
    data = golden("sg1_tf_legacy")
    generator = stylegan1_from_tensorflow(data.under("expected_vars/Gs/"), data.meta["g_args"])
    z = data["in/z"]
    found = {
        "dlatents": generator.mapping(z),
        "img_psi1": generator(z),
        "img_psi0.7_cutoff8": generator.synthesis(generator.mapping(z, None, 0.7, 8)),
        "img_default_truncation": generator(z, truncation=0.7),
        "img_wplus": generator.synthesis(data["in/wplus"]),
    }
    assert_all_close("sg1_tf_legacy", found, data.under("expected/"), TENSORFLOW)


def test_both_ports_of_one_network_are_one_generator():
    data = golden("sg1_tf_legacy")
    variables = stylegan1_from_tensorflow(data.under("expected_vars/"), data.meta["g_args"])
    port = stylegan1_from_genforce(data.under("pt_state/"))
    assert variables.config == port.config and variables.fingerprint == port.fingerprint


def test_genforce(genforce):
    state, z, wplus = genforce.under("state/"), genforce["in/z"], genforce["in/wplus"]
    generator = stylegan1_from_genforce(state, genforce.meta["kwargs"])
    truncated = generator.mapping(z, None, 0.7, 6)
    layers = range(generator.num_styles)
    features = generator.synthesis(wplus, until=[f"F{layer}" for layer in layers])
    found = {
        "map/w": generator.mapping(z)[:, 0],
        "map/wp": generator.mapping(z),
        "map/wp_psi0.7_layers6": truncated,
        "img/z": generator(z),
        "img/psi0.7_layers6": generator.synthesis(truncated),
        "img/wplus": generator.synthesis(wplus),
        **{f"layer{layer}/x": features[f"F{layer}"][:1] for layer in layers},
        **{f"layer{layer}/style": generator.layers[layer].style(wplus[:, layer]) for layer in layers},
    }
    for lod in ("1.0", "0.3"):
        unfinished = stylegan1_from_genforce({**state, "synthesis.lod": torch.tensor(float(lod))})
        found[f"img/wplus_lod{lod}"] = unfinished.synthesis(wplus)
    assert_all_close("sg1_genforce", found, genforce.results(), GENFORCE)


def given_noise(data, step):
    """Taps of the noise of a golden file, which both layers of a resolution share."""
    return [Replace(f"noise{layer}", data[f"in/noise_{layer // 2}"]) for layer in range(2 * step + 2)]


def test_rosinality(rosinality):
    state, z = rosinality.under("state/"), rosinality["in/z"]
    generator = stylegan1_from_rosinality(state, {"step": 5})
    noise, styles, other = given_noise(rosinality, 5), generator.mapping(z), generator.mapping(rosinality["in/z2"])
    features = generator.synthesis(styles, noise, until=[f"F{2 * block + 1}" for block in range(6)])
    # Blocks 1 and 2 read the other noise.
    mixed = torch.cat([styles[:, :2], other[:, 2:6], styles[:, 6:]], dim=1)
    low = stylegan1_from_rosinality(state, {"step": 5, "mean_style": rosinality["in/mean_style"]})
    growing = stylegan1_from_rosinality(state, {"step": 5, "alpha": 0.4})
    small = stylegan1_from_rosinality(state, {"step": 4})
    found = {
        "map/w": styles[:, 0],
        **{f"block{block}/x": features[f"F{2 * block + 1}"][:1] for block in range(6)},
        "img/step5": generator.synthesis(styles, noise),
        "img/step5_mix1_2": generator.synthesis(mixed, noise),
        "img/step5_mean_style_w0.7": low.synthesis(low.mapping(z, truncation=0.7), noise),
        "img/step5_alpha0.4": growing.synthesis(styles, noise),
        "img/step4": small.synthesis(styles[:, :10], given_noise(rosinality, 4)),
    }
    assert_all_close("sg1_rosinality", found, rosinality.results(), ROSINALITY)


def test_names_and_shapes_of_full_size():
    paths = [folder / "keys" / "genforce_sg1_1024.json" for folder in GOLDEN_DIRS]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        pytest.skip("golden/keys is absent")
    arrays = {name: torch.zeros(shape) for name, shape, _ in json.loads(path.read_text())["keys"]}
    generator = stylegan1_from_genforce(arrays)
    assert generator.image_size == (1024, 1024) and generator.num_styles == 18
    usual = StyleGAN1(StyleGAN1Config())
    assert {k: v.shape for k, v in usual.state_dict().items()} == {
        k: v.shape for k, v in generator.state_dict().items()
    }


# Adapters.


def test_what_rosinality_files_lack_is_made(rosinality):
    first, second = (stylegan1_from_rosinality(rosinality.under("state/"), {"step": 3}) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert torch.equal(first.layers[4].noise_const, first.layers[5].noise_const)
    assert not torch.equal(first.layers[2].noise_const, first.layers[4].noise_const[:8, :8])
    samples = first.mapping(first.sample_z(20_000, seed=5))[:, 0]
    assert (first.w_avg - samples.mean(dim=0)).abs().max() < 0.05 * samples.std()


def test_random_noise_of_rosinality_is_that_of_a_resolution(rosinality):
    generator = stylegan1_from_rosinality(rosinality.under("state/"), {"step": 2})
    names = [f"noise{layer}" for layer in range(6)]
    found = generator.synthesis(generator.mapping(rosinality["in/z"]), noise="random", until=names)
    assert all(torch.equal(found[f"noise{k}"], found[f"noise{k + 1}"]) for k in (0, 2, 4))
    assert not torch.equal(found["noise4"][0], found["noise4"][1])


def test_labels_of_tensorflow():
    """The label's code stands behind the noise, and both are normalised together."""
    data = golden("sg1_tf_legacy")
    arrays = data.under("expected_vars/Gs/")
    arrays["G_mapping/LabelConcat/weight"] = torch.randn(3, 40)
    first = arrays["G_mapping/Dense0/weight"]
    arrays["G_mapping/Dense0/weight"] = torch.cat([first, torch.randn_like(first)])
    generator = stylegan1_from_tensorflow(arrays, data.meta["g_args"])
    assert generator.label_dim == 3 and generator.z_dim == 40
    z = data["in/z"]
    x = torch.cat([z, arrays["G_mapping/LabelConcat/weight"][[1, 1]]], dim=1)
    x = x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for layer in range(3):
        weight, bias = (arrays[f"G_mapping/Dense{layer}/{part}"] for part in ("weight", "bias"))
        x = F.leaky_relu(0.01 * (x @ weight * (2 / len(weight)) ** 0.5 + bias), 0.2)
    assert_close(generator.mapping(z, 1)[:, 0], x, 1e-5)
    assert torch.isfinite(generator.statistics(2).mean_w).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bogus": torch.zeros(1)}, "'bogus' is no array"),
        ({"synthesis.layer3.weight": None}, r"layers\.3\.weight"),
        ({"mapping.dense1.weight": None}, "missing|mapping_network"),
        ({"synthesis.layer3.weight": torch.zeros(2, 2, 3, 3)}, r"layers\.3\.weight"),
        ({"synthesis.layer2.apply_noise.noise": torch.zeros(8)}, "impossible shape"),
        ({"synthesis.lod": torch.zeros(2)}, "has no sense"),
        ({"synthesis.lod": torch.tensor(torch.nan)}, "has no sense"),
        ({"synthesis.layer3.bias": torch.zeros(())}, "has no sense"),
        ({"synthesis.layer98.bias": torch.zeros(1)}, "counts 99 layers"),
        ({"synthesis.lod": torch.tensor(9.0)}, r"lod must lie in 0\.\.5"),
        ({"synthesis.output5.weight": None}, r"torgb\.11\.weight"),
    ],
)
def test_arrays_that_do_not_fit(genforce, change, words):
    arrays = {**genforce.under("state/"), **change}
    arrays = {name: tensor for name, tensor in arrays.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=words):
        stylegan1_from_genforce(arrays)


def test_nothing_is_no_generator():
    for adapter in (stylegan1_from_genforce, stylegan1_from_rosinality, stylegan1_from_tensorflow):
        with pytest.raises(CheckpointError):
            adapter({})


@pytest.mark.parametrize("setting", [{"use_pixel_norm": True}, {"blur_filter": None}, {"nonlinearity": "relu"}])
def test_settings_of_another_network(setting):
    data = golden("sg1_tf_legacy")
    with pytest.raises(CheckpointError, match=next(iter(setting))):
        stylegan1_from_tensorflow(data.under("expected_vars/Gs/"), {**data.meta["g_args"], **setting})


@pytest.mark.parametrize("settings", [{"step": 0}, {"step": 9}, {"alpha": 2.0}])
def test_steps_that_there_are_not(rosinality, settings):
    with pytest.raises(CheckpointError, match="steps up to 8"):
        stylegan1_from_rosinality(rosinality.under("state/"), settings)


def test_a_crop_of_the_canvas(genforce):
    whole = stylegan1_from_genforce(genforce.under("state/"))
    cropped = stylegan1_from_genforce(genforce.under("state/"), {"crop": (96, 128)})
    wplus = genforce["in/wplus"]
    assert torch.equal(cropped.synthesis(wplus), whole.synthesis(wplus)[:, :, 16:112])
    assert cropped.site("F5").frame == (0, 0.125, 1, 0.875)


# The generator.


def test_settings_that_make_no_sense():
    for settings, words in (
        ({"resolution": 48}, "power of two"),
        ({"variant": "mine"}, "nvidia, rosinality"),
        ({"lod": -1.0}, "lod must lie"),
        ({"crop": (2000, 10)}, "crop"),
        ({"channel_table": (4, 4)}, "channel_table"),
    ):
        with pytest.raises(InputError, match=words):
            StyleGAN1Config(**settings)


def test_sites(toy):
    assert toy.num_styles == 8 and toy.default_spaces == ("W+", "F5")
    assert toy.feature_sites == tuple(f"F{layer}" for layer in range(8))
    assert [toy.site(f"F{layer}").shape[-1] for layer in range(8)] == [4, 4, 8, 8, 16, 16, 32, 32]
    assert [name for name in toy.sites if name.startswith("P")] == [f"P{k}" for k in range(8)]
    assert StyleGAN1(StyleGAN1Config(256)).default_spaces == ("W+", "F5", "F7", "F9", "F11")
    spaces = {"Z", "W", "W+", "N", "P", "FS", "FS5", "F0", "F7", "P0", "P7"}
    assert spaces <= set(available_spaces(toy))
    assert make_space("P", toy, SpaceOptions()).sites(toy) == ("P0", "P1", "P3", "P5", "P7")


def test_every_site_is_seen_and_changes_the_picture(toy):
    styles = toy.mapping(toy.sample_z(2, seed=3))
    base = toy.synthesis(styles)
    for name, site in toy.sites.items():
        if site.kind == "weight":
            tap = Add(name, 0.1 * torch.ones(2, *site.shape))
        elif site.kind == "padding" and name != "P0":
            tap = Pad(name, torch.ones(2, *site.shape))
        else:
            found = toy.synthesis(styles, until=name)[name]
            assert found.shape[1:] == site.shape
            # A change that is the same everywhere would be lost in the normalisation that follows.
            tap = Add(name, torch.randn(found.shape))
        assert (toy.synthesis(styles, [tap]) - base).abs().max() > 1e-3, name


@pytest.mark.parametrize("layer", range(1, 8))
def test_a_ring_of_zeros_is_the_usual_padding(toy, layer):
    styles, name = toy.mapping(toy.sample_z(2, seed=3)), f"P{layer}"
    zeros = Pad(name, torch.zeros(2, *toy.site(name).shape))
    assert_close(toy.synthesis(styles, [zeros]), toy.synthesis(styles), 1e-5)


@pytest.mark.parametrize("layer", [4, 6])
def test_layers_that_double_repeat_pixels_before_they_convolve(toy, layer):
    """The ring surrounds the repeated pixels; fused layers, here from 32 pixels on, have their kernel flipped."""
    module, x = toy.layers[layer], torch.randn(2, toy.config.channels(layer - 1), *[2 << layer // 2] * 2)
    ring = torch.randn(2, *toy.site(f"P{layer}").shape)
    kernel = module.weight * (2 / module.weight[0].numel()) ** 0.5
    kernel = kernel.flip((2, 3)) if layer == 6 else kernel
    expected = F.conv2d(pad_ring(F.interpolate(x, scale_factor=2.0), ring), kernel)
    assert_close(module._convolve(x, module.weight, ring), expected, 1e-5)
    around = F.conv2d(F.interpolate(x, scale_factor=2.0), kernel, padding=1)
    assert_close(module._convolve(x, module.weight, None), around, 1e-5)


def test_derivatives():
    generator = toy_stylegan1(torch.float64, resolution=8, w_dim=3, z_dim=3, channel_max=2)
    source = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(1, *shape, generator=source, dtype=torch.float64).requires_grad_()

    names = ("noise1", "F2", "P0", "P1", "P2")
    inputs = [random(*generator.site(name).shape) for name in ("styles", *names)]

    def picture(styles, *values):
        changes = [Pad(n, v) if n in ("P1", "P2") else Add(n, v) for n, v in zip(names, values)]
        return generator.synthesis(styles, changes)

    assert torch.autograd.gradcheck(picture, inputs)
    assert torch.autograd.gradgradcheck(lambda styles: generator.synthesis(styles), inputs[:1])


def test_weights_can_be_trained(toy):
    model = StyleGAN1(toy.config)
    model.load_state_dict(toy.state_dict())
    model(model.sample_z(2, seed=0)).square().mean().backward()
    unused = [name for name, x in model.named_parameters() if x.grad is None or not x.grad.any()]
    # Each channel of the constant is brought to mean 0 right after its bias.
    assert unused == []


@pytest.mark.parametrize("lod", [0.0, 0.25, 1.0, 1.5])
def test_levels_of_detail(lod):
    generator = toy_stylegan1(lod=lod)
    last = 7 - 2 * int(lod)
    assert f"F{last}" in generator.sites and f"F{last + 1}" not in generator.sites
    assert generator.synthesis(generator.mapping(generator.sample_z(1, seed=0))).shape == (1, 3, 32, 32)


def test_truncation_is_for_the_first_slots(toy):
    z = toy.sample_z(2, seed=1)
    wide = toy_stylegan1(resolution=128)
    low, plain = wide.mapping(z, truncation=0.5), wide.mapping(z)
    assert torch.equal(low[:, 8:], plain[:, 8:]) and not torch.equal(low[:, :8], plain[:, :8])
    assert torch.equal(wide.mapping(z, None, 0.5, 2)[:, 2:], plain[:, 2:])
    assert_close(wide.synthesis(plain, truncation=0.5), wide.synthesis(low), 1e-6)


def test_sam_on_a_random_network(toy):
    """The later the layer, the more of smooth grain, which no style makes, is reconstructed."""
    pictures = F.interpolate(random_pictures(2).float(), size=(32, 32), mode="bilinear")
    settings = {"generator": toy, "metric": "mse", "segmenter": "none", "encoder": "mean", "steps": 40}
    found = [saminv.invert(pictures, spaces, **settings).stats["psnr"] for spaces in (["W"], ["F3"], ["F6"])]
    assert (torch.stack(found).diff(dim=0) > 1).all(), found
    solution = saminv.invert(pictures, **settings | {"tau": 0.001, "steps": 4})
    assert solution.spaces == toy.default_spaces == ("W+", "F5")
    assert_close(solution.edit(torch.ones(12), 0.0), solution.image, 1e-5)
    for spaces in (["P"], ["N"], ["FS"], ["Z"]):
        with warnings.catch_warnings():
            # That FS cuts off the styles before it.
            warnings.simplefilter("ignore", UserWarning)
            assert torch.isfinite(saminv.invert(pictures, spaces, **settings | {"steps": 2}).image).all()


def test_its_file(toy, tmp_path):
    path = save_generator(toy, tmp_path / "toy.safetensors")
    loaded = saminv.load_generator(path)
    assert isinstance(loaded, StyleGAN1) and loaded.config == toy.config and loaded.fingerprint == toy.fingerprint
    z = toy.sample_z(2, seed=1)
    assert torch.equal(loaded(z), toy(z))


def test_what_it_refuses(toy):
    styles = toy.mapping(toy.sample_z(1, seed=1))
    with pytest.raises(InputError, match="noise must be one of"):
        toy.synthesis(styles, noise="fresh")
    with pytest.raises(InputError, match=r"\[B, 8, 12\]"):
        toy.synthesis(styles[:, :7])
    with pytest.raises(InputError, match="takes no label"):
        toy.mapping(toy.sample_z(1, seed=1), 2)
    with pytest.raises(InputError, match=re.escape("precision='fp16' needs a generator")):
        saminv.invert(toy.synthesis(styles), generator=toy, metric="mse", segmenter="none", precision="fp16", steps=1)
