"""Training: schedules, resuming, the adversarial losses, and the demo's training functions on a few steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saminv._errors import CheckpointError
from saminv.demo import train_generator
from saminv.demo.train_generator import (
    Adversarial,
    Lesson,
    Stage,
    noise,
    regression_loss,
    sharpness,
    stage_at,
    train_adversarial,
)
from saminv.generators import StyleGAN2, StyleGAN2Config
from saminv.train import Discriminator, Trainer, TrainerConfig, discriminator_loss, generator_loss, gradient_penalty

SMALL = StyleGAN2Config(
    resolution=32, z_dim=64, w_dim=16, channel_base=256, channel_max=8, mapping_layers=2, learning_rate_multiplier=1.0
)


def linear_run(folder, until, steps=8, save_every=2):
    """Fit a linear map with data fixed by the step; returns the trainer."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    trainer = Trainer(model, TrainerConfig(steps, learning_rate=0.05, warmup=2, save_every=save_every), folder)

    def compute(step):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        return {"loss": (model(x) - x[:, :2]).square().mean()}

    trainer.run(compute, until)
    return trainer


def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(tmp_path):
    whole = linear_run(tmp_path / "whole", 8)
    linear_run(tmp_path / "parts", 4)
    resumed = linear_run(tmp_path / "parts", 8)
    assert resumed.step == 8
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key])
        assert torch.equal(whole.average.state_dict()[key], resumed.average.state_dict()[key])


def test_the_log_has_a_row_per_checkpoint(tmp_path):
    linear_run(tmp_path, 8)
    rows = (tmp_path / "log.csv").read_text().strip().splitlines()
    assert rows[0] == "step,seconds,loss"
    assert [int(row.split(",")[0]) for row in rows[1:]] == [2, 4, 6, 8]


def test_a_damaged_checkpoint_is_refused(tmp_path):
    linear_run(tmp_path, 2)
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="remove it to start anew"):
        linear_run(tmp_path, 4)


def test_the_rate_rises_and_falls():
    config = TrainerConfig(steps=100, learning_rate=1.0, final_learning_rate=0.1, warmup=10)
    assert config.rate(0) == pytest.approx(0.1)
    assert config.rate(10) == pytest.approx(1.0)
    assert config.rate(100) == pytest.approx(0.1)
    assert all(config.rate(i) >= config.rate(i + 1) for i in range(10, 99))


def test_the_rate_holds_before_the_decay():
    config = TrainerConfig(steps=100, learning_rate=1.0, final_learning_rate=0.0, warmup=10, decay=0.2)
    assert {config.rate(step) for step in range(10, 81)} == {1.0}
    assert config.rate(90) == pytest.approx(0.5) and config.rate(100) == pytest.approx(0.0)


def test_losses_of_a_perfect_and_a_blind_critic():
    certain, blind = torch.tensor([20.0]), torch.zeros(1)
    assert float(discriminator_loss(certain, -certain)) < 1e-6
    assert float(discriminator_loss(blind, blind)) == pytest.approx(2 * 0.693147, abs=1e-5)
    assert float(generator_loss(certain)) < 1e-6 < float(generator_loss(-certain))


def test_gradient_penalty_of_a_linear_critic():
    real = torch.randn(2, 3, 4, 4, requires_grad=True)
    logits = (real * 0.5).sum(dim=(1, 2, 3))
    assert float(gradient_penalty(real, logits)) == pytest.approx(0.5 * 48 * 0.25, rel=1e-5)


def test_discriminator_reaches_every_weight():
    critic = Discriminator(32, channel_base=256, channel_max=8)
    critic(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in critic.parameters())


def test_regression_loss_is_zero_only_for_equal_pictures():
    image = torch.rand(2, 3, 16, 16)
    assert float(regression_loss(image, image)["loss"]) == 0
    assert float(regression_loss(image, image.roll(1, 3))["loss"]) > 0


def test_sharpness_falls_with_blur():
    image = torch.rand(2, 3, 32, 32)
    assert sharpness(torch.nn.functional.avg_pool2d(image, 3, 1, 1)) < 0.6 * sharpness(image)


@pytest.fixture
def small_world(monkeypatch):
    monkeypatch.setattr(train_generator, "CONFIG", SMALL)
    stages = (Stage("rgb2.block", 8, 2, 2), Stage(None, 32, 3, 2))
    monkeypatch.setattr(train_generator, "STAGES", stages)


def test_stages_follow_each_other(small_world):
    assert [stage_at(step).side for step in range(6)] == [8, 8, 32, 32, 32, 32]


def test_regression_then_adversarial_training_runs_and_resumes(small_world, tmp_path):
    regressed = train_generator.train_regression(tmp_path / "regression")
    again = train_generator.train_regression(tmp_path / "regression")
    assert all(torch.equal(a, b) for a, b in zip(regressed.state_dict().values(), again.state_dict().values()))
    before = StyleGAN2(SMALL)
    before.load_state_dict(regressed.state_dict())
    settings = Adversarial(steps=3, batch=2, lazy=2)
    sharpened = train_adversarial(regressed, tmp_path / "adversarial", settings)
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), sharpened.parameters())]
    assert any(moved) and all(bool(torch.isfinite(p).all()) for p in sharpened.parameters())


def test_a_training_goes_on_from_a_trained_generator(small_world, tmp_path):
    start = StyleGAN2(SMALL)
    lesson = Lesson(start)
    assert all(torch.equal(a, b) for a, b in zip(start.state_dict().values(), lesson.generator.state_dict().values()))
    z = noise(7, 256)
    assert lesson(z) < 0.5 * Lesson()(z), "the readout is fitted to the generator that it starts from"
    extended = train_generator.train_regression(tmp_path, stages=(Stage(None, 32, 2, 2),), start=start)
    assert any(not torch.equal(a, b) for a, b in zip(start.parameters(), extended.parameters()))
