"""The errands: a bounded queue of the user's commands and a few that run, beside everything else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread

from agentd.config import HooksConfig
from agentd.errands import terminals
from agentd.errands.errand import Errand, environment, errands_of, payload, samples_of
from agentd.errands.process import Done, run
from agentd.errors import AgentdError
from agentd.events import Events
from agentd.logs import Log

TELL_EVERY_S = 10.0  # of the same hook's failures, and of what was dropped
TYPES = ("agent.state", "message.*")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What errands run in."""

    environ: Mapping[str, str]
    umask: int
    socket: str
    attached: Callable[[], Awaitable[Sequence[str]]]  # the terminals of those who are attached to agents


class Errands:
    """Follows what happens and runs what the configuration says; whoever emits an event never waits for it."""

    def __init__(self, config: HooksConfig, around: Surroundings, events: Events, log: Log) -> None:
        self._config = config
        self._around = around
        self._events = events
        self._log = log
        send, self._queue = anyio.create_memory_object_stream[Errand](config.queue)
        self._put = send
        self._counts: Counter[str] = Counter()
        self._untold: Counter[str] = Counter()
        self._told_s: dict[str, float] = {}
        self._running = 0

    @property
    def wanted(self) -> bool:
        """Tell whether there is anything to run, ever."""
        return bool(self._config.on_state or self._config.on_message or self._config.notify != "none")

    def stats(self) -> dict[str, int]:
        """Return how many ran, failed, were dropped, run and wait."""
        counted = {name: self._counts[name] for name in ("done", "failed", "dropped")}
        return {**counted, "running": self._running, "queued": self._queue.statistics().current_buffer_used}

    async def run(self) -> None:
        """Run errands until cancelled; what runs then is killed."""
        if not self.wanted:
            return
        async with anyio.create_task_group() as group:
            for _ in range(self._config.at_once):
                group.start_soon(self._work)
            async for event in self._events.follow(types=TYPES):
                for errand in errands_of(self._config, event):
                    self._enqueue(errand)

    async def test(self) -> list[dict[str, Any]]:
        """Run one example of everything that is set, one after the other; return how each ended."""
        rows = []
        for errand in samples_of(self._config, self._events.emit("hook.test")):
            began_s = time.monotonic()
            done = await self._do(errand)
            took_ms = round((time.monotonic() - began_s) * 1000)
            row = {"hook": errand.hook, "command": list(errand.argv), "took_ms": took_ms}
            rows.append({**row, "error": done.error or None, "output": done.output})
        return rows

    def _enqueue(self, errand: Errand) -> None:
        try:
            self._put.send_nowait(errand)
        except anyio.WouldBlock:
            self._counts["dropped"] += 1
            self._tell("hook.dropped", "dropped", queue=self._config.queue)

    async def _work(self) -> None:
        while True:
            errand = await self._queue.receive()
            self._running += 1
            try:
                done = await self._do(errand)
            except Exception as error:  # noqa: BLE001  an errand's trouble must not end the others
                self._log.error("an errand failed", hook=errand.hook, exc_info=True)
                done = Done(f"agentd failed: {error}")
            finally:
                self._running -= 1
            self._end(errand, done)

    async def _do(self, errand: Errand) -> Done:
        if errand.argv:
            env = environment(self._around.environ, errand.event, self._around.socket)
            return await run(errand.argv, payload(errand.event), env, self._around.umask, self._config.timeout_s)
        try:
            ttys = await self._around.attached()
        except AgentdError as error:
            return Done(error.message)
        return Done(await anyio.to_thread.run_sync(terminals.notify, ttys, errand.line))

    def _end(self, errand: Errand, done: Done) -> None:
        self._counts["failed" if done.error else "done"] += 1
        if done.error:
            about = {"hook": errand.hook, "reason": done.error, "output": done.output, "event": errand.event.id}
            self._tell("hook.failed", errand.hook, **about)
        elif done.output:
            self._log.info("hook", hook=errand.hook, event_id=errand.event.id, output=done.output)

    def _tell(self, type_: str, what: str, **about: Any) -> None:
        """Log and emit, with the number since the last time, but not more often than every so often."""
        self._untold[what] += 1
        now_s = time.monotonic()
        if now_s >= self._told_s.get(what, -TELL_EVERY_S) + TELL_EVERY_S:
            self._told_s[what] = now_s
            about["count"] = self._untold.pop(what)
            self._events.emit(type_, **about)
            self._log.warning(type_, **{name: value for name, value in about.items() if name != "event"})
