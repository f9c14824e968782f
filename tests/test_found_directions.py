"""Directions that are found: closed forms, components, boundaries and regressions against plain computations."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close
from torch import Tensor, nn
from toys import LinearGenerator, toy_stylegan2

from saminv import CheckpointError, InputError, MissingExtraError
from saminv.editing import (
    DirectionSet,
    LinearDirection,
    conditioned,
    direction_names,
    find_direction,
    fit_boundary,
    ganspace_directions,
    interfacegan_directions,
    kept_names,
    kept_set,
    regression_directions,
    resolve_direction,
    sefa_directions,
)
from saminv.editing._samples import sample_codes, scored, spread_along
from saminv.editing.change import Change, parse_slots
from saminv.editing.channels import channel_deviation, pulled_back, shifted
from saminv.editing.ganspace import IncrementalPCA
from saminv.editing.regression import regress
from saminv.editing.sets import directions_folder
from saminv.generators import StyleGAN2, style_layers


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    return toy_stylegan2()


def unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows.double(), dim=-1)


# The style space.


def test_every_affine_layer_is_found_with_its_slot_and_matrix(generator: StyleGAN2) -> None:
    found = {layer.name: layer for layer in style_layers(generator)}
    expected = {f"layers.{k}.affine": (k, layer.affine) for k, layer in enumerate(generator.layers)}
    expected |= {f"torgb.{k}.affine": (int(k) + 1, torgb.affine) for k, torgb in generator.torgb.items()}
    assert set(found) == set(expected)
    for name, (slot, affine) in expected.items():
        assert found[name].slot == slot and found[name].paints == name.startswith("torgb")
        assert_close(found[name].matrix, affine.weight * affine.gain, 1e-5, name)


def test_of_modules_around_one_another_the_innermost_counts(generator: StyleGAN2) -> None:
    wrapped = toy_stylegan2()
    wrapped.layers[2].affine = nn.Sequential(wrapped.layers[2].affine)
    names = [layer.name for layer in style_layers(wrapped)]
    assert "layers.2.affine.0" in names and "layers.2.affine" not in names
    assert len(names) == len(style_layers(generator))


def test_a_generator_without_style_layers_says_what_works() -> None:
    with pytest.raises(InputError, match="GANSpace, InterFaceGAN and regression"):
        sefa_directions(LinearGenerator())


def test_a_shift_is_a_change_of_the_bias_and_is_taken_back(generator: StyleGAN2) -> None:
    styles = generator.mapping(generator.sample_z(2, 3))
    plain, change = generator.synthesis(styles), torch.linspace(-1, 1, generator.layers[3].affine.bias.shape[0])
    with shifted(generator, {"layers.3.affine": change[None]}):
        moved = generator.synthesis(styles)
    other = toy_stylegan2()
    other.layers[3].affine.bias += change
    assert_close(moved, other.synthesis(styles), 1e-5)
    assert torch.equal(generator.synthesis(styles), plain)
    with pytest.raises(InputError, match="no style layer 'nothing'"), shifted(generator, {"nothing": change}):
        pass


def test_channels_deviate_as_their_samples_do(generator: StyleGAN2) -> None:
    layers = style_layers(generator)[:2]
    codes = sample_codes(generator, 2000, 0)
    expected = torch.cat([generator.layers[0].affine(codes).std(0), generator.torgb["0"].affine(codes).std(0)])
    assert_close(channel_deviation(generator, layers), expected, 1e-4)


def test_what_is_pulled_back_makes_the_same_channels(generator: StyleGAN2) -> None:
    affine = generator.layers[3].affine
    matrix = affine.weight * affine.gain
    styles = torch.zeros(1, generator.num_styles, generator.style_dim)
    change = torch.randn(generator.style_dim) @ matrix.t()
    found = pulled_back(generator, Change(styles, {"layers.3.affine": change[None]}))
    assert_close(found[0, 3] @ matrix.t(), change, 1e-3)
    assert not found[0, [0, 1, 2, 4]].any()


# SeFa.


def published_sefa(generator: StyleGAN2, slots: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and eigenvalues by the rule of the published code, in float64."""
    weights = [generator.layers[k].affine.weight if k < len(generator.layers) else None for k in slots]
    last = generator.torgb[str(len(generator.layers) - 1)].affine.weight
    columns = np.concatenate([(last if w is None else w).double().numpy().T for w in weights], axis=1)
    columns = columns / np.linalg.norm(columns, axis=0, keepdims=True)
    values, vectors = np.linalg.eigh(columns @ columns.T)
    return vectors.T[::-1], values[::-1]


