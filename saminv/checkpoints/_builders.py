"""From a checkpoint to a frozen generator: the adapter of its names, its configuration, its mean latent."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._errors import CheckpointError
from ..generators import AbstractGenerator, generator_from_arrays
from ._found import Checkpoint
from ._trees import check_numbers
from .genforce import genforce_config, stylegan2_from_genforce, stylegan3_from_genforce
from .nvlabs import nvlabs_config, stylegan2_from_nvlabs
from .rosinality import stylegan2_from_rosinality
from .tensorflow import stylegan2_from_tensorflow

_WHAT = {
    "discriminator": "a discriminator",
    "encoder": "an encoder without its generator",
    "invertibility": "an invertibility network",
    "directions": "directions",
    "solution": "a solution",
}
Arrays = Mapping[str, Tensor]
Settings = Mapping[str, Any]

RECOMPUTED = "The mean latent is recomputed, as the mean of mapped noise."
MEAN_SAMPLES, CHECK_SAMPLES = 10_000, 2000
FAR = 0.5
"""Distance of a mean latent from the mean of mapped noise, in standard deviations, from which it is remarked on."""


def build(checkpoint: Checkpoint) -> AbstractGenerator:
    """The generator of a checkpoint, or the one that belongs to an encoder.

    Raises:
        CheckpointError: If it has none, if its arrays are missing, unknown, of another shape than its settings say or
            not finite, or if it is one that this library cannot represent; says why.
    """
    if checkpoint.kind == "encoder" and checkpoint.decoder is not None:
        return build(checkpoint.decoder)
    if checkpoint.kind != "generator":
        raise CheckpointError(f"it holds no generator, but {_WHAT[checkpoint.kind]} ({checkpoint.form})")
    make = _own if checkpoint.names == "saminv" else _BUILDERS.get((checkpoint.family, checkpoint.names))
    if make is None:
        raise CheckpointError(f"it is a {checkpoint.family} in the form of {checkpoint.names}, which cannot be built")
    check_numbers(checkpoint.arrays)
    generator = make(checkpoint.arrays, checkpoint.settings)
    if _lacks_mean(checkpoint):
        recompute_mean(generator)
    return generator


def notes_of(checkpoint: Checkpoint, generator: AbstractGenerator) -> tuple[str, ...]:
    """What there is to say about a checkpoint and the generator that was built of it, as sentences."""
    source = checkpoint.decoder if checkpoint.kind == "encoder" and checkpoint.decoder else checkpoint
    notes = (*checkpoint.notes, *(source.notes if source is not checkpoint else ()))
    if _lacks_mean(source):
        return (*notes, RECOMPUTED)
    remark = _mean_remark(generator)
    return (*notes, remark) if remark else notes


def _lacks_mean(checkpoint: Checkpoint) -> bool:
    return (checkpoint.family, checkpoint.names) == ("stylegan2", "rosinality") and (
        "latent_avg" not in checkpoint.arrays
    )


@torch.no_grad()
def recompute_mean(generator: AbstractGenerator) -> None:
    """Set the mean latent, where a generator has one, to the mean of mapped noise over all classes."""
    mean = getattr(generator, "w_avg", None)
    if isinstance(mean, Tensor):
        mean.copy_(_mapped(generator, MEAN_SAMPLES).mean(dim=0))
        check_numbers({"mean latent, recomputed": mean})


@torch.no_grad()
def _mean_remark(generator: AbstractGenerator) -> str:
    """How far the mean latent of a file is from the mean of mapped noise, over the classes as if all were alike."""
    mean = getattr(generator, "w_avg", None)
    if not isinstance(mean, Tensor):
        return ""
    w = _mapped(generator, CHECK_SAMPLES)
    distance = float(((mean - w.mean(dim=0)) / w.std(dim=0).clamp_min(1e-8)).square().mean().sqrt())
    if distance > FAR:
        return f"The mean latent of the file is {distance:.3g} standard deviations from the mean of mapped noise."
    return f"The mean latent of the file is that of mapped noise to {distance:.2g} standard deviations."


def _mapped(generator: AbstractGenerator, count: int) -> Tensor:
    """w of random noise `[N, D]`, each of the next class where there are classes."""
    w = []
    for start in range(0, count, 500):
        z = generator.sample_z(500, seed=start)
        label = None
        if generator.label_dim:
            classes = torch.arange(start, start + 500, device=z.device) % generator.label_dim
            label = torch.nn.functional.one_hot(classes, generator.label_dim).to(z.dtype)
        w.append(generator.mapping(z, label)[:, 0])
    return torch.cat(w)[:count]


def _stylegan2_nvlabs(arrays: Arrays, settings: Settings) -> AbstractGenerator:
    return stylegan2_from_nvlabs(arrays, nvlabs_config(arrays, settings))


def _stylegan2_genforce(arrays: Arrays, settings: Settings) -> AbstractGenerator:
    return stylegan2_from_genforce(arrays, genforce_config(arrays, settings))


def _stylegan2_rosinality(arrays: Arrays, settings: Settings) -> AbstractGenerator:
    inner = {name: tensor for name, tensor in arrays.items() if name != "latent_avg"}
    average = arrays.get("latent_avg")
    generator = stylegan2_from_rosinality(inner, average)
    for name, found in (("size", generator.config.resolution), ("latent", generator.config.w_dim)):
        stated = settings.get(name, found)
        if stated != found:
            raise CheckpointError(f"its settings say {name} {stated!r}, but its arrays {found}")
    return generator


def _stylegan1(names: str) -> Callable[[Arrays, Settings], AbstractGenerator]:
    def make(arrays: Arrays, settings: Settings) -> AbstractGenerator:
        # The families are modules of their own, which are loaded when a file needs them.
        module = importlib.import_module(".stylegan1", __package__)
        builder: Callable[..., AbstractGenerator] = getattr(module, f"stylegan1_from_{names}")
        return builder(arrays, settings, what="it")

    return make


def _stylegan3(arrays: Arrays, settings: Settings) -> AbstractGenerator:
    from .stylegan3 import stylegan3_from_nvlabs

    return stylegan3_from_nvlabs(arrays, settings)


def _biggan(arrays: Arrays, settings: Settings) -> AbstractGenerator:
    from .biggan import biggan_from_huggingface

    return biggan_from_huggingface(arrays, settings)


def _own(arrays: Arrays, settings: Settings) -> AbstractGenerator:
    return generator_from_arrays(arrays, settings, "it")


_BUILDERS: Mapping[tuple[str, str], Callable[[Arrays, Settings], AbstractGenerator]] = {
    ("stylegan2", "nvlabs"): _stylegan2_nvlabs,
    ("stylegan2", "tensorflow"): stylegan2_from_tensorflow,
    ("stylegan2", "rosinality"): _stylegan2_rosinality,
    ("stylegan2", "genforce"): _stylegan2_genforce,
    ("stylegan1", "tensorflow"): _stylegan1("tensorflow"),
    ("stylegan1", "genforce"): _stylegan1("genforce"),
    ("stylegan1", "rosinality"): _stylegan1("rosinality"),
    ("stylegan3", "nvlabs"): _stylegan3,
    ("stylegan3", "genforce"): stylegan3_from_genforce,
    ("biggan_deep", "huggingface"): _biggan,
}
