"""Training of encoders: presets, every loss against its formula, resuming, regions, the command."""

from __future__ import annotations

import json
import math
import resource
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import assert_close
from test_encoders import SETTINGS, encoded, tiny
from toys import halves, toy_stylegan2

import saminv
from saminv._arguments import make_recipe
from saminv._errors import CheckpointError, InputError, OutputError
from saminv.cli import main
from saminv.demo import train_encoders
from saminv.demo.segmenter import DemoSegmenter
from saminv.encoders import load_encoder
from saminv.images import area_resize, save
from saminv.metrics import get_metric
from saminv.metrics.identity import FaceResNet
from saminv.regions import Regions
from saminv.spaces import SpaceOptions, resolve_spaces
from saminv.train import Discriminator, PredictedRegions, TrainerConfig, encoder_training_for, train_encoder
from saminv.train._logs import read_rows
from saminv.train.encoder_data import Examples, KeptRegions, draw_noise, draw_samples
from saminv.train.encoder_losses import (
    Batch,
    EncoderLosses,
    Inverter,
    adversarial_loss,
    critic_loss,
    critic_penalty,
    unlike,
)
from saminv.train.encoder_settings import PRESETS
from saminv.weights import load_bundled

SIDE = 32
QUICK = {"steps": 4, "regression": 1, "batch": 3, "samples": 2, "metric": "mse", "validation": 2}
EVERY = {"validate_every": 2, "save_every": 2}


def close(got, expected):
    """Equal up to rounding."""
    assert_close(torch.as_tensor(got), torch.as_tensor(expected), 1e-5)


class Noise:
    """Pictures of blurred noise."""

    resolution = SIDE

    def __init__(self, count: int = 20, resolution: int = SIDE) -> None:
        self.count, self.resolution, self.fingerprint = count, resolution, f"{count} of noise"

    def __len__(self) -> int:
        return self.count

    def batch(self, indices):
        side = self.resolution
        seeds = [torch.Generator().manual_seed(index) for index in indices]
        small = torch.stack([torch.rand(3, 4, 4, generator=seed) * 2 - 1 for seed in seeds])
        return torch.nn.functional.interpolate(small, size=(side, side), mode="bilinear")


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


def bands(images):
    """Regions of slanted bands in the spaces of the toy encoder."""
    size = tuple(images.shape[2:])
    slant = torch.arange(size[1]) + torch.arange(size[0])[:, None]
    return Regions((slant // 12 % 3).expand(len(images), -1, -1).clone(), ("W+", "F4", "F6"))


def small(preset, generator, **changes):
    """A training of four steps, the first of which sees samples alone."""
    network = SETTINGS[PRESETS[preset].architecture]
    return encoder_training_for(preset, generator, "small", **{**QUICK, **EVERY, "network": network, **changes})


def train(preset, generator, folder, training=None, **more):
    regions = bands if preset == "sam" else None
    return train_encoder(
        Noise(), folder, generator, training or small(preset, generator), **{"regions": regions, **more}
    )


# Presets


def test_presets_have_the_published_numbers():
    padinv, style, sam = (PRESETS[name] for name in ("padinv", "feature-style", "sam"))
    assert padinv.weights == {"l2": 1.0, "perceptual": 0.8, "identity": 0.1, "adversarial": 0.03, "mean": 0.003}
    assert padinv.gamma == 10 and padinv.critic == "code"
    assert style.weights == {"l2": 1.0, "perceptual": 0.2, "code": 0.01, "identity": 0.1, "parsing": 0.1}
    assert (style.batch, style.samples, style.noise, style.scales) == (2, 2, "own", 3)
    assert style.compared == ("styles", "full") and style.l2_compared == ("styles",) and style.l2_samples_only
    assert style.steps == 12 * 10_000
    rates = [style.schedule.rate(step) for step in (0, 99_999, 100_000, 119_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])
    assert set(sam.weights) == {"l2", "perceptual", "prior", "deviation", "feature"}


def test_faces_have_no_discriminator_and_others_no_identity(generator):
    faces = encoder_training_for("padinv", generator, faces=True)
    others = encoder_training_for("padinv", generator)
    assert "adversarial" not in faces.weights and faces.weights["identity"] == 0.1
    assert "identity" not in others.weights and others.weights["adversarial"] == 0.03


def test_a_full_padinv_is_as_wide_as_the_constant_input(generator):
    assert encoder_training_for("padinv", generator).network["widths"] == (1, 3, 6, 12)
    assert encoder_training_for("padinv").network["widths"] == (64, 128, 256, 512)
    # A small one has a convolution of its own for it.
    small = encoder_training_for("padinv", generator, "small").network
    assert small["anchored"] and small["widths"][-1] == 96


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("hfgi", {}, "it is one of psp, padinv, feature-style, sam"),
        ("padinv", {"scale": "huge"}, "small, full"),
        ("padinv", {"weights": {"style": 1.0}}, "no loss 'style'. It has: l2"),
        ("padinv", {"weights": {"l2": -1.0}}, "number from 0 up"),
        ("padinv", {"weights": {"l2": 0.0, "perceptual": 0.0}}, "nothing compares with the picture"),
        ("padinv", {"regression": 5, "weights": {"latent": 0.0}}, "'latent' needs a weight"),
        ("padinv", {"critic": "hinge"}, "critic must be one of code, paper"),
        ("padinv", {"batch": 1}, "at least 2 pictures"),
        ("padinv", {"colour": 1}, "no such setting"),
        ("sam", {"compared": ("feature",)}, "name inversions of full and styles"),
    ],
)
def test_impossible_trainings_are_refused(preset, changes, message):
    with pytest.raises(InputError, match=message):
        encoder_training_for(preset, **changes)


