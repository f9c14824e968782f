"""What an encoder is to the rest of the library: pictures in, latents of some spaces out."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import CheckpointError, InputError
from .._registry import Registry
from .._types import Latents
from ..generators._base import AbstractGenerator
from ..metrics._base import check_images
from ..regions import Regions

ENCODERS: Registry[Callable[[], AbstractEncoder]] = Registry("encoder")
"""Encoders by name, as functions that open them."""
ARCHITECTURES: Registry[type[AbstractEncoder]] = Registry("architecture of encoders")
"""Classes by the name of their architecture, which their files carry."""

SMALLEST = 32
"""Least longer side at which an encoder sees pictures: a sixteenth of it has to be left for the styles."""
MOST_STYLES = 1000
"""More than any generator has; a damaged file may say more."""
BLACK = -1.0
_SHOWN = 12
"""Leading characters of a fingerprint that a message shows."""


@dataclass(frozen=True)
class EncoderConfig:
    """What all encoders have in common; each architecture adds what fixes its shape.

    Attributes:
        num_styles: Number of style slots L of its generator.
        style_dim: Dimension D of a style.
        image_size: Height and width at which pictures are looked at; the longer one is a power of two.
        resolution: Longer side of the generator's pictures in pixels; None where that is not recorded.
        fingerprint: Of the generator; empty where that is not recorded.
        own_mean: Whether the mean styles, to which the codes are added, come with the encoder; else they are those of
            the generator.
    """

    num_styles: int
    style_dim: int
    image_size: tuple[int, int] = (256, 256)
    resolution: int | None = None
    fingerprint: str = ""
    own_mean: bool = False

    def __post_init__(self) -> None:
        longer = max(self.image_size)
        if len(self.image_size) != 2 or min(self.image_size) < 1 or longer < SMALLEST or longer & (longer - 1):
            raise InputError(
                f"image_size must be (height, width), the longer one a power of two from {SMALLEST} up; got "
                f"{self.image_size}."
            )
        if min(self.num_styles, self.style_dim) < 1 or self.num_styles > MOST_STYLES:
            raise InputError(f"An encoder gives 1 to {MOST_STYLES} styles of at least one number, not {self}.")

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EncoderConfig:
        """Inverse of :meth:`to_json`.

        Raises:
            CheckpointError: If the text is no configuration of this architecture.
        """
        try:
            values: dict[str, Any] = {name: _tuples(value) for name, value in json.loads(text).items()}
            return cls(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"This is no configuration of such an encoder: {error}") from error


class AbstractEncoder(nn.Module, ABC):
    """Says where pictures lie in the spaces of one generator.

    Attributes:
        architecture: Name in :data:`ARCHITECTURES`.
        configuration: A frozen dataclass that fixes the shape of an encoder; its one argument.
        config: Its configuration.
        provides: Names of the spaces that it gives values of; W+ is always among them.
        takes_regions: Whether it looks at the regions too.
        name: Under which it is registered, or that of its file; empty for one that was built.
    """

    architecture: ClassVar[str] = ""
    configuration: ClassVar[type[EncoderConfig]]
    config: Any
    provides: frozenset[str]
    takes_regions: ClassVar[bool] = False
    name: str = ""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        if config.own_mean:
            self.register_buffer("latent_avg", torch.zeros(config.num_styles, config.style_dim))

    @classmethod
    @abstractmethod
    def config_for(cls, generator: AbstractGenerator, **settings: Any) -> EncoderConfig:
        """A configuration that fits a generator; ``settings`` are further fields of it."""

    @abstractmethod
    def _encode(self, image: Tensor, generator: AbstractGenerator, regions: Regions | None) -> Latents:
        """Latents of pictures `[B, 3, H, W]` in the encoder's own type."""

    def encode(self, image: Tensor, generator: AbstractGenerator, regions: Regions | None = None) -> Latents:
        """Values of :attr:`provides` for pictures `[B, 3, H, W]` in [-1, 1] of the generator's size.

        Row `b` of every value depends on row `b` of the pictures alone, once the encoder is in evaluation mode.

        Args:
            image: The pictures.
            generator: That the encoder was trained for.
            regions: Which pixel belongs to which space; only encoders that take regions look at them.

        Raises:
            InputError: If the pictures, the generator or the regions do not fit.
        """
        check_images(image, "image to encode")
        self.check(generator)
        if self.takes_regions and regions is None:
            raise InputError(
                f"The {self.architecture} encoder takes the invertibility map too: pass the regions of the pictures."
            )
        # A channels-last picture makes every feature channels-last: see ``every`` in ``_trunk.py``.
        return self._encode(image.to(self._like).contiguous(), generator, regions)

    def check(self, generator: AbstractGenerator) -> None:
        """Make sure that the encoder is for a generator.

        What an encoder does not record (published ones record no fingerprint) is not compared.

        Raises:
            InputError: If it is for another one; the message says what both are.
        """
        config = self.config
        mine = (config.num_styles, config.style_dim, config.resolution or max(generator.image_size))
        others = (generator.num_styles, generator.style_dim, max(generator.image_size))
        if mine != others:
            raise InputError(
                f"This encoder is for a generator of {_described(*mine[:2], config.resolution)}; this generator has "
                f"{_described(*others)}. Take an encoder that was trained for it."
            )
        if config.fingerprint and config.fingerprint != generator.fingerprint:
            raise InputError(
                f"This encoder was trained for another generator: its fingerprint is {config.fingerprint[:_SHOWN]}..., "
                f"this generator's {generator.fingerprint[:_SHOWN]}.... Take an encoder that was trained for it."
            )
        self._check_sites(generator)

    def _check_sites(self, generator: AbstractGenerator) -> None:
        """Raise ``InputError`` where the values do not have the shapes of the generator's sites."""

    def fit_to(self, generator: AbstractGenerator) -> None:
        """Set what a training had better start with by what is known of a generator; done once before it."""

    def mean_styles(self, generator: AbstractGenerator) -> Tensor:
        """Mean styles `[L, D]`, to which the codes are added: the encoder's own, or those of the generator."""
        if self.config.own_mean:
            return self.get_buffer("latent_avg")
        mean = getattr(generator, "w_avg", None)
        if mean is None:
            mean = generator.statistics().mean_w
        return mean.to(self._like).expand(generator.num_styles, -1)

    def see(self, image: Tensor) -> Tensor:
        """Pictures `[B, C, H, W]` at the encoder's size, in its shape; see :func:`framed`."""
        return resized(framed(image, self.config.image_size), self.config.image_size)

    @property
    def _like(self) -> Tensor:
        """A tensor of the encoder's type, on its device."""
        return next(self.parameters())

    def freeze(self) -> AbstractEncoder:
        """Switch to evaluation and ask no weight for a gradient. Returns itself."""
        return self.eval().requires_grad_(False)


