"""Variants of the published forms: names that one code gives to what another one has, and what older files lack."""

from __future__ import annotations

import datetime
import re
from argparse import Namespace

import numpy as np
import pytest
import torch
from checkpoint_files import (
    as_tensorflow,
    nvidia_generator,
    nvidia_pickle,
    pickled,
    rosinality_trainer,
    saved,
    tensorflow_pickle,
    write,
)
from helpers import assert_close, golden
from toys import toy_stylegan2

import saminv
from saminv import CheckpointError
from saminv.checkpoints import read_checkpoint, read_values
from saminv.editing import read_published
from saminv.generators import StyleGAN1, StyleGAN3, save_generator

CONDITIONAL, RESIDUAL = "sg2ada_b_orig64_cond", "sg2ada_c_resnet32_clamp"


def hammer(state, **kwargs):
    """What the converters of Hammer write."""
    other = {name: x + 1 for name, x in state.items()}
    models = {"generator": other, "discriminator": {"a": torch.ones(1)}, "generator_smooth": state}
    return {"models": models, "model_kwargs_init": {"generator": kwargs, "generator_smooth": kwargs}}


def hammer_stylegan2(state):
    """Arrays under NVIDIA's names as Hammer calls them; the values are the same."""
    found = {}
    for name, x in state.items():
        if name == "mapping.w_avg":
            found["w_avg"] = x
        elif name.startswith("mapping."):
            found[re.sub(r"fc(\d+)", r"dense\1", name).replace("embed", "embedding")] = x
        elif name == "synthesis.b4.const":
            found["synthesis.early_layer.const"] = x[None]
        elif match := re.fullmatch(r"synthesis\.b(\d+)\.(\w+)\.(.+)", name):
            level, part = int(match[1]).bit_length() - 3, match[3].replace("affine", "style")
            layer = {"conv0": 2 * level - 1, "conv1": 2 * level}.get(match[2])
            if part == "resample_filter":
                found |= {f"synthesis.layer{layer}.filter": x} if match[2] == "conv0" else {}
            elif layer is None:
                found[f"synthesis.{'output' if match[2] == 'torgb' else 'residual'}{level}.{part}"] = x
            else:
                x = x[None, None] if part == "noise_const" else x
                found[f"synthesis.layer{layer}.{part.replace('noise_const', 'noise')}"] = x
    return found


def as_genforce(state):
    """Arrays of Hammer's StyleGAN2 as GenForce keeps them, with the values of TensorFlow."""
    found = {}
    for name, x in state.items():
        name = name.replace("w_avg", "truncation.w_avg").replace("mapping.embedding", "mapping.LabelEmbed")
        up = re.fullmatch(r"synthesis\.layer\d*[13579]\.weight", name)
        found[name] = x.flip(2, 3) if up else x - 1 if name.endswith("style.bias") else x
    return found


def hammer_stylegan3(state):
    """The same of a StyleGAN3."""
    found = {"w_avg": state["mapping.w_avg"]}
    parts = {"weight": "conv.weight", "affine": "conv.style", "bias": "filter.bias", "magnitude_ema": "magnitude_ema"}
    for name, x in state.items():
        if name.startswith("mapping.") and name != "mapping.w_avg":
            found[re.sub(r"fc(\d+)", r"dense\1", name).replace("embed", "embedding")] = x
        elif match := re.fullmatch(r"synthesis\.input\.(.+)", name):
            theirs = {"freqs": "frequency", "phases": "phase"}.get(match[1], match[1])
            found[f"synthesis.early_layer.{theirs}"] = x
        elif match := re.fullmatch(r"synthesis\.L(\d+)_\d+_\d+\.(\w+)(.*)", name):
            found[f"synthesis.layer{match[1]}.{parts.get(match[2], f'filter.{match[2]}')}{match[3]}"] = x
    return {**found, "synthesis.early_layer.grid": torch.zeros(1, 36, 36, 2)}


def hammer_stylegan1(state):
    """Arrays under GenForce's names as Hammer calls them."""
    found = {}
    for name, x in state.items():
        theirs = name.replace("truncation.", "").replace("apply_noise.noise", "noise")
        theirs = theirs.replace("apply_noise.weight", "noise_strength").replace("blur.kernel", "filter")
        found[theirs] = x.reshape(1, -1, 1, 1) if theirs.endswith("noise_strength") else x
    return found


