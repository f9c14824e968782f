"""Lists of training and test pictures: what they may look like, and overlap by name and by content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from saminv import InputError
from saminv.bench import splits
from saminv.bench.splits import Entry, check_split, check_within, read_list


def write(folder: Path, **contents: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.png").write_bytes(content)
    return folder


def listed(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_lists_are_folders_paths_and_sums(tmp_path):
    folder = write(tmp_path / "data", a=b"1", b=b"2")
    lines = ["# comment", "", "data/a.png", f"{digest(b'2')}  data/b.png", f"{digest(b'3').upper()} *c.png"]
    found = read_list(listed(tmp_path / "list.txt", *lines))
    assert [(entry.name, entry.sha256) for entry in found] == [("a", None), ("b", digest(b"2")), ("c", digest(b"3"))]
    assert found[0].path == folder / "a.png" and {entry.name for entry in read_list(folder)} == {"a", "b"}


def test_what_shares_nothing_passes(tmp_path):
    training, test = write(tmp_path / "train", a=b"one", b=b"two"), write(tmp_path / "test", c=b"six")
    split = check_split(read_list(training), read_list(test))
    assert (split.training, split.test, split.unread) == (2, 1, 0)
    assert f"{split}" == "2 pictures of training and 1 of test share no names and contents."


@pytest.mark.parametrize("as_sums", [False, True])
def test_equal_contents_are_found_under_other_names(tmp_path, as_sums):
    training, test = write(tmp_path / "train", a=b"one", b=b"two"), write(tmp_path / "test", c=b"two")
    known = read_list(training)
    if as_sums:
        known = read_list(listed(tmp_path / "sums.txt", f"{digest(b'one')}  a.png", f"{digest(b'two')}  b.png"))
    with pytest.raises(InputError, match=r"share 1 pictures under other names: .*b\.png and .*c\.png"):
        check_split(known, read_list(test), same_names=True)


def test_equal_names_are_refused_unless_it_is_said_that_they_may_be(tmp_path):
    training, test = write(tmp_path / "ffhq", a=b"one"), write(tmp_path / "celeba", A=b"two")
    with pytest.raises(InputError, match=r"share 1 names.*--same-names"):
        check_split(read_list(training), read_list(test))
    assert "share no contents" in f"{check_split(read_list(training), read_list(test), same_names=True)}"


def test_contents_that_are_not_here_are_said_so(tmp_path):
    split = check_split([Entry(Path("absent.png"))], read_list(write(tmp_path / "test", c=b"two")))
    assert split.unread == 1 and "contents of 1 are not here and were not compared" in f"{split}"


def test_files_of_a_length_that_the_others_lack_are_not_read(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(splits, "file_hash", lambda path: read.append(path.name) or path.name)
    training, test = write(tmp_path / "train", a=b"1", b=b"22", c=b"333"), write(tmp_path / "test", d=b"44")
    check_split(read_list(training), read_list(test))
    assert sorted(read) == ["b.png", "d.png"]


def test_pictures_have_to_be_in_the_list_of_the_test():
    check_within([Path("x/a.png")], [Entry(Path("y/A.jpg"))])
    with pytest.raises(InputError, match=r"1 of the pictures are not in the list of the test, for example x/b\.png"):
        check_within([Path("x/a.png"), Path("x/b.png")], [Entry(Path("y/a.jpg"))])


def test_what_is_no_list(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    for path in (tmp_path / "absent", tmp_path / "picture.png"):
        with pytest.raises(InputError, match="is no list of pictures"):
            read_list(path)
    with pytest.raises(InputError, match="has no pictures"):
        read_list(tmp_path / "empty")
    with pytest.raises(InputError, match="names no picture"):
        read_list(listed(tmp_path / "comments.txt", "# nothing"))
    monkeypatch.setattr(splits, "LARGEST_LIST", 3)
    with pytest.raises(InputError, match="is no list of pictures: it has 9 bytes"):
        read_list(listed(tmp_path / "large.txt", "1234.png\n"))
