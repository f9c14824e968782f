"""saminv.invert refuses what makes no sense, and says what would."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import toy_stylegan2

import saminv
from saminv import CheckpointError, GivenInvertibility, GivenRegions, ImageError, InputError, Regions

QUICK = {"metric": "mse", "segmenter": "none", "steps": 2, "encoder": "mean", "device": "cpu"}
SPACES = ("W+", "F4", "F6")


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def conditional():
    return toy_stylegan2(label_dim=3)


@pytest.fixture(scope="module")
def pictures(generator):
    return generator.synthesis(generator.mapping(generator.sample_z(3, seed=77))).clamp(-1, 1)


@pytest.fixture()
def quick(generator):
    def run(img, **settings):
        return saminv.invert(img, **({"generator": generator, "spaces": SPACES} | QUICK | settings))

    return run


def broken_files(folder: Path) -> dict[str, Path]:
    (folder / "text.png").write_text("This is no picture.")
    (folder / "empty.png").write_bytes(b"")
    whole = folder / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    (folder / "cut.jpg").write_bytes(whole.read_bytes()[:700])
    return {
        "missing": folder / "absent.png",
        "folder": folder,
        "text": folder / "text.png",
        "empty": folder / "empty.png",
        "cut": folder / "cut.jpg",
    }


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "cut"])
def test_files_that_are_no_pictures(quick, tmp_path, kind):
    path = broken_files(tmp_path)[kind]
    for given in (path, str(path), [path]):
        with pytest.raises(ImageError) as caught:
            quick(given)
        assert str(path) in str(caught.value)


NAN = torch.zeros(3, 32, 32).index_fill(1, torch.tensor([4]), torch.nan)
BAD_PICTURES = {
    "nothing": (None, "image is of type NoneType"),
    "number": (5, "image is of type int"),
    "bytes": (b"abc", "image is of type bytes"),
    "dict": ({"a": np.zeros((32, 32, 3), np.uint8)}, "image is of type dict"),
    "empty list": ([], "list of pictures is empty; pass at least one"),
    "list of nothing": ([None], "image0 is of type NoneType"),
    "empty batch": (torch.zeros(0, 3, 32, 32), "batch of no images"),
    "five axes": (torch.zeros(1, 1, 3, 32, 32), "has shape"),
    "one axis": (torch.zeros(32), "has shape"),
    "five channels": (torch.zeros(5, 32, 32), "has shape"),
    "one pixel": (np.zeros((1, 1, 3), np.uint8), "at least 8"),
    "not a number": (NAN, "NaN or infinite"),
    "infinite": (NAN.nan_to_num(torch.inf), "NaN or infinite"),
    "0 to 255": (torch.linspace(0, 255, 3072).reshape(3, 32, 32), "0..255"),
    "out of range": (torch.linspace(-3, 3, 3072).reshape(3, 32, 32), r"floats are \[-1, 1\]"),
    "bool": (torch.zeros(3, 32, 32, dtype=torch.bool), "dtype bool"),
    "complex": (np.zeros((32, 32, 3), complex), "dtype complex128"),
    "negative integers": (np.full((32, 32, 3), -4), "integers are 0..255"),
    "words": (np.full((32, 32, 3), "a"), "dtype <U1"),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_things_that_are_no_pictures(quick, kind):
    thing, words = BAD_PICTURES[kind]
    with pytest.raises(InputError, match=words):
        quick(thing)


def test_floats_from_0_to_1_are_warned_of(quick):
    with pytest.warns(UserWarning, match="no negative value.*pass x \\* 2 - 1"):
        quick(torch.linspace(0, 1, 3072).reshape(3, 32, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(torch.linspace(-1, 1, 3072).reshape(3, 32, 32))
        quick(np.full((32, 32, 3), 200, np.uint8))


BAD_SETTINGS = {
    "unknown space": ({"spaces": ["F9"]}, r"Unknown space 'F9'.*offers:.*F0, F1, F2, F3, F4, F5, F6"),
    "another unknown space": ({"spaces": ["W+", "Q5"]}, "Unknown space 'Q5'"),
    "no spaces": ({"spaces": []}, "spaces is empty"),
    "one site twice": ({"spaces": ["W", "W+"]}, "W and W\\+ both set the site 'styles'"),
    "one space twice": ({"spaces": ["W+", "F4", "F4"]}, "F4 twice"),
    "numbers for spaces": ({"spaces": [4, 6]}, "named by a string"),
    "block without place": ({"tap_point": "block", "spaces": ["F6"]}, "F6 has no place.*F0, F2, F4"),
    "unknown generator": ({"generator": "nobody"}, "Unknown generator 'nobody'. Known: .*demo"),
    "nearly a generator": ({"generator": "demmo"}, "Did you mean 'demo'"),
    "generator of another type": ({"generator": 3}, "Unknown generator '3'"),
    "unknown metric": ({"metric": "lpips"}, "Unknown metric 'lpips'. Known: .*lpips-vgg.*Did you mean"),
    "unknown segmenter": ({"segmenter": "sam2"}, "Unknown segmenter 'sam2'. Known: ade20k, .*demo, .*felzenszwalb"),
    "no label file": ({"segmenter": "absent.png"}, "no file absent.png"),
    "float labels": ({"segmenter": np.zeros((32, 32))}, "Labels must be integers"),
    "labels of another shape": ({"segmenter": np.zeros((32, 16), int)}, "does not fit"),
    "labels of another batch": ({"segmenter": np.zeros((2, 32, 32), int)}, "2 label maps for 3 images"),
    "unknown device": ({"device": "gpu"}, "Unknown device 'gpu'; use 'auto', 'cpu' or 'cuda'"),
    "no device": ({"device": None}, "Unknown device None"),
    "unknown encoder": ({"encoder": "e4e"}, "encoder='e4e' is unknown"),
    "styles of another shape": ({"encoder": torch.zeros(5, 12)}, r"Start styles must be \[8, 12\] or \[3, 8, 12\]"),
    "unknown formulation": ({"formulation": "mine"}, "formulation must be one of paper, published; got 'mine'"),
    "unknown tap point": ({"tap_point": "end"}, "tap_point must be one of layer, block; got 'end'"),
    "unknown skip": ({"skip": "none"}, "skip must be one of blend, published; got 'none'"),
    "unknown noise": ({"noise": "white"}, "noise must be one of const, random, none; got 'white'"),
    "unknown fit": ({"fit_mode": "stretch"}, "'auto', 'crop' or 'letterbox'"),
    "unknown invertibility": ({"invertibility": "guessed"}, "invertibility='guessed' is unknown; use 'measured'"),
    "maps missing": ({"invertibility": GivenInvertibility({"W+": np.zeros((32, 32))})}, "No error map for F4, F6"),
    "regions missing": ({"invertibility": GivenRegions(np.zeros((32, 32), int), ["W+", "F4"])}, "differ at F6"),
    "regions to spare": (
        {"invertibility": GivenRegions(np.zeros((32, 32), int), ["W+", "F4", "F5", "F6"])},
        "differ at F5",
    ),
    "regions of one": ({"invertibility": Regions.uniform(1, (32, 32), ["W+", "F4", "F6"], "W+")}, "regions are for 1"),
    "regions too small": ({"invertibility": Regions.uniform(3, (8, 8), ["W+", "F4", "F6"], "W+")}, "GivenRegions"),
    "negative tau": ({"tau": -0.1}, "tau must be a number >= 0"),
    "tau not a number": ({"tau": math.nan}, "tau must be a number >= 0"),
    "tau as text": ({"tau": "0.3"}, "tau must be a number >= 0"),
    "negative steps": ({"steps": -1}, "steps must be a whole number from 0 up, got -1"),
    "broken steps": ({"steps": 1.5}, "steps must be a whole number from 0 up, got 1.5"),
    "true steps": ({"steps": True}, "steps must be a whole number"),
    "steps as text": ({"steps": "10"}, "steps must be a whole number"),
    "no rate": ({"rate": 0}, "learning rate must be a positive number"),
    "rate not a number": ({"rates": {"F4": math.nan}}, "learning rate must be a positive number"),
    "negative weight": ({"weights": {"l2": -1}}, "weight of 'l2' must be a number from 0 up"),
    "label for nothing": ({"label": 1}, "takes no label; leave label=None"),
    "label for nothing, nearest": ({"label": 1, "encoder": "nearest"}, "takes no label; leave label=None"),
}


@pytest.mark.parametrize("kind", BAD_SETTINGS)
def test_settings_that_make_no_sense(quick, pictures, kind):
    settings, words = BAD_SETTINGS[kind]
    with pytest.raises(InputError, match=words):
        quick(pictures, **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_where_there_is_none(quick, pictures):
    with pytest.raises(InputError, match="torch sees no CUDA device here; use device='cpu' or 'auto'"):
        quick(pictures, device="cuda")


@pytest.mark.parametrize(
    "label, words",
    [
        (None, "needs a label: a class number below 3 or a vector"),
        (3, "label 3 is not among the 3 classes"),
        (-1, "label -1 is not among the 3 classes"),
        (torch.ones(2), r"label has shape \[2\]"),
    ],
)
def test_labels_that_do_not_fit(conditional, pictures, label, words):
    for encoder in ("mean", "nearest"):
        with pytest.raises(InputError, match=words):
            saminv.invert(pictures, generator=conditional, **QUICK | {"label": label, "encoder": encoder})


def test_generator_files_that_are_none(quick, pictures, tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        quick(pictures, generator=tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no generator")
    with pytest.raises(CheckpointError, match="it is a text"):
        saminv.load_generator(tmp_path / "text.safetensors")
    solution = quick(pictures[:1])
    with pytest.raises(CheckpointError, match="holds no generator, but a solution"):
        saminv.load_generator(solution.save(tmp_path / "s.safetensors"))


def test_a_start_of_another_generator_or_batch(quick, pictures):
    solution = quick(pictures)
    with pytest.raises(InputError, match="has 3 images, but there are 1 pictures"):
        quick(pictures[:1], encoder=solution)
    with pytest.raises(InputError, match=r"another generator|styles must be \[3, 6, 12\], got \[3, 8, 12\]"):
        quick(pictures, encoder=solution, generator=toy_stylegan2(resolution=16), spaces=["W+", "F4"])


FURTHER_SETTINGS = {
    "a string for spaces": ({"spaces": "W+"}, InputError, r"list of names, for example \['W\+'\]"),
    "a letter for spaces": ({"spaces": "W"}, InputError, "list of names"),
    "a number for spaces": ({"spaces": 4}, InputError, "list of names"),
    "a metric that is better when higher": ({"metric": "psnr"}, InputError, "psnr"),
    "another one": ({"metric": "ssim"}, InputError, "ssim"),
    "no metric": ({"metric": None}, InputError, "metric"),
    "labels without labels": ({"segmenter": "labels"}, InputError, "label image"),
    "styles of another batch": ({"encoder": torch.zeros(2, 8, 12)}, InputError, r"\[3, 8, 12\]"),
    "styles that are not finite": ({"encoder": torch.full((8, 12), torch.nan)}, InputError, "finite"),
    "styles of numpy, wrong": ({"encoder": np.zeros((5, 12))}, InputError, "Start styles must be"),
    "seed as text": ({"seed": "a"}, InputError, "seed"),
    "no seed": ({"seed": None}, InputError, "seed"),
    "broken seed": ({"seed": 1.5}, InputError, "seed"),
    "huge seed": ({"seed": 2**70}, InputError, "seed"),
    "no weight": ({"weights": {"l2": None}}, InputError, "weight of 'l2'"),
    "weight as text": ({"weights": {"l2": "much"}}, InputError, "weight of 'l2'"),
    "weight of nothing": ({"weights": {"percptual": 1.0}}, InputError, "percptual.*l2"),
    "no weight at all": ({"weights": dict.fromkeys(["l2", "perceptual"], 0.0)}, InputError, "l2.*perceptual"),
    "rate of nothing": ({"rates": {"F9": 0.1}}, InputError, r"W\+, F4, F6.*F9"),
    "rates without names": ({"rates": [0.1]}, InputError, "rates"),
    "label as text": ({"label": "auto"}, InputError, "label"),
    "device without numbers": ({"device": "meta"}, InputError, "Unknown device 'meta'"),
}


@pytest.mark.parametrize("kind", FURTHER_SETTINGS)
def test_further_settings_that_make_no_sense(pictures, kind):
    settings, expected, words = FURTHER_SETTINGS[kind]
    with pytest.raises(expected, match=words):
        saminv.invert(pictures, **({"generator": toy_stylegan2(), "spaces": SPACES} | QUICK | settings))


@pytest.mark.parametrize("label", ["auto", 1.5, torch.eye(3), torch.tensor([0.0, torch.nan, 1.0])])
def test_further_labels_that_do_not_fit(conditional, pictures, label):
    for encoder in ("mean", "nearest"):
        with pytest.raises(InputError, match="label"):
            saminv.invert(pictures, generator=conditional, **QUICK | {"label": label, "encoder": encoder})