@pytest.mark.parametrize("name", [CONDITIONAL, RESIDUAL])
def test_stylegan2_of_hammer_with_classes_or_residuals(tmp_path, name):
    data = golden(name)
    kwargs = data.meta["generator_kwargs"]
    state = hammer_stylegan2(data.under("state/"))
    said = {
        "conv_clamp": kwargs["synthesis_kwargs"].get("conv_clamp"),
        "mapping_lr_mul": kwargs["mapping_kwargs"].get("lr_multiplier", 0.01),
        "label_dim": kwargs["c_dim"],
        "normalize_embedding": True,
        "normalize_embedding_latent": False,
    }
    path = write(tmp_path / "hammer.pth", saved(hammer(state, **said)))
    generator = saminv.load_generator(path)
    label = data["in/c"] if kwargs["c_dim"] else None
    assert_close(generator.mapping(data["in/z"], label, 0.7), data["map/ws_psi0.7"], 1e-5)
    assert_close(generator.synthesis(data["in/wplus"]), data["syn_wplus/img"], 1e-5)
    assert read_checkpoint(path).parts == ("generator_smooth", "generator")
    with pytest.raises(CheckpointError, match="final_tanh True; only False"):
        saminv.load_generator(write(path, saved(hammer(state, final_tanh=True))))


def test_classes_of_genforce(tmp_path):
    data = golden(CONDITIONAL)
    state = as_genforce(hammer_stylegan2(data.under("state/")))
    said = {"mapping_lr_mul": data.meta["generator_kwargs"]["mapping_kwargs"].get("lr_multiplier", 0.01)}
    path = write(
        tmp_path / "a.pth", saved({"models": {"generator_smooth": state}, "model_kwargs_init": {"generator": said}})
    )
    generator = saminv.load_generator(path)
    assert_close(generator.mapping(data["in/z"], data["in/c"], 0.7), data["map/ws_psi0.7"], 1e-5)
    assert_close(generator.synthesis(data["in/wplus"]), data["syn_wplus/img"], 1e-5)


def test_classes_of_the_original_code(tmp_path):
    """It normalises noise and label as one vector, which three codes write down in three ways."""
    data = golden(CONDITIONAL)
    state = data.under("state/")
    matrix = state["mapping.embed.weight"]
    x = torch.cat([data["in/z"], data["in/c"] @ matrix.t()], dim=1)
    x = x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for k in range(8):
        weight, bias = state[f"mapping.fc{k}.weight"], state[f"mapping.fc{k}.bias"]
        x = x @ weight.t() * (0.01 / weight.shape[1] ** 0.5) + bias * 0.01
        x = torch.where(x < 0, 0.2 * x, x) * 2**0.5
    bare = {name: value for name, value in state.items() if name != "mapping.embed.bias"}
    variables = {name.replace("LabelEmbed", "LabelConcat"): value for name, value in as_tensorflow(bare).items()}
    original = tensorflow_pickle(variables, {}, ("G_main", "G_synthesis_stylegan2", "G_mapping"))
    said = {"label_dim": 3, "normalize_z": False, "embedding_use_wscale": False, "normalize_embedding": False}
    theirs = hammer_stylegan2(bare)
    genforce = {name: value for name, value in as_genforce(theirs).items() if "LabelEmbed" not in name}
    for content in (
        original,
        saved(hammer(theirs, **said, normalize_embedding_latent=True)),
        saved(theirs),
        saved({"generator_smooth": {**genforce, "mapping.label_weight": matrix.t().contiguous()}}),
    ):
        path = write(tmp_path / "network", content)
        generator = saminv.load_generator(path)
        assert_close(generator.mapping(data["in/z"], data["in/c"])[:, 0], x, 1e-5)
        assert_close(generator.synthesis(data["in/wplus"]), data["syn_wplus/img"], 1e-5)
        own = save_generator(generator, tmp_path / "own.safetensors")
        assert_close(saminv.load_generator(own).mapping(data["in/z"], data["in/c"])[:, 0], x, 1e-5)
    for wrong in ({"normalize_embedding": True}, {"normalize_z": True}, {"embedding_use_wscale": True}):
        with pytest.raises(CheckpointError, match=f"{next(iter(wrong))} True; only False"):
            saminv.load_generator(write(tmp_path / "a.pth", saved(hammer(theirs, **{**said, **wrong}))))


