"""Looking for damage finds each kind of it and names the message; compacting gives room back; counts are right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from boxes import Running, draft, open_box, put_ids, take

from agentd.errors import InvalidValue, NotFound, StorageError, StorageFull
from agentd.mailbox import compaction, verification
from agentd.mailbox.ids import seq_of
from agentd.mailbox.mailbox import Mailbox
from agentd.mailbox.verification import Checked

pytestmark = pytest.mark.anyio


async def filled(place: Path) -> list[str]:
    async with open_box(place, Running(), shards=1) as box:
        ids = await put_ids(box, *(draft(f"{n}", to=f"a{n % 7}", sender=f"s{n}", key=f"k{n}") for n in range(500)))
        for n in range(7):
            taken = await take(box, f"a{n}", limit=30)
            await box.deliver(taken)
            await box.ack([one.message.id for one in taken[:10]], "x")
    return ids


async def live(box: Mailbox) -> Checked:
    whole, cursor = Checked(""), ""
    while cursor is not None:
        step = await box.verify(0, cursor)
        whole.add(step)
        cursor = step.cursor
    return whole


def harm(place: Path, sql: str, *values: object) -> None:
    connection = apsw.Connection(str(place / "s00.db"))
    connection.execute("DROP TRIGGER m_dropped")
    connection.execute(sql, values)
    connection.close()


async def test_a_sound_mailbox_is_sound_live_and_from_outside(tmp_path: Path) -> None:
    place = tmp_path / "box"
    ids = await filled(place)
    async with open_box(place, Running()) as box:
        assert await live(box) == Checked(None, len(ids))
    seen: list[int] = []
    [verdict] = verification.verify(place, seen.append)
    assert (verdict.structure, verdict.checked) == ("ok", Checked(None, len(ids)))
    assert sum(seen) == len(ids)


DAMAGE = {
    "body": ("UPDATE m SET body=zeroblob(9) WHERE seq=?", "damaged"),
    "text": ("UPDATE m SET sender=CAST(x'ff' AS TEXT) WHERE seq=?", "damaged"),
    "recipient": ("UPDATE m SET agent='a9' WHERE seq=?", "damaged"),
    "no entry": ("DELETE FROM box WHERE seq=?", "misplaced"),
    "wrong place": ("UPDATE box SET place=5 WHERE seq=?", "misplaced"),
    "wrong state": ("UPDATE box SET state=9 WHERE seq=?", "damaged"),
    "wrong size": ("UPDATE box SET size=size+1 WHERE seq=?", "misplaced"),
    "no message": ("DELETE FROM m WHERE seq=?", "misplaced"),
}


@pytest.mark.parametrize("kind", DAMAGE)
async def test_each_damage_is_found_and_named(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "box"
    ids = await filled(place)
    sql, where = DAMAGE[kind]
    harm(place, sql, seq_of(ids[321]))
    [verdict] = verification.verify(place, lambda _: None)
    assert set(getattr(verdict.checked, where)) == {ids[321]}


async def test_a_key_of_another_message_is_found(tmp_path: Path) -> None:
    place = tmp_path / "box"
    ids = await filled(place)
    harm(place, "UPDATE idem0 SET seq=? WHERE seq=?", seq_of(ids[3]), seq_of(ids[4]))
    [verdict] = verification.verify(place, lambda _: None)
    assert verdict.checked.wrong_keys == 1


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: 4096 * 5])


@pytest.mark.parametrize("spoil", [truncate, lambda file: file.write_bytes(b"no database"), Path.unlink])
async def test_a_spoiled_file_is_said_and_not_touched(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    place = tmp_path / "box"
    await filled(place)
    spoil(place / "s00.db")
    before = {path: path.read_bytes() for path in place.iterdir() if path.is_file()}
    [verdict] = verification.verify(place, lambda _: None)
    assert verdict.structure != "ok"
    assert {path: path.read_bytes() for path in place.iterdir() if path.is_file()} == before


async def test_what_cannot_be_verified_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no mailbox"):
        verification.verify(tmp_path / "nothing", lambda _: None)
    place = tmp_path / "box"
    await filled(place)
    async with open_box(place, Running()) as box:
        with pytest.raises(StorageError, match="cannot be read"):
            verification.verify(place, lambda _: None)
        for cursor in ("x", "messages:", "messages:x", "box:[1]", "box:{}", "keys0:zz", "keys2:00"):
            with pytest.raises(InvalidValue, match="cursor"):
                await box.verify(0, cursor)


async def test_a_copy_taken_while_it_ran_is_verified_with_its_log(tmp_path: Path) -> None:
    place = tmp_path / "box"
    async with open_box(place, Running(), shards=1) as box:
        await put_ids(box, *(draft(f"{n}") for n in range(10)))
        shutil.copytree(place, tmp_path / "copy")
    [verdict] = verification.verify(tmp_path / "copy", lambda _: None)
    assert (verdict.structure, verdict.checked.messages) == ("ok", 10)


async def test_compacting_gives_room_back_and_keeps_everything(tmp_path: Path) -> None:
    place = tmp_path / "box"
    async with open_box(place, Running(), shards=1) as box:
        ids = await put_ids(box, *(draft("x" * 2000, sender=f"s{n}") for n in range(1000)))
        await box.nack(await take(box, limit=900), 0, "no", 1)
        await box.drop(ids[:900])
        before = await box.sizes(0)
        await box.compact(0)
        after = await box.sizes(0)
        used = [size["file_bytes"] + size["log_bytes"] for size in (before, after)]
        assert used[1] < used[0] / 4
        assert after["log_bytes"] < 100_000
        assert await live(box) == Checked(None, 100)
        assert len(await take(box, limit=1000)) == 100
        assert len(await put_ids(box, draft("more"))) == 1


async def test_compacting_without_room_is_refused_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "box"
    await filled(place)
    async with open_box(place, Running()) as box:
        monkeypatch.setattr(compaction.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
        with pytest.raises(StorageFull, match="left as it is"):
            await box.compact(0)
        assert (await live(box)).messages == 500


async def test_a_tally_counts_each_shelf(tmp_path: Path) -> None:
    place = tmp_path / "box"
    await filled(place)
    async with open_box(place, Running()) as box:
        tally = await box.tally(0)
        assert (tally.inboxes, tally.waiting, tally.delivered, tally.ended, tally.dead) == (7, 290, 140, 70, 0)
        assert tally.oldest_waiting_ns is not None
