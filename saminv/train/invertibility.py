"""Training of an invertibility network on measured error maps.

Reference:
    Parmar, "Spatially-Adaptive Multilayer GAN Inversion and Editing", 2022, CMU-RI-TR-22-26 (arXiv:2206.08357),
    section 3.1, Eq. 3.2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError, MissingExtraError
from .._files import ensure_folder
from ..segment.network import InvertibilityConfig, InvertibilityNet, load_invertibility, save_invertibility
from ._resume import Ahead, claim, mixed
from .augment import Augmentation
from .errors import ErrorMaps
from .loop import VALIDATION, Trainer, TrainerConfig
from .plots import check_plots, plot_training

BEST = "best.safetensors"
_MEAN_OF = 64
"""Examples from which the first predictions are taken."""
_LEAST_SPREAD = 0.1
"""Part of the largest spread below which errors of a space count as nearly 0."""
_ROOT_EPS = 1e-3
"""Added below square roots of "l2-sqrt", whose slope at 0 would be infinite."""


@dataclass(frozen=True)
class InvertibilityTraining:
    """How an invertibility network is trained.

    Attributes:
        schedule: Steps, rates, and how often to save and to validate.
        batch: Images of a step.
        validation_share: Part of the images held out, by the hash of the image.
        augmentation: Variations of the images.
        seed: Of the first weights, the order of the images and the augmentation.
    """

    schedule: TrainerConfig = field(
        default_factory=lambda: TrainerConfig(
            steps=4000, learning_rate=1e-3, final_learning_rate=1e-5, save_every=250, validate_every=250
        )
    )
    batch: int = 8
    validation_share: float = 0.15
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0


def config_for(data: ErrorMaps, backbone: str = "small", **changes: Any) -> InvertibilityConfig:
    """Configuration of a network for the generator, spaces, metric and image size of a data set.

    Args:
        data: Measured error maps.
        backbone: Name in :data:`saminv.segment.backbones.BACKBONES`.
        **changes: Further entries of the configuration.

    Raises:
        InputError: If an entry has an impossible value.
    """
    kept = {
        "spaces": data.spaces,
        "fingerprint": data.fingerprint,
        "metric": data.metric,
        "image_size": data.image_size,
        "steps": data.steps,
        "backbone": backbone,
        "spreads": _spreads(data),
    }
    return InvertibilityConfig(**{**kept, **changes})


def train_invertibility(
    data: ErrorMaps,
    folder: str | Path,
    config: InvertibilityConfig | None = None,
    training: InvertibilityTraining | None = None,
    *,
    start: Callable[[InvertibilityNet], object] | None = None,
    device: str | torch.device = "cpu",
    until: int | None = None,
    plot: bool | None = None,
) -> InvertibilityNet:
    """Train a network, or go on with a training that was interrupted; returns the one with the lowest validation loss.

    The folder gets ``best.safetensors`` (weights averaged over steps, at the best validation), ``checkpoint.pt``,
    ``log.csv``, ``validation.csv``, ``run.json`` and, with matplotlib, ``training.png``. The same call goes on after an
    interruption of any kind and, on one CPU thread, ends with the same weights as without.

    Args:
        data: Measured error maps; some are held out for the validation.
        folder: Where the training lives.
        config: The network; :func:`config_for` of the data if None.
        training: How it is trained.
        start: Called once with the new network, to load weights into it.
        device: On which it is trained.
        until: Step at which to stop for now; all steps if None.
        plot: Draw the logs; if None, where matplotlib is installed.

    Raises:
        InputError: If the configuration is for other spaces, another generator or metric than the data, a side of the
            split is empty, or a setting is impossible.
        CheckpointError: If the folder holds a training with other settings or data, or a file is damaged.
        MissingExtraError: If ``plot`` is True and matplotlib is not installed.
    """
    config, training = config or config_for(data), training or InvertibilityTraining()
    _check_fit(config, data)
    if plot and not check_plots():
        raise MissingExtraError('Plots need matplotlib: pip install "saminv[plot]"; or train with plot=False.')
    part, held = split_checked(data, training.validation_share)
    place = ensure_folder(folder)
    _claim(place, config, training, data)
    network = _new_network(part, config, training, start).to(device).to(memory_format=torch.channels_last)
    trainer = Trainer(network, training.schedule, place)
    forked = [] if torch.device(device).type == "cpu" else [next(network.parameters()).device]
    batches = Batches(part, training, ahead=bool(forked))

    def compute(step: int) -> dict[str, Tensor]:
        images, errors = (tensor.to(device) for tensor in batches(step))
        images = images.contiguous(memory_format=torch.channels_last)
        # Dropout draws from the global random state, which a resumed run does not have.
        with torch.random.fork_rng(forked):
            torch.manual_seed(mixed(training.seed, "dropout", step))
            return losses(trainer.model.stacked(images), errors, config)

    trainer.run(
        compute,
        until,
        validate=lambda network: validation_figures(network, held),
        keep=lambda network: save_invertibility(network, place / BEST, {"step": str(trainer.step)}),
    )
    if (plot or (plot is None and check_plots())) and (place / VALIDATION).exists():
        plot_training(place)
    return load_invertibility(place / BEST) if trainer.best else trainer.average


class Batches:
    """Batches for training, each a function of the step alone.

    Args:
        data: Examples; each is used once before any is used again.
        training: Batch size, augmentation and seed.
        ahead: Prepare the next batch in a thread while the present one is used.
    """

    def __init__(self, data: ErrorMaps, training: InvertibilityTraining, ahead: bool = False) -> None:
        self.data, self.training = data, training
        self._ahead = Ahead(self.draw, ahead)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images `[B, 3, H, W]` in [-1, 1] and errors `[B, K, H, W]` of a step."""
        return self._ahead(step)

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """The same, at once."""
        size = self.training.batch
        images, errors = self.data.batch([self._example(step * size + k) for k in range(size)])
        return self.training.augmentation(images, errors, self._source("augmentation", step))

    def _example(self, position: int) -> int:
        count = len(self.data)
        order = torch.randperm(count, generator=self._source("order", position // count))
        return int(order[position % count])

    def _source(self, purpose: str, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(mixed(self.training.seed, purpose, number))


def losses(predicted: Tensor, errors: Tensor, config: InvertibilityConfig) -> dict[str, Tensor]:
    """Mean squared errors of predicted against measured maps `[B, K, H, W]`: by space, and their mean as "loss".

    In the mean each is relative to the variance of its space's errors.

    Segments are judged by their mean error, and the mean is what a squared error on the maps themselves leads to,
    however long their tail. "l2-sqrt" compares square roots: large errors count less, but means come out too low.
    """
    if config.loss == "l2-sqrt":
        predicted, errors = (predicted + _ROOT_EPS).sqrt(), (errors + _ROOT_EPS).sqrt()
    each = (predicted - errors).square().mean(dim=(0, 2, 3))
    spreads = each.new_tensor(config.spreads or [1.0] * len(each))
    return {"loss": (each / spreads.square()).mean(), **dict(zip(config.spaces, each))}


def _spreads(data: ErrorMaps) -> tuple[float, ...]:
    """Standard deviation of the errors of each space, where errors are nearly 0 a part of that of the others."""
    errors = data.batch(range(min(len(data), _MEAN_OF)))[1]
    spreads = errors.double().std(dim=(0, 2, 3))
    return tuple(round(float(value), 6) for value in spreads.clamp_min(_LEAST_SPREAD * float(spreads.max()) + 1e-6))


@torch.no_grad()
def validation_figures(network: InvertibilityNet, data: ErrorMaps, batch: int = 8) -> dict[str, float]:
    """Loss of a network over images, "loss", and R² over all their pixels by space, "r2_<space>"."""
    device = next(network.parameters()).device
    spaces = network.config.spaces
    loss, sums = 0.0, torch.zeros(4, len(spaces), dtype=torch.float64)
    for start in range(0, len(data), batch):
        images, errors = (t.to(device) for t in data.batch(range(start, min(start + batch, len(data)))))
        predicted = network.stacked(images)
        loss += float(losses(predicted, errors, network.config)["loss"]) * len(images)
        error, measured = (predicted - errors).double(), errors.double()
        parts = (error.square(), measured, measured.square(), torch.ones_like(measured))
        sums += torch.stack([part.sum(dim=(0, 2, 3)) for part in parts]).cpu()
    squares, first, second, count = sums
    spread = (second - first.square() / count).clamp_min(1e-12)
    r2 = 1 - squares / spread
    return {"loss": loss / len(data), **{f"r2_{space}": float(value) for space, value in zip(spaces, r2)}}


def split_checked(data: ErrorMaps, share: float) -> tuple[ErrorMaps, ErrorMaps]:
    """:meth:`ErrorMaps.split`, with images on both sides.

    Raises:
        InputError: If a side is empty, or ``share`` is impossible.
    """
    part, held = data.split(share)
    if not len(part) or not len(held):
        side = "training" if not len(part) else "validation"
        raise InputError(
            f"Of {len(data)} images in {data.folder}, none falls to the {side} at a share of {share:g} for validation. "
            "Measure more images, or choose another share."
        )
    return part, held


def _new_network(
    data: ErrorMaps,
    config: InvertibilityConfig,
    training: InvertibilityTraining,
    start: Callable[[InvertibilityNet], object] | None,
) -> InvertibilityNet:
    with torch.random.fork_rng([]):
        torch.manual_seed(mixed(training.seed, "weights", 0))
        network = InvertibilityNet(config)
    some = data.batch(range(min(len(data), _MEAN_OF)))[1]
    network.start_from_means(some.mean(dim=(0, 2, 3)))
    if start is not None:
        start(network)
    return network.train()


def _check_fit(config: InvertibilityConfig, data: ErrorMaps) -> None:
    """Raise unless a network is for what the data measure."""
    for name in ("spaces", "fingerprint", "metric"):
        ours, theirs = getattr(config, name), getattr(data, name)
        if ours != theirs:
            raise InputError(
                f"The network is for another {_WORDS[name]} than the data in {data.folder}: {ours} and {theirs}. "
                "Choose other data, or a network by config_for(data)."
            )


_WORDS = {"spaces": "list of spaces", "fingerprint": "generator", "metric": "metric"}


def _claim(folder: Path, config: InvertibilityConfig, training: InvertibilityTraining, data: ErrorMaps) -> None:
    """Note in the folder what is trained on what; raise if it was something else before."""
    digest = hashlib.sha256()
    for index, name in enumerate(data.names):
        digest.update(f"{name} {data.hash(index)}\n".encode())
    kept = {"images": len(data), "sha256": digest.hexdigest()}
    claim(folder, {"network": json.loads(config.to_json()), "training": asdict(training), "data": kept})