@pytest.mark.parametrize("name", ["sg3_t64", "sg3_r64"])
def test_stylegan3_of_hammer(tmp_path, name):
    data = golden(name)
    state = hammer_stylegan3(data.under("state/"))
    path = write(tmp_path / "hammer.pth", saved(hammer(state, resolution=64, normalize_z=True)))
    generator = saminv.load_generator(path)
    label = data["in/c"] if data["in/c"].shape[1] else None
    assert isinstance(generator, StyleGAN3) and generator.label_dim == data["in/c"].shape[1]
    assert_close(generator.mapping(data["in/z"], label, 0.7), data["map/ws_psi0.7"], 1e-5)
    assert_close(generator.synthesis(data["in/wplus"]), data["img/wplus"], 2e-5)
    # Without settings, filters say how fine the grids are.
    assert saminv.load_generator(write(path, saved(state))).fingerprint == generator.fingerprint
    for wrong, message in (
        ({**state, "synthesis.layer99.conv.style.bias": torch.ones(1)}, "layer99"),
        ({n: x for n, x in state.items() if not n.endswith("grid")}, "grid' is missing"),
        ({**state, "synthesis.layer3.filter.up_filter": torch.ones(3)}, "is missing or has no sense"),
    ):
        with pytest.raises(CheckpointError, match=message):
            saminv.load_generator(write(path, saved(wrong)))


def test_stylegan1_of_hammer(tmp_path):
    data = golden("sg1_genforce")
    path = write(tmp_path / "hammer.pth", saved(hammer(hammer_stylegan1(data.under("state/")))))
    found = read_checkpoint(path)
    assert (found.family, found.names) == ("stylegan1", "genforce")
    generator = saminv.load_generator(path)
    assert isinstance(generator, StyleGAN1) and "does not say how features are doubled" in found.notes[0]
    assert not read_checkpoint(write(path, saved(hammer(hammer_stylegan1(data.under("state/")), label_dim=0)))).notes
    assert_close(generator.synthesis(data["in/wplus"]), data["img/wplus"], 3e-5)


def test_networks_without_noise(tmp_path):
    data = golden(CONDITIONAL)
    state = {n: x for n, x in data.under("state/").items() if not n.endswith(("noise_const", "noise_strength"))}
    path = write(tmp_path / "network.pkl", nvidia_pickle(state, data.meta["generator_kwargs"]))
    generator = saminv.load_generator(path)
    whole = nvidia_pickle(data.under("state/"), data.meta["generator_kwargs"])
    other = saminv.load_generator(write(tmp_path / "whole.pkl", whole))
    w = data["in/wplus"]
    assert_close(generator.synthesis(w), other.synthesis(w, noise="none"), 1e-6)
    assert torch.equal(generator.synthesis(w), generator.synthesis(w, noise="random"))
    state["synthesis.b4.conv1.noise_strength"] = torch.zeros(())
    with pytest.raises(CheckpointError, match="missing"):
        saminv.load_generator(write(path, nvidia_pickle(state, data.meta["generator_kwargs"])))


def test_old_files_of_rosinality_have_no_constant_noise(tmp_path):
    data = golden("rosi_generator")
    state = {name: x for name, x in data.under("state/").items() if not name.startswith("noises.")}
    path = write(tmp_path / "old.pt", saved({"g_ema": state, "latent_avg": data["in/latent_avg"]}))
    assert read_checkpoint(path).notes == ("The file has no constant noise; it is drawn from a seed.",)
    first, second = saminv.load_generator(path), saminv.load_generator(path)
    assert first.fingerprint == second.fingerprint
    assert first.layers[2].noise_const.std() > 0.5


