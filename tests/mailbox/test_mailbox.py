"""Every operation of the mailbox, on real files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from boxes import ALL, START_NS, Clock, Seen, bodies, config, draft, open_box, put_ids, state_of, take

from agentd.errors import (
    Busy,
    Conflict,
    InternalError,
    InvalidValue,
    NotFound,
    OverLimit,
    QuotaExceeded,
    StorageFull,
    Unavailable,
)
from agentd.mailbox.ids import seq_of
from agentd.mailbox.mailbox import Mailbox
from agentd.records import Change, MessageState, Priority, Receipt

pytestmark = pytest.mark.anyio

ACCEPTED, DELIVERING, DELIVERED = MessageState.ACCEPTED, MessageState.DELIVERING, MessageState.DELIVERED
ACKED, DEAD, EXPIRED = MessageState.ACKED, MessageState.DEAD, MessageState.EXPIRED


async def test_a_message_goes_through_its_states_and_each_is_told(tmp_path: Path) -> None:
    clock, seen = Clock(), Seen()
    async with open_box(tmp_path / "box", clock, seen) as box:
        sent = draft("hi", priority=Priority.HIGH, headers={"x": "y"}, reply_to="m000000000000", key="k", ttl_s=60.0)
        [id_] = await put_ids(box, sent)
        clock.forward(1)
        [delivery] = await take(box)
        clock.forward(1)
        assert await box.deliver([delivery], "shown") == [None]
        clock.forward(1)
        assert await box.ack([id_], "a") == [None]
        message = await box.get(id_)
    assert (message.to, message.sender, message.body, message.state) == ("a", "s", "hi", ACKED)
    assert (message.priority, message.headers, message.key) == (Priority.HIGH, {"x": "y"}, "k")
    assert (message.reply_to, message.attempts) == ("m000000000000", 1)
    assert (message.created_ns, message.expires_ns) == (START_NS, START_NS + 60 * 10**9)
    assert [(entry.state, (entry.at_ns - START_NS) // 10**9, entry.detail) for entry in message.history] == [
        (ACCEPTED, 0, ""),
        (DELIVERING, 1, "attempt 1"),
        (DELIVERED, 2, "shown"),
        (ACKED, 3, "by a"),
    ]
    told = Change(id_, "a", ACCEPTED, "s", "m000000000000")
    assert seen[0] == told
    assert seen.states(id_) == [ACCEPTED, DELIVERING, DELIVERED, ACKED]


async def test_results_stand_in_the_order_of_the_drafts(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box", shards=4) as box:
        drafts = [draft(f"b{n}", to=f"agent-{n % 7}") for n in range(100)]
        results = await box.put(drafts)
        assert [result.to for result in results if isinstance(result, Receipt)] == [d.to for d in drafts]
        messages = [await box.get(result.id) for result in results if isinstance(result, Receipt)]
        assert [message.body for message in messages] == [d.body for d in drafts]
        assert await box.put([]) == []


async def test_an_item_that_is_refused_refuses_no_other(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box", max_body_bytes=1024) as box:
        results = await box.put([draft("x" * 1024), draft("x" * 1025), draft("\ud800"), draft("é" * 512)])
        assert [type(result) for result in results] == [Receipt, OverLimit, InvalidValue, Receipt]
        assert box.depth("a") == 2


async def test_a_fault_of_one_command_is_that_commands_own(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box", shards=1) as box:
        odd = draft("odd", headers={"x": object()})
        answers = await asyncio.gather(box.put([draft("1")]), box.put([draft("2"), odd]), box.put([draft("3")]))
        assert [type(answer[0]) for answer in answers] == [Receipt, InternalError, Receipt]
        assert bodies(await take(box)) == ["1", "3"]
        assert box.depth("a") == 2


async def test_a_full_inbox_takes_no_more_until_it_is_read(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box", max_inbox_messages=10, max_sender_share=1.0) as box:
        results = await box.put([draft(str(n), key=str(n)) for n in range(12)])
        assert [isinstance(result, QuotaExceeded) for result in results] == [False] * 10 + [True] * 2
        [again, other] = await box.put([draft("3", key="3"), draft("x", to="b")])
        assert isinstance(again, Receipt)
        assert again.duplicate
        assert isinstance(other, Receipt)
        await box.deliver(await take(box, limit=1))
        await put_ids(box, draft("now"))


async def test_a_number_tells_that_an_inbox_has_changed_before_anybody_is_told(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box", shards=3) as box:
        versions = [box.inboxes_version]
        [id_] = await put_ids(box, draft("hi"))
        versions.append(box.inboxes_version)
        await box.deliver(await take(box))
        versions.append(box.inboxes_version)
        assert await box.ack([id_], "a") == [None]
        assert len({*versions, box.inboxes_version}) == 4
        assert box.inboxes_version == box.inboxes_version


async def test_too_much_waiting_for_the_disk_is_refused(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box", shards=1) as box:
        many = [draft(str(n)) for n in range(6000)]
        first, second = await asyncio.gather(box.put(many), box.put(many))
        assert isinstance(first[0], Receipt)
        assert {type(result) for result in second} == {Busy}
        assert box.depth("a") == 6000


# -- keys


async def test_a_key_gives_the_first_receipt_again(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        first, same_batch = await box.put([draft("1", key="k"), draft("2", key="k")])
        [later] = await box.put([draft("3", key="k")])
        assert isinstance(first, Receipt)
        assert not first.duplicate
        assert same_batch == later == Receipt(first.id, "a", duplicate=True)
        others = await put_ids(
            box, draft("x", key="k", to="b"), draft("x", key="k", sender="t"), draft("x", key="l"), draft("x")
        )
        assert len({first.id, *others}) == 5
    async with open_box(tmp_path / "box") as box:
        assert await box.put([draft("4", key="k")]) == [later]


async def test_a_key_is_remembered_for_its_window_and_forgotten_after_two(tmp_path: Path) -> None:
    clock = Clock()
    for age_s, known in [(0, True), (90, True), (110, True), (320, False)]:
        async with open_box(tmp_path / "box", clock, key_window_s=100.0) as box:
            if age_s == 0:
                [id_] = await put_ids(box, draft("1", key="k"))
        clock.forward(age_s - (clock.wall_ns - START_NS) / 1e9)
        async with open_box(tmp_path / "box", clock, key_window_s=100.0) as box:
            await put_ids(box, draft("tick"))  # a commit, after which keys are tidied
            [result] = await box.put([draft("1", key="k")])
            assert isinstance(result, Receipt)
            assert (result.id == id_) is known, age_s


# -- taking


async def test_by_priority_then_age_within_the_limits(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        await put_ids(
            box,
            draft("low", priority=Priority.LOW),
            draft("1" + "x" * 600),
            draft("2" + "x" * 600),
            draft("high", priority=Priority.HIGH),
        )
        assert bodies(await box.reserve("a", 2, 1 << 20, 30.0)) == ["high", "1" + "x" * 600]
        assert bodies(await box.reserve("a", 9, 100, 30.0)) == []  # `2` and `low` stand behind what s has leased


async def test_at_least_one_whatever_its_size(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        await put_ids(box, draft("x" * 5000), draft("y" * 5000))
        assert bodies(await box.reserve("a", 9, 10, 30.0)) == ["x" * 5000]
        assert await box.reserve("b", 9, 10, 30.0) == []


async def test_nothing_passes_an_earlier_message_of_its_sender(tmp_path: Path) -> None:
    clock = Clock()
    async with open_box(tmp_path / "box", clock) as box:
        await put_ids(box, draft("s1"), draft("s2"), draft("t1", sender="t"))
        [first] = await take(box, limit=1)
        await box.nack([first], 10.0, "later", 5)
        assert bodies(await take(box)) == ["t1"]
        assert await take(box) == []
        assert 9.9 < (box.next_due("a") or 0) <= 10
        await put_ids(box, draft("s3"))
        assert 9.9 < (box.next_due("a") or 0) <= 10  # it stands behind s1 as well
        await put_ids(box, draft("u1", sender="u"))
        assert box.next_due("a") == 0
        assert bodies(await take(box)) == ["u1"]
        clock.forward(10)
        assert box.next_due("a") == 0
        assert bodies(await take(box)) == ["s1", "s2", "s3"]


async def test_a_higher_priority_may_pass(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        await put_ids(box, draft("1"))
        await take(box)
        await put_ids(box, draft("2"), draft("stop", priority=Priority.HIGH))
        assert bodies(await take(box)) == ["stop"]


async def test_a_lease_runs_out_and_its_late_answer_changes_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with open_box(tmp_path / "box", clock) as box:
        [id_] = await put_ids(box, draft())
        [late] = await take(box, lease_s=30)
        assert await take(box) == []
        assert 29.9 < (box.next_due("a") or 0) <= 30
        clock.forward(30)
        [current] = await take(box)
        assert (late.attempt, current.attempt) == (1, 2)
        late_answers = [
            *await box.deliver([late]),
            *await box.release([late]),
            *await box.nack([late], 0, "", 5),
            *await box.ack([late], "a"),
        ]
        assert [type(answer) for answer in late_answers] == [Conflict] * 4
        assert await state_of(box, id_) is DELIVERING
        assert await box.deliver([current]) == [None]


async def test_a_late_answer_counts_while_nobody_else_took_the_message(tmp_path: Path) -> None:
    clock = Clock()
    async with open_box(tmp_path / "box", clock) as box:
        await put_ids(box, draft())
        [delivery] = await take(box)
        clock.forward(100)
        assert await box.deliver([delivery]) == [None]
        assert await take(box) == []


async def test_a_released_message_was_never_taken(tmp_path: Path) -> None:
    seen = Seen()
    async with open_box(tmp_path / "box", seen=seen) as box:
        [id_] = await put_ids(box, draft())
        before = await box.get(id_)
        for _ in range(3):
            assert await box.release(await take(box)) == [None]
        assert await box.get(id_) == before
        assert box.next_due("a") == 0
        assert seen.states(id_) == [ACCEPTED] + [DELIVERING, ACCEPTED] * 3


async def test_a_message_is_dead_after_its_last_attempt(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        [id_] = await put_ids(box, draft())
        for _ in range(3):
            assert box.depth("a") == 1
            assert await box.nack(await take(box), 0, "not shown", 3) == [None]
        message = await box.get(id_)
        assert (message.state, message.attempts, message.history[-1].detail) == (DEAD, 3, "not shown")
        assert box.depth("a") == 0
        assert [m.id for m in await box.inbox("a", [DEAD], 10)] == [id_]
        assert isinstance((await box.ack([id_], "a"))[0], Conflict)
        assert await box.retry([id_]) == [None]
        assert isinstance((await box.retry([id_]))[0], Conflict)
        [again] = await take(box)
        assert again.attempt == 1


async def test_a_delivered_message_can_be_given_back_by_id(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        [id_] = await put_ids(box, draft())
        assert isinstance((await box.nack([id_], 0, "", 5))[0], Conflict)
        await box.deliver(await take(box))
        assert box.depth("a") == 0
        assert await box.nack([id_], 0, "the agent ended", 5) == [None]
        assert box.depth("a") == 1
        assert [delivery.attempt for delivery in await take(box)] == [2]


async def test_an_ack_is_final_and_harmless_twice(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        waiting, taken, delivered = await put_ids(box, draft("w", sender="u"), draft("t"), draft("d", sender="t"))
        held = await take(box)
        await box.deliver([d for d in held if d.message.id == delivered])
        await box.release([d for d in held if d.message.id == waiting])
        ids = [waiting, taken, delivered, waiting]
        assert await box.ack(ids, "a", "a") == [None] * 4
        assert await box.ack(ids, "a", "a") == [None] * 4
        assert await take(box) == []
        assert box.depths() == {}
        states = [entry.state for entry in (await box.get(taken)).history]
        assert states == [ACCEPTED, DELIVERING, DELIVERED, ACKED]


async def test_another_inboxes_message_is_not_found(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        [id_] = await put_ids(box, draft())
        await box.deliver(await take(box))
        unknown = ["m0000000000zz", "nonsense", "", "m" + "u" * 12, "M" + id_[1:]]
        for outcomes in [
            await box.ack([id_], "b", "b"),
            await box.nack([id_], 0, "", 5, agent="b"),
            await box.ack(unknown, "a"),
            await box.retry(unknown),
            await box.drop(unknown),
        ]:
            assert {type(outcome) for outcome in outcomes} == {NotFound}
        for text in unknown:
            with pytest.raises(NotFound):
                await box.get(text)
        assert await state_of(box, id_) is DELIVERED


async def test_only_dead_letters_can_be_dropped(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        dead, alive = await put_ids(box, draft("1", sender="u"), draft("2"))
        await box.nack([d for d in await take(box) if d.message.id == dead], 0, "", 1)
        outcomes = await box.drop([dead, alive])
        assert outcomes[0] is None
        assert isinstance(outcomes[1], Conflict)
        with pytest.raises(NotFound):
            await box.get(dead)


async def test_a_message_expires_unless_somebody_has_it(tmp_path: Path) -> None:
    clock, seen = Clock(), Seen()
    async with open_box(tmp_path / "box", clock, seen) as box:
        ids = await put_ids(box, draft("1", ttl_s=5.0), draft("2", ttl_s=5.0, sender="t"), draft("3", ttl_s=50.0))
        [held] = await take(box, limit=1)
        clock.forward(6)
        await box.sweep()
        assert [await state_of(box, id_) for id_ in ids] == [DELIVERING, EXPIRED, ACCEPTED]
        await box.release([held])
        assert bodies(await take(box)) == ["3"]
        assert [await state_of(box, id_) for id_ in ids] == [EXPIRED, EXPIRED, DELIVERING]
        assert box.depth("a") == 1
        assert isinstance((await box.ack([ids[0]], "a"))[0], Conflict)


async def test_time_to_live_runs_out_by_itself(tmp_path: Path) -> None:
    """The writer wakes up for it, with nobody asking; in real time, as nothing else proves it."""
    expired = asyncio.Event()

    def told(changes: Sequence[Change]) -> None:
        if any(change.state is EXPIRED for change in changes):
            expired.set()

    async with Mailbox.open(tmp_path / "box", config(), told) as box:
        await put_ids(box, draft(ttl_s=0.05))
        async with asyncio.timeout(10):
            await expired.wait()
        assert box.depths() == {}


@pytest.mark.parametrize(("together", "fewest", "most"), [(True, 1, 20), (False, 50, 60)])
async def test_senders_at_one_time_share_a_commit_or_have_their_own(
    tmp_path: Path, together: bool, fewest: int, most: int
) -> None:
    async with open_box(tmp_path / "box", shards=1, group_commit=together) as box:
        before = box.stats()["commits"]
        receipts = await asyncio.gather(*(box.put([draft(f"{n}")]) for n in range(50)))
        assert all(isinstance(receipt, Receipt) for [receipt] in receipts)
        assert fewest <= box.stats()["commits"] - before <= most


# -- reading


async def test_an_inbox_is_listed_oldest_first(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        ids = await put_ids(box, *(draft(str(n), sender=f"s{n % 3}") for n in range(9)))
        await box.deliver((await take(box, limit=4))[1:])
        assert [m.id for m in await box.inbox("a", ALL, 100)] == ids
        assert [m.id for m in await box.inbox("a", ALL, 3)] == ids[:3]
        assert [m.id for m in await box.inbox("a", [DELIVERED, DELIVERING, DELIVERED], 100)] == ids[:4]
        assert await box.inbox("nobody", ALL, 10) == []


async def test_the_first_answer_is_found(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        [question] = await put_ids(box, draft("?", sender="b"))
        assert await box.answer_to("b", question) is None
        await put_ids(
            box, draft("1", to="c", reply_to=question), draft("2", to="b", reply_to=question), draft("3", to="b")
        )
        answer = await box.answer_to("b", question)
        assert answer is not None
        assert answer.body == "2"


async def test_changes_are_told_before_the_caller_goes_on(tmp_path: Path) -> None:
    seen = Seen()
    async with open_box(tmp_path / "box", seen=seen) as box:
        for n in range(20):
            [id_] = await put_ids(box, draft(str(n)))
            assert seen[-1].id == id_
            assert box.depth("a") == n + 1


async def test_a_caller_that_gave_up_disturbs_nobody(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        gone = asyncio.ensure_future(box.put([draft("1")]))
        stays = asyncio.ensure_future(box.put([draft("2")]))
        await asyncio.sleep(0)
        gone.cancel()
        assert isinstance((await stays)[0], Receipt)
        assert box.depth("a") == 2


# -- over lives


async def test_what_was_being_delivered_is_handed_to_the_next_life(tmp_path: Path) -> None:
    clock = Clock()
    async with open_box(tmp_path / "box", clock) as box:
        ids = await put_ids(box, *(draft(str(n), sender=f"s{n}") for n in range(4)))
        taken = await take(box, limit=3)
        await box.deliver(taken[:1])
    async with open_box(tmp_path / "box", clock) as box:
        recovered = box.recover()
        assert [(d.message.id, d.attempt) for d in recovered] == [(ids[1], 1), (ids[2], 1)]
        assert box.recover() == []
        assert box.depth("a") == 3
        assert bodies(await take(box)) == ["3"]
        assert await box.release(recovered[:1]) == [None]
        assert bodies(await take(box)) == ["1"]
        clock.forward(31)
        assert bodies(await take(box)) == ["1", "2", "3"]


async def test_the_number_of_shards_is_fixed_at_creation(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box", shards=3) as box:
        ids = await put_ids(box, *(draft(to=f"a{n}") for n in range(20)))
        assert {seq_of(id_) % 16 for id_ in ids} == {0, 1, 2}
    async with open_box(tmp_path / "box", shards=8) as box:
        assert box.stats()["shards"] == 3
        assert [(await box.get(id_)).id for id_ in ids] == ids


async def test_a_closed_mailbox_says_so(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        await put_ids(box, draft())
    [refused] = await box.put([draft()])
    assert isinstance(refused, Unavailable)


async def test_files_are_private(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        await put_ids(box, draft(), draft(to="b"), draft(to="c"))
        found = [tmp_path / "box", *(tmp_path / "box").rglob("*")]
        modes = {path.name: path.stat().st_mode & 0o777 for path in found}
    assert {"s00.db", "s00.db-wal", "FORMAT", "journal.000001"} <= set(modes)
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes


# -- room on the disk


async def test_below_the_reserve_sends_are_refused_and_acks_are_not(tmp_path: Path) -> None:
    async with open_box(tmp_path / "box") as box:
        [id_] = await put_ids(box, draft())
    async with open_box(tmp_path / "box", reserve_mb=1 << 40) as box:
        assert [type(result) for result in await box.put([draft(), draft(to="b")])] == [StorageFull] * 2
        [taken] = await take(box)
        assert await box.deliver([taken]) == [None]
        assert await box.ack([id_], "a") == [None]


# -- clocks


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0, 10 * 365 * 86400.0, -2 * 365 * 86400.0])
async def test_a_jump_of_the_wall_clock_ends_no_lease_and_keeps_the_order(tmp_path: Path, jump_s: float) -> None:
    clock = Clock()
    async with open_box(tmp_path / "box", clock) as box:
        first = await put_ids(box, draft("1"), draft("2", ttl_s=60.0, sender="t"))
        [taken] = await take(box, limit=1)
        clock.jump(jump_s)
        assert bodies(await take(box)) == ["2"]
        assert await take(box) == []
        later = await put_ids(box, draft("3"))
        assert [*first, *later] == sorted([*first, *later])
        assert await box.deliver([taken]) == [None]
        clock.forward(29)
        assert bodies(await take(box)) == ["3"]
    async with open_box(tmp_path / "box", clock) as box:
        newest = await put_ids(box, draft("4"))
        assert newest > later


async def test_ids_rise_when_the_clock_was_set_back_between_lives(tmp_path: Path) -> None:
    clock = Clock()
    given: list[str] = []
    for jump_s in [0, -86400, 3600, -86400 * 365]:
        clock.jump(jump_s)
        async with open_box(tmp_path / "box", clock, shards=1) as box:
            given += await put_ids(box, *(draft(str(n)) for n in range(5)))
            await box.nack([d for d in await take(box) if d.message.id == given[-1]], 0, "", 1)
            await box.drop(given[-1:])  # the newest is gone; its number is not given again
    assert given == sorted(set(given))
