"""⊙ What the local API answers: JSON, problems, and who may ask.

Errors are ``application/problem+json`` (RFC 9457) with the fields a program and a person need: ``code`` (stable
word), ``exit`` (what the command line exits with), ``detail`` and ``hint`` (words).

Imports ``errors`` and ``operations``; no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from p2plearn.errors import P2plearnError
from p2plearn.operations import SCHEMA

Headers = tuple[tuple[str, str], ...]

_ONCE = frozenset({"host", "origin", "sec-fetch-site", "content-type"})
"""Headers that may not be repeated: of two, the one that is looked at might be the wrong one."""
ALLOWED_HOSTS = frozenset({"p2plearn.local", "localhost"})
"""Names a caller may use for us. A web page that points its own name at this machine (DNS rebinding) has another."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: status, headers besides the length, body."""

    status: int
    headers: Headers
    body: bytes


class CallRefused(Exception):
    """A call that HTTP itself settles (404, 405, 413, …): ``status`` and words, plus headers such as Allow."""

    def __init__(self, status: int, detail: str, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """ASCII JSON on one line: lone surrogates of odd file names survive as escapes, controls never pass raw."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def result(body: bytes) -> Answer:
    """A JSON object, written already."""
    return Answer(200, (("Content-Type", "application/json"),), body)


def problem(error: P2plearnError) -> dict[str, Any]:
    """An error of ours or the user's as a problem object."""
    return _problem(error.http_status, error.code, error.exit_code, error.message, error.hint)


def call_problem(refused: CallRefused) -> Answer:
    """The answer to a call that HTTP itself settles."""
    return problem_answer(_problem(refused.status, "usage", 2, refused.detail, ""), refused.headers)


def internal_problem(reference: str) -> dict[str, Any]:
    """What is said of a bug of ours: nothing but where to find it in the log."""
    return _problem(500, "internal", 1, f"Internal error {reference}.", f"The node's log has it under {reference}.")


def problem_answer(value: Mapping[str, Any], headers: Headers = ()) -> Answer:
    """A problem object as a whole answer."""
    return Answer(int(value["status"]), (("Content-Type", "application/problem+json"), *headers), json_bytes(value))


def _problem(status: int, code: str, exit_code: int, detail: str, hint: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "type": f"urn:p2plearn:problem:{code}",
        "title": HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Problem",
        "status": status,
        "detail": detail,
        "hint": hint,
        "code": code,
        "exit": exit_code,
    }


def is_local_name(host: str) -> bool:
    """Whether a caller of the local API may use this Host for us."""
    name, colon, port = host.partition(":")
    return name.lower() in ALLOWED_HOSTS and (not colon or (port.isascii() and port.isdigit()))


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name in small letters, as h11 gives them; raises CallRefused where one that decides comes twice."""
    headers: dict[str, str] = {}
    for each, value in raw:
        name = each.decode("ascii")
        if name in headers and name in _ONCE:
            raise CallRefused(HTTPStatus.BAD_REQUEST, f"The {name.title()} header comes twice.")
        headers[name] = value.decode("latin-1")
    return headers


def check_caller(headers: Mapping[str, str], is_ours: Callable[[str], bool] = is_local_name) -> None:
    """Refuse what can only come from a web page that has no business here; raises CallRefused.

    The socket's mode keeps other users out; this keeps out pages, once the same API is on loopback TCP.
    """
    host = headers.get("host", "")
    if not is_ours(host):
        raise CallRefused(HTTPStatus.FORBIDDEN, "The Host header names another machine.")
    origin = headers.get("origin")
    if origin is not None:
        scheme, _, rest = origin.partition("://")
        if scheme not in {"http", "https"} or rest.lower() != host.lower():
            raise CallRefused(HTTPStatus.FORBIDDEN, "Calls from another origin are refused.")
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise CallRefused(HTTPStatus.FORBIDDEN, "Calls from another site are refused.")


def find_reason(error: BaseException) -> P2plearnError | None:
    """The error with words for a person inside ``error``, which may be a group of a nursery's; None for a bug."""
    if isinstance(error, P2plearnError):
        return error
    if isinstance(error, BaseExceptionGroup):
        reasons = [find_reason(inner) for inner in error.exceptions]
        if all(reasons):
            return reasons[0]
    return None
