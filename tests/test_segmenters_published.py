"""Segmenters with published weights: layouts of the files, reading them safely, and what is said when they lack."""

from __future__ import annotations

import hashlib
import os
import pickle
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segmenter_states import ade20k_decoder, ade20k_encoder, face_parser

from saminv._errors import CheckpointError, InputError, WeightsError
from saminv.segment import SEGMENTERS
from saminv.segment.ade20k import FILES, FOLDER, ADE20KSegmenter
from saminv.segment.bisenet import FILE as FACE_FILE
from saminv.segment.bisenet import FaceParser
from saminv.segment.detectron2 import PUBLISHED
from saminv.segment.torchvision import DEEPLAB_FILES, LRASPP_FILE, MASKRCNN_FILE
from saminv.weights import published
from saminv.weights.published import WeightFile, fit, read_state

ADDRESS = "https://example.org/models/net.pth"


def waves(height: int = 72, width: int = 88) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([torch.sin(5 * x + 2 * y), x * y, torch.cos(4 * y - x)])[None]


@pytest.fixture(scope="module")
def ade_parts():
    return ade20k_encoder(1), ade20k_decoder(2)


@pytest.fixture(scope="module")
def face_state():
    return face_parser(3)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty weights folder, and no network."""

    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("SAMINV_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("saminv.weights._fetch.time.sleep", lambda _: None)
    return tmp_path / "weights"


# Layouts


def test_layout_of_the_ade20k_files(ade_parts):
    """Counts, names and shapes as the authors' modules have them."""
    encoder, decoder = ade_parts
    assert (len(encoder), len(decoder)) == (330, 40)
    assert encoder["conv3.weight"].shape == (128, 64, 3, 3) and encoder["layer1.0.conv1.weight"].shape == (
        64,
        128,
        1,
        1,
    )
    assert encoder["layer4.0.downsample.0.weight"].shape == (2048, 1024, 1, 1)
    assert decoder["conv_last.0.weight"].shape == (512, 4096, 3, 3) and decoder["conv_last.4.bias"].shape == (150,)


def test_ade20k_computes_what_the_authors_modules_compute(ade_parts):
    """Numbers of the authors' modules with these weights on this image; the first are features, then logits."""
    network = ADE20KSegmenter(weights=ade_parts).network
    with torch.no_grad():
        features = network.encoder(waves())
        logits = network.decoder(features)
    assert features.shape == (1, 2048, 9, 11) and logits.shape == (1, 150, 9, 11)
    expected = [464.599, 0.0, 0.0, 471.9334, 157.9297, 1426.1589]
    assert features[0, ::401, 4, 5].tolist() == pytest.approx(expected, rel=1e-4)
    expected = [216.1754, 852.0448, 303.4818, 121.3446, -54.0954]
    assert logits[0, 1::30, 3, 7].tolist() == pytest.approx(expected, rel=1e-4)


def test_face_parser_computes_what_the_authors_module_computes(face_state):
    assert len(face_state) == 191 and face_state["cp.arm32.conv_atten.weight"].shape == (128, 128, 1, 1)
    assert sum(not name.endswith("tracked") for name in face_state) == 160
    with torch.no_grad():
        logits = FaceParser(weights=face_state).network(waves())
    assert logits.shape == (1, 19, 72, 88)
    expected = [46.2099, 29.5273, 25.6809, -77.4407, -62.0291]
    assert logits[0, ::4, 30, 41].tolist() == pytest.approx(expected, rel=1e-4)


