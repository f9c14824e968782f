"""Every published form is read: the network that a file holds makes the pictures of the code that it is from."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
import torch
from checkpoint_files import (
    as_tensorflow,
    nvidia_generator,
    nvidia_pickle,
    rosinality_trainer,
    saved,
    tensorflow_pickle,
    write,
)
from helpers import assert_close, golden, relative_difference
from toys import toy_stylegan2

import saminv
from saminv import CheckpointError
from saminv.checkpoints import read_checkpoint

SG2 = ("sg2ada_a_skip128", "sg2ada_b_orig64_cond", "sg2ada_c_resnet32_clamp")
TENSORFLOW_STYLEGAN2 = ("G_main", "G_synthesis_stylegan2", "G_mapping")


def check_pictures(generator, data, tolerance=1e-5):
    """The generator makes what NVIDIA's StyleGAN2 makes."""
    label = data["in/c"] if data["in/c"].shape[1] else None
    assert_close(generator.mapping(data["in/z"], label, 0.7), data["map/ws_psi0.7"], tolerance)
    assert_close(generator.synthesis(data["in/wplus"]), data["syn_wplus/img"], tolerance)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", SG2)
def test_nvidia_stylegan2(name, protocol, tmp_path):
    data = golden(name)
    kwargs = data.meta["generator_kwargs"]
    path = write(tmp_path / "network.pkl", nvidia_pickle(data.under("state/"), kwargs, protocol))
    found = read_checkpoint(path)
    assert (found.kind, found.family, found.names, found.part) == ("generator", "stylegan2", "nvlabs", "G_ema")
    assert found.parts == ("G", "D", "G_ema") and found.settings["img_resolution"] == kwargs["img_resolution"]
    assert {name: tuple(x.shape) for name, x in found.arrays.items()} == {
        name: tuple(x.shape) for name, x in data.under("state/").items()
    }
    check_pictures(saminv.load_generator(path), data)


def test_networks_of_an_nvidia_pickle_by_name(tmp_path):
    data = golden(SG2[2])
    state = data.under("state/")
    path = write(tmp_path / "network.pkl", nvidia_pickle(state, data.meta["generator_kwargs"]))
    other = read_checkpoint(path, "G")
    assert other.part == "G" and torch.equal(other.arrays["mapping.w_avg"], state["mapping.w_avg"] + 1)
    assert read_checkpoint(path, "D").kind == "discriminator"
    with pytest.raises(CheckpointError, match="no network 'G_best', but G, D, G_ema"):
        read_checkpoint(path, "G_best")
    path = write(tmp_path / "old.pkl", nvidia_pickle(state, data.meta["generator_kwargs"], averaged=False))
    assert read_checkpoint(path).part == "G"


@pytest.mark.parametrize("zipped", [True, False])
def test_nvidia_module_saved_whole(tmp_path, zipped):
    data = golden(SG2[0])
    module = nvidia_generator(data.under("state/"), data.meta["generator_kwargs"])
    path = write(tmp_path / "model.pt", saved(module, zipped))
    assert read_checkpoint(path).form == "PyTorch module saved whole"
    check_pictures(saminv.load_generator(path), data)


def test_state_dictionary_of_nvidia(tmp_path):
    data = golden(SG2[0])
    path = write(tmp_path / "state.pt", saved(data.under("state/")))
    check_pictures(saminv.load_generator(path), data)


def test_what_settings_and_arrays_contradict_each_other_in_is_refused(tmp_path):
    data = golden(SG2[0])
    state, kwargs = data.under("state/"), data.meta["generator_kwargs"]
    wrong = [
        ({**kwargs, "img_resolution": 256}, state, "img_resolution 256, but its arrays 128"),
        ({**kwargs, "z_dim": 512}, state, "z_dim 512, but its arrays 64"),
        ({**kwargs, "mapping_kwargs": {"num_layers": 8}}, state, "num_layers 8, but its arrays 2"),
        ({**kwargs, "synthesis_kwargs": {"architecture": "resnet"}}, state, "'resnet', but its arrays are skip"),
        (kwargs, {**state, "synthesis.b8.conv0.resample_filter": torch.ones(4, 4) / 16}, "not the filter 1, 3, 3, 1"),
    ]
    for settings, arrays, message in wrong:
        path = write(tmp_path / "network.pkl", nvidia_pickle(arrays, settings))
        with pytest.raises(CheckpointError, match=message):
            saminv.load_generator(path)


