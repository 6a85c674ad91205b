"""`agentd send --batch`: one receipt line for each input line, in order, whatever the lines are."""

from __future__ import annotations

import json
import os
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentd.cli import batch
from agentd.errors import AgentdError

GOOD = {"to": "a", "body": "hello"}
BAD = [
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"\xff\xfe",
    b'{"to": "a"}',
    b'{"body": "x"}',
    b'{"to": 1, "body": "x"}',
    b'{"to": "a", "body": null}',
    b'{"to": "a", "body": "x", "bogus": 1}',
    b'{"to": "a", "body": "x", "priority": "urgent"}',
    b'{"to": "a", "body": "x", "priority": []}',
    b'{"to": "a", "body": "x", "ttl_s": true}',
    b'{"to": "a", "body": "x", "ttl_s": 1e999}',
    b'{"to": "a", "body": "x", "ttl_s": NaN}',
    b'{"to": "a", "body": "x", "headers": {"a": 1}}',
    b'{"to": "a", "body": "x", "headers": []}',
    b"[" * 100_000,
    b'{"to": "a", "body": ' + b"9" * 5000 + b"}",
]


def line_of(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("line", BAD, ids=lambda line: line[:40].decode(errors="replace"))
def test_bad_lines_are_told_apart(line):
    error = batch.parse_line(line)
    assert isinstance(error, AgentdError)
    assert error.hint
    assert error.code == "invalid"


def test_good_lines_keep_what_they_say():
    whole = {**GOOD, "key": "k", "priority": "high", "ttl_s": 1.5, "reply_to": "m1", "headers": {"a": "b"}}
    assert batch.parse_line(line_of(whole)) == whole
    assert batch.parse_line(line_of({**GOOD, "key": None})) == GOOD


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_an_error(line):
    item = batch.parse_line(line)
    assert isinstance(item, AgentdError) or set(item) >= {"to", "body"}


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=20), st.integers(1, 7))
def test_lines_are_cut_the_same_however_they_arrive(lines, piece):
    text = b"\n".join(lines)
    assert piped(text, piece) == (text.split(b"\n")[:-1] if text.endswith(b"\n") else text.split(b"\n") if text else [])


def piped(text: bytes, piece: int) -> list[bytes]:
    reader, writer = os.pipe()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch, "READ_BYTES", piece)
            os.write(writer, text)
            os.close(writer)
            return [line for line in batch.read_lines(reader) if line is not None]
    finally:
        os.close(reader)


def test_a_line_that_is_too_long_is_one_error_and_its_neighbours_live(monkeypatch, tmp_path):
    monkeypatch.setattr(batch, "MAX_LINE_BYTES", 50)
    monkeypatch.setattr(batch, "READ_BYTES", 16)
    (tmp_path / "f").write_bytes(b"one\n" + b"x" * 500 + b"\ntwo\n" + b"y" * 51 + b"\nthree")
    descriptor = os.open(tmp_path / "f", os.O_RDONLY)
    lines = list(batch.read_lines(descriptor))
    os.close(descriptor)
    assert [line if isinstance(line, bytes) else line.code for line in lines] == [
        *(b"one", "over_limit", b"two", "over_limit", b"three")
    ]


def test_receipts_stand_in_the_order_of_the_lines(agentd, served, tmp_path):
    lines = [
        line_of({"to": "a", "body": "first"}),
        b"",
        b"garbage",
        line_of({"to": "nobody", "body": "lost"}),
        line_of({"to": "a", "body": "\ud800"}),
        line_of({"to": "a", "body": "x" * 1_100_000}),
        line_of({"to": "a", "body": "last"}),
    ]
    (tmp_path / "f").write_bytes(b"\n".join(lines))
    for size in ("1", "2", "1000"):
        ran = agentd("send", "--batch", str(tmp_path / "f"), "--batch-size", size)
        assert (ran.code, ran.err) == (4, "")
        rows = [json.loads(line) for line in ran.out.splitlines()]
        assert [row["line"] for row in rows] == [1, 3, 4, 5, 6, 7]
        assert [row["error"]["code"] if "error" in row else row["state"] for row in rows] == [
            *("accepted", "invalid", "unknown_target", "invalid", "over_limit", "accepted")
        ]
        assert rows[0] == {"line": 1, "id": "m-first", "to": "a", "state": "accepted"}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lines=st.lists(st.just(line_of(GOOD)) | st.sampled_from(BAD) | st.binary(max_size=20), max_size=30),
    size=st.integers(1, 10),
)
def test_garbage_never_stops_good_lines(lines, size, agentd, served, tmp_path):
    text = b"\n".join(lines)
    (tmp_path / "f").write_bytes(text)
    ran = agentd("send", "--batch", str(tmp_path / "f"), "--batch-size", str(size))
    rows = [json.loads(line) for line in ran.out.splitlines()]
    split = text.split(b"\n")
    assert [row["line"] for row in rows] == [n for n, line in enumerate(split, 1) if line.strip()]
    good = {n for n, line in enumerate(split, 1) if line == line_of(GOOD)}
    assert {row["line"] for row in rows if "id" in row} >= good
    assert ran.code == (4 if any("error" in row for row in rows) else 0)


def test_all_good_is_exit_0_and_an_empty_file_too(agentd, served, tmp_path):
    (tmp_path / "f").write_bytes((line_of(GOOD) + b"\n") * 2500)
    ran = agentd("send", "--batch", str(tmp_path / "f"))
    assert ran.code == 0
    assert len(ran.out.splitlines()) == len(served.answers.sent) == 2500
    (tmp_path / "f").write_bytes(b"\n\n")
    assert agentd("send", "--batch", str(tmp_path / "f")).code == 0


def test_a_slow_writer_gets_its_receipt_before_it_writes_more(served, monkeypatch, directory):
    """A pipe that stays open: each line's receipt comes without waiting for a whole batch."""
    from agentd.cli import main

    in_reader, in_writer = os.pipe()
    out_reader, out_writer = os.pipe()
    codes: list[int] = []
    with os.fdopen(in_reader) as stdin, os.fdopen(out_writer, "w") as stdout, os.fdopen(out_reader) as receipts:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        worker = threading.Thread(target=lambda: codes.append(main(["send", "--batch", "-"])))
        worker.start()
        for number in (1, 2, 3):
            os.write(in_writer, line_of(GOOD) + b"\n")
            assert json.loads(receipts.readline())["line"] == number
        os.close(in_writer)
        worker.join(10)
        monkeypatch.undo()
    assert codes == [0]


def test_a_missing_file_and_options_that_do_not_go_with_a_batch(agentd, served):
    assert agentd("send", "--batch", "/nowhere/at/all").code == 5
    assert agentd("send", "a", "--batch", "-").code == 2
    assert agentd("send", "--batch", "-", "--key", "k").code == 2
    assert agentd("send", "a", "b", "--batch-size", "2").code == 2
