"""SeFa: directions in closed form, from the weights of the layers that read the styles.

Reference:
    Shen and Zhou, 2021, arXiv 2007.06600, Eq. 4 to 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..generators import AbstractGenerator, style_matrix
from ._samples import check_count, fixed_signs, spread_along
from .change import LinearDirection, check_slots
from .sets import DirectionSet

COUNT = 20


def sefa_directions(
    generator: AbstractGenerator,
    count: int = COUNT,
    layers: Sequence[int] | None = None,
    *,
    normalise: bool = True,
    whiten: bool = False,
    label: Any = None,
    name: str = "sefa",
) -> DirectionSet:
    """Directions n of unit length that change the input of some layers most: max ||A n||^2, orthogonal to each other.

    They are the eigenvectors of A'A with the largest eigenvalues, A being the matrices of the layers on top of each
    other. As in the published code, a slot counts by the layer of its convolution; a toRGB counts where its slot has
    no other layer. Where layers read a class embedding beside noise, only the noise counts and changes.

    The paper takes all steps of one length as equal, which they are for a normal z. The w of a mapping network varies
    far more along some directions than along others; ``whiten`` takes steps as equal that are equally likely.

    Args:
        generator: Any with layers that read its styles linearly.
        count: Number of directions, at most D, or the numbers of the noise.
        layers: Style slots whose layers count, and which the directions change; all where None.
        normalise: Give each row of A unit length first, as the published code does and the paper does not.
        whiten: Look for n = L v with the largest ||A L v||^2, v of unit length and L L' the covariance of w. This is
            our variant.
        label: Class of a conditional generator, by whose samples strength 1 is measured.
        name: Of the set.

    Returns:
        Directions "0", "1", ... whose strength 1 is a standard deviation of w; of whitened ones it is L v, a step of
        Mahalanobis length 1. Values: "eigenvalue", "variance" (share of the sum of all eigenvalues), "deviation"; and
        if not whitened "above_random": the eigenvalue relative to the largest one of random weights with rows as long,
        up to which it may be chance alone.

    Raises:
        InputError: If the generator has no such layers, or a slot does not exist or has none.
    """
    slots = list(range(generator.num_styles)) if layers is None else check_slots(layers, generator.num_styles)
    stacked = style_matrix(generator, slots)
    factor = generator.style_factor(label).to(stacked)
    # The styles of one label are random in these.
    varies = factor.any(dim=1)
    stacked = stacked * varies
    if normalise:
        stacked = stacked / stacked.norm(dim=1, keepdim=True).clamp_min(1e-12)
    kept = min(check_count(count, "count", least=1), int(varies.sum()))
    steps = factor if whiten else torch.diag(varies.to(stacked))
    eigenvalues, vectors = _strongest(stacked @ steps)
    rows = fixed_signs((steps @ vectors[:, :kept]).t())
    if not whiten:
        rows = rows * spread_along(generator, rows, label)[:, None]
    largest = eigenvalues[:kept]
    values = {"eigenvalue": largest.tolist(), "variance": (largest / eigenvalues.sum()).tolist()}
    if not whiten:
        chance = _strongest(_random_rows(stacked, varies))[0][0]
        values["above_random"] = (largest / chance).tolist()
    values["deviation"] = rows.norm(dim=1).tolist()
    whole = torch.zeros(kept, generator.num_styles, generator.style_dim)
    whole[:, slots] = rows.cpu().float()[:, None]
    return DirectionSet(
        name,
        "sefa",
        generator.fingerprint,
        {str(k): LinearDirection(row) for k, row in enumerate(whole)},
        tuple(slots),
        values,
        {"normalise": normalise, "whiten": whiten},
    )


def _strongest(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues of M'M `[D]`, the largest first, and its eigenvectors as columns `[D, D]`."""
    values, vectors = torch.linalg.eigh(matrix.t() @ matrix)
    return values.flip(0), vectors.flip(1)


def _random_rows(matrix: Tensor, varies: Tensor) -> Tensor:
    """Random rows as long as those of a matrix `[C, D]`, in the same numbers of a style."""
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(matrix.shape, generator=source, dtype=torch.float64).to(matrix) * varies
    return rows * (matrix.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True))