def test_a_rate_may_fall_at_once():
    config = TrainerConfig(12, learning_rate=1.0, final_learning_rate=0.1, warmup=0, decay=1 / 6, at_once=True)
    assert [config.rate(step) for step in range(12)] == [1.0] * 10 + [0.1] * 2


# Losses


@pytest.fixture(scope="module")
def pictures(generator):
    return Noise().batch(range(4))


def losses_of(generator, encoder, **changes):
    preset = {"gradual": "psp"}.get(encoder.architecture, encoder.architecture)
    training = encoder_training_for(preset, generator, **{"steps": 4, "metric": "mse", **changes})
    return EncoderLosses(generator, encoder.provides, training, "mse")


def parts_of(generator, encoder, batch, **changes):
    losses = losses_of(generator, encoder, **changes)
    with torch.no_grad():
        latents = encoder.encode(batch.images, generator, batch.regions)
        parts, found = losses(latents, encoder.mean_styles(generator), batch)
    return parts, found, latents, losses


@pytest.mark.parametrize("norms", ["code", "paper"])
def test_padinv_losses_are_their_formulas(generator, pictures, norms):
    encoder = tiny("padinv", generator)
    parts, found, latents, losses = parts_of(generator, encoder, Batch(pictures), norms=norms)
    spaces = resolve_spaces(["W+", "P"], generator)
    taps = [tap for space in spaces for tap in space.bind(generator, latents[space.name], None)]
    image = generator.synthesis(latents["W+"]["w"], taps)
    close(found.images["full"], image)
    difference = image - pictures
    lengths = difference.flatten(1).norm(dim=1).mean()
    close(parts["l2"], difference.square().mean() if norms == "code" else lengths)
    close(parts["perceptual"], difference.square().mean())
    codes = latents["W+"]["w"] - generator.w_avg
    close(parts["mean"], codes.flatten(1).norm(dim=1).mean())
    assert set(parts) == {"l2", "perceptual", "mean"}
    parts["adversarial"] = torch.tensor(2.0)
    expected = parts["l2"] + 0.8 * parts["perceptual"] + 0.003 * parts["mean"] + 0.03 * 2
    close(losses.total(parts), expected)


@pytest.mark.parametrize("counted", [("prior", "deviation"), ("prior", "padding")])
def test_paddings_are_held_to_the_generators_own(generator, pictures, counted):
    encoder = tiny("padinv", generator)
    parts, _, latents, _ = parts_of(generator, encoder, Batch(pictures), weights=dict.fromkeys(counted, 1.0))
    assert set(counted) <= set(parts) and ("padding" in parts) == ("padding" in counted)
    styles, paddings = resolve_spaces(["W+", "P"], generator)
    close(parts["prior"], styles.penalty(generator, latents["W+"], {})["prior"].mean())
    if "padding" in counted:
        own = paddings.init(generator, latents["W+"]["w"])
        close(parts["padding"], paddings.penalty(generator, latents["P"], own)["padding"].mean())
        assert float(parts["padding"]) > 0


