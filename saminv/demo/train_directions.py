"""Finds directions in W that move one factor of the demo's scenes each, and ships them for the bundled generator.

A factor's coordinate (the inverse normal distribution function of a uniform factor, -1 or 1 for a binary one) is nearly
linear in w, so ridge regression gives its gradient. Of all changes of w that move one coordinate and leave the
predictions of the others alone, the most likely one under the covariance of w is taken. It ends at the last slot that
the factor needs: later ones would recolour what an edit has no business with. Its length is then corrected so that
strength 1 moves the factor, as the vision network reads it off the pictures, by a stated amount.

Run ``python -m saminv.demo.train_directions`` after the generator has changed; it takes a few minutes.
"""

from __future__ import annotations

import argparse
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from .._files import atomic_write
from ..editing.directions import BUNDLED
from ..editing.regression import Fit, regress
from ..generators import AbstractGenerator
from ..metrics.editing import change
from ..metrics.vision import VisionNet, load_vision
from ..weights import Card, write_card
from .codes import code_of_factors
from .generator import WEIGHTS, load_demo_generator
from .scenes import BINARY_FACTORS, CONTINUOUS_FACTORS, FACTOR_INDEX, FACTORS, factors_from_z, sample_factors

AMOUNT = 0.25
"""Part of a continuous factor's range that strength 1 moves it by."""
MEAN_SLOPE = 0.282
"""Mean change of a uniform factor per unit of its normal coordinate, 1 / (2 sqrt(pi))."""
SAMPLES = 8000
KEPT, KEPT_BINARY = 0.85, 0.97
"""Part of its effect that a direction keeps when it is left out of late slots. Directions of continuous factors are
lengthened afterwards, those of binary ones are not."""
CORRECTION = (0.5, 2.0)
"""Bounds of the correction by reading: a factor that the generator hardly shows must not get an endless direction."""
DESCRIPTION = (
    "Directions in W, one array [slots, w_dim] for each factor of a scene: the same numbers up to the last slot that "
    "the factor needs, 0 after it. Strength 1 moves a continuous factor by a quarter of its range and flips a binary "
    "one, as far as the generator shows it. Figures: fit_<factor> is the R^2 of the linear prediction of its "
    "coordinate from w, <factor> the mean change read off the pictures by the vision network for strength 1 towards "
    "the middle of the range, on scenes not used to set the length."
)


def coordinates(factors: Tensor) -> Tensor:
    """Factors `[B, F]` on the scale on which w is nearly linear in them: normal, or -1 and 1 for binary ones."""
    split = len(CONTINUOUS_FACTORS)
    normal = torch.special.ndtri(factors[:, :split].double().clamp(1e-4, 1 - 1e-4))
    return torch.cat([normal, 2 * factors[:, split:].double() - 1], dim=1)


@torch.no_grad()
def fit_directions(generator: AbstractGenerator, samples: int = SAMPLES, seed: int = 4_000) -> Fit:
    """Directions in the order of ``FACTORS`` by regression of coordinates; the length is right for the predictions."""
    z = generator.sample_z(samples, seed)
    w = torch.cat([generator.mapping(part)[:, 0] for part in z.split(1000)]).double().cpu()
    y = coordinates(factors_from_z(z.cpu()))
    fit = regress(w, y)
    steps = [2.0 if name in BINARY_FACTORS else AMOUNT / MEAN_SLOPE for name in FACTORS]
    return Fit((fit.directions * torch.tensor(steps, dtype=torch.float64)[:, None]).float(), fit.quality)


