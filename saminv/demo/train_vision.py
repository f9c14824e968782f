"""Trains the demo's vision network: segments and factors of rendered car scenes, half of them with strangers.

Run ``python -m saminv.demo.train_vision --folder runs/vision``; run it again after an interruption and it continues.
At the end it saves the network with its averaged weights, and its card, among the package's weights.

The network's features serve as the metric ``demo`` as well, so two things are done for that. While it is trained,
probes see to it that the features tell how much fine detail there is (:class:`Lesson`). Afterwards :func:`calibrate`
finds weights of the features' channels with which kinds of pairs of pictures (:func:`distances`) get about the values
that LPIPS is known to give: unrelated pictures 0.57, a blur of 3 pixels 0.37, of 1 pixel 0.10, noise of 0.05 0.10, and
the map where an object is missing 0.55; beside that object 0, so that coarse features, which spill, count little.
Errors are taken relative to these values; the weights stay near ones for which the stages contribute by fixed shares,
and every channel keeps some. Not all of these values can be met at once: the scale is set so that their ratios to what
is wanted have the geometric mean 1, and the card says what came out.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import weights
from ..metrics.vision import BUNDLED, FEATURE_EPS, DemoPerceptual, VisionConfig, VisionNet, save_vision
from ..ops.lpips_head import unit_length
from ..train import Trainer, TrainerConfig
from ..train.augment import blur
from ..weights import Card
from .scenes import BINARY_FACTORS, FACTORS, HUE_ARC, SEGMENT_NAMES, SceneBatch
from .strangers import add_strangers, sample_scenes

CONFIG = VisionConfig(
    num_segments=len(SEGMENT_NAMES),
    factors=FACTORS,
    arcs=(("car_hue", *HUE_ARC),),
    binary=BINARY_FACTORS,
)
SCHEDULE = TrainerConfig(steps=3000, learning_rate=2e-3, final_learning_rate=2e-5, save_every=250)
BATCH = 8
FIRST_SEED = 1_000_000
"""Seed of the first training batch; seeds below it are for tests and measurements."""
IGNORED = -100
FACTOR_WEIGHT = 4.0
DETAIL_WEIGHT = 1.0
PROBED = 4
"""Stages with a probe; the last one is too coarse for detail."""
PROBE_GAIN = 4.0
TARGETS = {"unrelated": 0.57, "blur_3": 0.37, "blur_1": 0.10, "noise": 0.10, "stranger": 0.55, "ring": 0.0}
"""What the metric is calibrated towards, by the kind of pair of :func:`distances`."""
RING_UNIT = 0.10
"""A smallest value that errors are related to, for the target 0."""
STAGE_SHARES = (0.8, 0.1, 0.05, 0.03, 0.02)
"""Parts of the stages in a value of the metric before the fit. Most is fine: coarse stages miss blurs, and spill."""
EVENNESS, LEAST = 0.3, 0.2
"""Pull of the channels' weights towards those, and the smallest part of such a weight that a channel keeps."""
DESCRIPTION = (
    "Figures are of scenes never trained on, clean and with strangers: segment accuracy and mean intersection over "
    "union; R^2 of factors, and the mean error of the car's hue in degrees; values of the metric for unrelated scenes, "
    "for blurs of 1 and 3 pixels, for noise of 0.05, for missing strangers (mean of the map over them) and the ring "
    "5 to 12 pixels away from these. The metric is calibrated towards published values of LPIPS: "
    + ", ".join(f"{name} {value:g}" for name, value in TARGETS.items())
    + ". Scenes are flatter than photographs, so blur and noise change them less."
)


