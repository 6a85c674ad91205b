"""What was printed and is not written yet: bounded, in the order in which it came. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from agentd.transcripts.segment import Why

ALL_BYTES: Final = 16 * 1024 * 1024  # of all agents together, as tmux sent them
ONE_BYTES: Final = 4 * 1024 * 1024  # of one agent: what floods must not push out what others print


@dataclass(slots=True)
class Heard:
    """What is to be written of one agent."""

    at_ns: int  # when the first of it came
    entries: list[bytes | Why] = field(
        default_factory=list
    )  # as tmux sent it; a reason stands where something is missing
    size_bytes: int = 0
    flooded_bytes: int = 0  # left out behind the entries
    ended: bool = False  # the program ended; nothing follows for now
    forgotten: bool = False  # nothing of the agent is to be kept


class Waiting:
    """Everything that waits to be written; used by the event loop alone."""

    def __init__(self) -> None:
        self.agents: dict[str, Heard] = {}
        self.size_bytes = 0
        self._missing: dict[str, Why] = {}  # told when the agent prints again: before that nobody missed anything

    def heard(self, agent_id: str, escaped: bytes, now_ns: int) -> None:
        """Take in output; what is over a bound is left out, and so is what follows it until the rest is taken."""
        heard = self._of(agent_id, now_ns)
        size = len(escaped)
        if heard.flooded_bytes or heard.size_bytes + size > ONE_BYTES or self.size_bytes + size > ALL_BYTES:
            heard.flooded_bytes += size
            return
        if self._missing and (why := self._missing.pop(agent_id, None)):
            heard.entries.append(why)
        heard.entries.append(escaped)
        heard.size_bytes += size
        self.size_bytes += size

    def missed(self, agent_id: str, why: Why) -> None:
        """Take in that something may be missing before what the agent prints next."""
        self._missing[agent_id] = why

    def ended(self, agent_id: str, now_ns: int) -> None:
        """Take in that the agent's program ended."""
        self._of(agent_id, now_ns).ended = True

    def forget(self, agent_id: str, now_ns: int) -> None:
        """Drop what waits of an agent, and have the rest removed."""
        self._missing.pop(agent_id, None)
        if known := self.agents.pop(agent_id, None):
            self.size_bytes -= known.size_bytes
        self._of(agent_id, now_ns).forgotten = True

    def take(self) -> dict[str, Heard]:
        """Return everything, and begin anew."""
        taken, self.agents = self.agents, {}
        self.size_bytes = 0
        return taken

    def _of(self, agent_id: str, now_ns: int) -> Heard:
        heard = self.agents.get(agent_id)
        if heard is None:
            heard = self.agents[agent_id] = Heard(now_ns)
        return heard