def test_ade20k_takes_its_weights_in_several_forms(ade_parts, tmp_path, monkeypatch):
    folder = tmp_path / "weights" / FOLDER
    folder.mkdir(parents=True)
    for part, state in zip(FILES, ade_parts, strict=True):
        torch.save({f"module.{name}": value for name, value in state.items()}, folder / f"{part}_epoch_20.pth")
        assert (folder / f"{part}_epoch_20.pth").stat().st_size >= FILES[part].minimal_size
    monkeypatch.setenv("SAMINV_WEIGHTS", str(tmp_path / "weights"))
    both = {
        f"{part}.{name}": value for part, state in zip(FILES, ade_parts, strict=True) for name, value in state.items()
    }
    forms = [None, str(folder), (folder / "encoder_epoch_20.pth", ade_parts[1]), both]
    segments = [ADE20KSegmenter(weights=form, size=64)(waves(40, 51)) for form in forms]
    assert segments[0].ids.shape == (1, 40, 51) and len(segments[0].names) == segments[0].count().item()
    assert set(segments[0].names.values()) <= set(ADE20KSegmenter(weights=both).names)
    assert all(other.ids.equal(segments[0].ids) for other in segments[1:])
    with pytest.raises(InputError, match="two, encoder and decoder; got 1"):
        ADE20KSegmenter(weights=[ade_parts[0]])


def test_face_parser_runs_and_merges(face_state):
    image = waves(50, 40).repeat(2, 1, 1, 1)
    segments = FaceParser(weights=face_state, size=64)(image)
    assert segments.ids.shape == (2, 50, 40) and segments.ids[0].equal(segments.ids[1])
    assert set(segments.names.values()) <= {"background", "face", *("eye_g", "ear_r", "neck_l", "cloth", "hair", "hat")}
    apart = FaceParser(weights=face_state, size=64, merging=None)(image)
    assert int(apart.count()[0]) >= int(segments.count()[0])


def test_face_parser_is_found_under_the_authors_name(face_state, tmp_path, monkeypatch):
    monkeypatch.setenv("SAMINV_WEIGHTS", str(tmp_path))
    path = tmp_path / "79999_iter.pth"
    torch.save(dict(face_state), path, _use_new_zipfile_serialization=False)
    os.truncate(path, max(path.stat().st_size, FACE_FILE.minimal_size))
    assert FACE_FILE.find() == path and FACE_FILE.find(tmp_path) == path
    os.truncate(path, 1000)
    with pytest.raises(CheckpointError, match="1000 bytes"):
        FaceParser()


# Where weights come from


def test_published_files_have_checksums_where_they_are_fetched():
    for file in (*DEEPLAB_FILES.values(), LRASPP_FILE, MASKRCNN_FILE, FACE_FILE):
        assert file.url.startswith("https://") and len(file.sha256 or "") in (8, 64)
    for config, file in PUBLISHED.items():
        assert config in file.url and file.name == f"model_final_{file.md5}.pkl"


def test_addresses_are_those_of_torchvision():
    from torchvision.models import detection, segmentation

    theirs = {
        "resnet50": segmentation.DeepLabV3_ResNet50_Weights,
        "resnet101": segmentation.DeepLabV3_ResNet101_Weights,
        "mobilenet": segmentation.DeepLabV3_MobileNet_V3_Large_Weights,
    }
    files = [(DEEPLAB_FILES[name], weights.COCO_WITH_VOC_LABELS_V1) for name, weights in theirs.items()]
    files += [
        (LRASPP_FILE, segmentation.LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1),
        (MASKRCNN_FILE, detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1),
    ]
    for file, weights in files:
        assert file.url == weights.url
        assert 0.98 < file.minimal_size / (weights.meta["_file_size"] * 2**20) < 1


@pytest.mark.parametrize("name", ["deeplabv3", "lraspp", "maskrcnn", "face-parsing"])
def test_offline_the_error_says_where_to_put_the_file(name, offline):
    with pytest.raises(WeightsError, match=r"https://.*no connection.*SAMINV_WEIGHTS") as caught:
        SEGMENTERS.get(name)()
    assert str(offline) in str(caught.value)


def test_files_without_a_checksum_are_not_fetched(offline):
    with pytest.raises(WeightsError) as caught:
        ADE20KSegmenter()
    message = str(caught.value)
    assert "http://sceneparsing.csail.mit.edu/" in message and "no checksum" in message
    assert str(offline / FOLDER / "encoder_epoch_20.pth") in message


def test_given_paths_must_exist(offline, tmp_path):
    for given in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(WeightsError, match=r"There is no file .*can be had from https"):
            FaceParser(weights=given)
    with pytest.raises(InputError, match="not int"):
        FaceParser(weights=3)