@pytest.mark.parametrize("slots", [[0, 1], [2, 3, 4], None])
def test_sefa_is_that_of_the_published_rule(generator: StyleGAN2, slots: list[int] | None) -> None:
    chosen = list(range(generator.num_styles)) if slots is None else slots
    found = sefa_directions(generator, 5, slots)
    rows, values = published_sefa(generator, chosen)
    assert_close(torch.tensor(found.values["eigenvalue"]), torch.tensor(values[:5].copy()), 1e-5)
    assert found.slots == tuple(chosen) and found.values["variance"][0] > found.values["variance"][1]
    for k, row in enumerate(rows[:5]):
        styles = found[k].styles
        assert abs(float(unit(styles[chosen[0]]) @ torch.tensor(row.copy()))) > 1 - 1e-5
        assert all(torch.equal(styles[slot], styles[chosen[0]]) for slot in chosen)
        assert not styles[[slot for slot in range(generator.num_styles) if slot not in chosen]].any()


def test_strength_one_of_sefa_is_a_standard_deviation(generator: StyleGAN2) -> None:
    found = sefa_directions(generator, 3)
    codes = sample_codes(generator, 4000, 9)
    for k, deviation in enumerate(found.values["deviation"]):
        row = found[k].styles[0]
        assert float(row.norm()) == pytest.approx(deviation, rel=1e-4)
        assert float((codes @ unit(row).float()).std()) == pytest.approx(deviation, rel=0.1)
        assert row[row.abs().argmax()] > 0


def test_sefa_without_normalising_moves_the_input_most(generator: StyleGAN2) -> None:
    found = sefa_directions(generator, 2, [0], normalise=False)
    matrix = (generator.layers[0].affine.weight * generator.layers[0].affine.gain).double()
    moved = [float((matrix @ unit(found[k].styles[0])).square().sum()) for k in range(2)]
    assert moved == pytest.approx(found.values["eigenvalue"], rel=1e-4)
    others = unit(torch.randn(200, generator.style_dim)) @ matrix.t()
    assert float(others.square().sum(dim=1).max()) <= moved[0]


def test_whitened_sefa_is_the_step_of_one_likelihood_that_moves_the_input_most(generator: StyleGAN2) -> None:
    found = sefa_directions(generator, 3, [1], normalise=False, whiten=True)
    matrix = (generator.layers[1].affine.weight * generator.layers[1].affine.gain).double()
    factor = generator.statistics().factor_w
    steps = torch.stack([found[k].styles[1].double() for k in range(3)])
    assert_close(torch.linalg.solve(factor, steps.t()).norm(dim=0), torch.ones(3, dtype=torch.float64), 1e-4)
    moved = (steps @ matrix.t()).square().sum(dim=1)
    assert_close(moved, torch.tensor(found.values["eigenvalue"], dtype=torch.float64), 1e-4)
    others = unit(torch.randn(200, generator.style_dim)) @ factor.t() @ matrix.t()
    assert float(others.square().sum(dim=1).max()) <= float(moved[0]) * (1 + 1e-6)
    assert found.values["deviation"] == pytest.approx(steps.norm(dim=1).tolist(), rel=1e-5)
    # Weights say nothing of the covariance, which is most of what is found here.
    assert "above_random" not in found.values


