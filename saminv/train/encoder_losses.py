"""What an encoder is trained to make small: losses of its inversions, of its codes, and of their regularisers.

Reference:
    PadInv: Bai et al., 2022, arXiv 2203.11105, Eq. 1 to 7; Feature-Style: Yao et al., 2022, arXiv 2202.02183, Eq. 2 to
    8; SAM: Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), Eq. 3.3 to 3.8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from .._types import Features, Latents
from ..generators import AbstractGenerator
from ..generators._base import IMAGE
from ..metrics import MultiScale, get_metric
from ..metrics._base import AbstractMetric
from ..regions import Regions
from ..sites import Blend, Replace, Tap
from ..spaces import AbstractSpace, SpaceOptions, resolve_spaces
from ..spaces._base import space_mask
from .adversarial import discriminator_loss, generator_loss, gradient_penalty
from .encoder_settings import FACES, FULL, STYLES, EncoderTraining

_ROOT_EPS = 1e-12
"""Added below square roots, whose slope at 0 would be infinite."""


@dataclass(frozen=True)
class Batch:
    """What a step sees.

    Attributes:
        images: `[B, 3, H, W]` in [-1, 1], pictures first and then samples.
        styles: Known styles `[S, L, D]` of the samples, which are the last S images.
        regions: Of all images, for encoders that take them.
        noise: Taps of the noise maps that all have; none where noise is constant.
    """

    images: Tensor
    styles: Tensor | None = None
    regions: Regions | None = None
    noise: tuple[Tap, ...] = ()

    @property
    def samples(self) -> Tensor:
        """`[B]`, which images are samples."""
        count = 0 if self.styles is None else len(self.styles)
        place = torch.arange(len(self.images), device=self.images.device)
        return place >= len(self.images) - count


@dataclass(frozen=True)
class Inversions:
    """What latents render to.

    Attributes:
        images: `[B, 3, H, W]` by :data:`FULL` and :data:`STYLES`; only those that are needed.
        features: What a feature code takes the place of, by site.
    """

    images: Mapping[str, Tensor]
    features: Features


class Inverter:
    """Renders latents of an encoder by a frozen generator.

    Args:
        generator: Whose spaces the latents are of.
        provides: Names of the spaces.
        training: Says which inversions are looked at.
    """

    def __init__(self, generator: AbstractGenerator, provides: frozenset[str], training: EncoderTraining) -> None:
        self.generator, self.training = generator, training
        options = SpaceOptions(formulation=training.formulation)  # type: ignore[arg-type]
        self.spaces = resolve_spaces(sorted(provides), generator, options)
        self.twins = tuple(space for space in self.spaces if space.twin)
        self.sites = tuple(site for space in self.twins for site in space.reference_sites(generator))

    def __call__(self, latents: Latents, batch: Batch, dtype: torch.dtype | None = None, step: int = -1) -> Inversions:
        """The inversions that the training looks at.

        Args:
            latents: Of the images.
            batch: The images.
            dtype: Type of the generator's features; that of its weights where None.
            step: Of the training, for the ramp of feature codes; -1 for none.
        """
        wanted = {*self.training.compared, *self.training.l2_compared}
        # Without a space beside the styles the two are the same.
        alone = len(self.spaces) == 1
        images: dict[str, Tensor] = {}
        features: Features = {}
        if STYLES in wanted or self.sites:
            taps = self._taps(latents, batch, self.spaces[:1], step)
            found = self._synthesis(latents, taps, [*self.sites, IMAGE], dtype)
            assert isinstance(found, dict)
            images[STYLES] = found[IMAGE]
            features = {site: found[site] for site in self.sites}
        if FULL in wanted:
            shared = alone and STYLES in images
            images[FULL] = images[STYLES] if shared else self.full(latents, batch, dtype, step)
        return Inversions(images, features)

    def full(self, latents: Latents, batch: Batch, dtype: torch.dtype | None = None, step: int = -1) -> Tensor:
        """The inversion `[B, 3, H, W]` by all spaces."""
        image = self._synthesis(latents, self._taps(latents, batch, self.spaces, step), None, dtype)
        assert isinstance(image, Tensor)
        return image

    def _taps(self, latents: Latents, batch: Batch, spaces: Sequence[AbstractSpace], step: int) -> list[Tap]:
        found: list[Tap] = list(batch.noise)
        for space in spaces:
            if space.name not in latents:
                continue
            mask = None if batch.regions is None else space_mask(space, self.generator, batch.regions)
            found += [self._ramped(tap, space, step) for tap in space.bind(self.generator, latents[space.name], mask)]
        return found

    def _ramped(self, tap: Tap, space: AbstractSpace, step: int) -> Tap:
        ramp = self.training.ramp
        if not (space.twin and isinstance(tap, Replace) and 0 <= step < ramp):
            return tap
        return Blend(tap.site, tap.value, tap.value.new_full((1, 1, 1, 1), step / ramp))

    def _synthesis(
        self, latents: Latents, taps: list[Tap], until: list[str] | None, dtype: torch.dtype | None
    ) -> Tensor | Features:
        # Generators that know no other type need not know the argument.
        more: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
        styles = latents[self.spaces[0].name]["w"]
        return self.generator.synthesis(styles, taps, noise="const", until=until, **more)

    def penalties(self, latents: Latents) -> dict[str, Tensor]:
        """Unweighted regularisers of the spaces `[B]` by name; spaces that share a name are added (Eq. 3.6, 3.7)."""
        found: dict[str, Tensor] = {}
        with torch.no_grad():
            start = {space.name: self._start(space, latents) for space in self.spaces if space.name in latents}
        for space in self.spaces:
            if space.name not in latents:
                continue
            for name, value in space.penalty(self.generator, latents[space.name], start[space.name]).items():
                found[name] = found[name] + value if name in found else value
        return found

    def _start(self, space: AbstractSpace, latents: Latents) -> dict[str, Tensor]:
        """Where the values of a space begin; of the spaces that encoders give, only paddings are held to it."""
        if all(self.generator.site(name).kind != "padding" for name in space.sites(self.generator)):
            return {}
        return space.init(self.generator, latents[self.spaces[0].name]["w"].detach())


class EncoderLosses(nn.Module):
    """All losses of a step but those of the discriminator.

    Args:
        generator: Frozen.
        provides: Names of the spaces that the encoder gives.
        training: Weights and forms.
        metric: The perceptual metric.
        faces: Metrics for "identity" and "parsing"; what is missing does not count.
    """

    def __init__(
        self,
        generator: AbstractGenerator,
        provides: frozenset[str],
        training: EncoderTraining,
        metric: str | AbstractMetric,
        faces: Mapping[str, AbstractMetric] | None = None,
    ) -> None:
        super().__init__()
        self.how, self.invert = training, Inverter(generator, provides, training)
        self.weights = {name: weight for name, weight in training.weights.items() if weight}
        for name in FACES:
            if name not in (faces or {}):
                self.weights.pop(name, None)
        perceptual = get_metric(metric)
        if training.scales > 1:
            perceptual = MultiScale(perceptual, training.scales)
        known = {"perceptual": perceptual, **(faces or {})}
        self.compared_by = {name: metric for name, metric in known.items() if name in self.weights}
        self.metrics = nn.ModuleList(self.compared_by.values()).requires_grad_(False)
        # As a plain number: buffers of the generator are not ours to move.
        statistics = generator.statistics(0 if generator.label_dim else None)
        self.spread = float(statistics.factor_w.square().sum(dim=1).mean())

    def forward(
        self,
        latents: Latents,
        mean: Tensor,
        batch: Batch,
        dtype: torch.dtype | None = None,
        step: int = -1,
    ) -> tuple[dict[str, Tensor], Inversions]:
        """Unweighted losses `[]` by name, and what they were taken of.

        Args:
            latents: Of the encoder.
            mean: Mean styles `[L, D]`, to which the codes are added.
            batch: The images.
            dtype: Type of the generator's features.
            step: Of the training.
        """
        found = self.invert(latents, batch, dtype, step)
        parts = self.of_pictures(found, batch)
        styles = latents[self.invert.spaces[0].name]["w"]
        if "mean" in self.weights:
            parts["mean"] = root((styles - mean).square().sum(dim=(1, 2))).mean()
        if "code" in self.weights:
            parts["code"] = self._codes(latents, found)
        if "latent" in self.weights and batch.styles is not None:
            parts["latent"] = self.of_samples(latents, batch)
        if any(name in self.weights for name in ("prior", "deviation", "feature", "padding")):
            penalties = self.invert.penalties(latents)
            parts |= {name: value.mean() for name, value in penalties.items() if name in self.weights}
        return parts, found

    def of_pictures(self, found: Inversions, batch: Batch) -> dict[str, Tensor]:
        """Losses `[]` between inversions and their images; inversions that are compared are added."""
        training, parts = self.how, {}
        if "l2" in self.weights:
            counted = batch.samples if training.l2_samples_only else torch.ones_like(batch.samples)
            images = [found.images[name] for name in training.l2_compared]
            each = sum(self._norm(image - batch.images) for image in images)
            parts["l2"] = (each * counted).sum() / counted.sum().clamp_min(1)
        for name, metric in self.compared_by.items():
            prepared = metric.prepare(batch.images)
            values = [unlike(metric, metric(found.images[which], prepared)).mean() for which in training.compared]
            parts[name] = torch.stack(values).sum()
        return parts

    def of_samples(self, latents: Latents, batch: Batch) -> Tensor:
        """Squared error `[]` of what is said of samples, in units of variances, summed over the spaces; ours.

        All of it is known: the styles; that features do not change; that padding is the generator's own; and which
        feature the styles lead to, of which a feature code takes the place.
        """
        assert batch.styles is not None
        generator, count, total = self.invert.generator, len(batch.styles), batch.images.new_zeros(())
        for space in self.invert.spaces:
            if space.name not in latents:
                continue
            known = space.init(generator, batch.styles)
            scales = {"w": self.spread**0.5} if space is self.invert.spaces[0] else space.step_scale(generator, known)
            errors = [
                ((latents[space.name][key][-count:] - value) / scales.get(key, 1.0)).square().mean()
                for key, value in known.items()
            ]
            total = total + torch.stack(errors).mean()
        return total

    def _codes(self, latents: Latents, found: Inversions) -> Tensor:
        """How far feature codes are from the features that they replace `[]` (Eq. 4 of Feature-Style)."""
        if not self.invert.twins:
            raise InputError("The weight of 'code' needs an encoder that gives a feature code, such as feature-style.")
        pairs = zip(self.invert.twins, self.invert.sites)
        return torch.stack(
            [self._norm(latents[space.name]["feature"] - found.features[site]).mean() for space, site in pairs]
        ).sum()

    def _norm(self, difference: Tensor) -> Tensor:
        """Size `[B]` of differences `[B, ...]`: a mean of squares, or a length."""
        squares = difference.square().flatten(1)
        return squares.mean(dim=1) if self.how.norms == "code" else root(squares.sum(dim=1))

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum `[]` of losses."""
        return torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()


