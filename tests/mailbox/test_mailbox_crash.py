"""Processes killed and disks that fail, judged by what the client had on its own disk (F02, F03, F05, F18-F20; P7)."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
from pathlib import Path

import apsw
import pytest
from boxes import config
from fault_rows import LONG
from scenes import Scene

from agentd.failpoint import VARIABLE
from agentd.mailbox import schema
from agentd.mailbox.mailbox import Mailbox

pytestmark = pytest.mark.anyio


POINTS = [
    *("mailbox.before_journal:kill", "mailbox.before_journal:kill@7", "mailbox.before_journal:kill@40"),
    *("mailbox.before_commit:kill", "mailbox.before_commit:kill@7", "mailbox.before_commit:kill@40"),
    *("mailbox.after_commit:kill", "mailbox.after_commit:kill@7", "mailbox.after_commit:kill@40"),
    *("mailbox.before_checkpoint:kill", "mailbox.after_checkpoint:kill"),
]


async def test_killed_in_each_phase_nothing_promised_is_lost(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for point in POINTS:
        assert scene.run(300, {VARIABLE: point}) == -signal.SIGKILL, point
        await scene.judge(finished=False)
    assert scene.run(30) == 0
    counts = await scene.judge(finished=True)
    assert counts["sent"] > 300


async def test_killed_again_and_again_under_load_nothing_promised_is_lost(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    dice = random.Random(11)
    for _ in range(10 if LONG else 5):
        child = scene.start(100_000)
        assert child.stdout
        assert child.stdout.readline() == "open\n"
        for _ in range(dice.randrange(1, 60)):
            assert child.stdout.readline() == "sent\n"
        child.kill()
        child.communicate()
    # The last life finishes what the others were not sure of.
    assert scene.run(10) == 0
    counts = await scene.judge(finished=True)
    assert counts["sent"] > (500 if LONG else 250)


async def test_killed_while_a_damaged_shard_is_replaced(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert scene.run(50) == 0
    shard = scene.box / "s00.db"
    shard.write_bytes(b"x" * shard.stat().st_size)
    assert scene.run(1, {VARIABLE: "mailbox.after_quarantine:kill"}) == -signal.SIGKILL
    assert not shard.exists()
    async with Mailbox.open(scene.box, config(), lambda _changes: None) as box:
        assert "missing" in box.reports[0]
    await scene.judge(finished=True)


def test_commits_are_synced(tmp_path: Path) -> None:
    connection = schema.connect(tmp_path / "x.db")
    settings = {name: connection.execute(f"PRAGMA {name}").get for name in ("synchronous", "journal_mode", "mmap_size")}
    assert settings == {"synchronous": 2, "journal_mode": "wal", "mmap_size": 0}
    assert connection.wal_checkpoint()[0] >= 0
    connection.close()
    assert apsw.sqlite_lib_version() >= "3.51.3"  # before it, a write-ahead log could be reset wrongly


# -- system calls that fail


def strace(*faults: str) -> list[str]:
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync,pwrite64,ftruncate"]
    return words + [word for fault in faults for word in ("-e", f"inject={fault}")]


def _can_trace() -> bool:
    program = shutil.which("strace")
    return (
        bool(program)
        and subprocess.run([*strace("fdatasync:delay_enter=1"), "true"], capture_output=True, check=False).returncode
        == 0
    )


needs_strace = pytest.mark.skipif(not _can_trace(), reason="strace is missing or may not trace here")


@needs_strace
async def test_killed_at_a_sync_or_a_write(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    dice = random.Random(3)
    for call in ("fdatasync", "pwrite64", "fdatasync", "pwrite64"):
        fault = f"{call}:signal=SIGKILL:when={dice.randrange(2, 40)}"
        assert scene.run_under(strace(fault), 300) != 0
        await scene.judge(finished=False)
    assert scene.run(10) == 0
    await scene.judge(finished=True)


@needs_strace
@pytest.mark.parametrize(
    "fault",
    [
        "fdatasync:error=EIO:when=25",
        "fdatasync:error=EIO:when=25..29",
        "pwrite64:error=EIO:when=90..92",
        "pwrite64:error=ENOSPC:when=60..64",
        "pwrite64:error=ENOSPC:when=60..560+100",
    ],
)
async def test_a_disk_that_fails_for_a_while_loses_and_doubles_nothing(tmp_path: Path, fault: str) -> None:
    """The same process goes on afterwards, without a restart; its senders tried again with the same keys."""
    scene = Scene(tmp_path)
    assert scene.run_under(strace(fault), 300) == 0
    counts = await scene.judge(finished=True)
    assert counts["refused"] + counts["report"] > 0, "the fault never came"
    assert scene.run(10) == 0
    await scene.judge(finished=True)
