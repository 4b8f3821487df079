"""The local API over its real socket: what it answers, what it refuses, and that nothing ends it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from pocket_node import PEER_ID, PocketNode, running

from p2plearn import config, operations, people
from p2plearn.client import InternalProblem, NodeClient
from p2plearn.config import Home
from p2plearn.errors import LastCopy, NobodyHasIt, NoNode, P2plearnError, TooBusy, UsageProblem
from p2plearn.local_socket import short_address
from p2plearn.lock import NodeLock
from p2plearn.operations import GetRequest, Progress, PublishRequest, VerifyRequest
from p2plearn.web import openapi, schema, server
from p2plearn.web.routes import ROUTES


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[PocketNode, Home]]:
    with running(tmp_path / "home") as pair:
        yield pair


def raw(home: Home, request: bytes, *, wait: float = 5.0) -> bytes:
    """Everything that comes back for these bytes until the node hangs up."""
    with socket.socket(socket.AF_UNIX) as sock, short_address(home.socket) as address:
        sock.settimeout(wait)
        sock.connect(address)
        with contextlib.suppress(OSError):
            sock.sendall(request)
        answer = b""
        with contextlib.suppress(OSError):
            while part := sock.recv(65536):
                answer += part
        return answer


def call(home: Home, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], Any]:
    """One call with all headers under control: status, headers, parsed body (a list for JSON lines)."""
    fields = {"Host": "p2plearn.local", "Connection": "close"} | {k.replace("_", "-"): v for k, v in headers.items()}
    if body:
        fields.setdefault("Content-Length", str(len(body)))
        fields.setdefault("Content-Type", "application/json")
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    answer = raw(home, f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
    top, _, rest = answer.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    back = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    if back.get("transfer-encoding") == "chunked":
        rest = b"".join(re.split(rb"[0-9a-f]+\r\n", rest))
    if back["content-type"] == "application/x-ndjson":
        return int(lines[0].split()[1]), back, [json.loads(line) for line in rest.split(b"\n") if line.strip()]
    return int(lines[0].split()[1]), back, json.loads(rest)


# -- answers ----------------------------------------------------------------------------------------------------------


def test_a_client_gets_what_the_node_says(node: tuple[PocketNode, Home], tmp_path: Path) -> None:
    _, home = node
    folder = tmp_path / "Kursus"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "text").write_bytes(b"hello")
    client = NodeClient(home.path)
    seen: list[Progress] = []
    published = client.publish(PublishRequest(path=str(folder), title="课程"), seen.append)
    assert published.title == "课程"
    assert published.warnings == ()
    assert seen[-1].bytes == seen[-1].bytes_total == 5
    assert client.status()["peer_id"] == PEER_ID
    assert client.peers()[0]["direction"] == "out"
    assert [row["title"] for row in client.courses()] == ["课程"]
    assert client.info(published.course)["bytes"] == 5
    result = client.get(GetRequest(course=published.course, dest=str(tmp_path / "out")), seen.append)
    assert (Path(result.path) / "a" / "text").read_bytes() == b"hello"
    assert client.contents(GetRequest(course=published.course), seen.append)["entries"][0]["path"] == "a/text"
    assert client.verify(VerifyRequest(), seen.append).damaged == ()
    assert client.remove(published.course)["freed"] == 5
    client.stop()


def test_a_last_copy_goes_only_if_that_is_said_with_or_without_a_body(
    node: tuple[PocketNode, Home], tmp_path: Path
) -> None:
    the_node, home = node
    client, the_node.last_copy = NodeClient(home.path), True
    (tmp_path / "file").write_bytes(b"x")
    course = client.publish(PublishRequest(path=str(tmp_path / "file")), lambda _: None).course
    with pytest.raises(LastCopy, match="Nobody else"):
        client.remove(course)
    for body in (b"", b"{}"):
        status, _, problem = call(home, "DELETE", f"/v1/courses/{course}", body)
        assert (status, problem["code"], problem["exit"]) == (409, "last-copy", 8)
    assert call(home, "DELETE", f"/v1/courses/{course}", b"{}", Content_Type="text/plain")[0] == 415
    assert client.courses()
    assert client.remove(course, last_copy=True)["freed"] == 1
    (operation,) = [op for ops in openapi.document()["paths"].values() for op in ops.values() if "parameters" in op
                    and op["operationId"] == "remove"]  # fmt: skip
    assert operation["requestBody"]["required"] is False


def test_errors_keep_their_kind_and_words(node: tuple[PocketNode, Home]) -> None:
    client = NodeClient(node[1].path)
    with pytest.raises(NobodyHasIt, match="0 providers"):
        client.get(GetRequest(course="12" * 32, dest="/x"), lambda _: None)
    with pytest.raises(UsageProblem, match="not kept here"):
        client.info("12" * 32)
    status, headers, body = call(node[1], "GET", "/v1/courses/" + "12" * 32)
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert body | {"type": 0, "detail": 0} == {
        "schema": 1, "type": 0, "title": "Bad Request", "status": 400, "detail": 0, "hint": "", "code": "usage",
        "exit": 2,
    }  # fmt: skip


def test_a_bug_is_logged_under_a_reference_and_nothing_of_it_leaves(
    node: tuple[PocketNode, Home], caplog: pytest.LogCaptureFixture
) -> None:
    client = NodeClient(node[1].path)
    with pytest.raises(InternalProblem) as caught:
        client.get(GetRequest(course="00" * 32, dest="/x"), lambda _: None)
    assert "secret" not in caught.value.message + caught.value.hint
    reference = re.search(r"error ([0-9a-f]{8})\.", caught.value.message)
    assert reference
    record = next(each for each in caplog.records if reference[1] in each.getMessage())
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert client.status()["peer_id"] == PEER_ID


def test_progress_is_thinned_out(tmp_path: Path) -> None:
    with running(tmp_path / "home", slowly=0.6) as (node, home):
        (tmp_path / "file").write_bytes(b"x" * 1000)
        seen: list[Progress] = []
        begun = time.monotonic()
        NodeClient(home.path).publish(PublishRequest(path=str(tmp_path / "file")), seen.append)
        # Of 60 steps, one at most in each PROGRESS_SECONDS, however long they took.
        assert 3 <= len(seen) <= (time.monotonic() - begun) / config.PROGRESS_SECONDS + 2
        assert [each.bytes for each in seen] == sorted(each.bytes for each in seen)
        assert node.kept


def test_hanging_up_cancels(tmp_path: Path) -> None:
    with running(tmp_path / "home", slowly=60) as (node, home):
        (tmp_path / "file").write_bytes(b"x" * 1000)

        def leave(_: Progress) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            NodeClient(home.path).publish(PublishRequest(path=str(tmp_path / "file")), leave)
        assert node.cancelled.wait(5)
        assert NodeClient(home.path).status()["courses"] == 0


def test_a_node_that_ends_during_a_call_is_named(tmp_path: Path) -> None:
    with running(tmp_path / "home", slowly=60) as (_, home):
        (tmp_path / "file").write_bytes(b"x" * 1000)
        client = NodeClient(home.path)

        def stop(_: Progress) -> None:
            client.stop()

        with pytest.raises(NoNode, match="went away"):
            client.publish(PublishRequest(path=str(tmp_path / "file")), stop)
    with pytest.raises(NoNode, match="No node is running") as caught:
        client.status()
    assert caught.value.hint == "Start one: p2plearn node start --detach"


def test_the_answer_to_a_stop_arrives_however_long_it_took_to_find(tmp_path: Path) -> None:
    class Slow(PocketNode):
        async def stop(self) -> dict[str, Any]:
            await trio.sleep(server._LAST_SECONDS + 0.2)
            self.stopping.set()
            await trio.sleep(0.01)  # it is being taken down now
            return {"fewer_copies": [{"title": "t"}], "unconfirmed": ["12D3"]}

    with running(tmp_path / "home", kind=Slow) as (_, home):
        stopped = NodeClient(home.path).stop()
    assert stopped["fewer_copies"] == [{"title": "t"}]
    assert stopped["unconfirmed"] == ["12D3"]


def test_connections_are_used_again(node: tuple[PocketNode, Home]) -> None:
    request = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /v1/peers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert raw(node[1], request * 3 + last).count(b"HTTP/1.1 200") == 4


# -- the description --------------------------------------------------------------------------------------------------


def check(value: Any, described: dict[str, Any], where: str) -> None:
    """``value`` is as ``described``: the part of JSON Schema that the description uses."""
    kinds = {
        "object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": (int, float)
    }  # fmt: skip
    if "type" in described:
        assert isinstance(value, kinds[described["type"]]), where
    if "const" in described:
        assert value == described["const"], where
    for name in described.get("required", []):
        assert name in value, f"{where}.{name} is missing"
    for name, inner in described.get("properties", {}).items():
        if name in value:
            check(value[name], inner, f"{where}.{name}")
    if isinstance(value, list):
        for item in value:
            check(item, described.get("items", {}), f"{where}[]")


def test_the_description_is_true_of_every_route(node: tuple[PocketNode, Home], tmp_path: Path) -> None:
    the_node, home = node
    (tmp_path / "file").write_bytes(b"x")
    course = NodeClient(home.path).publish(PublishRequest(path=str(tmp_path / "file")), lambda _: None).course
    the_node.damaged = [{"course": course, "title": "t", "path": "p", "what": "w"}]
    status, _, document = call(home, "GET", openapi.PATH)
    assert (status, document["openapi"]) == (200, "3.1.0")
    described = {(m.upper(), p): op for p, ops in document["paths"].items() for m, op in ops.items()}
    assert set(described) == {(route.method, route.path) for route in ROUTES} | {("GET", openapi.PATH)}
    bodies = {
        "publish": {"path": str(tmp_path / "file")},
        "get": {"course": course, "dest": str(tmp_path / "out")},
        "contents": {"course": course},
        "export": {"courses": [course], "path": str(tmp_path / "x.car")},
        "take_in": {"path": str(tmp_path / "x.car")},
    }
    # "remove" and "stop" end what the others need.
    # Calls about people need a real node: tests/gossip makes them.
    rows = [route for route in ROUTES if not route.path.startswith("/v1/people/")]
    for route in sorted(rows, key=lambda route: (route.name == "stop", route.name == "remove")):
        body = json.dumps(bodies.get(route.name, {})).encode() if route.body else b""
        status, headers, answer = call(home, route.method, route.path.format(course=course), body)
        assert status == 200, (route.name, answer)
        content = described[route.method, route.path]["responses"]["200"]["content"]
        assert set(content) == {headers["content-type"]}, route.name
        if route.long:
            kinds = content["application/x-ndjson"]["itemSchema"]["oneOf"]
            check(answer[-1], kinds[1], route.name)
            for line in answer[:-1]:
                check(line, document["components"]["schemas"]["Progress"], route.name)
        else:
            check(answer, content["application/json"]["schema"], route.name)


def test_problems_are_as_described(node: tuple[PocketNode, Home]) -> None:
    described = openapi.document()["components"]["schemas"]["Problem"]
    for target in ("/v1/courses/xyz", "/nothing", "/v1/courses/" + "1" * 64):
        check(call(node[1], "GET", target)[2], described, target)
    line = call(node[1], "POST", "/v1/get", json.dumps({"course": "1" * 64, "dest": "/x"}).encode())[2][-1]
    assert line["event"] == "error"
    check(line["problem"], described, "get")


def test_every_operation_of_a_node_can_be_called() -> None:
    kinds = (operations.NodeOperations, operations.ArchiveOperations, people.PeopleOperations)
    asked = {name for kind in kinds for name in vars(kind) if not name.startswith("_")}
    assert {route.name for route in ROUTES} == asked - {"people", "archives"}


# -- refusals ---------------------------------------------------------------------------------------------------------

BODY = b'{"course": ""}'


@pytest.mark.parametrize(
    ("status", "method", "path", "body", "headers"),
    [
        (404, "GET", "/", b"", {}),
        (404, "GET", "/v1/courses/a/b", b"", {}),
        (404, "GET", "/v1/courses/", b"", {}),
        (405, "DELETE", "/v1/status", b"", {}),
        (405, "OPTIONS", "/v1/status", b"", {}),
        (400, "GET", "/v1/courses/..", b"", {}),
        (400, "GET", "/v1/courses/" + "A" * 64, b"", {}),
        (403, "GET", "/v1/status", b"", {"Host": "evil.example"}),
        (403, "GET", "/v1/status", b"", {"Host": "localhost.evil.example"}),
        (403, "GET", "/v1/status", b"", {"Origin": "http://evil.example"}),
        (403, "GET", "/v1/status", b"", {"Origin": "null"}),
        (403, "GET", "/v1/status", b"", {"Sec_Fetch_Site": "cross-site"}),
        (200, "GET", "/v1/status", b"", {"Host": "localhost:8017", "Origin": "http://localhost:8017"}),
        (415, "POST", "/v1/verify", BODY, {"Content_Type": "text/plain"}),
        (415, "POST", "/v1/stop", b"", {}),
        (400, "POST", "/v1/verify", b"{", {}),
        (400, "POST", "/v1/verify", b"[]", {}),
        (400, "POST", "/v1/verify", b"\xff", {}),
        (400, "POST", "/v1/verify", b"[" * 100_000, {}),
        (400, "POST", "/v1/verify", b"1" * 100_000, {}),
        (400, "POST", "/v1/verify", b'{"course": 5}', {}),
        (413, "POST", "/v1/verify", b"x" * (config.API_BODY_BYTES + 1), {}),
        (431, "GET", "/v1/status", b"", {"X": "x" * 3 * config.API_HEADER_BYTES}),
    ],
)
def test_refusals(
    node: tuple[PocketNode, Home], status: int, method: str, path: str, body: bytes, headers: dict[str, str]
) -> None:
    answered, back, _ = call(node[1], method, path, body, **headers)
    assert answered == status
    if status == 405:
        assert back["allow"]
    assert NodeClient(node[1].path).status()["peer_id"] == PEER_ID


def test_what_is_too_long_is_said_before_it_is_sent(node: tuple[PocketNode, Home]) -> None:
    words = people.PostRequest("question", "y" * 3 * config.API_BODY_BYTES, course="12" * 32)
    with pytest.raises(UsageProblem, match="too long"):
        NodeClient(node[1].path).people("post", words)
    assert NodeClient(node[1].path).status()["peer_id"] == PEER_ID


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("get", {}),
        ("get", {"course": "12"}),
        ("get", {"course": "12" * 32, "dest": "relative"}),
        ("get", {"course": "12" * 32, "timeout": -1}),
        ("get", {"course": "12" * 32, "timeout": 10**400}),
        ("get", {"course": "12" * 32, "timeout": True}),
        ("get", {"course": "12" * 32, "only": "x"}),
        ("get", {"course": "12" * 32, "only": [1]}),
        ("get", {"course": "12" * 32, "only": ["a\0"]}),
        ("get", {"course": "12" * 32, "dest": "/x\ud834"}),
        ("publish", {"path": "relative"}),
        ("publish", {"path": "/x\0"}),
        ("publish", {"path": "/x", "chunker": "rabin"}),
        ("publish", {"path": "/x", "no_copy": 1}),
        ("verify", {"course": "zz"}),
    ],
)
def test_fields_that_are_off_are_refused_by_name(
    node: tuple[PocketNode, Home], path: str, body: dict[str, Any]
) -> None:
    status, _, answer = call(node[1], "POST", f"/v1/{path}", json.dumps(body).encode())
    problem = answer if status == 400 else answer[-1]["problem"]
    assert problem["code"] == "usage", answer


def test_names_that_are_not_utf8_pass(node: tuple[PocketNode, Home], tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/k\xf8n"))
    folder.mkdir()
    (folder / "f").write_bytes(b"1")
    result = NodeClient(node[1].path).publish(PublishRequest(path=str(folder)), lambda _: None)
    assert result.title == folder.name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ["path", "title", "tags", "no_copy", "course", "timeout", "only", "dest"]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON, st.sampled_from([PublishRequest, GetRequest]))
def test_any_json_is_a_request_or_a_usage_problem(value: Any, kind: type) -> None:
    with contextlib.suppress(UsageProblem):
        request = schema.read(kind, value)
        assert schema.read(kind, json.loads(json.dumps(request.as_json()))) == request


@given(st.binary(max_size=50))
def test_any_body_is_json_or_a_usage_problem(body: bytes) -> None:
    with contextlib.suppress(UsageProblem):
        schema.parse_json(body)


# -- bad callers ------------------------------------------------------------------------------------------------------

GOOD = (
    b"POST /v1/verify HTTP/1.1\r\nHost: p2plearn.local\r\nContent-Type: application/json\r\n"
    b"Content-Length: 14\r\nConnection: close\r\n\r\n" + BODY
)


@pytest.mark.parametrize(
    "twice", [b"Host: evil.example\r\nHost: localhost", b"Host: localhost\r\nOrigin: null\r\nOrigin: http://localhost"]
)
def test_what_decides_who_calls_may_not_be_said_twice(node: tuple[PocketNode, Home], twice: bytes) -> None:
    assert raw(node[1], b"GET /v1/status HTTP/1.1\r\n" + twice + b"\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_no_bytes_end_it(node: tuple[PocketNode, Home]) -> None:
    """Raw noise, cut and flipped requests: each is answered or dropped, and the node answers the next."""
    rng = random.Random(4017)
    home = node[1]
    noise = [
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/status HTTP/1.0\r\n\r\n",
        b"POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nxxxx",
        b"GET http://p2plearn.local/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"A" * 100_000,
    ]
    noise += [rng.randbytes(rng.randrange(1, 400)) for _ in range(150)]
    for _ in range(250):
        changed = bytearray(GOOD)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        noise.append(bytes(changed[: rng.randrange(1, len(changed) + 1)]))
    for each in noise:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(home.socket))
            with contextlib.suppress(OSError):
                sock.sendall(each)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
    assert raw(home, GOOD).startswith(b"HTTP/1.1 200")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, len(GOOD) - 1))
def test_how_a_request_is_cut_into_pieces_does_not_matter(shared_node: Home, at: int) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(shared_node.socket))
        sock.sendall(GOOD[:at])
        time.sleep(0.001)
        sock.sendall(GOOD[at:])
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with running(tmp_path_factory.mktemp("shared")) as (_, home):
        yield home


def test_slow_callers_are_cut(node: tuple[PocketNode, Home], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "API_HEADER_SECONDS", 0.2)
    monkeypatch.setattr(config, "API_BODY_SECONDS", 0.2)
    monkeypatch.setattr(config, "API_IDLE_SECONDS", 0.4)
    assert raw(node[1], b"GET /v1/sta").startswith(b"HTTP/1.1 408")
    assert raw(node[1], GOOD[:-3]).startswith(b"HTTP/1.1 408")
    assert raw(node[1], b"") == b""
    assert NodeClient(node[1].path).status()["peer_id"] == PEER_ID


def test_too_many_connections_are_turned_away(node: tuple[PocketNode, Home], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "API_CONNECTIONS", 3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX))
            idle.connect(str(node[1].socket))
        answered_at_last(node[1], b"HTTP/1.1 503")
        with pytest.raises(TooBusy, match="as many calls as it takes") as refused:
            NodeClient(node[1].path).status()
        assert refused.value.exit_code == 5  # not the mistake (2) of whoever calls
    answered_at_last(node[1], b"HTTP/1.1 200")


def answered_at_last(home: Home, status: bytes) -> None:
    deadline = time.monotonic() + 60
    while not raw(home, GOOD).startswith(status):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# -- the socket -------------------------------------------------------------------------------------------------------


def test_the_socket_is_private_and_goes_away(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with running(tmp_path / "home") as (_, home):
            assert stat.S_IMODE(home.socket.stat().st_mode) == 0o600
            assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert not home.socket.exists()


def test_the_socket_of_another_node_in_its_place_stays(tmp_path: Path) -> None:
    with running(tmp_path / "home") as (_, home):
        home.path.rename(tmp_path / "moved")
        with running(tmp_path / "home"):
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(tmp_path / "other"))
            os.rename(tmp_path / "other", home.socket)
        assert home.socket.is_socket()
    assert home.socket.is_socket()


@pytest.mark.parametrize("length", [90, 104, 107, 108, 109, 300, 1000])
def test_homes_of_any_depth_work(tmp_path: Path, length: int) -> None:
    deep = tmp_path
    while len(str(deep)) < length - len("/api.sock"):
        left = length - len("/api.sock") - len(str(deep)) - 1
        deep /= "d" * max(1, min(left, 100))
    with running(deep) as (_, home):
        assert NodeClient(home.path).status()["peer_id"] == PEER_ID


def test_a_dead_nodes_socket_is_replaced_but_only_under_the_lock(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home.socket))
    with pytest.raises(RuntimeError):
        server.listen(home.socket, NodeLock(home.lock))
    with running(tmp_path):
        assert NodeClient(tmp_path).status()["peer_id"] == PEER_ID
    home.socket.write_text("something of the user's")
    with NodeLock(home.lock) as lock, pytest.raises(P2plearnError, match="in the way"):
        server.listen(home.socket, lock)
    assert home.socket.read_text() == "something of the user's"


def test_a_node_that_holds_its_home_but_does_not_answer_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2plearn.client._STARTING_SECONDS", 0.3)
    with NodeLock(tmp_path / "node.lock"), pytest.raises(NoNode, match=f"process {os.getpid()}"):
        NodeClient(tmp_path).status()
