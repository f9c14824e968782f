"""Edits: several at once, how far is safe, one segment only, strips and animations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import assert_close
from PIL import Image
from toys import perturbed, toy_problem, toy_stylegan2, toy_stylegan3

import saminv
from saminv import InputError, OutputError, Solution, images
from saminv.editing import Bounds, LinearDirection, resolve_direction, safe_strength, sefa_directions
from saminv.editing.apply import edit_at
from saminv.editing.editability import editability
from saminv.editing.edits import applied_edit
from saminv.editing.references import caption, signed
from saminv.editing.strips import draw_frames, draw_samples, draw_strip, sample_solution
from saminv.editing.within import FROZEN_FROM, freeze, frozen_sites, widened
from saminv.generators import StyleGAN2, style_layers
from saminv.metrics.pixel import MSE, PSNR
from saminv.optim import Adam, solve
from saminv.segment import SEGMENTERS, AbstractSegmenter, Segments
from saminv.spaces.priors import gaussian_prior, style_distance

NAMES = {"1": "Car", "2": "sky"}


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    return toy_stylegan2()


@pytest.fixture(scope="module")
def solution(generator: StyleGAN2) -> Solution:
    """Two images in W+ and F4, whose left half is a car."""
    problem = toy_problem(generator, ["W+", "F4"], batch=2)
    found = solve(problem, Adam(), perturbed(problem), max_steps=2)
    segments = torch.where(torch.arange(32) < 16, 1, 2).expand(2, 32, 32).contiguous()
    return replace(found, segments=segments, provenance={**found.provenance, "segment_names": NAMES})


@pytest.fixture(scope="module")
def rows(generator: StyleGAN2) -> torch.Tensor:
    return torch.randn(2, generator.num_styles, generator.style_dim, generator=torch.Generator().manual_seed(4))


# Several at once.


def test_edits_at_once_are_the_sum_of_their_changes(solution, rows) -> None:
    both = solution.edit([(rows[0], 1.0), (rows[1], -0.5)], [0.0, 1.0, 2.0])
    assert_close(both[1::3], solution.edit(rows[0] - 0.5 * rows[1]), 1e-5)
    assert_close(both[2::3], solution.edit(2 * rows[0] - rows[1]), 1e-5)
    assert_close(both[0::3], solution.image, 1e-5)
    assert torch.equal(saminv.edit(solution, [(rows[0], 1.0)]), solution.edit(rows[0]))


def test_a_table_of_names_is_applied_at_once(solution, generator) -> None:
    found = sefa_directions(generator, 2)
    found.keep()
    both = solution.edit({"sefa/0": 0.4, "sefa/1@2-3": -1})
    change = 0.4 * resolve_direction("sefa/0", generator) - resolve_direction("sefa/1@2-3", generator)
    assert_close(both, solution.edit(change), 1e-5)
    with pytest.raises(InputError, match="Unknown direction 'nothing'"):
        solution.edit({"sefa/0": 1.0, "nothing": 1.0})


def test_rows_of_two_numbers_are_an_array_and_no_edits() -> None:
    narrow = toy_stylegan2(w_dim=2)
    found = sample_solution(narrow, 1)
    array = [[0.5, 1.0]] * narrow.num_styles
    assert torch.equal(found.edit(array), found.edit(torch.tensor(array)))


def test_captions() -> None:
    assert caption("some/folder/pca.pt#10@7-9") == "pca#10@7-9"
    assert caption("sefa/3@0-1") == "sefa/3@0-1" and caption({"a": 1, "b.npy": -0.5}) == "a+b=-0.5"
    assert caption({"z": torch.ones(3), "class": torch.ones(3)}) == "z+class"
    assert [signed(strength) for strength in (-2.0, 0.0, 0.5)] == ["-2", "0", "+0.5"]


def test_channels_are_edited_in_pictures_with_weights_of_their_own(rows) -> None:
    """Image by image, as the channels of one picture are not those of another."""
    own = toy_stylegan2()
    problem = toy_problem(own, ["W+", "G"], batch=2)
    found = solve(problem, Adam(), perturbed(problem, 0.01), max_steps=1)
    layer = style_layers(own)[2]
    direction = LinearDirection(rows[0], {layer.name: torch.linspace(-1, 1, layer.channels)}, {layer.name: layer.slot})
    edited = edit_at(found, direction, torch.tensor([0.5, -1.0]))
    for row, strength in enumerate((0.5, -1.0)):
        assert_close(edited[row : row + 1], found[row].edit(direction, strength), 1e-5)
    assert (edited - found.edit(rows[0], 0.5))[0].abs().max() > 1e-3
    mask = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    assert_close(edit_at(found, direction, torch.tensor([0.5, -1.0]), mask), edited, 1e-5)


def test_an_edit_of_channels_comes_through_whole(generator) -> None:
    layer = style_layers(generator)[-2]
    still = torch.zeros(generator.num_styles, generator.style_dim)
    direction = LinearDirection(still, {layer.name: torch.ones(layer.channels)}, {layer.name: layer.slot})
    code = sample_solution(generator, 2, seed=9)
    assert_close(editability(code, [direction]), torch.ones(2), 1e-3)


# How far.


def test_a_safe_step_ends_where_the_code_becomes_unlikely(solution, generator, rows) -> None:
    bounds = Bounds(quantile=0.9, slack=1.05)
    strength = safe_strength(solution, rows[0], bounds=bounds)
    styles, statistics = solution.latents["W+"]["w"], generator.statistics()
    samples = generator.mapping(generator.sample_z(1000, 2))
    usual = (gaussian_prior(samples, statistics) / 8).sqrt().quantile(0.9)
    own = style_distance(generator, styles)
    limit = torch.maximum(usual, 1.05 * own)
    at = style_distance(generator, styles + (strength[:, None, None] * rows[0]).float())
    beyond = style_distance(generator, styles + ((strength + 0.02)[:, None, None] * rows[0]).float())
    assert ((strength > 0) & (strength < 10)).all()
    assert (at <= limit * (1 + 1e-4)).all() and (beyond > limit).all()


def test_safe_strengths_are_multiples_for_each_image_and_side(solution, rows) -> None:
    up, down = (safe_strength(solution, rows[0], sign) for sign in (1, -1))
    assert not torch.allclose(up, down)
    edited, applied = applied_edit(solution, rows[0], [-1.0, 0.5], safe=True)
    assert_close(applied, torch.stack([-down, 0.5 * up], dim=1), 1e-6)
    for row in range(2):
        one = solution[row]
        assert_close(edited[2 * row : 2 * row + 1], one.edit(rows[0], -float(down[row])), 1e-4)
        assert_close(edited[2 * row + 1 : 2 * row + 2], one.edit(rows[0], 0.5 * float(up[row])), 1e-4)


@pytest.mark.parametrize(("metric", "limit"), [(MSE(), 0.003), (PSNR(), 32.0)])
def test_a_safe_step_keeps_what_a_metric_compares(solution, rows, metric, limit) -> None:
    free = safe_strength(solution, rows[0], bounds=Bounds(slack=100))
    strength = safe_strength(solution, rows[0], bounds=Bounds(slack=100, metric=metric, limit=limit))
    assert ((strength <= free) & (strength > 0)).all() and (strength < free).any()
    for row in range(2):
        one, prepared = solution[row], metric.prepare(solution[row].image.clamp(-1, 1))
        score = float(metric(one.edit(rows[0], float(strength[row])).clamp(-1, 1), prepared))
        beyond = float(metric(one.edit(rows[0], 1.2 * float(strength[row]) + 0.02).clamp(-1, 1), prepared))
        assert score >= limit if metric.higher_is_better else score <= limit
        if strength[row] < free[row]:
            assert beyond < limit if metric.higher_is_better else beyond > limit


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"quantile": 0.0}, "quantile"), ({"slack": 0.5}, "slack"), ({"metric": "mse"}, "both, metric= and limit=")],
)
def test_impossible_bounds(settings, words) -> None:
    with pytest.raises(InputError, match=words):
        Bounds(**settings)


# Where.


def test_outside_of_a_segment_nothing_changes(solution, rows) -> None:
    everywhere, inside = solution.edit(rows[0]), solution.edit(rows[0], within="car")
    assert torch.equal(inside[..., 17:], solution.image[..., 17:])
    assert (everywhere - solution.image)[..., 17:].abs().max() > 0.05
    change = (inside - solution.image)[..., :12].square().mean()
    assert change > 0.3 * (everywhere - solution.image)[..., :12].square().mean()
    assert torch.equal(solution.edit(rows[0], within=1), inside)
    assert_close(solution.edit(rows[0], 0.0, within="car"), solution.image, 1e-5)


def test_features_are_blended_and_not_only_pictures(solution, rows, generator) -> None:
    assert {"F5", "F6", "rgb6.block"} <= set(frozen_sites(generator))
    assert all(min(generator.site(n).shape[1:]) >= FROZEN_FROM for n in frozen_sites(generator) if n[0] == "F")
    inside, pasted = solution.edit(rows[0], within="car"), solution.edit(rows[0])
    assert (inside - pasted)[..., 14:16].abs().max() > 1e-3


def test_several_segments_are_edited_together(solution, rows) -> None:
    segments = torch.where(torch.arange(32) < 24, solution.segments, 3)
    names = {**NAMES, "3": "sun"}
    parts = replace(solution, segments=segments, provenance={**solution.provenance, "segment_names": names})
    edited = parts.edit(rows[0], within=["car", 3])
    assert torch.equal(edited, parts.edit(rows[0], within=(segments != 2)[:, None].float()))
    for words in (["car", "boat"], [99]):
        with pytest.raises(InputError, match="No image has a segment"):
            parts.edit(rows[0], within=words)
    for nothing in ([], [None], 0.5):
        with pytest.raises(InputError, match="names or ids of segments, at least one"):
            parts.edit(rows[0], within=nothing)


def test_the_margin_around_a_picture_is_frozen_like_its_border() -> None:
    """Layers of StyleGAN3 read beyond the border."""
    aliasfree = toy_stylegan3()
    inside = torch.zeros(1, 1, *aliasfree.image_size, dtype=torch.bool)
    inside[..., : aliasfree.image_size[1] // 2] = True
    found = sample_solution(aliasfree, 1)
    names = frozen_sites(aliasfree)
    unedited = aliasfree.synthesis(found.latents["W+"]["w"], until=names)
    assert names
    for tap in freeze(aliasfree, inside, unedited, found.regions):
        assert tap.mask[..., :, -1].eq(1).all() and tap.mask[..., :, 0].eq(0).all()


def test_a_mask_takes_the_place_of_a_segment(solution, rows) -> None:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :8, :] = 1
    edited = solution.edit(rows[0], within=mask)
    assert torch.equal(edited[:, :, 9:], solution.image[:, :, 9:]) and not torch.equal(edited, solution.image)
    with pytest.raises(InputError, match="within is a mask"):
        solution.edit(rows[0], within=mask[0])


class Moved(AbstractSegmenter):
    """Sees the car in the upper half, wherever it was."""

    def __call__(self, image: torch.Tensor) -> Segments:
        ids = torch.where(torch.arange(32)[:, None] < 16, 5, 6).expand(len(image), 32, 32).contiguous()
        return Segments(ids, {5: "car", 6: "sky"})


def test_a_segment_is_followed_to_where_the_edit_takes_it(solution, rows, monkeypatch) -> None:
    followed = solution.edit(rows[0], within="car", follow=Moved())
    assert not torch.equal(followed[:, :, :12, 20:], solution.image[:, :, :12, 20:])
    assert torch.equal(followed[:, :, 18:, 18:], solution.image[:, :, 18:, 18:])
    monkeypatch.setitem(SEGMENTERS._entries, "moved", Moved)
    stated = replace(solution, provenance={**solution.provenance, "segmenter": "moved"})
    assert torch.equal(stated.edit(rows[0], within="car"), followed)
    assert torch.equal(stated.edit(rows[0], within="car", follow=None), solution.edit(rows[0], within="car"))
    with pytest.raises(InputError, match="Unknown segmenter"):
        solution.edit(rows[0], within="car", follow="nothing")


def test_segments_that_are_not_there(solution, rows) -> None:
    with pytest.raises(InputError, match=r"has a segment 'boat'\. There are: Car, sky"):
        solution.edit(rows[0], within="boat")
    with pytest.raises(InputError, match="has no segments"):
        replace(solution, segments=None).edit(rows[0], within="car")


def test_a_margin_moves_the_border_outwards() -> None:
    mask = torch.zeros(1, 1, 100, 120, dtype=torch.bool)
    mask[..., 50, 60] = True
    assert int(widened(mask, 0.02).sum()) == 25 and torch.equal(widened(mask, 0.0), mask)


def test_an_inversion_states_its_segmenter(generator) -> None:
    quick = {"generator": generator, "metric": "mse", "steps": 0, "encoder": "mean"}
    picture = generator.synthesis(generator.mapping(generator.sample_z(1, 1))).clamp(-1, 1)
    assert saminv.invert(picture, segmenter="none", **quick).provenance["segmenter"] == "none"
    assert saminv.invert(picture, segmenter=Moved(), **quick).provenance["segmenter"] == ""
    assert SEGMENTERS.name_of(SEGMENTERS.get("demo")) == "demo"


# Pictures.


def test_a_strip_has_a_row_per_image_and_direction(solution, rows) -> None:
    one = draw_strip(solution[0], [rows[0]], [-1.0, 0.0, 1.0])
    more = draw_strip(solution, [rows[0], rows[1]], [-1.0, 0.0, 1.0])
    assert one.shape[3] == more.shape[3] and more.shape[2] > 3.5 * one.shape[2]
    wide = draw_strip(solution[0], [rows[0]], [-1.0, 0.0, 1.0, 2.0])
    assert wide.shape[3] > one.shape[3] and wide.shape[2] == one.shape[2]
    with pytest.raises(InputError, match="no direction to show"):
        draw_strip(solution, [])


def test_samples_can_be_shown(generator, rows) -> None:
    found = sample_solution(generator, 2, seed=5)
    styles = generator.mapping(generator.sample_z(2, 5))
    assert_close(found.image, generator.synthesis(styles), 1e-6)
    assert_close(found.edit(rows[0]), generator.synthesis(styles + rows[0]), 1e-5)
    assert draw_samples(generator, [rows[0]], [0.0, 1.0]).shape[0] == 1
    conditional = toy_stylegan2(label_dim=3)
    assert sample_solution(conditional, 1, label=2).provenance["label"] == 2


def test_frames_go_through_the_strengths_and_back(solution, rows) -> None:
    frames = draw_frames(solution[0], [rows[0], rows[1]], [-1.0, 0.0, 1.0], 4)
    assert frames.shape == (32, 3, 32, 32)
    expected = solution[0].edit(rows[0], [-1.0, -0.75, 0.0, 1.0])
    for frame, row in ((0, 0), (1, 1), (4, 2), (8, 3), (12, 2)):
        assert_close(frames[frame], expected[row], 1e-5)
    assert_close(frames[16], solution[0].edit(rows[1], -1.0)[0], 1e-5)
    with pytest.raises(InputError, match="shows one image; this solution has 2"):
        draw_frames(solution, [rows[0]], [0.0, 1.0])
    for strengths, count in (([1.0], 4), ([0.0, 1.0], 0)):
        with pytest.raises(InputError, match=r"two strengths .* and a frame or more"):
            draw_frames(solution[0], [rows[0]], strengths, count)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_animations_move(suffix: str, tmp_path) -> None:
    frames = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 3, 16, 20)
    path = images.save_animation(tmp_path / f"a{suffix}", frames, rate=10)
    with Image.open(path) as found:
        assert found.n_frames == 5 and found.size == (20, 16) and found.info["loop"] == 0
        for k in range(5):
            found.seek(k)
            found.load()
            assert abs(found.convert("RGB").getpixel((3, 3))[0] - round(63.75 * k)) <= 1
            assert found.info["duration"] == 100


def test_animations_that_cannot_be_written(tmp_path) -> None:
    frames = torch.zeros(2, 3, 8, 8)
    with pytest.raises(OutputError, match=r"is none of \.gif, \.png, \.webp"):
        images.save_animation(tmp_path / "a.mp4", frames)
    with pytest.raises(InputError, match="rate is 0"):
        images.save_animation(tmp_path / "a.gif", frames, rate=0)
    assert not list(tmp_path.iterdir())
