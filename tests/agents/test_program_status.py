"""Status records and notices in a program's output, whatever pieces it comes in."""

from __future__ import annotations

import base64
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.agents.program_status import MAX_BYTES, MAX_CHARS, Notice, ProgramStatus
from agentd.agents.reports import Report
from agentd.tmux.notation import decode_output


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def record(fields: str, end: str = "\x1b\\") -> bytes:
    return f"\x1b]7501;{fields}{end}".encode()


def read(data: bytes, *, notices: bool = False) -> list[Report | Notice]:
    return ProgramStatus(notices=notices).feed(data)


def one(fields: str) -> Report:
    (report,) = read(record(fields))
    assert isinstance(report, Report)
    return report


@pytest.mark.parametrize(
    ("fields", "means"),
    [
        ("state=idle", "ready"),
        ("state=working", "working"),
        ("state=working:app=x:id=7:progress=40", "working"),
        ("state=done", "done"),
        ("state=error", "error"),
        ("state=clear", "ended"),
        ("state=blocked", "question"),
        ("state=blocked:kind=permission", "permission"),
        ("kind=question:state=blocked", "question"),
        ("state=blocked:kind=auth", "login"),
        ("state=blocked:kind=never-heard-of", "question"),
    ],
)
def test_each_state_is_read(fields, means):
    assert one(fields).means == means
    (with_bell,) = read(record(fields, "\x07"))
    assert isinstance(with_bell, Report)
    assert with_bell.means == means


@pytest.mark.parametrize(
    "fields", ["", "?", "?v=1", "state=", "state=happy", "=", "STATE=idle", "state=clear:id=7", "state=idle\x18"]
)
def test_what_says_nothing_of_a_state_is_no_report(fields):
    assert read(record(fields)) == []


def test_a_text_is_decoded_and_made_harmless():
    evil = "run \x1b]52;c;eA==\x07\u202e\nrm -rf"
    said = one(f"state=blocked:kind=permission:msg={b64(evil)}")
    assert said.message == "run \ufffd]52;c;eA==\ufffd\ufffd rm -rf"
    assert said.asks == ""  # what was not said to us alone approves nothing
    assert one(f"state=error:title={b64('Überlast')}").message == "Überlast"
    assert one(f"state=working:msg={b64('ab').rstrip('=')}").message == "ab"
    assert one("state=working:msg=%%%").message == ""
    assert one("state=working:msg=" + base64.b64encode(b"\xff\xfe").decode()).message == "\ufffd\ufffd"
    assert len(one(f"state=working:msg={b64('x' * 4000)}").message) == MAX_CHARS


def test_what_never_ends_is_not_kept():
    heard = ProgramStatus(notices=False)
    for piece in (b"\x1b]7501;state=done:msg=", *[b"A" * 1000] * 100, b"\x1b"):
        assert heard.feed(piece) == []
        assert sum(len(kept) for kept in vars(heard).values() if isinstance(kept, bytes)) < 2 * MAX_BYTES
    assert heard.feed(b"\\") == []
    assert [r.means for r in heard.feed(record("state=idle")) if isinstance(r, Report)] == ["ready"]


def test_a_record_that_is_broken_off_does_not_swallow_the_next():
    assert [r.means for r in read(b"\x1b]7501;state=wor" + record("state=done")) if isinstance(r, Report)] == ["done"]


def test_notices_are_told_only_where_they_are_wanted():
    data = b"\x1b]0;title\x07 \x07 \x1b]9;Approval \x1b\\\x1b]9;4;1;50\x07\x1b]777;notify;Codex;done\x1b\x5cx"
    assert read(data) == []
    assert read(data, notices=True) == [
        Notice("bell", ""),
        Notice("osc 9", "Approval"),
        Notice("osc 777", "Codex: done"),
    ]


WORDS = st.sampled_from(
    [
        b"\x1b",
        b"]",
        b"\\",
        b"\x07",
        b"\x1b]7501;",
        b"state=",
        b"working",
        b"\x1b\\",
        b"\x1b]0;t",
        b"\x1b[0m",
        b"hello",
        b"\xc3",
        record("state=done"),
        record(f"state=blocked:kind=permission:msg={b64('ls')}", "\x07"),
    ]
)


@given(st.lists(st.one_of(WORDS, st.binary(max_size=20)), max_size=30), st.data(), st.booleans())
def test_any_pieces_give_what_the_whole_gives(words, data, notices):
    whole = b"".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)])]
    heard, asked = ProgramStatus(notices=notices), ProgramStatus(notices=notices)
    assert [each for piece in pieces for each in heard.feed(piece)] == read(whole, notices=notices)
    # Pieces that it does not want may be left out.
    fed = [each for piece in pieces if asked.wants(escaped(piece)) for each in asked.feed(piece)]
    assert fed == read(whole, notices=notices)


@given(st.binary(max_size=300))
def test_garbage_never_raises(data):
    read(b"\x1b]7501;" + data + b"\x07", notices=True)
    read(b"\x1b]7501;state=blocked:msg=" + data + b"\x1b\\")


def escaped(data: bytes) -> bytes:
    """Return output as tmux writes it."""
    said = b"".join(b"\\%03o" % byte if byte < 32 or byte == 92 else bytes((byte,)) for byte in data)
    assert decode_output(said) == data
    return said
