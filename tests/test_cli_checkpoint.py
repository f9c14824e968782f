"""`saminv inspect` and `saminv convert`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from checkpoint_files import nvidia_pickle, rosinality_trainer, saved, write
from helpers import golden

import saminv
from saminv import cli
from saminv.checkpoints import read_checkpoint
from saminv.encoders import make_encoder, save_encoder


def run(*words) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture
def pickle_file(tmp_path):
    data = golden("sg2ada_b_orig64_cond")
    return write(tmp_path / "network.pkl", nvidia_pickle(data.under("state/"), data.meta["generator_kwargs"]))


def test_inspect_a_generator(pickle_file, capsys):
    generator = saminv.load_generator(pickle_file)
    assert run("inspect", pickle_file, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fingerprint"] == generator.fingerprint and found["family"] == "stylegan2"
    assert found["format"] == "NVIDIA PyTorch pickle" and found["network"] == "G_ema"
    assert (found["resolution"], found["classes"], found["styles"]) == ("64 x 64", 3, "10 x 64")
    assert found["channels"][-1] == "8 at 64" and {"Z", "W+", "F4"} <= set(found["spaces"])
    assert found["settings"]["img_resolution"] == 64 and "mean latent" in found["notes"][0]
    assert run("inspect", pickle_file) == 0
    told = capsys.readouterr().out
    assert generator.fingerprint in told and max(map(len, told.splitlines())) <= 100
    assert run("inspect", pickle_file, "--part", "D", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "discriminator"
    assert run("inspect", pickle_file, "--part", "E") == 2
    assert "no network 'E', but G, D, G_ema" in capsys.readouterr().err


def test_inspect_other_kinds(tmp_path, capsys):
    np.save(tmp_path / "csc.npy", np.ones((1, 18, 512), "f4"))
    assert run("inspect", tmp_path / "csc.npy", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["arrays"], found["parameters"]) == ("directions", 1, 9216)
    assert found["settings"] == {"layout": "W+, 18 x 512"}
    # An encoder of ours has the names of arrays that the published ones have.
    encoder = make_encoder("feature-style", saminv.load_generator("demo"), widths=(4, 4, 4, 4), blocks=(1, 1, 1, 1))
    assert run("inspect", save_encoder(encoder, tmp_path / "mine.safetensors"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["kind"], found["family"]) == ("saminv safetensors", "encoder", "feature-style")
    write(tmp_path / "page.pkl", b"<html>busy</html>")
    assert run("inspect", tmp_path / "page.pkl") == 2
    told = capsys.readouterr().err
    assert "web page" in told and "Supported are" in told and len(told.splitlines()) == 1


def test_convert_keeps_the_fingerprint(pickle_file, tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    assert run("convert", pickle_file, out) == 0
    assert capsys.readouterr().out.strip() == str(out)
    before, after = saminv.load_generator(pickle_file), saminv.load_generator(out)
    assert after.fingerprint == before.fingerprint and torch.equal(after.w_avg, before.w_avg)
    found = read_checkpoint(out)
    assert found.notes[0] == "Converted from network.pkl (NVIDIA PyTorch pickle)."
    assert run("convert", pickle_file, tmp_path / "mine.pt") == 1
    assert "ends in .safetensors" in capsys.readouterr().err
    assert run("convert", tmp_path / "absent.pkl", out) == 2


def test_convert_recomputes_a_mean_latent_once(tmp_path, capsys):
    data = golden("rosi_generator")
    path = write(tmp_path / "a.pt", saved(rosinality_trainer(data.under("state/"))))
    out = tmp_path / "a.safetensors"
    assert run("convert", path, out) == 0
    told = capsys.readouterr().err
    assert "The file has no mean latent." in told and "recomputed, as the mean of mapped noise" in told
    assert saminv.load_generator(out).w_avg.abs().sum() > 0
    assert run("inspect", out, "--json") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert "Converted from a.pt" in notes[0] and "that of mapped noise to 0" in notes[-1]


@pytest.mark.parametrize("kind", ["encoder", "directions", "discriminator"])
def test_convert_what_is_no_generator(tmp_path, capsys, pickle_file, kind):
    path, part = pickle_file, ["--part", "D"]
    if kind == "encoder":
        data, part = golden("e4e_psp_tiny"), []
        content = {"state_dict": data.under("e4e/state/"), "opts": {"encoder_type": "Encoder4Editing"}}
        path = write(tmp_path / "e4e.pt", saved({**content, "latent_avg": data["e4e/in/latent_avg"]}))
    elif kind == "directions":
        path, part = write(tmp_path / "age.pt", saved(torch.ones(1, 512))), []
    before = read_checkpoint(path, *part[1:])
    out = tmp_path / "out.safetensors"
    assert run("convert", path, out, *part) == 0
    after = read_checkpoint(out)
    assert (after.kind, after.family, after.form, after.settings) == (kind, *described(before))
    assert set(after.arrays) == set(before.arrays)
    assert all(torch.equal(x, before.arrays[name]) for name, x in after.arrays.items())
    if kind == "encoder":
        assert saminv.load_generator(out).fingerprint == saminv.load_generator(path).fingerprint
        assert read_checkpoint(out, "decoder").kind == "generator"


def described(checkpoint) -> tuple:
    return checkpoint.family, checkpoint.form, checkpoint.settings
