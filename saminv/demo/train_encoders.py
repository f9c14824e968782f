"""Trains the demo's encoders: car scenes to latents of the bundled generator.

Run ``python -m saminv.demo.train_encoders padinv --folder runs/encoder-padinv``; run it again after an interruption and
it continues. The names are those of :data:`TRAININGS`. At the end it saves the encoder, and its card, among the
package's weights. Those of :data:`ABLATIONS`, and "plain", PadInv's network without padding, are only there to be
compared with and stay in their folder: table 2 of the PadInv paper, and table 4 of the Feature-Style paper.

Reference:
    Bai et al., 2022, arXiv 2203.11105, table 2; Yao et al., 2022, arXiv 2202.02183, table 4.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import weights
from .._errors import InputError
from ..encoders import AbstractEncoder, save_encoder
from ..encoders.padinv import LEVELS, MAP_SIDE, PADDINGS
from ..generators import AbstractGenerator
from ..metrics import get_metric
from ..optim.objective import PAPER_WEIGHTS
from ..regions import Regions
from ..train import EncoderTraining, PredictedRegions, encoder_training_for, train_encoder
from ..train.encoder_data import PictureSource
from ..train.encoder_losses import Batch, Inverter
from ..weights import Card
from .encoders import CARD_FIGURE, FILES
from .generator import load_demo_generator
from .segmenter import DemoSegmenter
from .strangers import sample_scenes

FIRST_SEED = 1_000_000
"""Seed of the first scene; held-out scenes have theirs elsewhere."""
SIDE = 128
LARGEST = 4_000_000
"""Largest size of a bundled file in bytes."""
COMMAND = "python -m saminv.demo.train_encoders"
PRECISION = "bf16"
"""Of an encoder while it is trained."""
PLAIN = "plain"
JUDGED = 200
"""Scenes of the figures on a card."""
_FIRST_JUDGED = 900_000
_TOGETHER = 8
WEIGHTS = {name: PAPER_WEIGHTS[name] for name in ("l2", "perceptual", "prior", "deviation")}
"""As an inversion weighs them: a start is worth most near where the inversion ends. Without the regularisers codes are
far from those of samples, and a run from there loses to one from the mean."""
COMMON: dict[str, Any] = {
    "steps": 1200,
    "regression": 300,
    "batch": 8,
    "samples": 0,
    "learning_rate": 1.5e-3,
    "final_learning_rate": 2e-5,
    "decay": 0.85,
    "noise": "const",
    "metric": "demo",
    "validate_every": 100,
    "save_every": 50,
    "validation": 32,
    "half": True,
}
LONGER: dict[str, Any] = {"steps": 4500, "validate_every": 200, "save_every": 200}
"""Of the encoders that runs start from, which still gain where those that are only compared end."""
DESCRIPTION = (
    "An encoder for the bundled generator. Figures are of scenes never trained on, by the encoder alone: PSNR in dB "
    "and the demo's perceptual distance, of clean scenes and of scenes with strangers."
)


@dataclass(frozen=True)
class SceneSource:
    """Scenes by number, drawn when they are asked for; every other one has strangers.

    Attributes:
        count: Number of scenes.
        first_seed: Seed of the first one.
    """

    count: int
    first_seed: int = FIRST_SEED
    resolution: int = SIDE

    def __len__(self) -> int:
        return self.count

    @property
    def fingerprint(self) -> str:
        """What tells these scenes from others."""
        return f"{self.count} scenes of {self.resolution} pixels from seed {self.first_seed}"

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Images `[B, 3, R, R]` in [-1, 1] of some of the scenes."""
        return torch.cat([self._scene(index) for index in indices])

    def _scene(self, index: int) -> Tensor:
        seed = self.first_seed + index
        return sample_scenes(1, seed, strangers=index % 2 == 0, size=self.resolution).images


@dataclass(frozen=True)
class Demo:
    """How one of the demo's encoders is trained.

    Attributes:
        preset: In :data:`saminv.train.ENCODER_PRESETS`.
        scenes: Number of scenes to train on.
        changes: Fields of the training.
        shipped: Whether the package carries the encoder.
    """

    preset: str
    scenes: int
    changes: dict[str, Any]
    shipped: bool = True

    def training(self, generator: AbstractGenerator, steps: int | None = None) -> EncoderTraining:
        """The same for a generator; of another length where there are ``steps``, in the same proportions."""
        changes = {**COMMON, **self.changes}
        if steps is not None:
            changes |= {"steps": steps, "regression": round(changes["regression"] * steps / changes["steps"])}
        changes["weights"] = {**WEIGHTS, "adversarial": 0.0, **changes.get("weights", {})}
        return encoder_training_for(self.preset, generator, "small", **changes)


SHIPPED: dict[str, Demo] = {
    "padinv": Demo("padinv", 100_000, {}),
    "feature-style": Demo(
        "feature-style",
        100_000,
        {
            **LONGER,
            "regression": 1000,
            "scales": 1,
            "l2_compared": ("styles", "full"),
            "l2_samples_only": False,
        },
    ),
    "sam": Demo("sam", 8000, {**LONGER, "regression": 600}),
}
"""The demo's encoders by name. Differences from the published presets are what few steps on flat scenes ask for."""


def _padded(paddings: tuple[int, ...]) -> Demo:
    """PadInv's network with other paddings, which are read off the same map."""
    network = {"paddings": paddings, "map_side": MAP_SIDE, "level": LEVELS - 1}
    return Demo("padinv", 100_000, {"network": network}, shipped=False)


def _unheld(*names: str) -> Demo:
    """PadInv's without the losses that hold its codes near those of samples."""
    return Demo("padinv", 100_000, {"weights": dict.fromkeys(names, 0.0)}, shipped=False)


