"""The demo's StyleGAN2: its shape, the bundled weights, and their export from a training run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..generators import StyleGAN2, StyleGAN2Config, generator_from_arrays, save_generator
from ..weights import load_bundled, write_card

CONFIG = StyleGAN2Config(
    resolution=128,
    z_dim=64,
    w_dim=128,
    channel_base=3072,
    channel_max=128,
    mapping_layers=4,
    learning_rate_multiplier=1.0,
)
BUNDLED = "demo-generator"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def load_demo_generator() -> StyleGAN2:
    """The bundled generator, frozen.

    Raises:
        CheckpointError: If its file is missing or damaged.
    """
    arrays, metadata = load_bundled(BUNDLED)
    generator = generator_from_arrays(arrays, metadata, BUNDLED)
    assert isinstance(generator, StyleGAN2)
    return generator


@torch.no_grad()
def export(generator: StyleGAN2, trained_by: str, figures: Mapping[str, float] | None = None) -> Path:
    """Set the mean w, write the bundled file and its card."""
    generator.w_avg = generator.mapping(generator.sample_z(20000, seed=0))[:, 0].mean(dim=0)
    path = save_generator(generator, WEIGHTS / f"{BUNDLED}.safetensors")
    write_card(
        BUNDLED,
        kind="StyleGAN2, 128x128, car scenes",
        licence="MIT",
        data="scenes rendered by saminv.demo.scenes; no photographs",
        trained_by=trained_by,
        description="Maps noise whose first coordinates are the factors of a scene to that scene.",
        figures=dict(figures or {}),
    )
    return path
