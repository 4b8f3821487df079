"""The node's local API as Python calls: what the command line uses, and any program may.

Plain blocking code on a Unix socket. Every call raises the P2plearnError that the node answered with, NoNode (with
the command that starts one) when none is there.

Imports ``errors``, ``operations``, ``config``, ``lock``, ``local_http``, ``processes`` and the standard
library; no trio, no libp2p.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2plearn.config import API_BODY_BYTES, Home
from p2plearn.errors import NoNode, P2plearnError, UsageProblem
from p2plearn.local_http import Answer, Connection
from p2plearn.lock import holder
from p2plearn.operations import (
    ExportRequest,
    ExportResult,
    GetRequest,
    GetResult,
    ImportRequest,
    ImportResult,
    LeaveRequest,
    LeaveResult,
    Progress,
    PublishRequest,
    PublishResult,
    VerifyRequest,
    VerifyResult,
)
from p2plearn.processes import state_of, why_silent

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_STARTING_SECONDS = 5.0
"""How long a call waits for a node that holds its home already but doesn't answer yet."""

_SHORT_CALL_SECONDS = 60.0
"""A short call that takes longer means a node that hangs; a long one (JSON lines) may be silent for hours."""

_SILENT_SECONDS = 4.0
"""After which whoever waits is told what is known of a node that is silent, and one that can't answer is given up."""

_WELL_SECONDS = 1.0
_SETTING_SECONDS = 5.0
_STOP_CALL_SECONDS = 10.0
"""A node that doesn't react to being stopped is sent a signal instead; nobody wants to wait a minute for that."""

OnProgress = Callable[[Progress], None]
OnSilence = Callable[[str], None]


def start_command(home: Path, *, named: bool) -> str:
    """The command that starts a node for this home; ``named``: the home was given on the command line."""
    return f"p2plearn {f'--home {shlex.quote(str(home))} ' if named else ''}node start --detach"


