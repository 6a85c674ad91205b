"""Agents whose program is the test: they speak over the socket with the agent's own token."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from instance import Instance

from agentd.client import Client

PULL = """
command = "cat"
delivery = "pull"
[[rules]]
state = "idle"
screen = ''
reason = "it reads"
"""


class Agent:
    """An agent whose program is this test: it speaks with the agent's own token."""

    def __init__(self, name: str, client: Client, environ: dict[str, str]) -> None:
        self.name = name
        self.client = client
        self.environ = environ  # as in its pane: with it the command line speaks as this agent
        self.refused: list[str] = []

    def received(self) -> list[dict[str, Any]]:
        """Take what is new."""
        messages = self.client.call("messages.inbox", limit=1000)["messages"]
        if messages:
            self.client.call("messages.ack", ids=[message["id"] for message in messages])
        return messages

    def send(self, to: str, **more: Any) -> int:
        """Send; return how many were accepted."""
        result = self.client.call("messages.send_batch", messages=[{"to": to, "body": "echo", **more}])["results"][0]
        self.refused += [row["error"]["code"] for row in (result, *result.get("failed", ())) if "error" in row]
        return len(result.get("receipts", ())) or ("id" in result)


def add_reader(whole: Instance) -> None:
    """Give an instance, before its daemon starts, the profile of agents into which nothing is typed."""
    profiles = whole.directory / "profiles"
    profiles.mkdir()
    (profiles / "reader.toml").write_text(PULL)


@contextlib.contextmanager
def agents_of(whole: Instance, size: int) -> Iterator[list[Agent]]:
    with ExitStack() as stack:
        operator = stack.enter_context(whole.client())
        rows = operator.call("agents.spawn", profile="reader", n=size, cwd=str(whole.directory))["agents"]
        agents = []
        for row in rows:
            token = whole.directory / "agents" / row["id"] / "token"
            client = stack.enter_context(whole.client(token=token.read_text().strip()))
            environ = {"AGENTD_SOCKET": str(whole.directory / "agentd.sock"), "AGENTD_TOKEN_FILE": str(token)}
            agents.append(Agent(row["name"], client, environ))
        yield agents
        operator.call("agents.stop", targets=[row["id"] for row in rows], force=True)
