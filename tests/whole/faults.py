"""What the tests of faults share: load with a ledger, agents with a log, and the check of one against the other."""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from instance import Instance, wait_until

from agentd.errors import AgentdError

LONG = os.environ.get("AGENTD_FAULTS") == "long"
SEED = int(os.environ.get("AGENTD_SEED") or random.SystemRandom().randrange(10**6))
SENDER_PROGRAMS = 2
DRAIN_S = 90.0
HUB = "_agentd"  # the session that every window of ours is linked into
AT_ONCE = 500  # messages asked for in one go

Form = TypeVar("Form")


def form(short: Form, long: Form) -> Form:
    """Return what the long form of a test takes when AGENTD_FAULTS=long."""
    return long if LONG else short


def seeded(what: str) -> random.Random:
    """Return chance that can be had again: the seed is printed, and AGENTD_SEED sets it."""
    say(f"{what}: AGENTD_SEED={SEED}")
    return random.Random(SEED)


def say(line: str) -> None:
    """Print a figure; in the long form past pytest, which shows it only when a test fails."""
    print(line, file=sys.__stderr__ if LONG else sys.stderr, flush=True)


def summary(seconds: Sequence[float]) -> str:
    """Return what a row of times comes to."""
    return f"median {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s of {len(seconds)}"


class Cast:
    """Agents that write down what they read."""

    def __init__(self, whole: Instance, count: int, **env: str) -> None:
        self.whole = whole
        self.logs = whole.directory / "logs"
        self.logs.mkdir()
        self.names = [f"a-{n}" for n in range(count)]
        with whole.client() as client:
            for name in self.names:
                log = {"AGENTD_DEMO_LOG": str(self.logs / f"{name}.log")}
                client.spawn("demo", name=name, cwd=str(whole.directory), env=log | env)
            for name in self.names:
                client.call("agents.wait", target=name, until="idle", timeout_s=30.0)
        self.pids = self.pids_now()

    def pids_now(self) -> dict[str, int]:
        """Return each agent's pid, by tmux itself."""
        return pane_pids(self.whole)

    def read(self) -> dict[str, list[dict[str, str]]]:
        """Return what each agent wrote down, in its order."""
        return {name: rows(self.logs / f"{name}.log") for name in self.names}


class Load:
    """Programs that send to a cast, and the ledgers of what was acknowledged to them."""

    def __init__(self, cast: Cast, senders: int, pause_s: float) -> None:
        self._cast = cast
        self._ledgers = cast.whole.directory / "ledgers"
        self._ledgers.mkdir()
        share = senders // SENDER_PROGRAMS
        self._programs = [
            subprocess.Popen(
                [
                    *(sys.executable, str(Path(__file__).with_name("sender.py")), str(self._ledgers)),
                    *(str(number * share), str(share), str(pause_s), *cast.names),
                ],
                env=cast.whole.environ,
            )
            for number in range(SENDER_PROGRAMS)
        ]

    def size(self) -> int:
        """Return how many messages were acknowledged so far."""
        return sum(file.read_bytes().count(b"\n") for file in self._ledgers.glob("*.jsonl"))

    def more(self, count: int) -> None:
        """Wait until so many more messages were acknowledged."""
        wanted = self.size() + count
        wait_until(lambda: self.size() >= wanted, f"{count} more messages to be acknowledged")

    def stop(self) -> list[dict[str, Any]]:
        """End the programs, each after an acknowledgement; return the ledgers."""
        (self._ledgers / "stop").touch()
        assert [program.wait(60) for program in self._programs] == [0] * SENDER_PROGRAMS
        return [row for file in sorted(self._ledgers.glob("*.jsonl")) for row in rows(file)]

    def kill(self) -> None:
        """End the programs, whatever they do."""
        for program in self._programs:
            program.kill()
            program.wait()


