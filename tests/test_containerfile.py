"""The container file's user and home, which no engine has to be there for."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from p2plearn.config import Home
from p2plearn.errors import Refused
from p2plearn.private_files import have_temporary_folder

TEXT = (Path(__file__).resolve().parents[1] / "packaging" / "Containerfile").read_text("utf-8")


def said(pattern: str) -> str:
    found = re.search(pattern, TEXT)
    assert found is not None, pattern
    return found[1]


def test_without_a_folder_for_temporary_files_the_home_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only root."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    have_temporary_folder(tmp_path / "unneeded")
    assert not (tmp_path / "unneeded").exists()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "not-there")])
    have_temporary_folder(tmp_path / "tmp")
    with tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).parent == tmp_path / "tmp"
    assert (tmp_path / "tmp").stat().st_mode & 0o777 == 0o700


def test_the_home_is_not_the_home_directory_of_its_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine sets HOME as the image's list of users has it, and a node refuses a home that is all of that."""
    home = said(r"P2PLEARN_HOME=(\S+)")
    assert said(r"--home-dir (\S+)") != home
    assert said(r"install -d -m 0700 -o p2plearn -g p2plearn (\S+)") == said(r"VOLUME (\S+)") == home
    assert said(r"USER (\S+)") == said(r"--uid (\S+)")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Refused):
        Home(tmp_path).prepare()