def test_md5_of_what_was_fetched(offline, monkeypatch):
    def fake(url, destination, **_):
        Path(destination).parent.mkdir(parents=True, exist_ok=True)
        Path(destination).write_bytes(b"weights")
        return Path(destination)

    monkeypatch.setattr(published, "fetch", fake)
    digest = hashlib.md5(b"weights").hexdigest()
    assert WeightFile(ADDRESS, 1, md5=digest[:6]).find() == offline / "net.pth"
    (offline / "net.pth").unlink()
    with pytest.raises(WeightsError, match="MD5 does not begin with 000000"):
        WeightFile(ADDRESS, 1, md5="000000").find()
    assert not (offline / "net.pth").exists()


# Reading


class Attack:
    def __reduce__(self):
        return (os.mkdir, ("attacked",))


def test_files_are_read_without_running_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(2)}
    (tmp_path / "good.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody"}, protocol=2))
    assert {name: value.tolist() for name, value in read_state(tmp_path / "good.pkl").items()} == {
        name: value.tolist() for name, value in arrays.items()
    }
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"model": {"a": Attack()}}))
    torch.save({"a": Attack()}, tmp_path / "bad.pth")
    (tmp_path / "page.pth").write_text("<html>log in first</html>")
    for name in ("bad.pkl", "bad.pth", "page.pth"):
        with pytest.raises(CheckpointError, match="cannot be read as weights"):
            read_state(tmp_path / name)
    assert not (tmp_path / "attacked").exists()


def test_wrappings_of_a_state_dict(tmp_path):
    state = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    wrapped = {f"module.{name}": value for name, value in state.items()}
    for number, content in enumerate((state, wrapped, {"state_dict": wrapped, "epoch": 3})):
        torch.save(content, tmp_path / f"{number}.pth")
        assert set(read_state(tmp_path / f"{number}.pth")) == {"weight", "bias"}
    save_file(state, tmp_path / "s.safetensors")
    assert read_state(tmp_path / "s.safetensors")["weight"].equal(state["weight"])
    for content in ([1, 2], {"weight": "text"}, {}):
        torch.save(content, tmp_path / "no.pth")
        with pytest.raises(CheckpointError, match="is not what is needed"):
            read_state(tmp_path / "no.pth")


def test_first_wrong_tensor_is_named():
    layer = torch.nn.Linear(3, 2)
    good = {"weight": torch.ones(2, 3, dtype=torch.float16), "bias": torch.zeros(2)}
    assert fit(layer, {**good, "head.weight": torch.ones(1)}, "x", unused=("head.",)).weight.dtype == torch.float32
    assert not layer.weight.requires_grad and not layer.training
    cases = [
        ({"bias": good["bias"]}, r"'weight' should be \[2, 3\], found no such tensor. Needed is net.pth"),
        ({**good, "bias": torch.zeros(3)}, r"'bias' should be \[2\], found \[3\]"),
        ({**good, "head.weight": torch.ones(1)}, r"the network has no 'head.weight' \[1\]"),
    ]
    for state, message in cases:
        with pytest.raises(CheckpointError, match=message):
            fit(layer, state, "net.pth")


def test_weights_of_another_network_are_refused(ade_parts, face_state):
    with pytest.raises(
        CheckpointError, match=r"'encoder\.conv1\.weight'.*encoder_epoch_20.pth and .*decoder_epoch_20.pth"
    ):
        ADE20KSegmenter(weights=face_state)
    with pytest.raises(CheckpointError, match=r"'decoder\.ppm\.0\.1\.weight'"):
        ADE20KSegmenter(weights=(ade_parts[0], ade_parts[0]))
    with pytest.raises(CheckpointError, match=r"'cp\.resnet\.conv1\.weight'.*79999_iter.pth"):
        FaceParser(weights=ade_parts[0])


def test_given_weights_are_copied(face_state):
    before = face_state["conv_out.conv_out.weight"].clone()
    FaceParser(weights=face_state).network.conv_out.conv_out.weight.zero_()
    assert face_state["conv_out.conv_out.weight"].equal(before)
