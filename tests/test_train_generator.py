"""Training of a generator on pictures: the pictures, the augmentation, the losses, the score, resuming, the command."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close
from toys import toy_stylegan2

import saminv
from saminv import images
from saminv._errors import CheckpointError, InputError, OutputError, RunError, TrainingError
from saminv._lock import Lock
from saminv.cli import main
from saminv.demo import sample_scenes
from saminv.metrics import FID
from saminv.train import (
    DemoScore,
    DifferentiableAugmentation,
    Discriminator,
    PathLength,
    Trainer,
    TrainerConfig,
    gradient_penalty,
    prepare_pictures,
    train_generator,
    training_for,
)
from saminv.train._logs import keep_rows, read_rows
from saminv.train.generator import find_training_precision, tiled
from saminv.train.loop import MOST_LOST
from saminv.train.pictures import PictureBatches
from saminv.train.score import PlacedFeatures

SIDE = 16


def picture(number: int, height: int = 24, width: int = 24) -> Image.Image:
    """A disc on a ground, both of random colours."""
    source = np.random.default_rng(number)
    colours = source.integers(0, 256, (2, 3))
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(height, width) * source.uniform(0.2, 0.45)) ** 2
    return Image.fromarray(np.where(inside[..., None], colours[0], colours[1]).astype(np.uint8))


def write_pictures(folder, count: int):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(number).save(folder / f"p{number}.png")
    return folder


def prepare(folder, cache, **more):
    return prepare_pictures(folder, cache, SIDE, **({"progress": False} | more))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("photos") / "mine", 12)


@pytest.fixture(scope="module")
def data(photos, tmp_path_factory):
    return prepare(photos, tmp_path_factory.mktemp("cache"))


def tiny(pictures: int = 12, **changes):
    """A training of 6 steps that sees every kind of step."""
    usual = {
        "batch": 4,
        "kimg": 0.024,
        "penalty_every": 2,
        "path_every": 3,
        "score_images": 8,
        "save_kimg": 0.008,
        "score_kimg": 0.012,
        "average_kimg": 0.01,
        "average_ramp": 0.5,
    }
    return training_for(SIDE, pictures, channels=4, **(usual | changes))


# Pictures


def test_all_kinds_of_pictures_become_rgb_squares(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rgb = np.asarray(picture(1))
    Image.fromarray(rgb).save(folder / "a.png")
    Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 0, np.uint8)])).save(folder / "clear.png")
    Image.fromarray(np.full((20, 20), 51, np.uint8)).save(folder / "grey.png")
    Image.fromarray(np.full((20, 20), 65535 * 3 // 5, np.uint16)).save(folder / "deep.tiff")
    picture(2).convert("P").save(folder / "palette.gif")
    picture(3).save(folder / "photo.webp", lossless=True)
    (folder / "notes.txt").write_text("no picture")
    data = prepare(folder, tmp_path / "cache")
    assert len(data) == 6 and not data.broken
    batch = data.batch(range(6))
    assert batch.shape == (6, 3, SIDE, SIDE) and batch.dtype == torch.float32
    means = sorted(round(float(image.mean()), 2) for image in batch if float(image.std()) < 1e-6)
    assert means == [pytest.approx(2 * 51 / 255 - 1, abs=0.01), pytest.approx(0.2, abs=0.01), pytest.approx(1.0)]


def test_a_picture_is_upright_and_cropped_in_the_middle(tmp_path):
    pixels = np.zeros((40, 120, 3), np.uint8)
    pixels[:, 40:80, 0] = 255
    pixels[:, 80:, 1] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in/tall.jpg", exif=exif, quality=100, subsampling=0)
    (middle,) = prepare(tmp_path / "in", tmp_path / "cache").batch([0])
    assert float(middle[0].min()) > 0.9 and float(middle[1].max()) < -0.9
    (whole,) = prepare(tmp_path / "in", tmp_path / "cache", fit="letterbox").batch([0])
    # A quarter turn clockwise: what was left is above.
    assert float(whole[:2, :4].max()) < -0.6 and float(whole[1, -4:].min()) > 0.6


def test_large_photographs_are_read_at_a_part_of_their_size_and_look_the_same(tmp_path):
    large = picture(5, 640, 960).resize((1280, 960), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 8
    large.save(tmp_path / "large.jpg", quality=95, exif=exif)
    assert images.load(tmp_path / "large.jpg").size == (1280, 960)
    small = images.load(tmp_path / "large.jpg", least=2 * SIDE)
    assert small.size == (160, 120)
    plain, _ = images.fit(images.load(tmp_path / "large.jpg"), (SIDE, SIDE), "crop")
    quick, _ = images.fit(small, (SIDE, SIDE), "crop")
    assert float((plain - quick).abs().mean()) < 0.02
    with pytest.raises(InputError, match="too large"):
        wide = io.BytesIO()
        Image.new("L", (30_000, 3_000)).save(wide, "jpeg")
        (tmp_path / "wide.jpg").write_bytes(wide.getvalue())
        images.load(tmp_path / "wide.jpg", least=2 * SIDE)


def test_broken_pictures_are_passed_over_and_too_many_refused(tmp_path):
    folder = write_pictures(tmp_path / "in", 9)
    (folder / "torn.png").write_bytes((folder / "p1.png").read_bytes()[:60])
    data = prepare(folder, tmp_path / "cache")
    assert len(data) == 9 and list(data.broken) == ["torn"]
    assert "1 cannot be read" in data.describe()
    (folder / "empty.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"Only 9 of 11 pictures can be read.*torn\.png.*allow more than 10%"):
        prepare(folder, tmp_path / "cache")
    assert len(prepare(folder, tmp_path / "cache", most_broken=0.5)) == 9


def test_a_folder_without_a_good_picture_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="has no pictures"):
        prepare(tmp_path / "in", tmp_path / "cache")
    (tmp_path / "in/torn.png").write_text("no picture")
    with pytest.raises(InputError, match="None of 1 pictures"):
        prepare(tmp_path / "in", tmp_path / "cache", most_broken=0.9)


def test_pictures_are_decoded_once_whatever_their_names(tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "in", 5)
    shutil.copy(folder / "p1.png", folder / "copy.png")
    first = prepare(folder, tmp_path / "cache")
    assert (len(first), first.repeated) == (5, 1)
    folder = folder.rename(tmp_path / "elsewhere")
    (folder / "p0.png").rename(folder / "z.png")
    monkeypatch.setattr(images, "load", lambda *_, **__: pytest.fail("decoded again"))
    again = prepare(folder, tmp_path / "cache")
    assert again.fingerprint == first.fingerprint and again.name_digest != first.name_digest
    assert torch.equal(again.batch(range(5)), first.batch(range(5)))
    monkeypatch.undo()
    picture(77).save(folder / "p2.png")
    assert prepare(folder, tmp_path / "cache").fingerprint != first.fingerprint


def test_an_interrupted_preparation_keeps_what_it_has(tmp_path, monkeypatch):
    folder, real, seen = write_pictures(tmp_path / "in", 6), images.load, []

    def load(path, **more):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(path)
        return real(path, **more)

    monkeypatch.setattr(images, "load", load)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "cache")
    seen.clear()
    assert len(prepare(folder, tmp_path / "cache")) == 6 and len(seen) == 2
    monkeypatch.undo()
    whole = prepare(folder, tmp_path / "other")
    assert torch.equal(whole.batch(range(6)), prepare(folder, tmp_path / "cache").batch(range(6)))


def test_a_damaged_shard_is_made_again(tmp_path):
    folder = write_pictures(tmp_path / "in", 3)
    before = prepare(folder, tmp_path / "cache").batch(range(3)).clone()
    (shard,) = (tmp_path / "cache").rglob("shard-*.npy")
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="is damaged"):
        data = prepare(folder, tmp_path / "cache")
    assert torch.equal(data.batch(range(3)), before)


def test_no_space_is_told_before_anything_is_decoded(tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "in", 3)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(OutputError, match=r"3 pictures need .* free some space"):
        prepare(folder, tmp_path / "cache")


def test_pictures_of_the_training_are_no_sources(tmp_path):
    folder = write_pictures(tmp_path / "in", 4)
    write_pictures(folder / "out/samples", 2)
    assert len(prepare(folder, folder / "out/pictures", barred=folder / "out")) == 4


def test_small_pictures_are_counted(tmp_path):
    folder = write_pictures(tmp_path / "in", 2)
    picture(9, 10, 30).save(folder / "small.png")
    data = prepare(folder, tmp_path / "cache")
    assert data.enlarged == 1 and "1 were smaller" in data.describe()


@pytest.mark.parametrize("more", [{"fit": "stretch"}, {"most_broken": 1.0}, {"limit": 0}])
def test_impossible_preparations_are_refused(photos, tmp_path, more):
    with pytest.raises(InputError):
        prepare(photos, tmp_path, **more)


def test_batches_use_every_picture_once_and_depend_on_the_step_alone(data):
    batches = PictureBatches(data, 5, flip=False, seed=3)
    used = torch.cat([batches(step) for step in range(12)])
    every = data.batch(range(12))
    counts = [int((used == image).flatten(1).all(dim=1).sum()) for image in every]
    assert counts == [5] * 12
    assert torch.equal(PictureBatches(data, 5, flip=False, seed=3)(7), used[35:40])
    flipped = torch.cat([PictureBatches(data, 5, flip=True, seed=3)(step) for step in range(12)])
    turned = (flipped == used.flip(-1)).flatten(1).all(dim=1)
    assert bool(((flipped == used).flatten(1).all(dim=1) | turned).all())


def test_about_half_of_the_pictures_are_flipped(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.linspace(0, 255, SIDE * SIDE * 3).reshape(SIDE, SIDE, 3).astype(np.uint8)).save(
        tmp_path / "in/ramp.png"
    )
    ramp = prepare(tmp_path / "in", tmp_path / "cache")
    seen = PictureBatches(ramp, 200, flip=True, seed=0)(0)
    same = (seen == ramp.batch([0])).flatten(1).all(dim=1)
    assert 70 < int(same.sum()) < 130
    assert torch.equal(seen[~same], ramp.batch([0]).flip(-1).expand(int((~same).sum()), -1, -1, -1))


# Augmentation


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_translation_moves_by_whole_pixels_and_fills_with_zeros():
    torch.manual_seed(0)
    batch = torch.rand(64, 3, 16, 16) + 0.1
    moved = DifferentiableAugmentation(colour=False, cutout=0)(batch, source())
    shifts = set()
    for before, after in zip(batch, moved):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(padded[:, top : top + 16, left : left + 16], after)
        ]
        assert len(found) == 1
        shifts.update(found)
    assert {top for top, _ in shifts} == {left for _, left in shifts} == set(range(5))


def test_cutout_removes_one_square():
    holes = DifferentiableAugmentation(colour=False, translation=0)(torch.ones(200, 3, 16, 16), source()) == 0
    assert torch.equal(holes[:, 0], holes[:, 2])
    rows, columns = holes[:, 0].any(dim=2).sum(dim=1), holes[:, 0].any(dim=1).sum(dim=1)
    assert torch.equal(holes[:, 0].sum(dim=(1, 2)), rows * columns)
    assert int(rows.max()) == int(columns.max()) == 8 and int(rows.min()) == 4
    assert bool(holes[:, 0].any(dim=0).all()), "every pixel is hit some time"


def test_colours_change_as_the_paper_says():
    torch.manual_seed(0)
    batch = torch.rand(300, 3, 8, 8) * 2 - 1
    changed = DifferentiableAugmentation(translation=0, cutout=0)(batch, source())
    brightness = changed.mean(dim=(1, 2, 3)) - batch.mean(dim=(1, 2, 3))
    assert -0.5 <= float(brightness.min()) < -0.4 and 0.4 < float(brightness.max()) <= 0.5

    def grey(x):
        return x.mean(dim=1)

    contrast = grey(changed).std(dim=(1, 2)) / grey(batch).std(dim=(1, 2))
    assert 0.5 <= float(contrast.min()) < 0.6 and 1.4 < float(contrast.max()) <= 1.5 + 1e-5
    spread = (changed - grey(changed)[:, None]).std(dim=(1, 2, 3)) / (batch - grey(batch)[:, None]).std(dim=(1, 2, 3))
    saturation = spread / contrast
    assert float(saturation.min()) < 0.1 and 1.9 < float(saturation.max()) <= 2 + 1e-4


def test_the_augmentation_has_derivatives_of_both_orders():
    torch.manual_seed(0)
    batch = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    augmentation = DifferentiableAugmentation()

    def squared(x):
        return augmentation(x, source(4)).square()

    assert torch.autograd.gradcheck(squared, batch)
    assert torch.autograd.gradgradcheck(squared, batch)


def test_impossible_augmentations_are_refused():
    with pytest.raises(InputError, match="parts of the side"):
        DifferentiableAugmentation(cutout=1.5)


# Losses


def test_a_batch_of_equal_images_has_gradients():
    critic = Discriminator(16, 64, 8, group=2)
    batch = torch.rand(1, 3, 16, 16).repeat(4, 1, 1, 1).requires_grad_(True)
    critic(batch).sum().backward()
    assert bool(torch.isfinite(batch.grad).all()) and bool(batch.grad.any())


def test_variety_is_judged_within_groups():
    torch.manual_seed(0)
    critic, batch = Discriminator(16, 64, 8, group=2), torch.randn(4, 3, 16, 16)
    changed = batch.clone()
    changed[3] += 1
    before, after = critic(batch), critic(changed)
    # Groups are images 0 and 2, and 1 and 3.
    assert torch.allclose(before[[0, 2]], after[[0, 2]]) and not torch.allclose(before[1], after[1])
    assert critic(batch[:3]).shape == (3,)


def test_a_critic_of_an_odd_size_is_refused():
    with pytest.raises(InputError, match="power of two"):
        Discriminator(48)


def test_half_precision_of_the_critic_is_near_full():
    torch.manual_seed(0)
    critic, batch = Discriminator(32, 512, 16), torch.randn(8, 3, 32, 32)
    full, half = critic(batch), critic(batch, torch.bfloat16)
    assert half.dtype == torch.float32
    assert 0 < float((full - half).detach().abs().max()) < 0.05 * float(full.detach().abs().mean())


def test_path_lengths_of_a_linear_generator():
    torch.manual_seed(0)
    matrix = torch.randn(3 * 8 * 8, 2 * 5)
    styles = torch.randn(4, 2, 5, requires_grad=True)
    rendered = (styles.flatten(1) @ matrix.t()).reshape(4, 3, 8, 8)
    paths = PathLength()
    torch.manual_seed(7)
    penalty = paths(rendered, styles)
    torch.manual_seed(7)
    gradient = (torch.randn(4, 3 * 8 * 8) / 8) @ matrix
    lengths = gradient.reshape(4, 2, 5).square().sum(dim=2).mean(dim=1).sqrt()
    mean = 0.01 * lengths.mean()
    assert float(paths.mean) == pytest.approx(float(mean), rel=1e-5)
    assert float(penalty) == pytest.approx(float((lengths - mean).square().mean()), rel=1e-5)


def directional(function, parameters) -> tuple[float, float]:
    """Derivative of a function along a random direction of its parameters, by autograd and by differences."""
    torch.manual_seed(5)
    direction = [torch.randn_like(p) for p in parameters]
    gradients = torch.autograd.grad(function(), parameters, allow_unused=True)
    exact = sum(float((g * d).sum()) for g, d in zip(gradients, direction) if g is not None)
    values, eps = [], 1e-8
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, direction):
                p.add_(sign * eps * d)
        values.append(float(function().detach()))
        with torch.no_grad():
            for p, d in zip(parameters, direction):
                p.sub_(sign * eps * d)
    return exact, (values[0] - values[1]) / (2 * eps)


def test_path_lengths_have_the_right_gradient_through_a_generator():
    generator = toy_stylegan2(torch.float64, resolution=16).requires_grad_(True)

    def penalty():
        torch.manual_seed(1)
        styles = generator.mapping(torch.randn(3, 12, dtype=torch.float64))
        paths = PathLength().double()
        paths.mean.fill_(0.3)
        # The mean follows the lengths, but is no part of the gradient.
        paths.rate = 0.0
        return paths(generator.synthesis(styles, noise="random"), styles)

    exact, measured = directional(penalty, list(generator.parameters()))
    assert exact == pytest.approx(measured, rel=1e-5) and abs(exact) > 1e-3


def test_r1_has_the_right_gradient_through_the_augmentation():
    torch.manual_seed(0)
    critic = Discriminator(16, 64, 8, group=2).double()
    with torch.no_grad():
        for name, parameter in critic.named_parameters():
            # Without biases the pixels that an augmentation sets to 0 would lie on the kink of the leaky ReLU.
            if name.endswith("bias"):
                parameter.normal_()
    batch = torch.randn(4, 3, 16, 16, dtype=torch.float64)

    def penalty():
        real = batch.clone().requires_grad_(True)
        return gradient_penalty(real, critic(DifferentiableAugmentation()(real, source(2))))

    exact, measured = directional(penalty, list(critic.parameters()))
    assert exact == pytest.approx(measured, rel=1e-5) and abs(exact) > 1e-6


# Score


def test_the_score_is_a_distance_between_sets(data):
    """The one of all metrics, of the same pictures."""
    count = len(data)
    generator = toy_stylegan2(resolution=SIDE)
    metric = FID(PlacedFeatures())
    metric.update_reference(data.batch(range(count)))
    metric.update(generator.synthesis(generator.mapping(generator.sample_z(count, seed=0))))
    with pytest.warns(UserWarning, match="covariance is singular"):
        expected = metric.compute()
    score = DemoScore(data, count)
    assert score(generator) == score(generator) == pytest.approx(expected, rel=1e-6)
    assert score(generator) > 0
    with pytest.raises(InputError, match="at least 2"):
        DemoScore(data, 1)


def test_features_of_a_score_tell_where_things_are():
    extractor = PlacedFeatures()
    scene = sample_scenes(1, 5).images
    cells = extractor(scene).reshape(-1, 4, 4)
    found = extractor.network.features((scene + 1).mul(127.5).round() / 127.5 - 1)[-1]
    units = torch.nn.functional.normalize(found, dim=1)
    side = units.shape[-1] // 4
    assert_close(
        cells[:, 1, 2], 2.5 * units[0, :, side : 2 * side, 2 * side : 3 * side].mean(dim=(1, 2)), atol=1e-4, rtol=0
    )
    assert extractor.length == cells.numel() and cells.square().sum(dim=0).max() <= 2.5**2
    # A road above the sky has nearly the same mean over the picture.
    moved = extractor(scene.flip(2)).reshape(-1, 4, 4) - cells
    assert moved.square().mean() > 4 * moved.mean(dim=(1, 2)).square().mean()


# Settings


def test_usual_settings_follow_the_rules():
    usual, large = training_for(64, 500), training_for(64, 500, "full")
    assert usual.gamma == 1 and large.gamma == pytest.approx(2e-4 * 64**2 / large.batch)
    assert training_for(256, 500).gamma == pytest.approx(2e-4 * 256**2 / 8)
    assert usual.augmentation is not None and training_for(64, 50_000).augmentation is None
    schedule = usual.schedule
    assert schedule.learning_rate == schedule.final_learning_rate == pytest.approx(0.0025 * 4 / 5)
    assert schedule.betas == (0.0, pytest.approx(0.99 ** (4 / 5)))
    assert schedule.extra_rate * schedule.learning_rate == pytest.approx(0.0025 * 16 / 17)
    assert schedule.extra_betas == (0.0, pytest.approx(0.99 ** (16 / 17)))
    assert schedule.rate(0) == schedule.rate(10**6) == schedule.learning_rate
    assert training_for(64, 500, path_weight=0).schedule.learning_rate == pytest.approx(0.0025)
    assert training_for(64, 500, "full", batch=16).gamma == pytest.approx(2 * large.gamma)
    assert training_for(64, 500, channels=20).network.channels(64) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 1}, "see variety"),
        ({"kimg": 0}, "kimg"),
        ({"gamma": -1.0}, "gamma"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"scale": "huge"}, "small, full"),
        ({"channels": 0}, "channels"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        training_for(64, 500, **changes)


def test_a_resolution_is_a_power_of_two():
    with pytest.raises(InputError, match="power of two"):
        training_for(48, 500)


def test_precisions_of_a_training():
    cpu = torch.device("cpu")
    assert find_training_precision("auto", cpu).features is None
    assert find_training_precision("bf16", cpu).features is torch.bfloat16
    with pytest.raises(InputError, match="fp32, tf32, bf16"):
        find_training_precision("fp16", cpu)


# The loop


def linear_trainer(folder, **changes):
    torch.manual_seed(0)
    config = TrainerConfig(**({"steps": 30, "learning_rate": 0.05, "warmup": 0, "save_every": 5} | changes))
    return Trainer(nn.Linear(2, 1), config, folder)


def loss_of(trainer, broken=()):
    def compute(step):
        loss = trainer.model(torch.ones(1, 2)).square().mean()
        return {"loss": loss * (torch.nan if step in broken else 1)}

    return compute


def test_a_step_that_is_not_finite_is_left_out(tmp_path):
    trainer = linear_trainer(tmp_path)
    trainer.run(loss_of(trainer), until=3)
    before = trainer.model.weight.clone()
    with pytest.warns(UserWarning, match="Step 3: the loss of the model"):
        trainer.run(loss_of(trainer, broken=(3,)), until=4)
    assert torch.equal(trainer.model.weight, before)
    trainer.run(loss_of(trainer), until=5)
    assert not torch.equal(trainer.model.weight, before)
    (row,) = read_rows(tmp_path / "log.csv")
    assert np.isfinite(row["loss"])


def test_a_training_that_is_lost_ends_with_a_sound_checkpoint(tmp_path):
    trainer = linear_trainer(tmp_path)
    with pytest.warns(UserWarning), pytest.raises(TrainingError, match=f"not finite {MOST_LOST} times"):
        trainer.run(loss_of(trainer, broken=range(6, 40)))
    again = linear_trainer(tmp_path)
    assert 0 < again.step < 30 and bool(torch.isfinite(again.model.weight).all())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_after_the_step(tmp_path, number):
    trainer, handler = linear_trainer(tmp_path), signal.getsignal(number)

    def compute(step):
        if step == 2:
            os.kill(os.getpid(), number)
        return loss_of(trainer)(step)

    with pytest.raises(KeyboardInterrupt):
        trainer.run(compute)
    assert linear_trainer(tmp_path).step == 3
    assert signal.getsignal(number) is handler


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    trainer = linear_trainer(tmp_path)
    trainer.run(loss_of(trainer), until=5)
    kept, limits = trainer.checkpoint.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OutputError, match=r"Cannot write .*checkpoint\.pt"):
            trainer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert trainer.checkpoint.read_bytes() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "log.csv"]


def test_averages_have_a_half_life_that_ramps_up():
    config = TrainerConfig(steps=1000, average_half_life=20, average_ramp=0.1)
    assert config.average(0) == 0
    assert config.average(100) == pytest.approx(0.5**0.1) and config.average(900) == pytest.approx(0.5**0.05)


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "a"')
    keep_rows(path, 2)
    assert read_rows(path) == [{"step": 1, "a": 1}, {"step": 2}]
    keep_rows(path, 0)
    assert not path.exists()


# Training


def state(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted training and its generator."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train_generator(data, folder, tiny(flip=True))


@pytest.mark.parametrize("stops", [(1, 4), (2, 3, 5)])
def test_an_interrupted_training_ends_where_a_whole_one_does(data, whole, tmp_path, stops):
    for until in (*stops, None):
        # Random numbers of the process do not matter.
        torch.manual_seed(len(stops))
        generator = train_generator(data, tmp_path, tiny(flip=True), until=until, plot=False)
    one, other = state(whole[0]), state(tmp_path)
    for name in ("model", "average", "optimiser", "extra", "extra_optimisers", "best", "step"):
        assert same(one[name], other[name]), name
    assert generator.fingerprint == whole[1].fingerprint
    rows = [read_rows(folder / "log.jsonl") for folder in (whole[0], tmp_path)]
    clocks = {"seconds", "images_per_second"}
    assert [{k: v for k, v in row.items() if k not in clocks} for row in rows[0]] == [
        {k: v for k, v in row.items() if k not in clocks} for row in rows[1]
    ]


def test_what_a_training_leaves(data, whole):
    folder, generator = whole
    names = {path.name for path in folder.iterdir()}
    assert {"generator.safetensors", "latest.safetensors", "reals.png", "log.jsonl", "scores.jsonl", "run.json"} < names
    assert {"checkpoint.pt", "curve.png", "samples"} < names
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["000000012.png", "000000024.png"]
    assert images.load(folder / "samples/000000024.png").size == (6 * SIDE, 8 * SIDE)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [(row["step"], row["kimg"]) for row in log] == [(2, 0.008), (4, 0.016), (6, 0.024)]
    assert {"loss", "critic", "r1", "path", "real", "fake", "overfitting", "images_per_second"} < set(log[0])
    scores = read_rows(folder / "scores.jsonl")
    assert [row["step"] for row in scores] == [3, 6] and min(row["score"] for row in scores) > 0

    opened = saminv.load_generator(folder / "generator.safetensors")
    assert opened.fingerprint == generator.fingerprint
    samples = opened.mapping(opened.sample_z(20_000, seed=0))[:, 0].mean(dim=0)
    assert torch.allclose(opened.w_avg, samples, atol=1e-4) and bool(opened.w_avg.any())
    assert not any(p.requires_grad for p in opened.parameters())
    from safetensors import safe_open

    with safe_open(folder / "generator.safetensors", "pt") as file:
        card = json.loads(file.metadata()["card"])
    assert card["pictures"] == 12 and card["pictures_sha256"] == data.fingerprint and "no FID" in card["score_of"]
    assert card["score"] == pytest.approx(min(row["score"] for row in scores), abs=1e-3)
    assert len(card["folder_name_sha256"]) == 64 and "mine" not in json.dumps(card)


def test_a_training_may_be_made_longer(data, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "longer")
    train_generator(data, tmp_path / "longer", tiny(flip=True, kimg=0.032), plot=False)
    assert state(tmp_path / "longer")["step"] == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"gamma": 3.0}, "gamma was 1.0, now 3.0"), ({"batch": 6}, "batch was 4, now 6"), ({"flip": False}, "flip")],
)
def test_other_settings_are_refused(data, whole, changes, message):
    with pytest.raises(CheckpointError, match=message):
        train_generator(data, whole[0], tiny(**({"flip": True} | changes)))


def test_other_pictures_are_refused(photos, whole, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(photos, folder)
    picture(50).save(folder / "new.png")
    with pytest.raises(CheckpointError, match=r"another data.*pictures was 12, now 13"):
        train_generator(prepare(folder, tmp_path / "cache"), whole[0], tiny(flip=True))


def test_a_training_fits_its_pictures(data, tmp_path):
    with pytest.raises(InputError, match="32 pixels a side, the pictures have 16"):
        train_generator(data, tmp_path, training_for(32, 12))
    with pytest.raises(InputError, match="only 12 pictures, but a step shows 16"):
        train_generator(data, tmp_path, tiny(batch=16))


def test_one_training_per_folder(data, tmp_path):
    lock = Lock(tmp_path / "lock")
    try:
        with pytest.raises(RunError, match="Another run is writing"):
            train_generator(data, tmp_path, tiny())
    finally:
        lock.release()


def test_half_precision_trains(data, tmp_path):
    train_generator(data, tmp_path, tiny(), precision="bf16", until=3, plot=False)
    kept = state(tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in kept["model"].values())
    assert kept["model"]["const"].dtype == torch.float32


def test_parts_can_be_left_out(data, tmp_path):
    bare = tiny(path_weight=0.0, gamma=0.0, mixing=0.0, augmentation=None)
    train_generator(data, tmp_path, bare, until=3, plot=False)
    (row,) = read_rows(tmp_path / "log.jsonl")
    assert "r1" not in row and "path" not in row


def test_sheets_are_filled_with_white():
    sheet = tiled(torch.zeros(3, 3, 4, 5), 2)
    assert sheet.shape == (1, 3, 8, 10)
    assert float(sheet[:, :, 4:, 5:].min()) == 1 and float(sheet[:, :, :4].abs().max()) == 0


# The command


def train_by_command(photos, out, *more: str) -> int:
    given = [
        "--images",
        str(photos),
        "--out",
        str(out),
        "--resolution",
        str(SIDE),
        "--channels",
        "4",
        "--device",
        "cpu",
    ]
    return main(["train-generator", *given, "--kimg", "0.008", "--batch", "4", *more])


def test_the_command_trains_and_says_where(photos, tmp_path, capsys):
    assert train_by_command(photos, tmp_path / "out", "--augment", "colour", "translation") == 0
    shown = capsys.readouterr().out
    assert "12 pictures of 16 x 16 pixels." in shown
    path = tmp_path / "out/generator.safetensors"
    assert str(path) in shown and saminv.load_generator(path).image_size == (SIDE, SIDE)
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["training"]["augmentation"] == {"colour": True, "translation": 0.125, "cutout": 0.0}
    assert train_by_command(photos, tmp_path / "out") == 2
    assert "augmentation.cutout was 0.0, now 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--augment", "none", "colour"], "auto or none alone"),
        (["--resolution", "48"], "power of two"),
        (["--batch", "64"], "only 12 pictures"),
        (["--device", "tpu"], "Unknown device"),
    ],
)
def test_impossible_commands_are_refused(photos, tmp_path, capsys, more, message):
    assert train_by_command(photos, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "out/pictures").exists() == ("--batch" in more), "told before anything is decoded"


def test_the_command_tells_of_broken_pictures(photos, tmp_path, capsys):
    folder = tmp_path / "in"
    shutil.copytree(photos, folder)
    (folder / "torn.png").write_text("no picture")
    assert train_by_command(folder, tmp_path / "out") == 0
    told = capsys.readouterr()
    assert "1 cannot be read" in told.out and "passed over: " in told.err


@pytest.mark.slow
def test_it_learns_what_the_pictures_look_like(tmp_path):
    """Discs on plain grounds: after some thousand images the score has fallen far below that of the start."""
    folder = write_pictures(tmp_path / "in", 200)
    data = prepare(folder, tmp_path / "cache")
    training = training_for(SIDE, 200, channels=16, kimg=16, batch=16, score_images=200, score_kimg=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_generator(data, tmp_path / "out", training, plot=False)
    scores = [row["score"] for row in read_rows(tmp_path / "out/scores.jsonl")]
    assert min(scores[-2:]) < 0.5 * scores[0]
