"""Invertibility as a trained network predicts it, and the check that the network belongs to the generator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .._errors import CheckpointError, InputError
from ..checkpoints.sam_invertibility import read_sam_invertibility
from ..generators._base import AbstractGenerator
from ..weights import cards, read_safetensors
from ._base import AbstractInvertibility, check_image
from .deeplab import widths_of
from .network import FORMAT, InvertibilityConfig, InvertibilityNet, load_invertibility, load_state

PREDICTED_TAU = 0.2
"""Threshold where errors are predicted: feature layers then serve from the first step on. The SAM report has 0.225."""
CARD_FIGURE = "generator"
"""Figure on the card of a bundled network that holds its generator's fingerprint."""
_AT_ONCE = 8
"""Images that go through the network together."""
_SHOWN = 12
"""Leading characters of a fingerprint that a message shows."""


@dataclass(frozen=True, eq=False)
class PredictedInvertibility(AbstractInvertibility):
    """Error maps that a network predicts from the image alone.

    An image of another size than the network was trained on is brought to that size, with its proportions kept, and the
    maps are brought back: the errors of a structure depend on its size relative to the generator's picture.

    Attributes:
        network: A trained network, or the path of its file.

    Raises:
        CheckpointError: If the file is missing, damaged, or no invertibility network.
    """

    network: InvertibilityNet | str | Path

    def __post_init__(self) -> None:
        if not isinstance(self.network, InvertibilityNet):
            object.__setattr__(self, "network", load_invertibility(self.network))

    @classmethod
    def for_generator(
        cls,
        generator: AbstractGenerator,
        spaces: Sequence[str],
        metric: str | None = None,
        network: InvertibilityNet | str | Path | None = None,
    ) -> PredictedInvertibility:
        """The network for a generator, on the generator's device, after :meth:`check`.

        Args:
            generator: Whose errors are to be predicted.
            spaces: That take part in the allocation.
            metric: Name of the metric that tau refers to; not compared if None.
            network: A network or its file; the bundled one of this generator if None.

        Raises:
            InputError: If there is no bundled network, or the network is for something else.
            CheckpointError: If the file is missing, damaged, or no invertibility network.
        """
        found = find_network(generator) if network is None else network
        if found is None:
            raise InputError(
                f"There is no invertibility network for this generator (fingerprint {_short(generator.fingerprint)}). "
                f"{_ADVICE}, or measure invertibility while inverting instead."
            )
        predicted = cls(found)
        predicted.check(generator, spaces, metric)
        predicted._net.to(generator.device)
        return predicted

    @property
    def config(self) -> InvertibilityConfig:
        """What the network was trained for."""
        return self._net.config

    def check(self, generator: AbstractGenerator, spaces: Sequence[str], metric: str | None = None) -> None:
        """Make sure that the network was trained for a generator, some spaces and a metric.

        What a network does not record (published ones record nothing) is not compared.

        Raises:
            InputError: If it was not; the message says what differs and what to do.
        """
        self.check_for(generator.fingerprint, spaces, metric)

    def check_for(self, fingerprint: str, spaces: Sequence[str], metric: str | None = None) -> None:
        """:meth:`check` for a generator of which only the fingerprint is at hand."""
        config = self.config
        if config.fingerprint and config.fingerprint != fingerprint:
            raise InputError(
                f"This invertibility network was trained for another generator: its fingerprint is "
                f"{_short(config.fingerprint)}, this generator's {_short(fingerprint)}. {_ADVICE}."
            )
        missing = [space for space in spaces if space not in config.spaces]
        if missing:
            raise InputError(
                f"This invertibility network was trained for the spaces {', '.join(config.spaces)}; asked for are "
                f"{', '.join(spaces)}, and it says nothing of {', '.join(missing)}. Leave these out. Or: {_ADVICE}."
            )
        if metric is not None and config.metric and config.metric != metric:
            raise InputError(
                f"This invertibility network predicts errors of the metric {config.metric!r}, but tau is to refer to "
                f"{metric!r}; their values cannot be compared. Use {config.metric!r}. Or: {_ADVICE}."
            )

    @torch.no_grad()
    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        check_image(image)
        network = self._net
        like = next(network.parameters())
        size = image.shape[-2:]
        seen = _sized(image.detach().to(like).clamp(-1, 1), _working_size(size, network.config.image_size))
        maps = torch.cat([network.stacked(part) for part in seen.split(_AT_ONCE)])
        maps = _sized(maps, size).to(image.device, torch.float32)
        return dict(zip(network.config.spaces, maps.split(1, dim=1)))

    @property
    def _net(self) -> InvertibilityNet:
        assert isinstance(self.network, InvertibilityNet)
        return self.network