def unlike(metric: AbstractMetric, values: Tensor) -> Tensor:
    """Values of a metric such that they are lower for pictures that are more alike: 1 minus a likeness (Eq. 3)."""
    return 1 - values if metric.higher_is_better else values


def critic_loss(form: str, real: Tensor, fake: Tensor) -> Tensor:
    """Loss of the discriminator by the logits `[B]` of pictures and of inversions (Eq. 7 of PadInv), or of its code."""
    return discriminator_loss(real, fake) if form == "code" else fake.mean() - real.mean()


def adversarial_loss(form: str, fake: Tensor) -> Tensor:
    """Loss of the encoder by the logits `[B]` of its inversions (Eq. 4 of PadInv), or of its code."""
    return generator_loss(fake) if form == "code" else -fake.mean()


def critic_penalty(form: str, images: Tensor, logits: Tensor) -> Tensor:
    """Penalty `[]` of the gradient of the logits `[B]` at pictures: half its squared length, or half its length.

    Eq. 7 of PadInv subtracts the latter, which would ask for steep slopes; here it is added.
    """
    if form == "code":
        return gradient_penalty(images, logits)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return 0.5 * root(gradient.square().sum(dim=(1, 2, 3))).mean()


def root(squares: Tensor) -> Tensor:
    """Square root with a finite slope at 0."""
    return (squares + _ROOT_EPS).sqrt()
