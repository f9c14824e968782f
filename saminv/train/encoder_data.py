"""What an encoder is trained on: pictures, samples of the generator, and the regions of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError, OutputError
from .._files import reason
from ..generators import AbstractGenerator
from ..regions import Formulation, Regions
from ..segment import PREDICTED_TAU, AbstractSegmenter, PredictedInvertibility
from ..segment.allocate import SegmentErrors
from ..sites import Replace, Tap, zero_like_site
from ._resume import mixed

UNKNOWN = 255
"""Label of pixels whose region has not been found yet."""
LABELS = "regions.npy"


class PictureSource(Protocol):
    """Pictures of one size by number, such as :class:`saminv.train.Pictures`."""

    @property
    def resolution(self) -> int:
        """Their side."""
        ...

    @property
    def fingerprint(self) -> str:
        """Tells them from others."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Some of them as float images `[B, 3, R, R]` in [-1, 1]."""
        ...


class PredictedRegions:
    """Regions as an inversion has them: predicted errors, segments, and the τ rule.

    Args:
        generator: Whose errors are predicted.
        segmenter: Cuts pictures into segments.
        spaces: That share the pictures, the most editable first; those that a plain inversion has if None.
        invertibility: The network; the bundled one of the generator if None.
        tau: Threshold of the rule.

    Raises:
        InputError: If there is no network for the generator, or it is for other spaces.
    """

    def __init__(
        self,
        generator: AbstractGenerator,
        segmenter: AbstractSegmenter,
        spaces: Sequence[str] | None = None,
        invertibility: PredictedInvertibility | None = None,
        tau: float = PREDICTED_TAU,
    ) -> None:
        self.spaces = tuple(spaces or generator.default_spaces)
        self.segmenter, self.tau = segmenter, tau
        # Of the last space nothing has to be known: what passes nowhere goes there.
        known = self.spaces[:-1] or self.spaces
        self.predicted = invertibility or PredictedInvertibility.for_generator(generator, known)

    @property
    def claimed(self) -> dict[str, Any]:
        """What they depend on, as plain values."""
        return {"spaces": list(self.spaces), "tau": self.tau, "segmenter": type(self.segmenter).__name__}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Regions:
        """Regions of images `[B, 3, H, W]` in [-1, 1]."""
        maps = {self.spaces[-1]: torch.zeros_like(images[:, :1]), **self.predicted(images)}
        errors = SegmentErrors.of(maps, self.segmenter(images), self.spaces)
        return (errors.relieved() if len(self.spaces) > 1 else errors).allocate(self.tau)


class KeptRegions:
    """Regions by the number of a picture, found once and kept in a file.

    Args:
        find: Regions of images.
        folder: Where ``regions.npy`` lives.
        count, size: Number of pictures, and their height and width.

    Raises:
        OutputError: If the file cannot be written.
    """

    def __init__(self, find: Callable[[Tensor], Regions], folder: Path, count: int, size: tuple[int, int]) -> None:
        self.find, self.spaces = find, tuple[str, ...]()
        self.formulation: Formulation = "paper"
        path, shape = folder / LABELS, (count, *size)
        try:
            if not path.exists():
                fresh = np.lib.format.open_memmap(path.with_suffix(".part.npy"), "w+", np.uint8, shape)
                fresh[:] = UNKNOWN
                fresh.flush()
                path.with_suffix(".part.npy").replace(path)
            self.labels = np.lib.format.open_memmap(path, "r+")
        except (OSError, ValueError) as error:
            told = reason(error) if isinstance(error, OSError) else error
            raise OutputError(f"Cannot use {path}: {told}. Remove it, and it is made anew.") from error
        if self.labels.shape != shape or self.labels.dtype != np.uint8:
            raise OutputError(f"{path} belongs to other pictures. Remove it, and it is made anew.")

    def __call__(self, indices: Sequence[int], images: Tensor) -> Regions:
        """Regions of the pictures ``indices``, which are the images `[B, 3, H, W]`."""
        # A row that a killed process left unfinished still has unknown pixels.
        missing = [k for k, index in enumerate(indices) if (self.labels[index] == UNKNOWN).any()]
        if missing or not self.spaces:
            asked = missing or [0]
            found = self.find(images[asked])
            self.spaces, self.formulation = found.spaces, found.formulation
            for k, labels in zip(asked, found.labels.cpu().numpy().astype(np.uint8)):
                self.labels[indices[k]] = labels
        labels = torch.from_numpy(self.labels[list(indices)].astype(np.int64))
        return Regions(labels.to(images.device), self.spaces, self.formulation)


class Examples:
    """Batches of pictures for a training, each a function of the step alone; the first ones are held out.

    Args:
        data: Pictures.
        held: Number of pictures held out.
        size: Of a batch.
        seed: Of the order; each picture is used once before any is used again.

    Raises:
        InputError: If fewer pictures are left than a batch has.
    """

    def __init__(self, data: PictureSource, held: int, size: int, seed: int) -> None:
        if len(data) - held < max(size, 1):
            raise InputError(
                f"Of {len(data)} pictures {held} are held out for the validation, and a step shows {size}. Take more "
                "pictures, or a smaller batch or validation."
            )
        self.data, self.held, self.size, self.seed = data, held, size, seed
        self._orders: dict[int, list[int]] = {}

    def __call__(self, step: int) -> tuple[list[int], Tensor]:
        """Numbers and images `[B, 3, R, R]` of a step."""
        indices = [self._index(step * self.size + k) for k in range(self.size)]
        return indices, self.data.batch(indices)

    def _index(self, position: int) -> int:
        count = len(self.data) - self.held
        epoch = position // count
        if epoch not in self._orders:
            source = torch.Generator().manual_seed(mixed(self.seed, "order", epoch))
            # A batch may reach into the next epoch, never back into the last but one.
            self._orders = {k: v for k, v in self._orders.items() if k >= epoch - 1}
            self._orders[epoch] = torch.randperm(count, generator=source).tolist()
        return self.held + self._orders[epoch][position % count]


@torch.no_grad()
def draw_samples(
    generator: AbstractGenerator, count: int, noise: Sequence[Tap] = (), dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Styles `[B, L, D]` of random samples, of random classes where there are some, and their pictures in [-1, 1].

    Noise maps are those of the taps, of which the last ``count`` rows are taken, else constant.
    """
    z = torch.randn(count, generator.z_dim, device=generator.device, dtype=generator.dtype)
    label = None
    if generator.label_dim:
        chosen = torch.randint(generator.label_dim, (count,), device=generator.device)
        label = torch.nn.functional.one_hot(chosen, generator.label_dim).to(generator.dtype)
    styles = generator.mapping(z, label)
    own = [Replace(tap.site, tap.value[-count:]) for tap in noise if isinstance(tap, Replace)]
    more: Mapping[str, Any] = {} if dtype is None else {"dtype": dtype}
    image = generator.synthesis(styles, own, **more)
    assert isinstance(image, Tensor)
    return styles, image.clamp(-1, 1)


def draw_noise(generator: AbstractGenerator, count: int) -> tuple[Tap, ...]:
    """Taps of random noise maps for ``count`` images; none for a generator without noise."""
    like = torch.empty(0, device=generator.device, dtype=generator.dtype)
    sites = [site for site in generator.sites.values() if site.kind == "noise"]
    return tuple(Replace(site.name, torch.randn_like(zero_like_site(site, count, like))) for site in sites)
