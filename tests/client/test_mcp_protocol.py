"""The conversation with a client, in each version, without any I/O."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_client import META, STATELESS

from agentd.errors import InvalidValue, Unavailable, UnknownMethod
from agentd.mcp.lines import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND
from agentd.mcp.protocol import HANDSHAKE, MOST_WAITING, Protocol, Question

DONE = {"content": [{"type": "text", "text": "yes"}], "isError": False}


class Told:
    """A protocol and what it said."""

    def __init__(self, version: str = "") -> None:
        self.protocol = Protocol()
        if version:
            self.say(0, "initialize", protocolVersion=version)
            self.heard()

    def say(self, id_: Any, method: str, **params: Any) -> list[Question]:
        return self.line({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})

    def notify(self, method: str, **params: Any) -> list[Question]:
        return self.line({"jsonrpc": "2.0", "method": method, "params": params})

    def line(self, value: Any) -> list[Question]:
        return self.protocol.take(json.dumps(value).encode())

    def heard(self) -> list[Any]:
        lines, self.protocol.to_send = self.protocol.to_send, []
        return [json.loads(line) for line in lines]

    def answer(self, id_: Any, method: str, **params: Any) -> Any:
        assert self.say(id_, method, **params) == []
        (answer,) = self.heard()
        assert answer["id"] == id_
        return answer

    def code(self, id_: Any, method: str, **params: Any) -> int:
        return self.answer(id_, method, **params)["error"]["code"]


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        *((version, version) for version in HANDSHAKE),
        ("2026-07-28", "2025-11-25"),
        ("2099-01-01", "2025-11-25"),
        ("", "2025-11-25"),
    ],
)
def test_a_version_is_agreed_upon(wanted, given):
    told = Told()
    result = told.answer(1, "initialize", protocolVersion=wanted, capabilities={})["result"]
    assert result["protocolVersion"] == given
    assert result["capabilities"] == {"tools": {}}
    assert result["serverInfo"]["name"] == "agentd"
    assert "resultType" not in result


def test_before_initialize_only_ping_is_answered():
    told = Told()
    assert told.answer(1, "ping")["result"] == {}
    assert told.code(2, "tools/list") == told.code(3, "anything") == INVALID_PARAMS
    assert told.code(4, "initialize") == told.code(5, "initialize", protocolVersion=3) == INVALID_PARAMS


def test_no_parameters_may_be_said_by_null():
    told = Told("2025-11-25")
    told.line({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": None})
    assert told.heard() == [{"jsonrpc": "2.0", "id": 1, "result": {}}]


def test_what_is_not_there():
    told = Told("2025-11-25")
    for method in ("server/discover", "resources/list", "prompts/list", "logging/setLevel", "subscriptions/listen", ""):
        assert told.code(1, method) == METHOD_NOT_FOUND


def test_notifications_and_answers_are_never_answered():
    told = Told("2025-11-25")
    told.notify("notifications/initialized")
    told.notify("notifications/cancelled")
    told.notify("notifications/cancelled", requestId=[1])
    told.notify("notifications/cancelled", requestId=99, reason="answered already")
    told.notify("tools/call", name="whoami")
    told.notify("no/such/thing")
    told.line({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": None})
    told.line({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": [1]})
    told.line({"jsonrpc": "2.0", "result": None, "params": None})
    told.line({"jsonrpc": "2.0", "id": 4, "result": {}})
    told.line({"jsonrpc": "2.0", "id": 4, "error": {"code": 1, "message": ""}})
    assert told.heard() == []


def test_tools_are_asked_of_the_daemon():
    told = Told("2025-11-25")
    (listed,) = told.say(1, "tools/list")
    (used,) = told.say("1", "tools/call", name="inbox", arguments={"limit": 3})  # another id than the number
    assert (listed.method, used.method) == ("tools/list", "tools/call")
    assert used.params == {"name": "inbox", "arguments": {"limit": 3}}
    told.protocol.answered(used, DONE)
    told.protocol.answered(listed, {"tools": []})
    first, second = told.heard()
    assert first == {"jsonrpc": "2.0", "id": "1", "result": DONE}
    assert second == {"jsonrpc": "2.0", "id": 1, "result": {"tools": []}}


@pytest.mark.parametrize("params", [{}, {"name": 1}, {"name": "a", "arguments": [1]}, {"name": "a", "arguments": "x"}])
def test_a_tool_has_a_name_and_arguments(params):
    told = Told("2025-11-25")
    assert told.code(1, "tools/call", **params) == INVALID_PARAMS


def test_there_is_one_page_of_tools():
    assert Told("2025-11-25").code(1, "tools/list", cursor="more") == INVALID_PARAMS


def test_errors_of_tools_are_for_the_model_and_a_tool_that_is_none_is_not():
    told = Told("2025-11-25")
    for error in (InvalidValue("to is missing", hint="name it"), Unavailable("no daemon")):
        (question,) = told.say(1, "tools/call", name="send_message")
        told.protocol.answered(question, error)
        result = told.heard()[0]["result"]
        assert result["isError"]
        assert result["content"][0]["text"].startswith(error.message)
        assert result["structuredContent"]["error"]["code"] == error.code
    (question,) = told.say(1, "tools/call", name="nothing")
    told.protocol.answered(question, UnknownMethod("there is no tool"))
    assert told.heard()[0]["error"]["code"] == INVALID_PARAMS
    (question,) = told.say(1, "tools/list")
    told.protocol.answered(question, Unavailable("no daemon"))
    error = told.heard()[0]["error"]
    assert (error["code"], error["data"]["code"]) == (INTERNAL_ERROR, "unavailable")


def test_a_cancelled_request_is_dropped_and_never_answered():
    told = Told("2025-11-25")
    (question,) = told.say(7, "tools/call", name="wait")
    told.notify("notifications/cancelled", requestId="7")  # another one
    assert told.protocol.dropped == []
    told.notify("notifications/cancelled", requestId=7, reason="no longer needed")
    assert told.protocol.dropped == [question]
    told.protocol.answered(question, DONE)
    assert told.heard() == []


def test_an_id_is_used_once_at_a_time_and_requests_are_bounded():
    told = Told("2025-11-25")
    (question,) = told.say(1, "tools/call", name="wait")
    assert told.code(1, "tools/call", name="whoami") == told.code(1, "ping") == INVALID_REQUEST
    told.protocol.answered(question, DONE)
    assert told.heard()[0]["result"] == DONE
    for number in range(MOST_WAITING):
        assert told.say(number, "tools/call", name="wait")
    assert told.code("more", "tools/call", name="wait") == INTERNAL_ERROR
    assert told.answer("ping", "ping")["result"] == {}
    told.notify("notifications/cancelled", requestId=3)
    assert told.say("more", "tools/call", name="wait")


# -- 2025-03-26: several messages in one array


def request(id_: Any, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


def test_an_array_is_answered_by_an_array_when_all_of_it_is_done():
    told = Told("2025-03-26")
    (question,) = told.line(
        [
            request(1, "ping"),
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            request(2, "tools/call", name="whoami"),
            7,
            request(3, "initialize", protocolVersion="2025-03-26"),
        ]
    )
    assert told.heard() == []
    told.protocol.answered(question, DONE)
    (answer,) = told.heard()
    assert {row["id"]: row.get("error", {}).get("code", 0) for row in answer} == {
        1: 0,
        2: 0,
        None: INVALID_REQUEST,
        3: METHOD_NOT_FOUND,
    }


def test_an_array_of_notifications_is_not_answered_and_one_is_done_when_its_last_request_is_cancelled():
    told = Told("2025-03-26")
    told.line([{"jsonrpc": "2.0", "method": "notifications/initialized"}])
    told.line([request(1, "tools/call", name="wait")])
    told.notify("notifications/cancelled", requestId=1)
    assert told.heard() == []
    told.line([request(1, "tools/call", name="wait"), request(2, "ping")])
    assert told.heard() == []
    told.notify("notifications/cancelled", requestId=1)
    assert told.heard() == [[{"jsonrpc": "2.0", "id": 2, "result": {}}]]


@pytest.mark.parametrize("version", [*(version for version in HANDSHAKE if version != "2025-03-26"), ""])
def test_other_versions_have_no_arrays(version):
    told = Told(version)
    told.line([request(1, "ping")])
    (answer,) = told.heard()
    assert (answer["id"], answer["error"]["code"]) == (None, INVALID_REQUEST)


@pytest.mark.parametrize("messages", [[], [request(1, "ping")] * 101])
def test_an_array_has_some_messages_and_not_too_many(messages):
    told = Told("2025-03-26")
    told.line(messages)
    (answer,) = told.heard()
    assert answer["error"]["code"] == INVALID_REQUEST


# -- 2026-07-28: nothing is remembered


def test_without_a_handshake_every_request_says_its_version():
    told = Told()
    found = told.answer(1, "server/discover", _meta=META)["result"]
    assert found["supportedVersions"][0] == STATELESS
    assert "2025-11-25" in found["supportedVersions"]
    assert (found["resultType"], found["capabilities"]) == ("complete", {"tools": {}})
    (listed,) = told.say(2, "tools/list", _meta=META)
    told.protocol.answered(listed, {"tools": []})
    (used,) = told.say(3, "tools/call", _meta=META, name="whoami")
    told.protocol.answered(used, DONE)
    lists, tool = (answer["result"] for answer in told.heard())
    assert (lists["resultType"], lists["cacheScope"], lists["ttlMs"] > 0) == ("complete", "private", True)
    assert tool["resultType"] == "complete"
    assert "ttlMs" not in tool
    assert tool["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "agentd"
    assert told.code(4, "tools/list") == INVALID_PARAMS  # the next one that says nothing is not understood by the last
    for gone in ("ping", "initialize", "logging/setLevel", "subscriptions/listen"):
        assert told.code(5, gone, _meta=META) == METHOD_NOT_FOUND


def test_a_version_that_is_not_spoken_is_refused_with_those_that_are():
    told = Told()
    for version in ("1900-01-01", "2025-11-25", 7, None):
        meta = {**META, "io.modelcontextprotocol/protocolVersion": version}
        error = told.answer(1, "tools/list", _meta=meta)["error"]
        assert (error["code"], error["data"]["requested"]) == (-32022, version)
        assert STATELESS in error["data"]["supported"]
    bare = {"io.modelcontextprotocol/protocolVersion": STATELESS}
    assert told.code(2, "tools/list", _meta=bare) == INVALID_PARAMS


def test_both_eras_are_spoken_at_once():
    told = Told("2025-11-25")
    assert told.answer(1, "server/discover", _meta=META)["result"]["resultType"] == "complete"
    assert told.answer(2, "ping")["result"] == {}
    (old,) = told.say(3, "tools/call", name="whoami", _meta={"progressToken": 1})
    told.protocol.answered(old, DONE)
    assert told.heard()[0]["result"] == DONE
