"""Directions from text: global directions of StyleCLIP, in the style space S of any generator.

Needs open_clip, the extra ``text``. A published ``fs3.npy`` can take the place of
:func:`saminv.editing.channel_effects`.

Reference:
    Patashnik et al., 2021, arXiv 2103.17249, section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._errors import CheckpointError, InputError, MissingExtraError
from ..generators import AbstractGenerator
from ..weights._fetch import file_digest
from .change import LinearDirection
from .channels import channel_deviation
from .effects import TextModel, channel_effects, counted_layers
from .sets import DirectionSet

MODEL, WEIGHTS = "ViT-B-32", "openai"
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of one {}.",
    "a good photo of a {}.",
    "a bad photo of a {}.",
    "a close-up photo of a {}.",
    "a bright photo of a {}.",
    "a dark photo of a {}.",
    "a drawing of a {}.",
    "a rendering of a {}.",
)
"""Sentences over which the embedding of a text is averaged."""
THRESHOLD = 0.15


class Clip:
    """A CLIP model of open_clip.

    Args:
        model: Name of an architecture of open_clip.
        weights: Tag of published weights, which open_clip fetches, or a file of weights; a file is read as arrays only,
            for the model as named: "ViT-B-32-quickgelu" for a file of OpenAI's ViT-B-32.
        device: Where it computes.

    Raises:
        MissingExtraError: If open_clip is not installed.
        InputError: If open_clip knows no such model or weights.
        CheckpointError: If the file of weights cannot be read.
    """

    def __init__(self, model: str = MODEL, weights: str | Path = WEIGHTS, device: torch.device | str = "cpu") -> None:
        open_clip = _open_clip()
        if model not in open_clip.list_models():
            raise InputError(
                f"open_clip has no model {model!r}. It has: {', '.join(open_clip.list_models()[:12])}, ..."
            )
        tags = open_clip.list_pretrained_tags_by_model(model)
        from_file = Path(weights).is_file()
        if not from_file and str(weights) not in tags:
            raise InputError(
                f"{str(weights)!r} is neither a file nor weights of {model}. Those are: {', '.join(tags) or 'none'}."
            )
        try:
            # Weights of OpenAI are for another activation than the architecture of the same name has.
            quick = not from_file and bool(open_clip.get_pretrained_cfg(model, str(weights)).get("quick_gelu"))
            network = open_clip.create_model(model, str(weights), device=device, force_quick_gelu=quick)
        except Exception as error:
            if not from_file:
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"{weights} holds no weights of {model}: {reason}") from error
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(model)
        self.name = self.fingerprint = f"{model}-{Path(weights).stem}"
        if from_file:
            self.fingerprint += f"-{file_digest(Path(weights))[:16]}"
        visual = network.visual
        size = visual.image_size
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.mean, self.std = (
            torch.tensor(value or usual, device=device)[:, None, None]
            for value, usual in (
                (getattr(visual, "image_mean", None), open_clip.OPENAI_DATASET_MEAN),
                (getattr(visual, "image_std", None), open_clip.OPENAI_DATASET_STD),
            )
        )

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings `[N, E]` of texts."""
        return self.network.encode_text(self.tokenizer(list(texts)).to(self.mean.device)).float()

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """Embeddings `[B, E]` of images `[B, 3, H, W]` in [-1, 1], resized to the model's size as they are."""
        pixels = (images.to(self.mean).clamp(-1, 1) + 1) / 2
        pixels = F.interpolate(pixels, self.size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        return self.network.encode_image((pixels - self.mean) / self.std).float()


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise MissingExtraError(
            'Directions from text need open_clip: pip install "saminv[text]". SeFa and GANSpace work without it.'
        ) from error
    return open_clip


def text_change(model: TextModel, target: str, neutral: str, templates: Sequence[str] = TEMPLATES) -> Tensor:
    """Direction of unit length `[E]` from one text to another.

    Raises:
        InputError: If both texts have the same embedding.
    """
    ends = []
    for text in (target, neutral):
        rows = F.normalize(model.texts([template.format(text) for template in templates]), dim=1)
        ends.append(F.normalize(rows.mean(dim=0), dim=0))
    change = ends[0] - ends[1]
    if float(change.norm()) < 1e-6:
        raise InputError(f"{target!r} and {neutral!r} mean the same to the model, so there is no way between them.")
    return F.normalize(change, dim=0)


def text_directions(
    generator: AbstractGenerator,
    model: TextModel,
    texts: Sequence[tuple[str, str]],
    *,
    threshold: float = THRESHOLD,
    effects: Tensor | str | Path | None = None,
    label: Any = None,
    name: str = "text",
    **measuring: Any,
) -> DirectionSet:
    """Global directions of StyleCLIP.

    A channel moves by its standard deviation times how well its effect agrees with the change of the text, relative to
    the channel that agrees best. Channels that agree less than the threshold stay.

    Args:
        generator: Any with style layers.
        model: The same that measured the effects.
        texts: Pairs of a target and a neutral text: ``("a red car", "a car")``.
        threshold: Least agreement, beta of the paper; higher ones change fewer things.
        effects: Of :func:`saminv.editing.channel_effects`, or their .npy file; measured if None.
        label: Class of a conditional generator.
        name: Of the set.
        measuring: Of :func:`saminv.editing.channel_effects`, such as ``cache=``.

    Returns:
        A direction for each pair under its target. Values: "channels", the number of channels that it moves.

    Raises:
        InputError: If no channel reaches the threshold, or the effects do not fit.
        CheckpointError: If the file of effects cannot be read.
    """
    if not texts:
        raise InputError("There are no texts; give pairs such as ('a red car', 'a car').")
    layers = counted_layers(generator)
    sizes = [layer.channels for layer in layers]
    known = channel_effects(generator, model, label=label, **measuring) if effects is None else _effects(effects)
    deviation = channel_deviation(generator, layers, label).cpu()
    slots = {layer.name: layer.slot for layer in layers}
    directions, moved = {}, []
    for target, neutral in texts:
        change = text_change(model, target, neutral).cpu()
        if tuple(known.shape) != (sum(sizes), len(change)):
            raise InputError(
                f"The effects are {list(known.shape)}; needed are {sum(sizes)} channels of this generator and "
                f"{len(change)} numbers of an embedding."
            )
        agreement = known.float() @ change
        chosen = agreement.abs() >= threshold
        if not bool(chosen.any()):
            raise InputError(
                f"No channel agrees with {target!r} by {threshold:g} or more; the best one by "
                f"{float(agreement.abs().max()):.3f}. Take a lower threshold."
            )
        shift = torch.where(chosen, agreement, 0.0) / agreement.abs().max() * deviation
        parts = {layer.name: part.contiguous() for layer, part in zip(layers, shift.split(sizes)) if bool(part.any())}
        still = torch.zeros(generator.num_styles, generator.style_dim)
        directions[target] = LinearDirection(still, parts, slots)
        moved.append(float(chosen.sum()))
    touched = {slots[name] for direction in directions.values() for name in direction.channels}
    settings = {"texts": [list(pair) for pair in texts], "threshold": threshold, "model": model.name}
    return DirectionSet(
        name,
        "text",
        generator.fingerprint,
        directions,
        tuple(sorted(touched)),
        {"channels": moved},
        settings,
    )


def _effects(source: Tensor | str | Path) -> Tensor:
    if isinstance(source, Tensor):
        return source
    try:
        array = np.load(source, allow_pickle=False)
        return torch.from_numpy(array.astype(np.float32))
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{source} is no readable .npy file of channel effects: {error}") from error
