"""The only place that types into an agent."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import anyio

from agentd.agents.attributes import read
from agentd.agents.composer import begins_with, holds
from agentd.agents.permissions import Prompt, prompt_on, same
from agentd.agents.profile import Means, Pattern, Profile
from agentd.agents.screen import Verdict, classify
from agentd.agents.shimmed import foreground_command
from agentd.agents.signal import Signal
from agentd.errors import Conflict, DeadlineExceeded
from agentd.records import AgentState, PaneRef
from agentd.tmux.fleet import Fleet
from agentd.tmux.tmux import Look

RELOOK_S = 0.25  # a look without an event: the event stream may be down
DRAW_S = 0.004  # what a program takes at most to draw what it was given, unless it is busy
FIRST_SETTLE_S, SETTLE_S = 0.001, 0.01  # a program draws in several writes: each look waits longer, up to this
REDRAWN_S = 0.05  # a prompt that is drawn anew is gone for a moment
FRESH_S = 0.005  # what a look may be old when typing begins; a commit to disk, beside which it is made, takes 1 to 2 ms
SECOND_ENTER_S = 1.0  # agents.md §1, paste rules: an Enter too soon after a paste is swallowed; one more repairs it
CLEAR_TRIES = 100  # some clear a line, or the end of one, at each press
PROOFS: Final[frozenset[Means]] = frozenset({"submitted", "working", "tool"})  # `done` may be late, of the turn before
UNSURE = "pasted, unconfirmed"


class Outcome(enum.StrEnum):
    """What became of a text."""

    SUBMITTED = "submitted"  # seen to leave the composer after Enter
    NOT_TYPED = "not typed"  # nothing was typed: the agent could not take input
    UNCONFIRMED = "unconfirmed"  # typed, but it was not seen to be submitted


@dataclass(frozen=True, slots=True)
class Attempt:
    """An outcome and what was seen."""

    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True)
class Glance:
    """What a look showed, and when."""

    look: Look
    verdict: Verdict
    at_s: float


class Terminal:
    """One agent's pane: look, type, press keys."""

    def __init__(self, tmux: Fleet, ref: PaneRef, profile: Profile, confirm_s: float) -> None:
        self._tmux = tmux
        self._confirm_s = confirm_s
        self.ref = ref
        self.changed = Signal()
        self._proof = ""  # what the program said since Enter that shows that it got the prompt
        self.follow_profile(profile)

    def follow_profile(self, profile: Profile) -> None:
        """Read and type by this profile from now on; between two actions only."""
        self.profile = profile
        self._shim_hides_command = profile.signals.osc == "shim" and any(rule.command for rule in profile.rules)

    async def look(self) -> tuple[Look, Verdict]:
        """Return what the screen shows and what the profile's rules make of it."""
        look = await self._tmux.look(self.ref, escapes=self.profile.input.faint)
        if self._shim_hides_command:
            look = replace(look, command=foreground_command(self.ref.pid))
        if not self.profile.input.faint:
            return look, classify(self.profile, look)
        shown = read(look.text)
        look = replace(look, text="\n".join(line.rstrip(" ") for line in shown.plain.split("\n")))
        return look, classify(self.profile, look, shown.solid)

    async def glance(self) -> Glance:
        """Return what the screen shows, for a text that is typed at once."""
        at_s = anyio.current_time()
        self.changed.clear()
        return Glance(*await self.look(), at_s)

    def told(self, means: Means, source: str) -> None:
        """Take in what the program said of itself."""
        if means in PROOFS:
            self._proof = source
            self.changed.set()

    async def submit(self, text: str, seen: Glance | None = None) -> Attempt:
        """Type the text and press Enter, each seen on the screen before the next step.

        Nothing is typed over a draft or into a question; Enter is pressed only while our text stands in the composer.
        A glance of this very moment saves the first look, unless something was printed since.
        """
        if seen is None or self.changed.is_set or anyio.current_time() > seen.at_s + FRESH_S:
            seen = await self.glance()
        look, verdict = seen.look, seen.verdict
        if verdict.state is not AgentState.IDLE or verdict.draft:
            return Attempt(Outcome.NOT_TYPED, _why_not(verdict))
        if look.in_mode:
            await self._tmux.leave_mode(self.ref)
        self.changed.clear()
        await self._paste(text)
        if not self.profile.input.verify:
            await anyio.sleep(self.profile.input.enter_delay_ms / 1000)
            await self.press([self.profile.input.submit_key])
            return Attempt(Outcome.SUBMITTED, "typed and entered; its profile says that neither can be seen")
        await self._drawn()
        shown = await self._seen(lambda look, verdict: self._pasted(look, verdict, text), self._confirm_s)
        if shown is None:
            return _unsure("the text did not show in the composer; Enter was not pressed")
        if shown.state is AgentState.WAITING:
            return _unsure(f"a question came up after the paste ({shown.reason}); Enter was not pressed")
        if self.profile.input.enter_delay_ms:
            await anyio.sleep(self.profile.input.enter_delay_ms / 1000)
            # Looked at once more: what came up during the delay must not be answered by our Enter.
            look, verdict = await self.look()
            if not holds(self.profile, look, verdict, text):
                return _unsure(f"the composer changed before Enter ({verdict.reason}); Enter was not pressed")
        return await self._enter(text)

    async def answer(self, prompt: Prompt, keys: Sequence[str]) -> str:
        """Press the keys while this very prompt stands, and see it go; return the state that came then.

        Raises Conflict when it does not stand there any more (nothing was pressed), DeadlineExceeded when it stays.
        """
        look, verdict = await self.look()
        standing = prompt_on(self.profile, look, verdict)
        if standing is None or standing.id != prompt.id:
            now = "another prompt stands there now" if standing else f"it is {verdict.state or 'in an unknown state'}"
            raise Conflict(f"the prompt is gone, {now}; nothing was pressed", hint="look again: agentd approve")
        if look.in_mode:
            await self._tmux.leave_mode(self.ref)
        await self.press(keys)
        with anyio.move_on_after(self._confirm_s):
            return await self._gone(prompt)
        raise DeadlineExceeded(
            f"{' '.join(keys)} was pressed and the prompt still stands after {self._confirm_s:g} s",
            hint="see to it at its terminal: agentd attach",
        )

    async def comes_to(self, screen: Pattern) -> None:
        """Wait until it is idle, with an empty composer and with something on its screen; for ever, unless limited."""

        def there(look: Look, verdict: Verdict) -> bool:
            idle = verdict.state is AgentState.IDLE and not verdict.draft and not look.dead
            return idle and screen.search(look.text) is not None

        while await self._seen(there, self._confirm_s) is None:
            pass

    async def clear(self) -> None:
        """Empty the composer, and see that it is."""
        for _ in range(CLEAR_TRIES):
            await self._tmux.keys(self.ref, *self.profile.input.clear_keys)
            if await self._seen(lambda _, verdict: not verdict.draft, RELOOK_S) is not None:
                return

    async def press(self, keys: Sequence[str]) -> None:
        """Press keys, by tmux's names for them."""
        await self._tmux.keys(self.ref, *keys)

    async def capture(self, lines: int | None, *, escapes: bool) -> Look:
        """Return the screen, with as many lines of scrollback as asked for."""
        return await self._tmux.look(self.ref, lines=lines, escapes=escapes)

    def _pasted(self, look: Look, verdict: Verdict, text: str) -> bool:
        return look.dead or verdict.state is AgentState.WAITING or holds(self.profile, look, verdict, text)

    async def _paste(self, text: str) -> None:
        preface = self.profile.input.preface
        if preface is not None and preface.belongs_before(text):
            # A paste, not keys: a question that comes up now would take a letter for its answer.
            await self._tmux.paste(self.ref, preface.text, bracketed=True)
        await self._tmux.paste(self.ref, text, bracketed=self.profile.input.bracketed)

    async def _enter(self, text: str) -> Attempt:
        self._proof = ""
        for wait_s in (min(SECOND_ENTER_S, self._confirm_s), self._confirm_s):
            self.changed.clear()
            await self.press([self.profile.input.submit_key])
            await self._drawn()
            gone = await self._seen(lambda look, verdict: self._left(look, verdict, text), wait_s)
            if gone is not None:
                return await self._entered(gone)
            look, verdict = await self.look()
            if not holds(self.profile, look, verdict, text):
                return _unsure("Enter changed it and it still stands in the composer; Enter was not pressed again")
        return _unsure("it still stands in the composer after Enter was pressed twice")

    def _left(self, look: Look, verdict: Verdict, text: str) -> bool:
        if self._proof:
            return True
        return not holds(self.profile, look, verdict, text) and not begins_with(self.profile, verdict, text)

    async def _entered(self, gone: Verdict) -> Attempt:
        """Say what is known of a text that left the composer.

        A question that is seen next is most often one of the turn that began. But it may have come up just before
        Enter and hide the text; so of a program that tells of its prompts, that is waited for.
        """
        if gone.state is AgentState.WAITING and "submitted" in self.profile.signals.events.values():
            await self._seen(lambda _look, _verdict: bool(self._proof), self._confirm_s)
            if not self._proof:
                return _unsure(f"a question came up at Enter ({gone.reason}), and its program said nothing of a prompt")
        if self._proof:
            return Attempt(Outcome.SUBMITTED, f"its program said so ({self._proof})")
        return Attempt(Outcome.SUBMITTED, f"left the composer after Enter; then {gone.state or 'unknown'}")

    async def _gone(self, prompt: Prompt) -> str:
        """Wait until the prompt has gone and stays away; return the state that came instead."""

        def gone(look: Look, verdict: Verdict) -> bool:
            standing = None if look.dead else prompt_on(self.profile, look, verdict)
            return standing is None or not same(prompt, standing)

        while True:
            if await self._seen(gone, self._confirm_s):
                await anyio.sleep(REDRAWN_S)
                look, verdict = await self.look()
                if gone(look, verdict):
                    return verdict.state or "unknown"

    async def _drawn(self) -> None:
        """Give the program a moment to draw what was typed: a look before that would be in vain."""
        await self.changed.wait(DRAW_S)

    async def _seen(self, wanted: Callable[[Look, Verdict], bool], timeout_s: float) -> Verdict | None:
        """Look after every change of the screen until something is seen; None when the time is over."""
        deadline_s, settle_s = anyio.current_time() + timeout_s, FIRST_SETTLE_S
        while True:
            look, verdict = await self.look()
            if wanted(look, verdict):
                return verdict
            left_s = deadline_s - anyio.current_time()
            if left_s <= 0:
                return None
            if await self.changed.wait(min(left_s, RELOOK_S)):
                await anyio.sleep(settle_s)
                settle_s = min(2 * settle_s, SETTLE_S)


def _unsure(what: str) -> Attempt:
    return Attempt(Outcome.UNCONFIRMED, f"{UNSURE}: {what}")


def _why_not(verdict: Verdict) -> str:
    if verdict.draft:
        return "a half-typed draft stands in its composer"
    return f"it is {verdict.state or 'in an unknown state'} ({verdict.reason})"
