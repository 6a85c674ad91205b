"""The pool's books: each slot in one state, claimed once, the oldest first, under a number that never comes again."""

from __future__ import annotations

import pytest
from pool_world import HERE, THERE, slots

from agentd.agents.slots import Counts, Slot, Slots, SlotState


def test_the_one_that_was_ready_first_is_claimed_first_and_each_once():
    late, early = Slot("a", HERE, SlotState.READY, 9.0), Slot("b", HERE, SlotState.READY, 3.0)
    books = Slots([late, early, *slots(1, place=THERE)])
    claimed = [books.claim(HERE, 10.0) for _ in range(3)]
    assert [slot and (slot.id, slot.fence) for slot in claimed] == [("b", 1), ("a", 2), None]
    assert [slot.state for slot in books.of(HERE)] == [SlotState.HELD] * 2
    assert books.counts(HERE) == Counts(hits=2, misses=1)
    assert books.counts(THERE) == Counts()


@pytest.mark.parametrize("state", [state for state in SlotState if state is not SlotState.READY])
def test_only_what_is_ready_can_be_claimed(state: SlotState):
    assert Slots(slots(2, state)).claim(HERE, 1.0) is None


@pytest.mark.parametrize("state", [state for state in SlotState if state is not SlotState.BOOTING])
def test_news_that_a_boot_is_over_make_nothing_free_that_is_not_booting(state: SlotState):
    books = Slots(slots(1, state))
    assert not books.ready(slots(1, state)[0].id, 5.0)
    assert [slot.state for slot in books] == [state]


def test_what_is_held_is_neither_ended_nor_called_unhealthy():
    books = Slots(slots(1))
    held = books.claim(HERE, 1.0)
    assert held
    assert not books.ending(held.id, 2.0)
    assert not books.unhealthy(held.id, 2.0, "no output")
    assert list(books) == [held]


def test_what_is_unhealthy_says_why_and_may_be_ended():
    books = Slots(slots(1, SlotState.BOOTING))
    (slot,) = books
    assert books.unhealthy(slot.id, 7.0, "a login is asked for")
    (sick,) = books
    assert (sick.state, sick.since_s, sick.why) == (SlotState.UNHEALTHY, 7.0, "a login is asked for")
    assert books.ending(slot.id, 8.0)
    assert books.remove(slot.id) is not None
    assert books.remove(slot.id) is None
    assert not books.ending(slot.id, 9.0)


def test_an_id_is_entered_once():
    books = Slots(slots(1))
    with pytest.raises(ValueError, match="on the books already"):
        books.add(slots(1)[0])


def test_after_a_crash_the_numbers_go_on():
    books = Slots(slots(3))
    first, second = books.claim(HERE, 1.0), books.claim(HERE, 1.0)
    assert first
    assert second
    with_the_last = Slots([*slots(1), second])  # its claim is written down
    assert with_the_last.fence == 2
    without = Slots(slots(1), fence=books.fence)  # its holder's agent has ended since
    claimed = without.claim(HERE, 2.0)
    assert claimed
    assert claimed.fence == 3