def training_batch(step: int, batch: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures `[B, 3, H, W]`, segments `[B, H, W]` and factors `[B, F]` of a step; the second half has strangers.

    Some strangers are faint, as in a picture that a generator could follow only in part. They have no right segment, so
    theirs is :data:`IGNORED`.
    """
    source = torch.Generator().manual_seed(FIRST_SEED + step)
    clean = sample_scenes(batch, FIRST_SEED + step)
    half = slice(batch // 2, batch)
    strange = add_strangers(_rows(clean, half), FIRST_SEED + step)
    faint = torch.rand(len(strange.images), 1, 1, 1, generator=source) < 0.25
    opacity = torch.where(faint, 0.1 + 0.8 * torch.rand(faint.shape, generator=source), 1.0)
    images, segments = clean.images.clone(), clean.segments.clone()
    images[half] += opacity * (strange.images - images[half])
    unclear = (faint & (strange.stranger_masks > 0))[:, 0]
    segments[half] = strange.segments.masked_fill(unclear, IGNORED)
    return augment(images, source), segments, clean.factors


def augment(images: Tensor, source: torch.Generator) -> Tensor:
    """Change pictures `[B, 3, H, W]` as inversions do: soft in places or all over, shaded, faintly noisy."""
    shape = (len(images), 1, 1, 1)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=source)

    kind = uniform(0, 3)
    everywhere, somewhere = (kind < 1).float(), ((kind >= 1) & (kind < 2)).float()
    places = (2.5 * _smooth_field(images, source) + 0.5).clamp(0, 1)
    soft = blur(images, uniform(0.3, 2.0).flatten())
    images = torch.lerp(images, soft, everywhere + somewhere * places)
    shade = uniform(0, 0.10) * _smooth_field(images, source)
    images = images * uniform(0.92, 1.08) + uniform(-0.08, 0.08) + shade
    std = (uniform(-0.06, 0.08)).clamp_min(0)
    return (images + std * torch.randn(images.shape, generator=source)).clamp(-1, 1)


class Lesson(nn.Module):
    """What is trained: the network, and probes that keep detail in the features of its metric.

    A probe is a direction in the unit-length features of a stage; along it they must tell the logarithm of the local
    detail of the picture. Heads alone would teach the network to overlook noise and softness, and the metric with it.
    The direction's gain is fixed, so the features have to move by an amount that the metric notices.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = VisionNet(CONFIG)
        self.directions = nn.ParameterList(torch.randn(1, c, 1, 1) for c in CONFIG.channels[:PROBED])
        self.offsets = nn.Parameter(torch.full((PROBED,), -3.0))

    def losses(self, images: Tensor, segments: Tensor, factors: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the segments under class ``weight`` `[S]`, errors of the factors and of the probes."""
        taps = self.network.features(images)
        wanted = self.network.encode_factors(factors)
        logits, reading = self.network._decode(taps), self.network._read(taps[-1])
        segment = F.cross_entropy(logits, segments, weight, ignore_index=IGNORED)
        linear = F.smooth_l1_loss(reading.linear, wanted.linear, beta=0.1)
        circular = F.mse_loss(reading.circular, wanted.circular)
        binary = F.binary_cross_entropy_with_logits(reading.logits, wanted.logits)
        detail = self._detail_loss(taps, images)
        total = segment + FACTOR_WEIGHT * linear + circular + 0.25 * binary + DETAIL_WEIGHT * detail
        parts = {"segment": segment, "linear": linear, "circular": circular, "binary": binary, "detail": detail}
        return {"loss": total, **parts}

    def _detail_loss(self, taps: Sequence[Tensor], images: Tensor) -> Tensor:
        detail = (images - F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)).abs().mean(dim=1, keepdim=True)
        errors = []
        for k, direction in enumerate(self.directions):
            detail = F.avg_pool2d(detail, 2, ceil_mode=True) if k else detail
            unit = unit_length(taps[k], FEATURE_EPS)
            told = F.conv2d(unit, PROBE_GAIN * direction / direction.norm()) + self.offsets[k]
            errors.append(F.smooth_l1_loss(told, (detail + 0.01).log(), beta=0.2))
        return torch.stack(errors).mean()


def class_weights(scenes: int = 64) -> Tensor:
    """Weights of the segment classes `[S]`, falling with the root of their area so that small parts count."""
    labels = sample_scenes(scenes, FIRST_SEED - 1, strangers=True).segments
    share = torch.bincount(labels.flatten(), minlength=CONFIG.num_segments) / labels.numel()
    weight = (share + 1e-3).rsqrt()
    return weight / (weight * share).sum()


def train(folder: Path, until: int | None = None) -> VisionNet:
    """Run (or resume) the training up to a step (all where None); returns the network with averaged weights."""
    torch.manual_seed(0)
    lesson = Lesson().to(memory_format=torch.channels_last)
    trainer = Trainer(lesson, SCHEDULE, folder)
    weight = class_weights()

    def compute(step: int) -> dict[str, Tensor]:
        images, segments, factors = training_batch(step)
        return lesson.losses(images.contiguous(memory_format=torch.channels_last), segments, factors, weight)

    trainer.run(compute, until)
    network = trainer.average.network
    assert isinstance(network, VisionNet)
    return network


def calibrate(network: VisionNet, scenes: int = 24, seed: int = 90_000) -> None:
    """Set the weights and the scale of the network's perceptual metric in place (see the module's docstring)."""
    from scipy.optimize import lsq_linear

    table = distances(network, scenes, seed)
    rows = torch.stack([table[name] for name in TARGETS]).double()
    goals = torch.tensor(list(TARGETS.values()), dtype=torch.float64)
    relative = rows / goals.clamp_min(RING_UNIT)[:, None]
    widths = network.config.channels
    stages = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
    shares = torch.stack([relative[:, stages == k].sum(dim=1).mean() for k in range(len(widths))])
    even = torch.tensor(STAGE_SHARES, dtype=torch.float64)[stages] / shares[stages]
    even = even / (relative @ even).mean()
    pull = math.sqrt(EVENNESS / len(even))
    system = torch.cat([relative * even, pull * torch.eye(len(even), dtype=torch.float64)])
    wanted = torch.cat([goals / goals.clamp_min(RING_UNIT), torch.full_like(even, pull)])
    factors = torch.from_numpy(lsq_linear(system.numpy(), wanted.numpy(), bounds=(LEAST, math.inf)).x)
    channels = (factors * even).float()
    # The fit trades the targets off and falls short of most; the scale is set so that none of them counts more.
    positive = goals > 0
    channels /= ((rows[positive] @ channels.double()) / goals[positive]).log().mean().exp()
    scale = channels.mean()
    for kept, part in zip(network.perceptual_weights, (channels / scale).split(widths), strict=True):
        kept.copy_(part)
    network.perceptual_scale.fill_(float(scale))


@torch.no_grad()
def measure(network: VisionNet, scenes: int = 128, seed: int = 80_000) -> dict[str, float]:
    """Figures of a trained network on scenes that it never saw, by name; the card explains them."""
    figures: dict[str, float] = {}
    for kind, strangers in (("clean", False), ("strangers", True)):
        batch = sample_scenes(scenes, seed, strangers)
        labels, factors = _predict(network, batch.images)
        figures[f"segment_accuracy_{kind}"] = float((labels == batch.segments).float().mean())
        overlaps = class_overlaps(labels, batch.segments)
        figures[f"segment_iou_{kind}"] = float(overlaps[overlaps.isfinite()].mean())
        for name in ("car_x", "car_size", "car_hue"):
            column = FACTORS.index(name)
            error = factors[:, column] - batch.factors[:, column]
            figures[f"{name}_r2_{kind}"] = 1 - float(error.square().mean() / batch.factors[:, column].var())
            if name == "car_hue":
                degrees = math.degrees(abs(HUE_ARC[1] - HUE_ARC[0])) * error.abs()
                figures[f"car_hue_degrees_{kind}"] = float(degrees.mean())
    channels = torch.cat(network.perceptual_weights) * network.perceptual_scale
    table = distances(network, scenes // 4, seed)
    figures.update({f"perceptual_{name}": float(row @ channels) for name, row in table.items()})
    return {name: round(value, 4) for name, value in figures.items()}


def class_overlaps(labels: Tensor, wanted: Tensor) -> Tensor:
    """Intersection over union of each segment class `[S]`; not a number for a class that is nowhere in ``wanted``."""
    n = CONFIG.num_segments
    counts = torch.bincount(wanted.flatten() * n + labels.flatten(), minlength=n * n).reshape(n, n).double()
    both, there = counts.diagonal(), counts.sum(dim=1)
    return torch.where(there > 0, both / (there + counts.sum(dim=0) - both), math.nan)


def _predict(network: VisionNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Segments `[B, H, W]` and factors `[B, F]` that the network sees, a few pictures at a time."""
    labels, factors = [], []
    for part in images.split(16):
        logits, reading = network(part)
        labels.append(logits.argmax(dim=1))
        factors.append(network.decode_factors(reading))
    return torch.cat(labels), torch.cat(factors)


@torch.no_grad()
def distances(network: VisionNet, scenes: int, seed: int) -> dict[str, Tensor]:
    """Mean squared differences of each channel's features, all stages in a row, for pairs of pictures by their kind.

    "stranger" is the mean of the map over strangers that are missing, "ring" that 5 to 12 pixels away from them.
    """
    source = torch.Generator().manual_seed(seed)
    clean, strange = sample_scenes(scenes, seed).images, sample_scenes(scenes, seed, strangers=True)
    ones = torch.ones(scenes)
    near, far = (F.max_pool2d(strange.stranger_masks, 2 * k + 1, 1, k) > 0 for k in (5, 12))
    pairs = {
        "unrelated": (clean.roll(1, dims=0), None),
        "blur_1": (blur(clean, ones), None),
        "blur_3": (blur(clean, 3 * ones), None),
        "noise": (clean + 0.05 * torch.randn(clean.shape, generator=source), None),
        "stranger": (strange.images, (strange.stranger_masks > 0.5).float()),
        "ring": (strange.images, (far & ~near).float()),
    }
    metric = DemoPerceptual(network)
    features = metric.features(clean)
    return {
        name: torch.cat([_mean_square(a - b, where) for a, b in zip(features, metric.features(other))])
        for name, (other, where) in pairs.items()
    }


def _mean_square(difference: Tensor, where: Tensor | None) -> Tensor:
    """Mean squares `[C]` of a stage's ``difference`` `[B, C, h, w]`; over a mask, enlarged as the metric's map is."""
    if where is None:
        return difference.square().mean(dim=(0, 2, 3))
    sums = torch.zeros(difference.shape[1])
    for part, mask in zip(difference.split(1), where.split(1)):
        enlarged = F.interpolate(part.square(), size=mask.shape[-2:], mode="bilinear", align_corners=False)
        sums += (enlarged * mask).sum(dim=(0, 2, 3))
    return sums / where.sum()


def _rows(scenes: SceneBatch, rows: slice) -> SceneBatch:
    return SceneBatch(scenes.images[rows], scenes.factors[rows], scenes.segments[rows], scenes.stranger_masks[rows])


def _smooth_field(images: Tensor, source: torch.Generator) -> Tensor:
    """A smooth random field `[B, 1, H, W]` with values around [-1, 1]."""
    coarse = 2 * torch.rand(len(images), 1, 5, 5, generator=source) - 1
    return F.interpolate(coarse, size=images.shape[-2:], mode="bicubic", align_corners=False)


def export(network: VisionNet, folder: str | Path | None = None) -> Card:
    """Calibrate and measure a trained network, and save it with its card; into the package's weights if no folder."""
    calibrate(network)
    figures = measure(network)
    place = Path(weights.__file__).parent if folder is None else Path(folder)
    save_vision(network, place / f"{BUNDLED}.safetensors")
    return weights.write_card(
        BUNDLED,
        kind="vision network of the demo: segments, factors, perceptual metric",
        licence="MIT",
        data="car scenes that saminv.demo renders, half of them with strangers; no photographs",
        trained_by="python -m saminv.demo.train_vision --folder runs/vision",
        description=DESCRIPTION,
        figures=figures,
        folder=folder,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/vision"))
    arguments = parser.parse_args()
    export(train(arguments.folder))
