"""What panes print before we know whose they are."""

from __future__ import annotations

from agentd.agents.early import MOST_BYTES, Early
from agentd.tmux.tmux import Output

HERE, THERE = ("1:1", "%1"), ("2:1", "%1")


def said(place: tuple[str, str], data: bytes) -> Output:
    return Output(place[1], data, place[0])


def test_each_pane_gets_its_own_in_order_and_once():
    early = Early()
    for place, data in ((HERE, b"one"), (THERE, b"other"), (HERE, b"two")):
        early.keep(said(place, data))
    assert [output.escaped for output in early.take(HERE)] == [b"one", b"two"]
    assert early.take(HERE) == []
    early.clear()
    assert early.take(THERE) == []


def test_what_is_over_the_bound_is_left_out_and_said():
    early = Early()
    for _ in range(6):
        early.keep(said(HERE, bytes(MOST_BYTES // 4)))
    early.keep(said(THERE, b"x"))
    assert [len(output.escaped) for output in early.take(HERE)] == [MOST_BYTES // 4] * 4 + [0]
    early.keep(said(HERE, b"room again"))
    assert [output.escaped for output in early.take(HERE)] == [b"room again"]
    assert [output.escaped for output in early.take(THERE)] == [b""]
