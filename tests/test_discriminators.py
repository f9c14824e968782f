"""Discriminators from files: parity with the published ones, what is refused, and trainings that begin with one."""

from __future__ import annotations

import copy
import json
import math
import shutil

import pytest
import torch
import torch.nn.functional as F
from checkpoint_files import (
    discriminator_names,
    nvidia_discriminator,
    nvidia_pickle,
    persistent_module,
    pickled,
    rosinality_kernels,
    rosinality_trainer,
    saved,
    tensorflow_pickle,
    write,
)
from helpers import assert_close, golden
from safetensors import safe_open
from test_train_encoder import Noise, by_command, small, train
from test_train_generator import directional
from toys import toy_stylegan2

from saminv._errors import CheckpointError, InputError
from saminv.checkpoints import read_checkpoint, save_checkpoint
from saminv.generators import save_generator
from saminv.images import save
from saminv.train import (
    Discriminator,
    gradient_penalty,
    load_discriminator,
    prepare_pictures,
    train_encoder,
    train_generator,
    training_for,
)

SIDE = 32
TABLE = (7, 6, 5, 4)


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def file(generator, tmp_path_factory):
    return save_generator(generator, tmp_path_factory.mktemp("generator") / "toy.safetensors")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(Noise().batch(range(12))):
        save(folder / f"p{number}.png", image[None])
    return folder


def random_critic(resolution: int = SIDE, table: tuple[int, ...] = TABLE, **settings) -> Discriminator:
    """A discriminator as published ones are, whose biases matter too."""
    torch.manual_seed(3)
    found = Discriminator(resolution, channel_table=table, **{"group": 4, "filtered": True, **settings})
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
    return found


def renamed(critic: Discriminator, form: str) -> dict[str, torch.Tensor]:
    names = discriminator_names(len(critic.blocks), form)
    return {names[name]: x.detach().clone() for name, x in critic.state_dict().items()}


def nvidia(path, critic: Discriminator, protocol: int = 3, **kwargs):
    kwargs = {"c_dim": 0, "img_resolution": critic.resolution, "img_channels": 3, **kwargs}
    module = nvidia_discriminator(renamed(critic, "nvlabs"), kwargs)
    return write(path, nvidia_pickle({}, {}, protocol, averaged=False, critic=module))


def rosinality(path, critic: Discriminator):
    content = rosinality_trainer({"style.1.weight": torch.ones(1)}, size=critic.resolution)
    return write(path, saved({**content, "d": rosinality_kernels(renamed(critic, "rosinality"))}))


def equal(one: Discriminator, other: Discriminator) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


# The network


def halved(x, kernel, filtered):
    """A convolution at half the size, one tap of the filter and one of the kernel at a time."""
    pad = kernel.shape[-1] // 2
    if not filtered:
        return F.conv2d(F.avg_pool2d(x, 2), kernel, padding=pad)
    taps = [tap / 8 for tap in (1, 3, 3, 1)]
    padded = F.pad(x, [pad + 1] * 4)
    side = padded.shape[-1] - 3
    blurred = sum(
        a * b * padded[..., i : i + side, j : j + side] for i, a in enumerate(taps) for j, b in enumerate(taps)
    )
    return F.conv2d(blurred, kernel, stride=2)


def reference(critic: Discriminator, x):
    """The logits by the formulas, for a batch of one group."""
    state = {name: tensor.detach() for name, tensor in critic.state_dict().items()}

    def kernel(name):
        weight = state[f"{name}.weight"]
        return weight / math.sqrt(weight[0].numel())

    def active(x, name):
        x = x + state[f"{name}.bias"].reshape(-1, *[1] * (x.dim() - 2))
        return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)

    def clamped(x):
        return x if critic.clamp is None else x.clamp(-critic.clamp, critic.clamp)

    x = clamped(active(F.conv2d(x, kernel("entry")), "entry"))
    for k in range(len(critic.blocks)):
        block = f"blocks.{k}"
        inner = clamped(active(F.conv2d(x, kernel(f"{block}.first"), padding=1), f"{block}.first"))
        inner = clamped(active(halved(inner, kernel(f"{block}.second"), critic.filtered), f"{block}.second"))
        x = (halved(x, kernel(f"{block}.skip"), critic.filtered) + inner) / math.sqrt(2)
    spread = ((x - x.mean(dim=0)).square().mean(dim=0) + 1e-8).sqrt().mean()
    x = torch.cat([x, spread.expand(len(x), 1, 4, 4)], dim=1)
    x = clamped(active(F.conv2d(x, kernel("last"), padding=1), "last"))
    x = active(x.flatten(1) @ kernel("hidden").T, "hidden")
    return (x @ kernel("out").T + state["out.bias"])[:, 0]


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_logits_are_those_of_the_formulas(filtered, clamp):
    critic = random_critic(filtered=filtered, clamp=clamp).double()
    x = torch.randn(4, 3, SIDE, SIDE, dtype=torch.float64)
    assert_close(critic(x), reference(critic, x), 1e-12)


