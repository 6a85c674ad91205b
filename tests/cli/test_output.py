"""What reaches the terminal."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from agentd.cli.output import as_json, cell, clean, duration, table, width

ATTACKS = (
    "\x1b]52;c;aGk=\x07",
    "\x1b]0;x\x07",
    "\x1b[2J",
    "\x1bP+q544e\x1b\\",
    "\x9b2J",
    "\x1b]8;;http://x\x1b\\y",
    "a\rb",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def harmless(text: str) -> bool:
    return all((char >= " " and not "\x7f" <= char <= "\x9f") or char in "\n\t" for char in text)


@given(st.text() | st.sampled_from(ATTACKS))
def test_no_control_byte_passes(text):
    assert harmless(clean(text))
    assert len(clean(text)) == len(text)
    assert harmless(cell(text))
    assert "\n" not in cell(text)
    assert "\t" not in cell(text)


def test_plain_text_stays_as_it_is():
    text = "é 日本 🙂\n\tand so on"
    assert clean(text) == text


@given(VALUES)
def test_json_is_json_and_harmless(value):
    text = as_json(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert harmless(text)
    assert "\n" not in text


def test_columns_are_aligned_and_empty_ones_left_out(capsys):
    table(("NAME", "NOTHING", "STATE"), [("日本", None, "idle"), ("a-long-name", "", "working")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["NAME", "STATE"], ["日本", "idle"], ["a-long-name", "working"]]
    assert {
        width(line[: line.index(word)]) for line, word in zip(lines, ("STATE", "idle", "working"), strict=True)
    } == {13}


def test_durations():
    assert [duration(s) for s in (None, 0.4, 59, 60, 3599, 7200, 90_000)] == ["", "0s", "59s", "1m", "59m", "2h", "1d"]


def test_what_agents_say_cannot_act_on_the_terminal(agentd, served):
    evil = "".join(ATTACKS)
    row = {
        "id": "m1",
        "from": evil,
        "to": evil,
        "body": evil,
        "key": evil,
        "state": "acked",
        "attempts": 1,
        "priority": "normal",
    }
    row |= {"reply_to": None, "headers": {evil: evil}, "created_at": 1.0, "expires_at": None, "history": []}
    agent = {"id": evil, "name": evil, "profile": evil, "team": evil, "role": evil, "state": "idle", "since_s": 1.0}
    agent |= {"inbox": 0, "cwd": evil}
    served.answers.messages_inbox = lambda _: {"messages": [row]}
    served.answers.messages_get = lambda _: row
    served.answers.agents_list = lambda _: {"agents": [agent]}
    served.answers.events_list = lambda _: {
        "events": [{"id": 1, "type": evil, "at": 1.0, "data": {evil: evil}}],
        "last": 1,
    }
    for argv in (["inbox"], ["msg", "m1"], ["ls"], ["events"]):
        for flags in ([], ["--json"]):
            ran = agentd(*argv, *flags)
            assert ran.code == 0
            assert ran.out
            assert harmless(ran.out)


def test_only_read_raw_lets_a_screen_through(agentd, served):
    screen = {"text": "\x1b[31mred\x1b[0m\r\n", "width": 1, "height": 1, "cursor": [0, 0], "ended": False}

    async def capture(_params):
        return screen

    served.answers.agents_capture = capture
    assert harmless(agentd("read", "a").out)
    assert agentd("read", "a", "--raw").out == "\x1b[31mred\x1b[0m\r\n"
