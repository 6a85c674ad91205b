"""A live agent: one task that watches its screen and moves its inbox into its terminal."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import anyio

from agentd.agents.asking import NOTHING, Answer, Asking
from agentd.agents.booted import Booted, clock_s
from agentd.agents.courier import Courier, Handover
from agentd.agents.profile import Profile, Shape
from agentd.agents.program_status import Notice, ProgramStatus
from agentd.agents.reports import Report
from agentd.agents.signal import Signal
from agentd.agents.status import Opinion, Status
from agentd.agents.terminal import Terminal
from agentd.errors import AgentdError, AgentGone, StaleTarget
from agentd.logs import Log
from agentd.records import AgentState, Delivery
from agentd.tmux.tmux import Output
from agentd.transcripts.transcripts import Recording

IDLE_LOOK_S = 300.0  # a look without any event; tmux tells once a second which panes printed, should an event be lost
FASTEST_LOOK_S = 0.02  # output comes in bursts; a burst is looked at once
UNHURRIED_LOOK_S = 0.25  # between looks that show nothing new, each in a pause of the output
CALM_S = 0.15  # a pause; spinners turn every 0.08 to 0.12 s, and what follows a change of state is silence
NOTICE_PAUSE_S = 1.0  # a program may ring without end
RETRY_AFTER_FAULT_S = 5.0
TYPING_S = 0.2  # a delivery that takes longer types; one that finds nothing to do is over at once
MOST_PROLONGED = 5  # Claude Code lets 8 go by in a row before it ends the turn with a warning
RETIRE_S = 2.0  # for what its task is doing to come to its end
SLOWEST_LOOK_S = 0.5  # between looks at an agent that prints without a pause


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
        asking: Asking,
        recording: Recording,
        *,
        on_opinion: Callable[[str, Opinion], None],
        on_asked: Callable[[str], None],
        on_report: Callable[[str, Report], None],
        on_notice: Callable[[str, Notice], None],
        may_deliver: Callable[[], bool],
        log: Log,
        booted: Booted | None = None,
    ) -> None:
        self.id = agent_id
        self.profile = profile
        self.terminal = terminal
        self.status = status
        self.asking = asking
        self.seen_ns = 0
        self.answer = ""  # the whole text of its last one, when it tells
        self.usage = ""  # what its program showed last of tokens and money
        self.recording = recording
        self.booted = booted
        self.owned_since_s = clock_s()  # since when its program is this agent's: one of the pool had started before
        self.ended = anyio.Event()
        self._retired = False
        self._courier = courier
        self._on_opinion = on_opinion
        self._on_asked = on_asked
        self._on_report = on_report
        self._on_notice = on_notice
        self._says = ProgramStatus(notices=profile.signals.notices) if profile.signals.heard else None
        self._noticed_s = -NOTICE_PAUSE_S
        self._may_deliver = may_deliver
        self._delivering = anyio.Lock()
        self._prolonged = 0  # times in a row that messages kept a turn from ending
        self._log = log
        self._looked = anyio.Event()  # set, and another one, after each look that somebody waits for
        self._wake = Signal()
        self._urgent = Signal()  # what must not wait until a burst of output is over
        self._asked_to_end = self._message_came = False
        self._next_profile: Profile | None = None
        self._pace_s = FASTEST_LOOK_S
        self._looked_s = self._printed_s = 0.0

    @property
    def question(self) -> dict[str, str | None]:
        """Return the id of the permission prompt that stands, and what it asks."""
        return self.asking.row() if self.status.opinion.waits_for == "permission" else NOTHING

    def screen_changed(self, output: Output | None = None) -> None:
        """Tell it that the program printed something."""
        self._printed_s = time.monotonic()
        self.status.printed(self._printed_s)
        if output is not None:
            self.recording.heard(output.escaped)
            self._take_in(output)
        self.terminal.changed.set()
        self._wake.set()

    def _take_in(self, output: Output) -> None:
        if self._says is None or not self._says.wants(output.escaped):
            return
        for said in self._says.feed(output.data):
            if isinstance(said, Notice):
                self._notice(said)
            else:
                self.reported(said)

    def _notice(self, notice: Notice) -> None:
        now_s = time.monotonic()
        if now_s >= self._noticed_s + NOTICE_PAUSE_S:
            self._noticed_s = now_s
            self._on_notice(self.id, notice)
            self._hurry()

    def inbox_changed(self) -> None:
        """Tell it that messages may wait."""
        self._message_came = True
        self._hurry()

    def reported(self, report: Report) -> None:
        """Take in what the program said of itself; a change of its state is told before this returns."""
        if self._retired:
            return
        self.answer = report.answer or self.answer
        self.asking.hear(report, time.monotonic())
        self._on_report(self.id, report)
        self.terminal.told(report.means, report.source)
        if self.status.hear(report, time.monotonic()):
            self._on_opinion(self.id, self.status.opinion)
        self._hurry()

    async def hand_over(self, report: Report, shape: Shape, *, again: bool) -> Handover | None:
        """Take in what a hook of the program said, and return what its answer brings; None when that is nothing.

        A turn that goes on because of it is told as work, so that nothing is typed into it.
        """
        if not await self._nothing_is_typed():  # what comes with that is not mixed with anything else
            self.reported(report)
            return None
        try:
            prolongs = shape == "block"
            self._prolonged = self._prolonged if again else 0
            may = self._may_deliver() and not (prolongs and self._prolonged >= MOST_PROLONGED)
            # At the end of a turn it can be typed at once; in the midst of one a pointer is sooner.
            handover = await self._courier.hand_over(whole=prolongs) if may else None
            if handover and prolongs:
                self._prolonged += 1
                report = replace(report, means="working", source=f"{report.source}, answered with messages")
            self.reported(report)
        finally:
            self._delivering.release()
        return handover

    async def _nothing_is_typed(self) -> bool:
        """Wait a moment for a delivery to end; tell whether none is under way, and none begins until it is released."""
        with anyio.move_on_after(TYPING_S) as waiting:
            await self._delivering.acquire()
        return not waiting.cancelled_caught

    async def interrupt(self) -> int:
        """Press what interrupts its program, and return how many keys that were.

        None while it is idle: what interrupts a turn may end a program that has none, or open a dialog.
        """
        _, verdict = await self.terminal.look()
        if verdict.state is AgentState.IDLE and self.status.opinion.state is AgentState.IDLE:
            return 0
        await self.terminal.press(self.profile.input.interrupt_keys)
        return len(self.profile.input.interrupt_keys)

    async def end_by_itself(self) -> bool:
        """Ask the program to end in its own way, if it can take that now; tell whether it did in its profile's time."""
        if not self.status.deliverable or not (self.profile.stop.text or self.profile.stop.keys):
            return False
        self._asked_to_end = True
        self._hurry()
        with anyio.move_on_after(self.profile.stop.timeout_s):
            await self.ended.wait()
        return self.ended.is_set()

    async def comes_to_rest(self, timeout_s: float) -> bool:
        """Wait until a message could be typed, unless only a person can bring that about; tell whether it could be."""
        with anyio.move_on_after(timeout_s):
            while not self.status.deliverable and self._comes_by_itself():
                await self._looked.wait()
        return self.status.deliverable

    def _comes_by_itself(self) -> bool:
        return self.status.opinion.state in (AgentState.IDLE, AgentState.WORKING) and not self.ended.is_set()

    async def retire(self) -> bool:
        """Leave the program to another agent: look and type no more. False, and nothing has changed, while it cannot.

        When True its task has ended, and the program runs on.
        """
        if self._delivering.locked() or not self.status.deliverable:
            return False
        self._delivering.acquire_nowait()  # and never released: no delivery begins any more, and no hook brings one
        self._retired = True
        self._hurry()
        with anyio.move_on_after(RETIRE_S):
            await self.ended.wait()
        if not self.ended.is_set():
            self._retired = False
            self._delivering.release()
        return self.ended.is_set()

    async def answer_prompt(self, answer: Answer, timeout_s: float) -> str:
        """Have a prompt answered, and see it go; returns the state that came then."""
        return await self.asking.give(answer, self._hurry, timeout_s)

    def follow_profile(self, profile: Profile) -> None:
        """Have it read, typed into and answered as a newer profile of its kind says; its program runs on as started."""
        self._next_profile = profile
        self._hurry()

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
        self._looked.set()
        self.asking.close()
        await on_end(self, ended)

    async def _take_over(self, recovered: Sequence[Delivery]) -> None:
        try:
            await self._courier.take_over(recovered)
        except AgentdError as error:  # their leases run out by themselves
            self._log.warning("could not give back deliveries", agent=self.id, error=error.message)

    async def _turn(self) -> Ended | None:
        if self._retired:
            return Ended(None)
        try:
            self._take_profile()
            if not self._knows_its_screen() and (ended := await self._observe()):
                return ended
            if await self._answer_prompt():
                return None
            if self._asked_to_end:
                await self._say_goodbye()
            elif self.status.deliverable and await self._deliver():
                return None
        except (AgentGone, StaleTarget):
            raise
        except AgentdError as error:  # tmux or the disk had a bad moment; the messages are kept, so try again
            self._log.warning("agent turn failed", agent=self.id, code=error.code, error=error.message)
            await anyio.sleep(UNHURRIED_LOOK_S)
        except Exception:  # noqa: BLE001  a fault of ours with one agent must not end every other agent's task
            self._log.error("agent turn failed", agent=self.id, exc_info=True)
            await anyio.sleep(RETRY_AFTER_FAULT_S)
        await self._rest()
        return None

    def _knows_its_screen(self) -> bool:
        """Tell whether a message came, and nothing was printed since the last look: typing looks once more itself."""
        came, self._message_came = self._message_came, False
        return came and self.status.deliverable and self._looked_s > self._printed_s

    async def between_deliveries(self) -> None:
        """Wait until no delivery is under way."""
        async with self._delivering:
            pass

    async def _deliver(self) -> bool:
        async with self._delivering:
            since_s = time.monotonic()
            # Looked at again: a hook may have taken messages meanwhile, and its turn goes on.
            submitted = self._may_deliver() and self.status.deliverable and await self._courier.deliver()
            if submitted:
                self.status.submitted(since_s)
            return submitted

    async def _answer_prompt(self) -> bool:
        if not self.asking.due(time.monotonic()):
            return False
        async with self._delivering:
            return await self.asking.act(time.monotonic())

    def _take_profile(self) -> None:
        """Exchange the profile between two actions, so that none begins under one and ends under another."""
        if self._next_profile is not None:
            self.profile, self._next_profile = self._next_profile, None
            self.terminal.follow_profile(self.profile)
            self._courier.profile = self.asking.profile = self.profile

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
        self.seen_ns, self._looked_s = time.time_ns(), time.monotonic()
        self.usage = self.profile.usage.shown_on(look.text) or self.usage
        if await self._courier.tidy(look, verdict):
            return None
        before = self.status.opinion.state
        asks_anew = self.asking.see(look, verdict, self._looked_s)
        if self.status.see(verdict, self._looked_s):
            self._pace_s = FASTEST_LOOK_S
            self._on_opinion(self.id, self.status.opinion)
        else:
            self._pace_s = min(self._pace_s * 2, UNHURRIED_LOOK_S)
        self._tell_of_question(before, asks_anew=asks_anew)
        if self._looked.statistics().tasks_waiting:
            self._looked.set()
            self._looked = anyio.Event()
        return None

    def _tell_of_question(self, before: AgentState, *, asks_anew: bool) -> None:
        if self.status.opinion.state is not AgentState.WAITING:
            self.asking.forget()
        elif asks_anew and before is AgentState.WAITING:  # no change of state tells of it
            self._on_asked(self.id)

    def _hurry(self) -> None:
        self._urgent.set()
        self._wake.set()

    async def _rest(self) -> None:
        now_s = time.monotonic()
        waits = [IDLE_LOOK_S, self.status.look_again_in_s(now_s), self.asking.due_in_s(now_s)]
        if self.status.deliverable:
            waits.append(self._courier.due_in_s())
        timeout_s = min(wait for wait in waits if wait is not None)
        if await self._wake.wait(timeout_s):
            await self._until_worth_a_look()

    async def _until_worth_a_look(self) -> None:
        """Wait for a pause in the output; not at all for what is urgent, and not for long when there is no pause."""
        now_s = time.monotonic()
        if now_s > self._looked_s + SLOWEST_LOOK_S:
            self._pace_s = FASTEST_LOOK_S
        soonest_s = max(self._looked_s + self._pace_s, now_s + FASTEST_LOOK_S)
        latest_s = max(soonest_s, self._looked_s + SLOWEST_LOOK_S)
        calm_s = min(CALM_S, self._pace_s)
        await self._urgent.wait_until(lambda: min(latest_s, max(soonest_s, self._printed_s + calm_s)))
