"""Trains the demo's StyleGAN2 on rendered car scenes: regression to the renderer first, adversarially after.

The factors of a scene are a function of z, so every z comes with its picture. Regression teaches the mapping the
factors, then starts at 32 pixels on the skip image of that resolution, goes on at 64 and 128, and needs no
discriminator; the adversarial part sharpens.

Run ``python -m saminv.demo.train_generator --folder runs/generator``; run it again after an interruption and it goes
on. ``--extend`` trains the bundled generator for longer.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..generators import StyleGAN2
from ..images import area_resize
from ..train import Discriminator, Trainer, TrainerConfig, discriminator_loss, generator_loss, gradient_penalty
from .generator import CONFIG, export, load_demo_generator
from .scenes import CAR_SEGMENTS, FACTORS, factors_from_z, render


@dataclass(frozen=True)
class Stage:
    """Regression at one resolution.

    Attributes:
        site: Site of the skip image that is compared; None for the picture, "styles" for the mapping alone.
        side: Its side in pixels.
        steps, batch: How much of it.
    """

    site: str | None
    side: int
    steps: int
    batch: int = 4


STAGES = (
    Stage("styles", 0, 2000, 256),
    Stage("rgb6.block", 32, 8000),
    Stage("rgb8.block", 64, 6000),
    Stage(None, 128, 4200),
)
CAR_WEIGHT = 4.0
READOUT_WEIGHT = 0.2
FRESH = 1_000_000
"""Added to the steps of an extension, which is to see scenes that the training before it did not."""


class Lesson(nn.Module):
    """The generator, and a linear readout that asks w for the factors of the scene.

    The readout makes the mapping turn noise into factors early, binary ones included, which a picture loss alone
    teaches late: two cars that face each other's way average to a blurred one. It is not kept.
    """

    def __init__(self, start: StyleGAN2 | None = None) -> None:
        super().__init__()
        self.generator = StyleGAN2(CONFIG)
        self.readout = nn.Linear(CONFIG.w_dim, len(FACTORS))
        if start is not None:
            self.generator.load_state_dict(start.state_dict())
            self._fit_readout()

    @torch.no_grad()
    def _fit_readout(self, samples: int = 4096) -> None:
        """Set the readout by least squares, so that it asks nothing of the mapping that is not amiss."""
        z = noise(0, samples, offset=3)
        w = self.generator.mapping(z)[:, 0]
        wanted = 2 * factors_from_z(z) - 1
        found = torch.linalg.lstsq(torch.cat([w, torch.ones(samples, 1)], dim=1), wanted).solution
        self.readout.weight.copy_(found[:-1].t())
        self.readout.bias.copy_(found[-1])

    def picture(self, z: Tensor, site: str | None) -> Tensor:
        """The skip image at a site, or the picture `[B, 3, s, s]`."""
        rendered = self.generator.synthesis(self.generator.mapping(z), until=site)
        return rendered if isinstance(rendered, Tensor) else rendered[site or ""]

    def forward(self, z: Tensor) -> Tensor:
        """Mean squared error of the factors, scaled to [-1, 1], that are read off w."""
        w = self.generator.mapping(z)[:, 0]
        return (self.readout(w) - (2 * factors_from_z(z) - 1)).square().mean()


def noise(step: int, batch: int, offset: int = 0) -> Tensor:
    """Noise `[B, 64]`, fixed by the step."""
    source = torch.Generator().manual_seed(1_000_003 * (offset + 1) + step)
    return torch.randn(batch, CONFIG.z_dim, generator=source)


def scenes(z: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The scenes of noise at ``side`` pixels, and the weight of each pixel: `[B, 3, s, s]`, `[B, 1, s, s]`."""
    scene = render(factors_from_z(z))
    car = torch.isin(scene.segments, torch.tensor(CAR_SEGMENTS)).float()[:, None]
    # The car's surroundings count as well, so that its outline is not paid for by one side alone.
    weight = 1 + (CAR_WEIGHT - 1) * F.max_pool2d(car, 9, 1, 4)
    return area_resize(scene.images, (side, side)), area_resize(weight, (side, side))


