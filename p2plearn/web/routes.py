"""What can be asked of a node: one row a call, from which both the answering and the description are made.

Short calls answer with one JSON object. Long ones (publish, get, contents, verify) answer with JSON lines:
``progress`` events, then one ``result`` or one ``error``; a caller that hangs up cancels them.

Imports ``config``, ``errors``, ``operations`` and its own room.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from p2plearn.config import MOST_COPIES
from p2plearn.errors import UsageProblem
from p2plearn.operations import (
    MOST_PAUSE_SECONDS,
    ExportRequest,
    ExportResult,
    GetRequest,
    GetResult,
    ImportRequest,
    ImportResult,
    LeaveRequest,
    LeaveResult,
    NodeOperations,
    PublishRequest,
    PublishResult,
    Report,
    VerifyRequest,
    VerifyResult,
)
from p2plearn.web import schema
from p2plearn.web.answers import CallRefused
from p2plearn.web.people import CALLS, PeopleCall

BODY_MAY_LACK = frozenset({"DELETE"})
"""Methods whose calls may come without a body: other programs send none, and no page of another site can call them
without asking first.
"""

_COURSE = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PauseRequest:
    """For how many seconds; 0: until resumed."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class GcRequest:
    """Free what nobody needs; with ``dry_run`` only say what would go."""

    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RemoveRequest:
    """With ``last_copy`` even if no other node shows that it has the course; without, that is refused."""

    last_copy: bool = False


@dataclass(frozen=True, slots=True)
class Nothing:
    """No fields."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked: the node, the ``{course}`` of the path, the body as its dataclass, where to report."""

    node: NodeOperations
    course: str
    body: Any
    report: Report


@dataclass(frozen=True, slots=True)
class Route:
    """One row. ``result`` is the dataclass or the JSON Schema of the answer; ``long`` means JSON lines.

    ``last``: answered even when the node is being taken down meanwhile.
    """

    method: str
    path: str
    name: str
    summary: str
    act: Callable[[Call], Awaitable[Mapping[str, Any]]]
    result: type | dict[str, Any]
    body: type | None = None
    long: bool = False
    last: bool = False


