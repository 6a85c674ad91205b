"""The screens recorded from real programs, in tests/screens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from panes import Seen

from agentd.agents.attributes import read
from agentd.agents.profile import Profiles
from agentd.agents.screen import Verdict, classify

SCREENS = Path(__file__).parents[1] / "screens"
BUILT_IN = Profiles.load("/nonexistent")
PLAIN, COLOURED = ".txt", ".ansi.txt"


@dataclass(frozen=True)
class Recorded:
    """One screen: PROGRAM/NAME, and what a person says it shows."""

    name: str
    label: str  # idle, draft, working, waiting, stopped

    def __str__(self) -> str:
        return self.name

    @property
    def program(self) -> str:
        return self.name.partition("/")[0]

    def path(self, ending: str) -> Path:
        return SCREENS / (self.name + ending)

    def text(self, ending: str) -> str:
        return self.path(ending).read_bytes().decode()

    def fact(self, key: str) -> str:
        lines = self.path(".meta.txt").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)[key]

    @property
    def dead(self) -> bool:
        return self.fact("pane_dead") == "1"

    def shows(self, captured: str, *, title: str | None = None, dead: bool | None = None) -> Verdict:
        """Return what its program's profile makes of a capture."""
        shown = read(captured)
        dead = self.dead if dead is None else dead
        seen = Seen(shown.plain, dead=dead, title=self.fact("pane_title") if title is None else title)
        return classify(BUILT_IN.get(self.program), seen, shown.solid)


def label_of(verdict: Verdict) -> str:
    """Return the verdict in the words of the labels."""
    return "draft" if verdict.draft else str(verdict.state)


RECORDED = [Recorded(*item) for item in json.loads((SCREENS / "labels.json").read_text()).items()]
