"""What the channels of the style space do to pictures, in the embedding of a model that knows texts.

It takes two pictures for each channel and sample, which for large generators are hundreds of thousands. So channels
that are done can be kept in a file, with which the same call goes on.

Reference:
    Patashnik et al., 2021, arXiv 2103.17249, section 6.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor
from tqdm import tqdm

from .._errors import CheckpointError, InputError
from .._files import atomic_write, ensure_folder
from ..generators import AbstractGenerator, StyleLayer, style_layers
from ._samples import check_count, sample_codes
from .channels import channel_deviation, shifted
from .sets import directions_folder

IMAGES, STEP = 100, 5.0
BATCH = 16
FORMAT = "saminv.effects.1"
SAVED_EVERY = 60.0
"""Seconds after which finished channels are written down."""


class TextModel(Protocol):
    """Embeds texts and images in one space."""

    name: str

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings `[N, E]` of texts."""

    def images(self, images: Tensor) -> Tensor:
        """Embeddings `[B, E]` of images `[B, 3, H, W]` in [-1, 1]."""


@torch.no_grad()
def channel_effects(
    generator: AbstractGenerator,
    model: TextModel,
    *,
    images: int = IMAGES,
    step: float = STEP,
    seed: int = 0,
    label: Any = None,
    batch: int = BATCH,
    cache: str | Path | None = None,
    progress: bool = False,
) -> Tensor:
    """What each channel of the style space changes in the embedding of pictures, `[C, E]` with rows of unit length.

    Every channel is moved by ``step`` standard deviations up and down in random samples; differences of the embeddings
    are brought to unit length and averaged.

    Args:
        generator: Any with style layers; those of toRGBs do not count.
        model: Embeds the pictures.
        images: Number of random samples.
        step: In standard deviations of the channel.
        seed: Of the samples.
        label: Class of a conditional generator.
        batch: Pictures at once.
        cache: A .safetensors file of the channels that are done, with which the same call goes on; it states its
            arguments. None to keep nothing.
        progress: Show a bar.

    Raises:
        InputError: If the generator has no style layers, a number is impossible, or the cache is of other arguments.
        CheckpointError: If the cache cannot be read.
        OutputError: If it cannot be written.
    """
    layers = counted_layers(generator)
    codes = sample_codes(generator, check_count(images, "images"), seed, label)
    deviation = channel_deviation(generator, layers, label)
    channels = [(layer, channel) for layer in layers for channel in range(layer.channels)]
    said = settings(generator, model, images, step, seed, label)
    rows = [] if cache is None else _known(Path(cache), said)
    saved, kept = time.monotonic(), len(rows)
    with tqdm(total=len(channels), initial=len(rows), unit="channel", desc="effects", disable=not progress) as bar:
        try:
            for layer, channel in channels[len(rows) :]:
                rows.append(_effect(generator, model, codes.split(batch), layer, channel, step * deviation[len(rows)]))
                bar.update()
                if cache is not None and time.monotonic() - saved > SAVED_EVERY:
                    _write(Path(cache), rows, said)
                    saved, kept = time.monotonic(), len(rows)
        finally:
            if cache is not None and len(rows) > kept:
                _write(Path(cache), rows, said)
    return torch.stack(rows)


def counted_layers(generator: AbstractGenerator) -> list[StyleLayer]:
    """The style layers whose channels count: not those of toRGBs."""
    return [layer for layer in style_layers(generator) if not layer.paints]


def settings(
    generator: AbstractGenerator, model: TextModel, images: int, step: float, seed: int, label: Any
) -> dict[str, str]:
    """What effects depend on, as text by name."""
    classes = None if label is None else torch.as_tensor(label).tolist()
    values = {
        "model": getattr(model, "fingerprint", model.name),
        "images": images,
        "step": step,
        "seed": seed,
        "label": classes,
    }
    return {"generator_fingerprint": generator.fingerprint, **{name: json.dumps(x) for name, x in values.items()}}


def effects_file(
    generator: AbstractGenerator,
    model: TextModel,
    images: int = IMAGES,
    step: float = STEP,
    seed: int = 0,
    label: Any = None,
) -> Path:
    """Where the effects for these arguments are kept beside the directions of a generator; its folder is made.

    Raises:
        OutputError: If the folder cannot be made.
    """
    said = json.dumps(settings(generator, model, images, step, seed, label), sort_keys=True)
    folder = ensure_folder(directions_folder() / generator.fingerprint[:16] / "effects")
    return folder / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.safetensors"


def _effect(
    generator: AbstractGenerator,
    model: TextModel,
    codes: Sequence[Tensor],
    layer: StyleLayer,
    channel: int,
    amount: Tensor,
) -> Tensor:
    """The effect `[E]` of one channel, on the CPU; ``amount`` is how far it is moved."""
    total: Tensor | float = 0.0
    for part in codes:
        styles = part[:, None].expand(-1, generator.num_styles, -1)
        ends = []
        for sign in (1, -1):
            moved = torch.zeros(1, layer.channels, dtype=styles.dtype, device=styles.device)
            moved[0, channel] = sign * amount
            with shifted(generator, {layer.name: moved}):
                picture = generator.synthesis(styles)
            assert isinstance(picture, Tensor)
            ends.append(F.normalize(model.images(picture.clamp(-1, 1)), dim=1))
        total = total + F.normalize(ends[0] - ends[1], dim=1).sum(dim=0)
    assert isinstance(total, Tensor)
    return F.normalize(total, dim=0).cpu()


def _known(path: Path, said: Mapping[str, str]) -> list[Tensor]:
    """Rows that a cache has; none if there is no file."""
    if not path.is_file():
        return []
    try:
        with safe_open(str(path), framework="pt") as file:
            header, rows = file.metadata() or {}, file.get_tensor("effects")
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no readable file of channel effects: {error}. Delete it.") from error
    if header != {"format": FORMAT, **said}:
        raise InputError(f"The effects in {path} are of another generator, model or samples; name another file.")
    return list(rows)


def _write(path: Path, rows: Sequence[Tensor], said: Mapping[str, str]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(serialise({"effects": torch.stack(list(rows))}, {"format": FORMAT, **said}))