def framed(image: Tensor, size: tuple[int, int], fill: float = BLACK) -> Tensor:
    """Pictures `[B, C, H, W]` in the proportions of ``size`` (height, width).

    A square size stands for the canvas of a generator whose pictures lie in its middle: black is added around them.
    Another size stands for such a picture: what is around it is cut off.
    """
    (height, width), (rows, columns) = image.shape[-2:], size
    if rows == columns:
        side = max(height, width)
        above, left = (side - height) // 2, (side - width) // 2
        border = (left, side - width - left, above, side - height - above)
        return F.pad(image, border, value=fill) if any(border) else image
    kept = (min(height, round(width * rows / columns)), min(width, round(height * columns / rows)))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    return image[..., top : top + kept[0], left : left + kept[1]]


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures at another size, bilinearly, smoothed where they shrink (as Pillow does it)."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    # This is not there in half precision on a CPU.
    single = image.float() if image.device.type == "cpu" and image.itemsize == 2 else image
    return F.interpolate(single, size=size, mode="bilinear", align_corners=False, antialias=True).to(image.dtype)


def usual_config(generator: AbstractGenerator, largest: int = 256) -> dict[str, Any]:
    """The fields of :class:`EncoderConfig` for an encoder that is yet to be trained for a generator.

    Pictures are looked at on the square canvas, at the power of two below their size, and at ``largest`` at most.
    """
    longer = max(generator.image_size)
    side = min(max(SMALLEST, 1 << (longer.bit_length() - 1)), largest)
    return {
        "num_styles": generator.num_styles,
        "style_dim": generator.style_dim,
        "image_size": (side, side),
        "resolution": longer,
        "fingerprint": generator.fingerprint,
    }


def make_encoder(architecture: str, generator: AbstractGenerator, **settings: Any) -> AbstractEncoder:
    """An encoder with random weights that fits a generator, in training mode.

    Args:
        architecture: Name in :data:`ARCHITECTURES`.
        generator: Whose spaces it is to give values of.
        settings: Further fields of its configuration, such as ``widths``.

    Raises:
        InputError: If there is no such architecture, or its fields make no sense for the generator.
    """
    kind: Any = ARCHITECTURES.get(architecture)
    try:
        config = kind.config_for(generator, **settings)
    except TypeError as error:
        raise InputError(f"The {architecture} encoder has no such setting: {error}.") from error
    encoder: AbstractEncoder = kind(config)
    encoder.check(generator)
    return encoder.to(generator.device)


def _described(styles: int, dimension: int, resolution: int | None) -> str:
    pixels = "" if resolution is None else f" and pictures of {resolution} pixels"
    return f"{styles} styles of {dimension} numbers{pixels}"


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that configurations have."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
