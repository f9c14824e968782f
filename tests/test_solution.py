"""Solutions: rows, files that come back whole or are refused, and edits by any kind of direction."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from toys import perturbed, toy_problem, toy_stylegan2

from saminv import CheckpointError, InputError, OutputError, Solution, SolutionError, Status
from saminv.generators import save_generator
from saminv.optim import Adam, BestSoFar, solve
from saminv.solution import FORMAT

FACTS = {"names": ["a", "b", "c"], "crops": [{"mode": "crop"}, {"mode": "letterbox"}, {"mode": "crop"}], "tau": 0.3}


@pytest.fixture(scope="module")
def generator():
    return toy_stylegan2()


@pytest.fixture(scope="module")
def solution(generator):
    """Three images under W+, two features and noise maps, all fields filled."""
    problem = toy_problem(generator, ["W+", "F4", "F6", "N"], batch=3)
    found = solve(problem, BestSoFar(Adam()), perturbed(problem), max_steps=2)
    segments = torch.arange(3 * 32 * 32).reshape(3, 32, 32) // 200
    status = torch.tensor([Status.COMPLETED, Status.PLATEAU, Status.NON_FINITE])
    return replace(found, segments=segments, status=status, provenance={**found.provenance, **FACTS, "generator": ""})


@pytest.fixture()
def saved(solution, tmp_path):
    return solution.save(tmp_path / "car.safetensors")


def assert_same(a: Solution, b: Solution) -> None:
    assert list(a.latents) == list(b.latents)
    pairs = [(a.latents[s][k], b.latents[s][k]) for s in a.latents for k in a.latents[s]]
    assert [sorted(value) for value in a.latents.values()] == [sorted(value) for value in b.latents.values()]
    pairs += [(a.image, b.image), (a.target, b.target), (a.status, b.status)]
    assert set(a.stats) == set(b.stats)
    pairs += [(a.stats[key], b.stats[key]) for key in a.stats]
    assert (a.segments is None) == (b.segments is None)
    pairs += [] if a.segments is None else [(a.segments, b.segments)]
    for one, other in pairs:
        assert one.dtype == other.dtype and torch.equal(one.nan_to_num(7), other.nan_to_num(7))
    assert a.regions == b.regions
    assert a.provenance == b.provenance


def test_every_field_comes_back(solution, saved, generator):
    loaded = Solution.load(saved, generator)
    assert_same(loaded, solution)
    assert loaded.generator is generator
    assert loaded.spaces == ("W+", "F4", "F6", "N")
    assert loaded.statuses == [Status.COMPLETED, Status.PLATEAU, Status.NON_FINITE]
    assert all(status.sentence.endswith(".") for status in loaded.statuses)
    assert loaded.metrics is loaded.stats
    assert os.listdir(saved.parent) == ["car.safetensors"], "nothing half-written is left"


def test_what_is_loaded_edits_like_what_was_saved(solution, saved, generator):
    direction = torch.randn(generator.style_dim, generator=torch.Generator().manual_seed(1))
    loaded = Solution.load(saved, generator)
    assert torch.equal(loaded.edit(direction, 0.7), solution.edit(direction, 0.7))
    assert_close(loaded.edit(direction, 0.0), solution.image, 1e-6)


def test_double_precision_and_missing_segments_come_back(tmp_path):
    generator = toy_stylegan2(torch.float64)
    problem = toy_problem(generator, ["Z", "F5"])
    solution = solve(problem, Adam(), max_steps=1)
    assert solution.latents["Z"]["z"].dtype == torch.float64 and solution.segments is None
    assert_same(Solution.load(solution.save(tmp_path / "d.safetensors"), generator), solution)


def test_a_solution_that_is_not_finite_comes_back(solution, generator, tmp_path):
    stats = {**solution.stats, "loss": torch.tensor([1.0, torch.nan, torch.inf])}
    odd = replace(solution, stats=stats)
    assert_same(Solution.load(odd.save(tmp_path / "odd.safetensors"), generator), odd)


def test_numbers_of_numpy_and_torch_are_written_as_plain_ones(solution, generator, tmp_path):
    odd = {"seed": np.int64(3), "rate": np.float32(0.5), "label": torch.tensor([0.0, 1.0]), "shape": np.arange(2)}
    path = replace(solution, provenance={**solution.provenance, **odd}).save(tmp_path / "n.safetensors")
    loaded = Solution.load(path, generator).provenance
    assert (loaded["seed"], loaded["rate"], loaded["label"], loaded["shape"]) == (3, 0.5, [0.0, 1.0], [0, 1])


def test_what_no_file_can_hold_is_refused_before_writing(solution, tmp_path):
    odd = replace(solution, provenance={"generator": object()})
    with pytest.raises(OutputError, match="provenance holds a object"):
        odd.save(tmp_path / "n.safetensors")
    assert not list(tmp_path.iterdir())


def test_saving_twice_replaces_the_file(solution, saved, generator):
    solution[1].save(saved)
    assert len(Solution.load(saved, generator)) == 1


@pytest.mark.parametrize("name", ["car.png", "car", "car.safetensors.txt", "car.pt"])
def test_other_suffixes_are_refused(solution, tmp_path, name):
    with pytest.raises(OutputError, match=r"\*\.safetensors.*change the file's suffix"):
        solution.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(solution, tmp_path):
    with pytest.raises(OutputError, match="create it first"):
        solution.save(tmp_path / "absent" / "car.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OutputError, match="folder"):
        solution.save(tmp_path / "folder.safetensors")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        solution.save(tmp_path / "file" / "car.safetensors")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.safetensors"]


def test_a_failure_while_writing_leaves_the_old_file(solution, saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        solution[0].save(saved)
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_files_that_are_no_solution(generator, tmp_path, saved):
    data = saved.read_bytes()
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "half.safetensors").write_bytes(data[: len(data) // 2])
    (tmp_path / "header.safetensors").write_bytes(data[:100])
    (tmp_path / "noise.safetensors").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "text.safetensors").write_text("This is no solution.\n" * 100)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    (tmp_path / "folder.safetensors").mkdir()
    save_generator(generator, tmp_path / "generator.safetensors")
    save_file({"image": torch.zeros(1, 3, 4, 4)}, tmp_path / "bare.safetensors")
    save_file({"image": torch.zeros(1, 3, 4, 4)}, tmp_path / "claims.safetensors", {"format": FORMAT})
    for path, words in {
        "absent.safetensors": "does not exist",
        "folder.safetensors": "is a folder",
        "empty.safetensors": "truncated",
        "half.safetensors": "truncated",
        "header.safetensors": "truncated",
        "noise.safetensors": "truncated",
        "text.safetensors": "truncated",
        "picture.png": "truncated",
        "generator.safetensors": "no solution of saminv",
        "bare.safetensors": "no solution of saminv",
        "claims.safetensors": "is damaged",
    }.items():
        with pytest.raises(SolutionError, match=words) as caught:
            Solution.load(tmp_path / path, generator)
        assert path in str(caught.value)


def rewrite(saved, change):
    """The file with other metadata or arrays: ``change`` gets both and alters them."""
    from safetensors import safe_open

    with safe_open(saved, "pt") as file:
        header, arrays = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, arrays)
    save_file(arrays, saved, header)


DAMAGES = {
    "no latents": lambda h, a: h.update(spaces="[]"),
    "a space without arrays": lambda h, a: h.update(spaces='["W+", "F5"]'),
    "no image": lambda h, a: a.pop("image"),
    "no status": lambda h, a: a.pop("status"),
    "a code that no status has": lambda h, a: a.update(status=torch.tensor([1, 1, 9])),
    "another batch of latents": lambda h, a: a.update({"latents/F4/delta": a["latents/F4/delta"][:2].clone()}),
    "another batch of numbers": lambda h, a: a.update({"stats/psnr": torch.zeros(2)}),
    "another batch of regions": lambda h, a: a.update(regions=a["regions"][:1].clone()),
    "a target of another size": lambda h, a: a.update(target=torch.zeros(3, 3, 16, 16)),
    "segments of another size": lambda h, a: a.update(segments=torch.zeros(3, 16, 16, dtype=torch.int64)),
    "integer latents": lambda h, a: a.update({"latents/W+/w": a["latents/W+/w"].long()}),
    "float regions": lambda h, a: a.update(regions=a["regions"].float()),
    "regions out of range": lambda h, a: a["regions"].add_(5),
    "a formulation that is none": lambda h, a: h.update(formulation="middle"),
    "provenance that is no JSON": lambda h, a: h.update(provenance="{"),
    "provenance that is a list": lambda h, a: h.update(provenance="[]"),
    "no provenance": lambda h, a: h.pop("provenance"),
    "space names that are no list": lambda h, a: h.update(spaces="7"),
    "region names that are no list": lambda h, a: h.update(region_spaces="7"),
    "a flat image": lambda h, a: a.update(image=torch.zeros(3)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_parts_that_do_not_belong_together(saved, generator, damage):
    rewrite(saved, DAMAGES[damage])
    with pytest.raises(SolutionError, match=r"is damaged.*Restore it from a copy or invert again"):
        Solution.load(saved, generator)


def test_a_format_of_the_future_is_named(saved, generator):
    rewrite(saved, lambda header, arrays: header.update(format="saminv.solution.2"))
    with pytest.raises(SolutionError, match=r"saminv\.solution\.2.*expected 'saminv\.solution\.1'"):
        Solution.load(saved, generator)


def load_or_refuse(path, content, generator):
    path.write_bytes(content)
    try:
        Solution.load(path, generator)
    except SolutionError as error:
        assert str(path) in str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(saved, generator, share):
    content = saved.with_suffix(".whole")
    if not content.exists():
        content.write_bytes(saved.read_bytes())
    data = content.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SolutionError):
        Solution.load(saved, generator)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), length=st.booleans())
def test_a_damaged_header_raises_nothing_but_solution_errors(saved, generator, place, flip, length):
    content = saved.with_suffix(".whole")
    if not content.exists():
        content.write_bytes(saved.read_bytes())
    data = bytearray(content.read_bytes())
    (size,) = struct.unpack_from("<Q", data)
    data[int(place * 8) if length else 8 + int(place * size)] ^= flip
    load_or_refuse(saved, bytes(data), generator)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_raise_nothing_but_solution_errors(tmp_path, generator, content, framed):
    framed_content = struct.pack("<Q", len(content)) + content if framed else content
    load_or_refuse(tmp_path / "any.safetensors", framed_content, generator)


def test_another_generator_is_refused(saved, generator):
    other = toy_stylegan2(seed=1)
    with pytest.raises(SolutionError, match="another generator") as caught:
        Solution.load(saved, other)
    assert other.fingerprint[:16] in str(caught.value) and generator.fingerprint[:16] in str(caught.value)


def test_the_same_weights_with_another_crop_are_refused(saved):
    with pytest.raises(SolutionError, match=r"holds images of \[32, 32\], but the generator makes \(24, 32\)"):
        Solution.load(saved, toy_stylegan2(crop=(24, 32)))


def test_a_file_whose_generator_has_no_name_asks_for_it(saved):
    with pytest.raises(SolutionError, match=r"has no name here.*generator="):
        Solution.load(saved)


def test_a_generator_may_be_given_by_its_file_or_name(solution, saved, generator, tmp_path):
    path = save_generator(generator, tmp_path / "toy.safetensors")
    assert_same(Solution.load(saved, path), solution)
    assert_same(Solution.load(str(saved), str(path)), solution)
    with pytest.raises(InputError, match="Unknown generator 'nobody'"):
        Solution.load(saved, "nobody")


def test_rows_of_a_solution(solution):
    assert len(solution) == 3
    for index, row in ((0, 0), (2, 2), (-1, 2), (-3, 0), (np.int64(1), 1), (torch.tensor(1), 1)):
        part = solution[index]
        assert len(part) == 1
        assert torch.equal(part.image[0], solution.image[row])
        assert part.provenance["names"] == [FACTS["names"][row]]
        assert part.provenance["crops"] == [FACTS["crops"][row]]
        assert part.statuses == [solution.statuses[row]]
        assert torch.equal(part.regions.labels[0], solution.regions.labels[row])
        assert torch.equal(part.segments[0], solution.segments[row])
        for space, value in part.latents.items():
            assert all(torch.equal(t[0], solution.latents[space][key][row]) for key, t in value.items())
        assert all(torch.equal(value[0], solution.stats[key][row]) for key, value in part.stats.items())


@pytest.mark.parametrize("part", [slice(None), slice(1, None), slice(None, None, -1), slice(0, 3, 2), slice(-2, None)])
def test_slices_of_a_solution(solution, part):
    rows = [0, 1, 2][part]
    found = solution[part]
    assert len(found) == len(rows)
    assert torch.equal(found.image, solution.image[rows])
    assert found.provenance["names"] == [FACTS["names"][row] for row in rows]


@pytest.mark.parametrize("index", [3, -4, 100, slice(3, None), slice(2, 1)])
def test_rows_that_are_not_there(solution, index):
    with pytest.raises(IndexError, match="out of range for a solution of 3 images"):
        solution[index]


@pytest.mark.parametrize("index", ["0", 1.0, None, [0, 1]])
def test_indices_of_another_type(solution, index):
    with pytest.raises(TypeError):
        solution[index]


def test_a_solution_is_a_sequence_of_its_images(solution):
    assert [part.provenance["names"] for part in solution] == [["a"], ["b"], ["c"]]


def test_taking_a_row_changes_nothing_in_the_whole(solution):
    before = solution.image.clone()
    part = solution[1]
    part.image.zero_()
    part.latents["W+"]["w"].zero_()
    part.provenance["tau"] = 7
    assert torch.equal(solution.image, before)
    assert solution.latents["W+"]["w"][1].any() and solution.provenance["tau"] == 0.3


def test_rows_edit_and_save_by_themselves(solution, generator, tmp_path):
    direction = torch.ones(generator.style_dim)
    together = solution.edit(direction, 0.5)
    for row in range(3):
        loaded = Solution.load(solution[row].save(tmp_path / "row.safetensors"), generator)
        assert_close(loaded.edit(direction, 0.5), together[row : row + 1], 1e-5)


def test_solutions_are_compared_by_identity(solution):
    assert solution == solution and solution != replace(solution)
    assert "generator" not in repr(solution).split("provenance")[0]


# Edits.


@pytest.fixture()
def direction(generator):
    return torch.randn(generator.num_styles, generator.style_dim, generator=torch.Generator().manual_seed(4))


def test_a_direction_of_any_accepted_shape(solution, direction):
    expected = solution.edit(direction)
    assert expected.shape == solution.image.shape
    assert (expected - solution.image).abs().max() > 0.05
    for same in (direction[None], direction.double(), direction.numpy(), direction.tolist()):
        assert torch.equal(solution.edit(same), expected)
    assert_close(solution.edit(direction.half()), expected, 2e-3)
    one = solution.edit(direction[0])
    assert torch.equal(solution.edit(direction[:1]), one)
    assert torch.equal(solution.edit(direction[0].expand(8, -1)), one)


def test_directions_from_files(solution, direction, tmp_path):
    array = direction.numpy()
    np.save(tmp_path / "one.npy", array)
    np.save(tmp_path / "published.npy", array[None])
    np.save(tmp_path / "swapped.npy", array.astype(">f4"))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(array))
    np.savez(tmp_path / "one.npz", whatever=array)
    save_file({"direction": direction}, tmp_path / "one.safetensors")
    expected = solution.edit(direction)
    for path in sorted(tmp_path.iterdir()):
        assert torch.equal(solution.edit(path), expected), path.name
        assert torch.equal(solution.edit(str(path)), expected), path.name


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_direction_files_that_cannot_be_read(solution, direction, tmp_path, suffix):
    good = tmp_path / f"good{suffix}"
    {
        ".npy": lambda: np.save(good, direction.numpy()),
        ".npz": lambda: np.savez(good, a=direction.numpy()),
        ".safetensors": lambda: save_file({"a": direction}, good),
    }[suffix]()
    data = good.read_bytes()
    bad = tmp_path / f"bad{suffix}"
    for content in (b"", b"text\n" * 30, data[:10], data[: len(data) // 2], data[:-4], bytes(100)):
        bad.write_bytes(content)
        with pytest.raises(CheckpointError, match="no readable array file"):
            solution.edit(bad)
    with pytest.raises(InputError, match="does not exist"):
        solution.edit(tmp_path / f"absent{suffix}")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    with pytest.raises(InputError, match="folder"):
        solution.edit(folder)


def test_direction_files_with_other_contents(solution, direction, tmp_path):
    np.savez(tmp_path / "two.npz", a=direction.numpy(), b=direction.numpy())
    save_file({"a": direction, "b": direction.clone()}, tmp_path / "two.safetensors")
    np.savez(tmp_path / "none.npz")
    for name in ("two.npz", "two.safetensors", "none.npz"):
        with pytest.raises(CheckpointError, match="arrays; a direction file holds one"):
            solution.edit(tmp_path / name)
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    with pytest.raises(CheckpointError, match="array of numbers, not of <U1"):
        solution.edit(tmp_path / "words.npy")
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="no readable array file"):
        solution.edit(tmp_path / "objects.npy")


@pytest.mark.parametrize("name", ["car_hue", "nobody", "", "W+"])
def test_directions_that_the_generator_does_not_have(solution, name):
    with pytest.raises(
        InputError, match=f"Unknown direction '{name}'".replace("+", r"\+") + ".*none for this generator"
    ):
        solution.edit(name)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_directions_that_are_not_finite(solution, direction, value):
    direction[3, 2] = value
    with pytest.raises(InputError, match="finite"):
        solution.edit(direction)


@pytest.mark.parametrize("shape", [(), (11,), (8, 11), (7, 12), (2, 8, 12), (12, 8), (1, 1, 8, 12), (0,)])
def test_directions_of_another_shape(solution, shape):
    with pytest.raises(InputError, match=r"allowed is \[12\] or \[8, 12\]"):
        solution.edit(torch.zeros(shape))


@pytest.mark.parametrize(
    "thing", [None, {}, ["car_hue"], object(), torch.ones(12).long(), torch.ones(12).bool(), 1 + 2j]
)
def test_directions_that_are_none(solution, thing):
    with pytest.raises(InputError, match="direction must be an array"):
        solution.edit(thing)


def test_several_strengths_come_image_by_image(solution, direction):
    images = solution.edit(direction, [-1.0, 0.0, 2.0])
    assert images.shape == (9, 3, 32, 32)
    for row in range(3):
        for place, strength in enumerate((-1.0, 0.0, 2.0)):
            assert torch.equal(images[3 * row + place], solution.edit(direction, strength)[row])


@pytest.mark.parametrize("strength", [2, np.float32(2), np.array([2.0]), torch.tensor(2.0), (2.0,)])
def test_strengths_of_any_type(solution, direction, strength):
    assert torch.equal(solution.edit(direction, strength), solution.edit(direction, 2.0))


@pytest.mark.parametrize("strength", [torch.nan, torch.inf, [], "strong", [1.0, None], None, {}, [1.0, torch.nan]])
def test_strengths_that_are_none(solution, direction, strength):
    with pytest.raises(InputError, match="strength must be a finite number"):
        solution.edit(direction, strength)


def test_an_edit_is_linear_in_the_styles_only(solution, direction):
    """Strength s of direction d is strength 1 of s d."""
    assert_close(solution.edit(direction, 0.3), solution.edit(0.3 * direction), 1e-5)


def test_edits_leave_the_solution_alone(solution, direction):
    before = {s: {k: t.clone() for k, t in value.items()} for s, value in solution.latents.items()}
    solution.edit(direction)
    assert all(torch.equal(solution.latents[s][k], t) for s, value in before.items() for k, t in value.items())
    assert not solution.edit(direction).requires_grad


def test_a_solution_without_generator_says_how_to_get_one(solution, direction):
    with pytest.raises(InputError, match=r"Solution\.load\(path, generator=\.\.\.\)"):
        replace(solution, generator=None).edit(direction)


def test_the_header_is_readable_without_this_library(saved):
    data = saved.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    assert header["__metadata__"]["format"] == FORMAT
    assert json.loads(header["__metadata__"]["provenance"])["tau"] == 0.3
    assert {"latents/W+/w", "latents/F4/delta", "image", "target", "regions", "status"} <= set(header)