@contextlib.contextmanager
def load(cast: Cast, *, senders: int = 50, pause_s: float = 0.02) -> Iterator[Load]:
    """Give a load that does not outlive the block."""
    under = Load(cast, senders, pause_s)
    try:
        under.more(senders)
        yield under
    finally:
        under.kill()


def check_nothing_lost(cast: Cast, ledger: list[dict[str, Any]]) -> int:
    """Check that each acknowledged message was read, with its id, body and order; return how many were read twice."""
    bodies = {row["id"]: (row["to"], row["body"]) for row in ledger}
    assert len(bodies) == len(ledger), "one id was acknowledged for two messages"
    wait_until(lambda: _left(cast) == 0, "the inboxes to be empty", DRAIN_S)
    wait_until(lambda: not set(bodies) - _ids(cast), "the agents to read what was acknowledged", DRAIN_S)
    wait_until(lambda: _unsettled(cast, list(bodies)) == {}, "every message to be acknowledged by its agent", DRAIN_S)
    read = cast.read()
    repeated = 0
    for name, lines in read.items():
        for line in lines:
            assert bodies.get(line["id"]) == (name, line["body"]), f"{name} read what nobody sent it: {line}"
        repeated += len(lines) - len({line["id"] for line in lines})
        _check_order(name, lines)
    return repeated


def _check_order(name: str, lines: list[dict[str, str]]) -> None:
    """Check that the first deliveries of each sender stand in the order in which it sent them."""
    seen: set[str] = set()
    last: dict[str, int] = defaultdict(lambda: -1)
    for line in lines:
        if line["id"] in seen:
            continue
        seen.add(line["id"])
        sender, number = line["body"].split()[:2]
        assert int(number) > last[sender], f"{name} read {line['body'][:12]} of {sender} after {last[sender]}"
        last[sender] = int(number)


def _left(cast: Cast) -> int:
    with cast.whole.client() as client:
        return sum(agent["inbox"] for agent in client.call("agents.list")["agents"])


def _ids(cast: Cast) -> set[str]:
    return {line["id"] for lines in cast.read().values() for line in lines}


def _unsettled(cast: Cast, ids: list[str]) -> dict[str, str]:
    """Return the first of the messages that `messages.get` does not find acknowledged, with their states."""
    with cast.whole.client() as client:
        for start in range(0, len(ids), AT_ONCE):
            with client.pipeline() as calls:
                found = [calls.call("messages.get", id=id_) for id_ in ids[start : start + AT_ONCE]]
            states = {call.result()["id"]: call.result()["state"] for call in found}
            if left := {id_: state for id_, state in states.items() if state != "acked"}:
                return left
    return {}


def rows(file: Path) -> list[dict[str, Any]]:
    """Return a file's lines of JSON; a last one that is being written is left out."""
    return [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]] if file.exists() else []


def pane_pids(whole: Instance) -> dict[str, int]:
    """Return the pid in each pane of the instance's agents, by tmux itself; every pane but one must be an agent's."""
    return {session: pid for server in whole.servers() for session, pid in _agents_on(whole, server)}


def _agents_on(whole: Instance, server: int) -> list[tuple[str, int]]:
    lines = whole.tmux("list-panes", "-a", "-F", "#{pane_id} #{pane_pid} #{session_name}", server=server).splitlines()
    panes = [line.split(" ", 2) for line in lines]
    agents = {pane: (session, int(pid)) for pane, pid, session in panes if session != HUB}
    others = {pane for pane, _, _ in panes} - set(agents)
    assert len(others) <= 1, f"panes of no agent: {others}"  # the hub's own
    return list(agents.values())


def back_in_s(whole: Instance) -> float:
    """Start the daemon and return how long it took until a call was answered."""
    started = time.monotonic()
    whole.up()
    wait_until(lambda: _answers(whole), "the daemon to answer")
    return time.monotonic() - started


def _answers(whole: Instance) -> bool:
    try:
        with whole.client() as client:
            return bool(client.call("daemon.status")["pid"])
    except AgentdError:
        return False
