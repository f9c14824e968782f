"""Invertibility networks: the published layout number by number, sizes, files, and whom they are for."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest
import torch
from helpers import GOLDEN_DIRS, assert_close, golden

from saminv import weights
from saminv._errors import CheckpointError, InputError, MissingExtraError
from saminv.checkpoints import read_sam_invertibility
from saminv.metrics.vision import VisionConfig, VisionNet, load_vision
from saminv.segment import (
    InvertibilityConfig,
    InvertibilityNet,
    PredictedInvertibility,
    find_network,
    load_invertibility,
    load_published,
    predicted,
    save_invertibility,
)
from saminv.segment.backbones import BACKBONES
from saminv.segment.deeplab import DeepLab, widths_of

SPACES = ("W+", "F4", "F6")
FIVE = ("W+", "F4", "F6", "F8", "F10")
TINY = (6, 8, 6)
TORCHVISION = ("deeplab-resnet50", "deeplab-resnet101", "deeplab-mobilenetv3")


def network(seed: int = 0, **changes) -> InvertibilityNet:
    torch.manual_seed(seed)
    kept = {"fingerprint": "a" * 64, "metric": "demo", "image_size": (32, 32), "widths": TINY}
    return InvertibilityNet(InvertibilityConfig(SPACES, **{**kept, **changes})).eval().requires_grad_(False)


def generator(fingerprint: str = "a" * 64) -> SimpleNamespace:
    return SimpleNamespace(fingerprint=fingerprint, device=torch.device("cpu"))


def picture(*size: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand(*size, generator=torch.Generator().manual_seed(seed)) - 1


# The published layout


@pytest.fixture(scope="module")
def stored():
    return golden("sam_invertibility")


@pytest.fixture(scope="module")
def published(stored, tmp_path_factory):
    content = {"sd_base": stored.under("sd_base/"), **{space: stored.under(f"{space}/") for space in FIVE}}
    path = tmp_path_factory.mktemp("published") / "invertibility.pt"
    torch.save(content, path)
    return path, content


def test_outputs_match_the_published_network(stored, published):
    network = load_published(published[0])
    assert network.config.spaces == FIVE and network.config.metric == "lpips-vgg" and not network.config.fingerprint
    image = stored["in/image"]
    with torch.no_grad():
        assert_close(network.backbone(image), stored["mid/base_out"], 1e-5, "shared part")
        for space, got in network(image).items():
            assert_close(got, stored[f"out/{space}"], 1e-5, space)
        for space, got in PredictedInvertibility(network)(image).items():
            assert_close(got, stored[f"out/{space}"], 1e-5, space)


def test_pieces_of_the_training_script_are_the_same_network(stored, published, tmp_path):
    _, content = published
    for number, scale in (("009", 0.5), ("010", 1.0)):
        for space, arrays in content.items():
            name = "main" if space == "sd_base" else f"head_{space}"
            scaled = {f"module.{key}": scale * value if "conv" in key else value for key, value in arrays.items()}
            torch.save(scaled, tmp_path / f"{number}_{name}.pt")
    image = stored["in/image"]
    for path in (tmp_path, tmp_path / "010_main.pt"):
        with torch.no_grad():
            got = load_published(path)(image)
        assert list(got) == list(FIVE)
        assert_close(got["F8"], stored["out/F8"], 1e-5)
    with torch.no_grad():
        assert not torch.allclose(load_published(tmp_path / "009_main.pt")(image)["F8"], got["F8"])


def test_a_published_network_becomes_a_file_of_ours(stored, published, tmp_path):
    path = save_invertibility(load_published(published[0], fingerprint="b" * 64), tmp_path / "a.safetensors")
    network = load_invertibility(path)
    assert network.config.fingerprint == "b" * 64
    with torch.no_grad():
        assert_close(network(stored["in/image"])["W+"], stored["out/W+"], 1e-5)


def test_full_size_names_and_shapes_are_the_published_ones():
    paths = [folder / "keys" / "sam_invertibility_base_deeplab.json" for folder in GOLDEN_DIRS]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        pytest.skip("the table of published names is not here")
    with torch.device("meta"):
        state = DeepLab().state_dict()
    expected = {name: (tuple(shape), kind) for name, shape, kind in json.loads(found.read_text())["keys"]}
    assert {n: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for n, v in state.items()} == expected
    assert widths_of(state) == (64, 128, 256, 512, 256, 48, 256)


def without(content, part, *names):
    return {**content, part: {key: value for key, value in content[part].items() if key not in names}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {k: v for k, v in c.items() if k != "sd_base"}, "has no 'sd_base', but is a table of F10, F4"),
        (lambda c: {"sd_base": c["sd_base"]}, "no head of a space"),
        (lambda c: [1, 2], "is a list"),
        (lambda c: {**c, "F4": 3}, "F4 is no table of arrays, but a int"),
        (lambda c: {**c, "sd_base": {}}, "sd_base is no table"),
        (lambda c: without(c, "sd_base", "aspp.conv1.weight"), "shared part has no aspp.conv1.weight"),
        (lambda c: without(c, "F6", "m.3.weight"), "head of F6 has no m.3.weight"),
        (lambda c: without(c, "sd_base", "backbone.layer4.0.conv1.weight"), "layer4.0.conv1.weight"),
        (lambda c: without(c, "sd_base", "backbone.layer3.7.bn2.bias"), "layer3.7.bn2.bias"),
        (lambda c: {**c, "F8": {**c["F8"], "m.3.bias": torch.tensor([float("nan")])}}, "F8.m.3.bias has values"),
    ],
)
def test_files_that_are_no_published_network_are_refused(published, tmp_path, change, message):
    path = tmp_path / "a.pt"
    torch.save(change(published[1]), path)
    with pytest.raises(CheckpointError, match=message):
        load_published(path)


def test_files_with_code_or_damage_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"sd_base": SimpleNamespace()}, path)
    with pytest.raises(CheckpointError, match="more than plain arrays"):
        load_published(path)
    path.write_bytes(b"no zip file")
    with pytest.raises(CheckpointError, match="damaged"):
        load_published(path)
    with pytest.raises(CheckpointError, match="no file"):
        load_published(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match=r"no NNN_main\.pt; it has: nothing"):
        read_sam_invertibility(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "003_main.pt")
    with pytest.raises(CheckpointError, match="no head of a space beside it"):
        read_sam_invertibility(tmp_path)
    with pytest.raises(CheckpointError, match=r"no 004_main\.pt; it has: 003_main\.pt"):
        read_sam_invertibility(tmp_path / "004_main.pt")


# Networks of this library


def test_small_networks_take_any_size():
    net = network()
    for size in ((1, 1), (2, 3), (17, 40), (32, 32), (33, 65)):
        maps = net(picture(2, 3, *size))
        assert list(maps) == list(SPACES)
        assert all(value.shape == (2, 1, *size) and bool((value >= 0).all()) for value in maps.values())


@pytest.mark.parametrize("backbone", ["deeplab-resnet50", "deeplab-mobilenetv3"])
def test_torchvision_networks_take_any_size(backbone):
    net = network(backbone=backbone, widths=(8, 4, 8))
    for size in ((40, 33), (2, 16)):
        maps = net(picture(1, 3, *size))
        assert all(value.shape == (1, 1, *size) and bool((value >= 0).all()) for value in maps.values())


@pytest.mark.parametrize(("backbone", "low", "high"), [(TORCHVISION[0], 256, 2048), (TORCHVISION[2], 24, 960)])
def test_encoders_keep_a_quarter_and_a_sixteenth(backbone, low, high):
    encoder = BACKBONES.get(backbone)(8, (8, 4, 8)).encoder.eval()
    with torch.no_grad():
        shapes = [tuple(value.shape) for value in encoder(picture(1, 3, 64, 96))]
    assert shapes == [(1, low, 16, 24), (1, high, 4, 6)]


def test_rows_do_not_depend_on_each_other():
    net, images = network(), picture(3, 3, 32, 32)
    whole, alone = net(images), net(images[1:2])
    assert all(torch.allclose(whole[space][1:2], alone[space], atol=1e-6) for space in SPACES)


def test_every_weight_has_a_gradient():
    net = network().requires_grad_(True).train()
    net.stacked(picture(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())


@pytest.mark.parametrize("output", ["softplus", "relu"])
def test_an_untrained_network_predicts_the_means(output):
    net = network(output=output)
    net.start_from_means(torch.tensor([0.5, 0.2, 0.0]))
    means = [float(value.mean()) for value in net(picture(2, 3, 64, 64)).values()]
    assert means == pytest.approx([0.5, 0.2, 0.0], abs=0.08)
    with pytest.raises(ValueError):
        net.start_from_means(torch.ones(2))


def test_the_bundled_vision_network_gives_the_stages():
    net, vision = network(widths=()), load_vision()
    net.init_from_vision(vision)
    image = picture(1, 3, 48, 48)
    tap = image
    for mine, theirs in zip(net.backbone.stages, vision.features(image), strict=True):
        tap = mine(tap)
        assert torch.equal(tap, theirs)
    for wrong, message in ((network(), "do not fit"), (network(backbone=TORCHVISION[2], widths=(8, 4, 8)), "Only the")):
        with pytest.raises(InputError, match=message):
            wrong.init_from_vision(vision)
    other = VisionNet(VisionConfig(3, ("a",), channels=(4, 4), depths=(2, 2), grid=2))
    with pytest.raises(InputError, match=r"\[2, 2\] convolutions"):
        network(widths=(4, 4, 4)).init_from_vision(other)


def test_the_default_network_is_small_and_quick(tmp_path):
    net = network(widths=())
    assert save_invertibility(net, tmp_path / "a.safetensors").stat().st_size < 3 * 2**20
    image = picture(1, 3, 128, 128)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        net(image)
        times.append(time.perf_counter() - start)
    # 20 ms on one free core; the limit leaves room for machines that are busy.
    assert min(times) < 0.25


@pytest.mark.parametrize("name", TORCHVISION[::2])
def test_encoders_start_from_files_of_torchvision(tmp_path, name):
    import torchvision.models
    from safetensors.torch import save_file

    torch.manual_seed(3)
    build = {"deeplab-resnet50": "resnet50", "deeplab-mobilenetv3": "mobilenet_v3_large"}[name]
    state = getattr(torchvision.models, build)(weights=None).state_dict()
    torch.save(state, tmp_path / "a.pth")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "a.safetensors")
    for file in ("a.pth", "a.safetensors"):
        net = network(backbone=name, widths=(8, 4, 8))
        net.init_from_file(tmp_path / file)
        for key, value in net.backbone.encoder.state_dict().items():
            assert torch.equal(value, state[key if key in state else f"features.{key}"])
    other = network(backbone=TORCHVISION[2 if name == TORCHVISION[0] else 0], widths=(8, 4, 8))
    with pytest.raises(CheckpointError, match="weights of this backbone"):
        other.init_from_file(tmp_path / "a.pth")


def test_encoder_files_that_are_none_are_refused(tmp_path):
    net = network(backbone=TORCHVISION[2], widths=(8, 4, 8))
    (tmp_path / "a.pth").write_bytes(b"nothing")
    torch.save([1], tmp_path / "b.pth")
    for file, message in (("a.pth", "cannot be read"), ("b.pth", "no state dict"), ("c.pth", "cannot be read")):
        with pytest.raises(CheckpointError, match=message):
            net.init_from_file(tmp_path / file)
    with pytest.raises(InputError, match="none of torchvision's"):
        network().init_from_file(tmp_path / "a.pth")


def test_missing_torchvision_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(MissingExtraError, match="pip install torchvision"):
        network(backbone=TORCHVISION[0])
    assert network().config.backbone == "small"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet"}, "deeplab-resnet50"),
        ({"head": "linear"}, "convolution, published"),
        ({"output": "exp"}, "softplus, relu"),
        ({"loss": "l1"}, "l2, l2-sqrt"),
        ({"features": 0}, "at least 1"),
        ({"image_size": (0, 4)}, "at least 1"),
        ({"widths": (4,)}, "widths of its stages"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        network(**changes)


@pytest.mark.parametrize("spaces", [(), ("F4", "F4"), "W+"])
def test_impossible_spaces_are_refused(spaces):
    with pytest.raises(InputError, match="different spaces"):
        InvertibilityConfig(spaces)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (0, 3, 8, 8)])
def test_other_shapes_than_images_are_refused(shape):
    with pytest.raises(InputError, match="B, 3, H, W"):
        network()(torch.zeros(shape))


# Files


def test_files_give_the_network_back(tmp_path):
    net, image = network(), picture(1, 3, 32, 32)
    loaded = load_invertibility(save_invertibility(net, tmp_path / "a.safetensors", {"note": "kept"}))
    assert loaded.config == net.config and not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(torch.equal(value, loaded(image)[space]) for space, value in net(image).items())
    assert weights.read_safetensors((tmp_path / "a.safetensors").read_bytes(), "a")[1]["note"] == "kept"


@pytest.mark.parametrize("backbone", ["small", "deeplab-mobilenetv3"])
def test_half_precision_files_are_accurate_enough(tmp_path, backbone):
    net, image = network(backbone=backbone, widths=()), picture(1, 3, 64, 64)
    paths = [save_invertibility(net, tmp_path / f"{half}.safetensors", half=half) for half in (False, True)]
    assert paths[1].stat().st_size < 0.6 * paths[0].stat().st_size
    loaded = load_invertibility(paths[1])
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    for space, value in net(image).items():
        assert_close(loaded(image)[space], value, 1e-2, space)


def test_files_that_are_no_network_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = save_invertibility(network(), tmp_path / "a.safetensors")
    tensors, metadata = weights.read_safetensors(path.read_bytes(), "a")
    content = path.read_bytes()
    cases = [
        (tensors, {}, "no invertibility network of this library"),
        (tensors, {**metadata, "config": "{}"}, "no configuration"),
        (tensors, {**metadata, "config": "[1]"}, "no configuration"),
        (dict(list(tensors.items())[1:]), metadata, "does not fit its own configuration"),
        ({**tensors, "backbone.last.bias": tensors["backbone.last.bias"] / 0}, metadata, "infinite or not a number"),
    ]
    for arrays, header, message in cases:
        save_file(arrays, path, header)
        with pytest.raises(CheckpointError, match=message):
            load_invertibility(path)
    path.write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match="damaged"):
        load_invertibility(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_invertibility(tmp_path / "absent.safetensors")


# Prediction, and whom a network is for


def test_predictions_are_those_of_the_network():
    net, image = network(), picture(3, 3, 32, 32)
    maps = PredictedInvertibility(net)(image)
    assert all(torch.allclose(maps[space], value, atol=1e-6) for space, value in net(image).items())


def test_images_of_other_sizes_are_seen_at_the_size_of_training():
    net = network()
    predict = PredictedInvertibility(net)
    seen = []
    net.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    flat = torch.tensor([0.5, -0.2, 0.9])[:, None, None].expand(1, 3, 96, 96)
    for size, working in (((96, 96), (32, 32)), ((16, 24), (32, 48)), ((64, 40), (51, 32)), ((1, 7), (32, 224))):
        for space, value in predict(flat[..., : size[0], : size[1]]).items():
            assert value.shape == (1, 1, *size) and bool((value >= 0).all()), space
        assert seen[-1].shape[2:] == working and torch.allclose(seen[-1], flat[..., :1, :1].expand_as(seen[-1]))
    assert predict(flat.double())["W+"].dtype == torch.float32
    free = PredictedInvertibility(network(image_size=None))
    assert free(picture(2, 3, 20, 50))["F4"].shape == (2, 1, 20, 50)
    with pytest.raises(InputError, match="not a number"):
        predict(flat * float("nan"))


def test_a_network_of_this_generator_is_accepted(tmp_path):
    net = network()
    path = save_invertibility(net, tmp_path / "a.safetensors")
    for given in (net, path, str(path)):
        found = PredictedInvertibility.for_generator(generator(), ("F4", "W+"), "demo", given)
        assert found.config == net.config
    anything = network(fingerprint="", metric="")
    PredictedInvertibility.for_generator(generator("c" * 64), SPACES, "lpips-vgg", anything)


@pytest.mark.parametrize(
    ("fingerprint", "spaces", "metric", "words"),
    [
        ("b" * 64, SPACES, "demo", ("another generator", "aaaaaaaaaaaa", "bbbbbbbbbbbb", "invertibility build")),
        ("a" * 64, ("W+", "F8", "F10"), "demo", ("W+, F4, F6", "W+, F8, F10", "nothing of F8, F10", "Leave these")),
        ("a" * 64, SPACES, "lpips-vgg", ("'demo'", "'lpips-vgg'", "cannot be compared", "invertibility train")),
    ],
)
def test_a_network_for_something_else_is_refused(fingerprint, spaces, metric, words):
    with pytest.raises(InputError) as refused:
        PredictedInvertibility.for_generator(generator(fingerprint), spaces, metric, network())
    assert all(word in str(refused.value) for word in words), str(refused.value)


def test_networks_are_found_by_the_generator(tmp_path, monkeypatch):
    path = save_invertibility(network(), tmp_path / "mine.safetensors")
    (tmp_path / "notes.safetensors").write_bytes(b"something else")
    assert find_network(generator(), [tmp_path]) == path == find_network(generator(), [path])
    nobody = generator("d" * 64)
    assert find_network(nobody, [tmp_path, tmp_path / "absent.safetensors"]) is None
    with pytest.raises(InputError, match="no invertibility network for this generator"):
        PredictedInvertibility.for_generator(nobody, SPACES)
    card = weights.Card("mine.safetensors", "0", "", "", "", "", "", {"generator": "d" * 64})
    monkeypatch.setattr(predicted, "cards", lambda: {"some": card})
    monkeypatch.setattr(predicted.resources, "files", lambda package: tmp_path)
    assert find_network(nobody) == path