def test_feature_style_losses_are_their_formulas(generator, pictures):
    encoder = tiny("feature-style", generator)
    styles, made = draw_samples(generator, 2)
    batch = Batch(torch.cat([pictures[:2], made]), styles)
    parts, found, latents, _ = parts_of(generator, encoder, batch)
    code, site = latents["FS5"]["feature"], "F4.block"
    reference = generator.synthesis(latents["W+"]["w"], until=[site, "image"])
    alone = reference["image"]
    close(found.images["styles"], alone)
    close(parts["code"], (code - reference[site]).square().mean())
    # Samples alone, and their inversion by the styles.
    close(parts["l2"], (alone - batch.images)[2:].square().mean())
    expected = 0.0
    for image in (alone, found.images["full"]):
        for k in range(3):
            side = SIDE >> k
            expected += (area_resize(image, (side, side)) - area_resize(batch.images, (side, side))).square().mean()
    close(parts["perceptual"], expected)
    assert not torch.equal(alone, found.images["full"])


def test_a_picture_alone_has_no_squared_error_where_samples_count(generator, pictures):
    parts, *_ = parts_of(generator, tiny("feature-style", generator), Batch(pictures))
    assert float(parts["l2"]) == 0.0


def test_sam_losses_are_those_of_inversions(generator, pictures):
    encoder = tiny("sam", generator)
    regions = halves(generator, 4, ["W+", "F4", "F6"])
    parts, found, latents, losses = parts_of(generator, encoder, Batch(pictures, regions=regions))
    assert latents.keys() == encoded(encoder, generator, pictures).keys()
    spaces = resolve_spaces(["W+", "F4", "F6"], generator, SpaceOptions())
    expected = {"prior": 0.0, "deviation": 0.0, "feature": 0.0}
    for space in spaces:
        for name, value in space.penalty(generator, latents[space.name], {}).items():
            expected[name] = expected[name] + value.mean()
    for name, value in expected.items():
        assert float(value) > 0
        close(parts[name], value)
    total = sum(losses.weights[name] * parts[name] for name in parts)
    close(losses.total(parts), total)
    # What no pixel of a picture belongs to has no effect: masks take part.
    nowhere = Batch(pictures, regions=Regions.uniform(4, (SIDE, SIDE), ["W+", "F4", "F6"], "W+"))
    without = losses.invert.full(latents, nowhere)
    close(without, generator.synthesis(latents["W+"]["w"]))
    assert not torch.equal(without, found.images["full"])


def test_the_regression_is_in_units_of_the_variance(generator):
    losses = losses_of(generator, tiny("gradual", generator), weights={"latent": 1.0})
    styles, made = draw_samples(generator, 3)
    batch = Batch(torch.cat([made, made]), styles)
    w = generator.mapping(generator.sample_z(4000, seed=5))[:, 0]
    guess = w.mean(dim=0).expand(6, generator.num_styles, -1)
    close(losses.of_samples({"W+": {"w": guess}}, batch), (guess[3:] - styles).square().mean() / losses.spread)
    assert losses.spread == pytest.approx(float(w.var(dim=0).mean()), rel=0.1)


@pytest.mark.parametrize("architecture", ["padinv", "feature-style", "sam"])
def test_all_that_is_known_of_samples_is_learned(generator, architecture):
    encoder = tiny(architecture, generator)
    losses = losses_of(generator, encoder, weights={"latent": 1.0})
    styles, made = draw_samples(generator, 2)
    batch = Batch(made, styles)
    names = [space.name for space in losses.invert.spaces]
    known = {space.name: space.init(generator, styles) for space in losses.invert.spaces}
    assert float(losses.of_samples(known, batch)) == 0.0
    # What is known renders to the sample itself.
    close(losses.invert.full(known, batch).clamp(-1, 1), made)
    (key, value), *others = known[names[-1]].items()
    scale = losses.invert.spaces[-1].step_scale(generator, known[names[-1]])[key]
    known[names[-1]][key] = value + 3 * scale
    close(losses.of_samples(known, batch), 9.0 / (1 + len(others)))


