"""The Gaussian prior with its gradient in one go: the product with the precision serves both."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._value_and_gradient import value_and_gradient
from .reference import gaussian_prior as reference


def _compute(
    styles: Tensor, by_styles: bool, centre: Tensor, precision: Tensor, slope: float
) -> tuple[Tensor, Tensor | None]:
    styles = styles.double()
    difference = F.leaky_relu(styles, slope).sub_(centre)
    product = difference @ precision.double()
    value = (product * difference).sum(dim=(1, 2))
    if not by_styles:
        return value, None
    return value, torch.ops.aten.leaky_relu_backward(product.mul_(2.0), styles, slope, False)


def gaussian_prior(styles: Tensor, centre: Tensor, precision: Tensor, slope: float) -> Tensor:
    """See :func:`saminv.ops.gaussian_prior.gaussian_prior`."""
    constants: dict[str, Any] = {"centre": centre, "precision": precision, "slope": slope}
    return value_and_gradient(
        styles, functools.partial(_compute, **constants), functools.partial(reference, **constants)
    )