def test_the_options_change_neither_names_nor_first_weights():
    torch.manual_seed(0)
    plain = Discriminator(16, 64, 8)
    torch.manual_seed(0)
    filtered = Discriminator(16, channel_table=(8, 8, 4), filtered=True, clamp=256.0)
    assert equal(plain, filtered)
    x = torch.randn(4, 3, 16, 16)
    assert not torch.allclose(plain(x), filtered(x))
    with pytest.raises(InputError, match="a number from 1 up for each of the 3 resolutions"):
        Discriminator(16, channel_table=(8, 8))


def test_r1_has_the_right_gradient_through_the_filter():
    critic = random_critic(clamp=2.0).double()
    batch = torch.randn(4, 3, SIDE, SIDE, dtype=torch.float64)

    def penalty():
        real = batch.clone().requires_grad_(True)
        return gradient_penalty(real, critic(real))

    exact, measured = directional(penalty, list(critic.parameters()))
    assert exact == pytest.approx(measured, rel=1e-5) and abs(exact) > 1e-6


def test_half_precision_is_near_full():
    critic, batch = random_critic(clamp=256.0), torch.randn(8, 3, SIDE, SIDE)
    full, half = critic(batch), critic(batch, torch.bfloat16)
    assert half.dtype == torch.float32
    assert 0 < float((full - half).detach().abs().max()) < 0.05 * float(full.detach().abs().mean())


# Files


@pytest.mark.parametrize("case", ["plain", "clamped", "rosinality"])
def test_published_discriminators(case, tmp_path):
    data = golden("sg2_discriminators")
    state, meta = data.under("state/"), data.meta
    if case == "rosinality":
        state = rosinality_kernels({meta["rosinality"][name]: x for name, x in state.items()})
        path = write(tmp_path / "a.pt", saved({"g_ema": {}, "d": state}))
    else:
        module = nvidia_discriminator(state, {**meta["kwargs"], **meta["cases"][case]})
        path = write(tmp_path / "a.pkl", nvidia_pickle({}, {}, critic=module, averaged=False))
    critic = load_discriminator(path)
    real = data["in/image"].requires_grad_(True)
    logits = critic(real)
    penalty = gradient_penalty(real, logits)
    (gradient,) = torch.autograd.grad(penalty, critic.blocks[0].skip.weight)
    for found, name in ((logits, "logits"), (penalty, "r1"), (gradient, "r1_g_skip")):
        assert_close(found, data[f"{case}/{name}"], 1e-5, name)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_pickle_of_nvidia(tmp_path, protocol):
    critic = random_critic(clamp=256.0, group=8)
    more = {"conv_clamp": 256, "num_fp16_res": 4, "epilogue_kwargs": {"mbstd_group_size": 8}}
    found = load_discriminator(nvidia(tmp_path / "a.pkl", critic, protocol, **more))
    assert equal(found, critic) and found.settings == {"group": 8, "filtered": True, "clamp": 256.0}
    assert found.resolution == SIDE and all(weight.requires_grad for weight in found.parameters())


def test_a_pickle_that_was_converted(tmp_path):
    critic = random_critic(clamp=2.0)
    before = read_checkpoint(nvidia(tmp_path / "a.pkl", critic, conv_clamp=2), "D")
    found = load_discriminator(save_checkpoint(before, tmp_path / "a.safetensors"))
    assert equal(found, critic) and found.settings == critic.settings


def test_what_layers_say_goes_before_keywords(tmp_path):
    module = nvidia_discriminator(renamed(random_critic(), "nvlabs"), {"conv_clamp": 3.0})
    module.state["_init_kwargs"] = {}
    module.state["_modules"]["b4"].state["_modules"]["mbstd"].state["group_size"] = None
    path = write(tmp_path / "a.pkl", nvidia_pickle({}, {}, critic=module, averaged=False))
    assert load_discriminator(path).settings == {"group": None, "filtered": True, "clamp": 3.0}


