"""The courier: moves one agent's inbox into its terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio

from agentd.agents.backoff import backoff_s
from agentd.agents.composer import put_back, surely_holds
from agentd.agents.line_mode import for_lines, in_line_mode
from agentd.agents.profile import Profile
from agentd.agents.screen import Verdict
from agentd.agents.terminal import Attempt, Glance, Outcome, Terminal
from agentd.agents.text import bundle, count_whole, render
from agentd.config import CourierConfig
from agentd.errors import AgentdError, Busy, InvalidValue, OverLimit
from agentd.failpoint import failpoint
from agentd.mailbox.mailbox import Mailbox
from agentd.metrics import Metrics
from agentd.records import Delivery
from agentd.tmux.tmux import Look

PASTE_BYTES = 65_536  # what tmux is given at once
ENVELOPE_BYTES = 160  # of one message's header, names at their longest
HANDED_MESSAGES = 20
HANDED_BYTES = 8_000  # Claude Code shows its agent 10,000 characters of a hook's answer, and of a longer one the start
HANDED_LEASE_S = 5.0  # a hook prints and confirms in a fraction of a second, or has given up by then
MOST_TAKEN_OUT = 5  # of one text: a program may put it back a moment later once more, and a person may want it there
RETRY_TYPING_S = 0.5  # after an agent turned out not to be ready at the last look


@dataclass(frozen=True, slots=True)
class Handover:
    """Messages that are leased to a hook of the program, and their text."""

    text: str
    leases: Sequence[str]  # message id#attempt, to be confirmed once the hook has printed the text


class Courier:
    """Takes what waits, types it as one prompt, and says what became of it."""

    def __init__(
        self,
        inbox: str,
        profile: Profile,
        terminal: Terminal,
        mailbox: Mailbox,
        config: CourierConfig,
        display: Callable[[str], str],
        metrics: Metrics,
        chance: Callable[[], float],
    ) -> None:
        self._inbox = inbox
        self.profile = profile  # its agent's own task may exchange it between two deliveries
        self._terminal = terminal
        self._mailbox = mailbox
        self._config = config
        self._display = display
        self._metrics = metrics
        self._chance = chance
        self._not_before_s = 0.0
        self._unsure: Sequence[Delivery] = ()  # typed, and not seen to be submitted
        self._last = ""  # what was submitted last
        self._taken_out = 0  # how often it was, since

    def due_in_s(self) -> float | None:
        """Return when to try again without being woken; None when nothing waits."""
        if self.profile.delivery == "pull" or not self._mailbox.depth(self._inbox):
            return None
        pause_s = self._not_before_s - anyio.current_time()
        due_s = self._mailbox.next_due(self._inbox)
        return max(pause_s, due_s or 0.0, RETRY_TYPING_S if due_s is None else 0.0)

    async def deliver(self) -> bool:
        """Deliver one batch; tell whether it was submitted, so that the next may follow at once."""
        if self.due_in_s() is None or anyio.current_time() < self._not_before_s:
            return False
        profile = self._as_typed()
        reserving = self._mailbox.reserve(
            self._inbox,
            self._most_messages(profile),
            self._config.batch_bytes,
            self._config.lease_s,
            self._config.max_attempts,
        )
        reserved, seen = await asyncio.gather(reserving, self._glance())  # the disk and tmux take as long as each other
        if not reserved:
            return False
        failpoint("deliver.after_claim")
        deliveries, text = await self._fitting(profile, reserved)
        try:
            attempt = await self._terminal.submit(text, seen)
        except Busy as error:
            attempt = Attempt(Outcome.NOT_TYPED, error.message)
        except (InvalidValue, OverLimit) as error:  # it can never be typed: its attempts must come to an end
            attempt = Attempt(Outcome.UNCONFIRMED, f"not typed: {error.message}")
        except AgentdError:  # whether it was typed is not known; a lease left standing would hold the inbox up
            self._unsure = deliveries
            await self._mailbox.release(deliveries)
            raise
        failpoint("deliver.after_paste")
        if attempt.outcome is Outcome.SUBMITTED:
            self._last, self._taken_out = text, 0
        await self._settle(deliveries, attempt)
        failpoint("deliver.after_commit")
        return attempt.outcome is Outcome.SUBMITTED

    async def _glance(self) -> Glance | None:
        """Return what the screen shows; nothing when it could not be seen, for typing looks again then, and tells."""
        try:
            return await self._terminal.glance()
        except AgentdError:
            return None

    async def hand_over(self, *, whole: bool) -> Handover | None:
        """Lease what waits for a hook's answer; what is not confirmed in time is offered again.

        With `whole`, a message that would become a pointer is left to be typed, and with it what comes after, where the
        program's profile has both ways.
        """
        if self.profile.delivery == "type" or not self._mailbox.depth(self._inbox):
            return None
        config = self._config
        taken = await self._mailbox.reserve(
            self._inbox, HANDED_MESSAGES, config.batch_bytes, HANDED_LEASE_S, config.max_attempts
        )
        if whole and self.profile.delivery == "both":
            count = count_whole([delivery.message for delivery in taken], self._display, HANDED_BYTES)
            await self._mailbox.release(taken[count:])
            taken = taken[:count]
        if not taken:
            return None
        self._metrics.add("deliveries_handed_over_total", len(taken))
        text = bundle([delivery.message for delivery in taken], self._display, HANDED_BYTES)
        return Handover(text, [f"{delivery.message.id}#{delivery.attempt}" for delivery in taken])

    async def take_over(self, deliveries: Sequence[Delivery]) -> None:
        """Give back what the last daemon was delivering; its text may still stand in the composer."""
        self._unsure = deliveries
        await self._mailbox.release(deliveries)

    async def tidy(self, look: Look, verdict: Verdict) -> bool:
        """Take our own text out of the composer; a person's draft is never touched.

        It stands there when it was not seen to be submitted, or when the program put it back after an interruption.
        """
        if not verdict.draft:
            return False
        if self._ours(look, verdict):
            self._unsure = ()
        elif self._taken_out < MOST_TAKEN_OUT and put_back(self.profile, verdict, self._last):
            self._taken_out += 1
        else:
            return False
        await self._terminal.clear()
        return True

    async def _fitting(self, profile: Profile, deliveries: Sequence[Delivery]) -> tuple[Sequence[Delivery], str]:
        """Return as many as fit into one paste, with their text; the rest goes back.

        Quoting and replacing make a text up to three times as long as the bodies that were counted.
        """
        while True:
            text = render(profile, [delivery.message for delivery in deliveries], self._display).text
            if len(deliveries) == 1 or len(text.encode()) <= PASTE_BYTES:
                return deliveries, text
            half = len(deliveries) // 2
            await self._mailbox.release(deliveries[half:])
            deliveries = deliveries[:half]

    def _ours(self, look: Look, verdict: Verdict) -> bool:
        # By the end of any of them: what is still to be delivered may be less than what was typed.
        profile = self._as_typed()
        texts = [render(profile, [delivery.message], self._display).text for delivery in self._unsure]
        return any(surely_holds(self.profile, look, verdict, text) for text in texts)

    def _as_typed(self) -> Profile:
        """Return the profile as its terminal is now: what it says of long texts holds only outside line mode."""
        return for_lines(self.profile) if in_line_mode(self._terminal.ref.pid) else self.profile

    def _most_messages(self, profile: Profile) -> int:
        if not profile.batches:
            return 1
        room_bytes = PASTE_BYTES - self._config.batch_bytes
        return min(self._config.batch_messages, max(1, room_bytes // ENVELOPE_BYTES))

    async def _settle(self, deliveries: Sequence[Delivery], attempt: Attempt) -> None:
        self._metrics.add(f"deliveries_{attempt.outcome.replace(' ', '_')}_total", len(deliveries))
        match attempt.outcome:
            case Outcome.SUBMITTED:
                self._unsure = ()  # what stood in the composer before has left it, too
                await self._mailbox.deliver(deliveries, attempt.detail)
            case Outcome.NOT_TYPED:
                self._not_before_s = anyio.current_time() + RETRY_TYPING_S
                await self._mailbox.release(deliveries)
            case Outcome.UNCONFIRMED:
                self._unsure = deliveries
                attempt_number = max(delivery.attempt for delivery in deliveries)
                delay_s = backoff_s(self._config.backoff_s, attempt_number, self._chance())
                await self._mailbox.nack(deliveries, delay_s, attempt.detail, self._config.max_attempts)
