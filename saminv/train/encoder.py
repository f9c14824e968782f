"""Training of an encoder of any architecture for any generator, on pictures and on samples of the generator.

Reference:
    PadInv: Bai et al., 2022, arXiv 2203.11105, section 3.4; Feature-Style: Yao et al., 2022, arXiv 2202.02183, section
    4; SAM: Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), section 3.3.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import images
from .._errors import InputError
from .._files import ensure_folder
from .._types import Latents, map_latents
from .._version import __version__
from ..encoders import AbstractEncoder, load_encoder, make_encoder, save_encoder
from ..generators import AbstractGenerator
from ..metrics import get_metric
from ..metrics._base import AbstractMetric
from ..optim.precision import Precision
from ..regions import Regions
from ._resume import Ahead, claim, mixed
from .adversarial import Discriminator
from .discriminators import check_discriminator, learning_copy, load_discriminator, noted
from .encoder_data import Examples, KeptRegions, PictureSource, draw_noise, draw_samples
from .encoder_losses import Batch, EncoderLosses, adversarial_loss, critic_loss, critic_penalty, unlike
from .encoder_settings import FULL, STYLES, EncoderTraining
from .generator import SAMPLES, _locked, _seeded, find_training_precision, tiled
from .loop import Trainer

BEST, LATEST = "encoder.safetensors", "latest.safetensors"
SHEET = 12
"""Pictures on a sample sheet, each beside its inversion."""
SHEET_COLUMNS = 6
TOGETHER = 8
"""Pictures that are validated together."""
CHANNELS = {"channel_base": 16384, "channel_max": 512}
"""Channels of an untrained discriminator where the generator does not say its own."""

FindRegions = Callable[[Tensor], Regions]


def train_encoder(
    data: PictureSource,
    folder: str | Path,
    generator: AbstractGenerator,
    training: EncoderTraining,
    *,
    faces: Mapping[str, AbstractMetric] | None = None,
    regions: FindRegions | None = None,
    discriminator: str | Path | Discriminator | None = None,
    device: str | torch.device | None = None,
    precision: str = "auto",
    until: int | None = None,
    command: str = "saminv.train.train_encoder",
) -> AbstractEncoder:
    """Train an encoder, or go on with a training that was interrupted; returns the best one, frozen.

    The folder gets ``encoder.safetensors`` (averaged weights at the lowest validation loss; ``encoder=`` takes it),
    ``latest.safetensors``, ``samples/`` (pictures beside their inversions), ``log.jsonl``, ``validation.jsonl``,
    ``run.json`` and ``checkpoint.pt``. The same call goes on after an interruption of any kind and, on a CPU with the
    same number of threads, ends with the same weights as without.

    Args:
        data: Pictures of the generator's size; the first ones are held out.
        folder: Where the training lives.
        generator: Frozen; stays as it is.
        training: How, see :func:`encoder_training_for`.
        faces: Metrics for the losses "identity" and "parsing"; without one the loss does not count.
        regions: Regions of images, for encoders that take them, such as :class:`PredictedRegions`. They are found
            once for each picture and kept in the folder. Samples are in the style space everywhere.
        discriminator: The one that the loss "adversarial" begins with, as :func:`load_discriminator` opens it; it stays
            as it is, and a copy learns. An untrained one if None. Its digest belongs to the training's settings.
        device: On which it is trained; that of the generator if None.
        precision: Of features: "fp32", "tf32" or "bf16"; "auto" is "bf16" on a GPU that has it, "tf32" on another one
            and "fp32" on the CPU, where "bf16" applies to the encoder alone.
        until: Step at which to stop for now; all steps if None.
        command: What the card of the encoder says it was trained by.

    Raises:
        InputError: If pictures, generator, regions, discriminator or settings do not fit together.
        CheckpointError: If the folder holds a training with other settings, pictures, generator or discriminator, or
            is damaged, or if no discriminator can be read.
        RunError: If another process trains in the folder.
        TrainingError: If losses or gradients are no longer finite.
        OutputError: If something cannot be written; the last checkpoint stays.
    """
    place = ensure_folder(folder)
    where = generator.device if device is None else torch.device(device)
    numbers = find_training_precision(precision, where)
    _check_fit(data, generator)
    critic = _first_critic(discriminator, generator, training)
    began = None if critic is None or discriminator is None else noted(critic)
    with _locked(place):
        known = {"pictures": len(data), "sha256": data.fingerprint, "regions": getattr(regions, "claimed", None)}
        parts = {"training": training.claimed, "data": known, "generator": {"sha256": generator.fingerprint}}
        claim(place, {**parts, "discriminator": began})
        ensure_folder(place / SAMPLES)
        process = _Run(data, place, generator.to(where), training, faces, regions, critic, began, numbers, command)
        with numbers.rounding(where):
            process.run(until)
        return process.result()


def _check_fit(data: PictureSource, generator: AbstractGenerator) -> None:
    """Raise unless the pictures have the generator's size."""
    if generator.image_size != (data.resolution, data.resolution):
        height, width = generator.image_size
        raise InputError(
            f"The generator's pictures are {height} x {width} (height, width), those to train on "
            f"{data.resolution} x {data.resolution}. Prepare them for the generator's size, which has to be square."
        )


