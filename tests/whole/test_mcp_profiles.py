"""What the built-in profiles give their programs to read starts `agentd mcp` as that very agent."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from instance import Instance, wait_until
from mcp_client import McpClient

Server = tuple[list[str], dict[str, str]]  # a command, and what it is given of the environment
# Stands in for every program: leaves its arguments, each ended by a NUL, and stays.
PROGRAM = """#!/bin/sh
printf '%s\\0' "$@" > "$HOME/$AGENTD_AGENT.new"
mv "$HOME/$AGENTD_AGENT.new" "$HOME/$AGENTD_AGENT.args"
exec sleep 600
"""


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    """Give an instance in a directory whose name has to be quoted, with stand-ins for the programs."""
    one = Instance(Path(tempfile.mkdtemp(prefix="it's a-", dir="/tmp")))
    try:
        (one.directory / "bin").mkdir()
        for name in SERVERS:
            path = one.directory / "bin" / name
            path.write_text(PROGRAM)
            path.chmod(0o700)
        one.up(
            "agents.boots_cores=100"
        )  # the stand-ins never get ready, and would count as booting for their whole time
        yield one
    finally:
        one.close()


def of_claude(private: Path, args: list[str]) -> Server:
    given = args[args.index("--mcp-config") + 1]
    assert args[args.index("--allowedTools") + 1] == "mcp__agentd"
    server = json.loads(Path(given).read_text())["mcpServers"]["agentd"]
    assert server["alwaysLoad"]
    assert Path(given).parent == private
    return [server["command"], *server["args"]], server["env"]


def of_codex(_private: Path, args: list[str]) -> Server:
    settings = [args[at + 1] for at, word in enumerate(args) if word == "-c"]
    table = tomllib.loads("\n".join(text for text in settings if text.startswith("mcp_servers.agentd.")))
    server = table["mcp_servers"]["agentd"]
    assert server["default_tools_approval_mode"] == "approve"
    return [server["command"], *server["args"]], {name: f"${name}" for name in server["env_vars"]}


def of_opencode(private: Path, _args: list[str]) -> Server:
    server = json.loads((private / "opencode.json").read_text())["mcp"]["agentd"]
    assert (server["type"], server["enabled"]) == ("local", True)
    return server["command"], server["environment"]


def of_gemini(private: Path, _args: list[str]) -> Server:
    server = json.loads((private / "defaults.json").read_text())["mcpServers"]["agentd"]
    return [server["command"], *server["args"]], server["env"]


SERVERS: dict[str, Callable[[Path, list[str]], Server]] = {
    "claude": of_claude,
    "codex": of_codex,
    "opencode": of_opencode,
    "gemini": of_gemini,
}


def started(whole: Instance, name: str) -> tuple[dict[str, Any], list[str]]:
    """Start the stand-in of a program; return its agent and the arguments that it got."""
    path = f"{whole.directory}/bin:{os.environ['PATH']}"
    agent = whole.spawn(name, ready=False, name=name, env={"PATH": path})
    left = whole.directory / "home" / f"{name}.args"
    wait_until(left.exists, f"{name} to be started")
    return agent, left.read_text().split("\0")[:-1]


@pytest.mark.parametrize("name", SERVERS)
def test_its_configuration_starts_it_as_that_agent(whole: Instance, name: str):
    agent, args = started(whole, name)
    private = whole.directory / "agents" / agent["id"]
    command, given = SERVERS[name](private, args)
    identity = {"AGENTD_SOCKET": str(whole.directory / "agentd.sock"), "AGENTD_TOKEN_FILE": str(private / "token")}
    environ = {key: identity[key] if value == f"${key}" else value for key, value in given.items()}
    process = subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        client = McpClient(process)
        client.initialize()
        assert client.use("whoami")["name"] == name
        assert client.end() == (0, "")
    assert {path.stat().st_mode & 0o077 for path in private.iterdir()} == {0}
