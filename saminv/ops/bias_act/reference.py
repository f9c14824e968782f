"""Plain torch bias and activation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SQRT2 = math.sqrt(2.0)


@dataclass(frozen=True)
class Activation:
    """An activation function and the gain that goes with it by default."""

    function: Callable[[Tensor], Tensor]
    gain: float


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x: x, 1.0),
    "relu": Activation(F.relu, SQRT2),
    "lrelu": Activation(lambda x: F.leaky_relu(x, 0.2), SQRT2),
    "tanh": Activation(torch.tanh, 1.0),
    "sigmoid": Activation(torch.sigmoid, 1.0),
    "elu": Activation(F.elu, 1.0),
    "selu": Activation(F.selu, 1.0),
    "softplus": Activation(F.softplus, 1.0),
    "swish": Activation(lambda x: x * torch.sigmoid(x), SQRT2),
}


def bias_act(
    x: Tensor,
    b: Tensor | None,
    *,
    dim: int,
    act: str,
    alpha: float | None,
    gain: float | None,
    clamp: float | None,
) -> Tensor:
    """See :func:`saminv.ops.bias_act.bias_act`."""
    activation = ACTIVATIONS[act]
    if b is not None:
        dim %= x.dim()
        x = x + b.reshape(-1, *[1] * (x.dim() - dim - 1))
    x = F.leaky_relu(x, alpha) if act == "lrelu" and alpha is not None else activation.function(x)
    gain = activation.gain if gain is None else gain
    x = x if gain == 1 else x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)