def test_checkpoints_of_rosinality(tmp_path):
    critic = random_critic()
    assert equal(load_discriminator(rosinality(tmp_path / "a.pt", critic)), critic)
    state = rosinality_kernels(renamed(critic, "rosinality"))
    parallel = {f"module.{name}": x for name, x in state.items()}
    for content in (state, {"d": parallel}, {"discriminator": state}):
        for zipped in (True, False):
            assert equal(load_discriminator(write(tmp_path / "b.pt", saved(content, zipped))), critic)


def test_half_precision_in_a_file_becomes_full(tmp_path):
    state = {name: x.half() for name, x in renamed(random_critic(), "nvlabs").items()}
    found = load_discriminator(write(tmp_path / "a.pt", saved(state)))
    assert all(x.dtype == torch.float32 for x in found.state_dict().values())


@pytest.mark.parametrize(
    ("kwargs", "change", "message"),
    [
        ({"c_dim": 10}, {}, r"conditional \(10 classes\)"),
        ({}, {"mapping.embed.weight": torch.ones(4, 3)}, "conditional"),
        ({"architecture": "orig"}, {}, "architecture 'orig'; supported is 'resnet'"),
        ({}, {"b8.fromrgb.weight": torch.ones(6, 3, 1, 1)}, "architecture 'skip'"),
        ({"img_resolution": 64}, {}, "img_resolution 64, but its arrays 32"),
        ({"epilogue_kwargs": {"mbstd_num_channels": 2}}, {}, "2 channels for the variety"),
        ({"epilogue_kwargs": {"mbstd_group_size": 0}}, {}, "variety of 0 images"),
        ({"conv_clamp": -1}, {}, "clamps to -1"),
        ({}, {"b8.conv1.bias": None}, "lacks arrays, such as blocks.2.second.bias"),
        ({}, {"b16.conv1.weight": None}, "lacks arrays, such as blocks.1.second.weight"),
        ({}, {"b16.conv0.bias": torch.ones(9)}, r"b16.conv0.bias is \[9\], not \[5\]"),
        ({}, {"b4.fc.weight": torch.ones(7, 7)}, r"b4.fc.weight is \[7, 7\], not \[7, 112\]"),
        ({}, {"b32.fromrgb.weight": torch.ones(4, 1, 1, 1)}, r"fromrgb.weight is \[4, 1, 1, 1\], not \[4, 3, 1, 1\]"),
        ({}, {"b16.conv1.weight": torch.ones(0, 5, 3, 3)}, "a layer without channels"),
        ({}, {"b8.torgb.weight": torch.ones(1)}, "b8.torgb.weight is no array of a residual discriminator"),
        ({}, {"b4.out.bias": torch.tensor([math.nan])}, "not finite"),
        ({}, {"b128.conv0.bias": torch.ones(4)}, "blocks for 128, 32, 16, 8 pixels"),
    ],
)
def test_networks_that_ours_is_not_are_refused(tmp_path, kwargs, change, message):
    state = renamed(random_critic(), "nvlabs")
    state = {name: x for name, x in {**state, **change}.items() if x is not None}
    module = nvidia_discriminator(state, {"img_resolution": SIDE, **kwargs})
    path = write(tmp_path / "a.pkl", nvidia_pickle({}, {}, critic=module, averaged=False))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_discriminator(path)
    assert str(path) in str(caught.value) and "Discriminators are read from" in str(caught.value)


def test_other_layers_of_nvidia_are_refused(tmp_path):
    module = nvidia_discriminator(renamed(random_critic(), "nvlabs"))
    layer = module.state["_modules"]["b8"].state["_modules"]["conv0"]
    for field, value, message in (
        ("activation", "relu", "activation lrelu, relu"),
        ("conv_clamp", 7, "differ in clamp"),
    ):
        before = layer.state[field]
        layer.state[field] = value
        with pytest.raises(CheckpointError, match=message):
            load_discriminator(write(tmp_path / "a.pkl", nvidia_pickle({}, {}, critic=module, averaged=False)))
        layer.state[field] = before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convs.1.conv2.0.kernel": torch.ones(4, 4) / 16}, "not the filter 1, 3, 3, 1"),
        ({"convs.1.conv2.0.kernel": torch.ones(9)}, "not the filter 1, 3, 3, 1"),
        ({"convs.1.skip.1.weight": None}, "lacks arrays, such as blocks.0.skip.weight"),
        ({"convs.2.conv1.0.bias": torch.ones(5)}, "no array of a residual discriminator"),
        ({"convs.0.1.weight": torch.ones(5)}, "no array of a residual discriminator"),
        ({"final_conv.0.bias": torch.ones(5)}, "no array of a residual discriminator"),
        ({"convs.9.conv2.1.weight": torch.ones(5)}, "lacks arrays"),
        ({"args": {"size": 64}}, "size 64, but its arrays 32"),
    ],
)
def test_damaged_checkpoints_of_rosinality_are_refused(tmp_path, change, message):
    state = {**rosinality_kernels(renamed(random_critic(), "rosinality")), **change}
    args = state.pop("args", {})
    content = {"d": {name: x for name, x in state.items() if x is not None}, "args": args}
    with pytest.raises(CheckpointError, match=message):
        load_discriminator(write(tmp_path / "a.pt", saved(content)))


