"""⊙ The description of the local API (OpenAPI 3.1), made from the routes themselves.

Imports ``operations`` and its own room; no I/O.
"""

from __future__ import annotations

from typing import Any

from p2plearn import __version__
from p2plearn.operations import SCHEMA, Progress
from p2plearn.web.routes import BODY_MAY_LACK, ROUTES, Route
from p2plearn.web.schema import describe

PATH = "/v1/openapi.json"

_SCHEMA_FIELD = {"type": "integer", "const": SCHEMA, "description": "Grows when a field changes its meaning."}

_PROBLEM = {
    "type": "object",
    "description": "What went wrong (RFC 9457), with a stable word for programs and the command line's exit code.",
    "properties": {
        "schema": _SCHEMA_FIELD,
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "hint": {"type": "string"},
        "code": {"type": "string"},
        "exit": {"type": "integer"},
    },
    "required": ["schema", "type", "title", "status", "detail", "hint", "code", "exit"],
}


def document() -> dict[str, Any]:
    """The whole description, JSON-ready."""
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    paths[PATH] = {
        "get": {
            "operationId": "openapi",
            "summary": "This description.",
            "responses": {"200": {"description": "OpenAPI 3.1.", "content": {"application/json": {}}}},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "p2plearn local API",
            "version": __version__,
            "description": "HTTP and JSON on the Unix socket api.sock of a node's home. The Host header must be "
            "p2plearn.local or localhost. Long calls answer with JSON lines; hanging up cancels them.",
        },
        "servers": [{"url": "http://p2plearn.local"}],
        "paths": paths,
        "components": {"schemas": {"Problem": _PROBLEM, "Progress": _event("progress", describe(Progress))}},
    }


def _operation(route: Route) -> dict[str, Any]:
    answer = describe(route.result) if isinstance(route.result, type) else route.result
    problem = {
        "description": "What went wrong.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if route.long:
        lines = [
            {"$ref": "#/components/schemas/Progress"},
            _event("result", answer),
            _event("error", {"type": "object", "properties": {"problem": {"$ref": "#/components/schemas/Problem"}}}),
        ]
        content: dict[str, Any] = {"application/x-ndjson": {"itemSchema": {"oneOf": lines}}}
    else:
        content = {"application/json": {"schema": _with_schema_field(answer)}}
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {"200": {"description": route.summary, "content": content}, "default": problem},
    }
    if "{course}" in route.path:
        operation["parameters"] = [
            {
                "name": "course",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            }
        ]
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.method not in BODY_MAY_LACK,
            "content": {"application/json": {"schema": describe(route.body)}},
        }
    return operation


def _with_schema_field(answer: dict[str, Any]) -> dict[str, Any]:
    properties = {"schema": _SCHEMA_FIELD, **answer.get("properties", {})}
    return {**answer, "properties": properties, "required": ["schema", *answer.get("required", [])]}


def _event(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    """A JSON line: the fields of ``answer``, flat, and which kind of line it is."""
    described = _with_schema_field(answer)
    described["properties"]["event"] = {"type": "string", "const": name}
    described["required"] = [*described["required"], "event"]
    return described
