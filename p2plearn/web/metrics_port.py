"""The node's figures on a TCP port, for a Prometheus that can't open the local API's socket: GET /metrics, no more.

Off unless ``metrics.listen`` says where; a port alone means loopback. What is shown are numbers only (``metrics``). A
web page can't read them through a name of its own (DNS rebinding): the Host must be an address, or a name of this
machine.

Imports trio and its own room; ``config`` for the limits.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import h11
import trio

from p2plearn import config
from p2plearn.errors import UsageProblem
from p2plearn.operations import NodeOperations
from p2plearn.web import answers
from p2plearn.web.answers import CallRefused
from p2plearn.web.server import METRICS_PATH, READING, Conversation, serve_calls

if TYPE_CHECKING:
    from trio_typing import TaskStatus

logger = logging.getLogger(__name__)

_HINT = 'An example: metrics.listen = "9417", or "192.0.2.7:9417" for beyond this machine.'


def parse_listen(text: str, where: str = "metrics.listen") -> tuple[str, int]:
    """Address and port of ``9417`` (loopback), ``127.0.0.1:9417`` or ``[::1]:9417``; raises UsageProblem, whose message
    begins with ``where`` it stands.
    """
    host, colon, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
        number = int(port) if port.isascii() and port.isdigit() else -1
        if not 0 <= number <= 65535:
            raise ValueError("no port")
    except ValueError:
        raise UsageProblem(f"{where}: “{text}” is no address and port.", _HINT) from None
    return str(address), number


def is_this_machine(host: str) -> bool:
    """Whether a Host header names this machine in a way that no web page's own name can: as an address, or by name."""
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = socket.gethostname().lower()
        return answers.is_local_name(host) or name.lower() in {own, f"{own}.local", own.partition(".")[0]}
    return True


class MetricsConversation(Conversation):
    """Answers GET /metrics and refuses everything else."""

    hosts: Callable[[str], bool] = staticmethod(is_this_machine)

    async def _answer(self, request: h11.Request, headers: Mapping[str, str], body: bytes) -> None:
        if request.target.partition(b"?")[0].decode("ascii") != METRICS_PATH:
            raise CallRefused(404, f"There is only {METRICS_PATH} here.")
        if request.method.decode("ascii") not in READING:
            raise CallRefused(405, f"{METRICS_PATH} can only be read.", (("Allow", ", ".join(READING)),))
        await self.send_metrics()


async def serve_metrics(
    node: NodeOperations, where: str, *, task_status: TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer on ``where`` (see ``parse_listen``) until cancelled; started, with address and port, once it accepts.

    Raises UsageProblem when it can't be listened there.
    """
    host, port = parse_listen(where)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as problem:
        raise UsageProblem(f"metrics.listen: {where} can't be had: {problem.strerror}.", _HINT) from None
    bound = listeners[0].socket.getsockname()
    logger.info(
        "metrics are at http://%s:%d%s", f"[{bound[0]}]" if ":" in bound[0] else bound[0], bound[1], METRICS_PATH
    )
    task_status.started((bound[0], bound[1]))
    await serve_calls(listeners, MetricsConversation, node, lambda: config.METRICS_CONNECTIONS)