def _object(description: str, **properties: str | dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema: every named field is required, more may come."""
    described = {name: {"type": kind} if isinstance(kind, str) else kind for name, kind in properties.items()}
    return {"type": "object", "description": description, "properties": described, "required": list(properties)}


_TEXTS = {"type": "array", "items": {"type": "string"}}

STATUS = _object(
    "The node as it stands.",
    peer_id="string", addresses=_TEXTS, peers="integer", courses="integer", uptime="number",
)  # fmt: skip
PEER = _object("A connected peer.", peer_id="string", addresses=_TEXTS)
COURSE = _object(
    "A course kept here.", course="string", title="string", bytes="integer", complete="boolean", why="string"
)
ENTRY = _object("A file of a course.", path="string", bytes="integer")
CONTENTS = _object(
    "What is inside a course.",
    course="string", title="string", bytes="integer", files="integer", entries={"type": "array", "items": ENTRY},
)  # fmt: skip
PAUSED = _object(
    "Whether it is paused, and until when: seconds since 1970, null until resumed.",
    paused="boolean", paused_until={"anyOf": [{"type": "number"}, {"type": "null"}]},
)  # fmt: skip
LEFT = {"type": "array", "items": {"type": "string"}}
"""What couldn't be freed, and why."""

REMOVED = _object("What was forgotten.", course="string", title="string", freed="integer", left=LEFT)


async def _status(call: Call) -> Mapping[str, Any]:
    return await call.node.status()


async def _peers(call: Call) -> Mapping[str, Any]:
    return {"peers": await call.node.peers()}


async def _courses(call: Call) -> Mapping[str, Any]:
    return {"courses": await call.node.courses()}


async def _info(call: Call) -> Mapping[str, Any]:
    return await call.node.info(call.course)


async def _remove(call: Call) -> Mapping[str, Any]:
    return await call.node.remove(call.course, last_copy=call.body.last_copy)


async def _stop(call: Call) -> Mapping[str, Any]:
    return {"stopping": True, **await call.node.stop()}


async def _leave(call: Call) -> Mapping[str, Any]:
    return (await call.node.leave(call.body, call.report)).as_json()


async def _gc(call: Call) -> Mapping[str, Any]:
    return await call.node.gc(call.body.dry_run)


async def _pause(call: Call) -> Mapping[str, Any]:
    request: PauseRequest = call.body
    if not 0 <= request.seconds <= MOST_PAUSE_SECONDS:
        raise UsageProblem(f"The field 'seconds' must be from 0 (until resumed) to {MOST_PAUSE_SECONDS}.")
    return await call.node.pause(request.seconds)


async def _resume(call: Call) -> Mapping[str, Any]:
    return await call.node.resume()


async def _publish(call: Call) -> Mapping[str, Any]:
    request: PublishRequest = call.body
    _check_absolute("path", request.path)
    if request.chunker not in {"", "fastcdc", "fixed"}:
        raise UsageProblem(f"There is no chunker {request.chunker!r}; there are fastcdc and fixed.")
    if not 0 <= request.copies <= MOST_COPIES:
        raise UsageProblem(
            f"{request.copies} copies make no sense; choose 1 to {MOST_COPIES}, or 0 for as many as before."
        )
    return (await call.node.publish(request, call.report)).as_json()


async def _get(call: Call) -> Mapping[str, Any]:
    return (await call.node.get(_checked_get(call.body), call.report)).as_json()


async def _contents(call: Call) -> Mapping[str, Any]:
    return await call.node.contents(_checked_get(call.body), call.report)


async def _verify(call: Call) -> Mapping[str, Any]:
    request: VerifyRequest = call.body
    if request.course:
        check_course(request.course)
    if request.timeout < 0:
        raise UsageProblem("The field 'timeout' must not be negative.")
    return (await call.node.verify(request, call.report)).as_json()


async def _export(call: Call) -> Mapping[str, Any]:
    request: ExportRequest = call.body
    _check_absolute("path", request.path)
    for course in request.courses:
        check_course(course)
    if request.people not in {"all", "courses", "none"}:
        raise UsageProblem(f"There is no {request.people!r:.40}; what people said is all, courses or none.")
    return (await call.node.archives.export(request, call.report)).as_json()


async def _import(call: Call) -> Mapping[str, Any]:
    request: ImportRequest = call.body
    _check_absolute("path", request.path)
    return (await call.node.archives.take_in(request, call.report)).as_json()


def _checked_get(request: GetRequest) -> GetRequest:
    check_course(request.course)
    if request.dest:
        _check_absolute("dest", request.dest)
    if request.timeout < 0:
        raise UsageProblem("The field 'timeout' must not be negative.")
    return request


def check_course(text: str) -> None:
    """Refuse what isn't a full course hash in hex; raises UsageProblem."""
    if not _COURSE.fullmatch(text):
        raise UsageProblem("A course is named by 64 hex digits (lower case) here.")


def _check_absolute(name: str, path: str) -> None:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise UsageProblem(f"The field {name!r} is no path that this system can have.") from None
    if not path.startswith("/"):
        raise UsageProblem(f"The field {name!r} must be an absolute path.")


def _people_route(row: PeopleCall) -> Route:
    async def act(call: Call) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = await getattr(call.node.people, row.name)(call.body)
        return answer

    return Route(
        "POST", f"/v1/people/{row.name}", row.name, row.summary, act, _object(row.summary, **row.answer), row.body
    )


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/status", "status", "The node as it stands.", _status, STATUS),
    Route("GET", "/v1/peers", "peers", "The peers it is connected to.", _peers,
          _object("The peers.", peers={"type": "array", "items": PEER})),
    Route("GET", "/v1/courses", "courses", "The courses kept here.", _courses,
          _object("The courses.", courses={"type": "array", "items": COURSE})),
    Route("GET", "/v1/courses/{course}", "info", "All that is known here of one course.", _info, COURSE),
    Route("DELETE", "/v1/courses/{course}", "remove", "Forget a course and free its bytes.", _remove,
          REMOVED, RemoveRequest),
    Route("POST", "/v1/publish", "publish", "Publish a folder or a file of this machine.", _publish,
          PublishResult, PublishRequest, long=True),
    Route("POST", "/v1/get", "get", "Fetch a course and check it out.", _get, GetResult, GetRequest, long=True),
    Route("POST", "/v1/contents", "contents", "Fetch what is inside a course, without the bytes.", _contents,
          CONTENTS, GetRequest, long=True),
    Route("POST", "/v1/verify", "verify", "Hash what is stored, name what is damaged, mend it if asked to.", _verify,
          VerifyResult, VerifyRequest, long=True),
    Route("POST", "/v1/export", "export", "Write courses and what was said of them into a CAR file.", _export,
          ExportResult, ExportRequest, long=True),
    Route("POST", "/v1/import", "take_in", "Take in what such a file holds.", _import,
          ImportResult, ImportRequest, long=True),
    Route("POST", "/v1/gc", "gc", "Free what nobody needs any more, or say what would go.", _gc,
          _object("What went, or would go.", courses={"type": "array"}, freed="integer", left=LEFT), GcRequest),
    Route("POST", "/v1/leave", "leave", "Hand over what is kept here to other nodes.", _leave,
          LeaveResult, LeaveRequest, long=True, last=True),
    Route("POST", "/v1/pause", "pause", "Move no bytes of courses for a while.", _pause, PAUSED, PauseRequest),
    Route("POST", "/v1/resume", "resume", "End a pause.", _resume, PAUSED, Nothing),
    Route("POST", "/v1/stop", "stop", "Stop the node; answers before it does.", _stop,
          _object("Under way.", stopping="boolean", fewer_copies={"type": "array"}, unconfirmed=_TEXTS),
          Nothing, last=True),
    *map(_people_route, CALLS),
)  # fmt: skip


def find_route(method: str, target: str) -> tuple[Route, str]:
    """The row of a request line and the course its path names ("" if none); raises CallRefused (404, 405)."""
    path = target.partition("?")[0]
    allowed: list[str] = []
    for route in ROUTES:
        course = _match(route.path, path)
        if course is None:
            continue
        if route.method == method:
            return route, course
        allowed.append(route.method)
    if allowed:
        raise CallRefused(405, f"{path} can't be asked with {method}.", (("Allow", ", ".join(allowed)),))
    raise CallRefused(404, "There is no such path in this API; /v1/openapi.json describes it.")


def _match(pattern: str, path: str) -> str | None:
    head, brace, _ = pattern.partition("{course}")
    if not brace:
        return "" if path == pattern else None
    if path.startswith(head) and (course := path[len(head) :]) and "/" not in course:
        return course
    return None


def read_body(route: Route, headers: Mapping[str, str], body: bytes) -> Any:
    """The body of a call as the route's dataclass; raises CallRefused (415) or UsageProblem."""
    if route.body is None:
        return None
    if not body and route.method in BODY_MAY_LACK:
        return schema.read(route.body, {})
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site can post forms and plain text without asking first, but not this.
    if kind != "application/json":
        raise CallRefused(415, "The body must be application/json.")
    return schema.read(route.body, schema.parse_json(body))
