"""Random codes of a generator and what is read off their pictures: the data that directions are found from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .._errors import InputError
from ..generators import AbstractGenerator

Scores = Tensor | Callable[[Tensor], Tensor]
"""Scores or labels `[N]` of samples, or a function that reads scores `[B]` off images `[B, 3, H, W]` in [-1, 1]."""
MAPPED, RENDERED = 500, 8
"""Samples that go through mapping and synthesis at once."""
SPREAD_SAMPLES = 2000
"""Samples by which the length of a direction is measured."""


@torch.no_grad()
def sample_codes(generator: AbstractGenerator, count: int, seed: int, label: Any = None) -> Tensor:
    """Codes w `[count, D]` of random samples, the same for a seed."""
    z = generator.sample_z(check_count(count), seed)
    return torch.cat([generator.mapping(part, label)[:, 0] for part in z.split(MAPPED)])


@torch.no_grad()
def pictures(generator: AbstractGenerator, codes: Tensor, progress: bool = False) -> Iterator[Tensor]:
    """Pictures of codes `[N, D]` in [-1, 1], some at a time; with a bar if asked for."""
    with tqdm(total=len(codes), unit="sample", desc="samples", disable=not progress) as bar:
        for part in codes.split(RENDERED):
            image = generator.synthesis(part[:, None].expand(-1, generator.num_styles, -1))
            assert isinstance(image, Tensor)
            yield image.clamp(-1, 1)
            bar.update(len(part))


@torch.no_grad()
def scored(
    generator: AbstractGenerator, codes: Tensor, scores: Mapping[str, Scores], progress: bool = False
) -> dict[str, Tensor]:
    """The scores of codes `[N, D]` by name, each `[N]` float64 on the CPU; functions see the pictures.

    Raises:
        InputError: If there are no scores, they are not `[N]`, or one is not a number.
    """
    if not scores or not isinstance(scores, Mapping):
        raise InputError(
            "Directions are found by a table of scores such as {'smile': ...}: labels or scores of the samples, or a "
            f"function of images. Got {scores!r:.80}."
        )
    functions = {name: score for name, score in scores.items() if callable(score)}
    found = {name: _numbers(name, score) for name, score in scores.items() if not callable(score)}
    if functions:
        read: dict[str, list[Tensor]] = {name: [] for name in functions}
        for image in pictures(generator, codes, progress):
            for name, function in functions.items():
                read[name].append(_numbers(name, function(image)).reshape(-1))
        found |= {name: torch.cat(parts) for name, parts in read.items()}
    for name, values in found.items():
        if tuple(values.shape) != (len(codes),) or not bool(torch.isfinite(values.double()).all()):
            raise InputError(
                f"The scores {name!r} are {list(values.shape)}; {len(codes)} samples need as many finite numbers."
            )
    return {name: found[name].detach().cpu().double() for name in scores}


def _numbers(name: str, score: Any) -> Tensor:
    try:
        return torch.as_tensor(score)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"The scores {name!r} are no numbers: {error}.") from error


def check_count(count: int, what: str = "samples", least: int = 2) -> int:
    """``count`` if it is a whole number from ``least`` up.

    Raises:
        InputError: If it is not.
    """
    if not isinstance(count, int) or count < least:
        raise InputError(f"{what} is {count!r}; it must be a whole number from {least} up.")
    return count


def fixed_signs(rows: Tensor) -> Tensor:
    """Rows `[K, D]` whose sign is chance, turned so that the largest entry of each is positive."""
    return rows * rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).sign()


def spread_along(generator: AbstractGenerator, rows: Tensor, label: Any = None) -> Tensor:
    """Standard deviation of w, over random samples, along rows `[K, D]` (times their length): `[K]`."""
    codes = sample_codes(generator, SPREAD_SAMPLES, 0, label).to(rows)
    return (codes @ rows.t()).std(dim=0)
