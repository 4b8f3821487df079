"""The local API on its Unix socket: a thin driver of h11 around ``routes``.

Invariants: nothing that arrives here ends the node or more than its own connection; every wait has a deadline but
the work itself; a caller that hangs up cancels its work; no traceback leaves, bugs are logged under a reference.

Imports trio, h11, and its own room; ``config`` for the limits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import h11
import trio

from p2plearn import __version__, config
from p2plearn.errors import P2plearnError, TooBusy
from p2plearn.local_socket import short_address
from p2plearn.lock import NodeLock
from p2plearn.monitoring import exposition, metrics
from p2plearn.monitoring.process import read_process
from p2plearn.named_file import is_named
from p2plearn.operations import SCHEMA, NodeOperations, Progress
from p2plearn.web import answers, openapi, routes
from p2plearn.web.answers import Answer, CallRefused

if TYPE_CHECKING:
    from trio_typing import TaskStatus

logger = logging.getLogger(__name__)

METRICS_PATH = "/metrics"
"""Where Prometheus looks; on the local API and, where ``metrics.listen`` asks for it, on a TCP port."""

_BACKLOG = 64
_READ_BYTES = 16 * 1024  # h11 looks at its limit between reads only, so headers may have this much more
_LAST_SECONDS = 2.0
"""For a call that is answered even when the node is taken down meanwhile, from then on."""


class _HungUp(Exception):
    """The caller went away."""


def listen(path: Path, lock: NodeLock) -> trio.SocketListener:
    """Open the socket of the local API at ``path``, 0600, in place of one a dead node left.

    ``lock`` proves that no live node is behind an old socket. Raises P2plearnError when it can't be opened.
    """
    if not lock.held:
        raise RuntimeError("the home's lock must be held before its socket is replaced")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise P2plearnError(f"{path} is in the way of the node's socket.", "Move it away.")
            path.unlink()
        # Linux gives the socket's file the descriptor's mode; the chmod is for systems that don't.
        os.fchmod(listener.fileno(), 0o600)
        with short_address(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        return trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    except OSError as problem:
        listener.close()
        raise P2plearnError(f"The node's socket {path} can't be opened: {problem.strerror}.") from None
    except BaseException:
        listener.close()
        raise


async def serve(
    node: NodeOperations,
    path: Path,
    lock: NodeLock,
    *,
    task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer calls on ``path`` until cancelled; started (``nursery.start``) once connections are accepted.

    When cancelled, work under way is cancelled with it and the socket is removed.
    """
    listener = listen(path, lock)
    own = os.lstat(path)
    try:
        async with listener:
            task_status.started()
            await serve_calls([listener], Conversation, node, lambda: config.API_CONNECTIONS)
    finally:
        with contextlib.suppress(OSError):
            if is_named(path, own):  # another home may be there by now, with a node of its own
                os.unlink(path)


READING: Final = ("GET", "HEAD")
"""Methods that fetch a document."""