class _Run:
    """One process's share of a training: everything between two interruptions."""

    def __init__(
        self,
        data: PictureSource,
        place: Path,
        generator: AbstractGenerator,
        training: EncoderTraining,
        faces: Mapping[str, AbstractMetric] | None,
        regions: FindRegions | None,
        critic: Discriminator | None,
        began: Mapping[str, Any] | None,
        precision: Precision,
        command: str,
    ) -> None:
        self.data, self.place, self.training, self.command = data, place, training, command
        self.generator, self.device, self.dtype = generator, generator.device, precision.features
        encoder = _new_encoder(generator, training)
        self.regions = _kept(regions, encoder, place, data)
        name = training.metric if training.metric != "auto" else usual_metric(generator)
        self.losses = EncoderLosses(generator, encoder.provides, training, get_metric(name), faces).to(self.device)
        self.began = began
        self.critic = None if critic is None else critic.to(self.device)
        further = {} if critic is None else {"critic": critic}
        self.trainer = Trainer(encoder, training.schedule, place, **further)
        self.held = min(training.validation, max(1, len(data) // 10))
        self.examples = Ahead(Examples(data, self.held, training.batch, training.seed), ahead=self.device.type != "cpu")

    @property
    def encoder(self) -> AbstractEncoder:
        """The encoder that learns."""
        return self.trainer.model

    @property
    def rendering(self) -> torch.dtype | None:
        """Type of the generator's features, which gain nothing by half precision on a CPU."""
        return self.dtype if self.device.type != "cpu" and self.dtype in self.generator.feature_dtypes else None

    def run(self, until: int | None) -> None:
        """Take steps, with a validation and a sample sheet now and then."""

        def validate(average: AbstractEncoder) -> dict[str, float]:
            figures = self._judge(average)
            self._export(average, LATEST, figures)
            self.figures = figures
            return figures

        def keep(average: AbstractEncoder) -> None:
            self._export(average, BEST, self.figures)

        self.trainer.run(self.compute, until, validate=validate, keep=keep)

    def compute(self, step: int) -> dict[str, Tensor]:
        """Losses of a step, after one of the discriminator where there is one."""
        training = self.training
        with _seeded(mixed(training.seed, "step", step), self.device):
            if step < training.regression:
                return self._regress()
            batch = self._batch(step)
            latents = self._encode(batch)
            mean = self.encoder.mean_styles(self.generator)
            parts, found = self.losses(latents, mean, batch, self.rendering, step)
            if self.critic is None:
                return {"loss": self.losses.total(parts), **parts}
            fake = found.images[FULL if FULL in found.images else STYLES]
            judged = self._teach(batch.images, fake.detach())
            self.critic.requires_grad_(False)
            parts["adversarial"] = adversarial_loss(training.critic, self.critic(fake))
            self.critic.requires_grad_(True)
            return {"loss": self.losses.total(parts), **parts, **judged}

    def _regress(self) -> dict[str, Tensor]:
        """Losses of a step that sees samples alone."""
        training = self.training
        count = training.batch + training.samples
        noise = draw_noise(self.generator, count) if training.noise == "own" else ()
        styles, pictures = draw_samples(self.generator, count, noise, self.rendering)
        batch = Batch(pictures, styles, self._style_regions(count), noise)
        latents = self._encode(batch)
        latent = self.losses.of_samples(latents, batch)
        return {"loss": self.losses.weights["latent"] * latent, "latent": latent}

    def _batch(self, step: int) -> Batch:
        """Pictures and samples of a step."""
        training, generator = self.training, self.generator
        count = training.batch + training.samples
        noise = draw_noise(generator, count) if training.noise == "own" else ()
        pictures: list[Tensor] = []
        regions: list[Regions] = []
        styles = None
        if training.batch:
            indices, real = self.examples(step)
            pictures.append(real.to(self.device, generator.dtype))
            if self.regions is not None:
                regions.append(self.regions(indices, pictures[0]))
        if training.samples:
            styles, made = draw_samples(generator, training.samples, noise, self.rendering)
            pictures.append(made)
            uniform = self._style_regions(training.samples, regions[0] if regions else None)
            regions += [] if uniform is None else [uniform]
        joined = functools.reduce(Regions.join, regions) if regions else None
        return Batch(torch.cat(pictures), styles, joined, noise)

    def _style_regions(self, count: int, like: Regions | None = None) -> Regions | None:
        """Regions of samples, which are in the style space everywhere; none for encoders that take none."""
        if not self.encoder.takes_regions:
            return None
        # Where no pixel belongs to the others, their Δf has no effect and need not be computed.
        spaces = self.encoder.config.spaces[:1] if like is None else like.spaces
        formulation = "paper" if like is None else like.formulation
        size = self.generator.image_size
        return Regions.uniform(count, size, spaces, spaces[0], formulation=formulation, device=self.device)

    def _encode(self, batch: Batch) -> Latents:
        half = contextlib.nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)
        with half:
            latents = self.encoder.encode(batch.images, self.generator, batch.regions)
        return map_latents(lambda tensor: tensor.to(self.generator.dtype), latents)

    def _teach(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """A step of the discriminator, and how it judges."""
        assert self.critic is not None
        training = self.training
        real = real.detach().requires_grad_(training.gamma > 0)
        real_logits, fake_logits = self.critic(real), self.critic(fake)
        loss = critic_loss(training.critic, real_logits, fake_logits)
        if training.gamma:
            loss = loss + training.gamma * critic_penalty(training.critic, real, real_logits)
        self.trainer.descend(loss, "critic")
        judged = {"critic": loss, "real": real_logits.mean(), "fake": fake_logits.mean()}
        return {name: value.detach() for name, value in judged.items()}

    @torch.no_grad()
    def _judge(self, average: AbstractEncoder) -> dict[str, float]:
        """Figures over the pictures held out, by noise that is constant, after a sheet of them was written."""
        totals: dict[str, float] = {}
        shown: list[Tensor] = []
        for start in range(0, self.held, TOGETHER):
            indices = list(range(start, min(start + TOGETHER, self.held)))
            real = self.data.batch(indices).to(self.device, self.generator.dtype)
            batch = Batch(real, regions=None if self.regions is None else self.regions(indices, real))
            made = self.losses.invert.full(average.encode(real, self.generator, batch.regions), batch)
            for name, value in self._figures(made, real).items():
                totals[name] = totals.get(name, 0.0) + float(value.sum())
            if len(shown) < 2 * SHEET:
                shown += [image for pair in zip(real, made) for image in pair]
        sheet = torch.stack(shown[: 2 * SHEET]).cpu().nan_to_num(0.0)
        images.save(self.place / SAMPLES / f"{self.trainer.step:09d}.png", tiled(sheet, SHEET_COLUMNS))
        return {name: total / self.held for name, total in totals.items()}

    def _figures(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Figures `[B]` of inversions; "loss" is the sum of those that the training weighs."""
        squares = (made - real).square().mean(dim=(1, 2, 3))
        found = {"psnr": get_metric("psnr").compare(made, real), "l2": squares}
        for name, metric in self.losses.compared_by.items():
            found[name] = unlike(metric, metric.compare(made, real))
        weights = self.losses.weights
        loss = torch.stack([weights[name] * value for name, value in found.items() if name in weights]).sum(dim=0)
        return {"loss": loss, **found}

    def _export(self, average: AbstractEncoder, name: str, figures: Mapping[str, float]) -> None:
        card = {
            "kind": f"{average.architecture} encoder, {self.training.preset}",
            "trained_by": self.command,
            "pictures": len(self.data),
            "pictures_sha256": self.data.fingerprint,
            **({} if self.began is None else {"discriminator_sha256": self.began["sha256"]}),
            "steps": self.trainer.step,
            "seconds": round(self.trainer.seconds),
            "figures": {key: round(value, 4) for key, value in figures.items()},
            "version": __version__,
        }
        header = {"card": json.dumps(card, ensure_ascii=False)}
        save_encoder(average, self.place / name, header, half=self.training.half)

    def result(self) -> AbstractEncoder:
        """The encoder with the lowest validation loss; the averaged one where there is none yet."""
        path = self.place / BEST
        if not (self.trainer.best and path.exists()):
            return self.trainer.average.freeze()
        return load_encoder(path).to(self.device)


def usual_metric(generator: AbstractGenerator) -> str:
    """Name of the perceptual metric for a generator: the demo's own, else that of VGG."""
    return "demo" if generator.name == "demo" else "lpips-vgg"


def _new_encoder(generator: AbstractGenerator, training: EncoderTraining) -> AbstractEncoder:
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in training.network.items()
    }
    with _seeded(mixed(training.seed, "weights", 0), torch.device("cpu")):
        encoder = make_encoder(training.architecture, generator, **settings)
    encoder.fit_to(generator)
    return encoder.train()


def _first_critic(
    given: str | Path | Discriminator | None, generator: AbstractGenerator, training: EncoderTraining
) -> Discriminator | None:
    """The discriminator before the first step, where the training has one: a copy of the given one, or untrained."""
    if given is not None:
        found = given if isinstance(given, Discriminator) else load_discriminator(given)
        check_discriminator(found, generator, training)
        return learning_copy(found)
    if not training.counts("adversarial"):
        return None
    shape: dict[str, Any] = {name: getattr(generator.config, name, usual) for name, usual in CHANNELS.items()}
    with _seeded(mixed(training.seed, "critic", 0), torch.device("cpu")):
        return Discriminator(generator.image_size[0], **shape)


def _kept(
    regions: FindRegions | None, encoder: AbstractEncoder, place: Path, data: PictureSource
) -> KeptRegions | None:
    """The regions of a training's pictures; none for encoders that take none."""
    if not encoder.takes_regions:
        return None
    if regions is None:
        raise InputError(
            f"The {encoder.architecture} encoder sees which pixel belongs to which space: pass regions=, such as "
            "PredictedRegions(generator, segmenter)."
        )
    return KeptRegions(regions, place, len(data), (data.resolution, data.resolution))
