"""JSON-RPC on lines, and what any bytes come to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.mcp.lines import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    MOST_LINE_BYTES,
    PARSE_ERROR,
    Fault,
    Lines,
    check,
    encode,
    read,
)
from agentd.mcp.protocol import Protocol

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
METHODS = st.sampled_from(
    ["initialize", "ping", "tools/list", "tools/call", "server/discover", "notifications/cancelled"]
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "id": st.integers(0, 3) | JSON,
        "method": METHODS | JSON,
        "params": JSON
        | st.fixed_dictionaries({}, optional={"_meta": JSON, "name": JSON, "requestId": JSON, "protocolVersion": JSON}),
        "result": JSON,
    },
)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=12), st.integers(1, 9))
def test_lines_are_cut_the_same_however_they_arrive(parts, piece):
    text = b"\n".join(parts) + b"\n"
    lines = Lines(20)
    found = [line for at in range(0, len(text), piece) for line in lines.feed(text[at : at + piece])]
    expected = [None if len(line) > 20 else line for line in text.split(b"\n")[:-1]]
    assert found == [line for line in expected if line is None or line.strip()]


def test_of_a_line_that_is_too_long_nothing_is_kept():
    lines = Lines(1000)
    for _ in range(100):
        assert lines.feed(b"x" * 1000) == []
        assert len(lines._begun) <= 1000
    assert lines.feed(b"\n{}\n") == [None, b"{}"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (None, INVALID_REQUEST),
        (b"{", PARSE_ERROR),
        (b"\xff\xfe", PARSE_ERROR),
        (b"[" * 100_000, PARSE_ERROR),
        (b"9" * 5000, PARSE_ERROR),
        (b'{"id": NaN}', PARSE_ERROR),
        (b'{"id": -Infinity}', PARSE_ERROR),
        (b"7", INVALID_REQUEST),
        (b'"text"', INVALID_REQUEST),
        (b"null", INVALID_REQUEST),
    ],
    ids=lambda part: str(part)[:20],
)
def test_what_is_no_message(line, code):
    with pytest.raises(Fault) as caught:
        read(line)
    assert (caught.value.code, caught.value.id) == (code, None)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("message", "code", "id_"),
    [
        ({}, INVALID_REQUEST, None),
        ({"id": 1, "method": "ping"}, INVALID_REQUEST, 1),
        ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, INVALID_REQUEST, 1),
        ({"jsonrpc": "2.0", "id": 1}, INVALID_REQUEST, 1),
        ({"jsonrpc": "2.0", "id": 1, "method": 5}, INVALID_REQUEST, 1),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, INVALID_REQUEST, None),
        ({"jsonrpc": "2.0", "id": True, "method": "ping"}, INVALID_REQUEST, None),
        ({"jsonrpc": "2.0", "id": 1.5, "method": "ping"}, INVALID_REQUEST, None),
        ({"jsonrpc": "2.0", "id": [1], "method": "ping"}, INVALID_REQUEST, None),
        ({"jsonrpc": "2.0", "id": "a", "method": "ping", "params": [1]}, INVALID_PARAMS, "a"),
        ([], INVALID_REQUEST, None),
        ("ping", INVALID_REQUEST, None),
    ],
    ids=str,
)
def test_what_is_no_request(message, code, id_):
    with pytest.raises(Fault) as caught:
        check(message)
    assert (caught.value.code, caught.value.id) == (code, id_)


def test_a_message_of_the_largest_body_fits_a_line_whatever_is_in_it():
    assert len(json.dumps("\x01" * 1_000_000)) < MOST_LINE_BYTES


@settings(deadline=None)
@given(JSON)
def test_a_reply_is_one_line_of_ascii(value):
    line = encode({"value": value})
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"value": value}


def replies_to(protocol: Protocol, line: bytes) -> list:
    protocol.take(line)
    lines, protocol.to_send = protocol.to_send, []
    found = [json.loads(line) for line in lines]
    return [reply for part in found for reply in (part if isinstance(part, list) else [part])]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40) | (MESSAGES | st.lists(MESSAGES, max_size=3)).map(encode), max_size=6), JSON)
def test_whatever_comes_is_answered_by_json_rpc_or_not_at_all(lines, version):
    protocol = Protocol()
    if version != "":
        protocol._version = "2025-03-26"  # the one with arrays
    for line in lines:
        for reply in replies_to(protocol, line):
            assert reply["jsonrpc"] == "2.0"
            assert "id" in reply
            assert ("result" in reply) != ("error" in reply)
            if "error" in reply:
                assert isinstance(reply["error"]["code"], int)
                assert reply["error"]["message"]
        for question in list(protocol.waiting.values()):
            protocol.answered(question, {"content": []})
    protocol.to_send.clear()
    assert replies_to(protocol, b'{"jsonrpc": "2.0", "id": "after", "method": "ping"}') == [
        {"jsonrpc": "2.0", "id": "after", "result": {}}
    ]