def tf_static(data):
    return {**data.meta["cfg"], **{k: v for k, v in data.meta["g_args"].items() if k != "func_name"}}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensorflow_stylegan2(tmp_path, protocol):
    data = golden("sg2_tf_legacy")
    content = tensorflow_pickle(data.under("expected_vars/Gs/"), tf_static(data), TENSORFLOW_STYLEGAN2, protocol)
    path = write(tmp_path / "network.pkl", content)
    found = read_checkpoint(path)
    assert (found.family, found.names, found.part) == ("stylegan2", "tensorflow", "Gs")
    generator = saminv.load_generator(path)
    worst = 0.0
    w = data["expected/dlatents"]
    for got, expected in (
        (generator.mapping(data["in/z"]), w),
        (generator.synthesis(w), data["expected/img_psi1"]),
        (generator.synthesis(data["in/wplus"]), data["expected/img_wplus"]),
        (generator(data["in/z"], truncation=0.5), data["expected/img_default_truncation"]),
        (
            generator.synthesis(generator.mapping(data["in/z"], truncation=0.7, truncation_cutoff=8)),
            data["expected/img_psi0.7_cutoff8"],
        ),
    ):
        worst = max(worst, relative_difference(got, expected))
    print(f"sg2_tf_legacy, protocol {protocol}: worst relative error {worst:.1e}")
    assert worst <= 2e-5
    assert read_checkpoint(path, "D").kind == "discriminator"


@pytest.mark.parametrize(("name", "lods"), [(SG2[0], False), (SG2[1], False), (SG2[1], True), (SG2[2], False)])
def test_other_architectures_of_tensorflow(tmp_path, name, lods):
    """Skip, residual and original connections, labels, clamps, and networks that have grown up (config B to D)."""
    data = golden(name)
    clamp = data.meta["generator_kwargs"]["synthesis_kwargs"].get("conv_clamp")
    multiplier = data.meta["generator_kwargs"]["mapping_kwargs"].get("lr_multiplier", 0.01)
    static = {"conv_clamp": clamp, "mapping_lrmul": multiplier}
    content = tensorflow_pickle(as_tensorflow(data.under("state/"), lods), static, TENSORFLOW_STYLEGAN2)
    check_pictures(saminv.load_generator(write(tmp_path / "network.pkl", content)), data)


def test_tensorflow_networks_that_cannot_be_represented_are_refused(tmp_path):
    data = golden("sg2_tf_legacy")
    variables, static = data.under("expected_vars/Gs/"), tf_static(data)
    wrong = [
        ({"G_mapping/LabelConcat/bias": torch.ones(3)}, {}, "mapping_network.embed.bias"),
        ({"lod": torch.tensor(2.5)}, {}, "saved while it grew"),
        ({}, {"resample_kernel": [1, 2, 1]}, "resample_kernel"),
        ({}, {"nonlinearity": "relu"}, "nonlinearity"),
        ({}, {"resolution": 128}, "resolution 128"),
        ({"G_synthesis/4x4/Conv/gain": torch.ones(1)}, {}, "4x4/Conv/gain"),
        ({"G_synthesis/8x8/Conv1/weight": torch.ones(3)}, {}, "impossible shape"),
    ]
    for arrays, settings, message in wrong:
        content = tensorflow_pickle({**variables, **arrays}, {**static, **settings}, TENSORFLOW_STYLEGAN2)
        with pytest.raises(CheckpointError, match=message):
            saminv.load_generator(write(tmp_path / "network.pkl", content))


def test_rosinality_stylegan2(tmp_path):
    data = golden("rosi_generator")
    state = data.under("state/")
    path = write(tmp_path / "converted.pt", saved({"g_ema": state, "latent_avg": data["in/latent_avg"]}))
    generator = saminv.load_generator(path)
    assert read_checkpoint(path).part == "g_ema" and not read_checkpoint(path).notes
    assert_close(generator(data["in/z"]), data["img/noise_buffers"], 1e-5)
    assert_close(generator(data["in/z"], truncation=0.7), data["img/trunc0.7"], 1e-5)


