"""The small parts of the mailbox: ids, the clock, the journal, the handover, failpoints."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from boxes import START_NS, Clock
from hypothesis import given
from hypothesis import strategies as st

from agentd.errors import Busy, NotFound, Unavailable
from agentd.failpoint import parse
from agentd.mailbox import journal
from agentd.mailbox.clock import SteadyClock
from agentd.mailbox.handover import Handover, Job
from agentd.mailbox.ids import first_seq_at, seq_of, shard_of, text_of, time_of
from agentd.mailbox.moved import Moved
from agentd.mailbox.rows import fragment, without_last
from agentd.records import MessageState


@given(st.lists(st.integers(0, (1 << 60) - 1), min_size=2))
def test_ids_sort_as_their_numbers(seqs: list[int]) -> None:
    texts = [text_of(seq) for seq in seqs]
    assert [seq_of(text) for text in texts] == seqs
    assert {len(text) for text in texts} == {13}
    assert sorted(texts) == [text_of(seq) for seq in sorted(seqs)]


@given(st.text(max_size=20))
def test_a_text_is_an_id_or_not_found(text: str) -> None:
    with contextlib.suppress(NotFound):
        assert text_of(seq_of(text)) == text


@given(st.integers(START_NS, START_NS + 10**18), st.integers(0, 15))
def test_an_id_holds_its_time_and_its_shard(now_ns: int, shard: int) -> None:
    seq = first_seq_at(now_ns, shard)
    assert shard_of(seq) == shard
    assert 0 <= now_ns - time_of(seq) < 1000


def test_a_steady_clock_follows_elapsed_time_only() -> None:
    clock = Clock()
    steady = SteadyClock(clock.read_wall, clock.read_elapsed)
    assert steady.now_ns() == START_NS
    clock.jump(-5000)
    clock.forward(2)
    assert steady.now_ns() == START_NS + 2 * 10**9
    steady.not_before(START_NS)
    assert steady.now_ns() == START_NS + 2 * 10**9
    steady.not_before(START_NS + 10 * 10**9)
    assert steady.now_ns() == START_NS + 10 * 10**9


@given(st.lists(st.tuples(st.sampled_from(MessageState), st.text()), min_size=1))
def test_the_last_piece_of_a_history_can_be_taken_off(entries: list[tuple[MessageState, str]]) -> None:
    hist = ""
    for state, detail in entries:
        longer = hist + fragment(state, 1, detail)
        assert without_last(longer) == hist
        hist = longer
    assert without_last("") == ""


# -- the journal


@given(st.lists(st.one_of(st.binary(max_size=40), st.just(journal.MAGIC)), max_size=6), st.data())
def test_a_reader_finds_every_sound_record_between_whatever_else(noise: list[bytes], data: st.DataObject) -> None:
    written, stream = [], b""
    for n, piece in enumerate(noise):
        record = [journal.MOVED_TOGETHER_RECORD, [n, n + 1], 1, 2, data.draw(st.text(max_size=10))]
        stream += piece + journal.moved([n, n + 1], 1, 2, record[4])  # type: ignore[arg-type]
        written.append(record)
    found = [record for _, record in journal.read(io.BytesIO(stream))]
    # A piece of noise that looks like a record's head may swallow nothing: its checksum is wrong.
    assert found == written


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_one_flipped_bit_costs_one_record(where: int, bit: int) -> None:
    records = [journal.moved([n], 3, 4, "x" * 30) for n in range(10)]
    stream = bytearray(b"".join(records))
    stream[where % len(stream)] ^= 1 << bit
    hit = where % len(stream) // len(records[0])
    assert [record[1] for _, record in journal.read(io.BytesIO(stream))] == [[n] for n in range(10) if n != hit]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5), st.sampled_from(["", "why"]))))
def test_messages_that_moved_together_have_their_states_in_order(moves: list[tuple[int, int, str]]) -> None:
    moved = Moved()
    for move in moves:
        moved.add(*move)
    read = [record for _, record in journal.read(io.BytesIO(b"".join(moved.records(7))))]
    assert len(read) <= len(moves)
    for seq in range(6):
        found = [(state, detail) for _, seqs, state, at_ns, detail in read for one in seqs if one == seq]
        assert found == [(state, detail) for one, state, detail in moves if one == seq]
    assert moved.records(8) == []


def test_what_moves_alike_is_one_record() -> None:
    moved = Moved()
    for seq in range(100):
        moved.add(seq, 2, "")
        moved.add(seq, 3, "by x")
    assert len(moved.records(1)) == 2


def test_places_are_kept_as_numbers_and_files_in_order(tmp_path: Path) -> None:
    book = journal.Journal(tmp_path / "s00")
    assert book.end == journal.START
    for n in range(3):
        book.append(journal.moved([n], 1, 1, ""))
        place = book.end
        assert journal.Place.unpacked(place.packed()) == place
        book.append(journal.moved([100 + n], 1, 1, ""))
        book.cut(place)
        assert book.end == place
        book.rotate()
        assert book.end > place
    assert [record[1] for _, record in book.read_from(journal.START)] == [[0], [1], [2]]
    assert [record[1] for _, record in book.read_from(journal.Place(2, 0))] == [[1], [2]]
    book.close()


# -- the handover


@dataclass(frozen=True)
class Work:
    cost: int = 1
    sends: bool = True


def test_a_drain_is_bounded_and_in_order() -> None:
    async def main() -> None:
        handover: Handover[Work] = Handover(asyncio.get_running_loop(), 100, 0)
        futures = [handover.submit(Work(cost)) for cost in (3, 3, 3, 50, 1)]
        drains = []

        def thread() -> None:
            while (jobs := handover.take(10, 0.01)) is not None:
                if jobs:
                    drains.append([job.command.cost for job in jobs])
                    handover.settle(jobs, [len(drains)] * len(jobs), lambda: None)

        worker = threading.Thread(target=thread)
        worker.start()
        assert await asyncio.gather(*futures) == [1, 1, 1, 2, 3]
        assert handover.waiting == 0
        handover.stop()
        await asyncio.to_thread(worker.join)
        assert drains == [[3, 3, 3], [50], [1]]

    asyncio.run(main())


def test_nobody_waits_for_company_that_does_not_come() -> None:
    """With a limit of an hour: who is alone is taken at once, and so is a crowd as soon as nobody joins it any more."""

    async def main() -> None:
        handover: Handover[Work] = Handover(asyncio.get_running_loop(), 100, 3600)
        for crowd in (1, 2, 2):
            for _ in range(crowd):
                handover.submit(Work())
            assert len(handover.take(10, 0) or ()) == crowd

    asyncio.run(main())


def test_a_crowd_is_let_gather_until_nobody_joins_it() -> None:
    class Growing:
        sizes = iter([1, 5, 9, 9, 30])

        def qsize(self) -> int:
            return next(self.sizes)

    async def main() -> None:
        handover: Handover[Work] = Handover(asyncio.get_running_loop(), 100, 3600)
        handover._queue = queue = Growing()  # type: ignore[assignment]
        handover._gather()
        assert next(queue.sizes) == 30

    asyncio.run(main())


def test_a_full_queue_refuses_sends_and_nothing_else() -> None:
    async def main() -> None:
        handover: Handover[Work] = Handover(asyncio.get_running_loop(), 10, 0)
        handover.submit(Work(50))  # alone, anything goes
        with pytest.raises(Busy):
            handover.submit(Work(1))
        handover.submit(Work(1, sends=False))
        handover.stop()
        with pytest.raises(Unavailable):
            handover.submit(Work(1, sends=False))

    asyncio.run(main())


def test_a_fault_of_who_is_told_first_keeps_nobody_waiting() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        faults: list[object] = []
        loop.set_exception_handler(lambda _loop, context: faults.append(context["exception"]))
        handover: Handover[Work] = Handover(loop, 10, 0)
        job = Job(Work(), handover.submit(Work()))

        def fail() -> None:
            raise ZeroDivisionError

        handover.settle([job], ["done"], fail)
        assert await job.future == "done"
        assert isinstance(faults[0], ZeroDivisionError)

    asyncio.run(main())


# -- failpoints


def test_failpoints_are_read_from_their_text() -> None:
    assert parse("") == {}
    assert parse("a.b:kill, c:kill@3") == {"a.b": 1, "c": 3}


@pytest.mark.parametrize("text", ["a", "a:", ":kill", "a:explode", "a:kill@x"])
def test_an_odd_failpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)
