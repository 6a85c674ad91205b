"""Names, ids and targets: who is meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from agentd.agents.registry import Entry
from agentd.errors import AlreadyExists, UnknownTarget
from agentd.records import OPERATOR, Agent, AgentState

GROUP_MARKS = ("@", "%")


class Directory:
    """Every agent in memory, by id, with who holds which name now.

    Slots of the pool are kept beside them: they have an id and a token, and are named by nobody.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.version = 0  # another one after whatever changed
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._homes: dict[str, str] = {}
        self._reserved: set[str] = set()
        for entry in sorted(entries, key=lambda entry: entry.agent.created_ns):
            self.put(entry)

    def __iter__(self) -> Iterator[Agent]:
        return (entry.agent for entry in self._entries.values() if not entry.agent.pooled)

    def pooled(self) -> list[Agent]:
        """Return the slots of the pool."""
        return [entry.agent for entry in self._entries.values() if entry.agent.pooled]

    def put(self, entry: Entry) -> None:
        """Add or replace an agent; a name belongs to its holder that has not stopped, else to the newest."""
        self.version += 1
        old = self._entries.get(entry.agent.id)
        if old is not None and old.token != entry.token:
            self._tokens.pop(old.token, None)
        if old is not None and old.agent.home != entry.agent.home and self._homes.get(old.agent.home) == old.agent.id:
            del self._homes[old.agent.home]
        self._homes[entry.agent.home] = entry.agent.id
        self._entries[entry.agent.id] = entry
        if entry.token:
            self._tokens[entry.token] = entry.agent.id
        if entry.agent.pooled:
            return
        holder = self.by_name(entry.agent.name)
        if holder is None or holder.state is AgentState.STOPPED or holder.id == entry.agent.id:
            self._names[entry.agent.name] = entry.agent.id

    def drop(self, id_: str) -> None:
        """Forget an agent."""
        self.version += 1
        entry = self._entries.pop(id_)
        self._tokens.pop(entry.token, None)
        if self._homes.get(entry.agent.home) == id_:
            del self._homes[entry.agent.home]
        if self._names.get(entry.agent.name) == id_:
            del self._names[entry.agent.name]

    def get(self, id_: str) -> Agent | None:
        """Return the agent with exactly this id."""
        entry = self._entries.get(id_)
        return entry.agent if entry else None

    def entry(self, id_: str) -> Entry:
        """Return what is kept of an agent."""
        return self._entries[id_]

    def by_name(self, name: str) -> Agent | None:
        """Return who holds the name now."""
        id_ = self._names.get(name)
        return self._entries[id_].agent if id_ in self._entries else None

    def by_home(self, home: str) -> Agent | None:
        """Return whose program carries this id in its environment."""
        id_ = self._homes.get(home)
        return self._entries[id_].agent if id_ else None

    def by_token(self, token_digest: str) -> Agent | None:
        """Return whose token this is."""
        id_ = self._tokens.get(token_digest)
        return self._entries[id_].agent if id_ else None

    @contextmanager
    def reserving(self, names: Collection[str]) -> Iterator[None]:
        """Keep names for agents that are about to be started; raises AlreadyExists when one is taken."""
        if taken := self.taken_names().intersection(names):
            name = min(taken)
            raise AlreadyExists(
                f"an agent named `{name}` exists; nothing was started",
                hint=f"choose another name, or: agentd stop {name}",
            )
        self._reserved.update(names)
        try:
            yield
        finally:
            self._reserved.difference_update(names)

    def name_taken(self, name: str) -> bool:
        """Tell whether an agent that has not stopped, or is about to be started, holds the name."""
        holder = self.by_name(name)
        return name in self._reserved or (holder is not None and holder.state is not AgentState.STOPPED)

    def taken_names(self) -> set[str]:
        """Return the names that agents hold that have not stopped, or are about to be started."""
        return {name for name in self._names if self.name_taken(name)} | self._reserved

    def display(self, inbox: str) -> str:
        """Return the name people know an inbox by."""
        agent = self.get(inbox)
        return agent.name if agent else inbox

    def one(self, target: str) -> Agent:
        """Return the one agent that the target names; raises UnknownTarget when it names none or several."""
        found = self.resolve(target)
        if len(found) > 1:
            names = ", ".join(agent.name for agent in found[:5])
            raise UnknownTarget(f"`{target}` names {len(found)} agents ({names})", hint="name one of them")
        return found[0]

    def resolve(self, target: str) -> list[Agent]:
        """Return the agents a TARGET names: a name, an id or its unique start, @team, @team/role, %profile, all."""
        if target == "all":
            found = self._present()
        elif target.startswith("@"):
            team, slash, role = target[1:].partition("/")
            # An agent without a team or a role is not meant by an empty one.
            whole = team and not slash
            found = [a for a in self._present() if a.team == team and (whole or (team and role and a.role == role))]
        elif target.startswith("%"):
            found = [a for a in self._present() if a.profile == target[1:]]
        else:
            found = self._single(target)
        if not found:
            raise UnknownTarget(f"no agent is named by `{target}`", hint=_hint(target, self._names))
        return found

    def _present(self) -> list[Agent]:
        return [agent for agent in self if agent.state is not AgentState.STOPPED]

    def _single(self, target: str) -> list[Agent]:
        agent = self.by_name(target) or self.get(target)
        if agent is not None:
            return [] if agent.pooled else [agent]
        starts = [agent for agent in self if target and agent.id.startswith(target)]
        if len(starts) > 1:
            raise UnknownTarget(f"`{target}` begins {len(starts)} ids", hint="type more of the id")
        return starts


def is_group(target: str) -> bool:
    """Tell whether a target may name several agents."""
    return target == "all" or target.startswith(GROUP_MARKS)


def _hint(target: str, names: Iterable[str]) -> str:
    import difflib

    if target.startswith(GROUP_MARKS):
        return "nobody of it runs; `agentd ls --state stopped` shows who ended"
    close: Sequence[str] = difflib.get_close_matches(target, list(names), n=1)
    if target == OPERATOR:
        return "the operator has an inbox but no terminal"
    return f"did you mean `{close[0]}`?" if close else "`agentd ls` shows who is there"
