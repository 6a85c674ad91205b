"""What a screen shows: a profile's rules applied to a look at a pane. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agentd.agents.profile import Profile, Rule
from agentd.records import AgentState

MAX_LINE_CHARS = 1000  # of a line that rules look at: its beginning and its end; a joined line can be the whole screen


class Look(Protocol):
    """A pane as it was at one moment."""

    @property
    def text(self) -> str:
        """Return the screen's lines, wrapped ones joined."""

    @property
    def cursor_x(self) -> int:
        """Return the cursor's column."""

    @property
    def cursor_y(self) -> int:
        """Return the cursor's row."""

    @property
    def dead(self) -> bool:
        """Tell whether the program has ended."""

    @property
    def exit_status(self) -> int | None:
        """Return the program's exit status, once it has one."""

    @property
    def in_mode(self) -> bool:
        """Tell whether a person scrolls or searches in the pane."""

    @property
    def command(self) -> str:
        """Return the name of the program in the foreground; empty when it is not known."""

    @property
    def title(self) -> str:
        """Return the pane's title."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules make of a screen."""

    state: AgentState | None  # None: no rule knows this screen
    reason: str
    rule: str = ""  # which rule decided, as `rules[2] idle`
    evidence: str = ""  # the line it decided by
    draft: bool = False  # a half-typed text stands in the composer
    composer: str | None = None  # what stands there; None when none is to be seen
    waits_for: str = ""  # what a waiting agent wants
    source: str = "screen"  # or title, when the rule looks at that, too


def classify(profile: Profile, look: Look) -> Verdict:
    """Return the state that the first matching rule gives; a program that has ended is seen before any rule."""
    lines = _lines(look.text)
    if look.dead:
        return _dead(look.exit_status, lines)
    for number, rule in enumerate(profile.rules, 1):
        evidence = _matched(rule, look, lines)
        if evidence is not None:
            return _verdict(profile, rule, f"rules[{number}] {rule.state}", evidence, lines)
    evidence = lines[-1] if lines else ""
    return Verdict(None, "no rule of its profile knows this screen", "", evidence, composer=_composer(profile, lines))


def _verdict(profile: Profile, rule: Rule, name: str, evidence: str, lines: Sequence[str]) -> Verdict:
    state = AgentState.IDLE if rule.state == "draft" else AgentState(rule.state)
    composer = _composer(profile, lines) if rule.composer else None
    draft = rule.state == "draft"
    source = "screen" if rule.title is None else "title"
    if state is AgentState.IDLE and not draft and composer and composer.strip():
        why = "a half-typed text stands in the composer"
        return Verdict(state, why, name, evidence, True, composer, source=source)
    return Verdict(state, rule.reason, name, evidence, draft, composer, rule.waits_for or "", source)


def _dead(exit_status: int | None, lines: Sequence[str]) -> Verdict:
    state = AgentState.FAILED if exit_status else AgentState.STOPPED
    how = "" if exit_status is None else f" with exit status {exit_status}"
    return Verdict(state, f"its program has ended{how}", "dead", lines[-1] if lines else "")


def _lines(text: str) -> list[str]:
    """Return the lines that are not blank, each without the blanks at its end and cut to a length."""
    return [_cut(line) for raw in text.split("\n") if (line := raw.rstrip(" \t\r"))]


def _cut(line: str) -> str:
    half = MAX_LINE_CHARS // 2
    return line if len(line) <= MAX_LINE_CHARS else line[:half] + line[-half:]


def _matched(rule: Rule, look: Look, lines: Sequence[str]) -> str | None:
    """Return the line a rule matches by, or None when it does not match."""
    # A saved screen has no command: what is not known decides nothing.
    if rule.command and look.command and look.command not in rule.command:
        return None
    if rule.title is not None and not rule.title.search(look.title[:MAX_LINE_CHARS]):
        return None
    tail = "\n".join(lines[-rule.tail :])
    if rule.unless is not None and rule.unless.search(tail):
        return None
    if rule.screen is None:
        return lines[-1] if lines else ""
    match = rule.screen.search(tail)
    return None if match is None else _line_at(tail, match)


def _line_at(text: str, match: re.Match[str]) -> str:
    start = text.rfind("\n", 0, match.start()) + 1
    return text[start:].partition("\n")[0]


def _composer(profile: Profile, lines: Sequence[str]) -> str | None:
    if profile.input.composer is None:
        return None
    match = profile.input.composer.search("\n".join(lines[-profile.input.composer_tail :]))
    return None if match is None else match["text"] or ""
