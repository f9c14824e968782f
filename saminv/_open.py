"""Opening generators: by name, from a file, or as they are."""

from __future__ import annotations

import copy
import functools
import os
from pathlib import Path

import torch

from ._errors import InputError
from .checkpoints import load_checkpoint_generator
from .demo.encoders import NAMES, bundled_kinds, load_demo_encoder
from .demo.generator import load_demo_generator
from .encoders import ENCODERS
from .generators import GENERATORS, AbstractGenerator, with_crop
from .weights import NETWORKS, fetch_network


def load_generator(
    generator: str | Path | AbstractGenerator = "demo", device: str = "cpu", crop: tuple[int, int] | None = None
) -> AbstractGenerator:
    """Open a generator.

    Args:
        generator: A registered name, a checkpoint of any supported form (:func:`saminv.checkpoints.read_checkpoint`),
            or a generator, which is passed through. Of a file with several networks it is the averaged generator, of an
            encoder the generator that belongs to it. A published network (:data:`saminv.weights.NETWORKS`) is fetched
            at its first use.
        device: "cpu", "cuda", "cuda:0" or "auto".
        crop: (height, width) of the picture in the middle of the canvas, where neither the file nor the table of
            published networks says it.

    Raises:
        InputError: For an unknown name, whose message lists the known ones, or a crop that does not fit.
        CheckpointError: For a file that is damaged, holds something else, or is another one than at its first use;
            nothing in it has been executed.
        WeightsError: For a published network that is not here and cannot be fetched.
    """
    if crop is not None:
        return with_crop(load_generator(generator, device), crop)
    if isinstance(generator, AbstractGenerator):
        return generator
    name = str(generator)
    if name not in GENERATORS and _is_path(name):
        return load_checkpoint_generator(name).to(pick_device(device))
    return _named_generator(name, str(pick_device(device)))


def _is_path(name: str) -> bool:
    """Whether something that is no registered name is meant as a file or folder, be it there or not."""
    return os.path.lexists(name) or Path(name).suffix != "" or len(Path(name).parts) > 1


@functools.lru_cache(maxsize=8)
def _named_generator(name: str, device: str) -> AbstractGenerator:
    generator = GENERATORS.get(name)().to(device)
    generator.name = name
    return generator


def open_generator(generator: str | Path | AbstractGenerator, device: str) -> AbstractGenerator:
    """The generator on the device asked for; one that was passed in stays where it is."""
    if not isinstance(generator, AbstractGenerator):
        return load_generator(generator, device)
    place = generator.device if device == "auto" else pick_device(device)
    return generator if generator.device == place else copy.deepcopy(generator).to(place)


def _open_network(name: str) -> AbstractGenerator:
    """A published network, fetched if need be, with the crop that its table says."""
    return load_generator(fetch_network(name), crop=NETWORKS.get(name).crop)


if "demo" not in GENERATORS:
    GENERATORS.add("demo", load_demo_generator)
    for _name in NETWORKS:
        GENERATORS.add(_name, functools.partial(_open_network, _name))
    for _name in bundled_kinds():
        ENCODERS.add(f"{NAMES}{_name}", functools.partial(load_demo_encoder, _name))


def pick_device(name: str | torch.device) -> torch.device:
    """The device of a name, which is there.

    Raises:
        InputError: For an unknown name, or "cuda" where there is none.
    """
    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"Unknown device {name!r}; use 'auto', 'cpu' or 'cuda'.") from error
    if device.type not in ("cpu", "cuda"):
        # The device "meta" would even wipe out the weights of a generator that was passed in.
        raise InputError(f"Unknown device {str(name)!r}; use 'auto', 'cpu' or 'cuda'.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device='cuda' was asked for, but torch sees no CUDA device here; use device='cpu' or 'auto'.")
    return device
