"""Trains the demo's invertibility network: the error of car scenes in each latent space of the bundled generator.

Run ``python -m saminv.demo.train_invertibility --data runs/invertibility --folder runs/invertibility-net`` on maps that
``saminv invertibility build`` measured; run it again after an interruption and it continues. Training starts from the
stages of the bundled vision network. At the end it saves the network, and its card, among the package's weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import weights
from .._errors import InputError
from ..metrics.vision import load_vision
from ..segment import InvertibilityNet, save_invertibility
from ..segment.network import BUNDLED
from ..segment.predicted import CARD_FIGURE, PREDICTED_TAU
from ..train import (
    Augmentation,
    ErrorMaps,
    InvertibilityTraining,
    TrainerConfig,
    config_for,
    describe_evaluation,
    evaluate_invertibility,
    train_invertibility,
)
from ..train.invertibility import split_checked
from ..weights import Card
from .generator import load_demo_generator
from .segmenter import DemoSegmenter

TRAINING = InvertibilityTraining(
    schedule=TrainerConfig(
        steps=2400, learning_rate=1e-3, final_learning_rate=1e-5, save_every=200, validate_every=200
    ),
    batch=8,
    # Scenes are small: a blur by a pixel takes away what makes some of them hard, and the maps know nothing of it.
    augmentation=Augmentation(blur=0.3, blur_sigma=0.4),
)
SCENES = "python -m saminv.demo.write_scenes --out runs/scenes --count 600"
BUILD = "saminv invertibility build --images runs/scenes --spaces W+ F4 F6 F8 --out runs/invertibility --limit"
COMMAND = "python -m saminv.demo.train_invertibility"
LARGEST = 3 * 2**20
"""Largest size of the bundled file in bytes."""
DESCRIPTION = (
    "Figures are of images held out of training: for each space R^2 over pixels (r2) and over segments of the demo's "
    "segmenter (r2_segments), Spearman's rank correlation over segments (rank); the share of segments and of the area "
    "that the tau rule allocates as it would by the measured maps, at the tau given, and the share that the commonest "
    "space alone would reach."
)


def train(data: ErrorMaps, folder: Path, until: int | None = None, device: str = "cpu") -> InvertibilityNet:
    """Run (or resume) the training up to a step (all where None); returns the best network.

    Raises:
        InputError: If the maps are of another generator than the bundled one.
    """
    generator = load_demo_generator()
    if data.fingerprint != generator.fingerprint:
        raise InputError(
            f"{data.folder} was measured with another generator than the bundled one (fingerprints "
            f"{data.fingerprint[:12]}... and {generator.fingerprint[:12]}...). Measure it again, or train a network "
            "for that generator with saminv invertibility train."
        )

    def start(network: InvertibilityNet) -> None:
        network.init_from_vision(load_vision())

    return train_invertibility(data, folder, config_for(data), TRAINING, start=start, until=until, device=device)


def figures_of(record: Mapping[str, Any]) -> dict[str, float]:
    """What the card tells of an evaluation, by name."""
    figures = {}
    for space, row in record["per_space"].items():
        for name, key in (("r2", "r2_pixels"), ("r2_segments", "r2_segments"), ("rank", "rank_segments")):
            if row[key] is not None:
                figures[f"{name}_{space}"] = round(row[key], 4)
    shares = record["agreement"]
    figures.update({f"agreement_{name}": round(shares[name], 4) for name in ("segments", "area", "commonest")})
    return {**figures, "tau": record["tau"], "images": record["images"]}


def export(
    network: InvertibilityNet, data: ErrorMaps, tau: float = PREDICTED_TAU, folder: str | Path | None = None
) -> Card:
    """Evaluate a network and save it with its card; into the package's weights if no folder is given.

    Raises:
        InputError: If the file would be larger than :data:`LARGEST`.
    """
    _, held = split_checked(data, TRAINING.validation_share)
    record = evaluate_invertibility(network, held, DemoSegmenter(), tau)
    print(describe_evaluation(record))
    place = Path(weights.__file__).parent if folder is None else Path(folder)
    size = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    if size > LARGEST:
        raise InputError(f"The network has {size:,} bytes of weights; {LARGEST:,} are allowed. Choose smaller widths.")
    save_invertibility(network, place / f"{BUNDLED}.safetensors")
    return weights.write_card(
        BUNDLED,
        kind="invertibility network of the demo: expected error of a scene in each latent space",
        licence="MIT",
        data=f"{len(data)} car scenes of saminv.demo with their measured inversion errors; no photographs",
        trained_by=f"{SCENES}, then {BUILD} {len(data)}, then {COMMAND} --data runs/invertibility",
        description=DESCRIPTION,
        figures={**figures_of(record), CARD_FIGURE: network.config.fingerprint},
        folder=folder,
    )


def main(arguments: list[str] | None = None) -> None:
    """Train, evaluate and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/invertibility"), help="measured error maps")
    parser.add_argument("--folder", type=Path, default=Path("runs/invertibility-net"), help="checkpoints and logs")
    parser.add_argument("--tau", type=float, default=PREDICTED_TAU, help="threshold of the figures on the card")
    parser.add_argument("--device", default="cpu", help="where to train")
    options = parser.parse_args(arguments)
    data = ErrorMaps(options.data)
    print(data.describe())
    export(train(data, options.folder, device=options.device), data, options.tau)


if __name__ == "__main__":
    main()
