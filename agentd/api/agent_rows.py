"""Lists of agents as callers get them; each row is packed once, until something of it has changed.

Nobody has to say what changed: before each answer the few numbers that tell are compared. Of an agent's row only its
age goes with time; it stands last, always in eight bytes, and is put in anew when a list is asked for again later.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

import msgspec

from agentd.agents.directory import Directory
from agentd.api.parts import Parts
from agentd.api.views import agent_row, ages_s, question_of
from agentd.records import Agent, AgentState

KEPT: Final = 16  # lists, by what was asked; the oldest makes room
AGES_NS: Final = 10_000_000  # so old the ages may be; who asks more often than that gets the very same bytes

_AGE_BYTES: Final = 8
_encode = msgspec.msgpack.Encoder().encode
_Order = tuple[str, int]  # of a name that ends with a number: worker-9 before worker-10
_in_order = attrgetter("order")


@dataclass(frozen=True, slots=True)
class _Row:
    """An agent's row, packed but for its age."""

    agent: Agent
    order: _Order
    head: bytes


class _Listed:
    """The rows of a list, and all of it as it was when its ages were put in last."""

    def __init__(self, rows: Sequence[_Row]) -> None:
        count = len(rows)
        self._since_ns = [row.agent.since_ns for row in rows]
        self._pieces = [_encode({"agents": [None] * count})[: -count or None]]  # each None is one byte
        for row in rows:
            self._pieces += (row.head, b"")
        self._as_doubles, self._as_bytes = f">{count}d", f"{_AGE_BYTES}s" * count
        self._raw, self._at_ns = msgspec.Raw(), 0

    def packed(self, now_ns: int) -> msgspec.Raw:
        if not 0 <= now_ns - self._at_ns < AGES_NS:
            self._raw, self._at_ns = self._joined(now_ns), now_ns
        return self._raw

    def _joined(self, now_ns: int) -> msgspec.Raw:
        ages = struct.pack(self._as_doubles, *ages_s(now_ns, self._since_ns))
        self._pieces[2::2] = struct.unpack(self._as_bytes, ages)
        return msgspec.Raw(b"".join(self._pieces))


class PackedAgents:
    """The lists of agents that were asked for last, and the rows that they are made of."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._lists: dict[tuple[str | None, str | None], _Listed] = {}
        self._questions: dict[str, Mapping[str, str | None]] = {}  # of those that ask, or did when last looked at
        self._directory_version = self._inboxes_version = -1
        self._depths: Mapping[str, int] = {}
        self._sockets: Mapping[str, str] = {}

    def listed(self, parts: Parts, target: str | None, state: str | None) -> msgspec.Raw:
        """Return the list of the agents that a target names, packed; raises UnknownTarget when it names none."""
        self._keep_what_stands(parts)
        listed = self._lists.get((target, state))
        if listed is None:
            agents = _selected(parts.directory, target, state)
            listed = _Listed(sorted((self._row(parts, agent) for agent in agents), key=_in_order))
            if len(self._lists) >= KEPT:
                del self._lists[next(iter(self._lists))]
            self._lists[target, state] = listed
        return listed.packed(time.time_ns())

    def _keep_what_stands(self, parts: Parts) -> None:
        self._see_agents(parts.directory)
        self._see_questions(parts)
        if parts.mailbox.inboxes_version != self._inboxes_version:
            self._inboxes_version = parts.mailbox.inboxes_version
            self._see_depths(parts.mailbox.depths())
        if (sockets := parts.tmux.sockets()) != self._sockets:
            self._sockets = sockets
            self._drop(list(self._rows))

    def _see_agents(self, directory: Directory) -> None:
        if directory.version == self._directory_version:
            return
        self._directory_version = directory.version
        self._drop([id_ for id_, row in self._rows.items() if directory.get(id_) is not row.agent])
        self._lists.clear()  # who is new has no row yet

    def _see_questions(self, parts: Parts) -> None:
        """Look at those that ask: a question becomes another without a change of its agent; a first one does not."""
        self._drop([id_ for id_, asked in self._questions.items() if question_of(parts, id_) != asked])

    def _see_depths(self, depths: Mapping[str, int]) -> None:
        before, self._depths = self._depths, depths
        self._drop([id_ for id_, _ in before.items() ^ depths.items()])

    def _drop(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            self._questions.pop(id_, None)
            if self._rows.pop(id_, None):
                self._lists.clear()

    def _row(self, parts: Parts, agent: Agent) -> _Row:
        row = self._rows.get(agent.id)
        if row is None:
            shown = agent_row(parts, agent)
            row = self._rows[agent.id] = _Row(agent, _order(agent), _encode(shown)[:-_AGE_BYTES])
            if agent.waits_for == "permission" or shown["prompt"] or shown["asks"]:
                self._questions[agent.id] = question_of(parts, agent.id)
        return row


def _selected(directory: Directory, target: str | None, state: str | None) -> list[Agent]:
    """Return those that have not stopped, or those that the target names."""
    if target:
        found = directory.resolve(target)
    elif state == "stopped":
        found = list(directory)
    else:
        found = [agent for agent in directory if agent.state is not AgentState.STOPPED]
    return [agent for agent in found if state in (None, agent.state)]


def _order(agent: Agent) -> _Order:
    stem, _, number = agent.name.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (agent.name, 0)
