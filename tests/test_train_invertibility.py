"""Training and judging invertibility networks: on errors that are a known function of the image."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from saminv._errors import CheckpointError, InputError, MissingExtraError
from saminv.demo import train_invertibility as demo
from saminv.segment import AbstractInvertibility, InvertibilityConfig, LabelImage, Slic, load_invertibility
from saminv.train import (
    Augmentation,
    ErrorMaps,
    InvertibilityTraining,
    TrainerConfig,
    config_for,
    describe_evaluation,
    evaluate_invertibility,
    plot_evaluation,
    plot_training,
    psnr_lost,
    save_errors,
    train_invertibility,
)
from saminv.train.augment import blur
from saminv.train.invertibility import Batches, losses, split_checked, validation_figures

SPACES = ("W+", "F4", "F6")
SIDE = 24
TINY = (6, 8, 6)
QUICK = InvertibilityTraining(
    schedule=TrainerConfig(steps=12, learning_rate=3e-3, warmup=2, average_decay=0.9, save_every=4, validate_every=3),
    batch=4,
    validation_share=0.3,
)


def known_errors(images: torch.Tensor) -> torch.Tensor:
    """Errors `[B, 3, H, W]` that fall from space to space: the smoothed square of the red channel."""
    base = F.avg_pool2d(images[:, :1].square(), 5, 1, 2, count_include_pad=False)
    return torch.cat([base, 0.5 * base, 0.1 * base], dim=1)


def pictures(count: int, seed: int = 0, side: int = SIDE) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    coarse = 2 * torch.rand(count, 3, 4, 4, generator=source) - 1
    return F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False).clamp(-1, 1)


def write(folder, count: int = 24, fingerprint: str = "f" * 64, side: int = SIDE) -> ErrorMaps:
    images = pictures(count, side=side)
    for name, (image, errors) in enumerate(zip(images, known_errors(images))):
        for space, error in zip(SPACES, errors):
            path = folder / space / "results" / f"{name:03d}.safetensors"
            save_errors(path, image, error, space=space, fingerprint=fingerprint, metric="demo", steps=10, psnr=20.0)
    return ErrorMaps(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> ErrorMaps:
    return write(tmp_path_factory.mktemp("errors"))


def tiny(data: ErrorMaps, **changes) -> InvertibilityConfig:
    return config_for(data, widths=TINY, features=4, **changes)


def same(a, b) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(n == m and torch.equal(x, y) for (n, x), (m, y) in pairs)


# Training


def test_the_loss_falls_and_r2_rises(data, tmp_path):
    schedule = TrainerConfig(
        steps=150, learning_rate=2e-2, warmup=10, average_decay=0.9, save_every=50, validate_every=25
    )
    training = replace(QUICK, schedule=schedule, augmentation=Augmentation(blur=0))
    network = train_invertibility(data, tmp_path, tiny(data), training, plot=False)
    rows = list(csv.DictReader((tmp_path / "validation.csv").open()))
    assert [int(row["step"]) for row in rows] == [25, 50, 75, 100, 125, 150]
    assert float(rows[-1]["loss"]) < 0.3 * float(rows[0]["loss"])
    _, held = data.split(0.3)
    figures = validation_figures(network, held)
    assert all(figures[f"r2_{space}"] > 0.8 for space in SPACES), figures
    assert figures["loss"] == pytest.approx(min(float(row["loss"]) for row in rows), rel=1e-4)
    record = evaluate_invertibility(network, held, Slic(12), 0.2)
    assert record["agreement"]["segments"] > 0.8
    assert all(record["per_space"][space]["rank_segments"] > 0.85 for space in SPACES)


def test_the_folder_has_logs_a_plot_and_the_best_network(data, tmp_path):
    network = train_invertibility(data, tmp_path, tiny(data), QUICK)
    assert {"best.safetensors", "checkpoint.pt", "log.csv", "validation.csv", "run.json", "training.png"} == {
        path.name for path in tmp_path.iterdir()
    }
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert list(rows[0]) == ["step", "seconds", "loss", *SPACES] and [row["step"] for row in rows] == ["4", "8", "12"]
    checks = list(csv.DictReader((tmp_path / "validation.csv").open()))
    assert list(checks[0]) == ["step", "seconds", "loss", *(f"r2_{space}" for space in SPACES)]
    assert same(network, load_invertibility(tmp_path / "best.safetensors"))
    assert network.config == tiny(data) and network.config.fingerprint == data.fingerprint


def test_a_resumed_training_ends_where_an_uninterrupted_one_ends(data, tmp_path):
    whole = train_invertibility(data, tmp_path / "whole", tiny(data), QUICK, plot=False)
    for until in (1, 5, 8, None):
        parts = train_invertibility(data, tmp_path / "parts", tiny(data), QUICK, until=until, plot=False)
    assert same(whole, parts)
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts")]
    for key in ("model", "average"):
        assert all(torch.equal(states[0][key][name], states[1][key][name]) for name in states[0][key])
    assert states[0]["best"] == states[1]["best"]
    for name in ("log.csv", "validation.csv"):
        tables = [list(csv.DictReader((tmp_path / part / name).open())) for part in ("whole", "parts")]
        assert [{**row, "seconds": ""} for row in tables[0]] == [{**row, "seconds": ""} for row in tables[1]], name


def test_a_killed_training_resumes_without_double_rows(data, tmp_path):
    whole = train_invertibility(data, tmp_path / "whole", tiny(data), QUICK, plot=False)
    folder = tmp_path / "killed"
    train_invertibility(data, folder, tiny(data), QUICK, until=4, plot=False)
    early = (folder / "checkpoint.pt").read_bytes()
    train_invertibility(data, folder, tiny(data), QUICK, until=9, plot=False)
    # As a kill leaves it: rows and a best network of steps after the last checkpoint, and half a row.
    (folder / "checkpoint.pt").write_bytes(early)
    with (folder / "log.csv").open("a") as file:
        file.write("12,3")
    again = train_invertibility(data, folder, tiny(data), QUICK, plot=False)
    assert same(whole, again)
    for name, steps in (("log.csv", [4, 8, 12]), ("validation.csv", [3, 6, 9, 12])):
        assert [int(row["step"]) for row in csv.DictReader((folder / name).open())] == steps


def test_ctrl_c_ends_after_the_step_with_a_checkpoint(data, tmp_path, monkeypatch):
    from saminv.train import invertibility as module

    whole = train_invertibility(data, tmp_path / "whole", tiny(data), QUICK, plot=False)
    calls = []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return losses(*arguments)

    monkeypatch.setattr(module, "losses", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_invertibility(data, tmp_path / "parts", tiny(data), QUICK, plot=False)
    assert signal.getsignal(signal.SIGINT) is before
    state = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    assert 0 < state["step"] < 12
    monkeypatch.undo()
    assert same(whole, train_invertibility(data, tmp_path / "parts", tiny(data), QUICK, plot=False))


def test_the_best_network_is_kept_and_not_the_last(data, tmp_path, monkeypatch):
    from saminv.train import invertibility as module

    results = iter([3.0, 1.0, 2.0, float("nan")])
    monkeypatch.setattr(module, "validation_figures", lambda network, held: {"loss": next(results)})
    best = train_invertibility(data, tmp_path, tiny(data), QUICK, plot=False)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["best"] == {"loss": 1.0, "step": 6}
    assert any(not torch.equal(value, state["average"][name]) for name, value in best.state_dict().items())


def test_a_folder_belongs_to_one_training(data, tmp_path):
    train_invertibility(data, tmp_path, tiny(data), QUICK, until=1, plot=False)
    for config, training, word in (
        (tiny(data), replace(QUICK, batch=2), "another training"),
        (config_for(data, widths=(8, 8, 6)), QUICK, "another network"),
    ):
        with pytest.raises(CheckpointError, match=f"{word}, see run.json"):
            train_invertibility(data, tmp_path, config, training, plot=False)
    with pytest.raises(CheckpointError, match="another data"):
        train_invertibility(data[:-2], tmp_path, tiny(data), QUICK, plot=False)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        train_invertibility(data, tmp_path, tiny(data), QUICK, plot=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spaces": ("W+", "F4"), "spreads": ()}, "another list of spaces"),
        ({"fingerprint": "0" * 64}, "another generator"),
        ({"metric": "lpips-vgg"}, "another metric"),
    ],
)
def test_a_network_for_something_else_is_not_trained(data, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        train_invertibility(data, tmp_path / "run", tiny(data, **change), QUICK)
    assert not (tmp_path / "run").exists()


def test_both_sides_of_the_split_need_images(data):
    assert sum(map(len, split_checked(data, 0.3))) == len(data)
    with pytest.raises(InputError, match="none falls to the validation"):
        split_checked(data[:2], 0.001)
    with pytest.raises(InputError, match="none falls to the training"):
        split_checked(data[:2], 0.999)


def test_square_roots_are_an_option(data, tmp_path):
    config = tiny(data, loss="l2-sqrt")
    assert train_invertibility(data, tmp_path, config, QUICK, plot=False).config.loss == "l2-sqrt"
    predicted, errors = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    plain, roots = (losses(predicted, errors, tiny(data, loss=loss, spreads=())) for loss in ("l2", "l2-sqrt"))
    assert float(plain["loss"]) == pytest.approx(float((predicted - errors).square().mean()))
    assert float(plain["F4"]) == pytest.approx(float((predicted - errors)[:, 1].square().mean()))
    assert 0 < float(roots["loss"]) and roots.keys() == plain.keys() == {"loss", *SPACES}


def test_spaces_count_alike_whatever_the_size_of_their_errors(data):
    errors = data.batch(range(len(data)))[1]
    spreads = config_for(data).spreads
    wanted = errors.double().std(dim=(0, 2, 3))
    wanted = wanted.clamp_min(0.1 * float(wanted.max()))
    assert spreads == pytest.approx(wanted.tolist(), rel=1e-3)
    found = losses(torch.zeros_like(errors), errors, config_for(data))
    each = torch.stack([found[space] for space in data.spaces]) / torch.tensor(spreads).square()
    assert float(found["loss"]) == pytest.approx(float(each.mean()), rel=1e-5)
    with pytest.raises(InputError, match="a spread above 0 for each"):
        config_for(data, spreads=(1.0,))


# Batches and augmentation


def test_batches_depend_on_the_step_alone_and_use_every_example(data):
    batches, ahead = Batches(data, QUICK), Batches(data, QUICK, ahead=True)
    for step in (0, 1, 2, 7, 1):
        for a, b in zip(batches(step), ahead(step), strict=True):
            assert torch.equal(a, b)
    steps = len(data) // QUICK.batch
    used = [batches._example(position) for position in range(2 * steps * QUICK.batch)]
    assert sorted(used) == sorted(2 * list(range(len(data)))) and used[: len(data)] != used[len(data) :]
    assert not torch.equal(batches(0)[0], Batches(data, replace(QUICK, seed=1))(0)[0])


def test_flips_turn_image_and_errors_together(data):
    images, errors = data.batch(range(8))
    turned, maps = Augmentation(flip=1, blur=0)(images, errors, torch.Generator().manual_seed(0))
    assert torch.equal(turned, images.flip(-1)) and torch.equal(maps, errors.flip(-1))
    kept, maps = Augmentation(flip=0, blur=0)(images, errors, torch.Generator().manual_seed(0))
    assert torch.equal(kept, images) and torch.equal(maps, errors)
    some, _ = Augmentation(blur=0)(images, errors, torch.Generator().manual_seed(0))
    assert 0 < sum(torch.equal(a, b) for a, b in zip(some, images)) < 8


def test_blur_noise_and_brightness_leave_the_errors(data):
    images, errors = data.batch(range(8))
    for change in ({"blur": 1.0, "blur_sigma": 2.0}, {"blur": 0, "noise": 0.2}, {"blur": 0, "brightness": 0.3}):
        varied, maps = Augmentation(flip=0, **change)(images, errors, torch.Generator().manual_seed(0))
        assert torch.equal(maps, errors) and not torch.equal(varied, images)
        assert float(varied.abs().max()) <= 1 and varied.shape == images.shape


def test_blur_keeps_means_and_a_blur_of_nothing_is_none():
    image = torch.rand(2, 3, 20, 20)
    assert torch.allclose(blur(image, torch.zeros(2)), image)
    assert torch.allclose(blur(torch.full((1, 3, 9, 9), 0.3), torch.tensor([2.0])), torch.full((1, 3, 9, 9), 0.3))
    mixed = blur(image, torch.tensor([0.0, 1.5]))
    assert torch.allclose(mixed[0], image[0]) and float(mixed[1].std()) < 0.5 * float(image[1].std())


@pytest.mark.parametrize("wrong", [{"flip": 1.1}, {"blur": -0.1}, {"blur_sigma": -1}, {"noise": float("nan")}])
def test_impossible_augmentations_are_refused(wrong):
    with pytest.raises(InputError):
        Augmentation(**wrong)


# Evaluation


class Known(AbstractInvertibility):
    """Predicts the known errors, changed by a function."""

    def __init__(self, change=lambda maps: maps) -> None:
        self.change = change

    def __call__(self, image):
        maps = self.change(known_errors(image).half().float())
        return dict(zip(SPACES, maps.split(1, dim=1)))


QUARTERS = LabelImage(np.arange(SIDE)[:, None] // 6 * 4 + np.arange(SIDE) // 6)


def exact(data: ErrorMaps) -> AbstractInvertibility:
    """Predicts what was measured, looked up by the image."""

    class Looked(AbstractInvertibility):
        def __call__(self, image):
            rows = [next(e for x, e in (data[k] for k in range(len(data))) if torch.equal(x, one)) for one in image]
            return dict(zip(SPACES, torch.stack(rows).split(1, dim=1)))

    return Looked()


def test_a_perfect_prediction_has_perfect_figures(data):
    record = evaluate_invertibility(exact(data), data, QUARTERS, 0.1)
    assert record["images"] == len(data) and record["segments"] == 16 * len(data)
    for space in SPACES:
        row = record["per_space"][space]
        assert row["r2_pixels"] == pytest.approx(1) and row["r2_segments"] == pytest.approx(1)
        assert row["rank_pixels"] == pytest.approx(1) and row["rank_segments"] == pytest.approx(1)
        assert row["calibration"]["predicted"] == pytest.approx(row["calibration"]["measured"])
        assert row["mean_predicted"] == pytest.approx(row["mean_measured"])
    shares = record["agreement"]
    assert (shares["segments"], shares["area"], shares["more_editable"], shares["less_editable"]) == (1, 1, 0, 0)
    table = np.array(record["confusion"]["segments"])
    assert (table == np.diag(table.diagonal())).all() and (table.diagonal() > 0).sum() >= 2
    assert shares["commonest"] == pytest.approx(table.diagonal().max() / table.sum())
    assert np.sum(record["confusion"]["area"]) == SIDE**2 * len(data)
    assert json.loads(json.dumps(record)) == record


def test_wrong_predictions_show_in_the_figures(data):
    scaled = evaluate_invertibility(Known(lambda maps: 3 * maps), data, QUARTERS, 0.1)
    shares = scaled["agreement"]
    assert shares["less_editable"] > 0.1 and shares["more_editable"] == 0
    row = scaled["per_space"]["F4"]
    assert row["rank_segments"] > 0.99 and row["r2_segments"] < 0
    curve = row["calibration"]
    assert curve["predicted"] == pytest.approx([3 * value for value in curve["measured"]], rel=0.05, abs=0.01)
    lowered = evaluate_invertibility(Known(lambda maps: maps / 3), data, QUARTERS, 0.1)["agreement"]
    assert lowered["more_editable"] > 0.1 and lowered["less_editable"] == 0
    assert lowered["segments"] + lowered["more_editable"] == pytest.approx(1)
    constant = evaluate_invertibility(Known(lambda maps: 0 * maps + 0.1), data, QUARTERS, 0.1)
    assert constant["per_space"]["W+"]["rank_pixels"] is None and "-" in describe_evaluation(constant)
    mean = data.batch(range(len(data)))[1].mean(dim=(0, 2, 3)).view(1, 3, 1, 1)
    level = evaluate_invertibility(Known(lambda maps: 0 * maps + mean), data, QUARTERS, 0.1)
    assert level["per_space"]["W+"]["r2_pixels"] == pytest.approx(0, abs=1e-3)


def test_some_spaces_may_be_judged(data):
    record = evaluate_invertibility(Known(), data, QUARTERS, 0.1, spaces=("F4", "F6"))
    assert record["spaces"] == ["F4", "F6"] == list(record["per_space"])
    with pytest.raises(InputError, match="F8"):
        evaluate_invertibility(Known(), data, QUARTERS, 0.1, spaces=("F4", "F8"))
    with pytest.raises(InputError, match="no images"):
        evaluate_invertibility(Known(), data[:0], QUARTERS, 0.1)


def test_networks_for_something_else_are_not_judged(data, tmp_path):
    network = train_invertibility(data, tmp_path / "run", tiny(data), QUICK, until=3, plot=False)
    other = write(tmp_path / "other", 2, fingerprint="0" * 64)
    with pytest.raises(InputError, match="another generator"):
        evaluate_invertibility(network, other, QUARTERS, 0.1)


def test_psnr_that_is_lost(data):
    asked = []

    def invert(image, regions):
        asked.append(image)
        return 20 + 10 * float(regions.share("F6"))

    perfect = psnr_lost(exact(data), data, QUARTERS, 0.1, invert, count=4)
    assert (perfect["images"], perfect["same"], perfect["lost"]) == (4, 4, 0) and len(asked) == 4
    record = psnr_lost(Known(lambda maps: maps / 3), data, QUARTERS, 0.1, invert, count=6)
    assert record["lost"] == pytest.approx(record["measured"] - record["predicted"]) and record["lost"] > 0
    assert record["lost_worst"] >= record["lost_median"] and len(record["each"]) == 6
    assert json.loads(json.dumps(record)) == record


def test_plots_are_pictures(data, tmp_path):
    record = evaluate_invertibility(Known(), data, QUARTERS, 0.1)
    picture = plot_evaluation(record, tmp_path / "evaluation.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="train first"):
        plot_training(tmp_path)


def test_missing_matplotlib_names_the_extra(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"saminv\[plot\]"):
        train_invertibility(data, tmp_path / "a", tiny(data), QUICK, plot=True)
    with pytest.raises(MissingExtraError, match=r"saminv\[plot\]"):
        plot_evaluation({}, tmp_path / "a.png")
    train_invertibility(data, tmp_path / "b", tiny(data), QUICK, until=3)
    assert not (tmp_path / "b" / "training.png").exists()


# The demo's network


def test_the_demo_trains_from_its_vision_network_and_exports(tmp_path, monkeypatch):
    fingerprint = demo.load_demo_generator().fingerprint
    data = write(tmp_path / "data", 12, fingerprint, side=32)
    monkeypatch.setattr(demo, "TRAINING", replace(QUICK, schedule=replace(QUICK.schedule, steps=3)))
    network = demo.train(data, tmp_path / "run")
    assert network.config.backbone == "small" and network.config.fingerprint == fingerprint
    moved = network.backbone.stages[0][0].weight - demo.load_vision().stages[0][0].weight
    assert 0 < float(moved.abs().max()) < 0.05
    weights = tmp_path / "weights"
    weights.mkdir()
    card = demo.export(network, data, folder=weights)
    assert card.figures["generator"] == fingerprint and {"r2_W+", "rank_F6", "agreement_segments"} <= set(card.figures)
    assert (weights / card.file).stat().st_size <= demo.LARGEST
    assert same(load_invertibility(weights / card.file), network)


def test_the_demo_refuses_errors_of_other_generators(data, tmp_path):
    with pytest.raises(InputError, match="another generator than the bundled one"):
        demo.train(data, tmp_path)