def test_a_training_starts_near_what_is_known_of_samples(generator):
    _, made = draw_samples(generator, 8)
    padinv, coded, sam = (tiny(name, generator) for name in ("padinv", "feature-style", "sam"))
    padinv.fit_to(generator)
    assert all(not bool(x.any()) for name, x in padinv.encode(made, generator)["P"].items() if name != "P0")
    coded.train().fit_to(generator)
    feature = coded.encode(made, generator)["FS5"]["feature"]
    assert_close(feature.std(dim=(0, 2, 3)), generator.feature_deviation("F4"), 1e-3)
    expected = generator.synthesis(generator._typical_styles(32), until="F4")["F4"].mean(dim=(0, 2, 3))
    assert_close(feature.mean(dim=(0, 2, 3)), expected, 1e-4)
    sam.fit_to(generator)
    assert torch.equal(sam.deviation0, generator.feature_deviation("F4"))


def test_critics_of_code_and_paper():
    real, fake = torch.tensor([0.3, -1.2]), torch.tensor([0.5, 2.0])
    softplus = torch.nn.functional.softplus
    close(critic_loss("code", real, fake), softplus(-real).mean() + softplus(fake).mean())
    close(critic_loss("paper", real, fake), fake.mean() - real.mean())
    close(adversarial_loss("code", fake), softplus(-fake).mean())
    close(adversarial_loss("paper", fake), -fake.mean())
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    weight = torch.randn(3, 4, 4)
    length = weight.norm()
    logits = (images * weight).sum(dim=(1, 2, 3))
    close(critic_penalty("code", images, logits).detach(), 0.5 * length.square())
    close(critic_penalty("paper", images, logits).detach(), 0.5 * length)


def test_likeness_becomes_a_distance():
    values = torch.tensor([0.2, 1.0])
    close(unlike(get_metric("ssim"), values), 1 - values)
    assert torch.equal(unlike(get_metric("mse"), values), values)


def test_a_feature_code_takes_its_place_step_by_step(generator, pictures):
    encoder = tiny("feature-style", generator)
    invert = Inverter(generator, encoder.provides, encoder_training_for("feature-style", generator, ramp=10))
    latents = encoder.encode(pictures, generator)
    batch = Batch(pictures)
    plain = generator.synthesis(latents["W+"]["w"])
    close(invert.full(latents, batch, step=0), plain)
    half = {**latents, "FS5": {"feature": latents["FS5"]["feature"].lerp(_site(generator, latents), 0.5)}}
    close(invert.full(latents, batch, step=5), invert.full(half, batch))
    assert torch.equal(invert.full(latents, batch, step=10), invert.full(latents, batch))


def _site(generator, latents):
    return generator.synthesis(latents["W+"]["w"], until="F4.block")["F4.block"]


def test_a_sample_is_inverted_with_its_own_noise(generator):
    torch.manual_seed(0)
    noise = draw_noise(generator, 5)
    styles, made = draw_samples(generator, 2, noise)
    batch = Batch(torch.cat([torch.zeros(3, 3, SIDE, SIDE), made]), styles, noise=noise)
    invert = Inverter(generator, frozenset({"W+"}), encoder_training_for("psp", generator))
    known = {"W+": {"w": torch.cat([styles[:1].expand(3, -1, -1), styles])}}
    close(invert.full(known, batch)[3:].clamp(-1, 1), made)
    assert not torch.equal(generator.synthesis(styles).clamp(-1, 1), made)
    assert draw_noise(generator, 2)[0].value.shape == (2, *generator.site("noise0").shape)


# Training


@pytest.fixture(scope="module", params=["psp", "padinv", "feature-style", "sam"])
def whole(request, generator, tmp_path_factory):
    """An uninterrupted training and its encoder."""
    folder = tmp_path_factory.mktemp("whole")
    return request.param, folder, train(request.param, generator, folder)


def arrays(encoder):
    return {name: x for name, x in encoder.state_dict().items() if x.is_floating_point()}