class NodeClient:
    """A node, by its home. Holds no connection between calls.

    ``patience``: seconds that a short call may take. ``on_silence`` is told in words when one takes longer than usual.
    """

    def __init__(
        self,
        home: Path,
        *,
        named: bool = False,
        patience: float = _SHORT_CALL_SECONDS,
        on_silence: OnSilence = lambda _: None,
    ) -> None:
        self._home = Home(home)
        self._patience = patience
        self._on_silence = on_silence
        self._start = start_command(home, named=named)

    # -- short calls --------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The node as it stands: ``peer_id``, ``addresses``, ``peers``, ``courses``, ``uptime``, …"""
        return self._short("GET", "/v1/status")

    def leaves_on_stop(self) -> bool:
        """Whether a stop is to hand over first, by the node's own setting; asked shortly, for it may hang.

        Not when it does so already, or has: then the next stop is meant to end it. Nor while it is paused.
        """
        facts = self._short("GET", "/v1/status", None, _SETTING_SECONDS)
        leaving = dict(facts.get("custody") or {}).get("leaving")
        return bool(facts.get("leaves_on_stop")) and not leaving and not facts.get("paused")

    def metrics(self) -> str:
        """Its figures in Prometheus' text format."""
        return self._text("/metrics")

    def peers(self) -> list[dict[str, Any]]:
        """The peers it is connected to."""
        return list(self._short("GET", "/v1/peers")["peers"])

    def courses(self) -> list[dict[str, Any]]:
        """The courses kept there."""
        return list(self._short("GET", "/v1/courses")["courses"])

    def info(self, course: str) -> dict[str, Any]:
        """All that is known there of one course (64 hex digits)."""
        return self._short("GET", f"/v1/courses/{course}")

    def remove(self, course: str, *, last_copy: bool = False) -> dict[str, Any]:
        """Forget a course and free its bytes: ``course``, ``title``, ``freed``.

        Raises LastCopy, unless ``last_copy``, when no other node shows that it has it.
        """
        return self._short("DELETE", f"/v1/courses/{course}", {"last_copy": last_copy})

    def people(self, name: str, request: DataclassInstance) -> dict[str, Any]:
        """A call about people: ``name`` is a method of ``people.PeopleOperations``, ``request`` what it takes."""
        return self._short("POST", f"/v1/people/{name}", dataclasses.asdict(request))

    def pause(self, seconds: float = 0.0) -> dict[str, Any]:
        """Move no bytes of courses for so long (0: until resumed): ``paused``, ``paused_until``."""
        return self._short("POST", "/v1/pause", {"seconds": seconds})

    def resume(self) -> dict[str, Any]:
        """End a pause."""
        return self._short("POST", "/v1/resume", {})

    def gc(self, *, dry_run: bool) -> dict[str, Any]:
        """Free what nobody needs any more (``freed``, ``courses``), or say what would go."""
        return self._short("POST", "/v1/gc", {"dry_run": dry_run})

    def stop(self) -> dict[str, Any]:
        """Ask the node to stop; returns soon, it may take a few seconds more.

        ``fewer_copies``: courses that have fewer copies than asked for from then on; ``unconfirmed``: peer ids of
        nodes that have copies, and didn't answer so soon. Empty if it stopped before it could answer.
        """
        try:
            return self._short("POST", "/v1/stop", {}, _STOP_CALL_SECONDS)
        except _Lost:
            return {}

    # -- long calls ---------------------------------------------------------------------------------------------------

    def publish(self, request: PublishRequest, on_progress: OnProgress) -> PublishResult:
        """Publish a folder or a file; durable when it returns."""
        return PublishResult.from_json(self._long("/v1/publish", request.as_json(), on_progress))

    def get(self, request: GetRequest, on_progress: OnProgress) -> GetResult:
        """Fetch a course and check it out."""
        return GetResult.from_json(self._long("/v1/get", request.as_json(), on_progress))

    def contents(self, request: GetRequest, on_progress: OnProgress) -> dict[str, Any]:
        """What is inside a course, without its bytes."""
        return self._long("/v1/contents", request.as_json(), on_progress)

    def verify(self, request: VerifyRequest, on_progress: OnProgress) -> VerifyResult:
        """Hash what is stored of one course (all when empty), and mend it if asked to."""
        return VerifyResult.from_json(self._long("/v1/verify", request.as_json(), on_progress))

    def export(self, request: ExportRequest, on_progress: OnProgress) -> ExportResult:
        """Write courses into a CAR file."""
        return ExportResult.from_json(self._long("/v1/export", request.as_json(), on_progress))

    def take_in(self, request: ImportRequest, on_progress: OnProgress) -> ImportResult:
        """Take in what such a file holds."""
        return ImportResult.from_json(self._long("/v1/import", request.as_json(), on_progress))

    def leave(self, request: LeaveRequest, on_progress: OnProgress) -> LeaveResult:
        """Hand over what is kept there; the node runs on until it is stopped."""
        return LeaveResult.from_json(self._long("/v1/leave", request.as_json(), on_progress))

    # -- how ----------------------------------------------------------------------------------------------------------

    def _short(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, seconds: float | None = None
    ) -> dict[str, Any]:
        seconds = self._patience if seconds is None else seconds
        connection = self._call(method, path, body, seconds)
        try:
            self._await_answer(connection, seconds)
            return _checked(connection.answer())
        except TimeoutError:
            raise self._silent(f"did not answer within {seconds:.0f} s") from None
        except OSError:
            raise _Lost(self._home, self._start) from None
        finally:
            connection.close()

    def _text(self, path: str) -> str:
        connection = self._call("GET", path, None, self._patience)
        try:
            self._await_answer(connection, self._patience)
            answer = connection.answer()
            if answer.status != 200:
                _checked(answer)
            return answer.read().decode("utf-8")
        except TimeoutError:
            raise self._silent(f"did not answer within {self._patience:.0f} s") from None
        except (OSError, UnicodeDecodeError):
            raise _Lost(self._home, self._start) from None
        finally:
            connection.close()

    def _await_answer(self, connection: Connection, seconds: float | None) -> None:
        """Wait for the first byte of an answer, up to ``seconds``, and say after a few what is known of the silence.

        A call that may take for ever (None) is begun to be answered at once by a node that is well, so it is waited
        for until it is, and looked at again and again. Raises P2plearnError when the process is suspended.
        """
        if seconds is not None and seconds <= _SILENT_SECONDS:
            return
        told = False
        while not connection.answers_within(_SILENT_SECONDS):
            pid = holder(self._home.lock)
            state = state_of(pid or 0)
            if state in {"T", "t"}:
                raise self._silent("doesn't answer")
            if pid and not told:
                told = True
                why, _ = why_silent(pid, state)
                said = "is at it, and may wait for other nodes" if self._is_well() else f"doesn't answer so far: {why}"
                self._on_silence(f"The node {said}. Waiting {f'up to {seconds:.0f} s ' if seconds else ''}for it …")
            if seconds is not None:
                return

    def _is_well(self) -> bool:
        """Whether the node answers another call at once, so that it is neither busy nor hangs."""
        connection = Connection(self._home.socket, _WELL_SECONDS)
        try:
            connection.connect()
            connection.request("GET", "/v1/peers")
            return connection.answer().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _silent(self, what: str) -> P2plearnError:
        """The error for a node that ``what``: with what is known of its process."""
        pid = holder(self._home.lock)
        log = f"Its log may say more: {self._home.log}"
        if not pid:
            return P2plearnError(f"The node of {self._home.path} {what}.", log)
        why, todo = why_silent(pid, state_of(pid))
        return P2plearnError(f"The node of {self._home.path} {what}: {why}.", f"{todo}. {log}")

    def _long(self, path: str, body: Mapping[str, Any], on_progress: OnProgress) -> dict[str, Any]:
        connection = self._call("POST", path, body, None)
        try:
            self._await_answer(connection, None)
            silence = _Silence(self._home, self._is_well, self._on_silence)
            for event in self._events(connection.answer_in_pieces(_SILENT_SECONDS, silence.look), silence):
                if event.get("event") == "progress":
                    on_progress(Progress.from_json(event))
                elif event.get("event") == "error":
                    raise as_error(event["problem"])
                elif event.get("event") == "result":
                    return event
        except OSError:
            raise _Lost(self._home, self._start) from None
        finally:
            connection.close()
        raise _Lost(self._home, self._start)

    def _events(self, answer: Answer, silence: _Silence) -> Iterator[dict[str, Any]]:
        if answer.status != 200:
            _checked(answer)
        for line in answer.lines():
            silence.over()
            yield _object(line)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float | None) -> Connection:
        """Send a call; raises NoNode when there is nobody to send it to."""
        raw = None
        if body is not None:
            raw = json.dumps(body).encode("ascii")
            if len(raw) > API_BODY_BYTES:  # the node would hang up in the middle of it
                raise UsageProblem(f"That is too long: {len(raw):,} bytes; a call may have {API_BODY_BYTES:,}.")
        connection = Connection(self._home.socket, seconds)
        deadline = time.monotonic() + _STARTING_SECONDS
        while True:
            try:
                connection.connect()
                break
            except OSError:
                pid = holder(self._home.lock)
                if pid is None:
                    raise NoNode(f"No node is running for {self._home.path}.", f"Start one: {self._start}") from None
                if time.monotonic() > deadline:
                    raise NoNode(
                        f"The node of {self._home.path} (process {pid}) is there but doesn't answer.",
                        f"It may be starting or stopping still; its log may say more: {self._home.log}",
                    ) from None
                time.sleep(0.05)
        try:
            connection.request(method, path, raw)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have answered before it hung up: one that is busy doesn't read first
        except OSError:
            connection.close()
            raise _Lost(self._home, self._start) from None
        return connection