def test_sefa_tells_what_random_weights_would_give() -> None:
    """The one direction that was put into random layers, and no other one, is above them."""
    source = torch.Generator().manual_seed(8)
    wide = toy_stylegan2(w_dim=64)
    hidden = unit(torch.randn(64, generator=source)).float()
    for layer in wide.layers[:2]:
        weight = torch.randn(layer.affine.weight.shape, generator=source)
        layer.affine.weight.copy_(weight + 4 * torch.randn(len(weight), 1, generator=source) * hidden)
    found = sefa_directions(wide, 3, [0, 1])
    above = found.values["above_random"]
    assert above[0] > 1.5 and max(above[1:]) < 1.1
    assert abs(float(unit(found[0].styles[0]) @ hidden.double())) > 0.9


@pytest.mark.parametrize("layers", [[], [-1], [99], [1.5], "0-1", 3])
def test_slots_that_are_not_there(generator: StyleGAN2, layers: Any) -> None:
    with pytest.raises(InputError, match="numbers from 0 to 7"):
        sefa_directions(generator, layers=layers)


# GANSpace.


def test_components_of_w_are_those_of_its_covariance(generator: StyleGAN2) -> None:
    found = ganspace_directions(generator, 4, samples=1000, seed=3, layers=[1, 2])
    codes = sample_codes(generator, 1000, 3).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(codes.T))
    assert_close(torch.tensor(found.values["variance"]), torch.tensor(values[::-1][:4] / values.sum()), 1e-6)
    for k in range(4):
        row = torch.tensor(vectors.T[::-1][k].copy()) * values[::-1][k] ** 0.5
        got = found[k].styles[1].double()
        assert_close(got * torch.sign(got @ row), row, 1e-4)
        assert not found[k].styles[0].any()


def test_there_are_no_more_components_than_variance(generator: StyleGAN2) -> None:
    assert len(ganspace_directions(generator, 20, samples=5)) == 4
    assert len(ganspace_directions(generator, 1, samples=5)) == len(sefa_directions(generator, 1)) == 1
    with pytest.raises(InputError, match="count is 0; it must be a whole number from 1 up"):
        sefa_directions(generator, 0)


def test_incremental_components_are_exact_up_to_their_rank() -> None:
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(90, 6, generator=source) @ torch.randn(6, 50, generator=source) + 3
    analysis = IncrementalPCA(8)
    for part in rows.split([20, 1, 40, 29]):
        analysis.add(part)
    centred = rows - rows.mean(dim=0)
    _, singular, right = torch.linalg.svd(centred, full_matrices=False)
    assert analysis.components is not None and analysis.mean is not None
    assert_close(analysis.mean, rows.mean(dim=0), 1e-5)
    assert_close(analysis.deviation[:6], singular[:6] / 89**0.5, 1e-4)
    assert_close((analysis.components[:6] * right[:6]).sum(dim=1).abs(), torch.ones(6), 1e-4)
    assert float(analysis.share.sum()) == pytest.approx(1, abs=1e-4)
    assert_close(analysis.coordinates(rows).std(dim=0)[:6], analysis.deviation[:6], 1e-3)


def test_incremental_components_keep_the_strongest_beyond_their_rank() -> None:
    source = torch.Generator().manual_seed(1)
    scale = torch.tensor([9.0, 6.0, 4.0, *[0.3] * 27])
    rows = torch.randn(400, 30, generator=source) * scale
    analysis = IncrementalPCA(6)
    for part in rows.split(50):
        analysis.add(part)
    assert analysis.components is not None
    assert analysis.components[:3].abs().argmax(dim=1).tolist() == [0, 1, 2]
    assert_close(analysis.deviation[:3], rows.std(dim=0)[:3], 0.02)


def test_components_of_features_move_these_features() -> None:
    # Features of this generator are linear in w, so each direction must move them along its own component only.
    generator = LinearGenerator(num_styles=3, style_dim=4)
    found = ganspace_directions(generator, 4, "F2", samples=300)
    zero = torch.zeros(1, 3, 4, dtype=torch.float64)
    base = generator.synthesis(zero, until="F2")["F2"]
    moves = [generator.synthesis(zero + found[k].styles, until="F2")["F2"] - base for k in range(4)]
    moved = torch.cat(moves).flatten(1)
    gram = moved @ moved.t()
    assert_close(gram, torch.diag(gram.diagonal()), 1e-3)
    share = gram.diagonal() / gram.diagonal().sum()
    assert_close(share, torch.tensor(found.values["variance"]), 1e-2)


