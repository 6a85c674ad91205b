"""Every operation on the disk as a moment to die in, to fail in, and to lose power in (F03, F04, F19, F20)."""

from __future__ import annotations

import itertools
import os
import random
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import power_cuts
import pytest
from crash_child import GAVE_UP
from fault_rows import LONG, row
from faulty_vfs import SYNC, WRITE, Do, Event, Folded, Op, Recorder, honest, installed
from scenes import Scene, judge

from agentd.config import MailboxConfig
from agentd.mailbox.clock import SteadyClock
from agentd.mailbox.commands import Put, Reserve
from agentd.mailbox.store import Store
from agentd.records import Draft

SEED = 20
LIVES_PER_SCENE = 8
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # images need no disk that syncs
WHEN = ("before", "half", "after")

pytestmark = pytest.mark.anyio


def moments(numbers: Sequence[int], more: int) -> Iterator[tuple[int, str]]:
    """Yield operations to be killed at: each of the numbers in each way, and a sample beyond."""
    yield from itertools.product(numbers, WHEN)
    dice = random.Random(SEED)
    for _ in range(more):
        yield dice.randrange(41, 600), dice.choice(WHEN)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_at_the_nth_operation(tmp_path: Path) -> None:
    """F03: on a mailbox that is being made, and on those that the last kill left, logs and all."""
    points = list(moments(range(1, 41), 60) if LONG else moments((2, 19), 4))
    kills, counts = 0, Counter[str]()
    for number in range(0, len(points), LIVES_PER_SCENE):
        scene = Scene(tmp_path / f"scene{number}")
        for at, when in points[number : number + LIVES_PER_SCENE]:
            kills += scene.run_on({"kill": {"at": at, "when": when}}, 100 + at) == -signal.SIGKILL
            await scene.judge(finished=False)
        assert scene.run(10) == 0
        counts += await scene.judge(finished=True)
    assert kills == len(points)
    row("F03", SEED, crash_points=kills, sent=counts["sent"], acked=counts["acked"], lost=0)


FAILURES = list(itertools.product((["write"], ["sync"], ["write", "sync", "truncate"]), (1, 3, None)))
CASES = FAILURES * 4 if LONG else FAILURES[::4]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("error", ["IOError", "FullError"])
async def test_failing_from_the_nth_operation_on(tmp_path: Path, error: str) -> None:
    """F19, F20: for one operation, for three, for ever; the same process goes on, and so does the next one."""
    dice = random.Random(SEED)
    cases = [(kinds, times, dice.randrange(1, 12 if kinds == ["sync"] else 70)) for kinds, times in CASES]
    refused, counts = 0, Counter[str]()
    for number, (kinds, times, at) in enumerate(cases):
        scene = Scene(tmp_path / f"scene{number}")
        assert scene.run(5) == 0
        plan = {"fail": {"kinds": kinds, "at": at, "times": times, "error": error}}
        ended = scene.run_on(plan, 60, AGENTD_TEST_PATIENCE_S="0.3" if times is None else "15")
        assert ended == 0 or (times is None and ended == GAVE_UP), plan
        await scene.judge(finished=ended == 0)  # also when everything was done before the fault came
        assert scene.run(5) == 0
        held = await scene.judge(finished=True)
        refused += held["refused"] + held["report"] > 0
        counts += held
    assert refused > len(cases) // 2
    row("F19" if error == "IOError" else "F18", SEED, faults=len(cases), noticed=refused, sent=counts["sent"], lost=0)


# -- power cuts


def record(scene: Scene, sends: int, *, revert: bool = False, deaf: Sequence[str] = (), **plan: Any) -> int:
    """Run a life on one shard whose disk is written down."""
    where = {"box": str(scene.box), "ledger": str(scene.ledger), "trace": str(scene.root / "trace")}
    plan |= {"record": where | {"deaf": list(deaf), "revert": revert}}
    patience_s = "0.3" if plan.get("fail", {}).get("times", 1) is None else "15"
    return scene.run_on(plan, sends, AGENTD_TEST_SHARDS="1", AGENTD_TEST_PATIENCE_S=patience_s)


def recorded(scene: Scene) -> list[Event]:
    trace = scene.root / "trace"
    return Recorder(scene.box, scene.ledger, trace, honest, [], revert=False).events


async def cut(scene: Scene, images: int, dice: random.Random, most_faults: int) -> tuple[Counter[str], list[str]]:
    """Cut the power at random moments of a recording, open what is left, and return what was held and what was not."""
    events, ledger = recorded(scene), scene.ledger.read_bytes()
    moments = sorted(dice.randrange(len(events)) for _ in range(images))
    folded, done = Folded(), 0
    counts, faults = Counter[str](), list[str]()
    for moment in moments:
        while done <= moment:
            folded.add(events[done])
            done += 1
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root:
            image = Path(root) / "box"
            power_cuts.build(image, scene.box, folded, events[moment], dice)
            verdict = await judge(image, ledger[: events[moment].told_bytes].decode())
        counts += verdict.counts
        counts["images"] += 1
        counts["images with losses"] += bool(verdict.faults)
        faults += [f"cut after {moment} of {len(events)}: {fault}" for fault in verdict.faults]
        if len(faults) > most_faults:
            break
    return counts, faults


