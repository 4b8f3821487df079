"""A node against its own machine: other users, web pages, curious logs, too few descriptors."""

from __future__ import annotations

import base64
import os
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from nodes import RealNode

from p2plearn.net import descriptors

NOBODY = 65534

VISIT = """
import os, socket, sys
os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
got = []
for path in {paths!r}:
    try:
        os.listdir(path) if os.path.isdir(path) else open(path, "rb").read()
        got.append(path)
    except OSError:
        pass
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect({socket!r})
        got.append("the socket")
    except OSError:
        pass
print(got)
"""


@pytest.fixture(scope="module")
def crossing() -> Iterator[Path]:
    """A folder that every user of the machine may pass through."""
    with tempfile.TemporaryDirectory(prefix="p2plearn-test-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def node(crossing: Path) -> Iterator[RealNode]:
    """A node at its most talkative, started by somebody with a careless umask, that did a bit of everything."""
    before = os.umask(0)
    try:
        course = crossing / "course"
        course.mkdir()
        (course / "a.txt").write_text("hello")
        options = {"extra": ["--debug"], "env": {"P2PLEARN_LOG_LEVEL": "debug"}}
        with (
            RealNode(crossing / "a", **options) as a,  # type: ignore[arg-type]
            RealNode(crossing / "b", **options) as b,  # type: ignore[arg-type]
        ):
            published = a.run("publish", course)["course"]
            b.run("get", published, "--from", a.address, "-o", crossing / "out")
            b.run("rate", published, "5")
            b.run("node", "status")
            yield b
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("opened", [False, True], ids=["home as it is", "home opened by mistake"])
def test_another_user_gets_nothing(node: RealNode, opened: bool) -> None:
    paths = [str(path) for path in [node.home.path, *node.home.path.rglob("*")] if not path.is_socket()]
    if opened:
        paths = [str(path) for path in (node.home.peer_key, node.home.author_key, node.home.peer_key.parent)]
        node.home.path.chmod(0o755)
    try:
        script = VISIT.format(nobody=NOBODY, paths=paths, socket=str(node.home.socket))
        command = [sys.executable, "-I", "-c", script]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "[]", done.stderr
    finally:
        node.home.path.chmod(0o700)


def test_nothing_in_the_home_is_open_to_others_whatever_the_umask(node: RealNode) -> None:
    for path in {node.home.path, *node.home.path.rglob("*")} - {node.home.log}:  # that one is the test's own
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert not mode & 0o022, f"{path} can be written by others: {mode:o}"
    for path in (node.home.path, node.home.socket, node.home.peer_key, node.home.author_key, node.home.peer_key.parent):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def ask(node: RealNode, request: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(node.home.socket))
        sock.sendall(request.encode("latin-1"))
        answer = b""
        while part := sock.recv(65536):
            answer += part
        return answer


REBOUND = (
    "evil.example", "evil.example:80", "localhost.evil.example", "p2plearn.local.evil.example", "127.0.0.1.nip.io",
    "localhost@evil.example", "localhost:80@evil.example", "evil.example#localhost", "xn--lcalhost-54a", "localhost.",
    "127.0.0.1", "[::1]", "0.0.0.0", "",
)  # fmt: skip
FOREIGN = ("null", "http://evil.example", "https://localhost.evil.example", "file://", "chrome-extension://abc")


@pytest.mark.parametrize("host", REBOUND)
def test_a_page_under_a_name_of_its_own_is_refused(node: RealNode, host: str) -> None:
    answer = ask(node, f"GET /v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ", 2)[1] in {b"403", b"400"}
    assert b"peer_id" not in answer


@pytest.mark.parametrize(
    "header",
    [*(f"Origin: {origin}" for origin in FOREIGN), "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"],
)
def test_a_page_of_another_site_is_refused(node: RealNode, header: str) -> None:
    for request in ("GET /v1/status", "POST /v1/stop", "POST /v1/publish", "DELETE /v1/courses/" + "0" * 64):
        answer = ask(node, f"{request} HTTP/1.1\r\nHost: localhost\r\n{header}\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403"), answer
        assert b"Access-Control-" not in answer.title()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_what_a_form_can_post_does_nothing(node: RealNode, kind: str) -> None:
    said = f"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 2\r\n"
    assert ask(node, said + "Connection: close\r\n\r\n{}").startswith(b"HTTP/1.1 415")
    asked = "OPTIONS /v1/stop HTTP/1.1\r\nHost: localhost\r\nAccess-Control-Request-Method: POST\r\n"
    answer = ask(node, asked + "Connection: close\r\n\r\n")
    assert b"Access-Control-" not in answer.title()
    assert node.run("node", "status")["pid"] == node.pid


def spellings(secret: bytes) -> dict[str, bytes]:
    """How a secret may look in a log."""
    texts = {
        "raw": secret,
        "hex": secret.hex().encode(),
        "spaced hex": secret.hex(" ").encode(),
        "base64": base64.b64encode(secret).rstrip(b"="),
        "url base64": base64.urlsafe_b64encode(secret).rstrip(b"="),
        "base32": base64.b32encode(secret).rstrip(b"="),
        "repr": repr(secret)[2:-1].encode(),
        "escaped": secret.decode("latin-1").encode("unicode_escape"),
        "numbers": ", ".join(map(str, secret)).encode(),
        "integer": str(int.from_bytes(secret)).encode(),
    }
    return {name: text.lower() for name, text in texts.items()}


def test_no_secret_is_in_any_log_or_answer(node: RealNode) -> None:
    said = node.log.encode("utf-8", "surrogateescape")
    said += repr(node.run("node", "status")).encode() + repr(node.run("node", "peers")).encode()
    said += repr(node.run("config", "show")).encode()
    assert b"debug" in said.lower()
    for path in (node.home.peer_key, node.home.author_key):
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        secret = key.private_bytes_raw()  # type: ignore[union-attr]
        for name, text in spellings(secret).items():
            assert text not in said.lower(), f"{path.name} is in the log: {name}"
        body = b"".join(path.read_bytes().splitlines()[1:-1])
        assert body not in said


def test_a_node_out_of_descriptors_lives_and_works_again_when_they_are_back(node: RealNode) -> None:
    pid = node.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    in_use = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
    port = int(node.address.split("/")[4])
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use + 6, before[1]))
    try:
        with ExitStack() as stack:
            for _ in range(40):  # more than there is room for; the rest waits in the kernel
                caller = stack.enter_context(socket.socket())
                caller.settimeout(10)
                caller.connect(("127.0.0.1", port))
            time.sleep(0.5)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            status = node.run("node", "status")
            break
        except AssertionError:
            time.sleep(0.5)
    else:
        pytest.fail(node.log)
    assert status["pid"] == pid
    assert status["network_restarts"] == 0
    with RealNode(node.home.path.parent / "late", bootstrap=[node.address]) as late:
        late.wait_until("peers", 1, 60)


def test_few_descriptors_mean_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(256, 256)]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _what, pair: limits.append(pair))
    assert descriptors.enough_for(192) == 160
    assert descriptors.enough_for(100) == 100
    limits.append((256, 1 << 20))
    assert descriptors.enough_for(1000) == 1000
    assert limits[-1] == (descriptors.WANTED, 1 << 20)
    limits.append((20, 20))
    assert descriptors.enough_for(192) == 8
