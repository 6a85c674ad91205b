"""What a reader that is far behind need not read: states of an agent that others followed since."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from agentd.records import Event

STATE = "agent.state"
FAR_BEHIND = 64  # events: a reader that keeps up gets every state


def coalesced(events: list[Event]) -> list[Event]:
    """Return the events with the newest state of each agent alone, which says how many were left out before it."""
    if len(events) < FAR_BEHIND:
        return events
    newest = {event.data.get("agent"): event.id for event in events if event.type == STATE}
    left_out: Counter[object] = Counter()
    kept = []
    for event in events:
        agent = event.data.get("agent")
        if event.type != STATE:
            kept.append(event)
        elif newest[agent] != event.id:
            left_out[agent] += 1
        elif left_out[agent]:
            kept.append(replace(event, data={**event.data, "coalesced": left_out[agent]}))
        else:
            kept.append(event)
    return kept
