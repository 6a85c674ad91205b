"""`agentd search`: what it asks, what it shows, and how times are written."""

from __future__ import annotations

import json
import sys
import time

import msgspec
import pytest

from agentd.cli.output import table
from agentd.cli.when import when
from agentd.errors import UsageError

HIT = {
    "id": "m1",
    "from": "lead",
    "to": "operator",
    "body": "the needle\nis here",
    "created_at": time.time() - 7300,
    "score": 1.5,
    "snippet": "the needle is here",
    "matches": [[4, 10]],
}
ANSWER = {"messages": [HIT], "left_out": 0, "indexed_behind": 0, "engine": "tantivy"}


def answer_with(served, **changed):
    asked = []
    served.answers.messages_search = lambda params: asked.append(msgspec.to_builtins(params)) or ANSWER | changed
    return asked


def test_what_is_asked_and_shown(agentd, served):
    asked = answer_with(served)
    line = ["search", "needle hay*", "--from", "lead", "--to", "@review", "--since", "2000", "--limit", "5"]
    ran = agentd(*line)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "ID  FROM  TO        AGE  TEXT",
        "m1  lead  operator  2h   the needle is here",
    ]
    given = {name: value for name, value in asked[0].items() if value is not None}
    assert given == {
        "query": "needle hay*",
        "in": "messages",
        "sender": "lead",
        "target": "@review",
        "since": 2000.0,
        "limit": 5,
    }
    assert json.loads(agentd(*line, "--json").out) == [HIT]


def test_nothing_found_is_no_failure(agentd, served):
    answer_with(served, messages=[])
    ran = agentd("search", "needle")
    assert (ran.code, ran.out, ran.err) == (0, "no message has needle\n", "")
    assert agentd("search", "needle", "--json").out == "[]\n"


def test_what_is_missing_is_said_beside_the_answer(agentd, served):
    answer_with(served, indexed_behind=3, left_out=2)
    for more in ((), ("--json",)):
        ran = agentd("search", "needle", *more)
        assert ran.code == 0
        assert "3 messages are not indexed yet" in ran.err
        assert "2 more do not fit" in ran.err


def test_reindex(agentd, served):
    served.answers.messages_reindex = lambda _params: {"indexed_behind": 7, "engine": "tantivy"}
    assert "7 messages" in agentd("mailbox", "reindex").out
    assert json.loads(agentd("mailbox", "reindex", "--json").out)["indexed_behind"] == 7


@pytest.mark.parametrize(
    ("text", "ago_s"), [("90s", 90), ("20m", 1200), ("2h", 7200), ("1.5h", 5400), ("3d", 259_200), ("1w", 604_800)]
)
def test_a_while_ago(text, ago_s):
    assert when("--since", text) == pytest.approx(time.time() - ago_s, abs=5)


def test_days_and_numbers():
    day = time.mktime((2026, 1, 31, 0, 0, 0, 0, 0, -1))
    assert when("--since", "2026-01-31") == day
    assert when("--since", "2026-01-31T14:30") == when("--since", "2026-01-31 14:30") == day + 14.5 * 3600
    assert when("--since", "1700000000") == 1_700_000_000
    assert when("--since", None) is None
    assert when("--since", "9999999w") == 0


@pytest.mark.parametrize("text", ["", "h", "-2h", "2 h", "tomorrow", "2026-13-01", "nan", "1e9", "٣h", "..h", "."])
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match="--since cannot be"):
        when("--since", text)


def test_matches_are_emphasised_on_a_terminal_only(capsys, monkeypatch):
    rows = [("m1", "a\tneedle"), ("m22", "needles and a needle")]
    marked = [[[2, 8]], [[0, 7], [14, 20]]]
    table(("ID", "TEXT"), rows, marked)
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    table(("ID", "TEXT"), rows, marked)
    shown = capsys.readouterr().out.replace("\x1b[1;33m", "<").replace("\x1b[0m", ">").splitlines()[1:]
    assert shown == ["m1   a <needle>", "m22  <needles> and a <needle>"]