def test_files_without_a_discriminator_say_what_they_hold(tmp_path, generator, file):
    layers = {"layer0.weight": torch.ones(1)}
    for content, message in (
        ({"g_ema": layers, "latent_avg": torch.ones(1)}, "holds no discriminator, but is a torch archive with a dict"),
        ({"state_dict": layers, "discriminator_state_dict": layers}, "dictionary of state_dict, discriminator_state"),
        ({"models": {"discriminator": layers}}, "'discriminator' is a discriminator of an unknown kind with layer0"),
        (torch.ones(2), "an array of shape"),
        ({"models": [1.0]}, "a dictionary of models"),
        ({"step": 3, "average": layers, "extra": {}}, "a training of saminv without a discriminator"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_discriminator(write(tmp_path / "a.pt", saved(content)))
    with pytest.raises(CheckpointError, match=r"no discriminator, but something of the kind 'generator' \(saminv saf"):
        load_discriminator(file)
    averaged = {"G_ema": persistent_module({"synthesis.b4.const": torch.ones(1)})}
    with pytest.raises(CheckpointError, match="it has no network 'D', but G_ema"):
        load_discriminator(write(tmp_path / "a.pkl", pickled(averaged)))
    with pytest.raises(CheckpointError, match=r"a folder without checkpoint\.pt"):
        load_discriminator(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_discriminator(tmp_path / "missing.pkl")


def test_networks_of_tensorflow_are_told_apart(tmp_path):
    path = write(tmp_path / "a.pkl", tensorflow_pickle({}, {}, ("G_main", "G_synthesis_stylegan2", "G_mapping")))
    with pytest.raises(CheckpointError, match=r"TensorFlow code, whose discriminators are not read; convert it by leg"):
        load_discriminator(path)


def test_torn_files_are_refused(tmp_path):
    content = nvidia(tmp_path / "a.pkl", random_critic(8, (3, 2))).read_bytes()
    for end in range(0, len(content), len(content) // 40):
        with pytest.raises(CheckpointError):
            load_discriminator(write(tmp_path / "b.pkl", content[:end]))


# Trainings of generators leave one


@pytest.fixture(scope="module")
def finished_generator(photos, tmp_path_factory):
    pictures = prepare_pictures([photos], tmp_path_factory.mktemp("cache"), SIDE, progress=False)
    training = training_for(SIDE, len(pictures), channels=4, batch=4, kimg=0.004, score_images=8, group=2)
    folder = tmp_path_factory.mktemp("mine")
    train_generator(pictures, folder, training, plot=False)
    return folder


def test_a_training_of_a_generator_is_opened(finished_generator, tmp_path):
    state = torch.load(finished_generator / "checkpoint.pt", weights_only=True)["extra"]["critic"]
    for path in (finished_generator, finished_generator / "checkpoint.pt"):
        found = load_discriminator(path)
        assert all(torch.equal(x, state[name]) for name, x in found.state_dict().items())
        assert found.settings == {"group": 2, "filtered": False, "clamp": None}
    shutil.copy(finished_generator / "checkpoint.pt", tmp_path)
    with pytest.raises(CheckpointError, match=r"its note run\.json must lie beside it"):
        load_discriminator(tmp_path)
    for note, message in (("{", "is damaged"), ("[]", "is no table"), ('{"training": 1}', "damaged, or no note")):
        (tmp_path / "run.json").write_text(note)
        with pytest.raises(CheckpointError, match=message):
            load_discriminator(tmp_path)


# Trainings of encoders begin with one


def critic_of(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["extra"]["critic"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return nvidia(tmp_path_factory.mktemp("published") / "network.pkl", random_critic(clamp=4.0), conv_clamp=4.0)


def test_a_training_begins_with_the_given_one(generator, published, tmp_path):
    # The first step sees samples alone.
    train("padinv", generator, tmp_path, discriminator=published, until=1)
    began = random_critic().state_dict()
    assert all(torch.equal(x, began[name]) for name, x in critic_of(tmp_path).items())
    train("padinv", generator, tmp_path, discriminator=published)
    assert all(not torch.equal(x, began[name]) for name, x in critic_of(tmp_path).items() if "weight" in name)
    with safe_open(tmp_path / "encoder.safetensors", "pt") as opened:
        digest = json.loads(opened.metadata()["card"])["discriminator_sha256"]
    assert digest == json.loads((tmp_path / "run.json").read_text())["discriminator"]["sha256"]
    found = load_discriminator(tmp_path)
    assert found.settings == {"group": 4, "filtered": True, "clamp": 4.0}
    assert all(torch.equal(x, critic_of(tmp_path)[name]) for name, x in found.state_dict().items())


def test_an_interrupted_training_with_a_given_one_ends_where_a_whole_one_does(generator, published, tmp_path):
    given = load_discriminator(published).requires_grad_(False)
    before = copy.deepcopy(given)
    whole = train("padinv", generator, tmp_path / "whole", discriminator=given)
    assert equal(given, before) and not any(weight.requires_grad for weight in given.parameters())
    for until in (1, 3, None):
        found = train("padinv", generator, tmp_path / "parts", discriminator=published, until=until)
    one, other = critic_of(tmp_path / "whole"), critic_of(tmp_path / "parts")
    assert all(torch.equal(x, other[name]) for name, x in one.items())
    state = found.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in whole.state_dict().items())


def test_a_folder_keeps_to_its_discriminator(generator, published, tmp_path):
    train("padinv", generator, tmp_path, discriminator=published, until=1)
    with pytest.raises(CheckpointError, match=r"another discriminator, see run.json \(sha256 was"):
        train("padinv", generator, tmp_path, discriminator=random_critic(table=(7, 6, 5, 5), clamp=4.0))
    with pytest.raises(CheckpointError, match=r"another discriminator, see run.json \(clamp was 4.0, now null"):
        train("padinv", generator, tmp_path, discriminator=random_critic())
    with pytest.raises(CheckpointError, match=r"another discriminator, see run.json \(it was \{.*, now null\)"):
        train("padinv", generator, tmp_path)
    train("psp", generator, tmp_path / "older", until=1)
    note = json.loads((tmp_path / "older/run.json").read_text())
    assert note.pop("discriminator") is None
    # A note of before there was this choice.
    (tmp_path / "older/run.json").write_text(json.dumps(note))
    train("psp", generator, tmp_path / "older")
    with pytest.raises(CheckpointError, match="another discriminator"):
        weights = {"adversarial": 0.1}
        train("psp", generator, tmp_path / "older", small("psp", generator, weights=weights), discriminator=published)


def test_one_that_does_not_fit_is_refused(generator, published, tmp_path):
    with pytest.raises(InputError, match="the weight of 'adversarial' is 0, as it is on faces"):
        train("padinv", generator, tmp_path, small("padinv", generator, faces=True), discriminator=published)
    with pytest.raises(InputError, match=r"pictures of 16 x 16, those of the generator are 32 x 32 \(height, width\)"):
        train("padinv", generator, tmp_path, discriminator=random_critic(16, (4, 4, 4)))
    with pytest.raises(CheckpointError, match=r"missing\.pkl"):
        train_encoder(Noise(), tmp_path, generator, small("padinv", generator), discriminator="missing.pkl")
    assert not (tmp_path / "run.json").exists()


def test_the_command_takes_one(photos, file, finished_generator, tmp_path, capsys):
    # Of a training of a generator, then of that training of an encoder.
    for given, out in ((finished_generator, "one"), (tmp_path / "one", "two")):
        assert by_command(photos, file, tmp_path / out, "--discriminator", str(given)) == 0
        note = json.loads((tmp_path / out / "run.json").read_text())["discriminator"]
        assert note["group"] == 2 and len(note["sha256"]) == 64
    assert by_command(photos, file, tmp_path / "one") == 2
    assert "another discriminator" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--discriminator", "missing.pkl"], "missing.pkl cannot be read: there is no such file"),
        (["--discriminator", "{}", "--weight", "adversarial=0"], "the weight of 'adversarial' is 0"),
        (["--discriminator", "{}", "--preset", "psp"], "--weight adversarial=0.03"),
    ],
)
def test_impossible_commands_are_told_before_pictures_are_read(
    photos,
    file,
    published,
    tmp_path,
    capsys,
    more,
    message,
):
    given = [word.format(published) for word in more]
    assert by_command(photos, file, tmp_path / "out", *given) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out/pictures").exists()