def test_only_features_have_components(generator: StyleGAN2) -> None:
    with pytest.raises(InputError, match="'styles' is no feature"):
        ganspace_directions(generator, site="styles", samples=10)
    with pytest.raises(InputError, match="no site 'F99'"):
        ganspace_directions(generator, site="F99", samples=10)
    with pytest.raises(InputError, match="samples is 1"):
        ganspace_directions(generator, samples=1)


# InterFaceGAN.


def planted(count: int = 600, width: int = 6) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(5)
    normal = unit(torch.randn(width, generator=source))
    return torch.randn(count, width, generator=source), normal


@pytest.mark.parametrize("kind", ["labels", "scores"])
def test_a_boundary_is_found(kind: str) -> None:
    pytest.importorskip("sklearn")
    codes, normal = planted()
    scores = codes.double() @ normal - 0.3
    found = fit_boundary(codes, (scores > 0) if kind == "labels" else scores)
    assert float(found.normal.norm()) == pytest.approx(1)
    assert float(found.normal @ normal) > 0.98
    assert found.accuracy > 0.95 and found.held_out == (180 if kind == "labels" else 90)
    assert float((found.classify(codes) == (scores > 0)).double().mean()) > (0.96 if kind == "labels" else 0.85)


def test_a_boundary_without_meaning_is_right_by_chance() -> None:
    pytest.importorskip("sklearn")
    codes, _ = planted(400)
    labels = torch.arange(400) % 2
    assert 0.3 < fit_boundary(codes, labels).accuracy < 0.7


