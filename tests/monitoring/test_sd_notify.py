"""Signs of life for a service manager, over real datagram sockets; at last from a real node."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from p2plearn.monitoring.sd_notify import PINGS, Notifier
from tests.nodes import RealNode


@contextmanager
def manager(address: str, seconds: float = 60.0) -> Iterator[socket.socket]:
    """A service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address)
        end.settimeout(seconds)
        yield end


@contextmanager
def reading_manager(address: str) -> Iterator[queue.Queue[dict[str, str]]]:
    """One that reads all the time, as a real one does: what it was told."""
    said: queue.Queue[dict[str, str]] = queue.Queue()

    def read(end: socket.socket) -> None:
        while (message := end.recv(4096)) != b"over":
            said.put(dict(each.split("=", 1) for each in message.decode().splitlines()))

    with manager(address, 600.0) as end:
        thread = threading.Thread(target=read, args=(end,))
        thread.start()
        try:
            yield said
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"over", address)
            thread.join()


def hear(end: socket.socket, word: str) -> dict[str, str]:
    """The next message that has ``word`` among its names."""
    while True:
        lines = end.recv(4096).decode().splitlines()
        fields = dict(each.split("=", 1) for each in lines)
        if word in fields:
            return fields


def silent(end: socket.socket) -> bool:
    """Whether nothing is waiting to be read."""
    end.setblocking(False)
    try:
        end.recv(4096)
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_alive_stopping(tmp_path: Path, abstract: bool) -> None:
    address = f"\0p2plearn-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    environment = {
        "NOTIFY_SOCKET": address.replace("\0", "@"), "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()),
        "OTHER": "x",
    }  # fmt: skip
    with manager(address) as end, Notifier.from_environment(environment) as notifier:
        assert environment == {"OTHER": "x"}
        assert notifier.interval == 30 / PINGS
        notifier.ready("at /ip4/…\nREADY=0")
        assert hear(end, "READY") == {"READY": "1", "STATUS": "at /ip4/… READY=0"}
        notifier.alive()
        assert hear(end, "WATCHDOG") == {"WATCHDOG": "1"}
        notifier.stopping("handing over", seconds=600)
        assert hear(end, "STOPPING")["EXTEND_TIMEOUT_USEC"] == "600000000"


@pytest.mark.parametrize(
    "environment",
    [
        {}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "x"}, {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"},
    ],
)  # fmt: skip
def test_nobody_listens_and_nothing_breaks(environment: dict[str, str]) -> None:
    with Notifier.from_environment(dict(environment)) as notifier:
        assert notifier.interval is None
        notifier.ready("x")
        notifier.alive()
        notifier.stopping()
        trio.run(notifier.keep_alive)  # returns at once


def test_a_manager_that_does_not_read_holds_up_nothing(tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify")), Notifier(str(tmp_path / "notify"), 1.0) as notifier:
        for _ in range(10_000):
            notifier.alive()


async def test_a_loop_that_hangs_gives_no_sign_of_life(tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify")) as end, Notifier(str(tmp_path / "notify"), 0.03) as notifier:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.keep_alive)
            with trio.fail_after(60):
                while silent(end):
                    await trio.sleep(0.01)
                while not silent(end):
                    pass
                time.sleep(0.2)
                assert silent(end)
                while silent(end):  # and goes on
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


def test_a_real_node_is_ready_alive_and_stops_as_a_service(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with reading_manager(address) as said:

        def hear(word: str) -> dict[str, str]:
            while word not in (fields := said.get(timeout=60)):
                continue
            return fields

        node = RealNode(
            tmp_path / "home",
            extra=["--log-format", "json"],
            env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000", "P2PLEARN_METRICS_LISTEN": "0"},
        )
        with node:
            assert node.peer_id in hear("READY")["STATUS"]
            for _ in range(3):
                hear("WATCHDOG")
            text = node.run("metrics")["text"]
            assert "p2plearn_provide_lateness_seconds" in text
            assert "p2plearn_sync_lag_seconds" in text
            assert 'p2plearn_course_bytes_total{network="wan",direction="sent"} 0' in text
            (node.home.path / "config.toml").write_text("[transfer]\npeers = 3\n")
            assert node.run("node", "status")["restart_for"] == ["transfer.peers"]
            assert node.run("config", "show")["restart_for"] == ["transfer.peers"]
            assert node.process is not None
            node.process.send_signal(signal.SIGTERM)
            assert hear("STOPPING")["STOPPING"] == "1"
            assert node.process.wait(60) == 0
        assert '"message": "metrics are at http://127.0.0.1:' in node.log
        assert all(each.startswith('{"time": ') for each in node.log.splitlines())
