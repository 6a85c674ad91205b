"""A real program on a real daemon: its own home, its own model server, and a judge of what it was sent."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
from instance import Instance, instance, wait_until
from model import Asked, Model
from programs import Program

from agentd.agents.text import sanitise
from agentd.errors import AgentdError

BOOT_S = 180.0
TURN_S = 90.0
HEADER = r"\[agentd {} from "


class Stage:
    """One agent of a built-in profile, alone on its daemon."""

    def __init__(self, whole: Instance, model: Model, program: Program) -> None:
        self.whole = whole
        self.model = model
        self.program = program
        self.cwd = whole.directory / "work"
        self.home = whole.directory / "home"
        self.cwd.mkdir()
        (self.cwd / "README.md").write_text("a test\n")
        self.environment = program.seed(self.home, self.cwd, model.url)
        self.agent: dict[str, Any] = {}
        self.boot_s = 0.0

    def trust_elsewhere(self) -> None:
        """Have the program's user trust another directory than the agent's."""
        self.environment = self.program.seed(self.home, self.home / "elsewhere", self.model.url)

    # -- the agent

    def spawn(self, name: str = "a", **more: Any) -> dict[str, Any]:
        """Start one and wait until it is seen to be idle."""
        begun = time.monotonic()
        env = self.environment | more.pop("env", {})
        with self.whole.client() as client:
            (agent,) = client.call(
                "agents.spawn", {"profile": self.program.name, "name": name, "cwd": str(self.cwd), "env": env, **more}
            )["agents"]
        self.agent = agent
        self.until("idle", BOOT_S)
        self.boot_s = time.monotonic() - begun
        return agent

    def now(self) -> dict[str, Any]:
        """Return its row."""
        with self.whole.client() as client:
            return dict(client.call("agents.get", {"target": self.agent["id"]}))

    def until(self, state: str, deadline_s: float = TURN_S) -> float:
        """Wait for a state; return how long it took, and show the screen when it does not come."""
        begun = time.monotonic()
        try:
            with self.whole.client() as client:
                wanted = {"target": self.agent["id"], "until": state, "timeout_s": deadline_s}
                client.call("agents.wait", wanted, timeout_s=deadline_s + 10)
        except AgentdError as error:
            raise AssertionError(f"{error}\n{self.explained()}\n{self.screen()}") from None
        return time.monotonic() - begun

    def states(self) -> list[dict[str, Any]]:
        """Return every state it was in, with the time and the reason."""
        with self.whole.client() as client:
            events = client.call("events.list", {"types": ["agent.state"]})["events"]
        mine = [event for event in events if event["data"]["agent"] == self.agent["id"]]
        return [{"at": event["at"], **event["data"]} for event in mine]

    def keys(self, *names: str) -> None:
        """Press keys as a person would."""
        self.whole.cli("keys", self.agent["id"], *names)

    def explained(self) -> dict[str, Any]:
        """Return why it is thought to be in its state."""
        with self.whole.client() as client:
            return dict(client.call("agents.explain", {"target": self.agent["id"]}))

    def screen(self) -> str:
        """Return what tmux itself shows."""
        with contextlib.suppress(AssertionError):
            return "\n".join(line for line in self.whole.screen(self.agent).split("\n") if line.strip())
        return "(no screen)"

    def read(self, *words: str) -> str:
        """Return what `agentd read` prints."""
        return self.whole.cli("read", self.agent["id"], *words).stdout

    # -- messages

    def send(self, body: str, wait_for: str = "delivered") -> str:
        """Send one message and return its id once it is delivered."""
        with self.whole.client() as client:
            id_ = client.send(self.agent["id"], body).id
        if wait_for:
            self.delivered(id_)
        return id_

    def delivered(self, id_: str) -> None:
        """Wait until a message is delivered; show the screen when it is not."""
        end = time.monotonic() + TURN_S
        while (message := self.message(id_))["state"] not in ("delivered", "acked"):
            assert time.monotonic() < end, f"{message}\n{self.explained()}\n{self.screen()}"
            time.sleep(0.02)

    def message(self, id_: str) -> dict[str, Any]:
        """Return a message with its history."""
        with self.whole.client() as client:
            return dict(client.call("messages.get", {"id": id_}))

    # -- the judge

    def asked(self, id_: str, deadline_s: float = TURN_S) -> Asked:
        """Wait until the model was told a message, by its user or by a hook's answer; return that question."""

        def newest() -> Asked | None:
            return next((asked for asked in self.model.main() if marks(asked.raw, id_)), None)

        end = time.monotonic() + deadline_s
        while (found := newest()) is None:
            assert time.monotonic() < end, f"{id_} was not asked\n{self.message(id_)}\n{self.screen()}"
            time.sleep(0.02)
        return found

    def answered(self, id_: str) -> Asked:
        """Wait until the model's answer to a message has been read to its end."""
        asked = self.asked(id_)
        wait_until(lambda: asked.answered_s, f"the answer to {id_}", TURN_S)
        return asked

    def conversation(self) -> str:
        """Return everything that the program took for said by its user."""
        return "\n".join(self.model.main()[-1].said)


def marks(text: str, id_: str) -> int:
    """Return how often a text holds the header of a message."""
    return len(re.findall(HEADER.format(id_), text))


def holds(asked: Asked, body: str, program: Program) -> bool:
    """Tell whether a question has a body whole: as the program leaves what is typed, or as a hook brought it."""
    lines = sanitise(body).split("\n")
    quoted = lines[0] if len(lines) == 1 else "\n".join(f"| {line}" for line in lines)
    brought = json.dumps(quoted)[1:-1]
    return _bare(program.typed(quoted)) in _bare(asked.prompt) or brought in asked.raw


def _bare(text: str) -> str:
    # Trailing blanks are trimmed by some programs.
    return "\n".join(line.rstrip() for line in text.split("\n"))


@contextlib.contextmanager
def stage(program: Program) -> Iterator[Stage]:
    """Give a daemon whose agents see nothing of ours but PATH and language.

    Not below the temporary directory, which others may write into: Gemini CLI reads no settings from there.
    """
    with instance(str(Path.home())) as whole, Model() as model:
        path = f"{programs.links()}:{os.environ['PATH']}"
        kept = {"PATH": path, "LANG": "C.UTF-8", "TERM": "xterm-256color", "SHELL": "/bin/bash"}
        ours = {name: whole.environ[name] for name in ("AGENTD_DIR", "HOME")}
        whole.environ = kept | ours | {"PYTHONPATH": str(Path(__file__).parents[2])}
        whole.up()
        yield Stage(whole, model, program)
