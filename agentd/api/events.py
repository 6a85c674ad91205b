"""Calls about what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from agentd.agents.directory import Directory
from agentd.api.event_rows import event_row
from agentd.api.parts import Parts
from agentd.errors import InvalidValue
from agentd.events.events import is_named
from agentd.events.feed import Feed, Wanted
from agentd.records import EVENT_TYPES, Agent, Caller, Event
from agentd.wire import calls

_NAMES = (("agent", "name"), ("to_id", "to_name"), ("from_id", "from_name"))


async def list_(parts: Parts, _caller: Caller, params: calls.EventsList) -> dict[str, Any]:
    """Return kept events after an id; the next ones follow `next`."""
    _check_types(params.types)
    wanted = about(parts.directory, params.targets)
    last_id = parts.events.last_id
    found = await parts.events.since(params.since, params.types, params.limit, wanted)
    is_all = len(found) < params.limit
    next_ = max(last_id, params.since) if is_all else found[-1].id
    return {"events": [event_row(event) for event in found], "last": parts.events.last_id, "next": next_}


async def follow(parts: Parts, _caller: Caller, params: calls.EventsFollow) -> AsyncIterator[list[msgspec.Raw] | Feed]:
    """Stream events; each is packed once, however many follow."""
    _check_types(params.types)
    wanted = about(parts.directory, params.targets)
    async with aclosing(
        parts.events.follow_batches(
            params.since, params.types, wanted=wanted, heartbeat_s=params.heartbeat_s, coalesce=params.coalesce
        )
    ) as batches:
        async for batch in batches:
            if isinstance(batch, Feed):
                batch.form = parts.packed_events.items
                yield batch
            else:
                yield [parts.packed_events.of(event) for event in batch]


def _check_types(types: Sequence[str]) -> None:
    """Raise InvalidValue for a type that no event will ever have: nothing would come, and nobody would know why."""
    for wanted in types:
        if not any(is_named(type_, [wanted]) for type_ in EVENT_TYPES):
            raise InvalidValue(
                f"no event is of type `{wanted}`", hint=f"types: {', '.join(EVENT_TYPES)}, or a noun like agent.*"
            )


def about(directory: Directory, targets: Sequence[str]) -> Wanted | None:
    """Return what tells whether an event is about an agent that one of the targets names; None when all are wanted.

    An agent that nobody knows any more is still found by the name and the id in the event.
    """
    if not targets:
        return None

    def wanted(event: Event) -> bool:
        for id_, name in _NAMES:
            agent_id = event.data.get(id_)
            if not isinstance(agent_id, str):
                continue
            agent = directory.get(agent_id)
            if any(_names(target, agent_id, event.data.get(name), event, agent) for target in targets):
                return True
        return False

    return wanted


def _names(target: str, agent_id: str, name: object, event: Event, agent: Agent | None) -> bool:
    if target == "all" or target in (agent_id, name):
        return True
    team, slash, role = target[1:].partition("/")
    if target.startswith("@"):
        known = agent.team if agent else event.data.get("team")
        return bool(team) and known == team and (not slash or (agent is not None and agent.role == role))
    return target.startswith("%") and agent is not None and agent.profile == target[1:]
