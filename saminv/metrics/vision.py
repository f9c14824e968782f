"""The demo's vision network and the perceptual metric ``demo`` on its features."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import CheckpointError, InputError
from .._files import atomic_write
from ..weights import load_named
from ._base import AbstractPerceptual, check_images

BUNDLED = "demo-vision"
SLOPE = 0.2
FEATURE_EPS = 1e-4
"""Length below which features of the demo's network count as noise."""


@dataclass(frozen=True)
class VisionConfig:
    """Everything that determines the shape of a :class:`VisionNet`; stored beside its weights as JSON.

    Attributes:
        num_segments: Number of segment classes.
        factors: Names of the factors, in the order of the columns of :meth:`VisionNet.factors`.
        arcs: Factors on a circle: name, angle in radians at factor 0, angle at factor 1.
        binary: Names of the factors that are 0 or 1.
        channels: Channels of the stages; each stage after the first halves the grid.
        depths: Convolutions of the stages.
        decoder_width: Channels of the segment decoder.
        grid: Side of the grid from which the factors are read.
        hidden: Width of the factor head.
    """

    num_segments: int
    factors: tuple[str, ...]
    arcs: tuple[tuple[str, float, float], ...] = ()
    binary: tuple[str, ...] = ()
    channels: tuple[int, ...] = (16, 24, 48, 96, 128)
    depths: tuple[int, ...] = (1, 1, 1, 1, 2)
    decoder_width: int = 24
    grid: int = 8
    hidden: int = 128

    def __post_init__(self) -> None:
        circular = tuple(name for name, _, _ in self.arcs)
        special = circular + self.binary
        if len(self.channels) != len(self.depths) or not self.channels:
            raise InputError(f"channels {self.channels} and depths {self.depths} must pair up.")
        if self.num_segments < 1 or not self.factors:
            raise InputError("A vision network needs at least one segment class and one factor.")
        if len(set(self.factors)) != len(self.factors) or len(set(special)) != len(special):
            raise InputError(f"A factor is named twice among {self.factors}, arcs {circular}, binary {self.binary}.")
        if not set(special) <= set(self.factors):
            raise InputError(f"{sorted(set(special) - set(self.factors))} are no factors; those are {self.factors}.")
        if any(start == end for _, start, end in self.arcs):
            raise InputError("An arc must lead from one angle to another.")

    @property
    def linear(self) -> tuple[str, ...]:
        """Names of the factors that are neither on a circle nor binary."""
        return tuple(name for name in self.factors if name not in (*(arc[0] for arc in self.arcs), *self.binary))

    def period(self, name: str) -> float | None:
        """Period of a factor on a circle in the factor's own unit; None for the others."""
        return next((2 * math.pi / abs(end - start) for arc, start, end in self.arcs if arc == name), None)

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> VisionConfig:
        """Inverse of :meth:`to_json`.

        Raises:
            CheckpointError: If the text is no configuration.
        """
        try:
            values = {key: _tuples(value) for key, value in json.loads(text).items()}
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"This is no configuration of a vision network: {error}") from error


@dataclass(frozen=True)
class FactorReading:
    """Factors in the form that the network gives them and a loss compares.

    Attributes:
        linear: `[B, n]`, values of the linear factors.
        circular: `[B, m, 2]`, cosine and sine for each factor on a circle; the network's are not normalised.
        logits: `[B, k]`, of the binary factors (0 or 1 in a target).
    """

    linear: Tensor
    circular: Tensor
    logits: Tensor


