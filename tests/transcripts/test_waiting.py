"""What waits to be written: in order, within its bounds, and what is over them is counted."""

from __future__ import annotations

from agentd.transcripts.segment import Why
from agentd.transcripts.waiting import ALL_BYTES, ONE_BYTES, Waiting

MB = 1024 * 1024


def test_in_order_with_its_time():
    waiting = Waiting()
    waiting.heard("a", b"one", 5)
    waiting.heard("b", b"x", 6)
    waiting.heard("a", b"two", 7)
    waiting.ended("a", 8)
    taken = waiting.take()
    assert (taken["a"].entries, taken["a"].at_ns, taken["a"].ended) == ([b"one", b"two"], 5, True)
    assert (taken["b"].entries, taken["b"].ended) == ([b"x"], False)
    assert (waiting.take(), waiting.size_bytes) == ({}, 0)


def test_what_floods_is_counted_and_pushes_nobody_out():
    waiting = Waiting()
    for _ in range(100):
        waiting.heard("flood", bytes(MB), 1)
        waiting.heard("calm", b"x", 1)
        assert waiting.size_bytes <= ONE_BYTES + 100
    taken = waiting.take()
    assert taken["flood"].size_bytes == ONE_BYTES
    assert taken["flood"].flooded_bytes == 100 * MB - ONE_BYTES
    assert taken["calm"].entries == [b"x"] * 100
    waiting.heard("flood", b"y", 2)
    assert waiting.take()["flood"].entries == [b"y"]


def test_nothing_is_taken_in_behind_a_gap_until_the_rest_is_taken():
    waiting = Waiting()
    waiting.heard("a", bytes(ONE_BYTES), 1)
    waiting.heard("a", b"1234", 1)
    waiting.heard("a", b"", 1)
    waiting.heard("a", b"5", 1)
    [heard] = waiting.take().values()
    assert (len(heard.entries), heard.flooded_bytes) == (1, 5)


def test_all_together_are_bounded():
    waiting = Waiting()
    for number in range(100):
        waiting.heard(f"a{number}", bytes(MB), 1)
    assert waiting.size_bytes == ALL_BYTES
    assert sum(heard.flooded_bytes for heard in waiting.take().values()) == 100 * MB - ALL_BYTES


def test_what_may_be_missing_is_told_when_the_agent_prints_again():
    waiting = Waiting()
    waiting.missed("a", Why.AWAY)
    waiting.missed("a", Why.LOST)
    assert waiting.take() == {}
    waiting.heard("b", b"x", 1)
    waiting.heard("a", b"one", 1)
    waiting.heard("a", b"two", 1)
    assert waiting.take()["a"].entries == [Why.LOST, b"one", b"two"]


def test_forgotten():
    waiting = Waiting()
    waiting.heard("a", b"one", 1)
    waiting.missed("a", Why.LOST)
    waiting.forget("a", 2)
    assert waiting.size_bytes == 0
    waiting.heard("a", b"two", 3)
    [heard] = waiting.take().values()
    assert (heard.forgotten, heard.entries) == (True, [b"two"])
