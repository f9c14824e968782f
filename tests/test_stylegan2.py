"""StyleGAN2 against arrays computed by the published code, and the properties that inversion relies on."""

from __future__ import annotations

import pytest
import torch
from helpers import Golden, assert_close, golden

from saminv.checkpoints import stylegan2_from_nvlabs
from saminv.generators import StyleGAN2, StyleGAN2Config
from saminv.ops.modulated_conv import modulated_conv2d

CASES = ("sg2ada_a_skip128", "sg2ada_b_orig64_cond", "sg2ada_c_resnet32_clamp")
TOLERANCE = 1e-5


def config_of(meta: dict) -> StyleGAN2Config:
    """Our configuration from the keywords of NVIDIA's constructor."""
    kwargs = dict(meta["generator_kwargs"])
    mapping = kwargs.pop("mapping_kwargs", {})
    synthesis = {**kwargs.pop("synthesis_kwargs", {}), **kwargs}
    return StyleGAN2Config(
        resolution=kwargs["img_resolution"],
        z_dim=kwargs["z_dim"],
        w_dim=kwargs["w_dim"],
        label_dim=kwargs["c_dim"],
        image_channels=kwargs["img_channels"],
        channel_base=synthesis["channel_base"],
        channel_max=synthesis["channel_max"],
        architecture=synthesis.get("architecture", "skip"),
        clamp=synthesis.get("conv_clamp"),
        mapping_layers=mapping.get("num_layers", 8),
        mapping_width=mapping.get("layer_features"),
        learning_rate_multiplier=mapping.get("lr_multiplier", 0.01),
    )


def build(data: Golden) -> StyleGAN2:
    return stylegan2_from_nvlabs(data.under("state/"), config_of(data.meta))


@pytest.fixture(scope="module", params=CASES)
def case(request):
    data = golden(request.param)
    return data, build(data)


def label_of(data: Golden):
    return data["in/c"] if data["in/c"].shape[1] else None


def test_mapping_matches_the_published_code(case):
    data, generator = case
    z, label, cutoff = data["in/z"], label_of(data), data.meta["truncation_cutoff"]
    assert_close(generator.mapping(z, label), data["map/ws"], TOLERANCE)
    assert_close(generator.mapping(z, label, 0.7), data["map/ws_psi0.7"], TOLERANCE)
    truncated = generator.mapping(z, label, 0.7, truncation_cutoff=cutoff)
    assert_close(truncated, data[f"map/ws_psi0.7_cutoff{cutoff}"], TOLERANCE)


@pytest.mark.parametrize("which", ["syn_ws", "syn_wplus"])
def test_synthesis_matches_layer_by_layer(case, which):
    data, generator = case
    styles = data["map/ws"] if which == "syn_ws" else data["in/wplus"]
    assert_close(generator.synthesis(styles), data[f"{which}/img"], TOLERANCE, "image")
    for key, expected in data.under(f"{which}/b").items():
        resolution, _, rest = key.partition("/")
        layer = 2 * (int(resolution).bit_length() - 3)
        if rest == "x":
            got = generator.synthesis(styles, until=f"F{layer}")[f"F{layer}"]
        elif rest == "img" and f"rgb{layer}.block" in generator.sites:
            got = generator.synthesis(styles, until=f"rgb{layer}.block")[f"rgb{layer}.block"]
        elif rest.endswith("affine"):
            name = rest.split("/")[0]
            slot, module = {"conv0": (layer - 1, "layers"), "conv1": (layer, "layers"), "torgb": (layer + 1, "torgb")}[
                name
            ]
            owner = generator.layers[slot] if module == "layers" else generator.torgb[str(layer)]
            got = owner.affine(styles[:, slot])
        else:
            continue
        assert_close(got, expected, TOLERANCE, key)


def test_full_path_with_truncation_and_without_noise(case):
    data, generator = case
    z, label = data["in/z"], label_of(data)
    assert_close(generator(z, label, 0.7), data["full/img_psi0.7"], TOLERANCE)
    without = generator.synthesis(generator.mapping(z, label), noise="none")
    assert_close(without, data["full/img_nonoise"], TOLERANCE)


def modulated_cases() -> list[str]:
    try:
        return sorted(golden("ops_modulated_conv2d").meta["cases"])
    except pytest.skip.Exception:
        return ["absent"]


@pytest.mark.parametrize("precision", ["out", "out_64"])
@pytest.mark.parametrize("name", modulated_cases())
def test_modulated_convolution_and_its_gradients(name, precision):
    data = golden("ops_modulated_conv2d")
    settings = data.meta["cases"][name]
    dtype, tolerances = (torch.float32, (2e-6, 5e-6)) if precision == "out" else (torch.float64, (1e-12, 1e-12))
    inputs = {k: v.to(dtype) for k, v in data.under(f"{name}/in/").items()}
    cotangent, taps = inputs.pop("gy"), inputs.pop("f", None)
    assert taps is None or torch.equal(taps[0] * 64, torch.tensor([1, 3, 3, 1], dtype=dtype))
    inputs = {k: v.requires_grad_() for k, v in inputs.items()}
    y = modulated_conv2d(**inputs, demodulate=settings["demodulate"], up=settings["up"])
    assert_close(y, data[f"{name}/{precision}/y"], tolerances[0])
    gradients = torch.autograd.grad((y * cotangent).sum(), list(inputs.values()))
    for key, gradient in zip(inputs, gradients):
        assert_close(gradient, data[f"{name}/{precision}/g_{key}"], tolerances[1], key)
