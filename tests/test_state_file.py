"""What a node remembers across restarts: whatever has become of the file, it is one exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from p2plearn.state_file import Unusable, put_aside, read_state


def told(document: Any) -> float:
    return float(document["rows"][0])


def test_what_is_there_is_read_and_nothing_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    assert read_state(path, 100, 1, told) is None
    path.write_text('{"format": 1, "rows": [2.5]}')
    assert read_state(path, path.stat().st_size, 1, told) == 2.5
    with pytest.raises(Unusable, match="too large"):
        read_state(path, path.stat().st_size - 1, 1, told)
    with pytest.raises(Unusable, match="format 1"):
        read_state(path, 100, 2, told)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"rows": [1]}', b'{"format": 1}',
        b'{"format": 1, "rows": []}', b'{"format": 1, "rows": 7}', b'{"format": 1, "rows": {}}',
        b'{"format": 1, "rows": ["x"]}', b'{"format": 1, "rows": [[]]}',
        b'{"format": 1, "rows": [1' + b"0" * 400 + b"]}", b'{"format": 1, "rows": [1' + b"0" * 5000 + b"]}",
    ],
)  # fmt: skip
def test_whatever_else_is_in_it_is_unusable(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "own.json"
    path.write_bytes(raw)
    with pytest.raises(Unusable):
        read_state(path, 1_000_000, 1, told)


def test_one_that_is_no_file_is_unusable_and_is_put_aside_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.mkdir()
    with pytest.raises(Unusable):
        read_state(path, 100, 1, told)
    put_aside(path)
    assert [each.name for each in tmp_path.iterdir()] == ["own.json.bad"]
    put_aside(path)
