"""What one agent asks permission for, and the answers on their way to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import anyio

from agentd.agents.permissions import Decision, Prompt, decide, prompt_on, same, told
from agentd.agents.profile import Profile
from agentd.agents.reports import Report
from agentd.agents.screen import Look, Verdict
from agentd.agents.terminal import Terminal
from agentd.errors import AgentdError, AgentGone, Busy, Conflict, InternalError, StaleTarget
from agentd.records import OPERATOR

STEADY_S = 0.2  # a policy waits so long for a prompt to be drawn whole
LATE_S = 2.0  # a report may come so long after its prompt
EARLY_S = 10.0  # and so long before it: a hook runs before the prompt is drawn
POLICY = "policy"
NOTHING: Final[dict[str, str | None]] = {"prompt": None, "asks": ""}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to one prompt, and who gives it."""

    decision: Decision
    prompt: Prompt
    by: str = OPERATOR
    pid: int = 0
    uid: int = -1
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of an answer; `error` is empty when the prompt went."""

    agent_id: str
    answer: Answer
    then: str = ""  # the state that was seen next
    error: str = ""


@dataclass(slots=True)
class _Waiting:
    """An answer that somebody waits to see given."""

    answer: Answer
    done: anyio.Event = field(default_factory=anyio.Event)
    result: str | AgentdError = field(default_factory=lambda: InternalError("the answer was not given"))


class Asking:
    """The prompt that stands, what the program said of it, and who answers it when.

    Only the agent's own task looks and types; callers hand their answers in.
    """

    def __init__(
        self,
        agent_id: str,
        profile: Profile,
        terminal: Terminal,
        on_decision: Callable[[str, Answer], Awaitable[None]],
        on_answered: Callable[[Answered], None],
    ) -> None:
        self.profile = profile
        self.prompt: Prompt | None = None
        self._id = agent_id
        self._terminal = terminal
        self._on_decision = on_decision
        self._on_answered = on_answered
        self._bare: Prompt | None = None  # as the screen alone shows it
        self._asks = ""  # what the program said of the one that stands
        self._report = ("", 0.0)  # what it said last, and when; taken by the next prompt
        self._since_s = 0.0
        self._steady_since_s = 0.0
        self._judged = False
        self._last: Prompt | None = None  # that stood since it began to wait
        self._waiting: deque[_Waiting] = deque()

    def row(self) -> dict[str, str | None]:
        """Return the prompt's id and what is asked, as others are told; also when the prompt is not drawn yet."""
        prompt = self.prompt
        return {"prompt": prompt.id, "asks": prompt.asks} if prompt else {"prompt": None, "asks": self._report[0]}

    def hear(self, report: Report, now_s: float) -> None:
        """Take in what the program said."""
        if report.means == "permission":
            self._report = (report.asks, now_s) if report.asks else self._report
            if self._bare and not self._asks and now_s < self._since_s + LATE_S:
                self._take_report(now_s)
        elif report.means != "ignore":
            self._report = ("", now_s)

    def see(self, look: Look, verdict: Verdict, now_s: float) -> bool:
        """Take in a look; tell whether another prompt has taken the place of one that was told."""
        before, self._bare = self._bare, prompt_on(self.profile, look, verdict)
        if self._bare is None:
            self.prompt, self._asks = None, ""
            return False
        drawn_on = before is not None and now_s < self._since_s + STEADY_S  # nobody has answered it so soon
        if not drawn_on and (before is None or not same(before, self._bare)):
            self._since_s, self._judged = now_s, False
            self._take_report(now_s)
        if before is None or before.id != self._bare.id:
            self._steady_since_s = now_s
        self.prompt = told(self._bare, self._asks) if self._asks else self._bare
        last, self._last = self._last, self.prompt
        return last is not None and not same(last, self.prompt)

    def forget(self) -> None:
        """Take in that the agent waits no more."""
        self._last = None

    def due_in_s(self, now_s: float) -> float | None:
        """Return when the policy may answer; None when it leaves what stands to a person."""
        if self.prompt is None or self._judged or decide(self.profile.answers, self.prompt) is Decision.LEAVE:
            return None
        return max(0.0, self._steady_since_s + STEADY_S - now_s)

    async def give(self, answer: Answer, hurry: Callable[[], None], timeout_s: float) -> str:
        """Hand in an answer and wait until it was given; returns the state that came then.

        Who stops waiting withdraws it, unless it is being given already.
        """
        waiting = _Waiting(answer)
        self._waiting.append(waiting)
        hurry()
        try:
            with anyio.move_on_after(timeout_s):
                await waiting.done.wait()
        finally:
            queued = waiting in self._waiting
            if queued:
                self._waiting.remove(waiting)
        if queued:
            raise Busy(f"its agent could not be looked at for {timeout_s:g} s; nothing was pressed", hint="try again")
        await waiting.done.wait()
        if isinstance(waiting.result, AgentdError):
            raise waiting.result
        return waiting.result

    def due(self, now_s: float) -> bool:
        """Tell whether an answer is to be given now."""
        return bool(self._waiting) or self._policy_due(now_s)

    def _policy_due(self, now_s: float) -> bool:
        return self.prompt is not None and self.due_in_s(now_s) == 0.0

    async def act(self, now_s: float) -> bool:
        """Give the answers that are due, persons' before the policy's; tell whether there were any."""
        if self._waiting:
            await self._give(self._waiting.popleft())
            return True
        if self.prompt is not None and self._policy_due(now_s):
            self._judged = True
            await self._give(_Waiting(Answer(decide(self.profile.answers, self.prompt), self.prompt, POLICY)))
            return True
        return False

    def close(self) -> None:
        """Tell those who wait that the program has ended."""
        while self._waiting:
            waiting = self._waiting.popleft()
            waiting.result = AgentGone("its program ended; nothing was pressed")
            waiting.done.set()

    def _take_report(self, now_s: float) -> None:
        """Let the prompt that stands have the last report; no other prompt gets it as well."""
        (asks, at_s), self._report = self._report, ("", now_s)
        self._asks = asks if now_s <= at_s + EARLY_S else ""

    async def _give(self, waiting: _Waiting) -> None:
        answer = waiting.answer
        try:
            keys = keys_of(self.profile, answer.decision)
            await self._on_decision(self._id, answer)  # what cannot be written down is not done
            waiting.result = await self._terminal.answer(answer.prompt, keys)
            self._on_answered(Answered(self._id, answer, then=waiting.result))
        except AgentdError as error:
            waiting.result = error
            self._on_answered(Answered(self._id, answer, error=error.message))
            if isinstance(error, AgentGone | StaleTarget):
                raise
        finally:
            waiting.done.set()


def keys_of(profile: Profile, decision: Decision) -> tuple[str, ...]:
    """Return what is pressed; raises Conflict where the profile does not say."""
    answers = profile.answers
    keys = answers.approve_keys if decision is Decision.APPROVE else answers.deny_keys
    if not keys:
        raise Conflict(
            f"its profile {profile.name} has no answers.{decision}_keys, so agentd does not know what to press",
            hint="answer with agentd keys or agentd attach, or add them to the profile",
        )
    return keys