@pytest.mark.parametrize("zipped", [True, False])
def test_rosinality_trainer_files_get_a_mean_latent(tmp_path, zipped):
    data = golden("rosi_generator")
    trainer = rosinality_trainer(data.under("state/"), size=64, latent=48, n_mlp=2)
    path = write(tmp_path / "000100.pt", saved(trainer, zipped))
    found = read_checkpoint(path)
    assert found.part == "g_ema" and found.parts == ("g_ema", "g") and found.settings["size"] == 64
    assert found.notes == ("The file has no mean latent.",)
    generator = saminv.load_generator(path)
    mean = generator.statistics().mean_w
    deviation = generator.mapping(generator.sample_z(2000, 5))[:, 0].std(dim=0)
    assert ((generator.w_avg - mean) / deviation).abs().max() < 0.1
    assert_close(generator(data["in/z"]), data["img/noise_buffers"], 1e-5)
    trainer["args"].size = 128
    with pytest.raises(CheckpointError, match="size 128, but its arrays 64"):
        saminv.load_generator(write(path, saved(trainer)))


def test_hammer_and_padinv(tmp_path):
    data = golden("padinv_generator")
    state, kwargs = data.under("state/"), data.meta["kwargs"]
    hammer = {"models": {"generator": state, "generator_smooth": state, "discriminator": {"a": torch.ones(1)}}}
    path = write(tmp_path / "hammer.pth", saved(hammer))
    generator = saminv.load_generator(path)
    assert read_checkpoint(path).part == "generator_smooth"
    assert_close(generator.synthesis(data["in/wplus"]), data["none/img"], 1e-5)
    encoder = golden("padinv_encoder").under("state/")
    trainer = {
        "models": {"generator": state, "generator_smooth": state, "encoder": encoder},
        "model_kwargs_init": {"generator": kwargs, "generator_smooth": kwargs, "encoder": {"resolution": 256}},
        "running_metadata": {"iter": 5, "seen_img": 40},
    }
    path = write(tmp_path / "checkpoint.pth", saved(trainer))
    found = read_checkpoint(path)
    assert (found.kind, found.family, found.settings) == ("encoder", "padinv", {"resolution": 256})
    assert set(found.arrays) == set(encoder) and found.decoder is not None and found.decoder.settings == kwargs
    assert_close(saminv.load_generator(path).synthesis(data["in/wplus"]), data["none/img"], 1e-5)
    assert read_checkpoint(path, "generator").kind == "generator"


def test_genforce_keeps_the_values_of_tensorflow(tmp_path):
    data = golden("padinv_generator")
    state = {name.replace("w_avg", "truncation.w_avg"): x for name, x in data.under("state/").items()}
    for name, x in state.items():
        if name.endswith(".style.bias"):
            state[name] = x - 1
        elif name.startswith("synthesis.layer") and name.endswith(".weight") and int(name.split(".")[1][5:]) % 2:
            state[name] = x.flip(2, 3) if x.dim() == 4 else x
    path = write(tmp_path / "a.pth", saved({"generator": state, "generator_smooth": state, "discriminator": {}}))
    assert_close(saminv.load_generator(path).synthesis(data["in/wplus"]), data["none/img"], 1e-5)


def encoder_file(data, method, **more):
    opts = {"encoder_type": method, "stylegan_size": 64, "learn_in_w": False, "device": "cuda", **more}
    part = "e4e" if method == "Encoder4Editing" else "psp"
    average = data[f"{part}/in/latent_avg"]
    return {"state_dict": OrderedDict(data.under(f"{part}/state/")), "latent_avg": average, "opts": opts}


@pytest.mark.parametrize(
    ("method", "family"),
    [("Encoder4Editing", "e4e"), ("GradualStyleEncoder", "psp"), ("ProgressiveBackboneEncoder", "restyle")],
)
def test_encoders_with_their_generator(tmp_path, method, family):
    data = golden("e4e_psp_tiny")
    content = encoder_file(data, method)
    content["opts"] = Namespace(**content["opts"]) if family == "psp" else content["opts"]
    path = write(tmp_path / "encoder.pt", saved(content))
    found = read_checkpoint(path)
    assert (found.kind, found.family, found.parts) == ("encoder", family, ("encoder", "decoder"))
    assert found.settings["encoder_type"] == method and found.arrays["latent_avg"].shape == (10, 24)
    assert all(f"encoder.{name}" in content["state_dict"] for name in found.arrays if name != "latent_avg")
    generator = saminv.load_generator(path)
    part = "e4e" if family == "e4e" else "psp"
    assert_close(generator.synthesis(data[f"{part}/out/latents"]), data[f"{part}/out/img"], 2e-5)
    assert read_checkpoint(path, "decoder").kind == "generator"
    unnamed = {**content, "opts": {"label_nc": 0}}
    assert "does not say which method" in read_checkpoint(write(path, saved(unnamed))).notes[0]


