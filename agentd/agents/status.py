"""Which state an agent is in, and why: the one authority for it."""

from __future__ import annotations

from dataclasses import dataclass

from agentd.agents.screen import Verdict
from agentd.records import AgentState

QUIET_UNKNOWN_S = 10.0  # agents.md §3: an unknown screen this long is a matter for a person


@dataclass(frozen=True, slots=True)
class Opinion:
    """A state with everything that led to it."""

    state: AgentState
    reason: str = ""
    rule: str = ""
    evidence: str = ""
    draft: bool = False
    waits_for: str = ""


class Status:
    """Folds what the screen shows, over time, into one state.

    An agent is `starting` until a look finds it ready twice, `settle_s` apart; a boot that takes longer than
    `boot_timeout_s` makes it `failed`, and it recovers when a ready screen comes after all.
    """

    def __init__(self, *, settle_s: float, boot_timeout_s: float, now_s: float, started: bool = False) -> None:
        self._settle_s = settle_s
        self._boot_deadline_s = now_s + boot_timeout_s
        self._boot_timeout_s = boot_timeout_s
        self._started = started
        self._ready_since_s: float | None = None
        self._unknown_since_s: float | None = None
        self.opinion = Opinion(AgentState.STARTING, "its program was started and has not shown a ready screen yet")

    @property
    def deliverable(self) -> bool:
        """Tell whether a message may be typed now: idle, and no half-typed text stands in the composer."""
        return self.opinion.state is AgentState.IDLE and not self.opinion.draft

    def see(self, verdict: Verdict, now_s: float) -> bool:
        """Take in what a look at the screen showed; tell whether the opinion changed."""
        before = self.opinion
        self.opinion = self._fold(verdict, now_s)
        return (before.state, before.reason, before.draft) != (
            self.opinion.state,
            self.opinion.reason,
            self.opinion.draft,
        )

    def look_again_in_s(self, now_s: float) -> float | None:
        """Return when time alone may change the opinion; None when only the screen can."""
        due = [d for d in (self._ready_due_s(), self._boot_due_s(), self._unknown_due_s()) if d is not None]
        return max(0.0, min(due) - now_s) if due else None

    def _ready_due_s(self) -> float | None:
        waiting = not self._started and self._ready_since_s is not None
        return self._ready_since_s + self._settle_s if waiting and self._ready_since_s is not None else None

    def _boot_due_s(self) -> float | None:
        return None if self._started or self.opinion.state is AgentState.FAILED else self._boot_deadline_s

    def _unknown_due_s(self) -> float | None:
        unknown = self._unknown_since_s is not None and self.opinion.state is not AgentState.WAITING
        return self._unknown_since_s + QUIET_UNKNOWN_S if unknown and self._unknown_since_s is not None else None

    def _fold(self, verdict: Verdict, now_s: float) -> Opinion:
        if not self._started:
            return self._booting(verdict, now_s)
        if verdict.state is None:
            return self._unknown(verdict, now_s)
        self._unknown_since_s = None
        return _opinion(verdict, verdict.state)

    def _booting(self, verdict: Verdict, now_s: float) -> Opinion:
        if verdict.state is AgentState.IDLE:
            if self._ready_since_s is None:
                self._ready_since_s = now_s
            if now_s >= self._ready_since_s + self._settle_s:
                self._started = True
                return _opinion(verdict, AgentState.IDLE)
            return Opinion(AgentState.STARTING, "its screen looks ready; seeing whether it stays so", verdict.rule)
        self._ready_since_s = None
        if verdict.state is AgentState.WAITING:
            return _opinion(verdict, AgentState.WAITING)
        if now_s >= self._boot_deadline_s:
            why = f"not ready after {self._boot_timeout_s:g} s: {verdict.reason}"
            return Opinion(AgentState.FAILED, why, "boot.timeout_s", verdict.evidence)
        return Opinion(AgentState.STARTING, verdict.reason, verdict.rule, verdict.evidence)

    def _unknown(self, verdict: Verdict, now_s: float) -> Opinion:
        if self._unknown_since_s is None:
            self._unknown_since_s = now_s
        if now_s >= self._unknown_since_s + QUIET_UNKNOWN_S:
            why = f"no rule of its profile knows this screen for {QUIET_UNKNOWN_S:g} s; a person should look"
            return Opinion(AgentState.WAITING, why, "unknown", verdict.evidence)
        state = AgentState.WORKING if self.opinion.state is AgentState.IDLE else self.opinion.state
        return Opinion(state, "no rule of its profile knows this screen", "unknown", verdict.evidence)


def _opinion(verdict: Verdict, state: AgentState) -> Opinion:
    return Opinion(state, verdict.reason, verdict.rule, verdict.evidence, verdict.draft, verdict.waits_for)
