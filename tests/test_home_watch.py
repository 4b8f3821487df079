"""A node whose home is gone ends, says why, and makes nothing anew in its place."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path

import pytest
import trio
import trio.testing

from p2plearn.errors import HomeGone, StoreProblem
from p2plearn.home_watch import SILENT_LOOKS, HomeWatch
from p2plearn.lock import NodeLock
from tests.nodes import RealNode, run_command
from tests.travel.course_folders import made_file


class Scripted(NodeLock):
    """A lock of which is said how it stands at each look, and how it does from then on."""

    def __init__(self, path: Path, *looks: bool | OSError) -> None:
        super().__init__(path)
        self.looks = list(looks)

    def in_place(self) -> bool:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, OSError):
            raise look
        return look


EIO = OSError(errno.EIO, "Input/output error")


def watched(lock: NodeLock, looks: float) -> HomeGone | None:
    async def watch() -> None:
        with trio.move_on_after(looks + 0.5):
            await HomeWatch(lock, seconds=1.0).run()

    try:
        trio.run(watch, clock=trio.testing.MockClock(autojump_threshold=0.05))
    except HomeGone as gone:
        return gone
    return None


def test_it_is_gone_when_its_name_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "node.lock"
    path.touch()
    assert watched(Scripted(path, True), 5) is None
    with caplog.at_level(logging.CRITICAL):
        gone = watched(Scripted(path, True, True, False), 5)
    assert gone is not None
    assert f"The home of this node, {tmp_path}, is gone: it was deleted or moved" in gone.message
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert gone.message in caplog.text


def test_a_disk_that_misses_a_look_is_given_time(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    path.touch()
    some = [EIO] * (SILENT_LOOKS - 1)
    assert watched(Scripted(path, True, *some, True, *some, True), 10) is None
    gone = watched(Scripted(path, True, EIO), 10)
    assert gone is not None
    assert "its disk doesn't answer (Input/output error)" in gone.message


def test_a_first_look_that_the_disk_has_no_answer_to_is_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    path.touch()
    assert watched(Scripted(path, *[EIO] * (SILENT_LOOKS - 1), True), 5) is None
    gone = watched(Scripted(path, EIO), 10)
    assert gone is not None
    assert "its disk doesn't answer" in gone.message
    # It is known by a later look, too: what lies there now is another home's.
    gone = watched(Scripted(path, EIO, True, False), 10)
    assert gone is not None


def test_a_dead_disk_answers_no_other_question_either(tmp_path: Path) -> None:
    nowhere = tmp_path / ("x" * 300) / "node.lock"  # about which the system has nothing but an error to say
    assert watched(Scripted(nowhere, False), 10) is None
    gone = watched(Scripted(nowhere, True, EIO), 10)
    assert gone is not None
    assert "its disk doesn't answer" in gone.message


def test_a_file_system_that_never_tells_what_is_the_same_file_is_asked_for_its_name_only(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    path.touch()
    assert watched(Scripted(path, False), 5) is None
    path.unlink()
    assert watched(Scripted(path, False), 5) is not None


def test_what_else_fails_then_is_no_news_and_what_fails_before_is(tmp_path: Path) -> None:
    watch = HomeWatch(Scripted(tmp_path / "node.lock", True))
    with pytest.raises(StoreProblem), watch:
        raise StoreProblem("a disk that fails")
    watch = HomeWatch(Scripted(tmp_path / "node.lock", True, False), seconds=0.0)

    def end_badly() -> None:
        try:
            trio.run(watch.run)
        except HomeGone:
            raise OSError(errno.EIO, "as everything fails on such a disk") from None

    with pytest.raises(HomeGone), watch:
        end_badly()


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_node_ends_and_makes_no_new_home(tmp_path: Path, how: str) -> None:
    away = tmp_path / "away"
    with RealNode(tmp_path / "home") as node:
        course = node.run("publish", made_file(tmp_path / "a.bin", 1 << 20), "--copies", 1)["course"]
        node.home.path.rename(away)  # at once, as a disk goes
        if how == "deleted":
            shutil.rmtree(away)
        assert node.process is not None
        assert node.process.wait(60) == HomeGone.exit_code
        assert not node.home.path.exists()
        assert run_command("node", "status", home=node.home.path).code == 3
        if how == "moved":
            log = (away / node.home.log.name).read_text()
            assert " critical p2plearn.node: The home of this node, " in log
            assert "Traceback" not in log
            node.process.stdin.close()
            node.process.stdout.close()
            node.process = None
            away.rename(node.home.path)
            node.start()
            node.run("get", course, "-o", tmp_path / "out")
            assert node.run("verify")["damaged"] == []


def test_what_a_node_saves_as_it_ends_does_not_land_in_the_home_in_its_place(tmp_path: Path) -> None:
    with RealNode(tmp_path / "home") as node:
        node.run("publish", made_file(tmp_path / "a.bin", 1 << 16), "--copies", 1)
        home = node.home
        theirs = [home.peers, home.absences, home.providers, home.traffic, home.path / "store" / "notes"]
        home.path.rename(tmp_path / "away")
        for path in theirs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"theirs")
        assert node.process is not None
        assert node.process.wait(60) == HomeGone.exit_code
        assert [path.read_bytes() for path in theirs] == [b"theirs"] * len(theirs)
        assert {path.name for path in home.path.iterdir()} <= {path.name for path in theirs} | {"store"}
        assert [path.name for path in (home.path / "store").iterdir()] == ["notes"]


def test_a_lock_that_was_deleted_is_no_home_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "peer.key").touch()
    gone = watched(Scripted(tmp_path / "node.lock", True, True, False), 5)
    assert gone is not None
    assert f"The lock of this node, {tmp_path / 'node.lock'}, was deleted" in gone.message
    assert "nothing was lost" in gone.hint
