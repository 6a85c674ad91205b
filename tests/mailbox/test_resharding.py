"""S10, F25: another number of shards holds the same, whenever the change is killed."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path
from typing import Any

import apsw
import pytest
from boxes import ALL, Clock, config, draft, open_box, put_ids, take
from nursery import nursery

from agentd.errors import InvalidValue, NotFound, StorageError, StorageFull
from agentd.failpoint import VARIABLE
from agentd.mailbox import layout, resharding
from agentd.mailbox.ids import home_of, seq_of
from agentd.mailbox.mailbox import Mailbox
from agentd.mailbox.resharding import reshard
from agentd.records import Message, Priority, Receipt

pytestmark = pytest.mark.anyio
AGENTS = [f"agent-{n}" for n in range(12)]


def spread(place: Path, shards: int, **settings: Any) -> resharding.Resharded:
    return reshard(place, shards, config(**settings), lambda *_: None)


async def filled(place: Path, shards: int, clock: Clock | None = None) -> dict[str, Message]:
    """Fill a mailbox with messages in every state, and return them."""
    clock = clock or Clock()
    chance = random.Random(shards)
    async with open_box(place, clock, shards=shards) as box:
        drafts = [
            draft(
                f"body {n}",
                to=chance.choice(AGENTS),
                sender=f"from-{n}",
                key=f"key-{n}",
                priority=chance.choice(list(Priority)),
                ttl_s=1.0 if n % 10 == 0 else None,
            )
            for n in range(200)
        ]
        await put_ids(box, *drafts)
        clock.forward(2)
        await box.sweep()
        for agent in AGENTS:
            taken = await take(box, agent, limit=12, lease_s=500)
            for n, delivery in enumerate(taken[:10]):
                if n < 8:
                    await box.deliver([delivery], "shown")
                if n < 4:
                    await box.ack([delivery.message.id], agent)
                if n == 9:
                    await box.nack([delivery], 0, "no", 1)
                if n == 8:
                    await box.nack([delivery], 3600, "later", 5)
            await box.release(taken[11:])
        return await everything(box)


async def everything(box: Mailbox) -> dict[str, Message]:
    return {message.id: message for agent in AGENTS for message in await box.inbox(agent, ALL, 10_000)}


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (1, 16), (16, 1), (3, 7), (2, 1)])
async def test_another_number_of_shards_holds_the_same(tmp_path: Path, before: int, after: int) -> None:
    place, clock = tmp_path / "box", Clock()
    messages = await filled(place, before, clock)
    assert len({message.state for message in messages.values()}) == len(ALL)
    done = spread(place, after)
    assert (done.before, done.after, done.messages, done.reports) == (before, after, len(messages), [])
    assert done.kept == tmp_path / f"box.{before}-shards"
    async with open_box(place, clock, shards=before) as box:
        assert box.stats()["shards"] == after
        assert box.reports == []
        assert await everything(box) == messages
        assert [(await box.get(id_)).id for id_ in messages] == list(messages)
        for agent in AGENTS:
            waiting = [m for m in messages.values() if m.to == agent and m.state in ("accepted", "delivering")]
            assert box.depth(agent) == len(waiting)
    for path in place.glob("s??.db"):
        connection = apsw.Connection(str(path))
        agents = {agent for (agent,) in connection.execute("SELECT DISTINCT agent FROM m")}
        connection.close()
        assert {home_of(agent, after) for agent in agents} <= {int(path.stem[1:])}


async def test_messages_of_another_shards_number_can_still_be_settled_by_id(tmp_path: Path) -> None:
    place, clock = tmp_path / "box", Clock()
    messages = await filled(place, 4, clock)
    spread(place, 3)
    async with open_box(place, clock) as box:
        delivered = [m.id for m in messages.values() if m.state == "delivered"]
        dead = [m.id for m in messages.values() if m.state == "dead"]
        unknown = ["m000000000000", "no id"]
        outcomes = await box.ack([*delivered, *unknown], "x")
        assert [type(outcome) for outcome in outcomes] == [type(None)] * len(delivered) + [NotFound, NotFound]
        assert await box.retry(dead[:5]) == [None] * 5
        assert await box.drop(dead[5:]) == [None] * len(dead[5:])
        for agent in AGENTS:
            taken = await take(box, agent)
            assert await box.deliver(taken) == [None] * len(taken)
            assert await box.ack([one.message.id for one in taken], agent) == [None] * len(taken)


@pytest.mark.parametrize(("before", "after"), [(2, 5), (5, 2)])
async def test_ids_never_repeat(tmp_path: Path, before: int, after: int) -> None:
    place, clock = tmp_path / "box", Clock()
    known = list(await filled(place, before, clock))
    for count in (after, before):
        spread(place, count)
        clock.jump(-7200)  # a clock that was set back meanwhile gives no id again
        async with open_box(place, clock) as box:
            for agent in AGENTS:
                ids = await put_ids(box, *(draft(f"new {n}", to=agent, sender=f"n{n}") for n in range(5)))
                assert {seq_of(id_) % 16 for id_ in ids} == {home_of(agent, count)}
                assert [m.id for m in await box.inbox(agent, ALL, 10_000)][-5:] == ids
                known += ids
    assert len(set(known)) == len(known)


async def test_keys_count_on(tmp_path: Path) -> None:
    place, clock = tmp_path / "box", Clock()
    messages = await filled(place, 2, clock)
    async with open_box(place, clock) as box:
        gone = next(m for m in messages.values() if m.state == "dead")
        assert await box.drop([gone.id]) == [None]
        clock.forward(80_000)
        await box.sweep()
    spread(place, 5)
    async with open_box(place, clock) as box:
        for message in messages.values():
            [again] = await box.put([draft(to=message.to, sender=message.sender, key=message.key)])
            assert isinstance(again, Receipt)
            assert (again.id, again.duplicate) == (message.id, True)


async def test_what_is_unsettled_is_in_the_new_journals_too(tmp_path: Path) -> None:
    place, clock = tmp_path / "box", Clock()
    messages = await filled(place, 2, clock)
    spread(place, 3)
    for path in place.glob("s??.db"):
        path.write_bytes(b"garbage")
    async with open_box(place, clock) as box:
        found = await everything(box)
        assert found.keys() == {m.id for m in messages.values() if m.state not in ("acked", "expired")}
        for id_, message in found.items():
            was = messages[id_]
            assert (message.body, message.state, message.history) == (was.body, was.state, was.history)


POINTS = ["before_copy:kill", *(f"mid_copy:kill@{n}" for n in (1, 4, 9)), "after_copy:kill"]
KILLS = [*(f"reshard.{point}" for point in POINTS), "migrate.before_swap:kill", "migrate.mid_swap:kill"]


@pytest.mark.parametrize("kill", KILLS)
async def test_killed_at_any_step_the_old_or_the_new_is_whole(tmp_path: Path, kill: str) -> None:
    place, clock = tmp_path / "box", Clock()
    messages = await filled(place, 2, clock)
    assert run_child(place, 3, kill) == -signal.SIGKILL
    copy = tmp_path / "copy"
    for suffix in ("", ".new", ".2-shards"):
        if (tmp_path / f"box{suffix}").exists():
            shutil.copytree(tmp_path / f"box{suffix}", tmp_path / f"copy{suffix}", symlinks=True)
    async with open_box(copy, clock) as box:  # a daemon may be started instead
        assert box.stats()["shards"] == (3 if "mid_swap" in kill else 2)
        assert await everything(box) == messages
    assert run_child(place, 3, "") == 0
    async with open_box(place, clock) as box:
        assert (box.stats()["shards"], box.reports) == (3, [])
        assert await everything(box) == messages
    assert not (tmp_path / "box.new").exists()


def run_child(place: Path, shards: int, kill: str) -> int:
    return nursery("resharding_child").live([str(place), str(shards)], {VARIABLE: kill}).returncode


OTHER_INBOX = ("VALUES(?, ?", "VALUES(?, CASE WHEN ?2='agent-1' THEN 'agent-2' ELSE ?2 END")
OTHER_TRIES = ("VALUES(?, ?, ?, ?, ?", "VALUES(?, ?, ?, ?, ?5+1")


@pytest.mark.parametrize("change", [OTHER_INBOX, OTHER_TRIES])
async def test_a_copy_that_differs_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str]
) -> None:
    place, clock = tmp_path / "box", Clock()
    messages = await filled(place, 2, clock)
    changed = resharding.INSERT.replace(*change)
    assert changed != resharding.INSERT
    monkeypatch.setattr(resharding, "INSERT", changed)
    with pytest.raises(StorageError, match="left as it was"):
        spread(place, 3)
    async with open_box(place, clock) as box:
        assert await everything(box) == messages


async def test_a_damaged_message_stays_damaged_and_the_rest_moves(tmp_path: Path) -> None:
    place, clock = tmp_path / "box", Clock()
    messages = await filled(place, 1, clock)
    connection = apsw.Connection(str(place / "s00.db"))
    victim = next(m for m in messages.values() if m.state == "acked")
    connection.execute("UPDATE m SET body=zeroblob(20) WHERE seq=?", (seq_of(victim.id),))
    connection.close()
    spread(place, 4)
    async with open_box(place, clock) as box:
        assert (await everything(box)).keys() == messages.keys() - {victim.id}
        with pytest.raises(StorageError, match="damaged"):
            await box.get(victim.id)


async def test_a_row_that_cannot_even_be_read_leaves_everything_as_it_was(tmp_path: Path) -> None:
    place, clock = tmp_path / "box", Clock()
    messages = await filled(place, 1, clock)
    victim = next(m for m in messages.values() if m.state == "acked")
    connection = apsw.Connection(str(place / "s00.db"))
    connection.execute("UPDATE m SET sender=CAST(x'ff' AS TEXT) WHERE seq=?", (seq_of(victim.id),))
    connection.close()
    with pytest.raises(StorageError, match="left as it was"):
        spread(place, 4)
    assert layout.read(place) == layout.Layout(layout.VERSION, 1, layout.read(place).created)  # type: ignore[union-attr]


async def test_archives_go_along(tmp_path: Path) -> None:
    place = tmp_path / "box"
    await filled(place, 2)
    (place / "archive").mkdir(mode=0o700)
    (place / "archive" / "20270115-s00-000.jsonl.gz").write_bytes(b"kept")
    spread(place, 3)
    assert (place / "archive" / "20270115-s00-000.jsonl.gz").read_bytes() == b"kept"


async def test_what_cannot_be_done_is_said_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "box"
    with pytest.raises(NotFound, match="no mailbox"):
        spread(place, 2)
    messages = await filled(place, 2)
    for count in (0, 17):
        with pytest.raises(InvalidValue, match="1 to 16"):
            spread(place, count)
    assert spread(place, 2).kept is None
    monkeypatch.setattr(resharding.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(StorageFull, match="nothing was changed"):
        spread(place, 3)
    layout_now = layout.read(place)
    assert layout_now is not None
    assert layout_now.shards == 2
    async with open_box(place) as box:
        assert len(await everything(box)) == len(messages)


async def test_each_old_mailbox_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    place = tmp_path / "box"
    await filled(place, 2)
    assert [spread(place, count).kept for count in (3, 2, 3)] == [
        tmp_path / "box.2-shards",
        tmp_path / "box.3-shards",
        tmp_path / "box.2-shards-2",
    ]
