"""How an encoder is trained: the published ways as presets, and where a paper and its code differ, both as options.

Reference:
    PadInv: Bai et al., 2022, arXiv 2203.11105, section 3.4; Feature-Style: Yao et al., 2022, arXiv 2202.02183, section
    4; SAM: Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), section 3.3; pSp: Richardson et al., 2020, arXiv
    2008.00951, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from typing import Any

from .._errors import InputError
from ..generators import AbstractGenerator
from ..optim.objective import PAPER_WEIGHTS
from .loop import TrainerConfig

FULL, STYLES = "full", "styles"
"""What a picture is compared with: the inversion by all that the encoder says, and that by the styles alone."""
NORMS = ("code", "paper")
CRITICS = ("code", "paper")
NOISES = ("const", "own")
PICTURE_PARTS = ("l2", "perceptual", "identity", "parsing")
PENALTIES = ("prior", "deviation", "feature", "padding")
PARTS = (*PICTURE_PARTS, "adversarial", "mean", "code", "latent", *PENALTIES)
"""Names of all losses: of pictures, of the discriminator, of codes, of w against samples, of spaces."""
LOG, VALIDATION = "log.jsonl", "validation.jsonl"
FACES = ("identity", "parsing")
"""Losses whose networks know faces only."""


@dataclass(frozen=True)
class EncoderTraining:
    """How an encoder is trained; :func:`encoder_training_for` gives what was published.

    Attributes:
        preset: Name of the published way that it comes from.
        architecture: Name in :data:`saminv.encoders.ARCHITECTURES`.
        network: Further fields of the architecture's configuration.
        steps: Optimiser steps in all.
        batch: Pictures of a step.
        samples: Samples of the generator in a step, beside the pictures.
        regression: First steps, which see samples alone and learn their w; no gradient passes through the generator.
        weights: Weight of each loss by name, of :data:`PARTS`; what is not named does not count.
        metric: Name of the perceptual metric; "auto" is "demo" for the demo's generator and "lpips-vgg" elsewhere.
        scales: Number of halvings of a picture, itself included, at which the metric compares.
        compared: Inversions that the losses of pictures look at, of "full" and "styles".
        l2_compared: Those that the squared error looks at.
        l2_samples_only: The squared error counts for samples alone.
        norms: "code": means of squares; "paper": lengths, as the equations have them.
        critic: "code": softplus losses and R1; "paper": the linear losses of Eq. 4 and 7 of PadInv, whose penalty
            is the mean length of the gradient, with the sign that keeps it short.
        gamma: Weight of the discriminator's gradient penalty.
        noise: "const", as inversions have it, or "own": a sample's inversion has its noise, a picture's has any.
        ramp: Steps over which a feature code takes the place of the generator's feature, as published; 0 for at once.
        formulation: Of the regularisers of spaces, "paper" or "published".
        learning_rate, final_learning_rate, decay, at_once, warmup, betas: As in :class:`TrainerConfig`.
        average_decay: Decay of the averaged weights per step.
        validation: Pictures that are held out.
        save_every: Steps between checkpoints and rows of the log.
        validate_every: Steps between validations and sample sheets.
        half: Store kernels as float16.
        seed: Of the first weights, the order of the pictures and all noise.

    Raises:
        InputError: If a value is impossible.
    """

    preset: str
    architecture: str
    steps: int
    batch: int
    weights: Mapping[str, float]
    network: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 0
    regression: int = 0
    metric: str = "auto"
    scales: int = 1
    compared: tuple[str, ...] = (FULL,)
    l2_compared: tuple[str, ...] = (FULL,)
    l2_samples_only: bool = False
    norms: str = "code"
    critic: str = "code"
    gamma: float = 10.0
    noise: str = "const"
    ramp: int = 0
    formulation: str = "paper"
    learning_rate: float = 1e-4
    final_learning_rate: float = 1e-4
    decay: float = 0.0
    at_once: bool = False
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    average_decay: float = 0.999
    validation: int = 48
    save_every: int = 200
    validate_every: int = 1000
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.weights if name not in PARTS]
        if unknown:
            raise InputError(
                f"An encoder's training has no loss {', '.join(map(repr, unknown))}. It has: {', '.join(PARTS)}."
            )
        for name, weight in self.weights.items():
            if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight < float("inf"):
                raise InputError(f"The weight of {name!r} must be a number from 0 up, got {weight!r}.")
        for name in ("steps", "scales", "save_every", "validate_every", "validation"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("batch", "samples", "regression", "ramp", "warmup", "gamma"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if not (self.learning_rate > 0 and self.final_learning_rate > 0 and 0 <= self.decay <= 1):
            raise InputError("Learning rates must be above 0, and decay a part of the steps from 0 to 1.")
        for name, allowed in (("norms", NORMS), ("critic", CRITICS), ("noise", NOISES)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        if not set(self.compared) | set(self.l2_compared) <= {FULL, STYLES} or not self.compared:
            raise InputError(f"compared and l2_compared name inversions of {FULL} and {STYLES}.")
        self._check_pictures()

    def _check_pictures(self) -> None:
        if self.batch + self.samples < 2:
            raise InputError("batch and samples must give at least 2 pictures: layers are normalised over them.")
        if self.regression and not self.counts("latent"):
            raise InputError("The first steps learn w of samples alone, so 'latent' needs a weight above 0.")
        if self.regression < self.steps and not any(self.counts(name) for name in ("l2", "perceptual")):
            raise InputError("The weights of 'l2' and 'perceptual' are both 0, so nothing compares with the picture.")

    def counts(self, name: str) -> bool:
        """Whether a loss has a weight above 0."""
        return self.weights.get(name, 0) > 0

    @property
    def schedule(self) -> TrainerConfig:
        """The same as the training loop has it."""
        return TrainerConfig(
            steps=self.steps,
            learning_rate=self.learning_rate,
            final_learning_rate=self.final_learning_rate,
            warmup=self.warmup,
            decay=self.decay,
            at_once=self.at_once,
            betas=self.betas,
            average_decay=self.average_decay,
            save_every=self.save_every,
            validate_every=self.validate_every,
            batch=self.batch + self.samples,
            log=LOG,
            validation=VALIDATION,
        )

    @property
    def claimed(self) -> dict[str, Any]:
        """What must not change while a training goes on, as plain values; without a decay it may become longer."""
        free = ("save_every", "validate_every", *(() if self.decay else ("steps",)))
        return {name: value for name, value in asdict(self).items() if name not in free}


_SAM_PARTS = ("l2", "perceptual", "prior", "deviation", "feature")
PRESETS: dict[str, EncoderTraining] = {
    "psp": EncoderTraining("psp", "gradual", 300_000, 8, {"l2": 1.0, "perceptual": 0.8, "identity": 0.1}),
    "padinv": EncoderTraining(
        "padinv",
        "padinv",
        300_000,
        8,
        {"l2": 1.0, "perceptual": 0.8, "identity": 0.1, "adversarial": 0.03, "mean": 0.003},
    ),
    "feature-style": EncoderTraining(
        "feature-style",
        "feature-style",
        120_000,
        2,
        {"l2": 1.0, "perceptual": 0.2, "code": 0.01, "identity": 0.1, "parsing": 0.1},
        samples=2,
        scales=3,
        compared=(STYLES, FULL),
        l2_compared=(STYLES,),
        l2_samples_only=True,
        noise="own",
        ramp=10_000,
        final_learning_rate=1e-5,
        decay=1 / 6,
        at_once=True,
    ),
    "sam": EncoderTraining("sam", "sam", 300_000, 8, {name: PAPER_WEIGHTS[name] for name in _SAM_PARTS}),
}
"""The published ways by name. Lengths are those of the papers that say them, else as long as is usual."""
READ = {"head_width": 256, "pooled": 3}
"""How small networks read styles off: with map2styles they learn several times slower."""
SMALL: dict[str, dict[str, Any]] = {
    "gradual": {"widths": (8, 16, 48, 96), "blocks": (1, 1, 1, 1), "reduction": 8, **READ},
    "padinv": {"widths": (8, 16, 48, 96), "blocks": (1, 1, 1, 1), "reduction": 8, "anchored": True, **READ},
    "feature-style": {"widths": (8, 16, 48, 48), "blocks": (1, 1, 1, 1)},
    "sam": {
        "widths": (8, 16, 32, 64),
        "blocks": (1, 1, 1, 1),
        "reduction": 8,
        "decoder": 32,
        **READ,
    },
}
"""Networks for a processor and hours, by architecture."""
SMALL_SCHEDULE: dict[str, Any] = {
    "steps": 4000,
    "regression": 1000,
    "learning_rate": 1e-3,
    "final_learning_rate": 1e-5,
    "decay": 0.8,
    "at_once": False,
    "warmup": 50,
    "betas": (0.9, 0.99),
    "average_decay": 0.99,
    "ramp": 0,
    "validate_every": 500,
}
LATENT = 1.0
"""Weight of the regression of w where it is asked for."""
SCALES = ("small", "full")


def encoder_training_for(
    preset: str, generator: AbstractGenerator | None = None, scale: str = "full", *, faces: bool = False, **changes: Any
) -> EncoderTraining:
    """The published training called ``preset``, for a generator.

    On faces PadInv has no adversarial loss; elsewhere the losses of networks that know faces do not count. "small"
    is a network and a schedule of ours for a processor and hours: it begins by learning w of samples.

    Args:
        preset: Name in :data:`PRESETS`.
        generator: Whose sites the network is to fit; needed for PadInv's, where a full network is as wide as the
            constant input.
        scale: "full" or "small".
        faces: Whether pictures are aligned faces, and networks that know faces are at hand.
        **changes: Fields of :class:`EncoderTraining`; ``weights`` and ``network`` change single entries.

    Raises:
        InputError: If there is no such preset or field, or a value is impossible.
    """
    if preset not in PRESETS:
        raise InputError(f"preset is {preset!r}; it is one of {', '.join(PRESETS)}.")
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}; it is one of {', '.join(SCALES)}.")
    usual = PRESETS[preset]
    weights, network = dict(usual.weights), dict(usual.network)
    for name in ("adversarial",) if faces else FACES:
        weights.pop(name, None)
    fields: dict[str, Any] = {}
    if scale == "small":
        network |= SMALL[usual.architecture]
        fields |= SMALL_SCHEDULE
        if generator is not None and usual.architecture != "feature-style":
            # Read off finer levels, styles are both slower to compute and slower to learn.
            network["per_level"] = (generator.num_styles, 0, 0)
    # Small networks have a convolution of its own for the constant input.
    if usual.architecture == "padinv" and scale == "full":
        network["widths"] = _fitting(generator)
    fields |= changes
    weights |= changes.get("weights", {})
    if fields.get("regression"):
        weights.setdefault("latent", LATENT)
    fields |= {"weights": weights, "network": network | changes.get("network", {})}
    try:
        return replace(usual, **fields)
    except TypeError as error:
        raise InputError(f"A training of an encoder has no such setting: {error}.") from error


def _fitting(generator: AbstractGenerator | None) -> tuple[int, ...]:
    """Widths of PadInv's trunk that end with the channels of the constant input, which comes out of it unchanged."""
    last = 512 if generator is None or "P0" not in generator.sites else generator.site("P0").shape[0]
    return tuple(max(1, last >> k) for k in (3, 2, 1, 0))