def regression_loss(image: Tensor, target: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
    """Absolute and squared error, and the absolute error of the image gradient, which keeps edges sharp.

    Args:
        image, target: `[B, 3, H, W]`.
        weight: Of each pixel `[B, 1, H, W]`, for the first two.
    """
    difference = image - target
    weight = torch.ones_like(image[:, :1]) if weight is None else weight
    squared, absolute = (weight * difference.square()).mean(), (weight * difference.abs()).mean()
    edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return {"loss": 4 * squared + 0.5 * absolute + edges, "mse": difference.square().mean(), "edges": edges}


def stage_at(step: int, stages: Sequence[Stage] | None = None) -> Stage:
    """The stage (of STAGES unless others are given) that a step belongs to."""
    stages = stages or STAGES
    for stage in stages:
        if step < stage.steps:
            return stage
        step -= stage.steps
    return stages[-1]


def train_regression(
    folder: Path,
    until: int | None = None,
    compiled: bool = False,
    stages: Sequence[Stage] | None = None,
    start: StyleGAN2 | None = None,
) -> StyleGAN2:
    """Run (or resume) the regression stages, STAGES unless others are given; returns the averaged generator.

    ``compiled`` runs the generator through torch.compile, which needs a C++ compiler and is faster once it is done.
    With ``start`` the training goes on from a trained generator.
    """
    torch.manual_seed(0)
    stages = stages or STAGES
    config = TrainerConfig(steps=sum(stage.steps for stage in stages), learning_rate=2e-3, decay=0.2)
    lesson = Lesson(start)
    trainer = Trainer(lesson, config, folder)
    picture = torch.compile(lesson.picture) if compiled else lesson.picture

    def compute(step: int) -> dict[str, Tensor]:
        stage = stage_at(step, stages)
        step = step if start is None else step + FRESH
        z = noise(step, stage.batch)
        if stage.site == "styles":
            readout = lesson(z)
            return {"loss": readout, "mse": readout.new_zeros(()), "edges": readout.new_zeros(()), "readout": readout}
        target, weight = scenes(z, stage.side)
        losses = regression_loss(picture(z, stage.site), target, weight)
        readout = lesson(noise(step, 64, offset=2))
        return {**losses, "loss": losses["loss"] + READOUT_WEIGHT * readout, "readout": readout}

    trainer.run(compute, until)
    return trainer.average.generator


@dataclass(frozen=True)
class Adversarial:
    """The sharpening part.

    Attributes:
        weight: Of the non-saturating loss beside the regression.
        gamma: Of R1, which is computed every ``lazy`` steps and multiplied by them.
    """

    steps: int = 3000
    batch: int = 4
    weight: float = 0.01
    gamma: float = 5.0
    lazy: int = 8
    learning_rate: float = 1e-3


def train_adversarial(
    start: StyleGAN2, folder: Path, settings: Adversarial | None = None, until: int | None = None
) -> StyleGAN2:
    """Run (or resume) the adversarial part from a regressed generator; returns the averaged generator."""
    settings = settings or Adversarial()
    torch.manual_seed(1)
    model = copy.deepcopy(start).train().requires_grad_(True)
    critic = Discriminator(CONFIG.resolution)
    config = TrainerConfig(settings.steps, learning_rate=settings.learning_rate)
    trainer = Trainer(model, config, folder, critic=critic)

    def teach_critic(step: int, real: Tensor, fake: Tensor) -> Tensor:
        penalise = step % settings.lazy == 0
        real = real.requires_grad_(penalise)
        logits = critic(real)
        loss = discriminator_loss(logits, critic(fake.detach()))
        total = loss + settings.gamma * settings.lazy * gradient_penalty(real, logits) if penalise else loss
        trainer.descend(total, "critic")
        return loss.detach()

    def compute(step: int) -> dict[str, Tensor]:
        z = noise(step, settings.batch, offset=1)
        target, weight = scenes(z, CONFIG.resolution)
        image = model(z)
        critic_loss = teach_critic(step, target.clone(), image)
        critic.requires_grad_(False)
        losses = regression_loss(image, target, weight)
        adversarial = generator_loss(critic(image))
        critic.requires_grad_(True)
        total = losses["loss"] + settings.weight * adversarial
        return {**losses, "loss": total, "adversarial": adversarial, "critic": critic_loss}

    trainer.run(compute, until)
    return trainer.average


@torch.no_grad()
def measure(generator: StyleGAN2, count: int = 64, seed: int = 0) -> dict[str, float]:
    """PSNR of generated scenes against rendered ones, and the ratio of their mean gradient magnitudes."""
    z = generator.sample_z(count, 10_000_000 + seed)
    targets = render(factors_from_z(z)).images
    images = torch.cat([generator(part) for part in z.split(8)])
    psnr = 10 * torch.log10(4 / (images - targets).square().mean(dim=(1, 2, 3)))
    return {"psnr": round(float(psnr.median()), 2), "sharpness": round(sharpness(images) / sharpness(targets), 4)}


def sharpness(images: Tensor) -> float:
    """Mean gradient magnitude of images `[B, 3, H, W]`."""
    across, down = images.diff(dim=3)[..., :-1, :], images.diff(dim=2)[..., :-1]
    return float((across.square() + down.square()).sqrt().mean())


def main(arguments: list[str] | None = None) -> None:
    """Train, measure and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/generator"), help="checkpoints and logs")
    parser.add_argument("--regression-only", action="store_true", help="leave out the adversarial part")
    parser.add_argument("--compile", action="store_true", help="run the generator through torch.compile")
    parser.add_argument(
        "--extend",
        type=int,
        metavar="STEPS",
        help="instead of anew, go on from the bundled generator: regression at full size, for so many steps",
    )
    options = parser.parse_args(arguments)
    command = "python -m saminv.demo.train_generator" + " --regression-only" * options.regression_only
    if options.extend:
        stages = (Stage(None, CONFIG.resolution, options.extend),)
        folder, start = options.folder / "extension", load_demo_generator()
        generator = train_regression(folder, compiled=options.compile, stages=stages, start=start)
        command = f"{command}, then the same with --extend {options.extend}"
    else:
        generator = train_regression(options.folder / "regression", compiled=options.compile)
    if not options.regression_only:
        generator = train_adversarial(generator, options.folder / "adversarial")
    figures = measure(generator)
    print(f"wrote {export(generator, command, figures)}: {figures}")


if __name__ == "__main__":
    main()
