"""Regularisers of the SAM report, per image, as written in the report and as in its published code.

Reference:
    Parmar, 2022, CMU-RI-TR-22-26 (arXiv 2206.08357), Eq. 3.6 and 3.7; Wulff and Torralba, 2020, arXiv 2009.06529.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..generators._base import GAUSSIANISE_SLOPE, AbstractGenerator, LatentStatistics
from ..ops.deviation import deviation as slot_deviation
from ..ops.gaussian_prior import gaussian_prior as mahalanobis
from ..ops.scaled_square import scaled_square
from ..regions import Formulation


def gaussian_prior(styles: Tensor, statistics: LatentStatistics, formulation: Formulation = "paper") -> Tensor:
    """Squared Mahalanobis distance of LeakyReLU_5(w), summed over slots (first term of Eq. 3.6).

    Args:
        styles: `[B, L, D]`.
        statistics: Moments of the generator's w.
        formulation: "paper" centres on the mean of LeakyReLU_5(w) and floors the eigenvalues of the covariance;
            "published" centres on LeakyReLU_5 of the mean w and adds 1e-8.

    Returns:
        `[B]`, float64: small eigenvalues of the covariance leave few digits in float32.
    """
    centre = statistics.mean_v if formulation == "paper" else statistics.mean_v_published
    precision = statistics.precision_v if formulation == "paper" else statistics.inverse_covariance_v
    centre, precision = centre.to(styles.device), precision.to(styles.device)
    return mahalanobis(styles, centre, precision, slope=GAUSSIANISE_SLOPE)


def prior_distance(styles: Tensor, statistics: LatentStatistics, formulation: Formulation = "paper") -> Tensor:
    """How unlikely codes are under the prior: Mahalanobis distance of LeakyReLU_5(w), root mean square over slots.

    Args:
        styles: `[B, L, D]`.
        statistics: Moments of the generator's w.
        formulation: As for :func:`gaussian_prior`.

    Returns:
        `[B]`, float64, at least 0. With "paper" about the root of D for random samples of the mapping, a little less
        where the floor of the eigenvalues acts; "published", whose centre is no mean, is above. Codes that no sample
        comes near are far more.

    Reference:
        Wulff and Torralba, 2020, arXiv 2009.06529.
    """
    return (gaussian_prior(styles, statistics, formulation) / styles.shape[1]).sqrt()


def standard_prior(z: Tensor) -> Tensor:
    """The same distance where latents `[B, L, Z]` are standard normal as they are: sum of squares `[B]`."""
    return z.square().sum(dim=(1, 2))


@torch.no_grad()
def style_distance(generator: AbstractGenerator, styles: Tensor, label: Any = None) -> Tensor:
    """How unlikely styles of any generator are, root mean square over slots.

    It is :func:`prior_distance`. Where blocks read noise, it is the distance of noise and class embedding from their
    means, in standard deviations: those of a normal distribution, and those of the embeddings over all classes.

    Args:
        generator: Gives the moments.
        styles: `[B, L, D]`.
        label: Class by whose w styles are judged; class embeddings are judged by all classes.

    Returns:
        `[B]`, float64, at least 0.
    """
    if "z" not in generator.sites:
        return prior_distance(styles, generator.statistics(label))
    every = torch.full((generator.label_dim,), 1 / generator.label_dim) if generator.label_dim else None
    offset = styles - generator.mean_styles(every).to(styles)
    parts = generator.synthesis(offset, until=[name for name in ("z", "class") if name in generator.sites])
    assert isinstance(parts, dict)
    total = standard_prior(parts["z"].double())
    if "class" in parts:
        total = total + standard_prior(parts["class"].double() / generator.class_deviation().to(total))
    return (total / styles.shape[1]).sqrt()


def deviation(styles: Tensor, formulation: Formulation = "paper") -> Tensor:
    """Deviation of all slots from the first one (second term of Eq. 3.6): `[B, L, D]` -> `[B]`.

    "paper" sums squared norms, "published" the norms themselves (with zero gradient where they vanish).
    """
    return slot_deviation(styles, squared=formulation == "paper")


def feature_penalty(delta: Tensor, deviation: Tensor | None = None, formulation: Formulation = "paper") -> Tensor:
    """Size of a feature delta `[B, C, h, w]` (Eq. 3.7): `[B]`.

    Args:
        delta: The delta.
        deviation: Standard deviation of each channel `[C]` to measure it in, or None.
        formulation: "paper" sums squares, "published" averages them.
    """
    total = scaled_square(delta, deviation)
    return total if formulation == "paper" else total / math.prod(delta.shape[1:])
