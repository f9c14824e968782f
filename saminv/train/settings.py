"""How a generator is trained, with what has proved stable at each resolution.

Reference:
    Karras et al., 2020, arXiv 1912.04958 (losses, lazy regularisation) and arXiv 2006.06676 (how the weight of R1 and
    the average go with resolution and batch); Zhao et al., 2020, arXiv 2006.10738 (differentiable augmentation).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .._errors import InputError
from ..generators import StyleGAN2Config
from .augment import DifferentiableAugmentation
from .loop import TrainerConfig

GAMMA = 2e-4
"""Weight of R1 for each pixel of an image and image of a batch's reciprocal (the rule of StyleGAN2-ADA)."""
LEAST_GAMMA = 1.0
"""Of small networks. With the rule's, at 64 pixels 0.05, they take longer until samples are more than blots."""
AVERAGE_KIMG = 10.0
"""Half-life of the averaged weights at a batch of 32; it grows with the batch."""
FEW = 20_000
"""Below so many pictures a discriminator learns them by heart, and what it sees is augmented."""
LOG, SCORES = "log.jsonl", "scores.jsonl"


@dataclass(frozen=True)
class Scale:
    """Shape and length of a training at one resolution.

    Attributes:
        batch: Images of a step.
        kimg: Length, in thousands of images.
        channel_base, channel_max: Of both networks: ``min(channel_base // r, channel_max)`` channels at resolution r.
        latent_dim: Length of z and of w.
    """

    batch: int
    kimg: float
    channel_base: int
    channel_max: int
    latent_dim: int


SCALES: dict[str, dict[int, Scale]] = {
    "small": {
        32: Scale(16, 400, 1024, 128, 128),
        64: Scale(16, 300, 1536, 128, 128),
        128: Scale(16, 300, 3072, 128, 128),
        256: Scale(8, 300, 6144, 128, 128),
    },
    "full": {
        32: Scale(32, 5000, 16384, 512, 512),
        64: Scale(32, 5000, 16384, 512, 512),
        128: Scale(32, 5000, 16384, 512, 512),
        256: Scale(16, 10000, 16384, 512, 512),
    },
}
"""Usual scales by name: "small" for a processor and hours, "full" for a GPU."""
RESOLUTIONS = tuple(SCALES["small"])


