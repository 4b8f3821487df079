"""What a caller makes of what comes through the local API's socket: all of an answer, or an error."""

from __future__ import annotations

import io
import socket
import threading
from pathlib import Path

import pytest

from p2plearn.local_http import MOST_HEADERS, Answer, Connection

HEAD = b"HTTP/1.1 200 \r\nContent-Type: application/json\r\n"


def heard(raw: bytes) -> Answer:
    return Answer(io.BufferedReader(io.BytesIO(raw)))  # type: ignore[type-var]


def test_a_body_is_as_long_as_the_answer_says_or_until_its_end() -> None:
    assert heard(HEAD + b"content-length: 2 \r\n\r\n{}more").read() == b"{}"
    assert heard(HEAD + b"\r\n{}\n").read() == b"{}\n"
    assert heard(b"HTTP/1.1 404 Not Found\r\n\r\n").status == 404
    assert list(heard(HEAD + b"\r\n1\n2\n").lines()) == [b"1\n", b"2\n"]


def test_what_ends_too_early_is_no_whole_answer() -> None:
    with pytest.raises(ConnectionError):
        heard(HEAD + b"Content-Length: 3\r\n\r\n{}").read()
    lines = heard(HEAD + b'\r\n{}\n{"eve').lines()
    assert next(lines) == b"{}\n"
    with pytest.raises(ConnectionError):
        next(lines)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"HTTP", b"HTTP/1.1 2000 \r\n\r\n", b"HTTP/2 200\r\n\r\n", b"SSH-2.0-x\r\n", b"\0" * 100_000,
        HEAD, HEAD + b"Cont", HEAD + b"A: b\r\n" * MOST_HEADERS + b"\r\n", HEAD + b"A" * 100_000 + b"\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(raw: bytes) -> None:
    with pytest.raises(ConnectionError):
        heard(raw)


def test_a_call_is_http_with_its_body_measured(tmp_path: Path) -> None:
    got = bytearray()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            caller, _ = listener.accept()
            with caller:
                while not got.endswith(b"{}"):
                    got.extend(caller.recv(100))
                caller.sendall(HEAD + b"\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        connection = Connection(tmp_path / "s", 60.0)
        connection.connect()
        connection.request("POST", "/v1/gc", b"{}")
        assert connection.answers_within(60.0)
        assert connection.answer().read() == b""
        connection.close()
        thread.join()
    line, *headers = got.decode().split("\r\n")
    assert line == "POST /v1/gc HTTP/1.0"
    assert headers == ["Host: p2plearn.local", "Content-Type: application/json", "Content-Length: 2", "", "{}"]