@pytest.mark.parametrize(
    ("scores", "extremes", "words"),
    [
        (torch.ones(20), 0.25, "All scores are alike"),
        (torch.arange(20) == 3, 0.25, "1 samples with the attribute and 19 without"),
        (torch.arange(19.0), 0.25, "scores \\[N\\]"),
        (torch.arange(20.0), 0.6, "extremes is 0.6"),
    ],
)
def test_scores_that_give_no_boundary(scores: Tensor, extremes: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit_boundary(planted(20)[0], scores, extremes=extremes)


def test_without_scikit_learn_the_extra_is_named(generator: StyleGAN2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(MissingExtraError, match=r'pip install "saminv\[directions\]"'):
        fit_boundary(planted(40)[0], torch.arange(40.0))
    with pytest.raises(MissingExtraError, match=r"saminv\[directions\]"):
        interfacegan_directions(generator, {"a": lambda image: pytest.fail("nothing must be rendered before")})


def test_conditions_are_those_of_the_published_code() -> None:
    source = torch.Generator().manual_seed(2)
    n, m, k = unit(torch.randn(3, 9, generator=source))
    assert_close(conditioned(n, [m]), unit(n - (n @ m) * m), 1e-10)
    nm, nk, mk = n @ m, n @ k, m @ k
    alpha, beta = (nm - nk * mk) / (1 - mk**2), (nk - nm * mk) / (1 - mk**2)
    assert_close(conditioned(n, [m, k]), unit(n - alpha * m - beta * k), 1e-10)
    assert torch.equal(conditioned(n, []), n)
    with pytest.raises(InputError, match="nothing of the direction"):
        conditioned(n, [-2 * n])


def test_directions_across_boundaries_leave_conditions_alone(generator: StyleGAN2) -> None:
    pytest.importorskip("sklearn")
    codes = sample_codes(generator, 300, 4)
    bright = [float(x) for x in codes @ torch.ones(generator.style_dim)]
    scores = {"sum": torch.tensor(bright), "first": codes[:, 0] > 0, "red": lambda image: image[:, 0].mean(dim=(1, 2))}
    found = interfacegan_directions(generator, scores, conditions={"sum": ["first", "red"]}, samples=300, seed=4)
    assert list(found.directions) == ["sum", "first", "red"]
    assert min(found.values["accuracy"][:2]) > 0.85
    plain = interfacegan_directions(generator, {"first": scores["first"]}, samples=300, seed=4)
    assert abs(float(unit(found["sum"].styles[0]) @ unit(plain["first"].styles[0]))) < 1e-4
    assert float(unit(found["first"].styles[0])[0]) > 0.8
    for name, deviation in zip(found.directions, found.values["deviation"]):
        assert float(found[name].styles[0].norm()) == pytest.approx(deviation, rel=1e-5)
    with pytest.raises(InputError, match="'height', which has no scores"):
        interfacegan_directions(generator, scores, conditions={"sum": ["height"]})


def test_scores_are_checked(generator: StyleGAN2) -> None:
    codes = sample_codes(generator, 5, 0)
    for wrong in (torch.zeros(4), torch.zeros(5, 1), torch.tensor([1.0, 2, 3, 4, torch.nan])):
        with pytest.raises(InputError, match="5 samples need"):
            scored(generator, codes, {"a": wrong})
    for none in ({}, lambda image: image.mean(dim=(1, 2, 3))):
        with pytest.raises(InputError, match="by a table of scores"):
            scored(generator, codes, none)
    for words in (["yes"] * 5, lambda image: None):
        with pytest.raises(InputError, match="scores 'a' are no numbers"):
            scored(generator, codes, {"a": words})
    found = scored(generator, codes, {"red": lambda image: image[:, 0].mean(dim=(1, 2)), "n": torch.arange(5)})
    pictures = generator.synthesis(codes[:, None].expand(-1, generator.num_styles, -1)).clamp(-1, 1)
    assert_close(found["red"], pictures[:, 0].mean(dim=(1, 2)).double(), 1e-5)
    assert found["n"].tolist() == [0, 1, 2, 3, 4] and list(found) == ["red", "n"]


# Regression.


def test_each_regressed_direction_moves_its_own_attribute() -> None:
    source = torch.Generator().manual_seed(3)
    codes = torch.randn(800, 7, generator=source) @ torch.randn(7, 7, generator=source)
    gradients = torch.randn(7, 3, generator=source)
    fit = regress(codes, codes @ gradients + 5)
    assert_close(fit.directions.float() @ gradients, torch.eye(3), 0.02)
    assert float(fit.quality.min()) > 0.99
    for alike in (torch.ones(800, 1), (torch.arange(800) < 600)[:, None]):
        with pytest.raises(InputError, match="same for all samples, or for the last quarter"):
            regress(codes, alike)
    with pytest.raises(InputError, match="15 samples; a regression needs 16"):
        regress(codes[:15], torch.arange(15.0)[:, None])


def test_strength_one_of_a_regression_is_a_deviation_of_the_attribute() -> None:
    generator = LinearGenerator(style_dim=5)
    found = regression_directions(generator, {"red": lambda image: 7 * image[:, 0].mean(dim=(1, 2))}, samples=400)
    codes = sample_codes(generator, 400, 8)
    red = [7 * generator.synthesis((codes + s)[:, None].expand(-1, 3, -1))[:, 0].mean(dim=(1, 2)) for s in (0, 0)]
    shifted_codes = (codes + found["red"].styles[0])[:, None].expand(-1, 3, -1)
    moved = 7 * generator.synthesis(shifted_codes)[:, 0].mean(dim=(1, 2)) - red[0]
    assert float(moved.mean()) == pytest.approx(float(red[0].std()), rel=0.15)
    assert found.values["r2"][0] > 0.9


# Sets, their files, and names.


def test_a_set_comes_back_whole(generator: StyleGAN2, tmp_path) -> None:
    first = sefa_directions(generator, 3)
    channels = {"layers.3.affine": torch.randn(5), "torgb.2.affine": torch.randn(2)}
    mixed = {"a": LinearDirection(first[0].styles, channels, {"layers.3.affine": 3, "torgb.2.affine": 3})}
    for found in (first, dataclasses.replace(first, directions=mixed, values={"channels": [7.0]}, name="text")):
        again = DirectionSet.load(found.save(tmp_path / "set.safetensors"))
        assert list(again.directions) == list(found.directions) and again.references == found.references
        for name in found.directions:
            assert torch.equal(again[name].styles, found[name].styles)
            assert again[name].channels.keys() == found[name].channels.keys()
            assert all(torch.equal(again[name].channels[k], x) for k, x in found[name].channels.items())
            assert again[name].slots == found[name].slots
        fields = ("name", "method", "fingerprint", "slots", "settings")
        assert all(getattr(again, field) == getattr(found, field) for field in fields)
        assert {k: list(v) for k, v in again.values.items()} == {k: list(v) for k, v in found.values.items()}


def test_kept_sets_are_known_by_name(generator: StyleGAN2) -> None:
    assert direction_names(generator) == [] == kept_names(generator)
    found = sefa_directions(generator, 3)
    assert found.keep().parent == directions_folder() / generator.fingerprint[:16]
    assert direction_names(generator) == ["sefa/0", "sefa/1", "sefa/2"]
    assert torch.equal(resolve_direction("sefa/1", generator)[0], found[1].styles)
    part = find_direction("sefa/1@0-1,3", generator)
    assert isinstance(part, LinearDirection)
    assert part.styles.any(dim=1).nonzero().flatten().tolist() == [0, 1, 3]
    other = toy_stylegan2(seed=1)
    assert direction_names(other) == []
    with pytest.raises(InputError, match=r"Did you mean 'sefa/0'\? Known: sefa/0 to sefa/2; or give"):
        find_direction("sefa-0", generator)
    with pytest.raises(InputError, match=r"has no direction '7'. It has: 0, 1, 2"):
        find_direction("sefa/7", generator)
    with pytest.raises(InputError, match="Kept: sefa"):
        kept_set(generator, "nothing")


def test_sets_of_another_generator_are_refused(generator: StyleGAN2, tmp_path) -> None:
    found = sefa_directions(toy_stylegan2(seed=1), 2)
    path = found.save(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="found for another generator"):
        find_direction(f"{path}#0", generator)
    place = dataclasses.replace(found, fingerprint=generator.fingerprint).keep()
    found.save(place)
    with pytest.raises(CheckpointError, match="belongs to another generator"):
        kept_set(generator, "sefa")


def test_files_of_sets_have_keys(generator: StyleGAN2, tmp_path) -> None:
    found = sefa_directions(generator, 2)
    path = found.save(tmp_path / "mine.safetensors")
    assert torch.equal(resolve_direction(f"{path}#1", generator)[0], found[1].styles)
    with pytest.raises(InputError, match="holds 2 directions; say which"):
        resolve_direction(path, generator)


def test_damaged_sets(generator: StyleGAN2, tmp_path) -> None:
    path = sefa_directions(generator, 2).save(tmp_path / "set.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[:-40])
    with pytest.raises(CheckpointError, match="no readable file of directions"):
        DirectionSet.load(path)
    path.write_bytes(data.replace(b'[\\"0\\", \\"1\\"]', b'[\\"0\\", \\"2\\"]'))
    with pytest.raises(CheckpointError, match="damaged"):
        DirectionSet.load(path)
    with pytest.raises(InputError, match="cannot name a set"):
        dataclasses.replace(sefa_directions(generator, 2), name="a/b")


def test_slots_are_read() -> None:
    assert parse_slots("0-2,5,1", 8) == [0, 1, 2, 5]
    for wrong in ("", "a", "8", "3-1", "0--2"):
        with pytest.raises(InputError, match="numbers from 0 to 7"):
            parse_slots(wrong, 8)


def test_the_spread_of_w_is_measured_by_samples(generator: StyleGAN2) -> None:
    rows = torch.eye(generator.style_dim)[:3]
    assert_close(spread_along(generator, rows), sample_codes(generator, 2000, 0).std(dim=0)[:3], 1e-5)