_ADVICE = "Measure errors with this generator (saminv invertibility build) and train one (saminv invertibility train)"


def find_network(generator: AbstractGenerator, others: Iterable[str | Path] = ()) -> Path | None:
    """The file of a network that was trained for a generator, or None.

    Args:
        generator: Whose fingerprint is looked for.
        others: Further files, or folders of files, that are looked through before the bundled ones.

    Raises:
        CheckpointError: If the list of bundled weights is damaged.
    """
    for place in map(Path, others):
        for file in sorted(place.glob("*.safetensors")) if place.is_dir() else [place]:
            if _fingerprint_of(file) == generator.fingerprint:
                return file
    for card in cards().values():
        if card.figures.get(CARD_FIGURE) == generator.fingerprint:
            return Path(str(resources.files("saminv.weights") / card.file))
    return None


def load_published(
    path: str | Path, *, fingerprint: str = "", metric: str = "lpips-vgg", image_size: tuple[int, int] | None = None
) -> InvertibilityNet:
    """Load a published SAM invertibility network, frozen and in evaluation mode.

    Args:
        path: As for :func:`saminv.checkpoints.sam_invertibility.read_sam_invertibility`.
        fingerprint: Of the generator that it belongs to; the files do not say, and it is not checked if empty.
        metric: Of the errors that it was trained on.
        image_size: Height and width at which images go through it; their own if None, as published.

    Raises:
        CheckpointError: If a file is missing, damaged, or no such network.
    """
    base, heads = read_sam_invertibility(path)
    try:
        widths = widths_of(base)
        features = base["decoder.last_conv.8.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{path} is no published invertibility network: {error} is missing.") from error
    config = InvertibilityConfig(
        spaces=tuple(heads),
        fingerprint=fingerprint,
        metric=metric,
        image_size=image_size,
        backbone="sam-deeplab",
        widths=widths,
        features=features,
        head="published",
        output="relu",
    )
    state = {f"backbone.{name}": value for name, value in base.items()}
    for space, head in heads.items():
        state.update({f"heads.{space}.{name}": value for name, value in head.items()})
    network = InvertibilityNet(config)
    load_state(network, state, str(path))
    return network.requires_grad_(False).eval()


def _fingerprint_of(file: Path) -> str | None:
    """Fingerprint of the generator of a network's file; None if the file is something else."""
    try:
        _, metadata = read_safetensors(file.read_bytes(), str(file))
        if metadata.get("format") != FORMAT:
            return None
        return InvertibilityConfig.from_json(metadata.get("config", "")).fingerprint
    except (OSError, CheckpointError):
        return None


def _working_size(size: Sequence[int], trained: tuple[int, int] | None) -> tuple[int, int]:
    """Size at which an image of ``size`` goes through a network: its shorter side is as in training."""
    if trained is None:
        return (size[0], size[1])
    scale = min(trained) / min(size)
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def _sized(x: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    # Errors stay >= 0: with antialiasing too, bilinear weights are never negative.
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def _short(fingerprint: str) -> str:
    return f"{fingerprint[:_SHOWN]}..."
