"""Files that were damaged, replaced, or written by somebody else: noticed, kept, and never silently empty."""

from __future__ import annotations

import json
import random
import shutil
import signal
import struct
from pathlib import Path

import apsw
import pytest
from boxes import ALL, Clock, bodies, draft, open_box, put_ids, state_of, take
from nursery import nursery
from upgrading import add_column, lose_a_message

from agentd.errors import InvalidValue, StorageError, VersionMismatch
from agentd.failpoint import VARIABLE
from agentd.mailbox import layout, recovery, store
from agentd.records import MessageState

GOLDEN = Path(__file__).parent / "golden"
NEXT = layout.VERSION + 1

pytestmark = pytest.mark.anyio


async def filled(place: Path, clock: Clock | None = None, **settings: object) -> dict[str, MessageState]:
    """Make a mailbox of one shard with messages in several states, and return them."""
    async with open_box(place, clock, shards=1, **settings) as box:
        ids = await put_ids(box, *(draft(f"body {n} " + "x" * 300, sender=f"s{n}", key=f"k{n}") for n in range(60)))
        taken = await take(box, limit=30)
        await box.deliver(taken[:20], "shown")
        await box.ack(ids[:10], "a")
        await box.nack(taken[20:25], 0, "no", 1)
        await box.release(taken[25:])
        await box.drop(ids[20:21])
        return {id_: await state_of(box, id_) for id_ in ids[:20] + ids[21:]}


def tree(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def cut_tail(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2 + 100])


