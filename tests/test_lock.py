"""One node a home, and the second one learns who holds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from p2plearn.errors import AlreadyRunning, P2plearnError
from p2plearn.lock import NodeLock, holder

HOLD = """
import sys
from pathlib import Path
from p2plearn.lock import NodeLock
with NodeLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_told_who_holds_it_and_a_crash_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    assert holder(path) is None
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert holder(path) == other.pid
        with pytest.raises(AlreadyRunning) as caught:
            NodeLock(path).acquire()
        assert f"process {other.pid}" in caught.value.message
        assert f"--home {tmp_path} node stop" in caught.value.hint
        other.send_signal(signal.SIGKILL)
    assert holder(path) is None
    with NodeLock(path) as lock:
        assert lock.held
        assert holder(path) == os.getpid()
    assert not lock.held
    assert holder(path) is None


def test_looking_never_stops_a_start(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            holder(path)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(200):
            with NodeLock(path):
                pass
    finally:
        done.set()
        watcher.join()


def test_a_lock_knows_whether_its_name_is_still_its_own(tmp_path: Path) -> None:
    path = tmp_path / "home" / "node.lock"
    path.parent.mkdir()
    with NodeLock(path) as lock:
        assert lock.in_place()
        path.rename(tmp_path / "moved")
        assert not lock.in_place()
        path.touch()
        assert not lock.in_place()
        path.unlink()
        (tmp_path / "moved").rename(path)
        assert lock.in_place()
        path.parent.rename(tmp_path / "away")
        assert not lock.in_place()
        path.parent.write_bytes(b"")
        assert not lock.in_place()


def test_a_lock_that_is_no_file_is_an_error_with_words(tmp_path: Path) -> None:
    (tmp_path / "node.lock").mkdir()
    with pytest.raises(P2plearnError, match="can't be opened"):
        NodeLock(tmp_path / "node.lock").acquire()
    assert holder(tmp_path / "node.lock") is None
