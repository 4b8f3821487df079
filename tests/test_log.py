"""The log: one line a record whatever a peer sends, private, bounded, quiet about what others chatter."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2plearn import config
from p2plearn.log import start_logging


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    names = ("libp2p", "multiaddr", "zeroconf", "async_service", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for handler in list(root.handlers):
        if handler not in before:
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)
    logging.raiseExceptions = raising
    logging.captureWarnings(False)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


def test_a_record_is_one_line_and_cannot_forge_another(tmp_path: Path) -> None:
    start_logging("info", file=tmp_path / "log")
    log = logging.getLogger("p2plearn.net")
    log.info("peer says %s", "hi\n2026-01-01T00:00:00.000Z error  p2plearn: all is lost\x1b[2J\u202e")
    log.debug("not shown")
    try:
        raise ValueError("two\nlines\x07")
    except ValueError:
        log.exception("failed")
    lines = (tmp_path / "log").read_text().split("\n")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info    p2plearn\.net: peer says hi\\n2026", lines[0])
    assert r"\x1b[2J\u202e" in lines[0]
    assert re.match(r"\S+Z error +p2plearn\.net: failed", lines[1])
    assert all(line.startswith("    ") for line in lines[2:] if line)
    assert "\x07" not in "".join(lines)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_as_json_each_line_is_an_object_that_no_peer_can_forge(tmp_path: Path) -> None:
    start_logging("info", as_json=True, file=tmp_path / "log")
    log = logging.getLogger("p2plearn.net")
    nasty = 'hi\n{"level":"error","message":"all is lost"}\x1b[2J\u202e\udc80'
    log.info("peer says %s", nasty, extra={"peer": nasty, "count": 3, "share": float("nan")})
    try:
        raise ValueError("two\nlines\x07")
    except ValueError:
        log.exception("failed")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text("ascii").splitlines()]
    assert len(lines) == 2
    first, second = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    shown = r'hi\n{"level":"error","message":"all is lost"}\x1b[2J\u202e\udc80'
    assert first == {
        "level": "info", "logger": "p2plearn.net", "message": f"peer says {shown}",
        "fields": {"peer": shown, "count": 3, "share": "nan"},
    }  # fmt: skip
    assert (second["level"], second["message"]) == ("error", "failed")
    assert second["exception"][-1] == r"lines\x07"
    assert all(text.isprintable() for text in second["exception"])


def test_others_are_muted_unless_debugging(tmp_path: Path) -> None:
    for debug in (False, True):
        file = tmp_path / f"log{debug}"
        start_logging("debug", debug=debug, file=file)
        logging.getLogger("somebody.else").error("a peer hung up")
        logging.error("to the root")
        logging.getLogger("p2plearn.x").debug("ours")
        text = file.read_text()
        assert ("a peer hung up" in text) is debug
        assert ("to the root" in text) is debug
        assert "ours" in text


def test_the_file_is_set_aside_when_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "LOG_BYTES", 1000)
    start_logging("info", file=tmp_path / "log")
    for number in range(100):
        logging.getLogger("p2plearn").info("record %d", number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
