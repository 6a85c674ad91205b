"""Each agent's private directory: its token and the last screen of its program."""

from __future__ import annotations

import os
from pathlib import Path

from agentd.agents.profile import Profile
from agentd.paths import Paths, open_private, private_dir
from agentd.records import Agent

TOKEN = "token"  # noqa: S105  the file's name, not a secret
LAST_SCREEN = "last-screen.txt"


class Places:
    """The directories below agents/, named by id, so that no name ever becomes a path."""

    def __init__(self, paths: Paths, instance: str) -> None:
        self._paths = paths
        self._instance = instance

    def write_token(self, agent_id: str, token: str) -> None:
        """Put the agent's token where only its user can read it."""
        self._write(agent_id, TOKEN, token + "\n")

    def write_last_screen(self, agent_id: str, screen: str) -> None:
        """Keep what the screen showed when the program ended."""
        self._write(agent_id, LAST_SCREEN, screen)

    def last_screen(self, agent_id: str) -> str | None:
        """Return what an ended agent's screen showed last."""
        try:
            return Path(self._paths.agents_dir, agent_id, LAST_SCREEN).read_text(errors="replace")
        except FileNotFoundError:
            return None

    def remove(self, agent_id: str) -> None:
        """Remove an agent's directory."""
        directory = Path(self._paths.agents_dir, agent_id)
        for name in (TOKEN, LAST_SCREEN):
            (directory / name).unlink(missing_ok=True)
        if directory.is_dir():
            directory.rmdir()

    def environment(self, agent: Agent, profile: Profile) -> dict[str, str]:
        """Return what the agent's program gets on top of the server's environment; identity cannot be overridden."""
        return {
            **profile.env,
            **agent.env,
            "AGENTD_SOCKET": self._paths.socket,
            "AGENTD_TOKEN_FILE": str(Path(self._paths.agents_dir, agent.id, TOKEN)),
            "AGENTD_AGENT": agent.name,
            "AGENTD_AGENT_ID": agent.id,
            "AGENTD_INSTANCE": self._instance,
        }

    def _write(self, agent_id: str, name: str, text: str) -> None:
        private_dir(self._paths.agents_dir)
        path = str(Path(private_dir(str(Path(self._paths.agents_dir, agent_id))), name))
        with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", errors="replace") as file:
            file.write(text)