@dataclass(frozen=True, eq=False)
class Trial:
    """Scenes on which effects of directions are read.

    Attributes:
        factors: `[B, F]`.
        styles: Of these scenes `[B, L, D]`.
        before: Factors as the network sees them in the generator's pictures `[B, F]`.
    """

    generator: AbstractGenerator
    network: VisionNet
    factors: Tensor
    styles: Tensor
    before: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, generator: AbstractGenerator, network: VisionNet, scenes: int = 16, seed: int = 4_001) -> Trial:
        """Scenes drawn by a seed."""
        factors = sample_factors(scenes, seed)
        styles = generator.mapping(code_of_factors(factors, generator.z_dim, seed).to(generator.device))
        return cls(generator, network, factors, styles, _read(generator, network, styles))

    @torch.no_grad()
    def effect(self, name: str, direction: Tensor) -> float:
        """Mean change of a factor, read off pictures, by a direction `[D]` or `[L, D]` towards its range's middle."""
        column = FACTOR_INDEX[name]
        sign = torch.where(self.factors[:, column] < 0.5, 1.0, -1.0).to(self.styles)
        after = _read(self.generator, self.network, self.styles + sign[:, None, None] * direction.to(self.styles))
        moved = change(self.before[:, column], after[:, column], self.network.config.period(name))
        return float((sign * moved).mean())

    def effects(self, directions: Tensor) -> Tensor:
        """The same for the directions `[F, ...]` of all factors: `[F]`."""
        return torch.tensor([self.effect(name, row) for name, row in zip(FACTORS, directions, strict=True)])


def without_late_slots(trial: Trial, name: str, direction: Tensor) -> Tensor:
    """A direction `[D]` in the fewest slots `[L, D]`, counted from the first, that keep its effect."""
    slots = trial.styles.shape[1]
    whole = direction.expand(slots, -1)
    least = (KEPT_BINARY if name in BINARY_FACTORS else KEPT) * trial.effect(name, whole)

    def first(count: int) -> Tensor:
        return whole * (torch.arange(slots) < count)[:, None]

    return first(1 + bisect_left(range(1, slots), True, key=lambda count: trial.effect(name, first(count)) >= least))


def _read(generator: AbstractGenerator, network: VisionNet, styles: Tensor) -> Tensor:
    """Factors `[B, F]` that the network sees in the pictures of ``styles`` `[B, L, D]`."""
    readings = []
    for part in styles.split(8):
        image = generator.synthesis(part)
        assert isinstance(image, Tensor)
        readings.append(network.factors(image.clamp(-1, 1)))
    return torch.cat(readings)


def calibrate(trial: Trial, directions: Tensor) -> Tensor:
    """Lengthen or shorten directions `[F, L, D]` of continuous factors so that their measured effect is ``AMOUNT``."""
    factor = (AMOUNT / trial.effects(directions).clamp_min(1e-6)).clamp(*CORRECTION)
    factor[len(CONTINUOUS_FACTORS) :] = 1
    return directions * factor[:, None, None]


def export(generator: AbstractGenerator, folder: str | Path | None = None) -> Card:
    """Find, calibrate, measure and save the directions of a generator, with their card.

    Args:
        folder: Where to write; the package's weights if None.

    Raises:
        OutputError: If the file cannot be written.
    """
    network = load_vision().to(generator.device)
    fit = fit_directions(generator)
    trial = Trial.of(generator, network)
    rows = [without_late_slots(trial, name, row) for name, row in zip(FACTORS, fit.directions, strict=True)]
    directions = calibrate(trial, torch.stack(rows))
    effects = Trial.of(generator, network, seed=4_002).effects(directions)
    figures = {name: round(float(effect), 3) for name, effect in zip(FACTORS, effects)}
    figures |= {f"fit_{name}": round(float(quality), 3) for name, quality in zip(FACTORS, fit.quality)}
    arrays = {name: row.contiguous() for name, row in zip(FACTORS, directions)}
    place = WEIGHTS if folder is None else Path(folder)
    with atomic_write(place / f"{BUNDLED}.safetensors") as temporary:
        temporary.write_bytes(save(arrays, {"generator_fingerprint": generator.fingerprint}))
    return write_card(
        BUNDLED,
        kind="directions in W of the demo's generator, one for each factor of a scene",
        licence="MIT",
        data="samples of the bundled generator, read by the bundled vision network; no photographs",
        trained_by="python -m saminv.demo.train_directions",
        description=DESCRIPTION,
        figures=figures,
        folder=folder,
    )


def main(arguments: list[str] | None = None) -> None:
    """Find the directions of the bundled generator and ship them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; the package's weights by default")
    options = parser.parse_args(arguments)
    card = export(load_demo_generator(), options.folder)
    print(f"wrote {card.file}")
    for name in FACTORS:
        print(f"{name:15s} effect {card.figures[name]:6.3f}   R^2 {card.figures['fit_' + name]:6.3f}")


if __name__ == "__main__":
    main()
