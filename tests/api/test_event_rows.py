"""Each event is packed once, however many follow it; never is one given for another."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from agentd.api.event_rows import KEPT, PackedEvents, event_row
from agentd.records import Event


def event(number: int) -> Event:
    return Event(number, "agent.state", 1_700_000_000_000_000_000 + number, {"agent": f"a{number}"})


def test_it_is_packed_once_and_says_what_the_row_says():
    packed, one = PackedEvents(), event(1)
    raw = packed.of(one)
    assert packed.of(one) is raw
    assert msgspec.msgpack.decode(raw) == event_row(one)


def test_another_event_of_the_same_id_is_itself():
    packed, one = PackedEvents(), event(1)
    packed.of(one)
    merged = replace(one, data={**one.data, "coalesced": 3})
    assert msgspec.msgpack.decode(packed.of(merged)) == event_row(merged)
    assert msgspec.msgpack.decode(packed.of(one)) == event_row(one)


def test_only_the_newest_are_kept():
    packed = PackedEvents()
    for number in range(KEPT + 10):
        packed.of(event(number))
    assert len(packed._kept) == KEPT
    assert min(packed._kept) == 10