def test_modules_of_rosinality_saved_whole(tmp_path):
    class FusedLeakyReLU:
        pass

    FusedLeakyReLU.__module__, FusedLeakyReLU.__qualname__ = "op.fused_act", "FusedLeakyReLU"
    import sys
    import types

    for name in ("op", "op.fused_act"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["op.fused_act"].FusedLeakyReLU = FusedLeakyReLU
    try:
        content = pickled({"a": FusedLeakyReLU()})
    finally:
        del sys.modules["op"], sys.modules["op.fused_act"]
    with pytest.raises(CheckpointError, match="a dictionary of a"):
        read_checkpoint(write(tmp_path / "a.pkl", content))


def test_networks_in_the_wrapping_of_data_parallel_training(tmp_path):
    data = golden(RESIDUAL)
    kwargs = data.meta["generator_kwargs"]
    inner = nvidia_generator(data.under("state/"), kwargs)
    wrapping = torch.nn.DataParallel(torch.nn.Identity())
    wrapping.__dict__["_modules"] = {"module": inner}
    for content in (saved(wrapping), pickled({"G_ema": wrapping}, 4)):
        generator = saminv.load_generator(write(tmp_path / "network.pkl", content))
        assert_close(generator.synthesis(data["in/wplus"]), data["syn_wplus/img"], 1e-5)


def test_restyle_on_another_network_or_with_encoders_of_psp(tmp_path):
    decoder = {f"decoder.{name}": x for name, x in golden("rosi_generator").under("state/").items()}
    resnet = {"encoder.conv1.weight": torch.ones(4, 6, 7, 7), "encoder.body.0.conv1.weight": torch.ones(4, 4, 3, 3)}
    irse = {"encoder.input_layer.0.weight": torch.ones(4, 6, 3, 3), "encoder.body.0.res_layer.0.weight": torch.ones(4)}
    for encoder, method in ((resnet, "ResNetGradualStyleEncoder"), (irse, "GradualStyleEncoder")):
        content = {
            "state_dict": {**encoder, **decoder},
            "opts": {"encoder_type": method},
            "latent_avg": torch.zeros(48),
        }
        path = write(tmp_path / "restyle.pt", saved(content))
        found = read_checkpoint(path)
        assert (found.family, found.notes) == ("restyle", ()), method
        assert saminv.load_generator(path).image_size == (64, 64)


def test_expanded_arrays(tmp_path):
    data = golden("rosi_generator")
    mean = data["in/latent_avg"].reshape(-1)
    for zipped in (True, False):
        content = {"g_ema": data.under("state/"), "latent_avg": mean[:1].expand(48)}
        path = write(tmp_path / "a.pt", saved(content, zipped))
        assert torch.equal(saminv.load_generator(path).w_avg, mean[:1].expand(48))


def test_an_edit_of_ganspace(tmp_path):
    row = np.random.default_rng(0).normal(size=(1, 512)).astype("f4")
    edit = {"name": "Light", "lat_comp": row, "act_comp": row, "sigma_range": -2.8, "edit_start": 8, "edit_end": 9}
    found = read_checkpoint(write(tmp_path / "light.pkl", pickled(edit, 4)))
    assert (found.kind, found.form) == ("directions", "edit of GANSpace")
    assert found.settings["edit_start"] == 8 and found.settings["layout"] == "W, 512"
    assert np.array_equal(found.arrays["direction"].numpy(), row)
    # Components of features are kept with what they are among the latents.
    parts = {
        f"{kind}_{name}": np.ones((5, 1, 8 if kind == "lat" else 64), "f4")
        for kind in ("lat", "act")
        for name in ("comp",)
    }
    parts |= {"lat_mean": np.zeros((1, 8), "f4"), "act_mean": np.zeros((1, 64), "f4")}
    np.savez(tmp_path / "a.npz", lat_stdev=np.ones(5, "f4"), act_stdev=np.ones(5, "f4"), **parts)
    assert read_checkpoint(tmp_path / "a.npz").arrays["components"].shape == (5, 8)


def test_factors_of_rosinality_are_columns(tmp_path):
    generator = toy_stylegan2()
    width = generator.style_dim
    factors = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))[0]
    path = write(tmp_path / "factor.pt", saved({"ckpt": "a.pt", "eigvec": factors}))
    found = read_checkpoint(path)
    assert (found.kind, found.family, found.settings["ckpt"]) == ("directions", "sefa", "a.pt")
    assert torch.equal(found.arrays["eigvec"], factors)
    direction = read_published(path, generator, 3)
    assert torch.equal(direction.styles[0], factors[:, 3])


def test_values_of_any_file(tmp_path):
    trainer = rosinality_trainer({"a": torch.arange(6.0).reshape(2, 3)}, size=64)
    trainer["again"] = trainer["g_ema"]
    trainer["more"] = [datetime.datetime(2020, 1, 1), range(3), 1 + 2j, np.float32(0.5), np.ones(2, "f8")]
    trainer["args"] = Namespace(size=64, inner=Namespace(a=(1, [2])), device=torch.device("cpu"))
    for zipped in (True, False):
        found = read_values(write(tmp_path / "a.pt", saved(trainer, zipped)))
        assert torch.equal(found["g_ema"]["a"], trainer["g_ema"]["a"]) and found["again"] is found["g_ema"]
        assert found["args"] == {"size": 64, "inner": {"a": (1, [2])}, "device": None}
        assert found["more"][:4] == [None, None, None, 0.5] and torch.equal(found["more"][4], torch.ones(2).double())
        assert found["g_optim"]["param_groups"] == [{"lr": 0.002, "params": [0]}]
    with pytest.raises(
        CheckpointError, match=r"a\.pt is damaged, or holds more than plain arrays: it refers to os\.system"
    ):
        read_values(write(tmp_path / "a.pt", b"cos\nsystem\n(S'true'\ntR."))
    # A container in itself has nothing in its place.
    assert read_values(write(tmp_path / "a.pt", b"\x80\x02]q\x00h\x00a.")) == [None]
