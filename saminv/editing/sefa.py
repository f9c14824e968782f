"""SeFa: directions in closed form, from the weights of the layers that read the styles.

Reference:
    Shen and Zhou, 2021, arXiv 2007.06600, Eq. 4 to 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .._errors import InputError
from ..generators import AbstractGenerator
from ._samples import check_count, fixed_signs, spread_along
from .change import LinearDirection, check_slots
from .channels import style_layers
from .sets import DirectionSet

COUNT = 20


def sefa_directions(
    generator: AbstractGenerator,
    count: int = COUNT,
    layers: Sequence[int] | None = None,
    *,
    normalise: bool = True,
    label: Any = None,
    name: str = "sefa",
) -> DirectionSet:
    """Directions n of unit length that change the input of some layers most: max ||A n||^2, orthogonal to each other.

    They are the eigenvectors of A'A with the largest eigenvalues, A being the matrices of the layers on top of each
    other. As in the published code, a slot counts by the layer of its convolution; a toRGB counts where its slot has
    no other layer. Where layers read a class embedding beside noise, only the noise counts and changes.

    Args:
        generator: Any with layers that read its styles linearly.
        count: Number of directions, at most D, or the numbers of the noise.
        layers: Style slots whose layers count, and which the directions change; all where None.
        normalise: Give each row of A unit length first, as the published code does and the paper does not.
        label: Class of a conditional generator, by whose samples strength 1 is measured.
        name: Of the set.

    Returns:
        Directions "0", "1", ... whose strength 1 is a standard deviation of w. Values: "eigenvalue", "variance" (share
        of the sum of all eigenvalues), "deviation".

    Raises:
        InputError: If the generator has no such layers, or a slot does not exist or has none.
    """
    slots = list(range(generator.num_styles)) if layers is None else check_slots(layers, generator.num_styles)
    matrices = []
    found = style_layers(generator)
    for slot in slots:
        reading = [layer for layer in found if layer.slot == slot]
        chosen = [layer for layer in reading if not layer.paints] or reading
        matrices += [layer.matrix.double() for layer in chosen]
    if not matrices:
        raise InputError(f"No layer reads the style slots {slots}; those that are read: {_read_slots(found)}.")
    # The styles of one label are random in these.
    varies = generator.style_factor(label).any(dim=1)
    stacked = torch.cat(matrices) * varies
    if normalise:
        stacked = stacked / stacked.norm(dim=1, keepdim=True).clamp_min(1e-12)
    eigenvalues, vectors = torch.linalg.eigh(stacked.t() @ stacked)
    kept = min(check_count(count, "count"), int(varies.sum()))
    largest = eigenvalues.flip(0)[:kept]
    rows = fixed_signs(vectors.flip(1)[:, :kept].t())
    deviation = spread_along(generator, rows, label)
    whole = torch.zeros(kept, generator.num_styles, generator.style_dim)
    whole[:, slots] = (rows * deviation[:, None]).cpu().float()[:, None]
    return DirectionSet(
        name,
        "sefa",
        generator.fingerprint,
        {str(k): LinearDirection(row) for k, row in enumerate(whole)},
        tuple(slots),
        {
            "eigenvalue": largest.tolist(),
            "variance": (largest / eigenvalues.sum()).tolist(),
            "deviation": deviation.tolist(),
        },
        {"normalise": normalise},
    )


def _read_slots(layers: Sequence[Any]) -> str:
    return ", ".join(str(slot) for slot in sorted({layer.slot for layer in layers}))
