"""A switch that fails again and again is turned off, told of, and stays off; one bad moment turns nothing off."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.switches import LEAST_USES, STRIKES, Reading, Switch, Switches, failing

GOOD = Reading(LEAST_USES, 0)
DEAR = Reading(1, LEAST_USES)
BROKEN = Reading(LEAST_USES, 0, LEAST_USES // 2)
RARE = Reading(0, LEAST_USES - 1, LEAST_USES - 1)
PRICES = {"saves_s": 1.0, "costs_s": 0.5}


class Part:
    """Something with a switch; `live` adds a window to what it has measured."""

    def __init__(self, *, on: bool = True) -> None:
        self.total = Reading()
        self.turned: list[bool] = []
        self.switch = Switch("part", on=on, turn=self.turned.append, read=lambda: self.total)

    def live(self, window: Reading) -> bool:
        old = self.total
        self.total = Reading(old.paid + window.paid, old.cost + window.cost, old.faults + window.faults, **PRICES)
        return self.switch.look()


@pytest.mark.parametrize("window", [DEAR, BROKEN])
def test_a_part_that_fails_window_after_window_is_turned_off_once(window: Reading):
    part = Part()
    told = [part.live(window) for _ in range(STRIKES + 3)]
    assert told.count(True) == 1
    assert told.index(True) == STRIKES - 1
    assert part.turned == [False]
    assert not part.switch.row()["on"]
    assert part.switch.row()["why"] == failing(replace(window, **PRICES))


@pytest.mark.parametrize("between", [GOOD, RARE])
def test_bad_windows_that_do_not_follow_each_other_turn_nothing_off(between: Reading):
    part = Part()
    for _ in range(4):
        assert not any(part.live(window) for window in [DEAR] * (STRIKES - 1) + [between])
    assert part.turned == []


def test_what_is_off_by_configuration_is_not_judged():
    part = Part(on=False)
    assert not any(part.live(BROKEN) for _ in range(STRIKES + 1))
    assert part.switch.row()["why"] == "off by configuration"


@given(
    st.lists(
        st.builds(
            Reading,
            st.integers(0, 2 * LEAST_USES),
            st.integers(0, 2 * LEAST_USES),
            st.integers(0, 10),
        ),
        max_size=30,
    )
)
def test_it_is_turned_off_exactly_after_the_first_run_of_bad_windows(windows: list[Reading]):
    part = Part()
    run = 0
    for window in windows:
        expected = part.switch.on and run + 1 == STRIKES and bool(_bad(window))
        run = run + 1 if part.switch.on and _bad(window) else 0
        assert part.live(window) == expected
    assert len(part.turned) <= 1


def _bad(window: Reading) -> bool:
    uses = window.paid + window.cost
    return uses >= LEAST_USES and (window.faults > 0.05 * uses or window.paid < window.cost / 2)  # saves 1, costs 0.5


@pytest.mark.anyio
async def test_the_watch_looks_and_tells():
    part, told, heard = Part(), [], anyio.Event()

    def tell(switch: Switch) -> None:
        told.append(switch.name)
        heard.set()

    def read() -> Reading:  # every look finds another bad window
        part.total = Reading(0, part.total.cost + LEAST_USES, **PRICES)
        return part.total

    part.switch = Switch("part", on=True, turn=part.turned.append, read=read)
    priced = []

    async def price() -> None:
        priced.append(part.total.cost)

    async with anyio.create_task_group() as group:
        group.start_soon(Switches([part.switch]).watch, 0.001, tell, price)
        with anyio.fail_after(10):
            await heard.wait()
        group.cancel_scope.cancel()
    assert told == ["part"]
    assert part.turned == [False]
    assert len(set(priced)) == len(priced) >= 3  # before each look