def test_feature_style_encoder(tmp_path):
    state = golden("fse_encoder").under("state/")
    for content in (state, {"n_epoch": 3, "enc_state_dict": state, "enc_opt_state_dict": {}}):
        path = write(tmp_path / "enc.pth.tar", saved(content, zipped=False))
        found = read_checkpoint(path)
        assert (found.kind, found.family) == ("encoder", "feature-style") and set(found.arrays) == set(state)
    with pytest.raises(CheckpointError, match="holds no generator, but an encoder without its generator"):
        saminv.load_generator(path)


def test_sam_invertibility(tmp_path):
    data = golden("sam_invertibility")
    spaces = ("W+", "F4", "F6", "F8", "F10")
    content = {"sd_base": data.under("sd_base/"), **{space: data.under(f"{space}/") for space in spaces}}
    path = write(tmp_path / "invertibility.pt", saved(content))
    found = read_checkpoint(path)
    assert (found.kind, found.settings) == ("invertibility", {"spaces": list(spaces)})
    assert torch.equal(found.arrays["F8.m.3.bias"], data["F8/m.3.bias"])
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    for name, table in content.items():
        file = "003_main.pt" if name == "sd_base" else f"003_head_{name}.pt"
        write(pieces / file, saved({f"module.{key}": x for key, x in table.items()}))
    assert set(read_checkpoint(pieces).arrays) == set(found.arrays)
    assert "shared part" in read_checkpoint(pieces / "003_main.pt").form


def test_directions(tmp_path):
    rows = np.random.default_rng(0).normal(size=(1, 18, 512)).astype("f4")
    np.save(tmp_path / "csc.npy", rows)
    np.save(tmp_path / "boundary.npy", rows[:, 0])
    np.save(tmp_path / "fse.npy", rows.reshape(1, -1))
    np.savez(tmp_path / "one.npz", direction=rows[0, 0])
    write(tmp_path / "age.pt", saved(torch.from_numpy(rows[:, 0])))
    layouts = {"csc.npy": "W+, 18 x 512", "boundary.npy": "W, 512", "fse.npy": "W+, flattened, 18 x 512"}
    for name, layout in {**layouts, "one.npz": "W, 512", "age.pt": "W, 512"}.items():
        found = read_checkpoint(tmp_path / name)
        (array,) = found.arrays.values()
        assert (found.kind, found.settings["layout"]) == ("directions", layout), name
        assert np.array_equal(array.flatten().numpy(), rows.flatten()[: array.numel()])
    components = {"mean": torch.zeros(1, 8), "comp": torch.randn(5, 1, 8), "std": torch.ones(5)}
    found = read_checkpoint(write(tmp_path / "ganspace.pt", saved(components)))
    assert found.family == "ganspace" and found.arrays["components"].shape == (5, 8)
    arrays = {f"act_{name}": x.numpy() for name, x in (("mean", components["mean"]), ("comp", components["comp"]))}
    np.savez(tmp_path / "ganspace.npz", act_stdev=np.ones(5, "f4"), **arrays, lat_mean=np.zeros((1, 8), "f4"))
    assert read_checkpoint(tmp_path / "ganspace.npz").family == "ganspace"
    np.save(tmp_path / "picture.npy", np.zeros((68, 18, 512), "f4"))
    with pytest.raises(CheckpointError, match=r"an array of shape \[68, 18, 512\]"):
        read_checkpoint(tmp_path / "picture.npy")


def test_own_files_and_the_fingerprint(tmp_path):
    from saminv.generators import save_generator

    generator = toy_stylegan2()
    path = save_generator(generator, tmp_path / "toy.safetensors")
    assert read_checkpoint(path).form == "saminv safetensors"
    assert saminv.load_generator(path).fingerprint == generator.fingerprint
    # The content decides, whatever the name is.
    assert saminv.load_generator(path.rename(tmp_path / "toy.pkl")).fingerprint == generator.fingerprint


