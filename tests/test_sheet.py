"""The sheet: what it shows, for any generator, batch and edits."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_stylegan2

import saminv
from saminv import images
from saminv.editing import _draw
from saminv.editing._summary import align, percent, summarise, table
from saminv.editing.sheet import draw_sheet, edit_caption


@pytest.fixture(scope="module")
def solution() -> saminv.Solution:
    generator = toy_stylegan2()
    target = generator.synthesis(generator.mapping(generator.sample_z(2, seed=9))).clamp(-1, 1)
    labels = torch.arange(32)[:, None].expand(32, 32) // 16
    regions = saminv.GivenRegions(labels, ["W+", "F4"])
    return saminv.invert(
        target,
        ["W+", "F4"],
        generator=generator,
        metric="mse",
        encoder="mean",
        segmenter=labels,
        invertibility=regions,
        steps=1,
    )


@pytest.fixture(scope="module")
def direction(solution: saminv.Solution) -> torch.Tensor:
    return torch.linspace(-1, 1, solution.generator.style_dim)


def page(solution: saminv.Solution, edits: int) -> _draw.Page:
    return _draw.Page(_draw.panel_size(*solution.image.shape[-2:]), 5 + edits)


def panel(sheet: torch.Tensor, layout: _draw.Page, column: int, top: int) -> np.ndarray:
    """Pixels of a panel whose upper edge is at ``top``."""
    left = layout.left(column) + (layout.cell_width - layout.panel[1]) // 2
    return images.to_uint8(sheet)[0, top : top + layout.panel[0], left : left + layout.panel[1]]


def header(layout: _draw.Page) -> int:
    return layout.margin + 2 * _draw.LINE + 14


def test_a_row_per_image_and_a_column_per_edit(solution: saminv.Solution, direction: torch.Tensor) -> None:
    none = draw_sheet(solution, [])
    one = draw_sheet(solution, [(direction, 1.0)])
    single = draw_sheet(solution[0], [])
    assert none.shape[:2] == (1, 3) and none.dtype == torch.float32
    assert none.min() >= -1 and none.max() <= 1
    layout = page(solution, 0)
    assert none.shape[3] == layout.width
    assert one.shape[3] - none.shape[3] == layout.cell_width + layout.gap
    row = none.shape[2] - single.shape[2]
    assert row > layout.panel[0]
    assert torch.equal(none[:, :, : single.shape[2] - layout.margin], single[:, :, : -layout.margin])


def test_panels_show_the_pictures_pixel_by_pixel(solution: saminv.Solution, direction: torch.Tensor) -> None:
    sheet, layout = draw_sheet(solution, [(direction, 0.0), (direction, 2.0)]), page(solution, 2)
    top = header(layout)
    factor = layout.panel[0] // 32
    for column, expected in (
        (0, solution.target[:1]),
        (3, solution.image[:1]),
        (5, solution.image[:1]),
        (6, saminv.edit(solution, direction, 2.0)[:1]),
    ):
        shown = panel(sheet, layout, column, top)[factor // 2 :: factor, factor // 2 :: factor]
        difference = np.abs(shown.astype(int) - images.to_uint8(expected)[0].astype(int))
        assert difference.max() <= 1, column


def test_error_is_black_where_the_reconstruction_is_exact(solution: saminv.Solution) -> None:
    image = solution.target.clone()
    image[..., 16:] = -image[..., 16:]
    exact = dataclasses.replace(solution, image=image)
    sheet, layout = draw_sheet(exact, []), page(solution, 0)
    shown = panel(sheet, layout, 4, header(layout))
    half = layout.panel[1] // 2
    assert (shown[:, :half] == _draw.HEAT_RAMP[0]).all()
    assert (shown[:, half:] != _draw.HEAT_RAMP[0]).any()


def test_regions_have_the_colours_of_the_legend(solution: saminv.Solution) -> None:
    sheet, layout = draw_sheet(solution[0], []), page(solution, 0)
    colours = _draw.space_colours(["W+", "F4"], last_layer=6)
    below = images.to_uint8(sheet)[0, header(layout) + layout.panel[0] :]
    for colour in colours.values():
        assert (below == colour).all(axis=-1).sum() > 100
    shown = panel(sheet, layout, 2, header(layout)).astype(int)
    for rows, name in ((slice(2, 100), "W+"), (slice(140, 250), "F4")):
        assert np.abs(shown[rows].mean(axis=(0, 1)) - colours[name]).max() < 40


def test_comparisons_get_rows_of_their_own(solution: saminv.Solution, direction: torch.Tensor) -> None:
    plain = draw_sheet(solution, [(direction, 1.0)])
    both = draw_sheet(solution, [(direction, 1.0)], {"again": solution})
    assert both.shape[3] == plain.shape[3]
    layout = page(solution, 1)
    rows = both.shape[2] - plain.shape[2]
    assert rows > 2 * layout.panel[0]
    pixels = images.to_uint8(both)[0]
    cards = (pixels == _draw.CARD).all(axis=-1).sum()
    assert cards > 2 * layout.panel[0] * layout.panel[1]


def test_solution_method_is_the_same_picture(solution: saminv.Solution, direction: torch.Tensor) -> None:
    assert torch.equal(solution.sheet([(direction, 1.0)]), draw_sheet(solution, [(direction, 1.0)]))


def test_default_edits_are_empty_without_directions(solution: saminv.Solution) -> None:
    assert torch.equal(draw_sheet(solution), draw_sheet(solution, []))
    assert draw_sheet(dataclasses.replace(solution, generator=None)).shape[3] == page(solution, 0).width


def test_missing_parts_and_broken_numbers_are_drawn(solution: saminv.Solution, direction: torch.Tensor) -> None:
    bare = dataclasses.replace(solution, segments=None, provenance={"space_options": {}}, stats={})
    assert draw_sheet(bare, []).shape[3] == page(solution, 0).width
    assert torch.isfinite(draw_sheet(solution, [(direction, 1e30)])).all()
    strange = dataclasses.replace(solution, provenance={**solution.provenance, "names": ["Übung 車", "x" * 300]})
    assert torch.isfinite(draw_sheet(strange, [])).all()


@pytest.mark.parametrize("edits", [["car_hue"], [("car_hue",)], [("car_hue", "1")], [("nothing", 1.0)]])
def test_wrong_edits_are_named(solution: saminv.Solution, edits: list) -> None:
    with pytest.raises(saminv.InputError, match=r"car_hue|nothing"):
        draw_sheet(solution, edits)


def test_comparisons_must_show_the_same_images(solution: saminv.Solution) -> None:
    with pytest.raises(saminv.InputError, match="'one' has images"):
        draw_sheet(solution, [], {"one": solution[0]})


def test_edit_captions() -> None:
    assert edit_caption("car_hue", 1.0) == ("car_hue", "+1")
    assert edit_caption("some/folder/age.npy", -0.5) == ("age", "-0.5")
    assert edit_caption(torch.zeros(3), 0) == ("direction", "0")


def luminance(colour: tuple[int, int, int]) -> float:
    linear = [(value / 255) ** 2.2 for value in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("last", [6, 10, 16])
def test_later_layers_are_darker(last: int) -> None:
    names = ["W+", *[f"F{layer}" for layer in range(0, last + 1, 2)]]
    values = [luminance(colour) for colour in _draw.space_colours(names, last).values()]
    assert all(a > 1.08 * b for a, b in itertools.pairwise(values))


def test_a_space_keeps_its_colour() -> None:
    every = _draw.space_colours(["Z", "W", "W+", "F4", "F10"], 10)
    assert every["F4"] == _draw.space_colours(["F4"], 10)["F4"]
    assert every["Z"] == every["W"] == every["W+"]


def test_distinct_colours_are_distinct() -> None:
    colours = {_draw.distinct_colour(index) for index in range(24)}
    assert len(colours) == 24


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_panels_keep_the_shape_and_stay_of_one_size(height: int, width: int) -> None:
    shown = _draw.panel_size(height, width)
    assert max(shown) <= _draw.LARGEST_SIDE
    if min(shown) > 20:
        assert abs(shown[0] / shown[1] / (height / width) - 1) < 0.06


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_labels_stay_inside_and_leave_each_other_room(seed: int) -> None:
    source = np.random.default_rng(seed)
    labels = np.kron(source.integers(0, 5, (4, 4)), np.ones((40, 40), int))
    before = np.full((160, 160, 3), 128, np.uint8)
    after = _draw.write_labels(before, labels, {0: "sky", 1: "a very long name of a segment indeed", 2: "car", 3: ""})
    assert after.shape == before.shape
    assert (after != before).any() == bool(np.isin(labels, [0, 2]).any())


def test_summary_and_table(solution: saminv.Solution) -> None:
    rows = summarise(solution.provenance, solution.stats, solution.status)
    assert [row["name"] for row in rows] == solution.provenance["names"]
    assert rows[0]["shares"] == {"W+": 0.5, "F4": 0.5}
    assert rows[1]["psnr"] == pytest.approx(solution.stats["psnr"][1].item())
    lines = table(rows).splitlines()
    assert len(lines) == 3 and "50%" in lines[1] and rows[0]["sentence"] in lines[1]
    broken = summarise({}, {"psnr": torch.tensor([torch.inf])}, torch.tensor([3]))
    assert broken[0]["psnr"] is None and broken[0]["status"] == "non_finite" and "image0" in table(broken)


def test_small_shares_are_not_called_none() -> None:
    assert [percent(share) for share in (0.0, 0.001, 0.2, 1.0, None)] == ["0%", "<1%", "20%", "100%", "-"]
    assert align([["a", "b", "c"], ["aa", "bb", "cc"]]) == "a    b  c\naa  bb  cc"