@dataclass(frozen=True)
class GeneratorTraining:
    """How a StyleGAN2 is trained on pictures; :func:`training_for` gives what is usual at a resolution.

    Attributes:
        network: Shape of the generator; the discriminator has its channels.
        batch: Images of a step.
        kimg: Length, in thousands of real images shown. A finished training may be made longer.
        learning_rate: Of both networks, before what lazy regularisation asks for.
        gamma: Weight of R1.
        penalty_every: Steps between those that compute R1.
        path_weight: Of the path length penalty; 0 for none.
        path_every: Steps between those that compute it, on half a batch.
        mixing: Chance that an image has styles of two w.
        group: Images whose variety the discriminator sees.
        average_kimg: Half-life of the averaged weights, in thousands of images.
        average_ramp: The half-life is at most this part of what has been shown so far.
        augmentation: Of all that the discriminator sees; None for none.
        flip: Turn every other real picture, at random, left to right.
        score_images: Pictures that a score compares.
        save_kimg: Thousands of images between checkpoints and rows of the log.
        score_kimg: Thousands of images between sample sheets and scores.
        seed: Of the first weights, the order of the pictures and all noise.

    Raises:
        InputError: If a value is impossible.
    """

    network: StyleGAN2Config
    batch: int
    kimg: float
    gamma: float
    learning_rate: float = 2.5e-3
    penalty_every: int = 16
    path_weight: float = 2.0
    path_every: int = 4
    mixing: float = 0.9
    group: int = 4
    average_kimg: float = AVERAGE_KIMG
    average_ramp: float = 0.05
    augmentation: DifferentiableAugmentation | None = field(default_factory=DifferentiableAugmentation)
    flip: bool = False
    score_images: int = 1000
    save_kimg: float = 2.0
    score_kimg: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        network = self.network
        if network.label_dim or network.crop is not None or network.image_channels != 3:
            raise InputError("Only generators of square pictures in RGB without labels are trained.")
        for name in ("batch", "penalty_every", "path_every", "group", "score_images"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.batch < 2:
            raise InputError(f"batch is {self.batch}; the discriminator needs at least 2 images to see variety.")
        for name in ("kimg", "learning_rate", "save_kimg", "score_kimg", "average_kimg"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}.")
        if not (self.gamma >= 0 and self.path_weight >= 0 and 0 <= self.mixing <= 1):
            raise InputError("gamma and path_weight must be at least 0, and mixing is a chance from 0 to 1.")

    @property
    def schedule(self) -> TrainerConfig:
        """The same as steps. Rates and decay rates are corrected for the additional steps of lazy regularisation."""
        drawn = self.path_every / (self.path_every + 1) if self.path_weight else 1.0
        judged = self.penalty_every / (self.penalty_every + 1) if self.gamma else 1.0
        rate = drawn * self.learning_rate
        return TrainerConfig(
            steps=self.steps(self.kimg),
            learning_rate=rate,
            final_learning_rate=rate,
            warmup=0,
            betas=(0.0, 0.99**drawn),
            extra_rate=judged / drawn,
            extra_betas=(0.0, 0.99**judged),
            average_half_life=1000 * self.average_kimg / self.batch,
            average_ramp=self.average_ramp,
            save_every=self.steps(self.save_kimg),
            validate_every=self.steps(self.score_kimg),
            batch=self.batch,
            log=LOG,
            validation=SCORES,
        )

    def steps(self, kimg: float) -> int:
        """Steps, at least one, that show so many thousand images."""
        return max(1, round(1000 * kimg / self.batch))

    @property
    def claimed(self) -> dict[str, Any]:
        """What must not change while a training goes on, as plain values: all but its length and how often it saves."""
        free = ("kimg", "save_kimg", "score_kimg")
        return {name: value for name, value in asdict(self).items() if name not in free}


def training_for(
    resolution: int, pictures: int, scale: str = "small", *, channels: int | None = None, **changes: Any
) -> GeneratorTraining:
    """The usual training for a resolution and a number of pictures.

    R1 is weighted by ``2e-4 R² / batch``, in a small training by 1 at least. The average has a half-life of 10 thousand
    images at a batch of 32, in proportion to the batch. What the discriminator sees is augmented for fewer than 20,000
    pictures.

    Args:
        resolution: A power of two from 8 up; those between and beyond the usual ones take the scale of the nearest.
        pictures: How many there are.
        scale: "small" or "full".
        channels: At the last resolution, instead of those of the scale; they double from there to 4x4 up to the scale's
            most.
        **changes: Fields of :class:`GeneratorTraining`.

    Raises:
        InputError: If a value is impossible.
    """
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}; it is one of {', '.join(SCALES)}.")
    if channels is not None and channels < 1:
        raise InputError(f"channels must be at least 1, got {channels}.")
    usual = SCALES[scale][min(RESOLUTIONS, key=lambda known: abs(known.bit_length() - resolution.bit_length()))]
    network = StyleGAN2Config(
        resolution=resolution,
        z_dim=usual.latent_dim,
        w_dim=usual.latent_dim,
        channel_base=usual.channel_base if channels is None else channels * resolution,
        channel_max=usual.channel_max,
        mapping_layers=2,
    )
    batch = changes.get("batch", usual.batch)
    rule = GAMMA * resolution**2 / max(batch, 1)
    fields: dict[str, Any] = {
        "network": network,
        "batch": usual.batch,
        "kimg": usual.kimg,
        "gamma": max(rule, LEAST_GAMMA) if scale == "small" else rule,
        "average_kimg": AVERAGE_KIMG * max(batch, 1) / 32,
        "augmentation": DifferentiableAugmentation() if pictures < FEW else None,
    }
    return replace(GeneratorTraining(**fields), **changes)
