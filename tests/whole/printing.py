"""Agents that print what a test tells them to."""

from __future__ import annotations

import base64
import re
from typing import Any

from instance import Instance, wait_until

PROFILE = """
command = "sh"
args = ["-c", 'eval "$DO"']
delivery = "pull"
[[rules]]
state = "idle"
screen = ''
reason = "it prints"
"""
STAY = "exec sleep 1000"
# What floods may be skipped by tmux, on a busy machine its very end too: so the end is said until it is heard.
SAY_THE_END = "while :; do echo the end; sleep 0.2; done"

# Prints numbered lines for ever, and writes down when it printed each, before it does.
COUNT = """exec python3 -c '
import os, sys, time
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
while True:
    os.write(log, b"%d %f\\n" % (number, time.time()))
    os.write(1, b"number %d\\n" % number)
    number += 1
    time.sleep(0.002)
' "$LOG" """


def add_printer(whole: Instance) -> None:
    """Give an instance, before its daemon starts, the profile of agents that run what DO says."""
    profiles = whole.directory / "profiles"
    profiles.mkdir(exist_ok=True)
    (profiles / "printer.toml").write_text(PROFILE)


def spawn_printer(whole: Instance, do: str, name: str, **env: str) -> dict[str, Any]:
    """Start an agent that does something."""
    return whole.spawn("printer", ready=False, name=name, env={"DO": do, **env})


def transcript(whole: Instance, target: str, **params: Any) -> list[dict[str, Any]]:
    """Return all parts of a transcript."""
    with whole.client() as client:
        parts = [client.call("agents.transcript", target=target, **params)]
        while parts[-1]["next"] < parts[-1]["end"] and parts[-1]["next"] > parts[-1]["offset"]:
            more = {name: value for name, value in params.items() if name in ("raw", "limit_bytes")}
            parts.append(client.call("agents.transcript", target=target, offset=parts[-1]["next"], **more))
        return parts


def text(whole: Instance, target: str, **params: Any) -> str:
    """Return a transcript as text."""
    return "".join(part["text"] for part in transcript(whole, target, **params))


def raw(whole: Instance, target: str, **params: Any) -> bytes:
    """Return a transcript as it was printed."""
    return b"".join(base64.b64decode(part["data"]) for part in transcript(whole, target, raw=True, **params))


def until_printed(whole: Instance, target: str, wanted: str) -> None:
    """Wait until a transcript ends in some lines with a text."""
    wait_until(lambda: wanted in text(whole, target, lines=50), f"{target} to have printed {wanted!r}")


def until_number(whole: Instance, target: str, number: int) -> None:
    """Wait until a counting agent has come to a number."""
    wait_until(lambda: numbers(text(whole, target, lines=3))[-1:] >= [number], f"{target} to have come to {number}")


def numbers(printed: str) -> list[int]:
    """Return the numbers of whole lines."""
    return [int(number) for number in re.findall(r"^number (\d+)\n", printed, re.MULTILINE)]
