"""Discriminators that a training begins with: from files, and what a folder notes about them."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

from .._errors import InputError
from ..checkpoints import read_discriminator
from ..generators import AbstractGenerator
from .adversarial import Discriminator
from .encoder_settings import EncoderTraining


def load_discriminator(path: str | Path) -> Discriminator:
    """Open the discriminator in a file; nothing in it is executed.

    Args:
        path: A pickle of NVIDIA's PyTorch code (its D), a checkpoint of rosinality (its d), what ``saminv convert``
            makes of the former, or a folder of :func:`train_generator` or :func:`train_encoder`, or its
            ``checkpoint.pt``.

    Raises:
        CheckpointError: If there is none in it, or one that is conditional or of another architecture.
    """
    found = read_discriminator(path)
    discriminator = Discriminator(**found.settings)
    discriminator.load_state_dict(found.arrays)
    return discriminator


def check_discriminator(discriminator: Discriminator, generator: AbstractGenerator, training: EncoderTraining) -> None:
    """Make sure that a training asks a discriminator, and that it sees pictures of the generator's size.

    Raises:
        InputError: If not.
    """
    if not training.counts("adversarial"):
        raise InputError(
            "A discriminator is given, but the weight of 'adversarial' is 0, as it is on faces and in most presets, so "
            'nothing would ask it. Give it a weight, such as 0.03 (weights={"adversarial": 0.03}, --weight '
            "adversarial=0.03), or leave the discriminator out."
        )
    side = discriminator.resolution
    if generator.image_size != (side, side):
        height, width = generator.image_size
        raise InputError(
            f"The discriminator judges pictures of {side} x {side}, those of the generator are {height} x {width} "
            "(height, width). Take the one that was trained with this generator."
        )


def learning_copy(discriminator: Discriminator) -> Discriminator:
    """The same network with weights of its own, all of which learn."""
    return copy.deepcopy(discriminator).float().requires_grad_(True).train()


def noted(discriminator: Discriminator) -> dict[str, Any]:
    """What tells one discriminator from another, as plain values: a digest of its arrays, and what they do not show."""
    digest = hashlib.sha256()
    for name, tensor in sorted(discriminator.state_dict().items()):
        array = tensor.detach().cpu().float().contiguous().numpy()
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return {"sha256": digest.hexdigest(), **discriminator.settings}
