"""What has come to its end is removed when it is old, many or large, into the archive, and nothing else ever is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest
from boxes import ALL, Running, draft, open_box, put_ids, take
from nursery import nursery

from agentd.failpoint import VARIABLE
from agentd.mailbox import archive, retention
from agentd.mailbox.lines import Line
from agentd.mailbox.mailbox import Mailbox
from agentd.records import MessageState, Receipt

pytestmark = pytest.mark.anyio
DAY_S = 86_400.0
DEADLINE_S = 30.0


async def ended(box: Mailbox, count: int, body: str = "x", agent: str = "a") -> list[str]:
    """Send messages and acknowledge them."""
    ids = await put_ids(
        box, *(draft(f"{body} {n}", to=agent, sender=f"s{n}", key=f"{body[:20]} {n}") for n in range(count))
    )
    assert await box.ack(ids, agent) == [None] * count
    return ids


async def ids_of(box: Mailbox, agent: str = "a") -> list[str]:
    return [message.id for message in await box.inbox(agent, ALL, 100_000)]


async def become(box: Mailbox, clock: Running, ids: Iterable[str], agent: str = "a") -> None:
    """Wait until an inbox holds these; each look is a command, after which the shard may take a step."""
    wanted, deadline = list(ids), time.monotonic() + DEADLINE_S
    while (found := await ids_of(box, agent)) != wanted:
        assert time.monotonic() < deadline, (len(found), len(wanted))
        clock.forward(30)


async def passes(box: Mailbox, clock: Running) -> None:
    """Have a pass made over an inbox after all others, whose messages are too many, so that those were looked at."""
    marks = await ended(box, 101, "mark", agent="zzz")
    clock.forward(400 * DAY_S)
    await become(box, clock, marks[1:] if box._config.keep_days == 0 else [], "zzz")


def lines(place: Path) -> list[Line]:
    return [
        msgspec.json.decode(line, type=Line) for path in archive.files(place / "archive") for line in archive.read(path)
    ]


async def test_the_old_are_removed_and_archived_as_they_were(tmp_path: Path) -> None:
    clock = Running()
    async with open_box(tmp_path / "box", clock, shards=1) as box:
        old = await ended(box, 700)
        await put_ids(box, draft("expires", ttl_s=1.0, sender="e"))
        clock.forward(2)
        await box.sweep()
        messages = await box.inbox("a", ALL, 10_000)
        clock.forward(20 * DAY_S)
        young = await ended(box, 5, "young")
        clock.forward(11 * DAY_S)
        await become(box, clock, young)
    archived = {line.id: line for line in lines(tmp_path / "box")}
    assert archived.keys() == {message.id for message in messages} > set(old)
    for message in messages:
        line = archived[message.id]
        assert (line.to, line.sender, line.body, line.state, line.key) == (
            message.to,
            message.sender,
            message.body,
            message.state,
            message.key,
        )
        assert [("accepted", line.created_ns, ""), *line.history] == [tuple(entry) for entry in _entries(message)]
    for path in [tmp_path / "box" / "archive", *archive.files(tmp_path / "box" / "archive")]:
        assert path.stat().st_mode & 0o077 == 0


def _entries(message):
    return [(entry.state, entry.at_ns, entry.detail) for entry in message.history]


async def test_what_waits_was_delivered_or_died_is_never_removed(tmp_path: Path) -> None:
    clock = Running()
    async with open_box(tmp_path / "box", clock, shards=1, keep_messages=100, keep_mb=1) as box:
        for n, agent in enumerate(("a", "b", "c", "d")):
            await put_ids(box, *(draft("x" * 4000, to=agent, sender=f"s{k}") for k in range(300)))
            taken = await take(box, agent, limit=300, lease_s=1000 * DAY_S) if n else []
            if agent == "b":
                await box.deliver(taken)
            if agent == "c":
                await box.nack(taken, 0, "no", 1)
        before = {agent: await ids_of(box, agent) for agent in "abcd"}
        await passes(box, clock)
        assert {agent: await ids_of(box, agent) for agent in "abcd"} == before
    assert {line.to for line in lines(tmp_path / "box")} == {"zzz"}


async def test_dead_letters_are_removed_when_that_is_asked_for(tmp_path: Path) -> None:
    clock = Running()
    async with open_box(tmp_path / "box", clock, shards=1, keep_dead_days=90.0) as box:
        await put_ids(box, *(draft(f"{n}", sender=f"s{n}") for n in range(10)))
        await box.nack(await take(box), 0, "no", 1)
        clock.forward(80 * DAY_S)
        [late] = await put_ids(box, draft("late"))
        await box.nack(await take(box), 0, "no", 1)
        clock.forward(11 * DAY_S)
        await become(box, clock, [late])
    assert {line.state for line in lines(tmp_path / "box")} == {MessageState.DEAD}


async def test_the_oldest_of_too_many_are_removed(tmp_path: Path) -> None:
    clock = Running()
    async with open_box(tmp_path / "box", clock, shards=1, keep_messages=100, keep_days=0.0) as box:
        ids = await ended(box, 900)
        other = await ended(box, 100, agent="b")
        clock.forward(2 * DAY_S)
        await become(box, clock, ids[-100:])
        await passes(box, clock)
        assert await ids_of(box) == ids[-100:]
        assert await ids_of(box, "b") == other


async def test_the_oldest_of_too_large_ones_are_removed(tmp_path: Path) -> None:
    clock = Running()
    async with open_box(tmp_path / "box", clock, shards=1, keep_mb=1, keep_days=0.0) as box:
        ids = await ended(box, 30, "x" * 99_900)
        clock.forward(2 * DAY_S)
        await become(box, clock, ids[-10:])


@pytest.mark.parametrize("settings", [{"keep_days": 0.001}, {"keep_messages": 100}, {"keep_mb": 1}])
async def test_nothing_is_removed_before_its_key_may_be_forgotten(tmp_path: Path, settings: dict[str, float]) -> None:
    clock = Running()
    async with open_box(tmp_path / "box", clock, shards=1, **settings) as box:
        ids = await ended(box, 300, "y" * 8000)
        clock.forward(DAY_S - 100)
        other = await ended(box, 1, agent="b")
        for n in range(20):
            clock.forward(1)
            await box.sweep()
            assert await ids_of(box) == ids, n
        [again] = await box.put([draft("y", sender="s0", key=f"{'y' * 20} 0")])
        assert isinstance(again, Receipt)
        assert (await box.get(again.id)).id == ids[0]
        clock.forward(retention.REST_S + 200)
        await become(
            box, clock, [] if "keep_days" in settings else ids[-100:] if "keep_messages" in settings else ids[-124:]
        )
        assert await ids_of(box, "b") == other


async def test_what_ended_lately_stays_although_it_was_sent_long_ago(tmp_path: Path) -> None:
    clock = Running()
    async with open_box(tmp_path / "box", clock, shards=1) as box:
        ids = await put_ids(box, *(draft(f"{n}", sender=f"s{n}") for n in range(20)))
        clock.forward(60 * DAY_S)
        await box.ack(ids, "a")
        [mark] = await ended(box, 1, agent="b")
        for _ in range(20):
            clock.forward(61)
            await box.sweep()
        assert await ids_of(box) == ids
        clock.forward(DAY_S)
        await become(box, clock, [])
        assert await ids_of(box, "b") == [mark]


async def test_without_an_archive_they_are_just_removed(tmp_path: Path) -> None:
    clock = Running()
    async with open_box(tmp_path / "box", clock, shards=1, archive=False) as box:
        await ended(box, 10)
        clock.forward(31 * DAY_S)
        await become(box, clock, [])
    assert not (tmp_path / "box" / "archive").exists()


async def test_what_cannot_be_archived_is_kept_and_said(tmp_path: Path) -> None:
    clock = Running()
    place = tmp_path / "box"
    async with open_box(place, clock, shards=1) as box:
        ids = await ended(box, 10)
        (place / "archive").write_text("not a directory")
        clock.forward(31 * DAY_S)
        await until(lambda: box.reports, box, clock)
        assert "not" in box.reports[0]
        assert await ids_of(box) == ids
        (place / "archive").unlink()
        clock.forward(3 * retention.REST_S)
        await become(box, clock, [])
    assert [line.id for line in lines(place)] == ids


async def until(true: Callable[[], object], box: Mailbox, clock: Running) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        clock.forward(30)
        await box.sweep()


async def test_a_damaged_message_is_left_to_be_looked_at(tmp_path: Path) -> None:
    import apsw

    from agentd.mailbox.ids import seq_of

    place, clock = tmp_path / "box", Running()
    async with open_box(place, clock, shards=1) as box:
        ids = await ended(box, 10)
    connection = apsw.Connection(str(place / "s00.db"))
    connection.execute("UPDATE m SET body=zeroblob(9) WHERE seq=?", (seq_of(ids[4]),))
    connection.close()
    async with open_box(place, clock) as box:
        clock.forward(31 * DAY_S)
        deadline = time.monotonic() + DEADLINE_S
        while await box.counts("a") != {MessageState.ACKED: 1}:
            assert time.monotonic() < deadline
            clock.forward(30)
    assert [line.id for line in lines(place)] == ids[:4] + ids[5:]


async def test_killed_between_archive_and_removal_a_message_is_in_both_and_lost_in_none(tmp_path: Path) -> None:
    place = tmp_path / "box"
    async with open_box(place, Running(), shards=1) as box:
        ids = await ended(box, 600)
    child = nursery("retention_child")
    for turn in (1, 2):
        killed = child.live([str(place)], {VARIABLE: f"retention.after_archive:kill@{turn}"})
        assert killed.returncode == -signal.SIGKILL
        async with open_box(place, Running()) as box:
            here = await ids_of(box)
        archived = [line.id for line in lines(place)]
        assert set(here) | set(archived) == set(ids)
        assert set(here) & set(archived)
    assert child.live([str(place)]).returncode == 0
    assert {line.id for line in lines(place)} == set(ids)


async def test_what_was_removed_does_not_come_back_from_the_journal(tmp_path: Path) -> None:
    place, clock = tmp_path / "box", Running()
    async with open_box(place, clock, shards=1) as box:
        await ended(box, 10)
        clock.forward(31 * DAY_S)
        await become(box, clock, [])
        kept = await put_ids(box, draft("kept"))
    (place / "s00.db").write_bytes(b"garbage")
    async with open_box(place, clock) as box:
        assert await ids_of(box) == kept


def test_an_archives_oldest_files_are_deleted_beyond_its_size(tmp_path: Path) -> None:
    kept = archive.Archive(tmp_path / "archive", "s00", most_bytes=3000, reserve_bytes=0)
    for day in range(10, 30):
        kept.add(os.urandom(500).hex().encode(), f"202701{day}")
    names = [path.name for path in archive.files(tmp_path / "archive")]
    assert names[-1] == "20270129-s00-001.jsonl.gz"
    assert 2 <= len(names) <= 6
    assert names == sorted(names)
    assert sum(path.stat().st_size for path in archive.files(tmp_path / "archive")) <= 3000


def test_a_new_file_is_begun_after_so_many_bytes_and_by_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "FILE_BYTES", 1000)
    for _ in range(2):
        one = archive.Archive(tmp_path / "archive", "s00", most_bytes=10**9, reserve_bytes=0)
        for _ in range(4):
            one.add(os.urandom(400).hex().encode(), "20270101")
    assert len(archive.files(tmp_path / "archive")) == 4


def test_a_torn_file_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    one = archive.Archive(tmp_path / "archive", "s00", most_bytes=10**9, reserve_bytes=0)
    for n in range(3):
        one.add(b'{"n": %d}\n' % n * 100, "20270101")
    [path] = archive.files(tmp_path / "archive")
    path.write_bytes(path.read_bytes()[:-20])
    found = list(archive.read(path))
    assert found[:200] == [b'{"n": 0}\n'] * 100 + [b'{"n": 1}\n'] * 100


def test_an_archive_does_not_fill_the_disk(tmp_path: Path) -> None:
    one = archive.Archive(tmp_path / "archive", "s00", most_bytes=10**9, reserve_bytes=1 << 60)
    with pytest.raises(OSError, match="nearly full"):
        one.add(b"{}\n", "20270101")
    assert archive.files(tmp_path / "archive") == []