class Conversation:
    """One connection: calls one after the other until either side is done."""

    hosts: Callable[[str], bool] = staticmethod(answers.is_local_name)
    """Which names a caller may use for us."""

    def __init__(self, node: NodeOperations, stream: trio.SocketStream) -> None:
        self._node = node
        self._stream = stream
        self._method = b""  # of the call that is being answered
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=config.API_HEADER_BYTES)

    async def run(self, *, refuse: bool) -> None:
        async with self._stream:
            with contextlib.suppress(_HungUp, trio.BrokenResourceError, trio.ClosedResourceError):
                while True:
                    await self._one_call(refuse=refuse)
                    if self._http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                        return
                    self._http.start_next_cycle()

    async def _one_call(self, *, refuse: bool) -> None:
        self._method = b""
        try:
            if refuse:
                raise TooBusy(
                    "The node has as many calls as it takes at once.",
                    "Try again in a moment. If it stays so, a program here keeps connections to it open.",
                )
            request = await self._read_head()
            self._method = request.method
            headers = answers.headers_of(request.headers)
            answers.check_caller(headers, self.hosts)
            body = await self._read_body()
            await self._answer(request, headers, body)
        except h11.RemoteProtocolError as problem:
            await self._send_whole(answers.call_problem(CallRefused(problem.error_status_hint, f"{problem}")))
        except CallRefused as refused:
            await self._send_whole(answers.call_problem(refused))
        except P2plearnError as error:
            await self._send_whole(answers.problem_answer(answers.problem(error)))

    async def _answer(self, request: h11.Request, headers: Mapping[str, str], body: bytes) -> None:
        method, target = request.method.decode("ascii"), request.target.decode("ascii")
        if method in READING and target == openapi.PATH:
            document = answers.json_bytes(openapi.document())
            await self._send_whole(Answer(200, (("Content-Type", "application/json"),), document))
            return
        if method in READING and target == METRICS_PATH:
            await self.send_metrics()
            return
        route, course = routes.find_route(method, target)
        if course:
            routes.check_course(course)
        payload = routes.read_body(route, headers, body)
        newest = _Newest()

        async def work() -> bytes:
            value = {"schema": SCHEMA, **await route.act(routes.Call(self._node, course, payload, newest.take))}
            if route.long:
                value["event"] = "result"
            return answers.json_bytes(value)  # here, so that what can't be written as JSON is a bug like any other

        async def tell() -> None:
            if route.long:
                await self._send_lines(route.name, work, newest)
                return
            outcome = await self._until_hung_up(route.name, work)
            if "problem" in outcome:
                await self._send_whole(answers.problem_answer(outcome["problem"]))
            else:
                await self._send_whole(answers.result(outcome["result"]))

        await (_to_the_end(tell) if route.last else tell())

    async def send_metrics(self) -> None:
        """Answer with the node's figures for Prometheus."""
        outcome = await self._until_hung_up("metrics", self._metrics)
        if "problem" in outcome:
            await self._send_whole(answers.problem_answer(outcome["problem"]))
        else:
            await self._send_whole(Answer(200, (("Content-Type", exposition.CONTENT_TYPE),), outcome["result"]))

    async def _metrics(self) -> bytes:
        found = metrics.families(await self._node.status(), read_process(), __version__)
        return exposition.render(found).encode("utf-8")

    # -- reading ------------------------------------------------------------------------------------------------------

    async def _read_head(self) -> h11.Request:
        try:
            with trio.fail_after(config.API_IDLE_SECONDS) as waiting:
                while True:
                    event = self._http.next_event()
                    if isinstance(event, h11.Request):
                        return event
                    if event is not h11.NEED_DATA:
                        raise _HungUp
                    self._http.receive_data(await self._stream.receive_some(_READ_BYTES))
                    waiting.deadline = min(waiting.deadline, trio.current_time() + config.API_HEADER_SECONDS)
        except trio.TooSlowError:
            if self._http.trailing_data[0]:
                raise CallRefused(408, "The headers took too long.") from None
            raise _HungUp from None

    async def _read_body(self) -> bytes:
        body = bytearray()
        try:
            with trio.fail_after(config.API_BODY_SECONDS):
                if self._http.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
                while True:
                    event = self._http.next_event()
                    if isinstance(event, h11.EndOfMessage):
                        return bytes(body)
                    if isinstance(event, h11.Data):
                        body += event.data
                        if len(body) > config.API_BODY_BYTES:
                            raise CallRefused(413, f"A body may have {config.API_BODY_BYTES} bytes.")
                    elif event is h11.NEED_DATA:
                        self._http.receive_data(await self._stream.receive_some(_READ_BYTES))
                    else:
                        raise _HungUp
        except trio.TooSlowError:
            raise CallRefused(408, "The body took too long.") from None

    # -- working ------------------------------------------------------------------------------------------------------

    async def _until_hung_up(
        self,
        name: str,
        work: Callable[[], Awaitable[bytes]],
        tell: Callable[[trio.Event], Any] | None = None,
    ) -> dict[str, Any]:
        """Do ``work`` beside ``tell`` (which is given the event of its end); raises _HungUp when the caller goes.

        Returns ``{"result": …}`` or ``{"problem": …}``.
        """
        outcome: dict[str, Any] = {}
        done = trio.Event()

        async def operate() -> None:
            try:
                outcome["result"] = await work()
            except Exception as error:
                outcome["problem"] = _as_problem(name, error)
            finally:
                done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(operate)
            nursery.start_soon(self._cancel_at_hang_up, nursery.cancel_scope)
            try:
                if tell is not None:
                    await tell(done)
                await done.wait()
            except trio.BrokenResourceError:
                outcome.clear()
            nursery.cancel_scope.cancel()
        if not outcome:
            raise _HungUp
        return outcome

    async def _cancel_at_hang_up(self, scope: trio.CancelScope) -> None:
        while True:
            try:
                arrived = await self._stream.receive_some(_READ_BYTES)
                # What comes after a call is the next one; a caller that sends that much more is not one of ours.
                self._http.receive_data(arrived)
                gone = not arrived or len(self._http.trailing_data[0]) > config.API_HEADER_BYTES + config.API_BODY_BYTES
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                gone = True
            if gone:
                scope.cancel()
                return

    async def _send_lines(self, name: str, work: Callable[[], Awaitable[bytes]], newest: _Newest) -> None:
        """Answer with JSON lines: progress while ``work`` goes on, then how it ended."""
        headers = [("Content-Type", "application/x-ndjson"), ("Cache-Control", "no-store"), ("Connection", "close")]

        async def tell(done: trio.Event) -> None:
            # No deadline here: a terminal that is stopped for an hour must not stop the download behind it.
            await self._send(h11.Response(status_code=200, headers=headers, reason=b"OK"))
            ended = False
            while not ended:
                with trio.move_on_after(config.PROGRESS_SECONDS):
                    await done.wait()
                ended = done.is_set()
                progress = newest.give()
                if progress is not None:
                    await self._send_line({**progress.as_json(), "event": "progress"})

        outcome = await self._until_hung_up(name, work, tell)
        with trio.move_on_after(config.API_WRITE_SECONDS):
            if "problem" in outcome:
                await self._send_line({"schema": SCHEMA, "event": "error", "problem": outcome["problem"]})
            else:
                await self._send(h11.Data(data=outcome["result"] + b"\n"))
            await self._send(h11.EndOfMessage())

    # -- writing ------------------------------------------------------------------------------------------------------

    async def _send(self, event: h11.Event) -> None:
        raw = self._http.send(event)
        if raw:
            await self._stream.send_all(raw)

    async def _send_line(self, value: Mapping[str, Any]) -> None:
        await self._send(h11.Data(data=answers.json_bytes(value) + b"\n"))

    async def _send_whole(self, answer: Answer) -> None:
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        headers = [*answer.headers, ("Content-Length", str(len(answer.body))), ("Cache-Control", "no-store")]
        if self._http.their_state is not h11.DONE:
            headers.append(("Connection", "close"))  # the rest of the request was not read
        with trio.move_on_after(config.API_WRITE_SECONDS):
            await self._send(h11.Response(status_code=answer.status, headers=headers, reason=b""))
            if self._method != b"HEAD":  # which gets the headers that GET would (RFC 9110, 9.3.2)
                await self._send(h11.Data(data=answer.body))
            await self._send(h11.EndOfMessage())


