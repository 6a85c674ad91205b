"""A status in the hands of a test: the clock, the screen, and what the program says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agentd.agents.reports import Report
from agentd.agents.screen import Verdict
from agentd.agents.status import RELEASE_S, Status
from agentd.records import AgentState

UNKNOWN = Verdict(None, "no rule", "", "@#!")
SETTLE_S = 0.3


def said(means: Any, message: str = "", source: str = "hook Event") -> Report:
    return Report(means, source, message=message)


class Agent:
    """A status as a live agent uses it: looked at after whatever happens, and when time alone may change it."""

    def __init__(self, *, quiet_s: float = RELEASE_S, started: bool = True) -> None:
        self.now_s = 100.0
        self.status = Status(settle_s=SETTLE_S, boot_timeout_s=10, now_s=self.now_s, quiet_s=quiet_s, started=started)
        self.screen = UNKNOWN
        self.looks = 0
        self.states = [self.status.opinion.state]
        self.after: Callable[[Agent], None] = lambda _: None

    def shows(self, screen: Verdict) -> Agent:
        """Its screen changes, which is output."""
        self.screen = screen
        return self.prints()

    def prints(self) -> Agent:
        self.status.printed(self.now_s)
        return self.looked()

    def says(self, means: str, message: str = "") -> Agent:
        self.status.hear(said(means, message), self.now_s)
        self._note()
        return self.looked()

    def submits(self) -> Agent:
        self.status.submitted(self.now_s)
        return self.looked()

    def looked(self) -> Agent:
        self.looks += 1
        self.status.see(self.screen, self.now_s)
        self._note()
        return self

    def waits(self, seconds: float) -> Agent:
        end_s = self.now_s + seconds
        while (due_s := self.status.look_again_in_s(self.now_s)) is not None and self.now_s + due_s <= end_s:
            self.now_s += due_s
            self.looked()
            again_s = self.status.look_again_in_s(self.now_s)
            assert again_s is None or again_s > 0, "it would be looked at without end"
        self.now_s = end_s
        return self

    def prints_for(self, seconds: float, frames: Sequence[Verdict], every_s: float = 0.1) -> Agent:
        """Print again and again, with the screens in turn."""
        for number in range(round(seconds / every_s)):
            self.shows(frames[number % len(frames)]).waits(every_s)
        return self

    @property
    def state(self) -> AgentState:
        return self.status.opinion.state

    def _note(self) -> None:
        if self.state is not self.states[-1]:
            self.states.append(self.state)
        self.after(self)
