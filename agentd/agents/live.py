"""A live agent: one task that watches its screen and moves its inbox into its terminal."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio

from agentd.agents.courier import Courier
from agentd.agents.profile import Profile
from agentd.agents.signal import Signal
from agentd.agents.status import Opinion, Status
from agentd.agents.terminal import Terminal
from agentd.errors import AgentdError, AgentGone, StaleTarget
from agentd.logs import Log
from agentd.records import Delivery
from agentd.tmux.tmux import Output
from agentd.transcripts.transcripts import Recording

IDLE_LOOK_S = 300.0  # a look without any event; tmux tells once a second which panes printed, should an event be lost
FASTEST_LOOK_S = 0.02  # output comes in bursts; a burst is looked at once
RETRY_AFTER_FAULT_S = 5.0
SLOWEST_LOOK_S = 0.25  # between looks at an agent that prints without end


@dataclass(frozen=True, slots=True)
class Ended:
    """How an agent's program ended."""

    exit_status: int | None
    exit_signal: str = ""
    screen: str = ""


class LiveAgent:
    """Owns one agent's state and deliveries; others only wake it."""

    def __init__(
        self,
        agent_id: str,
        profile: Profile,
        terminal: Terminal,
        courier: Courier,
        status: Status,
        recording: Recording,
        *,
        on_opinion: Callable[[str, Opinion], None],
        may_deliver: Callable[[], bool],
        log: Log,
    ) -> None:
        self.id = agent_id
        self.profile = profile
        self.terminal = terminal
        self.status = status
        self.seen_ns = 0
        self.recording = recording
        self.ended = anyio.Event()
        self._courier = courier
        self._on_opinion = on_opinion
        self._may_deliver = may_deliver
        self._delivering = anyio.Lock()
        self._log = log
        self._wake = Signal()
        self._urgent = Signal()  # what must not wait until a burst of output is over
        self._asked_to_end = False
        self._pace_s = FASTEST_LOOK_S

    def screen_changed(self, output: Output | None = None) -> None:
        """Tell it that the program printed something."""
        if output is not None:
            self.recording.heard(output.escaped)
        self.terminal.changed.set()
        self._wake.set()

    def inbox_changed(self) -> None:
        """Tell it that messages may wait."""
        self._hurry()

    async def end_by_itself(self) -> bool:
        """Ask the program to end in its own way, if it can take that now; tell whether it did in its profile's time."""
        if not self.status.deliverable or not (self.profile.stop.text or self.profile.stop.keys):
            return False
        self._asked_to_end = True
        self._hurry()
        with anyio.move_on_after(self.profile.stop.timeout_s):
            await self.ended.wait()
        return self.ended.is_set()

    def died(self) -> None:
        """Tell it that its program ended."""
        self.terminal.changed.set()
        self._hurry()

    async def run(self, recovered: Sequence[Delivery], on_end: Callable[[LiveAgent, Ended], Awaitable[None]]) -> None:
        """Watch and deliver until the program ends; `recovered` is what the last daemon was delivering when it died."""
        try:
            if recovered:
                await self._take_over(recovered)
            while (ended := await self._turn()) is None:
                pass
        except (AgentGone, StaleTarget) as error:
            ended = Ended(None, screen=error.message)
        self.ended.set()
        await on_end(self, ended)

    async def _take_over(self, recovered: Sequence[Delivery]) -> None:
        try:
            await self._courier.take_over(recovered)
        except AgentdError as error:  # their leases run out by themselves
            self._log.warning("could not give back deliveries", agent=self.id, error=error.message)

    async def _turn(self) -> Ended | None:
        try:
            if ended := await self._observe():
                return ended
            if self._asked_to_end:
                await self._say_goodbye()
            elif self.status.deliverable and await self._deliver():
                return None
        except (AgentGone, StaleTarget):
            raise
        except AgentdError as error:  # tmux or the disk had a bad moment; the messages are kept, so try again
            self._log.warning("agent turn failed", agent=self.id, code=error.code, error=error.message)
            await anyio.sleep(SLOWEST_LOOK_S)
        except Exception:  # noqa: BLE001  a fault of ours with one agent must not end every other agent's task
            self._log.error("agent turn failed", agent=self.id, exc_info=True)
            await anyio.sleep(RETRY_AFTER_FAULT_S)
        await self._rest()
        return None

    async def between_deliveries(self) -> None:
        """Wait until no delivery is under way."""
        async with self._delivering:
            pass

    async def _deliver(self) -> bool:
        async with self._delivering:
            return self._may_deliver() and await self._courier.deliver()

    async def _say_goodbye(self) -> None:
        """Type what ends this kind of program; this task alone types, so it cannot meet a delivery."""
        stop = self.profile.stop
        if not self.status.deliverable:
            return
        if stop.text:
            await self.terminal.submit(stop.text)
        else:
            await self.terminal.press(stop.keys)

    async def _observe(self) -> Ended | None:
        look, verdict = await self.terminal.look()
        if look.dead:
            return Ended(look.exit_status, look.exit_signal, look.text)
        self.seen_ns = time.time_ns()
        if await self._courier.tidy(look, verdict):
            return None
        if self.status.see(verdict, anyio.current_time()):
            self._pace_s = FASTEST_LOOK_S
            self._on_opinion(self.id, self.status.opinion)
        else:
            self._pace_s = min(self._pace_s * 2, SLOWEST_LOOK_S)
        return None

    def _hurry(self) -> None:
        self._urgent.set()
        self._wake.set()

    async def _rest(self) -> None:
        waits = [IDLE_LOOK_S, self.status.look_again_in_s(anyio.current_time())]
        if self.status.deliverable:
            waits.append(self._courier.due_in_s())
        timeout_s = min(wait for wait in waits if wait is not None)
        if await self._wake.wait(timeout_s):
            await self._urgent.wait(self._pace_s)
        else:
            self._pace_s = FASTEST_LOOK_S
