"""Directions in the files of published projects, and that nothing in them is executed."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close
from torch import Tensor
from toys import toy_stylegan2

from saminv import CheckpointError, InputError
from saminv.editing import find_direction, read_published, resolve_direction
from saminv.editing.change import Coordinate
from saminv.editing.published import StyleClipMapper
from saminv.generators import StyleGAN2

SLOTS, WIDTH, COUNT = 8, 12, 5


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    return toy_stylegan2()


@pytest.fixture()
def source() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def change_of(direction, styles: Tensor, strength: float) -> Tensor:
    found = direction.change(styles, torch.full((len(styles),), strength, dtype=torch.float64))
    assert not found.channels
    return found.styles.expand_as(styles)


@pytest.mark.parametrize("shape", [(1, SLOTS, WIDTH), (SLOTS, WIDTH), (1, SLOTS * WIDTH), (1, WIDTH), (WIDTH,)])
@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_arrays_of_all_projects(shape, suffix, generator, source, tmp_path) -> None:
    array = torch.randn(shape, generator=source)
    path = tmp_path / f"age{suffix}"
    np.save(path, array.numpy()) if suffix == ".npy" else torch.save(array, path)
    expected = array.reshape(SLOTS, WIDTH) if array.numel() > WIDTH else array.reshape(1, WIDTH).expand(SLOTS, -1)
    assert torch.equal(resolve_direction(path, generator)[0], expected)
    assert torch.equal(resolve_direction(f"{path}@2-3", generator)[0, 2:4], expected[2:4])


def test_several_directions_in_one_array(generator, source, tmp_path) -> None:
    rows = torch.randn(COUNT, WIDTH, generator=source)
    np.save(tmp_path / "many.npy", rows.numpy())
    assert torch.equal(resolve_direction(f"{tmp_path}/many.npy#3", generator)[0, 0], rows[3])
    for wrong in ("", "#5", "#x"):
        with pytest.raises(InputError, match="directions 0 to 4; say which"):
            resolve_direction(f"{tmp_path}/many.npy{wrong}", generator)


def test_named_arrays(generator, source, tmp_path) -> None:
    rows = torch.randn(2, WIDTH, generator=source).numpy()
    np.savez(tmp_path / "two.npz", age=rows[0], smile=rows[1])
    assert torch.equal(resolve_direction(f"{tmp_path}/two.npz#smile", generator)[0, 0], torch.tensor(rows[1]))
    with pytest.raises(CheckpointError, match=r"holds 2 arrays; .*#NAME, of: age, smile"):
        resolve_direction(tmp_path / "two.npz", generator)


@pytest.mark.parametrize("form", ["pt", "npz"])
def test_ganspace_components(form: str, generator, source, tmp_path) -> None:
    comp = torch.linalg.qr(torch.randn(WIDTH, COUNT, generator=source))[0].t()[:, None]
    std, mean = torch.rand(COUNT, generator=source) + 0.5, torch.randn(1, WIDTH, generator=source)
    path = tmp_path / f"pca.{form}"
    if form == "pt":
        torch.save({"mean": mean, "comp": comp, "std": std}, path)
    else:
        arrays = {"lat_comp": comp, "lat_stdev": std, "lat_mean": mean[None], "act_comp": comp, "var_ratio": std}
        np.savez(path, **{name: array.numpy() for name, array in arrays.items()})
    added = resolve_direction(f"{path}#2@1-3", generator)[0]
    assert_close(added[1], std[2] * comp[2, 0], 1e-6)
    assert not added[[0, 4, 7]].any()
    # The rule of the published editors: it sets the coordinate that the first row has.
    styles = torch.randn(3, SLOTS, WIDTH, generator=source)
    found = read_published(path, generator, 2, set_coordinate=True).in_slots([1, 2, 3])
    assert isinstance(found, Coordinate)
    coordinate = ((styles[:, 0] - mean) * comp[2]).sum(dim=1) / std[2]
    expected = (4.0 - coordinate)[:, None] * comp[2] * std[2]
    got = change_of(found, styles, 4.0)
    assert_close(got[:, 2], expected, 1e-5)
    assert not got[:, 0].any() and not got[:, 4:].any()


def plain_mapper(state: dict[str, Tensor], group: str, x: Tensor) -> Tensor:
    """One mapper on `[k, D]` styles, number by number as its code is written."""
    x = x / (x.square().mean(dim=0, keepdim=True) + 1e-8).sqrt()
    for k in range(1, 5):
        weight, bias = state[f"mapper.{group}.mapping.{k}.weight"], state[f"mapper.{group}.mapping.{k}.bias"]
        x = torch.stack([weight @ row / math.sqrt(WIDTH) * 0.01 + bias * 0.01 for row in x])
        x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
    return x


@pytest.mark.parametrize("groups", [("course_mapping", "fine_mapping"), ("course_mapping", "medium_mapping"), ("",)])
def test_styleclip_mappers(groups: tuple[str, ...], generator, source, tmp_path) -> None:
    names = [group or "mapping" for group in groups]
    state = {
        f"mapper.{group}.mapping.{k}.{part}": 100 * torch.randn(*shape, generator=source)
        for group in names
        for k in range(1, 5)
        for part, shape in (("weight", (WIDTH, WIDTH)), ("bias", (WIDTH,)))
    }
    torch.save({"state_dict": state, "opts": {"no_medium_mapper": True, "exp_dir": "x"}}, tmp_path / "mohawk.pt")
    found = find_direction(tmp_path / "mohawk.pt", generator)
    assert isinstance(found, StyleClipMapper)
    styles = torch.randn(2, SLOTS, WIDTH, generator=source)
    got = change_of(found, styles, 1.5)
    spans = {"course_mapping": (0, 4), "medium_mapping": (4, 8), "fine_mapping": (8, None), "mapping": (0, None)}
    for group, (first, end) in spans.items():
        if group in names and first < SLOTS:
            rows = [plain_mapper(state, group, row[first:end]) for row in styles]
            assert_close(got[:, first:end], 0.15 * torch.stack(rows), 1e-4, group)
        elif group != "mapping" and "mapping" not in names:
            assert not got[:, first:end].any()
    part = change_of(found.in_slots([1]), styles, 1.5)
    assert torch.equal(part[:, 1], got[:, 1]) and not part[:, 2:].any()
    with pytest.raises(InputError, match="no tensor: it depends on the styles"):
        resolve_direction(tmp_path / "mohawk.pt", generator)


class Marker:
    """Unpickling one leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickles_are_not_executed(generator, tmp_path) -> None:
    bad = Marker(tmp_path / "executed")
    torch.save({"mean": bad}, tmp_path / "bad.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(bad))
    np.save(tmp_path / "bad.npy", np.array([bad], dtype=object), allow_pickle=True)
    for name, words in (("bad.pt", "more than plain arrays"), ("plain.pt", "damaged"), ("bad.npy", "no readable")):
        with pytest.raises(CheckpointError, match=words):
            read_published(tmp_path / name, generator)
    assert not (tmp_path / "executed").exists()


def test_files_that_do_not_fit(generator, tmp_path) -> None:
    torch.save({"comp": torch.zeros(3, 1, 9), "std": torch.ones(3), "mean": torch.zeros(1, 9)}, tmp_path / "nine.pt")
    torch.save({"comp": torch.zeros(3, 1, WIDTH)}, tmp_path / "half.pt")
    torch.save({"state_dict": {"encoder.0": torch.zeros(1)}}, tmp_path / "encoder.pt")
    small = {f"mapper.mapping.mapping.1.{k}": torch.zeros(9, 9)[: None if k == "weight" else 0] for k in ("weight",)}
    torch.save({"state_dict": {**small, "mapper.mapping.mapping.1.bias": torch.zeros(9)}}, tmp_path / "small.pt")
    np.save(tmp_path / "text.npy", np.array(["a"]))
    for name, error, words in (
        ("nine.pt#0", InputError, "this generator has D = 12"),
        ("half.pt#0", CheckpointError, "has no array 'std'"),
        ("encoder.pt", CheckpointError, "not of a mapper"),
        ("small.pt", InputError, "not for styles of 12"),
        ("text.npy", CheckpointError, "array of numbers"),
        ("gone.pt", InputError, "does not exist"),
    ):
        with pytest.raises(error, match=words):
            find_direction(f"{tmp_path}/{name}", generator)
