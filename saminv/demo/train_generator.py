"""Trains the demo's StyleGAN2 on rendered car scenes: regression to the renderer first, adversarially after.

The factors of a scene are a function of z, so every z comes with its picture. Regression starts at 32 pixels on the
skip image of that resolution, goes on at 64 and 128, and needs no discriminator; the adversarial part sharpens.

Run ``python -m saminv.demo.train_generator --folder runs/generator``; run it again after an interruption and it continues.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..generators import StyleGAN2
from ..train import Discriminator, Trainer, TrainerConfig, discriminator_loss, generator_loss, gradient_penalty
from .generator import CONFIG
from .scenes import factors_from_z, render

@dataclass(frozen=True)
class Stage:
    """Regression at one resolution: ``site`` of the skip image (None for the picture), side in pixels, steps, batch."""

    site: str | None
    side: int
    steps: int
    batch: int = 4


STAGES = (Stage("rgb6.block", 32, 6000), Stage("rgb8.block", 64, 4000), Stage(None, 128, 7000))


def pairs(step: int, batch: int, side: int, offset: int = 0) -> tuple[Tensor, Tensor]:
    """Noise `[B, 64]` and its rendered scene `[B, 3, side, side]`, fixed by the step."""
    source = torch.Generator().manual_seed(1_000_003 * (offset + 1) + step)
    z = torch.randn(batch, CONFIG.z_dim, generator=source)
    images = render(factors_from_z(z)).images
    if side < images.shape[-1]:
        images = F.interpolate(images, size=(side, side), mode="area")
    return z, images


def regression_loss(image: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Absolute and squared error, and the absolute error of the image gradient, which keeps edges sharp."""
    difference = image - target
    squared, absolute = difference.square().mean(), difference.abs().mean()
    edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return {"loss": 2 * squared + absolute + edges, "mse": squared, "edges": edges}


def train_regression(folder: Path) -> StyleGAN2:
    """Run (or resume) the regression stages; returns the averaged generator."""
    torch.manual_seed(0)
    config = TrainerConfig(steps=sum(stage.steps for stage in STAGES), learning_rate=3e-3)
    model = StyleGAN2(CONFIG)
    trainer = Trainer(model, config, folder)

    def stage_at(step: int) -> Stage:
        for stage in STAGES:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return STAGES[-1]

    def compute(step: int) -> dict[str, Tensor]:
        stage = stage_at(step)
        z, target = pairs(step, stage.batch, stage.side)
        rendered = model.synthesis(model.mapping(z), until=stage.site)
        image = rendered if isinstance(rendered, Tensor) else rendered[stage.site or ""]
        return regression_loss(image, target)

    trainer.run(compute)
    return trainer.average


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/generator"))
    arguments = parser.parse_args()
    train_regression(arguments.folder / "regression")
