"""Events as callers get them; over the wire each is packed once, however many follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from agentd.records import Event
from agentd.wire.items import Items

KEPT: Final = 1024  # the newest; who is further behind has them packed anew

_NS: Final = 1_000_000_000
_encode = msgspec.msgpack.Encoder().encode


def event_row(event: Event) -> dict[str, Any]:
    """Return the keys of an event."""
    return {"id": event.id, "type": event.type, "at": event.at_ns / _NS, "data": dict(event.data)}


class PackedEvents:
    """The packed forms of the events that were asked for last."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Event, msgspec.Raw]] = {}

    def items(self, events: Sequence[Event]) -> Items:
        """Return events as the items of any stream."""
        return Items([self.of(event) for event in events])

    def of(self, event: Event) -> msgspec.Raw:
        """Return an event packed; of one id there may be several, as a reader that is far behind gets them."""
        kept = self._kept.get(event.id)
        if kept is not None and kept[0] is event:
            return kept[1]
        packed = msgspec.Raw(_encode(event_row(event)))
        if len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[event.id] = (event, packed)
        return packed