class _Silence:
    """A node that stops answering in the middle of a long call: whoever waits is told once why, and what to do.

    Nothing is given up: who suspended the node may let it go on, and what is waited for comes then.
    """

    def __init__(self, home: Home, is_well: Callable[[], bool], say: OnSilence) -> None:
        self._home, self._is_well, self._say = home, is_well, say
        self._told = ""

    def over(self) -> None:
        """Something came."""
        self._told = ""

    def look(self) -> None:
        """Nothing came for some seconds, which is nothing yet: a step may take long, and say nothing meanwhile."""
        pid = holder(self._home.lock) or 0
        state = state_of(pid)
        if not pid or self._told == state or (state not in {"T", "t"} and (self._told or self._is_well())):
            return
        self._told = state
        why, todo = why_silent(pid, state)
        self._say(f"The node doesn't answer: {why}. Waiting for it. {todo}.")


class _Lost(NoNode):
    """The node went away in the middle of a call."""

    def __init__(self, home: Home, start: str) -> None:
        super().__init__(
            f"The node of {home.path} went away before it had answered.",
            f"Its log may say why: {home.log}. Start it again: {start}",
        )


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise P2plearnError("The node's answer can't be understood; it may be of another version.")
    return value


def _checked(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer; raises the error it stands for."""
    value = _object(answer.read())
    if answer.status >= 400:
        raise as_error(value)
    return value


def _kinds(base: type[P2plearnError]) -> Iterator[type[P2plearnError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == P2plearnError.__module__:
            yield kind
            yield from _kinds(kind)


_BY_CODE = {kind.code: kind for kind in _kinds(P2plearnError)}


class InternalProblem(P2plearnError):
    """A bug of the node's; its log has it under the reference in the message."""

    code = "internal"


_BY_CODE[InternalProblem.code] = InternalProblem


def as_error(problem: Mapping[str, Any]) -> P2plearnError:
    """The error that a problem object of the API stands for; an unknown code (a newer node's) gives the plain kind."""
    kind = _BY_CODE.get(str(problem.get("code", "")), P2plearnError)
    return kind(str(problem.get("detail", "The node reports a problem.")), str(problem.get("hint", "")))
