"""The interface of a metric, target features that are computed once, and the registry."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InputError
from .._registry import Registry
from ..ops.lpips_head import EPS, lpips_head, unit_length


@dataclass(frozen=True)
class Prepared:
    """What a metric keeps of its targets, so that they pass through a network once and not at every step.

    Attributes:
        metric: Name of the metric that made it.
        tensors: The targets or their features, each `[B, ...]`.
        size: Height and width of the targets.
    """

    metric: str
    tensors: tuple[Tensor, ...]
    size: tuple[int, int]

    @property
    def batch(self) -> int:
        """Number of targets."""
        return self.tensors[0].shape[0]

    def select(self, indices: Tensor | slice | Sequence[int]) -> Prepared:
        """Return the targets of the rows ``indices``: integers, a boolean mask `[B]` or a slice."""
        if not isinstance(indices, (Tensor, slice)):
            indices = torch.as_tensor(indices, dtype=torch.long)
        return replace(self, tensors=tuple(t[indices] for t in self.tensors))

    def join(self, other: Prepared) -> Prepared:
        """Return these targets and then the other ones, prepared by the same metric."""
        if (self.metric, self.size) != (other.metric, other.size):
            both = f"{self.metric} {self.size} and {other.metric} {other.size}"
            raise InputError(f"Only targets of one metric and one size can be joined, not {both}.")
        pairs = zip(self.tensors, other.tensors, strict=True)
        return replace(self, tensors=tuple(torch.cat(pair) for pair in pairs))

    def to(self, *args: Any, **kwargs: Any) -> Prepared:
        """Return a copy on another device or of another dtype; arguments as for ``Tensor.to``."""
        return replace(self, tensors=tuple(t.to(*args, **kwargs) for t in self.tensors))


class AbstractMetric(nn.Module, ABC):
    """A comparison of images `[B, 3, H, W]` in [-1, 1] with targets of the same size, one number per image.

    Row `b` of every result depends on row `b` of the images alone. A metric with weights computes in the dtype of its
    weights (``metric.double()`` for float64). Gradients flow to the images, never to the targets.

    Attributes:
        name: Name in the registry.
        higher_is_better: Whether a larger value means a closer image.
        spatial: Whether :meth:`map` exists.
        smallest: Least height and width that the metric can work on.
    """

    name: str
    higher_is_better: bool = False
    spatial: bool = True
    smallest: int = 1

    def prepare(self, target: Tensor) -> Prepared:
        """Compute once what is needed of the targets `[B, 3, H, W]` in [-1, 1].

        Raises:
            InputError: If the target is no such tensor, or too small for the metric.
        """
        self._check_image(target, "target")
        with torch.no_grad():
            tensors = tuple(tensor.detach() for tensor in self._prepare(target))
        return Prepared(self.name, tensors, (target.shape[-2], target.shape[-1]))

    def forward(self, image: Tensor, prepared: Prepared, weight: Tensor | None = None) -> Tensor:
        """Compare images with prepared targets; returns `[B]`.

        Args:
            image: `[B, 3, H, W]` in [-1, 1].
            prepared: Result of :meth:`prepare` for `B` targets of the same size.
            weight: Non-negative `[B, 1, H, W]` or `[1, 1, H, W]`. With it the result is the weighted mean of the map
                (0 where the weight is 0 everywhere); without it the metric's own global form.

        Raises:
            InputError: If the shapes do not fit together, or a metric of whole pictures gets a weight.
        """
        self._check_pair(image, prepared, weight)
        return self._score(image, prepared) if weight is None else self._weighted(image, prepared, weight)

    def map(self, image: Tensor, prepared: Prepared) -> Tensor:
        """Compare images with prepared targets at each pixel; returns `[B, 1, H, W]`.

        Raises:
            InputError: If the metric has no spatial form, or the shapes do not fit together.
        """
        if not self.spatial:
            others = ", ".join(name for name in METRICS if name != self.name)
            raise InputError(f"The metric {self.name!r} has no map; it is one number per image. Others: {others}.")
        self._check_pair(image, prepared, None)
        return self._map(image, prepared)

    @torch.no_grad()
    def coarse(self, image: Tensor, prepared: Prepared) -> Tensor:
        """Rough likeness that forgives small shifts, to choose among candidates; lower is more alike; returns `[B]`.

        Raises:
            InputError: If the shapes do not fit together.
        """
        self._check_pair(image, prepared, None)
        return self._coarse(image, prepared)

    def _coarse(self, image: Tensor, prepared: Prepared) -> Tensor:
        score = self._score(image, prepared)
        return -score if self.higher_is_better else score

    def with_features(self, dtype: torch.dtype) -> AbstractMetric:
        """The same metric with features of another type, for targets that were prepared by this one.

        Metrics that compare no features, or have none of that type, are returned as they are.
        """
        return self

    def compare(self, image: Tensor, target: Tensor) -> Tensor:
        """Compare images with targets, both `[B, 3, H, W]` in [-1, 1], in one call; returns `[B]`."""
        return self(image, self.prepare(target))

    @abstractmethod
    def _prepare(self, target: Tensor) -> Sequence[Tensor]:
        """Tensors `[B, ...]` to keep of the targets."""

    @abstractmethod
    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        """The global form, `[B]`."""

    @abstractmethod
    def _map(self, image: Tensor, prepared: Prepared) -> Tensor:
        """The spatial form, `[B, 1, H, W]`."""

    def _weighted(self, image: Tensor, prepared: Prepared, weight: Tensor) -> Tensor:
        if not self.spatial:
            raise InputError(f"The metric {self.name!r} compares whole pictures; it takes no weight of pixels.")
        return weighted_mean(self._map(image, prepared), weight)

    def _check_image(self, image: Tensor, what: str) -> None:
        check_images(image, what)
        if min(image.shape[-2:]) < self.smallest:
            raise InputError(
                f"The {what} is {image.shape[-1]} x {image.shape[-2]} pixels; the metric {self.name!r} needs at least "
                f"{self.smallest} x {self.smallest}. Enlarge it, or choose the metric 'mse'."
            )

    def _check_pair(self, image: Tensor, prepared: Prepared, weight: Tensor | None) -> None:
        self._check_image(image, "image")
        if prepared.metric != self.name:
            raise InputError(
                f"This target was prepared by the metric {prepared.metric!r}, not {self.name!r}. "
                "Call prepare() of the metric that compares."
            )
        expected = (prepared.batch, 3, *prepared.size)
        if tuple(image.shape) != expected:
            raise InputError(
                f"The image is {list(image.shape)}, but the prepared target is {list(expected)}. "
                "Both must have one size and one batch; use expand() or prepared.select()."
            )
        if weight is not None:
            check_weight(weight, image)


class AbstractPerceptual(AbstractMetric):
    """A distance of the form of LPIPS on features of a network.

    Features of each stage are normalised to unit length over their channels; the squared differences, weighted per
    channel and summed over channels, are averaged over the stage's grid and summed over stages. The spatial form
    enlarges each stage's map bilinearly to the image instead of averaging it.

    Reference:
        R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018,
        arXiv:1801.03924, Eq. 1.
    """

    eps: float = EPS
    """Added to the length of a feature before it is divided by it."""

    def __init__(self) -> None:
        super().__init__()
        self._typed: dict[torch.dtype, AbstractMetric] = {}

    def with_features(self, dtype: torch.dtype) -> AbstractMetric:
        if dtype not in self._typed:
            other = copy.deepcopy(self)
            other._typed = {}
            self._typed[dtype] = other.to(dtype)
        return self._typed[dtype]

    @abstractmethod
    def stages(self, image: Tensor) -> Sequence[Tensor]:
        """Features of images, one `[B, C, h, w]` per stage, of any length."""

    def features(self, image: Tensor) -> Sequence[Tensor]:
        """Features of images, one `[B, C, h, w]` per stage, of unit length over the channels."""
        return [unit_length(stage, self.eps) for stage in self.stages(image)]

    @abstractmethod
    def channel_weights(self) -> Sequence[Tensor]:
        """Non-negative weights of the channels, one `[C]` per stage."""

    def _prepare(self, target: Tensor) -> Sequence[Tensor]:
        return self.features(target)

    def _score(self, image: Tensor, prepared: Prepared) -> Tensor:
        return torch.stack([stage.mean(dim=(1, 2, 3)) for stage in self._differences(image, prepared)]).sum(dim=0)

    def _coarse(self, image: Tensor, prepared: Prepared) -> Tensor:
        # The last features see the most of the picture; all of their channels count alike.
        return (self.features(image)[-1] - prepared.tensors[-1]).square().sum(dim=1).mean(dim=(1, 2))

    def _map(self, image: Tensor, prepared: Prepared) -> Tensor:
        size = prepared.size
        stages = [
            F.interpolate(stage, size=size, mode="bilinear", align_corners=False)
            for stage in self._differences(image, prepared)
        ]
        return torch.stack(stages).sum(dim=0)

    def _differences(self, image: Tensor, prepared: Prepared) -> list[Tensor]:
        """Weighted squared difference per stage, each `[B, 1, h, w]`."""
        parts = zip(self.stages(image), prepared.tensors, self.channel_weights())
        return [lpips_head(features, target, weights, eps=self.eps) for features, target, weights in parts]


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``values`` `[B, C, H, W]` under ``weight`` `[B or 1, 1, H, W]`: `[B]`, 0 where all weights are 0."""
    weight = weight.to(values.dtype)
    total = (values.mean(dim=1, keepdim=True) * weight).sum(dim=(1, 2, 3))
    mass = weight.sum(dim=(1, 2, 3)).expand_as(total)
    # The inner where keeps the unused branch's gradient finite.
    return torch.where(mass > 0, total / torch.where(mass > 0, mass, 1.0), torch.zeros_like(total))


