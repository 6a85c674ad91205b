"""What is counted is shown; a loop that stands still is seen."""

from __future__ import annotations

import time

import anyio
import pytest

from agentd.metrics import LAG_PERIOD_S, LoopLag, Metrics, quantile


def test_counters_and_gauges_are_one_map():
    metrics, now = Metrics(), [3]
    metrics.add("b_total", 2)
    metrics.add("b_total")
    metrics.gauge("a_now", lambda: now[0])
    now[0] = 4
    assert list(metrics.snapshot().items()) == [("a_now", 4), ("b_total", 3)]


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [([], 0.5, 0.0), ([1.0], 0.99, 1.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 3.0), ([1.0, 2.0], 1.0, 2.0)],
)
def test_quantiles(values: list[float], share: float, wanted: float):
    assert quantile(values, share) == wanted


@pytest.mark.anyio
async def test_a_loop_that_stands_still_is_late():
    lag = LoopLag()
    assert lag.quantile_ms(0.99) == 0.0
    async with anyio.create_task_group() as group:
        group.start_soon(lag.run)
        await anyio.sleep(LAG_PERIOD_S / 2)
        time.sleep(3 * LAG_PERIOD_S)  # the fault
        with anyio.fail_after(10):
            while lag.quantile_ms(1.0) < 1.5 * LAG_PERIOD_S * 1000:
                await anyio.sleep(LAG_PERIOD_S)
        group.cancel_scope.cancel()
