"""A mailbox whose process dies or whose disk fails, and the verdict by what the client had on its own disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import faulty_vfs
from boxes import ALL, config
from crash_child import INBOXES
from nursery import nursery

from agentd.mailbox.mailbox import Mailbox
from agentd.records import Message, MessageState

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("crash_child.py")


class Verdict(NamedTuple):
    """What was promised, and which of it does not hold."""

    counts: Counter[str]
    faults: list[str]


class Scene:
    """One mailbox, the client's ledger beside it, and the lives of the process that works on both."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.box = root / "box"
        self.ledger = root / "ledger"
        self.ledger.touch()
        self.lives = 0

    def words(self, sends: int) -> list[str]:
        """Return what the next life is told."""
        self.lives += 1
        return [str(self.box), str(self.ledger), f"life{self.lives}", str(sends)]

    def start(self, sends: int, wrap: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Begin a life in a program of its own."""
        argv = [*wrap, sys.executable, str(CHILD), *self.words(sends)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run_under(self, wrap: Sequence[str], sends: int) -> int:
        """Run a life under another program, to its end."""
        child = self.start(sends, wrap)
        _, err = child.communicate(timeout=100)
        assert "Traceback" not in err, err
        return child.returncode

    def run(self, sends: int, environ: Mapping[str, str] | None = None) -> int:
        """Run a life to its end."""
        ended = nursery("crash_child").live(self.words(sends), environ)
        assert "Traceback" not in ended.err, ended.err
        return ended.returncode

    def run_on(self, plan: Mapping[str, Any], sends: int, **environ: str) -> int:
        """Run a life on a disk that goes by a plan."""
        return self.run(sends, {faulty_vfs.VARIABLE: json.dumps(plan), **environ})

    async def judge(self, *, finished: bool) -> Counter[str]:
        """Hold the mailbox to what it promised; count what it held."""
        verdict = await judge(self.box, self.ledger.read_text(), finished=finished)
        assert verdict.faults == []
        return verdict.counts


async def judge(place: Path, ledger: str, *, finished: bool = False) -> Verdict:
    """Open a mailbox and hold it to a ledger."""
    lines = [line.split() for line in ledger.split("\n")[:-1]]
    try:
        async with Mailbox.open(place, config(), lambda _changes: None) as box:
            found: dict[str, Message] = {}
            for agent in INBOXES:
                found.update({m.id: m for m in await box.inbox(agent, ALL, 1 << 20)})
            offered = {d.message.id for agent in INBOXES for d in await box.reserve(agent, 1 << 20, 1 << 40, 30.0)}
            reports = list(box.reports)
    except Exception as error:  # noqa: BLE001  whatever it is, a mailbox that does not open has lost everything
        return Verdict(Counter(), [f"it does not open: {error!r}"])
    faults = list(_broken(lines, found, offered))
    promised = any(word == "sent" for word, *_ in lines)
    faults += [report for report in reports if "damaged" in report and promised]
    per_key = Counter(message.key for message in found.values())
    faults += [f"{key} became {count} messages" for key, count in per_key.items() if count > 1]
    if finished:
        faults += [f"{m.id} is {m.state}" for m in found.values() if m.state is not MessageState.ACKED]
        sent = {tuple(line) for line in lines}
        faults += [f"{m.id} was never promised" for m in found.values() if ("sent", str(m.key), m.id) not in sent]
    return Verdict(Counter(word for word, *_ in lines), faults)


def _broken(lines: Sequence[Sequence[str]], found: Mapping[str, Message], offered: set[str]) -> Sequence[str]:
    """Return which lines of a ledger the mailbox does not bear out."""
    faults: list[str] = []
    ids: dict[str, str] = {}
    acked: set[str] = set()
    for word, first, *rest in lines:
        if word == "sent":
            if ids.setdefault(first, rest[0]) != rest[0]:  # one key, one message, whatever was sent again
                faults.append(f"{first} is {ids[first]} and {rest[0]}")
            if rest[0] not in found:
                faults.append(f"{rest[0]} is lost")
            elif found[rest[0]].body != f"body of {first}":
                faults.append(f"{rest[0]} has another body")
        elif word == "got" and first in acked:
            faults.append(f"{first} was offered again after its ack returned")
        elif word == "acked":
            acked.add(first)
            if first in found and found[first].state is not MessageState.ACKED:
                faults.append(f"{first} was acknowledged and is {found[first].state}")
    return [*faults, *(f"{id_} would be offered again after its ack" for id_ in offered & acked)]
