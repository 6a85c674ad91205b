"""Which agent a token or a process belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from agentd.agents.crew import Crew
from agentd.agents.directory import Directory
from agentd.agents.registry import digest
from agentd.agents.shimmed import program_behind
from agentd.doors.peers import controlling_tty, environment

AGENT_ID = b"AGENTD_AGENT_ID="


class Inhabitants:
    """Answers for the agents: by token, by the processes in their panes, by their terminals and environments."""

    def __init__(self, directory: Directory, crew: Crew, instance: str) -> None:
        self._directory = directory
        self._crew = crew
        self._mark = f"AGENTD_INSTANCE={instance}".encode()
        self._ttys: dict[int, str] = {}  # of pane pids; asked once for each

    def by_token(self, token: str) -> tuple[str, str] | None:
        """Return the live agent that the token was given to."""
        agent = self._directory.by_token(digest(token))
        return (agent.id, agent.name) if agent and self._crew.known(agent.id) else None

    def by_process(self, pids: Sequence[int], tty: str) -> tuple[str, str] | None:
        """Return the agent in whose pane one of the processes, or the terminal, is."""
        panes = self._crew.pane_pids()
        for pid in pids:
            if pid in panes:
                return self._who(panes[pid])
        return self._by_tty(panes, tty) if tty else None

    def by_environment(self, pids: Sequence[int]) -> tuple[str, str] | None:
        """Return the agent, live or not, whose environment one of the processes was started with."""
        for pid in pids:
            pairs = environment(pid)
            if self._mark in pairs:
                named = next((pair for pair in pairs if pair.startswith(AGENT_ID)), AGENT_ID)
                home = named.removeprefix(AGENT_ID).decode(errors="replace")
                agent = self._directory.by_home(home)  # the id it was started with may be another agent's by now
                return self._who(agent.id if agent else home)
        return None

    def _by_tty(self, panes: dict[int, str], tty: str) -> tuple[str, str] | None:
        for pid in self._ttys.keys() - panes.keys():
            del self._ttys[pid]
        for pid in panes.keys() - self._ttys.keys():
            self._ttys[pid] = controlling_tty(program_behind(pid))
        found = next((pid for pid, known in self._ttys.items() if known == tty), None)
        return self._who(panes[found]) if found is not None else None

    def _who(self, agent_id: str) -> tuple[str, str]:
        return agent_id, self._directory.display(agent_id)