class VisionNet(nn.Module):
    """A small network that segments pictures, reads factors off them, and whose features serve as a metric.

    A backbone of plain convolutions with leaky ReLU; a stage after the first begins with a 2 x 2 average. Taken after
    each stage, the features go to a segment decoder (coarse to fine, by bilinear enlargement) and the last ones, on a
    fixed grid so that places can be told, to the factor head. Input is `[B, 3, H, W]` in [-1, 1] of any size.

    Attributes:
        config: Its shape.
        perceptual_scale: `[]`, factor of the metric ``demo``.
    """

    perceptual_scale: Tensor

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        widths = (3, *config.channels)
        self.stages = nn.ModuleList(
            _stage(widths[k], widths[k + 1], depth, halve=k > 0) for k, depth in enumerate(config.depths)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(c, config.decoder_width, 1) for c in config.channels)
        self.merges = nn.ModuleList(_convolution(config.decoder_width, config.decoder_width) for _ in config.depths[1:])
        self.classify = nn.Conv2d(config.decoder_width, config.num_segments, 3, padding=1)
        outputs = len(config.linear) + 2 * len(config.arcs) + len(config.binary)
        self.squeeze = nn.Conv2d(config.channels[-1], config.hidden // 4, 1)
        self.hidden = nn.Linear(config.hidden // 4 * config.grid**2, config.hidden)
        self.read = nn.Linear(config.hidden, outputs)
        for k, width in enumerate(config.channels):
            self.register_buffer(f"perceptual_weight{k}", torch.ones(width))
        self.register_buffer("perceptual_scale", torch.ones(()))

    @property
    def perceptual_weights(self) -> list[Tensor]:
        """Channel weights of the metric ``demo``, non-negative, one `[C]` per stage."""
        return [self.get_buffer(f"perceptual_weight{k}") for k in range(len(self.stages))]

    def features(self, image: Tensor) -> list[Tensor]:
        """Features after each stage, `[B, C_k, H / 2^k, W / 2^k]` with sizes rounded up."""
        taps = []
        x = image
        for stage in self.stages:
            x = stage(x)
            taps.append(x)
        return taps

    def segment_logits(self, image: Tensor) -> Tensor:
        """Logits of the segment classes at each pixel, `[B, num_segments, H, W]`."""
        return self._decode(self._checked_features(image))

    def factors(self, image: Tensor) -> Tensor:
        """Factors in their own units `[B, F]`, columns as in the configuration.

        A factor on a circle is the angle of its (cosine, sine) pair, counted along its arc and cut opposite to the
        arc's middle; a binary factor is its probability.
        """
        return self.decode_factors(self._read(self._checked_features(image)[-1]))

    def forward(self, image: Tensor) -> tuple[Tensor, FactorReading]:
        """Segment logits `[B, num_segments, H, W]` and the raw reading of the factors, from one pass."""
        taps = self._checked_features(image)
        return self._decode(taps), self._read(taps[-1])

    def encode_factors(self, factors: Tensor) -> FactorReading:
        """Factors `[B, F]` in their own units as a target for :meth:`forward`'s reading."""
        columns = dict(zip(self.config.factors, factors.unbind(dim=1)))
        angles = [start + (end - start) * columns[name] for name, start, end in self.config.arcs]
        pairs = [torch.stack([angle.cos(), angle.sin()], dim=1) for angle in angles]
        return FactorReading(
            _stack([columns[name] for name in self.config.linear], factors.new_zeros(len(factors), 0)),
            _stack(pairs, factors.new_zeros(len(factors), 0, 2)),
            _stack([columns[name] for name in self.config.binary], factors.new_zeros(len(factors), 0)),
        )

    def decode_factors(self, reading: FactorReading) -> Tensor:
        """Inverse of :meth:`encode_factors` for readings, `[B, F]`."""
        columns = dict(zip(self.config.linear, reading.linear.unbind(dim=1)))
        for (name, start, end), pair in zip(self.config.arcs, reading.circular.unbind(dim=1)):
            middle = (start + end) / 2
            # Turned so that the middle of the arc lies at angle 0, far from the cut of atan2 at +-pi.
            angle = torch.atan2(pair[:, 1], pair[:, 0]) - middle
            columns[name] = (torch.remainder(angle + math.pi, 2 * math.pi) - math.pi) / (end - start) + 0.5
        columns.update(zip(self.config.binary, reading.logits.sigmoid().unbind(dim=1)))
        return _stack([columns[name] for name in self.config.factors], reading.linear.new_zeros(len(reading.linear), 0))

    def _checked_features(self, image: Tensor) -> list[Tensor]:
        check_images(image, "image")
        return self.features(image)

    def _decode(self, taps: Sequence[Tensor]) -> Tensor:
        x = self.laterals[-1](taps[-1])
        for k in range(len(taps) - 2, -1, -1):
            x = self.merges[k](F.leaky_relu(x, SLOPE))
            x = F.interpolate(x, size=taps[k].shape[-2:], mode="bilinear", align_corners=False)
            x = x + self.laterals[k](taps[k])
        return self.classify(F.leaky_relu(x, SLOPE))

    def _read(self, tap: Tensor) -> FactorReading:
        x = F.adaptive_avg_pool2d(F.leaky_relu(self.squeeze(tap), SLOPE), self.config.grid)
        out = self.read(F.leaky_relu(self.hidden(x.flatten(1)), SLOPE))
        sizes = [len(self.config.linear), 2 * len(self.config.arcs), len(self.config.binary)]
        linear, circular, logits = out.split(sizes, dim=1)
        return FactorReading(linear, circular.reshape(len(tap), len(self.config.arcs), 2), logits)


class DemoPerceptual(AbstractPerceptual):
    """The demo's perceptual metric: a distance of the form of LPIPS on the features of the demo's vision network.

    It is scaled so that its values mean about what values of LPIPS mean, but it is not LPIPS: its network knows car
    scenes only. Use an ``lpips-...`` metric for other pictures. At least 0, 0 for identical images; at the size of the
    images, which are not resized.

    Args:
        network: The network to use; the bundled one if None. Its own flags (training, gradients) are left alone.

    Raises:
        CheckpointError: If the bundled weights are missing or damaged.

    Reference:
        The form: R. Zhang et al., 2018, arXiv:1801.03924, Eq. 1.
    """

    name = "demo"
    eps = FEATURE_EPS

    def __init__(self, network: VisionNet | None = None) -> None:
        super().__init__()
        self.network = load_vision() if network is None else network

    @property
    def scale(self) -> Tensor:
        """Factor `[]` that all values carry."""
        return self.network.perceptual_scale

    def stages(self, image: Tensor) -> Sequence[Tensor]:
        return self.network.features(image.to(self.scale.dtype))

    def channel_weights(self) -> Sequence[Tensor]:
        return [weight * self.scale for weight in self.network.perceptual_weights]


def save_vision(network: VisionNet, path: str | Path, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a network, its metric's weights and its configuration as a safetensors file; returns the path.

    Raises:
        OutputError: If the file cannot be written.
    """
    from safetensors.torch import save

    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(state, {**(metadata or {}), "config": network.config.to_json()}))
    return Path(path)


def load_vision(path: str | Path | None = None) -> VisionNet:
    """Load a vision network, frozen and in evaluation mode; the bundled one unless a path is given.

    Raises:
        CheckpointError: If the file is missing, damaged, or no vision network.
    """
    what, tensors, metadata = load_named(BUNDLED, path)
    if "config" not in metadata:
        raise CheckpointError(f"{what} is no vision network: it has no configuration.")
    network = VisionNet(VisionConfig.from_json(metadata["config"]))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{what} does not fit its own configuration: {error}") from error
    if any(bool((weight < 0).any()) for weight in network.perceptual_weights) or not network.perceptual_scale > 0:
        raise CheckpointError(f"{what} has negative weights of its metric; it is damaged.")
    return network.requires_grad_(False).eval()


def _stage(inputs: int, outputs: int, depth: int, halve: bool) -> nn.Sequential:
    # Averaging, not a stride: strided convolutions leave a checkerboard in the gradient that an inversion follows.
    layers: list[nn.Module] = [nn.AvgPool2d(2, ceil_mode=True)] if halve else []
    for k in range(depth):
        layers += [_convolution(inputs if k == 0 else outputs, outputs), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    return layer


def _stack(columns: Sequence[Tensor], empty: Tensor) -> Tensor:
    return torch.stack(list(columns), dim=1) if columns else empty


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