def test_an_interrupted_training_ends_where_a_whole_one_does(whole, generator, tmp_path):
    preset, folder, encoder = whole
    for until in (1, 3, None):
        # Random numbers of the process do not matter.
        torch.manual_seed(7)
        found = train(preset, generator, tmp_path, until=until)
    assert arrays(found).keys() == arrays(encoder).keys()
    for name, x in arrays(found).items():
        assert torch.equal(x, arrays(encoder)[name]), name
    clocks = {"seconds", "images_per_second"}
    one, other = (
        [{k: v for k, v in row.items() if k not in clocks} for row in read_rows(path / "log.jsonl")]
        for path in (folder, tmp_path)
    )
    assert one == other and [row["step"] for row in one] == [2, 4]


def test_what_a_training_leaves(whole, generator):
    preset, folder, encoder = whole
    names = {path.name for path in folder.iterdir()}
    assert {"encoder.safetensors", "latest.safetensors", "checkpoint.pt", "run.json", "log.jsonl"} < names
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["000000002.png", "000000004.png"]
    rows = read_rows(folder / "validation.jsonl")
    assert [row["step"] for row in rows] == [2, 4] and {"loss", "psnr", "l2", "perceptual"} < set(rows[0])
    best = min(rows, key=lambda row: row["loss"])
    assert ("critic" in read_rows(folder / "log.jsonl")[0]) == (preset == "padinv")
    opened = load_encoder(folder / "encoder.safetensors")
    assert opened.config.fingerprint == generator.fingerprint and opened.architecture == PRESETS[preset].architecture
    # The figures are those of the encoder that was kept.
    real = Noise().batch(range(2))
    batch = Batch(real, regions=bands(real) if preset == "sam" else None)
    with torch.no_grad():
        latents = opened.encode(real, generator, batch.regions)
        made = Inverter(generator, opened.provides, small(preset, generator)).full(latents, batch)
    assert best["psnr"] == pytest.approx(float(get_metric("psnr").compare(made, real).mean()), abs=1e-3)
    assert all(torch.equal(x, arrays(opened)[name]) for name, x in arrays(encoder).items())


def test_the_generator_stays_as_it_is(generator, tmp_path):
    before = {name: x.clone() for name, x in generator.state_dict().items()}
    train("padinv", generator, tmp_path)
    assert all(torch.equal(x, before[name]) for name, x in generator.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in generator.parameters())


def test_samples_teach_their_styles(generator, tmp_path):
    schedule = {"steps": 16, "regression": 16, "validate_every": 16, "save_every": 4, "warmup": 2}
    train("psp", generator, tmp_path, small("psp", generator, samples=5, learning_rate=4e-3, **schedule))
    latent = [row["latent"] for row in read_rows(tmp_path / "log.jsonl")]
    assert latent[-1] < 0.85 * latent[0]


@pytest.mark.parametrize("preset", ["padinv", "feature-style", "sam"])
def test_half_precision_of_the_encoder_trains(generator, tmp_path, preset):
    encoder = train(preset, generator, tmp_path, precision="bf16")
    assert all(bool(x.isfinite().all()) and x.dtype == torch.float32 for x in arrays(encoder).values())


def test_a_finished_training_without_decay_may_be_longer(generator, tmp_path):
    steady = small("psp", generator, decay=0.0)
    train("psp", generator, tmp_path, steady)
    train("psp", generator, tmp_path, replace(steady, steps=6))
    assert [row["step"] for row in read_rows(tmp_path / "log.jsonl")] == [2, 4, 6]


def test_a_folder_of_another_training_is_refused(generator, tmp_path):
    train("psp", generator, tmp_path, until=1)
    with pytest.raises(CheckpointError, match=r"preset was \"psp\", now \"padinv\""):
        train("padinv", generator, tmp_path)
    with pytest.raises(CheckpointError, match=r"another data.*pictures was 20, now 30"):
        train_encoder(Noise(30), tmp_path, generator, small("psp", generator))
    with pytest.raises(CheckpointError, match="another generator"):
        train_encoder(Noise(), tmp_path, toy_stylegan2(seed=1), small("psp", generator))