def zero_page(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[2 * 4096 : 3 * 4096] = bytes(4096)
    file.write_bytes(data)


def garbage(file: Path) -> None:
    file.write_bytes(random.Random(1).randbytes(file.stat().st_size))


def short_garbage(file: Path) -> None:
    file.write_bytes(b"SQLite format 3\0 and no more")


def empty(file: Path) -> None:
    file.write_bytes(b"")


def remove(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("harm", [cut_tail, zero_page, garbage, short_garbage, empty, remove])
async def test_a_damaged_file_is_kept_and_rebuilt_from_the_journal(tmp_path: Path, harm: object) -> None:
    place = tmp_path / "box"
    states = await filled(place)
    harm(place / "s00.db")  # type: ignore[operator]
    damaged = (place / "s00.db").read_bytes() if (place / "s00.db").exists() else b""
    async with open_box(place) as box:
        assert {id_: await state_of(box, id_) for id_ in states} == states
        assert len(await box.inbox("a", ALL, 1000)) == len(states)  # what was dropped did not come back
        [report] = box.reports
        assert "s00.db" in report
        [again] = await box.put([draft("x", sender="s3", key="k3")])
        assert again.duplicate  # type: ignore[union-attr]
        history = (await box.get(next(iter(states)))).history
        assert [entry.state for entry in history][-2:] == [MessageState.DELIVERED, MessageState.ACKED]
        newest = await put_ids(box, draft("new"))
        assert newest[0] > max(states)
    [kept] = place.glob("s00.db.damaged-*")
    assert kept.read_bytes() == damaged
    assert kept.name in report
    async with open_box(place) as box:
        assert box.reports == []


async def test_one_damaged_shard_is_not_the_others_affair(tmp_path: Path) -> None:
    place = tmp_path / "box"
    async with open_box(place, shards=2) as box:
        ids = await put_ids(box, *(draft(to=f"a{n}") for n in range(10)))
    garbage(place / "s01.db")
    async with open_box(place) as box:
        assert len(box.reports) == 1
        assert [await state_of(box, id_) for id_ in ids] == [MessageState.ACCEPTED] * 10
    assert not list(place.glob("s00.db.damaged-*"))


async def test_without_a_journal_the_loss_is_reported(tmp_path: Path) -> None:
    place = tmp_path / "box"
    await filled(place, journal=False)
    assert not (place / "s00").exists()
    garbage(place / "s00.db")
    async with open_box(place, journal=False) as box:
        assert "mailbox.journal is off" in box.reports[0]
        assert box.depths() == {}
        await put_ids(box, draft())
    assert list(place.glob("s00.db.damaged-*"))


async def test_a_flipped_bit_in_a_body_is_reported_and_not_delivered(tmp_path: Path) -> None:
    place = tmp_path / "box"
    async with open_box(place, shards=1) as box:
        ids = await put_ids(box, *(draft(f"body number {n}", sender=f"s{n}") for n in range(3)))
    data = bytearray((place / "s00.db").read_bytes())
    data[data.index(b"body number 1") + 5] ^= 4
    (place / "s00.db").write_bytes(data)
    async with open_box(place) as box:
        assert box.reports == []  # the structure is sound
        with pytest.raises(StorageError, match=ids[1]):
            await box.get(ids[1])
        assert [m.id for m in await box.inbox("a", ALL, 10)] == [ids[0], ids[2]]
        assert bodies(await take(box)) == ["body number 0", "body number 2"]
        assert box.depth("a") == 2
        assert box.stats()["damaged"] >= 2
        assert any(ids[1] in report for report in box.reports)
        assert bodies(await take(box)) == []


async def test_any_one_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    """No message comes back other than it was; 25 places all over the file, always the same ones."""
    place = tmp_path / "box"
    states = await filled(place)
    dice = random.Random(7)
    size = (place / "s00.db").stat().st_size
    for trial in range(25):
        copy = tmp_path / f"copy{trial}"
        shutil.copytree(place, copy)
        data = bytearray((copy / "s00.db").read_bytes())
        data[dice.randrange(size)] ^= 1 << dice.randrange(8)
        (copy / "s00.db").write_bytes(data)
        async with open_box(copy) as box:
            try:
                await box.inbox("a", ALL, 1000)
            except StorageError:  # noticed at this read only; the shard is rebuilt
                assert box.reports
            for message in [*await box.inbox("a", ALL, 1000), *(d.message for d in await take(box))]:
                assert message.id in states
                number = message.sender.removeprefix("s")
                assert (message.body, message.key) == (f"body {number} " + "x" * 300, f"k{number}")


@pytest.mark.parametrize("harm", ["remove", "flip", "cut"])
async def test_a_lost_log_is_made_up_for_by_the_journal(tmp_path: Path, harm: str) -> None:
    """The file of a process that was killed, with its write-ahead log damaged afterwards."""
    place, image = tmp_path / "box", tmp_path / "image"
    async with open_box(place, shards=1) as box:
        ids = await put_ids(box, *(draft(f"early {n}", sender=f"s{n}") for n in range(5)))
    async with open_box(place) as box:
        ids += await put_ids(box, *(draft(f"late {n}", sender=f"t{n}") for n in range(5)))
        await box.ack(ids[:2], "a")
        shutil.copytree(place, image)
    wal = image / "s00.db-wal"
    data = bytearray(wal.read_bytes())
    assert len(data) > 4096
    if harm == "remove":
        wal.unlink()
    elif harm == "flip":
        data[100] ^= 1
        wal.write_bytes(data)
    else:
        wal.write_bytes(data[:1000])
    async with open_box(image) as box:
        assert [m.id for m in await box.inbox("a", ALL, 100)] == ids
        assert [await state_of(box, id_) for id_ in ids] == [MessageState.ACKED] * 2 + [MessageState.ACCEPTED] * 8
        assert "taken from its journal" in box.reports[0]
    assert [path.name for path in (image / "s00").iterdir()] == ["journal.000002"]  # what waits was carried on
    async with open_box(image) as box:
        assert box.reports == []
        assert len(await take(box)) == 8


async def test_a_damaged_journal_costs_its_damaged_records_only(tmp_path: Path) -> None:
    place = tmp_path / "box"
    async with open_box(place, shards=1) as box:
        ids = await put_ids(box, *(draft(f"body {n}", sender=f"s{n}") for n in range(20)))
    journal = place / "s00" / "journal.000001"
    data = bytearray(journal.read_bytes())
    data[data.index(b"body 7")] ^= 1
    journal.write_bytes(data)
    garbage(place / "s00.db")
    async with open_box(place) as box:
        assert [m.id for m in await box.inbox("a", ALL, 100)] == ids[:7] + ids[8:]


async def test_a_journal_is_renewed_and_what_is_done_with_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROTATE_BYTES", 5000)
    place = tmp_path / "box"

    def journals() -> list[int]:
        return sorted(int(path.suffix[1:]) for path in (place / "s00").iterdir())

    async with open_box(place, shards=1) as box:
        for n in range(10):
            ids = await put_ids(box, *(draft(f"{n} {k} " + "x" * 300, sender=f"s{n}-{k}") for k in range(10)))
            await box.ack(ids, "a")
        assert journals()[0] > 2
        await put_ids(box, draft("open"))
        last = journals()[-1]
        for n in range(10):
            ids = await put_ids(box, *(draft(f"{n} {k} " + "x" * 300, sender=f"t{n}-{k}") for k in range(10)))
            await box.ack(ids, "a")
        assert journals()[0] > last  # one message that waits is carried on, and keeps no file
    garbage(place / "s00.db")
    async with open_box(place) as box:
        assert bodies(await take(box)) == ["open"]
        assert await state_of(box, ids[0]) is MessageState.ACKED


async def test_a_journal_file_is_kept_for_more_messages_than_are_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROTATE_BYTES", 5000)
    place = tmp_path / "box"
    count = recovery.MOST_CARRIED + 1
    async with open_box(place, shards=1) as box:
        await put_ids(box, *(draft(f"{n} " + "x" * 300) for n in range(count)))
        assert (place / "s00" / "journal.000001").exists()
        [first] = await take(box, limit=1)
        await box.ack([first], "a")
        await put_ids(box, *(draft("more" + "x" * 300) for n in range(20)))
        assert (place / "s00" / "journal.000001").exists()
    garbage(place / "s00.db")
    async with open_box(place) as box:
        assert len(await take(box, limit=1000)) == count + 19


async def test_the_log_stays_small_under_load(tmp_path: Path) -> None:
    place = tmp_path / "box"
    async with open_box(place, shards=1) as box:
        for _ in range(20):
            await put_ids(box, *(draft("x" * 1000) for _ in range(1000)))
        assert (place / "s00.db-wal").stat().st_size < 24 * 1024 * 1024
    assert not (place / "s00.db-wal").exists()


# -- files of somebody else


async def test_a_newer_mailbox_is_refused_and_left_untouched(tmp_path: Path) -> None:
    place = tmp_path / "box"
    await filled(place)
    (place / "FORMAT").write_text(json.dumps({"version": NEXT, "shards": 99, "new": True}))
    before = tree(place)
    with pytest.raises(VersionMismatch, match="newer agentd"):
        async with open_box(place):
            pass
    assert tree(place) == before


async def test_a_newer_shard_is_refused_and_left_untouched(tmp_path: Path) -> None:
    place = tmp_path / "box"
    await filled(place)
    data = bytearray((place / "s00.db").read_bytes())
    data[60:64] = struct.pack(">I", NEXT)
    (place / "s00.db").write_bytes(data)
    before = tree(place)
    with pytest.raises(VersionMismatch, match="newer agentd"):
        async with open_box(place):
            pass
    assert tree(place) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "shards": 0}', "\xff"])
async def test_a_format_file_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    place = tmp_path / "box"
    await filled(place)
    (place / "FORMAT").write_text(text, encoding="latin-1")
    before = tree(place)
    with pytest.raises(InvalidValue, match="FORMAT"):
        async with open_box(place):
            pass
    assert tree(place) == before


@pytest.mark.parametrize("name", ["s00.db", "s00.db-wal", "FORMAT", "s00/journal.000001", "s00"])
async def test_a_symlink_is_refused_and_its_target_untouched(tmp_path: Path, name: str) -> None:
    place, target = tmp_path / "box", tmp_path / "target"
    await filled(place)
    victim = place / name
    if victim.is_dir():
        victim.rename(target)
    elif victim.exists():
        shutil.move(victim, target)
    else:
        target.write_bytes(b"not ours")
    before = tree(target) if target.is_dir() else target.read_bytes()
    victim.symlink_to(target)
    with pytest.raises(InvalidValue, match="symlink"):
        async with open_box(place):
            pass
    assert (tree(target) if target.is_dir() else target.read_bytes()) == before
    assert victim.is_symlink()


async def test_a_directory_others_may_enter_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "box"
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    with pytest.raises(InvalidValue, match="0700"):
        async with open_box(place):
            pass
    assert tree(place) == {}


async def test_another_process_cannot_share_a_shard(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box", shards=1) as box:
        await put_ids(box, draft())
        stranger = apsw.Connection(str(tmp_path / "box" / "s00.db"))
        with pytest.raises(apsw.BusyError):
            stranger.execute("SELECT count(*) FROM m").fetchall()
        stranger.close()
        await put_ids(box, draft())


# -- versions


@pytest.mark.parametrize("version", range(1, layout.VERSION + 1))
async def test_the_golden_mailbox_of_each_version_opens(tmp_path: Path, version: int) -> None:
    place = tmp_path / "box"
    shutil.copytree(GOLDEN / f"v{version}", place)
    for path in [place, *place.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    expected = json.loads((place / "expected.json").read_text())
    async with open_box(place) as box:
        assert box.reports == []
        found = [message for agent in expected["depths"] for message in await box.inbox(agent, ALL, 1000)]
        assert {m.id: [m.to, m.sender, m.body, m.state, m.attempts] for m in found} == expected["messages"]
        assert {agent: box.depth(agent) for agent in expected["depths"]} == expected["depths"]
        [again] = await box.put([draft("x", to="lead", sender="operator", key="key-1")])
        assert again.id == expected["key-1"]  # type: ignore[union-attr]
        for agent in expected["depths"]:
            due = [m for m in found if (m.to, m.state) == (agent, MessageState.ACCEPTED) and not m.due_ns]
            assert [d.message.id for d in await take(box, agent)] == [
                m.id for m in sorted(due, key=lambda m: (m.priority, m.id))
            ]


async def test_an_upgrade_works_on_a_copy_and_keeps_the_old_one(tmp_path: Path) -> None:
    place = tmp_path / "box"
    states = await filled(place)
    before = tree(place)
    now, existed = layout.prepare(place, 1, version=NEXT, upgrades={layout.VERSION: add_column})
    assert existed
    assert now.version == NEXT
    assert tree(tmp_path / f"box.v{layout.VERSION}") == before
    assert not (tmp_path / "box.new").exists()
    connection = apsw.Connection(str(place / "s00.db"))
    assert connection.execute("SELECT count(colour) + count(*) FROM m").get == len(states)
    connection.close()


async def test_an_upgrade_that_loses_a_message_is_not_put_in_place(tmp_path: Path) -> None:
    place = tmp_path / "box"
    states = await filled(place)
    before = tree(place)
    with pytest.raises(StorageError, match="left as it was"):
        layout.prepare(place, 1, version=NEXT, upgrades={layout.VERSION: lose_a_message})
    assert tree(place) == before
    async with open_box(place) as box:
        assert {id_: await state_of(box, id_) for id_ in states} == states


@pytest.mark.parametrize("point", ["after_copy", "after_step", "before_swap", "mid_swap"])
async def test_an_upgrade_that_was_killed_is_finished_or_begun_again(tmp_path: Path, point: str) -> None:
    place = tmp_path / "box"
    states = await filled(place)
    before = tree(place)
    killed = nursery("upgrading").live([str(place)], {VARIABLE: f"migrate.{point}:kill"})
    assert killed.returncode == -signal.SIGKILL
    assert place.exists() == (point != "mid_swap")
    now, existed = layout.prepare(place, 1, version=NEXT, upgrades={layout.VERSION: add_column})
    assert (now.version, existed) == (NEXT, True)
    assert tree(tmp_path / f"box.v{layout.VERSION}") == before
    connection = apsw.Connection(str(place / "s00.db"))
    assert connection.execute("SELECT count(colour) + count(*) FROM m").get == len(states)
    connection.close()
