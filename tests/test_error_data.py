"""Measured error maps on disk: round trips, agreement of the files, the split by image, damaged files."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saminv._errors import CheckpointError, InputError
from saminv.train.errors import ErrorMaps, held_out, read_record, save_errors

SPACES = ("W+", "F4", "F6")
COMMON = {"fingerprint": "f" * 64, "metric": "demo", "steps": 300, "psnr": 25.5}


def example(seed: int, size=(8, 12)):
    source = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(3, *size, generator=source) - 1, torch.rand(len(SPACES), *size, generator=source)


def write(folder, count: int = 6, spaces=SPACES, size=(8, 12), **changes):
    for seed in range(count):
        target, errors = example(seed, size)
        for space, error in zip(spaces, errors):
            path = folder / space / "results" / f"{seed:03d}.safetensors"
            save_errors(path, target, error, space=space, **{**COMMON, **changes})
    return folder


def test_round_trip(tmp_path):
    maps = ErrorMaps(write(tmp_path))
    assert maps.spaces == SPACES and len(maps) == 6 and not maps.missing
    assert (maps.fingerprint, maps.metric, maps.steps, maps.image_size) == ("f" * 64, "demo", 300, (8, 12))
    for seed in range(6):
        (image, errors), (target, expected) = maps[seed], example(seed)
        assert image.shape == (3, 8, 12) and errors.shape == (3, 8, 12) and errors.dtype == torch.float32
        assert float((image - target).abs().max()) <= 0.5 / 127.5 + 1e-6
        assert torch.equal(errors, expected.half().float())
    record = maps.records(2)["F4"]
    assert record == read_record(record.path) and record.psnr == 25.5 and record.space == "F4"
    images, errors = maps.batch([4, 1])
    assert torch.equal(images[1], maps[1][0]) and torch.equal(errors[0], maps[-2][1])
    assert "6 images of 8 x 12 pixels" in maps.describe()
    assert [len(part) for part in (maps[1:], maps[::2])] == [5, 3] and maps[1:].names == maps.names[1:]


def test_spaces_may_be_chosen(tmp_path):
    maps = ErrorMaps(write(tmp_path), ["F6", "W+"])
    assert maps.spaces == ("F6", "W+")
    assert torch.equal(maps[0][1], ErrorMaps(tmp_path)[0][1][[2, 0]])
    (tmp_path / "F10" / "results").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    assert ErrorMaps(tmp_path, SPACES).spaces == SPACES


def test_examples_that_some_space_lacks_are_named(tmp_path):
    write(tmp_path)
    (tmp_path / "F4" / "results" / "002.safetensors").unlink()
    (tmp_path / "F6" / "results" / ".saminv-1234.safetensors").write_bytes(b"half a file of a killed run")
    maps = ErrorMaps(tmp_path)
    assert maps.missing == {"F4": ("002",)} and len(maps) == 5 and "002" not in maps.names
    assert "F4 lacks 002" in maps.describe()


def test_errors_of_a_channel_and_plain_ones_are_the_same(tmp_path):
    target, errors = example(0)
    for name, error in (("a", errors[0]), ("b", errors[:1])):
        save_errors(tmp_path / "W+" / "results" / f"{name}.safetensors", target, error, space="W+", **COMMON)
    maps = ErrorMaps(tmp_path)
    assert torch.equal(maps[0][1], maps[1][1])


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (torch.zeros(1, 3, 4, 4), torch.zeros(4, 4), "3, H, W"),
        (torch.full((3, 4, 4), float("nan")), torch.zeros(4, 4), "NaN"),
        (torch.zeros(3, 4, 4), torch.zeros(4, 5), "4, 4"),
        (torch.zeros(3, 4, 4), torch.zeros(2, 4, 4), "4, 4"),
        (torch.zeros(3, 4, 4), torch.full((4, 4), -0.1), "negative"),
        (torch.zeros(3, 4, 4), torch.full((4, 4), float("nan")), "not finite"),
        (torch.zeros(3, 4, 4), torch.full((4, 4), 1e5), "too large"),
    ],
)
def test_impossible_errors_are_not_saved(tmp_path, target, error, message):
    with pytest.raises(InputError, match=message):
        save_errors(tmp_path / "a.safetensors", target, error, space="W+", **COMMON)
    assert not list(tmp_path.iterdir())


# What does not belong together


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "0" * 64}, "fingerprints of their generators are"),
        ({"metric": "lpips-vgg"}, "metrics are demo and lpips-vgg"),
        ({"steps": 100}, "steps are 300 and 100"),
        ({"space": "F8"}, "holds errors of the space F8"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, change, message):
    write(tmp_path)
    target, errors = example(3)
    path = tmp_path / "F4" / "results" / "003.safetensors"
    save_errors(path, target, errors[1], **{"space": "F4", **COMMON, **change})
    with pytest.raises(CheckpointError, match=message) as refused:
        ErrorMaps(tmp_path)
    assert "003.safetensors" in str(refused.value)


def test_other_images_of_the_same_name_are_refused(tmp_path):
    write(tmp_path)
    target, errors = example(99)
    save_errors(tmp_path / "F6" / "results" / "001.safetensors", target, errors[2], space="F6", **COMMON)
    with pytest.raises(CheckpointError, match="other images"):
        ErrorMaps(tmp_path)


def test_images_of_several_sizes_are_refused(tmp_path):
    write(tmp_path, 2)
    target, errors = example(9, (4, 4))
    for space, error in zip(SPACES, errors):
        save_errors(tmp_path / space / "results" / "009.safetensors", target, error, space=space, **COMMON)
    with pytest.raises(CheckpointError, match="sizes of their images"):
        ErrorMaps(tmp_path)


@pytest.mark.parametrize(
    ("spaces", "message"),
    [(["F10"], "nothing for F10. It has: W"), ([], "cannot be read"), (["F4", "F4"], "cannot"), ("F4", "list")],
)
def test_spaces_that_are_not_there_are_refused(tmp_path, spaces, message):
    write(tmp_path, 1)
    with pytest.raises(InputError, match=message):
        ErrorMaps(tmp_path, spaces)


def test_empty_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        ErrorMaps(tmp_path / "absent")
    with pytest.raises(InputError, match="no measured error maps"):
        ErrorMaps(tmp_path)
    write(tmp_path, 1)
    shutil.rmtree(tmp_path / "F4" / "results")
    (tmp_path / "F4" / "results").mkdir()
    with pytest.raises(InputError, match=r"in all spaces \(W\+: 1, F4: 0, F6: 1 files\)"):
        ErrorMaps(tmp_path)


# Damaged files


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 20_000), kind=st.sampled_from(["shorter", "changed"]))
def test_damaged_files_are_named_and_never_read(tmp_path_factory, cut, kind):
    path = write(tmp_path_factory.mktemp("maps"), 1) / "F4" / "results" / "000.safetensors"
    content = bytearray(path.read_bytes())
    cut %= len(content)
    if kind == "shorter":
        content = content[:cut]
    else:
        content[cut] ^= 0xFF
    path.write_bytes(content)
    try:
        errors = ErrorMaps(path.parents[2])[0][1]
    except (CheckpointError, InputError) as error:
        assert "000.safetensors" in str(error) or "F4" in str(error)
    else:
        # A changed number of an error map cannot be told from a measured one.
        assert kind == "changed" and bool((errors >= 0).all())


def test_other_safetensors_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    write(tmp_path, 1)
    save_file({"a": torch.zeros(2)}, tmp_path / "F4" / "results" / "000.safetensors")
    with pytest.raises(CheckpointError, match="no file of measured errors"):
        ErrorMaps(tmp_path)


def test_a_file_that_changes_afterwards_is_noticed(tmp_path):
    maps = ErrorMaps(write(tmp_path, 2))
    path = tmp_path / "W+" / "results" / "000.safetensors"
    content = bytearray(path.read_bytes())
    # The target's bytes come after those of the error.
    content[-3] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"000\.safetensors is damaged"):
        maps[0]
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        maps[0]


# The split


def test_the_split_is_by_image_and_stays_when_images_are_added(tmp_path):
    first = ErrorMaps(write(tmp_path, 30)).split(0.3)
    assert sorted(first[0].names + first[1].names) == sorted(ErrorMaps(tmp_path).names)
    assert len(first[0]) > len(first[1]) > 0
    for copied in (first[0].names[0], first[1].names[0]):
        for space in SPACES:
            folder = tmp_path / space / "results"
            shutil.copy(folder / f"{copied}.safetensors", folder / f"copy-of-{copied}.safetensors")
    second = ErrorMaps(write(tmp_path, 40)).split(0.3)
    for before, after in zip(first, second):
        assert set(before.names) < set(after.names)
        assert all(name[8:] in after.names for name in after.names if name.startswith("copy-of-"))
    assert {len(part[0][1]) for part in second} == {3}


@given(digests=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40), share=st.floats(0.01, 0.99))
def test_split_laws(digests, share):
    sides = {digest.hex(): held_out(digest.hex(), share) for digest in digests}
    for digest, side in sides.items():
        assert held_out(digest, share) == side
        assert held_out(digest, min(share + 0.1, 1)) or not side


def test_the_split_meets_its_share_for_many_images():
    import hashlib

    digests = [hashlib.sha256(str(k).encode()).hexdigest() for k in range(4000)]
    for share in (0.05, 0.15, 0.5):
        assert sum(held_out(digest, share) for digest in digests) / 4000 == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("share", [0, 1, -0.2, 1.5, float("nan")])
def test_impossible_shares_are_refused(tmp_path, share):
    maps = ErrorMaps(write(tmp_path, 1))
    with pytest.raises(InputError, match="between 0 and 1"):
        maps.split(share)
