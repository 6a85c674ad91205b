"""What is exported and brought back is what it was: ids, states, history, keys, order."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from boxes import ALL, Clock, draft, open_box, put_ids, take
from hypothesis import given
from hypothesis import strategies as st

from agentd.errors import AgentdError, Conflict, InvalidValue, NotFound
from agentd.mailbox.lines import Line, line_of, row_of_line, text_of_rows
from agentd.mailbox.mailbox import Mailbox
from agentd.mailbox.rows import Row, fragment, intact
from agentd.mailbox.verification import Checked
from agentd.records import Draft, MessageState, Priority, Receipt

pytestmark = pytest.mark.anyio
AGENTS = [f"agent-{n}" for n in range(6)]


async def filled(place: Path, clock: Clock, shards: int) -> None:
    async with open_box(place, clock, shards=shards) as box:
        for n in range(120):
            sender, priority = f"from-{n}", list(Priority)[n % 3]
            more = {"headers": {"n": "é"}, "thread": f"t{n}", "reply_to": "m000000000001"} if n % 4 == 0 else {}
            one = draft(f"böd {n}", to=AGENTS[n % 6], sender=sender, key=f"k{n}", priority=priority, **more)
            await put_ids(box, one)
        await put_ids(box, draft("expires", to=AGENTS[0], ttl_s=1.0))
        clock.forward(2)
        await box.sweep()
        for agent in AGENTS:
            taken = await take(box, agent, limit=15, lease_s=600)
            await box.deliver(taken[:8])
            await box.ack([one.message.id for one in taken[:4]], agent)
            await box.nack(taken[8:10], 0, "no", 1)
            await box.nack(taken[10:12], 3600, "later", 5)
            await box.release(taken[12:13])


async def exported(box: Mailbox) -> bytes:
    text, after = b"", 0
    while rows := await box.page(after, 50):
        assert all(intact(row) for row in rows)
        text += text_of_rows(rows)
        after = rows[-1].seq
    return text


def rows_of(text: bytes) -> list[Row]:
    return [row_of_line(msgspec.json.decode(line, type=Line)) for line in text.splitlines()]


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 5), (5, 1)])
async def test_round_trip_gives_the_same_lines(tmp_path: Path, before: int, after: int) -> None:
    clock = Clock()
    await filled(tmp_path / "old", clock, before)
    async with open_box(tmp_path / "old", clock) as old:
        text = await exported(old)
        messages = [await old.inbox(agent, ALL, 1000) for agent in AGENTS]
        depths = old.depths()
    assert len(text.splitlines()) == 121
    async with open_box(tmp_path / "new", clock, shards=after) as new:
        assert await new.restore(rows_of(text)) == [True] * 121
        assert await exported(new) == text
        assert [await new.inbox(agent, ALL, 1000) for agent in AGENTS] == messages
        assert new.depths() == depths
        assert await new.restore(rows_of(text)) == [False] * 121
        [fresh] = await put_ids(new, draft("fresh", to=AGENTS[0]))
        assert fresh > max(message.id for inbox in messages for message in inbox)
    for path in (tmp_path / "new").glob("s??.db"):
        path.write_bytes(b"garbage")
    async with open_box(tmp_path / "new", clock) as rebuilt:  # the second copy has them too
        assert [len(await rebuilt.inbox(agent, ALL, 1000)) for agent in AGENTS] == [
            len(inbox) + (agent == AGENTS[0]) for agent, inbox in zip(AGENTS, messages, strict=True)
        ]


async def test_restored_keys_count_again_and_after_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    await filled(tmp_path / "old", clock, 2)
    async with open_box(tmp_path / "old", clock) as old:
        rows = rows_of(await exported(old))
    clock.forward(5)
    async with open_box(tmp_path / "new", clock, shards=2) as new:
        await put_ids(new, *(draft(f"{n}", to=AGENTS[n % 6]) for n in range(50)))  # so that the old are filed before
        await new.restore(rows)
        ids = {line_of(row).key: line_of(row).id for row in rows}
    async with open_box(tmp_path / "new", clock) as new:
        for n in (0, 5, 119):
            [again] = await new.put([draft("x", to=AGENTS[n % 6], sender=f"from-{n}", key=f"k{n}")])
            assert isinstance(again, Receipt)
            assert again.duplicate
            assert again.id == ids[f"k{n}"]
        for shard in new.shards:
            cursor: str | None = ""
            while cursor is not None:
                step = await new.verify(shard, cursor)
                assert Checked(step.cursor, step.messages) == step
                cursor = step.cursor


async def test_what_waits_again_is_delivered_in_its_order(tmp_path: Path) -> None:
    clock = Clock()
    async with open_box(tmp_path / "old", clock, shards=1) as old:
        ids = await put_ids(old, *(draft(f"{n}", sender=f"s{n}") for n in range(5)))
        held = (await take(old, limit=1, lease_s=60))[0].message.id
        rows = rows_of(await exported(old))
    clock.forward(1)
    async with open_box(tmp_path / "new", clock, shards=1) as new:
        later = await put_ids(new, draft("later", sender="z"))
        assert await new.restore(rows) == [True] * 5
        assert [one.message.id for one in await take(new)] == [*ids[1:], *later]
        assert new.next_due("a") == pytest.approx(29, abs=1)
        clock.forward(61)
        assert held in [one.message.id for one in await take(new)]


async def test_what_cannot_be_restored_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    async with open_box(tmp_path / "box", clock, shards=1) as box:
        [id_] = await put_ids(box, draft("mine"))
        [mine] = await box.page(0, 10)
        other = mine._replace(sender="other")
        late = mine._replace(seq=(1 << 60) - 16)
        good = mine._replace(seq=mine.seq - 16)
        results = await box.restore([other, late, good, good])
        kinds = [type(result) if isinstance(result, AgentdError) else result for result in results]
        assert kinds == [Conflict, InvalidValue, True, False]
        assert (await box.get(id_)).sender == "s"
        [fresh] = await put_ids(box, draft("next"))
        assert fresh > id_


STATES = st.sampled_from(MessageState)
NS = st.integers(0, (1 << 63) - 1)


@given(
    st.builds(
        Draft,
        to=st.text(),
        sender=st.text(),
        body=st.text(),
        key=st.none() | st.text(),
        headers=st.dictionaries(st.text(), st.text()),
        hops=st.integers(0, 100),
        thread=st.none() | st.text(),
    ),
    st.lists(st.tuples(STATES, NS, st.text())),
    STATES,
    NS,
)
def test_a_row_is_the_same_after_it_was_a_line(
    one: Draft, history: list[tuple[MessageState, int, str]], state: MessageState, ns: int
) -> None:
    from agentd.mailbox.rows import NUMBER, encode

    row = encode(16, one, None, ns)
    row = row._replace(state=NUMBER[state], hist="".join(fragment(*entry) for entry in history))
    line = msgspec.json.decode(text_of_rows([row]), type=Line)
    assert row_of_line(line) == row


@pytest.mark.parametrize(
    "change", [{"id": "x"}, {"created_ns": -1}, {"attempts": 1 << 63}, {"priority": 7}, {"hops": 1 << 70}]
)
def test_a_line_that_no_message_can_have_is_refused(change: dict[str, object]) -> None:
    line = Line(id="m000000000001", to="a", sender="s", body="b", state=MessageState.ACKED, created_ns=1)
    with pytest.raises((InvalidValue, NotFound)):
        row_of_line(msgspec.structs.replace(line, **change))
