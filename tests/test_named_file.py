"""A name leads to the file that we know, or it doesn't; only a disk that doesn't say is an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from p2plearn.named_file import KnownFolder, is_named
from p2plearn.private_files import create_private
from p2plearn.store.durable import write_atomic


def test_a_file_is_known_by_itself_and_not_by_its_name(tmp_path: Path) -> None:
    path, other = tmp_path / "folder" / "file", tmp_path / "other"
    path.parent.mkdir()
    path.touch()
    looked = path.lstat()
    with path.open("rb") as file:
        for known in (file.fileno(), looked):
            assert is_named(path, known)
            assert is_named(str(path), known)
            path.rename(other)
            assert not is_named(path, known)
            assert is_named(other, known)
            path.touch()
            assert not is_named(path, known)
            path.unlink()
            path.symlink_to(other)
            assert not is_named(path, known)
            path.unlink()
            other.rename(path)
            path.parent.rename(other)
            other.with_name("folder").touch()
            assert not is_named(path, known)  # below what is no folder any more
            path.parent.unlink()
            other.rename(path.parent)
            assert is_named(path, known)


def test_a_name_may_be_relative_to_an_open_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        known = os.stat("file", dir_fd=folder)
        assert is_named("file", known, folder=folder)
        (tmp_path / "new").touch()
        (tmp_path / "new").rename(tmp_path / "file")
        assert not is_named("file", known, folder=folder)
    finally:
        os.close(folder)


def test_what_the_disk_does_not_say_is_no_answer(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        is_named(loop / "file", tmp_path.lstat())


def test_a_folder_is_known_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir()
    folder, later = KnownFolder(path), KnownFolder(tmp_path / "later")
    with folder.opened() as opened:
        assert os.path.samestat(os.fstat(opened), path.stat())
    path.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError), folder.opened():
        pass
    path.mkdir()
    with pytest.raises(OSError, match="Another folder is in its place"), folder.opened():
        pass
    (tmp_path / "later").mkdir()
    with later.opened():  # it wasn't there yet
        pass


def test_nothing_is_written_into_a_folder_that_came_in_the_place_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "home" / "file"
    path.parent.mkdir()
    folder = KnownFolder(path.parent)
    writers: tuple[Callable[[bytes], None], ...] = (
        lambda raw: write_atomic(path, [raw], within=folder),
        lambda raw: create_private(path, raw, replace=True, within=folder),
    )
    for write in writers:
        write(b"ours")
        assert path.read_bytes() == b"ours"
        path.parent.rename(tmp_path / "moved")
        path.parent.mkdir()
        path.write_bytes(b"theirs")
        with pytest.raises(OSError, match="Another folder"):
            write(b"ours again")
        assert path.read_bytes() == b"theirs"
        assert os.listdir(path.parent) == ["file"]
        path.unlink()
        path.parent.rmdir()
        (tmp_path / "moved").rename(path.parent)