def test_biggan_folders(tmp_path):
    data = golden("biggan")
    write(tmp_path / "pytorch_model.bin", saved(OrderedDict(data.under("state/"))))
    with pytest.raises(CheckpointError, match="folder of something else"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json must lie beside it"):
        read_checkpoint(tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(data.meta["config"]))
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        found = read_checkpoint(path)
        assert (found.family, found.names, found.settings) == ("biggan_deep", "huggingface", data.meta["config"])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"configuration config\.json is damaged"):
        read_checkpoint(tmp_path)


def family_module(name):
    return pytest.importorskip(f"saminv.generators.{name}", reason=f"there is no generator {name} yet")


def test_biggan_pictures(tmp_path):
    family_module("biggan_deep")
    data = golden("biggan")
    write(tmp_path / "pytorch_model.bin", saved(OrderedDict(data.under("state/"))))
    (tmp_path / "config.json").write_text(json.dumps(data.meta["config"]))
    generator = saminv.load_generator(tmp_path)
    styles = generator.mapping(data["in/z"], data["in/class_onehot"])
    assert_close(generator.synthesis(styles, truncation=0.4), data["img/onehot_t0.4"], 2e-4)


def test_tensorflow_stylegan1(tmp_path):
    data = golden("sg1_tf_legacy")
    content = tensorflow_pickle(
        data.under("expected_vars/Gs/"), tf_static(data), ("G_style", "G_synthesis", "G_mapping")
    )
    path = write(tmp_path / "network.pkl", content)
    assert (read_checkpoint(path).family, read_checkpoint(path).names) == ("stylegan1", "tensorflow")
    family_module("stylegan1")
    generator = saminv.load_generator(path)
    assert_close(generator.synthesis(data["in/wplus"]), data["expected/img_wplus"], 5e-5)


def test_genforce_stylegan1(tmp_path):
    data = golden("sg1_genforce")
    state = data.under("state/")
    path = write(tmp_path / "a.pth", saved({"generator": state, "generator_smooth": state, "discriminator": {}}))
    assert (read_checkpoint(path).family, read_checkpoint(path).names) == ("stylegan1", "genforce")
    family_module("stylegan1")
    assert_close(saminv.load_generator(path).synthesis(data["in/wplus"]), data["img/wplus"], 3e-5)


def test_rosinality_stylegan1(tmp_path):
    data = golden("sg1_rosinality")
    state = data.under("state/")
    for content in (state, {"generator": state, "discriminator": {}, "g_running": state}):
        path = write(tmp_path / "stylegan-256px.model", saved(content, zipped=False))
        found = read_checkpoint(path)
        assert (found.family, found.names) == ("stylegan1", "rosinality")
    assert found.part == "g_running"
    # A network for 64 pixels has blocks up to 1024 too, which were never trained.
    few = {n: x * (0 if ".noise" in n and int(n.split(".")[2]) > 4 else 1) for n, x in state.items()}
    grown = write(tmp_path / "64px.model", saved(few))
    found = read_checkpoint(grown)
    assert found.settings["step"] == 4 and "above 64 pixels" in found.notes[0]
    family_module("stylegan1")
    assert saminv.load_generator(path).z_dim == data["in/z"].shape[1]
    assert saminv.load_generator(grown).image_size == (64, 64)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("name", ["sg3_t64", "sg3_r64"])
def test_nvidia_stylegan3(tmp_path, name, protocol):
    data = golden(name)
    content = nvidia_pickle(data.under("state/"), data.meta["generator_kwargs"], protocol)
    path = write(tmp_path / "network.pkl", content)
    found = read_checkpoint(path)
    assert (found.family, found.names) == ("stylegan3", "nvlabs")
    assert found.settings.items() >= data.meta["generator_kwargs"].items()
    assert set(found.arrays) == set(data.under("state/"))
    family_module("stylegan3")
    assert_close(saminv.load_generator(path).synthesis(data["in/wplus"]), data["img/wplus"], 2e-5)


def test_nothing_of_a_file_is_imported_to_read_it(tmp_path):
    """What is read here cannot be read by Python's own reader, for its modules are not there."""
    data = golden(SG2[2])
    path = write(tmp_path / "network.pkl", nvidia_pickle(data.under("state/"), data.meta["generator_kwargs"]))
    with pytest.raises(ModuleNotFoundError), open(path, "rb") as file:
        pickle.load(file)
    assert read_checkpoint(path).family == "stylegan2"
