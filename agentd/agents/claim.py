"""What a program said of its own state, for as long as its screen does not say that this is over. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, get_args

from agentd.agents.profile import WaitsFor
from agentd.agents.reports import Report
from agentd.records import AgentState

WORDS: Final = {
    "ready": (AgentState.IDLE, "it says that it is ready"),
    "submitted": (AgentState.WORKING, "it says that it was given a prompt"),
    "working": (AgentState.WORKING, "it says that it works"),
    "tool": (AgentState.WORKING, "it says that it uses a tool"),
    "permission": (AgentState.WAITING, "it asks for permission"),
    "question": (AgentState.WAITING, "it asks a question"),
    "login": (AgentState.WAITING, "it asks for a login"),
    "rate_limit": (AgentState.IDLE, "it says that its turn ended at a rate limit"),
    "trust": (AgentState.WAITING, "it asks whether to trust the directory"),
    "done": (AgentState.IDLE, "it says that its turn is over"),
    "error": (AgentState.IDLE, "it says that its turn failed"),
}
WAITS_FOR: Final = frozenset(get_args(WaitsFor))


@dataclass(frozen=True, slots=True)
class Claim:
    """A state that a program claims to be in: idle, working or waiting."""

    state: AgentState
    reason: str
    waits_for: str
    source: str  # osc 7501, hook Stop ...
    message: str
    at_s: float
    seen: bool = False  # of a question: the screen has shown it, too

    def on_screen(self) -> Claim:
        """Return it as one that the screen has confirmed."""
        return self if self.seen else replace(self, seen=True)


def claim_of(report: Report, now_s: float) -> Claim | None:
    """Return what a report claims; None when it ends what was claimed before."""
    if report.means not in WORDS:
        return None
    state, reason = WORDS[report.means]
    asks = report.means if report.means in WAITS_FOR else ""
    said = f"{reason}: {report.message}" if report.message else reason
    return Claim(state, said, asks, report.source, report.message, now_s)
