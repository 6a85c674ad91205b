"""Which state an agent is in, and why: the one authority for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from agentd.agents.claim import Claim, claim_of
from agentd.agents.outlook import would_change
from agentd.agents.profile import QUIET_S
from agentd.agents.reports import Report
from agentd.agents.screen import Verdict
from agentd.records import AgentState

TOLD_QUIET_S = 0.3  # silence that is enough after a program said that it is idle
RELEASE_S = QUIET_S  # silent so long with an idle screen, it does not work, whatever it said last
QUIET_UNKNOWN_S = 10.0  # agents.md §3: an unknown screen this long is a matter for a person
FLIP_S = 0.1  # a glimpse of work shorter than this is a redraw
DRAWN_S = 1.0  # a question is on the screen so soon after it was reported

PROCESS = "process"
SCREEN = "screen"
UNKNOWN = "no rule of its profile knows this screen"


@dataclass(frozen=True, slots=True)
class Opinion:
    """A state with everything that led to it."""

    state: AgentState
    reason: str = ""
    rule: str = ""  # which rule or report decided
    evidence: str = ""
    draft: bool = False
    waits_for: str = ""
    source: str = SCREEN  # of the rule: process, osc, hook, title or screen
    since_s: float = 0.0  # when this state began, by the clock that was handed in
    would_change: str = ""  # what would make it another one


class Status:
    """Folds what the program says and what its screen shows, over time, into one state.

    The stronger source decides: the process's end, then what the program itself reports, then its title and its screen.
    A question on the screen counts whatever was reported; a report of work is over when the screen is idle and silent.

    An agent is `starting` until a look finds it ready twice, `settle_s` apart; a boot that takes longer than
    `boot_timeout_s` makes it `failed`, and it recovers when a ready screen comes after all. `quiet_s` is how long the
    program must have printed nothing before an idle screen is believed.
    """

    def __init__(
        self, *, settle_s: float, boot_timeout_s: float, now_s: float, quiet_s: float = 0.0, started: bool = False
    ) -> None:
        self._settle_s = settle_s
        self._boot_deadline_s = now_s + boot_timeout_s
        self._boot_timeout_s = boot_timeout_s
        self._quiet_s = quiet_s
        self._started = started
        self._claim: Claim | None = None
        self._verdict = Verdict(None, "its screen was not looked at yet")
        self._printed_s = now_s
        self._ready_since_s: float | None = None
        self._unknown_since_s: float | None = None
        self._glimpsed_s: float | None = None  # since when it looks like work, and is not called so yet
        self._free = False
        self._due_s = math.inf
        first = Opinion(AgentState.STARTING, "its program was started and has not shown a ready screen yet")
        self.opinion = replace(first, since_s=now_s, would_change=would_change(AgentState.STARTING))

    @property
    def started(self) -> bool:
        """Tell whether its program has been ready."""
        return self._started

    @property
    def deliverable(self) -> bool:
        """Tell whether a message may be typed now: idle, quiet, and no half-typed text stands in the composer."""
        return self._free and self.opinion.state is AgentState.IDLE

    def see(self, verdict: Verdict, now_s: float) -> bool:
        """Take in what a look at the screen showed; tell whether the opinion changed."""
        self._verdict = verdict
        return self._folded(now_s)

    def hear(self, report: Report, now_s: float) -> bool:
        """Take in what the program said; tell whether the opinion changed."""
        if report.means == "ignore":
            return False
        self._claim = claim_of(report, now_s)
        return self._folded(now_s)

    def printed(self, now_s: float) -> None:
        """Take in that the program printed something."""
        self._printed_s = now_s
        if self._quiet_s:
            self._free = False

    def submitted(self, since_s: float) -> None:
        """Take in that a prompt of ours was entered: what the program said before of being idle is no longer so."""
        claim = self._claim
        if claim is not None and claim.state is AgentState.IDLE and claim.at_s <= since_s:
            self._claim = None
        self.printed(max(since_s, self._printed_s))

    def look_again_in_s(self, now_s: float) -> float | None:
        """Return when time alone may change the opinion; None when only the program can."""
        return None if self._due_s == math.inf else max(0.0, self._due_s - now_s)

    # -- time

    def _passed(self, at_s: float, now_s: float) -> bool:
        """Tell whether it is that time, and remember to look again when it is not."""
        if now_s < at_s:
            self._due_s = min(self._due_s, at_s)
        return now_s >= at_s

    def _silent(self, for_s: float, now_s: float) -> bool:
        return self._passed(self._printed_s + for_s, now_s)

    # -- the fold

    def _folded(self, now_s: float) -> bool:
        before = self.opinion
        self._due_s, self._free = math.inf, False
        after = self._fold(self._verdict, now_s)
        self.opinion = replace(
            after,
            since_s=before.since_s if after.state is before.state else now_s,
            would_change=would_change(after.state, after.waits_for, draft=after.draft, source=after.source),
        )
        return _shown(before) != _shown(after)

    def _fold(self, verdict: Verdict, now_s: float) -> Opinion:
        if verdict.state in (AgentState.STOPPED, AgentState.FAILED):
            self._claim = None
            return replace(_seen(verdict, verdict.state), source=PROCESS)
        if verdict.state is not None:
            self._unknown_since_s = None
        self._claim = self._standing(self._claim, verdict, now_s) if self._claim else None
        if not self._started:
            return self._booting(verdict, now_s)
        return self._held(self._running(verdict, now_s), now_s)

    def _standing(self, claim: Claim, verdict: Verdict, now_s: float) -> Claim | None:
        """Return the claim, or None when the screen says that it is over."""
        if claim.state is AgentState.WAITING:
            return self._standing_question(claim, verdict, now_s)
        if claim.state is AgentState.WORKING:
            quiet = verdict.state is AgentState.IDLE and self._passed(claim.at_s + RELEASE_S, now_s)
            return None if quiet and self._silent(RELEASE_S, now_s) else claim
        works = verdict.state is AgentState.WORKING and self._printed_s > claim.at_s + RELEASE_S
        return None if works else claim

    def _standing_question(self, claim: Claim, verdict: Verdict, now_s: float) -> Claim | None:
        if verdict.state is AgentState.WAITING:
            return claim.on_screen()
        if verdict.state not in (AgentState.IDLE, AgentState.WORKING):
            return claim
        if claim.seen:
            return None
        # No rule knows the question. It went when the program did something after it had drawn it.
        if verdict.state is AgentState.WORKING:
            return None if self._printed_s > claim.at_s + RELEASE_S else claim
        went = self._printed_s > claim.at_s + DRAWN_S and self._silent(QUIET_UNKNOWN_S, now_s)
        return None if went else claim

    def _running(self, verdict: Verdict, now_s: float) -> Opinion:
        claim = self._claim
        if verdict.state is AgentState.WAITING:
            return _asked(claim, verdict)
        if claim is not None and claim.state is AgentState.WAITING:
            return _told(claim, verdict)
        match verdict.state:
            case AgentState.IDLE:
                return self._looks_idle(verdict, now_s)
            case AgentState.WORKING:
                return self._looks_at_work(verdict, now_s)
            case None:
                return self._unknown(verdict, now_s)
            case state:
                return _seen(verdict, state)

    def _looks_idle(self, verdict: Verdict, now_s: float) -> Opinion:
        claim = self._claim
        if claim is not None and claim.state is AgentState.WORKING:
            return _told(claim, verdict)
        opinion = _told(claim, verdict) if claim else _seen(verdict, AgentState.IDLE)
        if self._quiet(now_s):
            self._free = not verdict.draft
        elif self.opinion.state is not AgentState.IDLE:
            why = f"{opinion.reason}; seeing whether it stays quiet"
            return replace(opinion, state=self.opinion.state, reason=why, waits_for=self.opinion.waits_for)
        return opinion

    def _quiet(self, now_s: float) -> bool:
        told = self._claim is not None and self._claim.state is AgentState.IDLE
        return self._silent(min(TOLD_QUIET_S, self._quiet_s) if told else self._quiet_s, now_s)

    def _looks_at_work(self, verdict: Verdict, now_s: float) -> Opinion:
        claim = self._claim
        if claim is None or (claim.state is AgentState.IDLE and not self._silent(RELEASE_S, now_s)):
            return _seen(verdict, AgentState.WORKING)
        return _told(claim, verdict)

    def _unknown(self, verdict: Verdict, now_s: float) -> Opinion:
        if self._unknown_since_s is None:
            self._unknown_since_s = now_s
        if self._passed(max(self._unknown_since_s, self._printed_s) + QUIET_UNKNOWN_S, now_s):
            why = f"{UNKNOWN}, and it has printed nothing for {QUIET_UNKNOWN_S:g} s; a person should look"
            return Opinion(AgentState.WAITING, why, "unknown", verdict.evidence)
        if self._claim is not None:
            return _told(self._claim, verdict)
        return Opinion(AgentState.WORKING, UNKNOWN, "unknown", verdict.evidence)

    def _held(self, opinion: Opinion, now_s: float) -> Opinion:
        """Return the opinion, or the last one while it may be a glimpse that is over in a moment."""
        before = self.opinion.state
        glimpse = opinion.state is AgentState.WORKING and self._claim is None
        if not glimpse or before not in (AgentState.IDLE, AgentState.WAITING):
            self._glimpsed_s = None
            return opinion
        if self._glimpsed_s is None:
            self._glimpsed_s = now_s
        # A question that is drawn anew is unknown for a moment, and must not be taken for answered.
        hold_s = RELEASE_S if before is AgentState.WAITING and self._verdict.state is None else FLIP_S
        return opinion if self._passed(self._glimpsed_s + hold_s, now_s) else self.opinion

    # -- while it boots

    def _booting(self, verdict: Verdict, now_s: float) -> Opinion:
        claim = self._claim
        if self.opinion.state is AgentState.WAITING:  # a person's time is not the program's
            self._boot_deadline_s = now_s + self._boot_timeout_s
        if AgentState.WAITING in (verdict.state, claim.state if claim else None):
            self._ready_since_s = None
            return self._running(verdict, now_s)
        if self._is_ready(verdict, now_s):
            self._started = True
            return self._running(verdict, now_s)
        ready = self._ready_since_s is not None
        why = "its screen looks ready; seeing whether it stays so" if ready else verdict.reason
        if self._passed(self._boot_deadline_s, now_s):
            why = f"not ready after {self._boot_timeout_s:g} s: {why}"
            return Opinion(AgentState.FAILED, why, "boot.timeout_s", verdict.evidence)
        return Opinion(AgentState.STARTING, why, verdict.rule, verdict.evidence)

    def _is_ready(self, verdict: Verdict, now_s: float) -> bool:
        said = self._claim.state if self._claim else None
        if said is AgentState.WORKING:  # on the prompt it was started with
            return True
        if verdict.state is not AgentState.IDLE and not (verdict.state is None and said is AgentState.IDLE):
            self._ready_since_s = None
            return False
        if self._ready_since_s is None:
            self._ready_since_s = now_s
        return self._passed(self._ready_since_s + self._settle_s, now_s) and self._quiet(now_s)


def _shown(opinion: Opinion) -> tuple[AgentState, str, bool, str]:
    return opinion.state, opinion.reason, opinion.draft, opinion.waits_for


def _seen(verdict: Verdict, state: AgentState) -> Opinion:
    return Opinion(
        state, verdict.reason, verdict.rule, verdict.evidence, verdict.draft, verdict.waits_for, verdict.source
    )


def _told(claim: Claim, verdict: Verdict) -> Opinion:
    evidence = claim.message or verdict.evidence
    how = claim.source.partition(" ")[0]
    told = Opinion(claim.state, claim.reason, claim.source, evidence, verdict.draft, claim.waits_for, how)
    if verdict.waits_for and claim.waits_for in ("", "error") and verdict.state is claim.state:
        return replace(told, reason=verdict.reason, evidence=verdict.evidence, waits_for=verdict.waits_for)
    return told


def _asked(claim: Claim | None, verdict: Verdict) -> Opinion:
    """Return that the screen shows a question; what the program said of it is the better reason."""
    seen = _seen(verdict, AgentState.WAITING)
    if claim is None or claim.state is not AgentState.WAITING:
        return seen
    told = _told(claim, verdict)
    return replace(told, waits_for=seen.waits_for or told.waits_for, draft=False)