def test_what_does_not_fit_is_refused(generator, tmp_path):
    with pytest.raises(InputError, match=r"32 x 32 \(height, width\), those to train on 16 x 16"):
        train_encoder(Noise(resolution=16), tmp_path, generator, small("psp", generator))
    with pytest.raises(InputError, match="Of 3 pictures 1 are held out for the validation, and a step shows 3"):
        train_encoder(Noise(3), tmp_path, generator, small("psp", generator))
    with pytest.raises(InputError, match="pass regions="):
        train_encoder(Noise(), tmp_path / "sam", generator, small("sam", generator))
    with pytest.raises(InputError, match="needs an encoder that gives a feature code"):
        weights = {"code": 1.0}
        train_encoder(Noise(), tmp_path / "code", generator, small("psp", generator, regression=0, weights=weights))


def test_a_full_disk_leaves_the_last_checkpoint(generator, tmp_path):
    train("psp", generator, tmp_path, until=2)
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, limits[1]))
        with pytest.raises(OutputError, match=r"Cannot write .*checkpoint\.pt"):
            train("psp", generator, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept
    train("psp", generator, tmp_path)


def test_every_picture_but_those_held_out_is_shown_once(generator):
    examples = Examples(Noise(11), 2, 3, seed=0)
    shown = [index for step in range(3) for index in examples(step)[0]]
    assert sorted(shown) == list(range(2, 11))
    assert torch.equal(examples(1)[1], Noise(11).batch(shown[3:6]))
    assert examples(0)[0] == Examples(Noise(11), 2, 3, seed=0)(0)[0]


# Regions


def test_regions_are_found_once_and_kept(tmp_path):
    asked = []

    def find(images):
        asked.append(len(images))
        return bands(images)

    images = Noise().batch([4, 7, 9])
    kept = KeptRegions(find, tmp_path, 12, (SIDE, SIDE))
    first = kept([4, 7], images[:2])
    assert first == bands(images[:2]) and kept([7, 9], images[1:]) == bands(images[1:])
    again = KeptRegions(find, tmp_path, 12, (SIDE, SIDE))
    # One picture says which spaces there are.
    assert again([4, 7, 9], images) == bands(images) and asked == [2, 1, 1]
    # A row that a killed process left unfinished is found again.
    again.labels[7, -1, -1] = 255
    assert again([4, 7], images[:2]) == first and asked == [2, 1, 1, 1]
    with pytest.raises(OutputError, match="belongs to other pictures"):
        KeptRegions(find, tmp_path, 13, (SIDE, SIDE))


def test_predicted_regions_are_those_of_an_inversion():
    generator = saminv.load_generator("demo")
    scenes = saminv.demo.sample_scenes(2, seed=60_000, strangers=True).images
    recipe = make_recipe(generator="demo", encoder="mean", device="cpu")
    with torch.no_grad():
        expected = recipe.prepare(saminv.images.load_many(scenes)).problem.regions
    found = PredictedRegions(generator, DemoSegmenter())(scenes)
    assert torch.equal(found.labels, expected.labels) and found.spaces == expected.spaces


# The demo's own


def test_scenes_by_number_are_the_same_alone_and_together():
    source = train_encoders.SceneSource(10)
    together = source.batch([3, 8])
    assert torch.equal(together[1:], source.batch([8])) and len(source) == 10
    assert torch.equal(together[:1], saminv.demo.sample_scenes(1, 1_000_003).images)


@pytest.mark.parametrize("name", [*train_encoders.SHIPPED, train_encoders.PLAIN])
def test_the_demos_networks_are_small(name):
    generator = saminv.load_generator("demo")
    demo = train_encoders.TRAININGS[name]
    training = demo.training(generator)
    encoder = saminv.encoders.make_encoder(training.architecture, generator, **training.network)
    numbers = sum(x.numel() * (2 if x.dim() > 1 else 4) for x in encoder.state_dict().values())
    assert numbers <= train_encoders.LARGEST
    spaces = {"padinv": {"W+", "P"}, "plain": {"W+"}, "feature-style": {"W+", "FS5"}, "sam": {"W+", "F4", "F6", "F8"}}
    assert encoder.provides == spaces[name]


def test_ablations_change_what_they_are_called_by():
    generator = saminv.load_generator("demo")
    trainings = {name: demo.training(generator) for name, demo in train_encoders.TRAININGS.items()}
    provided = {
        name: saminv.encoders.make_encoder(training.architecture, generator, **training.network).provides
        for name, training in trainings.items()
        if name in train_encoders.ABLATIONS
    }
    paddings = {f"padinv-p{last}": f"P[{numbers}]" for last, numbers in ((0, "0"), (3, "0,1,3"), (9, "0,1,3,5,7,9"))}
    assert all(provided[name] == {"W+", space} for name, space in paddings.items())
    assert provided["feature-style-b"] == {"W+"} and provided["feature-style-d"] == {"W+", "FS5"}
    whole, free = trainings["padinv"].weights, trainings["padinv-free"].weights
    assert whole["mean"] == 0.003 and whole["prior"] > 0 and not free["mean"] and not free["prior"]
    usual = trainings["feature-style-d"]
    differences = {
        name: {key for key, value in training.claimed.items() if value != usual.claimed[key]}
        for name, training in trainings.items()
        if name.startswith("feature-style-")
    }
    assert differences == {
        "feature-style-a": {"scales", "weights"},
        "feature-style-b": {"network", "compared", "weights"},
        "feature-style-c": {"batch", "samples", "regression", "weights"},
        "feature-style-d": set(),
    }


def test_a_training_of_another_length_keeps_its_proportions():
    demo = train_encoders.TRAININGS["feature-style"]
    usual, short = (demo.training(saminv.load_generator("demo"), steps) for steps in (None, 45))
    assert (usual.steps, usual.regression) == (4500, 1000)
    assert (short.steps, short.regression) == (45, 10)


def test_without_its_feature_branch_the_encoder_gives_styles_alone(generator, pictures):
    whole = tiny("feature-style", generator)
    alone = saminv.encoders.make_encoder(
        "feature-style", generator, feature_branch=False, **SETTINGS["feature-style"]
    ).freeze()
    missing = alone.load_state_dict(whole.state_dict(), strict=False)
    assert {name.split(".")[0] for name in missing.unexpected_keys} == {"content_layer"} and not missing.missing_keys
    found = alone.encode(pictures, generator)
    assert found.keys() == {"W+"} and torch.equal(found["W+"]["w"], whole.encode(pictures, generator)["W+"]["w"])


def test_an_encoder_is_exported_with_its_card(tmp_path):
    generator = saminv.load_generator("demo")
    training = train_encoders.TRAININGS["feature-style"].training(generator)
    encoder = saminv.encoders.make_encoder(training.architecture, generator, **training.network).freeze()
    card = train_encoders.export("feature-style", encoder, tmp_path, scenes=2)
    assert card.file == "demo-encoder-feature-style.safetensors" and "train_encoders feature-style" in card.trained_by
    assert {"psnr_clean", "psnr_strangers", "demo_clean", "demo_strangers"} < set(card.figures)
    assert card.figures["encodes"] == generator.fingerprint
    assert (tmp_path / card.file).stat().st_size <= train_encoders.LARGEST
    stored, _ = load_bundled(tmp_path.joinpath(card.file).stem, tmp_path)
    assert stored["conv.0.weight"].dtype == torch.float16


# The command


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(Noise(resolution=40).batch(range(12))):
        save(folder / f"p{number}.png", image[None])
    return folder


@pytest.fixture(scope="module")
def file(generator, tmp_path_factory):
    from saminv.generators import save_generator

    return save_generator(generator, tmp_path_factory.mktemp("generator") / "toy.safetensors")


def by_command(photos, file, out, *more):
    given = ["--images", str(photos), "--generator", str(file), "--out", str(out), "--metric", "mse"]
    length = ["--steps", "2", "--regression", "1", "--batch", "2", "--validation", "2", "--every", "2"]
    return main(["train-encoder", *given, *length, "--device", "cpu", *more])


def test_the_command_trains_and_its_encoder_starts_inversions(photos, file, tmp_path, capsys):
    assert by_command(photos, file, tmp_path / "out", "--weight", "l2=2", "--weight", "adversarial=0") == 0
    shown = capsys.readouterr().out
    path = tmp_path / "out/encoder.safetensors"
    assert "12 pictures of 32 x 32 pixels." in shown and str(path) in shown
    run = json.loads((tmp_path / "out/run.json").read_text())["training"]
    assert run["weights"]["l2"] == 2 and run["weights"]["adversarial"] == 0 and run["preset"] == "padinv"
    settings = {"generator": file, "metric": "mse", "segmenter": "none", "device": "cpu"}
    solution = saminv.invert(photos / "p0.png", ["W+", "P"], encoder=path, steps=0, **settings)
    assert math.isfinite(float(solution.stats["psnr"]))
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        card = json.loads(opened.metadata()["card"])
    assert "--weight l2=2" in card["trained_by"] and str(photos) not in json.dumps(card)
    # The same command finds nothing left to do; another one is told apart.
    assert by_command(photos, file, tmp_path / "out", "--weight", "l2=2", "--weight", "adversarial=0") == 0
    assert by_command(photos, file, tmp_path / "out", "--preset", "psp") == 2
    assert 'preset was "padinv", now "psp"' in capsys.readouterr().err


def face_network():
    """A tiny network with the array names of ArcFace's."""
    return FaceResNet([(16, 16, 2), (16, 32, 2), (32, 64, 2)], squeeze=True, affine=True).state_dict()


def parsing_network():
    """The face parser's own, which has one size only."""
    resnet18 = pytest.importorskip("torchvision.models", reason="the face parser is torchvision's ResNet-18").resnet18
    return {f"cp.resnet.{name}": x for name, x in resnet18(weights=None).state_dict().items()}


@pytest.mark.parametrize(
    ("loss", "network"),
    [("identity", face_network), pytest.param("parsing", parsing_network, marks=pytest.mark.slow)],
)
def test_networks_for_faces_come_from_their_files(photos, file, tmp_path, loss, network):
    torch.manual_seed(3)
    torch.save(network(), tmp_path / "faces.pth")
    more = [f"--{loss}", str(tmp_path / "faces.pth"), "--weight", f"{loss}=0.2"]
    assert by_command(photos, file, tmp_path / "out", *more) == 0
    weights = json.loads((tmp_path / "out/run.json").read_text())["training"]["weights"]
    # Pictures are faces then, for which there is no discriminator.
    assert weights[loss] == 0.2 and "adversarial" not in weights
    [row] = read_rows(tmp_path / "out/log.jsonl")
    assert row[loss] > 0 and "critic" not in row
    [judged] = read_rows(tmp_path / "out/validation.jsonl")
    expected = sum(weights[name] * judged[name] for name in ("l2", "perceptual", loss))
    assert judged["loss"] == pytest.approx(expected, rel=1e-4)


def test_a_network_without_a_loss_is_refused(photos, file, tmp_path, capsys):
    torch.save(face_network(), tmp_path / "faces.pth")
    assert by_command(photos, file, tmp_path / "out", "--identity", str(tmp_path / "faces.pth"), "--preset", "sam") == 2
    told = capsys.readouterr().err
    assert "'identity', which has no weight in --preset sam" in told and "--weight identity=0.1" in told


def test_broken_and_oblong_pictures_are_told_of_and_cut(photos, file, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in photos.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "torn.png").write_text("no picture")
    save(folder / "wide.png", torch.zeros(1, 3, 40, 60))
    assert by_command(folder, file, tmp_path / "out", "--weight", "adversarial=0") == 0
    told = capsys.readouterr()
    assert "13 pictures of 32 x 32" in told.out and "passed over: " in told.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--weight", "style=1"], "no loss 'style'"),
        (["--weight", "l2"], "NAME=VALUE"),
        (["--spaces", "W+"], "--spaces are those of --preset sam"),
        (["--device", "tpu"], "Unknown device"),
        (["--parsing", "missing.pth"], "missing.pth"),
        (["--preset", "sam", "--spaces", "W+", "F4"], "no invertibility network"),
        (["--batch", "64"], "Of 12 pictures"),
    ],
)
def test_impossible_commands_are_refused(photos, file, tmp_path, capsys, more, message):
    assert by_command(photos, file, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "out/pictures").exists() == ("--batch" in more), "told before anything is decoded"


def test_the_discriminator_is_of_the_generators_size(generator, tmp_path):
    train("padinv", generator, tmp_path, until=2)
    critic = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["extra"]["critic"]
    expected = Discriminator(SIDE, generator.config.channel_base, generator.config.channel_max).state_dict()
    assert {name: x.shape for name, x in critic.items()} == {name: x.shape for name, x in expected.items()}
    assert np.isfinite([float(x.abs().max()) for x in critic.values()]).all()
