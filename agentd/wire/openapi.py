"""The table of calls as an OpenAPI document: one path a call, named as on the wire. Daemon side, like the table."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from agentd import __version__
from agentd.errors import WIRE_CODES
from agentd.wire.calls import CALLS, Call

_ABOUT = (
    "Every call of agentd. A call that changes nothing is a GET with its parameters in the query; any other is a POST "
    "with them as a JSON object, and an unknown one is refused. Answers may gain keys; docs/calls.md has their shapes. "
    "A stream answers with one JSON value a line. `x-agentd-rights` says who may: any agent by its token, an agent for "
    "what it started itself, or the operator only."
)
_SCHEMAS = "#/components/schemas/"
_FAILED = {"description": "An error.", "content": {"application/json": {"schema": {"$ref": f"{_SCHEMAS}Error"}}}}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of all calls."""
    shapes, components = msgspec.json.schema_components(
        [call.params for call in CALLS.values()], ref_template=_SCHEMAS + "{name}"
    )
    names = [shape["$ref"].removeprefix(_SCHEMAS) for shape in shapes]
    posted = {name for name, call in zip(names, CALLS.values(), strict=True) if call.writes}
    return {
        "openapi": "3.1.0",
        "info": {"title": "agentd", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/v1"}],
        "security": [{"token": []}],
        "tags": [{"name": noun} for noun in dict.fromkeys(map(_noun, CALLS))],
        "paths": {
            f"/{call.name}": {"post" if call.writes else "get": _operation(call, name, components[name])}
            for call, name in zip(CALLS.values(), names, strict=True)
        },
        "components": {
            "schemas": {name: components[name] for name in sorted(posted)} | {"Error": _error()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _noun(method: str) -> str:
    return method.partition(".")[0]


def _operation(call: Call, name: str, params: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": call.name.replace(".", "_"),
        "tags": [_noun(call.name)],
        "summary": call.doc,
        "description": inspect.cleandoc(params.get("description", "")),
        **({"requestBody": _body(name, params)} if call.writes else {"parameters": _query(params)}),
        "responses": {"200": _answer(call), "default": _FAILED},
        "x-agentd-rights": "agent" if call.agent_may else "own" if call.own else "operator",
    }


def _body(name: str, params: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _SCHEMAS + name}}}
    return {"required": bool(params["required"]), "content": content}


def _query(params: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": name in params["required"], "schema": shape}
        for name, shape in params["properties"].items()
    ]


def _answer(call: Call) -> dict[str, Any]:
    if call.stream:
        return {"description": "The stream's items.", "content": {"application/jsonl": {"schema": {"type": "object"}}}}
    return {"description": "The answer.", "content": {"application/json": {"schema": {"type": "object"}}}}


def _error() -> dict[str, Any]:
    values = {
        "code": {"type": "string", "enum": sorted(WIRE_CODES)},
        "message": {"type": "string", "description": "what was wrong, and what was kept"},
        "hint": {"type": ["string", "null"], "description": "what to do next"},
        "retryable": {"type": "boolean"},
    }
    error = {"type": "object", "properties": values, "required": list(values)}
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}
