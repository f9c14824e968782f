"""Training of a StyleGAN2 on a folder of pictures.

Non-saturating loss, R1 and path lengths at every few steps, styles of two w, averaged weights, and differentiable
augmentation for small sets.

Reference:
    Karras et al., 2020, arXiv 1912.04958; Zhao et al., 2020, arXiv 2006.10738 (augmentation).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from .. import images
from .._errors import InputError, MissingExtraError
from .._files import LITTER, ensure_folder
from .._lock import Lock
from .._version import __version__
from ..generators import StyleGAN2, generator_from_arrays, save_generator
from ..optim.precision import PRECISIONS, Precision
from ..weights import read_safetensors
from ._resume import Ahead, claim, mixed
from .adversarial import Discriminator, PathLength, discriminator_loss, generator_loss, gradient_penalty
from .loop import Trainer
from .pictures import PictureBatches, Pictures
from .plots import check_plots, plot_generator
from .score import LABEL, DemoScore
from .settings import GeneratorTraining, training_for

BEST, LATEST = "generator.safetensors", "latest.safetensors"
SAMPLES, REALS, CURVE = "samples", "reals.png", "curve.png"
MEAN_OF = 20_000
"""Samples of w that the mean w of a finished generator is taken from."""
SHEET = (6, 8)
"""Rows and columns of a sample sheet."""
TRAINING_PRECISIONS = ("fp32", "tf32", "bf16")


def train_generator(
    data: Pictures,
    folder: str | Path,
    training: GeneratorTraining | None = None,
    *,
    device: str | torch.device = "cpu",
    precision: str = "auto",
    until: int | None = None,
    plot: bool | None = None,
    command: str = "saminv.train.train_generator",
) -> StyleGAN2:
    """Train a generator, or go on with a training that was interrupted; returns the one with the best score, frozen.

    The folder gets ``generator.safetensors`` (averaged weights at the best score so far; :func:`saminv.load_generator`
    opens it), ``latest.safetensors``, ``samples/`` (a sheet for each score, of the same noise), ``reals.png``,
    ``log.jsonl``, ``scores.jsonl``, ``run.json``, ``checkpoint.pt`` and, with matplotlib, ``curve.png``. The same call
    goes on after an interruption of any kind and, on a CPU with the same number of threads, ends with the same weights
    as without.

    Args:
        data: Real pictures.
        folder: Where the training lives.
        training: How it is trained; :func:`training_for` the data if None.
        device: On which it is trained.
        precision: Of features: "fp32", "tf32" or "bf16" (regularisation stays in float32); "auto" is "bf16" on a GPU
            that has it, "tf32" on another one and "fp32" on the CPU.
        until: Step at which to stop for now; all steps if None.
        plot: Draw the curve of scores; if None, where matplotlib is installed.
        command: What the card of the generator says it was trained by.

    Raises:
        InputError: If the pictures have another size than the network, there are too few, or a setting is impossible.
        CheckpointError: If the folder holds a training with other settings or pictures, or a file is damaged.
        RunError: If another process trains in the folder.
        TrainingError: If losses or gradients are no longer finite.
        OutputError: If something cannot be written; the last checkpoint stays.
        MissingExtraError: If ``plot`` is True and matplotlib is not installed.
    """
    training = training or training_for(data.resolution, len(data))
    _check_fit(data, training)
    if plot and not check_plots():
        raise MissingExtraError('Plots need matplotlib: pip install "saminv[plot]"; or train with plot=False.')
    place, numbers = ensure_folder(folder), find_training_precision(precision, torch.device(device))
    with _locked(place):
        known = {"pictures": len(data), "sha256": data.fingerprint, "resolution": data.resolution, "fit": data.fit}
        claim(place, {"training": training.claimed, "data": known})
        ensure_folder(place / SAMPLES)
        process = _Run(data, place, training, torch.device(device), numbers, command)
        with numbers.rounding(torch.device(device)):
            process.run(until, draw=check_plots() if plot is None else plot)
        return process.result()


def find_training_precision(name: str, device: torch.device) -> Precision:
    """The precision called ``name`` for a training on a device.

    Raises:
        InputError: For an unknown name, and for "fp16", whose range gradients of weights exceed.
    """
    if name == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        name = "bf16" if has_bf16 else "tf32" if device.type == "cuda" else "fp32"
    if name not in TRAINING_PRECISIONS:
        raise InputError(f"A training has no precision {name!r}; use {', '.join(TRAINING_PRECISIONS)} or auto.")
    return PRECISIONS[name]


class _Run:
    """One process's share of a training: everything between two interruptions."""

    def __init__(
        self,
        data: Pictures,
        place: Path,
        training: GeneratorTraining,
        device: torch.device,
        precision: Precision,
        command: str,
    ) -> None:
        self.data, self.place, self.training, self.command = data, place, training, command
        self.device, self.dtype = device, precision.features
        network = training.network
        with _seeded(mixed(training.seed, "weights", 0), torch.device("cpu")):
            generator = StyleGAN2(network)
            self.critic = Discriminator(
                network.resolution, network.channel_base, network.channel_max, group=training.group
            )
        self.critic.to(device)
        self.paths = PathLength().to(device)
        self.trainer = Trainer(generator.to(device), training.schedule, place, critic=self.critic, paths=self.paths)
        flip, batch, seed = training.flip, training.batch, training.seed
        self.reals = Ahead(PictureBatches(data, batch, flip=flip, seed=seed), ahead=device.type != "cpu")
        self.score = DemoScore(data, training.score_images).to(device)
        self.last_score: float | None = None

    @property
    def generator(self) -> StyleGAN2:
        """The generator that learns."""
        return self.trainer.model

    def run(self, until: int | None, draw: bool) -> None:
        """Take steps, with a score and a sample sheet now and then."""
        if not (self.place / REALS).exists():
            count = min(len(self.data), SHEET[0] * SHEET[1])
            images.save(self.place / REALS, tiled(self.data.batch(range(count)), SHEET[1]))

        def validate(average: StyleGAN2) -> dict[str, float]:
            figures = self._judge(average)
            self._export(average, LATEST, figures["score"])
            return figures

        def keep(average: StyleGAN2) -> None:
            self._export(average, BEST, self.last_score)

        try:
            self.trainer.run(self.losses, until, validate=validate, keep=keep, by="score")
        finally:
            if draw and (self.place / self.training.schedule.validation).exists():
                plot_generator(self.place)

    def losses(self, step: int) -> dict[str, Tensor]:
        """One step: the penalty of path lengths, the discriminator, R1, and the loss of the generator."""
        training, found = self.training, {}
        real = self.reals(step).to(self.device).contiguous(memory_format=torch.channels_last)
        source = torch.Generator().manual_seed(mixed(training.seed, "augmentation", step))
        with _seeded(mixed(training.seed, "step", step), self.device):
            if training.path_weight and step % training.path_every == 0:
                found["path"] = self._even_out_paths()
            fake = self._render(self._styles(training.batch), self.dtype)
            found |= self._teach(real, fake.detach(), source)
            if training.gamma and step % training.penalty_every == 0:
                found["r1"] = self._penalise(real, source)
            self.critic.requires_grad_(False)
            found["loss"] = generator_loss(self.critic(self._vary(fake, source), self.dtype))
            self.critic.requires_grad_(True)
        return found

    def _even_out_paths(self) -> Tensor:
        training = self.training
        styles = self._styles(max(1, training.batch // 2))
        penalty = self.paths(self._render(styles, None), styles)
        self.trainer.descend(training.path_weight * training.path_every * penalty)
        return penalty.detach()

    def _teach(self, real: Tensor, fake: Tensor, source: torch.Generator) -> dict[str, Tensor]:
        """A step of the discriminator, and how it judges."""
        real_logits = self.critic(self._vary(real, source), self.dtype)
        fake_logits = self.critic(self._vary(fake, source), self.dtype)
        loss = discriminator_loss(real_logits, fake_logits)
        self.trainer.descend(loss, "critic")
        seen = {"critic": loss, "real": real_logits.mean(), "fake": fake_logits.mean()}
        # Of Karras et al., 2020, arXiv 2006.06676, Eq. 1: near 1 where the pictures are known by heart.
        return {name: value.detach() for name, value in {**seen, "overfitting": real_logits.sign().mean()}.items()}

    def _penalise(self, real: Tensor, source: torch.Generator) -> Tensor:
        training = self.training
        # By the pictures themselves: an augmentation is a part of the discriminator.
        real = real.detach().requires_grad_(True)
        penalty = gradient_penalty(real, self.critic(self._vary(real, source)))
        self.trainer.descend(training.gamma * training.penalty_every * penalty, "critic")
        return penalty.detach()

    def _vary(self, pictures: Tensor, source: torch.Generator) -> Tensor:
        augmentation = self.training.augmentation
        return pictures if augmentation is None else augmentation(pictures, source)

    def _styles(self, count: int) -> Tensor:
        """Styles `[B, L, D]` of noise, those of some images from a random slot on of other noise."""
        generator, chance = self.generator, self.training.mixing
        styles = generator.mapping(torch.randn(count, generator.z_dim, device=self.device))
        if not chance:
            return styles
        others = generator.mapping(torch.randn(count, generator.z_dim, device=self.device))
        first = torch.randint(1, generator.num_styles, (count, 1), device=self.device)
        mixes = torch.rand(count, 1, device=self.device) < chance
        later = torch.arange(generator.num_styles, device=self.device) >= first
        return torch.where((later & mixes)[..., None], others, styles)

    def _render(self, styles: Tensor, dtype: torch.dtype | None) -> Tensor:
        image = self.generator.synthesis(styles, noise="random", dtype=dtype)
        assert isinstance(image, Tensor)
        return image

    def _judge(self, average: StyleGAN2) -> dict[str, float]:
        """Score of the averaged generator, after a sheet of its samples was written."""
        rows, columns = SHEET
        z = average.sample_z(rows * columns, seed=mixed(self.training.seed, "sheet", 0) % 2**31)
        samples = torch.cat([average(part) for part in z.split(columns)]).cpu()
        images.save(self.place / SAMPLES / f"{self._shown:09d}.png", tiled(samples.nan_to_num(0.0), columns))
        self.last_score = self.score(average)
        return {"score": self.last_score}

    @property
    def _shown(self) -> int:
        """Images shown so far."""
        return self.trainer.step * self.training.batch

    def _export(self, average: StyleGAN2, name: str, score: float | None) -> None:
        side = self.training.network.resolution
        card = {
            "kind": f"StyleGAN2, {side}x{side}",
            "trained_by": self.command,
            "pictures": len(self.data),
            "pictures_sha256": self.data.fingerprint,
            "folder_name_sha256": self.data.name_digest,
            "fit": self.data.fit,
            "kimg": round(self._shown / 1000, 3),
            "seconds": round(self.trainer.seconds),
            "score": None if score is None else round(score, 3),
            "score_of": f"{LABEL}, {self.training.score_images} pictures",
            "version": __version__,
        }
        save_generator(finished(average), self.place / name, {"card": json.dumps(card, ensure_ascii=False)})

    def result(self) -> StyleGAN2:
        """The generator with the best score; the averaged one where there is no score yet."""
        path = self.place / BEST
        if not (self.trainer.best and path.exists()):
            return finished(self.trainer.average)
        found = generator_from_arrays(*read_safetensors(path.read_bytes(), str(path)), str(path))
        assert isinstance(found, StyleGAN2)
        return found.to(self.device)


@torch.no_grad()
def finished(generator: StyleGAN2) -> StyleGAN2:
    """A frozen copy with its mean w, from 20,000 samples."""
    kept = copy.deepcopy(generator)
    parts = kept.sample_z(MEAN_OF, seed=0).split(1000)
    kept.w_avg = torch.cat([kept.mapping(part)[:, 0] for part in parts]).mean(dim=0)
    kept.freeze()
    return kept


def tiled(batch: Tensor, columns: int) -> Tensor:
    """Images `[B, 3, H, W]` side by side in rows of so many, `[1, 3, H', W']`; what is missing is white."""
    count, _, height, width = batch.shape
    rows = -(-count // columns)
    sheet = batch.new_ones(3, rows * height, columns * width)
    for k, image in enumerate(batch):
        top, left = k // columns * height, k % columns * width
        sheet[:, top : top + height, left : left + width] = image
    return sheet[None]


def _check_fit(data: Pictures, training: GeneratorTraining) -> None:
    """Raise unless there are pictures enough, of the network's size."""
    if data.resolution != training.network.resolution:
        raise InputError(
            f"The network has {training.network.resolution} pixels a side, the pictures have {data.resolution}. "
            "Prepare them for the same resolution."
        )
    if len(data) < training.batch:
        raise InputError(
            f"There are only {len(data)} pictures, but a step shows {training.batch}. Take more pictures (hundreds at "
            "least, thousands are better), or a smaller batch."
        )


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Keep other processes out of the folder."""
    lock = Lock(place / "lock")
    try:
        # Not below the folder: another process may be decoding into the cache.
        for path in place.glob(f"{LITTER}*"):
            path.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the global random numbers follow from the seed; outside, they are as before."""
    with torch.random.fork_rng([] if device.type == "cpu" else [device]):
        torch.manual_seed(seed)
        yield