def _half_samples(weights: dict[str, float] | None = None, **changes: Any) -> Demo:
    """Feature-Style's by the paper's rules: three scales, and samples, of which alone the squared error counts."""
    usual = {"batch": 4, "samples": 4, "scales": 3, "weights": {"perceptual": 1 / 3, **(weights or {})}}
    return Demo("feature-style", 100_000, {**usual, **changes}, shipped=False)


ABLATIONS: dict[str, Demo] = {
    **{f"padinv-p{last}": _padded(tuple(k for k in PADDINGS if k <= last)) for last in PADDINGS[:-1]},
    "padinv-p9": Demo("padinv", 100_000, {"network": {"paddings": (*PADDINGS, 9)}}, shipped=False),
    "padinv-no-mean": _unheld("mean"),
    "padinv-free": _unheld("mean", "prior", "deviation"),
    "feature-style-a": _half_samples({"perceptual": 1.0}, scales=1),
    "feature-style-b": _half_samples({"code": 0.0}, network={"feature_branch": False}, compared=("styles",)),
    "feature-style-c": _half_samples(batch=8, samples=0, regression=0),
    "feature-style-d": _half_samples(),
}
"""What is only compared. Letters are the paper's: one scale, whose weight is that of three; no feature code; no
samples, not in the first phase either; and none of these."""
TRAININGS: dict[str, Demo] = {
    **SHIPPED,
    PLAIN: Demo("padinv", 100_000, {"network": {"paddings": ()}}, shipped=False),
    **ABLATIONS,
}


def regions_for(name: str, generator: AbstractGenerator) -> PredictedRegions | None:
    """Regions of scenes, for encoders that take them."""
    return PredictedRegions(generator, DemoSegmenter()) if TRAININGS[name].preset == "sam" else None


def train(
    name: str, folder: Path, until: int | None = None, precision: str = "auto", steps: int | None = None
) -> AbstractEncoder:
    """Run (or resume) a training up to a step (all where None); returns the best encoder. ``steps`` is its length."""
    generator, demo = load_demo_generator(), TRAININGS[name]
    return train_encoder(
        SceneSource(demo.scenes),
        folder,
        generator,
        demo.training(generator, steps),
        regions=regions_for(name, generator),
        precision=precision,
        until=until,
        command=f"{COMMAND} {name}" + ("" if steps is None else f", {steps} steps"),
    )


@torch.no_grad()
def figures_of(name: str, encoder: AbstractEncoder, source: PictureSource) -> dict[str, float]:
    """PSNR in dB and perceptual distance of an encoder alone, on clean scenes and on those with strangers."""
    generator, metric = load_demo_generator(), get_metric("demo")
    training, find = TRAININGS[name].training(generator), regions_for(name, generator)
    invert = Inverter(generator, encoder.provides, training)
    found: dict[str, list[float]] = {}
    for start in range(0, len(source), _TOGETHER):
        indices = range(start, min(start + _TOGETHER, len(source)))
        real = source.batch(indices)
        regions: Regions | None = None if find is None else find(real)
        made = invert.full(encoder.encode(real, generator, regions), Batch(real, regions=regions))
        for key, values in (("psnr", get_metric("psnr").compare(made, real)), ("demo", metric.compare(made, real))):
            for index, value in zip(indices, values.tolist()):
                found.setdefault(f"{key}_{'clean' if index % 2 else 'strangers'}", []).append(value)
    return {key: round(sum(values) / len(values), 4) for key, values in found.items()}


def export(name: str, encoder: AbstractEncoder, folder: str | Path | None = None, scenes: int = JUDGED) -> Card:
    """Save an encoder with its card; into the package's weights if no folder is given.

    Raises:
        InputError: If the file would be larger than :data:`LARGEST`.
    """
    place = Path(weights.__file__).parent if folder is None else Path(folder)
    path = place / f"{FILES}{name}.safetensors"
    size = sum(x.numel() * (2 if x.dim() > 1 else x.element_size()) for x in encoder.state_dict().values())
    if size > LARGEST:
        raise InputError(f"The encoder has {size:,} bytes of weights; {LARGEST:,} are allowed. Choose smaller widths.")
    figures = figures_of(name, encoder, replace(SceneSource(scenes), first_seed=_FIRST_JUDGED))
    save_encoder(encoder, path, half=True)
    return weights.write_card(
        path.stem,
        kind=f"{encoder.architecture} encoder of the demo: {', '.join(sorted(encoder.provides))}",
        licence="MIT",
        data="car scenes of saminv.demo, half of them with strangers, and samples of the bundled generator; no "
        "photographs",
        trained_by=f"{COMMAND} {name}",
        description=DESCRIPTION,
        figures={**figures, CARD_FIGURE: encoder.config.fingerprint},
        folder=folder,
    )


def main(arguments: list[str] | None = None) -> None:
    """Train, evaluate and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(TRAININGS), help="which encoder")
    parser.add_argument("--folder", type=Path, help="checkpoints and logs (runs/encoder-<name>)")
    parser.add_argument("--precision", default=PRECISION, help=f"of the encoder while it is trained ({PRECISION})")
    parser.add_argument("--until", type=int, help="step at which to stop for now")
    options = parser.parse_args(arguments)
    folder = options.folder or Path("runs") / f"encoder-{options.name}"
    encoder = train(options.name, folder, options.until, options.precision)
    if options.until is not None:
        return
    if TRAININGS[options.name].shipped:
        print(export(options.name, encoder).figures)
    else:
        print(figures_of(options.name, encoder, replace(SceneSource(JUDGED), first_seed=_FIRST_JUDGED)))


if __name__ == "__main__":
    main()
