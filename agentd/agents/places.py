"""Each agent's private directory: its token, the last screen of its program and the files that are made for it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import agentd
from agentd.agents.placeholders import Placeholders
from agentd.agents.profile import SESSION, Profile
from agentd.errors import StorageError
from agentd.paths import Paths
from agentd.private import open_private, private_dir
from agentd.records import Agent

TOKEN = "token"  # noqa: S105  the file's name, not a secret
NEXT_TOKEN = "token.new"  # noqa: S105
IDENTITY = "identity.json"
LAST_SCREEN = "last-screen.txt"
# The directory of this very agentd comes first, unless the interpreter looks there anyway.
_RUN = (
    "import sys; home = sys.argv.pop(1); home in sys.path or sys.path.insert(0, home); "
    "from agentd.cli import run; run()"
)
# Some programs start others with an environment that they cleaned.
_LAUNCHER = """#!/bin/sh
[ -n "$AGENTD_SOCKET" ] || export AGENTD_SOCKET={socket}
exec {words} "$@"
"""


class Places:
    """The directories below agents/, named by the id a program was booted as, so that no name ever becomes a path."""

    def __init__(self, paths: Paths, instance: str) -> None:
        self._paths = paths
        self._instance = instance

    def write_launcher(self) -> None:
        """Make the program that is this very agentd; a newer daemon's takes its place under agents that live on."""
        package_dir = str(Path(agentd.__file__).parents[1])
        words = shlex.join([sys.executable, "-P", "-c", _RUN, package_dir])
        fresh = f"{self._paths.launcher}.{os.getpid()}"
        _write(fresh, _LAUNCHER.format(socket=shlex.quote(self._paths.socket), words=words), mode=0o700)
        Path(fresh).replace(self._paths.launcher)

    def furnish(self, agent: Agent, profile: Profile, token: str) -> None:
        """Write all that the agent's program is given to read, as it is before each start."""
        fill = self._placeholders(agent).file
        seeds = {file.name: fill(file.name, file.text) for file in profile.files}
        self._write(agent.home, {TOKEN: token + "\n", IDENTITY: _identity(agent), **seeds})

    def write_token(self, home: str, token: str) -> None:
        """Put the agent's token where only its user can read it."""
        self.lay_token(home, token)
        self.exchange_token(home)

    def lay_token(self, home: str, token: str) -> None:
        """Write a token beside the agent's own one."""
        self._write(home, {NEXT_TOKEN: token + "\n"})

    def exchange_token(self, home: str) -> None:
        """Put the one beside it in its place; who reads meanwhile gets the one or the other."""
        path = Path(self._private(home), TOKEN)
        try:
            path.with_name(NEXT_TOKEN).replace(path)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}", hint="see who may write there") from error

    def token(self, home: str) -> str | None:
        """Return what stands in the file of the agent's token; None when it cannot be read."""
        try:
            return Path(self._private(home), TOKEN).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None

    def write_identity(self, agent: Agent) -> None:
        """Write down who the agent is: a program of the pool learns that only after it has started."""
        self._write(agent.home, {IDENTITY: _identity(agent)})

    def as_seeded(self, agent: Agent, profile: Profile) -> bool:
        """Tell whether the files that the program was given still say what they said then."""
        fill, private = self._placeholders(agent).file, self._private(agent.home)
        try:
            return all(
                Path(private, file.name).read_text(encoding="utf-8") == fill(file.name, file.text)
                for file in profile.files
            )
        except (OSError, UnicodeDecodeError):
            return False

    def argv(self, agent: Agent, profile: Profile) -> list[str]:
        """Return the command that starts the agent's program, or has it go on with its session."""
        trust = profile.trust.args if agent.trusted else ()
        resume = profile.resume.args if agent.resume_id else ()
        words = self._placeholders(agent).words([profile.command, *profile.args, *trust, *resume])
        return [word.replace(SESSION, agent.resume_id) for word in words]

    def write_last_screen(self, home: str, screen: str) -> None:
        """Keep what the screen showed when the program ended."""
        self._write(home, {LAST_SCREEN: screen})

    def last_screen(self, home: str) -> str | None:
        """Return what an ended agent's screen showed last."""
        try:
            return Path(self._private(home), LAST_SCREEN).read_text(errors="replace")
        except FileNotFoundError:
            return None

    def remove(self, home: str) -> None:
        """Remove an agent's directory with all that its program left in it."""
        if Path(self._private(home)).exists():
            shutil.rmtree(self._private(home))

    def environment(self, agent: Agent, profile: Profile) -> dict[str, str]:
        """Return what the agent's program gets on top of the server's environment; identity cannot be overridden."""
        wanted = {**profile.env, **(profile.trust.env if agent.trusted else {})}
        values = self._placeholders(agent).words(list(wanted.values()))
        return {
            **dict(zip(wanted, values, strict=True)),
            **agent.env,
            "AGENTD_SOCKET": self._paths.socket,
            "AGENTD_TOKEN_FILE": str(Path(self._private(agent.home), TOKEN)),
            "AGENTD_IDENTITY_FILE": str(Path(self._private(agent.home), IDENTITY)),
            "AGENTD_COMMAND": self._paths.launcher,
            "AGENTD_AGENT": agent.name,
            "AGENTD_AGENT_ID": agent.home,
            "AGENTD_INSTANCE": self._instance,
        }

    def _placeholders(self, agent: Agent) -> Placeholders:
        private = self._private(agent.home)
        return Placeholders(private, agent.cwd, self._paths.launcher, sys.executable, self._paths.socket)

    def _private(self, home: str) -> str:
        return str(Path(self._paths.agents_dir, home))

    def _write(self, home: str, files: Mapping[str, str]) -> None:
        private = private_dir(str(Path(private_dir(self._paths.agents_dir), home)))
        for name, text in files.items():
            directory = private
            for part in Path(name).parent.parts:  # each of them: a link that was put there is not followed
                directory = private_dir(str(Path(directory, part)))
            _write(str(Path(directory, Path(name).name)), text)


def _identity(agent: Agent) -> str:
    known = {"id": agent.id, "name": agent.name, "team": agent.team, "role": agent.role, "cwd": agent.cwd}
    return json.dumps({**known, "env": dict(agent.env)}) + "\n"


def _write(path: str, text: str, mode: int = 0o600) -> None:
    descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            os.fchmod(descriptor, mode)
            data = memoryview(text.encode(errors="replace"))
            while data:
                data = data[file.write(data) :]
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", hint="free disk space") from error