def check_images(image: Tensor, what: str) -> None:
    """Refuse what is not a float batch of colour images.

    Raises:
        InputError: If ``image`` is not a floating point tensor `[B, 3, H, W]` with pixels.
    """
    if not isinstance(image, Tensor):
        raise InputError(f"The {what} is a {type(image).__name__}; a tensor [B, 3, H, W] in [-1, 1] is needed.")
    if image.dim() != 4 or image.shape[1] != 3 or 0 in image.shape[2:]:
        raise InputError(f"The {what} has shape {list(image.shape)}; [B, 3, H, W] is needed (add the batch axis?).")
    if not image.is_floating_point():
        raise InputError(f"The {what} has dtype {image.dtype}; floats in [-1, 1] are needed (uint8 / 127.5 - 1).")


def check_weight(weight: Tensor, image: Tensor, what: str = "weight") -> None:
    """Refuse a pixel weight that does not fit ``image`` `[B, 3, H, W]`.

    Raises:
        InputError: If it is not `[B, 1, H, W]` or `[1, 1, H, W]`.
    """
    batch, _, height, width = image.shape
    if tuple(weight.shape) not in {(batch, 1, height, width), (1, 1, height, width)}:
        raise InputError(
            f"The {what} has shape {list(weight.shape)}; [{batch}, 1, {height}, {width}] or "
            f"[1, 1, {height}, {width}] is needed."
        )


METRICS: Registry[Callable[..., AbstractMetric]] = Registry("metric")


def get_metric(name: str | AbstractMetric, **options: Any) -> AbstractMetric:
    """Build the metric called ``name``; a metric that is built already is returned as it is.

    Raises:
        InputError: If the name is unknown, or options are given with a metric that is built already.
        WeightsError: If the metric needs weights that are neither here nor can be fetched.
    """
    if isinstance(name, AbstractMetric):
        if options:
            raise InputError(f"The metric {name.name!r} is built already; it takes no options ({', '.join(options)}).")
        return name
    return METRICS.get(name)(**options)
