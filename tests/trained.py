"""A small BigGAN-deep that has learned the demo's scenes at 32 pixels, and how it was trained.

Regression to the renderer, as in :mod:`saminv.demo.train_generator`: noise and class say some factors of a scene, all
others are in the middle. The class is the quarter of the hues that the car's is in. ``python tests/trained.py`` trains
it again, in a minute or two on one idle core.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from saminv.demo.scenes import FACTOR_INDEX, FACTORS, render
from saminv.demo.train_generator import regression_loss
from saminv.generators import BigGANDeep, BigGANDeepConfig, generator_from_arrays, save_generator
from saminv.generators.biggan_deep import Norm, Rows
from saminv.train import Trainer, TrainerConfig
from saminv.weights import read_safetensors

WEIGHTS = Path(__file__).resolve().parent / "weights" / "biggan-scenes-32.safetensors"
VARIED = ("car_x", "car_size", "car_hue", "car_lightness", "sky_hue", "hill_height", "ground_hue", "road_lightness")
CLASSES, SIDE = 4, 32
CONFIG = BigGANDeepConfig(
    z_dim=len(VARIED),
    embed_dim=6,
    label_dim=CLASSES,
    width=8,
    blocks=((False, 8, 8), (True, 8, 8), (False, 8, 8), (True, 8, 4), (True, 4, 2)),
    attention=3,
    num_statistics=6,
)
SCENES, STEPS, BATCH, SAMPLES = 4096, 600, 16, 512


def trained_biggan() -> BigGANDeep:
    """The trained generator, frozen."""
    generator = generator_from_arrays(*read_safetensors(WEIGHTS.read_bytes(), str(WEIGHTS)), str(WEIGHTS))
    assert isinstance(generator, BigGANDeep)
    return generator


def factors_of(z: Tensor, label: Tensor) -> Tensor:
    """Factors `[B, F]` of the scenes of noise `[B, Z]` and classes `[B]`."""
    factors = torch.full((len(z), len(FACTORS)), 0.5)
    factors[:, [FACTOR_INDEX[name] for name in VARIED]] = torch.special.ndtr(z)
    factors[:, [FACTOR_INDEX["facing"], FACTOR_INDEX["headlights"]]] = 0.0
    hue = FACTOR_INDEX["car_hue"]
    factors[:, hue] = (label + factors[:, hue]) / CLASSES
    return factors


def scenes(z: Tensor, label: Tensor) -> Tensor:
    """The scenes of noise and classes `[B, 3, 32, 32]`."""
    return torch.cat([render(factors_of(*part), SIDE).images for part in zip(z.split(256), label.split(256))])


def _batch_moments(norm: Norm, x: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    return mean[None], variance[None]


@contextmanager
def batch_moments(function=_batch_moments) -> Iterator[None]:
    """Let norms take the moments of the batch, as in training."""
    usual, Norm.moments = Norm.moments, function  # type: ignore[method-assign]
    try:
        yield
    finally:
        Norm.moments = usual  # type: ignore[method-assign]


@torch.no_grad()
def measure_statistics(generator: BigGANDeep) -> None:
    """Fill the tables: a row holds the moments of a batch of noise that is scaled by its truncation."""
    z, label = generator.sample_z(SAMPLES, seed=2), torch.arange(SAMPLES) % CLASSES
    rows = generator.config.num_statistics
    for row in range(rows):

        def keep(norm: Norm, x: Tensor, _: Rows, row: int = row) -> tuple[Tensor, Tensor]:
            mean, variance = _batch_moments(norm, x, _)
            norm.means[row], norm.variances[row] = mean[0], variance[0]
            return mean, variance

        with batch_moments(keep):
            generator(z * row / (rows - 1), F.one_hot(label, CLASSES))


def train(folder: Path) -> BigGANDeep:
    """Train and measure; the generator has weights of half precision."""
    torch.manual_seed(0)
    source = torch.Generator().manual_seed(3)
    z, label = torch.randn(SCENES, CONFIG.z_dim, generator=source), torch.arange(SCENES) % CLASSES
    target = scenes(z, label)
    trainer = Trainer(BigGANDeep(CONFIG), TrainerConfig(STEPS, learning_rate=4e-3, average_decay=0.99), folder)

    def compute(step: int) -> dict[str, Tensor]:
        chosen = torch.randint(SCENES, (BATCH,), generator=torch.Generator().manual_seed(step))
        return regression_loss(trainer.model(z[chosen], F.one_hot(label[chosen], CLASSES)), target[chosen])

    with batch_moments():
        trainer.run(compute)
    generator = trainer.average
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.copy_(parameter.half())
        measure_statistics(generator)
    return generator


def likeness(generator: BigGANDeep) -> float:
    """Median PSNR of pictures against the scenes of noise and classes that training has not seen."""
    z, label = generator.sample_z(256, seed=4), torch.arange(256) % CLASSES
    squared = (generator(z, F.one_hot(label, CLASSES)) - scenes(z, label)).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / squared)).median())


def main() -> None:
    """Train, and write the weights as float16."""
    generator = train(Path("runs/biggan-scenes"))
    print(f"PSNR against scenes not seen: {likeness(generator.freeze()):.1f} dB")
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_generator(generator, WEIGHTS)
    arrays, metadata = read_safetensors(WEIGHTS.read_bytes(), str(WEIGHTS))
    save_file({name: tensor.half() for name, tensor in arrays.items()}, WEIGHTS, metadata)
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
