"""What killed processes left in a home goes when a node starts there: by its very name, its kind and its age alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2plearn import leftovers
from p2plearn.config import Home
from p2plearn.store.store import Store

HALF = "0123456789abcdef"

KILLED = """
import os, sys
from pathlib import Path
from p2plearn.private_files import create_private

os.fsync = lambda fd: os.kill(os.getpid(), 9)
create_private(Path(sys.argv[1]), b"half", replace=True)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    home.keys.mkdir(mode=0o700)
    return home


def killed_while_writing(path: Path) -> Path:
    before = set(path.parent.iterdir())
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -9
    (left,) = set(path.parent.iterdir()) - before
    return left


def test_what_only_a_node_writes_goes_at_once_and_the_rest_when_it_is_old(home: Home) -> None:
    peers = killed_while_writing(home.peers)
    key, tag = killed_while_writing(home.network_key), killed_while_writing(home.network_tag)
    certificate = home.path / "tmp" / "tmpabcd_123"
    certificate.parent.mkdir()
    certificate.write_text("half")
    (certificate.parent / "notes").write_text("mine")
    home.peers.write_text("{}")
    now = time.time()
    assert leftovers.clear(home, now) == [peers]  # a `join` may be writing the others right now
    assert key.exists() and tag.exists() and certificate.exists()
    assert set(leftovers.clear(home, now + leftovers.OLD + 60)) == {key, tag, certificate}
    assert home.peers.exists() and (certificate.parent / "notes").exists()
    assert leftovers.clear(home, now + leftovers.OLD + 60) == []


def test_the_folder_of_a_pipe_goes_with_its_pipe_and_with_nothing_else_in_it(home: Home) -> None:
    pipe, empty, full, odd = (home.path / f".pipe-{name}" for name in ("abcd_123", "emptyone", "fullfull", "oddoddod"))
    for folder in (pipe, empty, full, odd):
        folder.mkdir()
    os.mkfifo(pipe / leftovers.PIPE)
    os.mkfifo(full / leftovers.PIPE)
    (full / "notes").write_text("mine")
    (odd / leftovers.PIPE).write_text("mine")
    assert set(leftovers.clear(home, time.time())) == {pipe, empty}
    assert (full / leftovers.PIPE).exists()
    assert (full / "notes").read_text() == (odd / leftovers.PIPE).read_text() == "mine"


def test_names_kinds_and_places_that_are_not_ours_stay(home: Home, tmp_path: Path) -> None:
    peers = home.peers.name
    stay = {
        home.path / f".{peers}.{HALF[:-1]}", home.path / f".{peers}.{HALF}0", home.path / f"{peers}.{HALF}",
        home.path / f".{peers}.{HALF.upper()}", home.path / ".notes.0123456789abcdef", home.path / ".pipe-abc",
    }  # fmt: skip
    for path in stay:
        path.write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (home.path / f".{peers}.{HALF}").symlink_to(elsewhere)
    (home.path / f".{peers}.{HALF[::-1]}").mkdir()
    (home.path / ".pipe-linklink").symlink_to(elsewhere)
    before = set(home.path.iterdir())
    assert leftovers.clear(home, time.time() + 1e6) == []
    assert set(home.path.iterdir()) == before
    assert elsewhere.is_dir()


def test_a_link_to_the_folder_of_others_is_not_followed(home: Home, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (home.path / "tmp").symlink_to(elsewhere)
    theirs = elsewhere / "tmp_backup1"
    theirs.write_text("theirs")
    os.utime(theirs, (1, 1))
    assert leftovers.clear(home, time.time()) == []
    assert theirs.exists()


def test_a_home_without_keys_or_that_is_gone_has_nothing_to_clear(tmp_path: Path) -> None:
    assert leftovers.clear(Home(tmp_path / "none"), time.time()) == []


def test_a_store_clears_its_own_halves_in_the_home_and_in_itself(home: Home) -> None:
    """Of what is written whole: traffic, absences, providers, the notes of checkouts, manifests."""
    Store.open(home.path).close()
    name = ".traffic.json-0123abcd.p2plearn-new"
    halves = [home.path / name, home.store / name, home.store / "courses" / name]
    mine = home.path / "traffic.json"
    for path in (*halves, mine):
        path.write_text("{}")
    Store.open(home.path).close()
    assert not any(path.exists() for path in halves)
    assert mine.exists()
