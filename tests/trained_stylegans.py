"""A small StyleGAN1 and a small StyleGAN3 that have learned the demo's scenes at 32 pixels, and how they were trained.

Regression to the renderer, as in :mod:`saminv.demo.train_generator`: noise says some factors of a scene, all others are
in the middle. ``python tests/trained_stylegans.py stylegan1`` trains that one again, in a few minutes on one idle core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from saminv.demo.scenes import FACTOR_INDEX, FACTORS, render
from saminv.demo.train_generator import regression_loss
from saminv.generators import (
    StyleGAN1,
    StyleGAN1Config,
    StyleGAN3,
    StyleGAN3Config,
    generator_from_arrays,
    save_generator,
)
from saminv.train import Trainer, TrainerConfig
from saminv.weights import read_safetensors

FOLDER = Path(__file__).resolve().parent / "weights"
VARIED = ("car_x", "car_size", "car_hue", "car_lightness", "sky_hue", "hill_height", "ground_hue", "road_lightness")
SIDE = 32
SHARED = {"resolution": SIDE, "z_dim": 24, "w_dim": 24, "mapping_layers": 2, "learning_rate_multiplier": 1.0}
CONFIGS = {
    "stylegan1": StyleGAN1Config(channel_table=(32, 32, 32, 16), **SHARED),
    "stylegan3": StyleGAN3Config(channel_table=(24, 24, 20, 16, 12), num_layers=5, margin=2, **SHARED),
}
STEPS = {"stylegan1": 800, "stylegan3": 1500}
BATCHES = {"stylegan1": 12, "stylegan3": 6}
SCENES, TRACK_EVERY = 4096, 20


def weights_of(family: str) -> Path:
    """The file of a trained generator."""
    return FOLDER / f"{family}-scenes-{SIDE}.safetensors"


def trained(family: str) -> StyleGAN1 | StyleGAN3:
    """The trained generator of a family, frozen."""
    path = weights_of(family)
    generator = generator_from_arrays(*read_safetensors(path.read_bytes(), str(path)), str(path))
    assert isinstance(generator, (StyleGAN1, StyleGAN3))
    return generator


def factors_of(z: Tensor) -> Tensor:
    """Factors `[B, F]` of the scenes of noise `[B, Z]`, whose first numbers say them."""
    factors = torch.full((len(z), len(FACTORS)), 0.5)
    factors[:, [FACTOR_INDEX[name] for name in VARIED]] = torch.special.ndtr(z[:, : len(VARIED)])
    factors[:, [FACTOR_INDEX["facing"], FACTOR_INDEX["headlights"]]] = 0.0
    return factors


def scenes(z: Tensor) -> Tensor:
    """The scenes of noise `[B, 3, 32, 32]`."""
    return torch.cat([render(factors_of(part), SIDE).images for part in z.split(256)])


def likeness(generator: StyleGAN1 | StyleGAN3) -> float:
    """Median PSNR of pictures against the scenes of noise that training has not seen."""
    z = generator.sample_z(256, seed=4)
    image = torch.cat([generator(part) for part in z.split(32)])
    return float((10 * torch.log10(4 / (image - scenes(z)).square().mean(dim=(1, 2, 3)))).median())


def train(family: str, folder: Path) -> StyleGAN1 | StyleGAN3:
    """Train, or go on with a training that was interrupted."""
    torch.manual_seed(0)
    config = CONFIGS[family]
    model = StyleGAN1(config) if isinstance(config, StyleGAN1Config) else StyleGAN3(config)
    z = torch.randn(SCENES, config.z_dim, generator=torch.Generator().manual_seed(3))
    target = scenes(z)
    settings = TrainerConfig(STEPS[family], learning_rate=4e-3, warmup=40, average_decay=0.98, save_every=100)
    trainer = Trainer(model, settings, folder / family)

    def compute(step: int) -> dict[str, Tensor]:
        chosen = torch.randint(SCENES, (BATCHES[family],), generator=torch.Generator().manual_seed(step))
        if isinstance(model, StyleGAN3) and step % TRACK_EVERY == 0:
            model.track_magnitudes(model.mapping(z[chosen]), decay=0.0 if step == 0 else 0.8)
        return regression_loss(model(z[chosen]), target[chosen])

    trainer.run(compute)
    generator = trainer.average.freeze()
    assert isinstance(generator, (StyleGAN1, StyleGAN3))
    generator.w_avg.copy_(generator.mapping(generator.sample_z(10_000, seed=0))[:, 0].mean(dim=0))
    return generator


def main() -> None:
    """Train, and write the weights as float16."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=list(CONFIGS))
    parser.add_argument("--folder", type=Path, default=Path("runs/trained-stylegans"), help="checkpoints and logs")
    options = parser.parse_args()
    generator, path = train(options.family, options.folder), weights_of(options.family)
    path.parent.mkdir(exist_ok=True)
    save_generator(generator, path)
    arrays, metadata = read_safetensors(path.read_bytes(), str(path))
    save_file({name: tensor.half() for name, tensor in arrays.items()}, path, metadata)
    print(
        f"{path}: {path.stat().st_size / 1000:.0f} kB, PSNR of unseen scenes {likeness(trained(options.family)):.1f} dB"
    )


if __name__ == "__main__":
    main()