IMAGES = 1000 if LONG else 100


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_power_cut_loses_nothing_that_was_promised(tmp_path: Path) -> None:
    """F04: over two lives, the second of which begins with what a kill left."""
    scene = Scene(tmp_path / "scene")
    assert record(scene, 100, kill={"at": 200, "when": "half"}) == -signal.SIGKILL
    assert record(scene, 60) == 0
    await scene.judge(finished=True)
    counts, faults = await cut(scene, IMAGES, random.Random(SEED), 0)
    assert faults == []
    operations = len(recorded(scene))
    assert counts["sent"] > 10 * IMAGES
    row("F04", SEED, operations=operations, images=counts["images"], promises=counts["sent"] + counts["acked"], lost=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("revert", [False, True], ids=["still in memory", "gone from memory"])
async def test_a_power_cut_after_a_sync_that_failed(tmp_path: Path, revert: bool) -> None:
    """F20: the system drops what it could not write and says so once; the mailbox goes on, or is killed and returns."""
    dice = random.Random(SEED)
    total = Counter[str]()
    for number in range(40 if LONG else 4):
        scene = Scene(tmp_path / f"scene{number}")
        fail = {"kinds": ["sync"], "at": dice.randrange(5, 60), "times": dice.choice([1, 1, 3]), "error": "IOError"}
        if number % 2:
            record(scene, 60, revert=revert, fail=fail, kill={"at": dice.randrange(80, 200), "when": "after"})
            fail = fail | {"at": dice.randrange(1, 10)}
        assert record(scene, 40, revert=revert, fail=fail) in (0, GAVE_UP)  # the latter when it could not be opened
        assert record(scene, 20, revert=revert) == 0
        await scene.judge(finished=True)
        counts, faults = await cut(scene, 30, dice, 0)
        assert faults == [], (number, fail)
        total += counts
    row("F20", SEED, images=total["images"], promises=total["sent"] + total["acked"], lost=0, revert=revert)


def test_a_log_is_on_disk_before_it_is_copied(tmp_path: Path) -> None:
    """After a flush that failed a log may be read from memory alone, and the power may go half-way through the copy."""
    path = tmp_path / "s00.db"
    store = Store(0, path, MailboxConfig(), SteadyClock(), print, expected=False)
    store.transact([Put([Draft("a", "s", "x" * 3000) for _ in range(100)], 100)])
    store.close(clean=False)
    size_bytes = path.with_name("s00.db-wal").stat().st_size
    done: list[Op] = []

    def noted(op: Op, do: Do) -> None:
        done.append(op)
        do(op.data)

    with installed(noted):
        Store(0, path, MailboxConfig(), SteadyClock(), print, expected=True).close(clean=True)
    copied = next(n for n, op in enumerate(done) if (op.kind, op.name) == (WRITE, "s00.db"))
    flushed = next(n for n, op in enumerate(done) if (op.kind, op.name) == (SYNC, "s00.db-wal"))
    assert flushed < copied
    assert sum(len(op.data) for op in done[:flushed] if (op.kind, op.name) == (WRITE, "s00.db-wal")) == size_bytes
    assert size_bytes > 200_000  # of several writes


def test_closing_after_a_fault_writes_nothing(tmp_path: Path) -> None:
    """A log whose flush failed may have lost what it is believed to hold: it is read again, not copied from memory."""
    path = tmp_path / "s00.db"
    store = Store(0, path, MailboxConfig(), SteadyClock(), print, expected=False)
    store.transact([Put([Draft("a", "s", "x" * 200) for _ in range(100)], 100)])
    [taken] = store.transact([Reserve("a", 10, 1_000_000, 10**12)]).outcomes
    assert len(taken) == 10  # type: ignore[arg-type]
    before = path.read_bytes()
    store.close(clean=False)
    assert path.read_bytes() == before
    again = Store(0, path, MailboxConfig(), SteadyClock(), print, expected=True)
    assert again.snapshot().depths == {"a": 100}
    again.close(clean=True)
    assert path.read_bytes() != before  # the control: this is what would have been written


@pytest.mark.parametrize("deaf", [["-wal"], ["-wal", ".db"]], ids=["synchronous=NORMAL", "synchronous=OFF"])
async def test_the_power_cuts_find_what_is_lost_without_syncs(tmp_path: Path, deaf: list[str]) -> None:
    """The control: the same images of a disk whose syncs do nothing must show losses."""
    scene = Scene(tmp_path / "scene")
    assert record(scene, 100, deaf=deaf) == 0
    counts, faults = await cut(scene, 40, random.Random(SEED), 1 << 30)
    assert counts["images with losses"] >= 3  # of 40; how many depends on how many messages shared a commit
    assert any("is lost" in fault for fault in faults)
