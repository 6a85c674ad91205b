"""The OpenAPI document is valid, and says of each call what the table says."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from agentd.errors import WIRE_CODES, DeadlineExceeded
from agentd.wire.calls import CALLS
from agentd.wire.openapi import document


@pytest.fixture(scope="module")
def whole() -> dict:
    """Give the document as it is printed."""
    return json.loads(json.dumps(document()))


def test_it_is_valid(whole):
    OpenAPIV31SpecValidator(whole).validate()


def test_it_has_every_call_once_with_its_sentence_parameters_and_right(whole):
    assert list(whole["paths"]) == [f"/{name}" for name in CALLS]
    for name, call in CALLS.items():
        [(verb, operation)] = whole["paths"][f"/{name}"].items()
        assert verb == ("post" if call.writes else "get")
        assert operation["summary"] == call.doc
        assert operation["x-agentd-rights"] == ("agent" if call.agent_may else "own" if call.own else "operator")
        assert named(whole, operation) == set(call.params.__struct_encode_fields__)
        kind = "application/jsonl" if call.stream else "application/json"
        assert list(operation["responses"]["200"]["content"]) == [kind]


def named(whole: dict, operation: dict) -> set[str]:
    """Return the names of an operation's parameters, in the query or the body."""
    if "requestBody" not in operation:
        return {parameter["name"] for parameter in operation["parameters"]}
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return set(whole["components"]["schemas"][reference.rpartition("/")[2]]["properties"])


def test_parameters_are_checked_as_the_daemon_checks_them(whole):
    spawn = Draft202012Validator(whole["components"]["schemas"]["Spawn"])
    assert spawn.is_valid({"profile": "shell", "n": 3, "name": "a-1", "env": {"A_1": "x"}})
    for wrong in ({}, {"profile": "shell", "m": 1}, {"profile": "shell", "n": 0}, {"profile": "shell", "name": "A"}):
        assert not spawn.is_valid(wrong), wrong


def test_errors_have_the_codes_there_are(whole):
    error = whole["components"]["schemas"]["Error"]
    assert set(error["properties"]["error"]["properties"]["code"]["enum"]) == set(WIRE_CODES)
    assert Draft202012Validator(error).is_valid({"error": DeadlineExceeded("late", hint="again").as_json()})
