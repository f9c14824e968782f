"""The demo's vision network: its training data, its calibration, the bundled weights, and the segmenter built on it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saminv import weights
from saminv._errors import InputError
from saminv.demo import FACTORS, SEGMENT_NAMES, render, sample_scenes
from saminv.demo.scenes import CAR_SEGMENTS, SEGMENT_INDEX, sample_factors
from saminv.demo.segmenter import CAR, DemoSegmenter
from saminv.demo.strangers import add_strangers
from saminv.demo.train_vision import (
    CONFIG,
    IGNORED,
    Lesson,
    augment,
    blur,
    calibrate,
    class_overlaps,
    class_weights,
    distances,
    export,
    training_batch,
)
from saminv.metrics.vision import BUNDLED, DemoPerceptual, VisionConfig, VisionNet, load_vision
from saminv.segment import SEGMENTERS

SEED = 4_321


@pytest.fixture(scope="module")
def network() -> VisionNet:
    return load_vision()


@pytest.fixture(scope="module")
def segmenter() -> DemoSegmenter:
    return DemoSegmenter()


def read(network: VisionNet, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        logits, reading = network(images)
        return logits.argmax(dim=1), network.decode_factors(reading)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


# The training data


def test_a_step_fixes_its_batch() -> None:
    first, again, other = training_batch(3, 4), training_batch(3, 4), training_batch(4, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], other[0])


def test_training_batches_are_images_with_labels() -> None:
    images, segments, factors = training_batch(0, 6)
    assert images.shape == (6, 3, 128, 128) and images.abs().max() <= 1
    assert segments.shape == (6, 128, 128) and factors.shape == (6, len(FACTORS))
    assert not (segments[:3] == IGNORED).any()
    assert (segments[:3] < SEGMENT_INDEX["fence"]).all(), "a scene of the first half has a stranger"


def test_some_strangers_are_faint_and_have_no_label() -> None:
    ignored = [(training_batch(step, 4)[1][2:] == IGNORED).flatten(1).any(dim=1) for step in range(12)]
    share = torch.cat(ignored).float().mean()
    assert 0.05 < share < 0.6


def test_augmentation_keeps_the_scene() -> None:
    images = sample_scenes(6, SEED).images
    changed = augment(images, torch.Generator().manual_seed(0))
    assert changed.abs().max() <= 1 and not torch.equal(changed, images)
    assert (changed - images).abs().mean() < 0.15


def test_blur_keeps_constants_and_spreads_by_its_sigma() -> None:
    sigma = torch.tensor([0.7, 2.0])
    point = torch.zeros(2, 3, 41, 41)
    point[:, :, 20, 20] = 1
    spread = blur(point, sigma)
    offsets = (torch.arange(41) - 20.0).square()
    variance = (spread.sum(dim=2) * offsets).sum(dim=-1)[:, 0]
    assert torch.allclose(spread.sum(dim=(2, 3)), torch.ones(2, 3), atol=1e-5)
    assert torch.allclose(variance.sqrt(), sigma, rtol=0.03)
    flat = torch.full((2, 3, 9, 12), 0.3)
    assert torch.allclose(blur(flat, sigma), flat, atol=1e-6)


# Training and calibration


def test_rare_classes_weigh_more() -> None:
    weight = class_weights(8)
    assert weight.shape == (len(SEGMENT_NAMES),) and weight.isfinite().all()
    assert weight[SEGMENT_INDEX["lights"]] > 3 * weight[SEGMENT_INDEX["sky"]]


def test_steps_lower_the_losses_and_reach_every_parameter() -> None:
    torch.manual_seed(0)
    lesson, weight = Lesson(), torch.ones(len(SEGMENT_NAMES))
    data = training_batch(0, 2)
    optimiser = torch.optim.Adam(lesson.parameters(), lr=2e-3)
    history = []
    for _ in range(6):
        losses = lesson.losses(*data, weight)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lesson.parameters())
    for name in ("loss", "segment", "detail"):
        assert history[-1][name] < 0.8 * history[0][name], name


def test_overlaps_by_hand() -> None:
    wanted = torch.tensor([[0, 0, 0, 1]])
    labels = torch.tensor([[0, 0, 1, 1]])
    overlaps = class_overlaps(labels, wanted)
    assert overlaps[0] == pytest.approx(2 / 3) and overlaps[1] == pytest.approx(1 / 2)
    assert overlaps[2:].isnan().all()


def test_calibration_lowers_the_errors_and_keeps_every_channel() -> None:
    torch.manual_seed(1)
    network = VisionNet(CONFIG).requires_grad_(False)
    table = distances(network, 4, 90_000)
    calibrate(network, scenes=4)
    channels = torch.cat(network.perceptual_weights)
    assert (channels > 0).all() and float(channels.mean()) == pytest.approx(1, rel=1e-4)
    value = float(table["unrelated"] @ channels * network.perceptual_scale)
    assert 0.3 < value < 0.9, "unrelated scenes are far from what LPIPS says of unrelated pictures"


def test_distances_are_those_of_the_metric(network: VisionNet) -> None:
    table = distances(network, 3, SEED)
    channels = torch.cat(network.perceptual_weights) * network.perceptual_scale
    clean, strange = sample_scenes(3, SEED).images, sample_scenes(3, SEED, strangers=True)
    metric = DemoPerceptual(network)
    expected = metric.compare(clean, clean.roll(1, dims=0)).mean()
    assert torch.allclose(table["unrelated"] @ channels, expected, rtol=1e-4)
    where = strange.stranger_masks > 0.5
    expected = metric.map(clean, metric.prepare(strange.images))[where].mean()
    assert torch.allclose(table["stranger"] @ channels, expected, rtol=1e-4)


def test_export_writes_weights_with_a_card(network: VisionNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saminv.demo.train_vision.calibrate", lambda network: None)
    monkeypatch.setattr("saminv.demo.train_vision.measure", lambda network: {"accuracy": 0.5})
    card = export(network, tmp_path)
    assert weights.cards(tmp_path)[BUNDLED] == card and card.figures == {"accuracy": 0.5}
    tensors, metadata = weights.load_bundled(BUNDLED, tmp_path)
    assert set(tensors) == set(network.state_dict()) and "config" in metadata


# The bundled weights


def test_the_bundled_file_is_small_and_has_its_figures() -> None:
    card = weights.cards()[BUNDLED]
    file = Path(weights.__file__).parent / card.file
    assert file.stat().st_size <= 3_000_000
    assert card.figures["segment_accuracy_clean"] > 0.985 and card.figures["segment_accuracy_strangers"] > 0.97


@pytest.mark.parametrize("strangers", [False, True])
def test_it_reads_scenes_that_it_never_saw(network: VisionNet, strangers: bool) -> None:
    batch = sample_scenes(96, SEED, strangers)
    labels, factors = read(network, batch.images)
    assert (labels == batch.segments).float().mean() > (0.97 if strangers else 0.985)
    for name in ("car_x", "car_size", "car_hue"):
        column = FACTORS.index(name)
        assert correlation(factors[:, column], batch.factors[:, column]) > 0.95, name
    facing = FACTORS.index("facing")
    assert ((factors[:, facing] > 0.5) == (batch.factors[:, facing] > 0.5)).float().mean() > 0.9


def test_its_reading_follows_one_factor_alone(network: VisionNet) -> None:
    factors = sample_factors(1, SEED).repeat(9, 1)
    column = FACTORS.index("car_hue")
    factors[:, column] = torch.linspace(0.1, 0.9, 9)
    _, seen = read(network, render(factors).images)
    assert torch.allclose(seen[:, column], factors[:, column], atol=0.06)
    for name in ("car_x", "car_size", "sky_hue"):
        other = FACTORS.index(name)
        assert seen[:, other].std() < 0.1, name


def test_soft_pictures_are_read_as_well(network: VisionNet) -> None:
    batch = sample_scenes(24, SEED)
    _, factors = read(network, blur(batch.images, torch.full((24,), 1.5)))
    for name in ("car_x", "car_size", "car_hue"):
        column = FACTORS.index(name)
        assert correlation(factors[:, column], batch.factors[:, column]) > 0.93, name


def test_the_metric_orders_differences(network: VisionNet) -> None:
    clean = sample_scenes(8, SEED).images
    metric = DemoPerceptual(network)
    ones = torch.ones(8)

    def value(other: Tensor) -> float:
        return float(metric.compare(other, clean).mean())

    weak, strong, unrelated = value(blur(clean, ones)), value(blur(clean, 3 * ones)), value(clean.roll(1, dims=0))
    noise = value(clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)))
    assert value(clean) == 0
    assert 0.01 < weak < strong < unrelated and 0.02 < noise < unrelated
    assert 0.3 < unrelated < 0.9


def test_the_map_shows_a_missing_stranger_and_little_beside_it(network: VisionNet) -> None:
    clean = sample_scenes(8, SEED)
    strange = add_strangers(clean, SEED)
    metric = DemoPerceptual(network)
    error = metric.map(clean.images, metric.prepare(strange.images))
    mask = strange.stranger_masks
    grown = torch.nn.functional.max_pool2d(mask, 17, 1, 8) > 0
    inside, outside = float(error[mask > 0.5].mean()), float(error[~grown].mean())
    assert inside > 0.4
    assert outside < 0.05 * inside


# The segmenter


def test_the_segmenter_is_registered_by_name() -> None:
    assert SEGMENTERS.get("demo") is DemoSegmenter


def test_a_scene_becomes_its_objects(segmenter: DemoSegmenter) -> None:
    batch = sample_scenes(4, SEED)
    found = segmenter(batch.images)
    car = torch.isin(batch.segments, torch.tensor(CAR_SEGMENTS))
    wanted = torch.where(car, CAR, batch.segments)
    assert (found.ids == wanted).float().mean() > 0.985
    assert {"sky", "hills", "ground", "road", "car"} <= set(found.names.values())
    assert not set(CAR_SEGMENTS) & set(found.ids.unique().tolist())


def test_the_cars_parts_are_kept_on_request() -> None:
    batch = sample_scenes(2, SEED)
    ids = DemoSegmenter(parts=True)(batch.images).ids
    assert set(CAR_SEGMENTS) - {SEGMENT_INDEX["lights"]} <= set(ids.unique().tolist())
    assert CAR not in ids


def test_strangers_that_lie_apart_have_ids_of_their_own(segmenter: DemoSegmenter) -> None:
    factors = sample_factors(1, SEED)
    batch = add_strangers(render(factors), SEED, ["bird", "balloon"])
    found = segmenter(batch.images)
    names = [found.names[label] for label in found.ids.unique().tolist()]
    assert names.count("bird") >= 2 and names.count("balloon") == 1


def test_a_shower_is_one_segment(segmenter: DemoSegmenter) -> None:
    batch = add_strangers(render(sample_factors(1, SEED)), SEED, ["rain"])
    found = segmenter(batch.images)
    names = [found.names[label] for label in found.ids.unique().tolist()]
    assert names.count("rain") == 1


def test_segments_have_no_specks(segmenter: DemoSegmenter) -> None:
    found = segmenter(sample_scenes(4, SEED, strangers=True).images)
    for row in found.ids:
        assert torch.unique(row, return_counts=True)[1].min() >= segmenter.min_fraction * row.numel() - 1


def test_segments_do_not_depend_on_the_batch(segmenter: DemoSegmenter) -> None:
    images = sample_scenes(3, SEED, strangers=True).images
    together = segmenter(images).ids
    assert torch.equal(together, segmenter(images).ids)
    alone = torch.cat([segmenter(image[None]).ids for image in images])
    assert (together == alone).float().mean() > 0.999


@pytest.mark.parametrize("size", [64, 200, 256])
def test_other_sizes_give_the_same_objects(segmenter: DemoSegmenter, size: int) -> None:
    factors = sample_factors(2, SEED)
    batch = render(factors, size)
    found = segmenter(batch.images)
    car = torch.isin(batch.segments, torch.tensor(CAR_SEGMENTS))
    assert found.ids.shape == (2, size, size)
    assert (found.ids == torch.where(car, CAR, batch.segments)).float().mean() > 0.96


@settings(max_examples=6, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150), seed=st.integers(0, 99))
def test_any_picture_gets_segments(segmenter: DemoSegmenter, height: int, width: int, seed: int) -> None:
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    segments = segmenter(image)
    assert segments.ids.shape == (1, height, width)
    assert set(segments.names) == set(segments.ids.unique().tolist())


@pytest.mark.parametrize("setting", [{"min_fraction": 1.0}, {"speck": -0.1}, {"reach": math.nan}])
def test_impossible_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must lie in"):
        DemoSegmenter(**setting)


def test_a_network_with_other_classes_is_refused() -> None:
    other = VisionNet(VisionConfig(num_segments=3, factors=("a",)))
    with pytest.raises(InputError, match="3 segment classes"):
        DemoSegmenter(network=other)


@pytest.mark.parametrize("image", [torch.zeros(3, 8, 8), torch.full((1, 3, 8, 8), math.nan), torch.zeros(1, 1, 8, 8)])
def test_no_images_are_refused(segmenter: DemoSegmenter, image: Tensor) -> None:
    with pytest.raises(InputError):
        segmenter(image)
