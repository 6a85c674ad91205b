"""How many commands a second: ours beside a bare control client, captures beside libtmux, and by size of the pool.

    python -m bench.commands [--quick]

`display-message` is asked by 200 callers, each one after the other: of the bare client (a future for each line, and no
more), and of ours, with deadlines, checks and counting; all in one write by the bare client is the server's own limit.
The captures are 100 panes, one after the other with libtmux and at once with ours. The pool's sizes take turns at each
number of sessions. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import anyio
import libtmux

from agentd.records import PaneRef
from agentd.tmux.tmux import SpawnOrder, Tmux
from bench._bare import BareClient, bare_client
from bench.spawn import our_server

POOLS = (1, 2, 4, 8, 20)
CALLERS = 200
CAPTURES = 100
ASK = ("display-message", "-p", "hello")


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Return how long it takes."""
    started_s = time.perf_counter()
    await work()
    return time.perf_counter() - started_s


async def fill(tmux: Tmux, count: int) -> list[PaneRef]:
    """Start so many programs."""
    orders = [SpawnOrder(f"a-{number}", ["sleep", "100000"], {}, "/", 80, 24) for number in range(count)]
    results = await tmux.spawn_many(orders)
    return [each for each in results if isinstance(each, PaneRef)]


async def ask(tmux: Tmux, total: int, callers: int) -> None:
    """Have callers ask, each one after the other."""

    async def caller() -> None:
        for _ in range(total // callers):
            await tmux._calls.channel().run(*ASK, timeout_s=30)

    async with anyio.create_task_group() as group:
        for _ in range(callers):
            group.start_soon(caller)


async def ask_bare(client: BareClient, total: int, callers: int) -> None:
    """Have callers ask the bare client, each one after the other."""
    line = (" ".join(ASK) + "\n").encode()

    async def caller() -> None:
        for _ in range(total // callers):
            await client.ask(line)

    async with anyio.create_task_group() as group:
        for _ in range(callers):
            group.start_soon(caller)


async def throughput(rounds: int, total: int) -> None:
    """Compare ours with the bare client on one server."""
    times_s: dict[str, list[float]] = {"bare": [], "ours": [], "bare, one write": []}
    async with our_server() as (tmux, socket), bare_client(socket, "_agentd") as client:
        await fill(tmux, 10)
        line = (" ".join(ASK) + "\n").encode()
        for _ in range(rounds):
            times_s["bare"].append(await timed(lambda: ask_bare(client, total, CALLERS)))
            times_s["ours"].append(await timed(lambda: ask(tmux, total, CALLERS)))
            times_s["bare, one write"].append(await timed(lambda: client.burst([line] * total)))
    print(f"\n{total} x display-message, 10 sessions{'per s':>14}{'of bare':>12}")
    for way, all_s in times_s.items():
        ratio = statistics.median(a / b for a, b in zip(times_s["bare"], all_s, strict=True))
        print(f"{way:<38}{total / statistics.median(all_s):>11,.0f}{ratio:>12.2f}")


async def captures(rounds: int) -> None:
    """Compare 100 captures with libtmux."""
    ours_s, theirs_s = [], []
    async with our_server() as (tmux, socket):
        refs = await fill(tmux, CAPTURES)
        wanted = {ref.pane_id for ref in refs}
        found = {pane.pane_id: pane for pane in libtmux.Server(socket_path=socket).panes if pane.pane_id in wanted}

        async def all_ours() -> None:
            async with anyio.create_task_group() as group:
                for ref in refs:
                    group.start_soon(tmux.look, ref)

        for _ in range(rounds):
            ours_s.append(await timed(all_ours))
            started_s = time.perf_counter()
            for pane in found.values():
                pane.capture_pane()
            theirs_s.append(time.perf_counter() - started_s)
    ratio = statistics.median(b / a for a, b in zip(ours_s, theirs_s, strict=True))
    print(f"\n{len(found)} captures: ours {statistics.median(ours_s) * 1000:.1f} ms, with the facts of each;")
    print(f"libtmux {statistics.median(theirs_s) * 1000:.1f} ms: x {ratio:.1f}")


async def pools(rounds: int, sizes: tuple[int, ...], total: int) -> None:
    """Compare the sizes of the pool."""
    print(f"\ncommands per s by connections, {CALLERS} callers")
    print(f"{'sessions':<10}" + "".join(f"{count:>10}" for count in POOLS))
    for sessions in sizes:
        rates = []
        for count in POOLS:
            async with our_server(connections=count) as (tmux, _):
                await fill(tmux, sessions)
                took_s = [await timed(lambda tmux=tmux: ask(tmux, total, CALLERS)) for _ in range(rounds)]
                rates.append(total / statistics.median(took_s))
        print(f"{sessions:<10}" + "".join(f"{rate:>10,.0f}" for rate in rates), flush=True)


async def main(quick: bool) -> None:
    """Ask the three questions."""
    rounds = 3 if quick else 10
    await throughput(rounds, 4000 if quick else 40_000)
    await captures(rounds)
    await pools(rounds, (10, 200) if quick else (10, 200, 1000), 2000 if quick else 10_000)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="a first look, in under a minute")
    asyncio.run(main(options.parse_args().quick))