async def serve_calls(
    listeners: Sequence[trio.SocketListener],
    kind: type[Conversation],
    node: NodeOperations,
    most: Callable[[], int],
) -> None:
    """Hold a conversation of ``kind`` with each caller until cancelled; those beyond ``most()`` at once are told so."""
    open_calls = 0

    async def converse(stream: trio.SocketStream) -> None:
        nonlocal open_calls
        open_calls += 1
        try:
            await kind(node, stream).run(refuse=open_calls > most())
        except Exception:
            logger.exception("a call to the node failed (%s)", kind.__name__)
        finally:
            open_calls -= 1

    await trio.serve_listeners(converse, list(listeners))


async def _to_the_end(work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work``; when this is cancelled it still has ``_LAST_SECONDS``. Raises what it raises."""
    problem: Exception | None = None

    async def hurry(scope: trio.CancelScope) -> None:
        try:
            await trio.sleep_forever()
        finally:
            scope.deadline = trio.current_time() + _LAST_SECONDS

    async with trio.open_nursery() as nursery:
        with trio.CancelScope(shield=True) as scope:
            nursery.start_soon(hurry, scope)
            try:
                await work()
            except Exception as error:  # raised below: a nursery would wrap it
                problem = error
        nursery.cancel_scope.cancel()
    if problem is not None:
        raise problem


class _Newest:
    """The newest progress, from any thread; what was not looked at in time is dropped."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def take(self, progress: Progress) -> None:
        self._progress = progress

    def give(self) -> Progress | None:
        progress, self._progress = self._progress, None
        return progress


def _as_problem(name: str, error: Exception) -> dict[str, Any]:
    reason = answers.find_reason(error)
    if reason is not None:
        return answers.problem(reason)
    reference = secrets.token_hex(4)
    logger.error("internal error %s in %s", reference, name, exc_info=error)
    return answers.internal_problem(reference)
