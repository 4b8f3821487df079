"""/metrics over the local API and over TCP: who gets it, who doesn't."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import trio
from pocket_node import PocketNode, running
from prometheus_client.parser import text_string_to_metric_families

from p2plearn.cli import main
from p2plearn.client import NodeClient
from p2plearn.errors import UsageProblem
from p2plearn.web.metrics_port import is_this_machine, parse_listen, serve_metrics


def test_the_local_api_and_the_command_have_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path / "home") as (_, home):
        text = NodeClient(home.path).metrics()
        names = {family.name for family in text_string_to_metric_families(text)}
        assert {"p2plearn_build_info", "p2plearn_peers", "process_cpu_seconds"} <= names
        assert main(["--home", str(home.path), "metrics"]) == 0
        printed = capsys.readouterr().out
        assert {family.name for family in text_string_to_metric_families(printed)} == names
        assert main(["--home", str(home.path), "metrics", "--json"]) == 0
        assert "p2plearn_peers" in json.loads(capsys.readouterr().out)["text"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9417", ("127.0.0.1", 9417)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:9417", ("::1", 9417)),
        ("0", ("127.0.0.1", 0)),
    ],
)
def test_where_to_listen(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "host:1", "-1", "٣"])
def test_where_not_to_listen(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"metrics\.listen"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:9417", True), ("localhost:9417", True), ("[::1]:9417", True), ("192.0.2.7", True),
        (f"{socket.gethostname().upper()}:9417", True), ("evil.example", False), ("", False),
        ("127.0.0.1.evil.example:9417", False), ("localhost.evil.example", False),
    ],
)  # fmt: skip
def test_which_names_are_this_machine(host: str, ours: bool) -> None:
    assert is_this_machine(host) is ours


async def ask(where: tuple[str, int], request: str) -> bytes:
    async with await trio.open_tcp_stream(*where) as stream:
        await stream.send_all(request.encode("latin-1"))
        answer = b""
        async for part in stream:
            answer += part
        return answer


async def test_over_tcp_there_is_nothing_but_metrics_and_no_web_page_gets_them() -> None:
    node = PocketNode()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            where = await nursery.start(serve_metrics, node, "127.0.0.1:0")

            async def status(line: str, host: str = "127.0.0.1", *more: str) -> int:
                head = "\r\n".join([line, f"Host: {host}", "Connection: close", *more, "", ""])
                return int((await ask(where, head)).split()[1])

            good = await ask(where, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            head, _, body = good.partition(b"\r\n\r\n")
            assert b"text/plain; version=0.0.4" in head
            assert {f.name for f in text_string_to_metric_families(body.decode())} >= {"p2plearn_build_info"}
            only_head = await ask(where, "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert only_head.startswith(b"HTTP/1.1 200 ")
            assert b"Content-Length: " in only_head
            assert only_head.endswith(b"\r\n\r\n")
            refused = await ask(where, "HEAD /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert refused.startswith(b"HTTP/1.1 404 ")
            assert refused.endswith(b"\r\n\r\n")
            assert await status("GET /metrics HTTP/1.1", "evil.example") == 403
            assert await status("GET /metrics HTTP/1.1", "127.0.0.1", "Origin: http://evil.example") == 403
            assert await status("GET /metrics HTTP/1.1", "127.0.0.1", "Sec-Fetch-Site: cross-site") == 403
            assert await status("GET /v1/status HTTP/1.1") == 404
            assert await status("POST /v1/stop HTTP/1.1") == 404
            assert await status("POST /metrics HTTP/1.1") == 405
            assert not node.stopping.is_set()
            with pytest.raises(UsageProblem, match="can't be had"):
                await serve_metrics(node, f"{where[0]}:{where[1]}")
            nursery.cancel_scope.cancel()
