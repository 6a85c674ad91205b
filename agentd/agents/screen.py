"""What a screen shows: a profile's rules applied to a look at a pane. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agentd.agents.cells import cell_width, within
from agentd.agents.profile import Input, Profile, Rule
from agentd.records import AgentState

MAX_LINES = 200  # that are not blank; no rule looks at more
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


@dataclass(frozen=True, slots=True)
class _Parts:
    """The last lines of a screen that are not blank, and where its composer stands among them."""

    bottom: Sequence[str]
    composer: str | None = None
    above: Sequence[str] = ()
    below: Sequence[str] = ()

    def region(self, name: str) -> Sequence[str] | None:
        """Return a region's lines; None where the screen has no such region."""
        if name == "bottom":
            return self.bottom
        if name == "bare":
            return self.bottom if self.composer is None else None
        return None if self.composer is None else self.above if name == "above" else self.below


def classify(profile: Profile, look: Look, solid: str | None = None) -> Verdict:
    """Return the state that the first matching rule gives; a program that has ended is seen before any rule.

    `solid` is the same text with what is drawn faint left blank, when that is known.
    """
    parts = _parts(profile, look.text, solid)
    evidence = parts.bottom[-1] if parts.bottom else ""
    if look.dead:
        return _dead(look.exit_status, evidence)
    for number, rule in enumerate(profile.rules, 1):
        matched = _matched(rule, look, parts)
        if matched is not None:
            return _verdict(rule, f"rules[{number}] {rule.state}", matched, parts.composer)
    return Verdict(None, "no rule of its profile knows this screen", "", evidence, composer=parts.composer)


def _verdict(rule: Rule, name: str, evidence: str, text: str | None) -> Verdict:
    state = AgentState.IDLE if rule.state == "draft" else AgentState(rule.state)
    composer = text if rule.composer else None
    source = "screen" if rule.title is None else "title"
    if state is AgentState.IDLE and rule.state != "draft" and composer and composer.strip():
        why = "a half-typed text stands in the composer"
        return Verdict(state, why, name, evidence, True, composer, source=source)
    draft = rule.state == "draft"
    return Verdict(state, rule.reason, name, evidence, draft, composer, rule.waits_for or "", source)


def _dead(exit_status: int | None, evidence: str) -> Verdict:
    state = AgentState.FAILED if exit_status else AgentState.STOPPED
    how = "" if exit_status is None else f" with exit status {exit_status}"
    return Verdict(state, f"its program has ended{how}", "dead", evidence)


# -- lines


@dataclass(frozen=True, slots=True)
class _Row:
    """A line as it is shown, and with what is faint left blank."""

    plain: str
    solid: str


def _parts(profile: Profile, text: str, solid: str | None) -> _Parts:
    reach = profile.input.composer_tail + max((rule.tail for rule in profile.rules), default=1)
    rows = _rows(text, text if solid is None else solid, min(MAX_LINES, reach))
    bottom = [row.plain for row in rows if row.plain]
    if profile.input.composer is None:
        return _Parts(bottom)
    near = _last(rows, profile.input.composer_tail)
    shown = "\n".join(row.plain for row in near)
    match = profile.input.composer.search(shown)
    if match is None:
        return _Parts(bottom)
    above = [row.plain for row in rows[: len(rows) - len(near)]] + shown[: match.start()].split("\n")
    below = shown[match.end() :].split("\n")
    return _Parts(bottom, _typed(profile.input, match, near), _full(above), _full(below))


def _typed(source: Input, match: re.Match[str], rows: Sequence[_Row]) -> str:
    """Return what was typed into the composer: without its frame, and without a hint."""
    start, end = match.span("text")
    shown = match["text"] or ""
    solid = "\n".join(row.solid for row in rows)[start:end] if shown else ""
    if source.frame and shown:
        # A last line that is not typed is the box's lower edge: it is as wide as the box.
        edge = match[0].rpartition("\n")[2] if match.end() > end else ""
        lines = [
            _unframed(source.frame, cell_width(edge), *pair)
            for pair in zip(shown.split("\n"), solid.split("\n"), strict=True)
        ]
        shown, solid = ("\n".join(part) for part in zip(*lines, strict=True))
    return "" if source.hint is not None and source.hint.fullmatch(shown.strip()) else solid


def _unframed(frame: str, columns: int, shown: str, solid: str) -> tuple[str, str]:
    """Return a line without the frame at its beginning, and without what stands right of the box."""
    start = len(shown) - len(shown.lstrip(" "))
    start += shown[start : start + 1] in frame and bool(shown[start:])
    end = within(shown, columns) if columns else len(shown)
    return shown[start:end], solid[start:end]


def _rows(text: str, solid: str, most: int) -> list[_Row]:
    """Return the end of the screen: so many lines that are not blank, with the blank ones between them.

    Each without blanks at its end, cut to a length.
    """
    if text is solid:
        text = solid = text.strip("\n")  # most of many screens is blank
    found: list[_Row] = []
    full = 0
    for plain, firm in zip(reversed(text.split("\n")), reversed(solid.split("\n")), strict=True):
        line = plain.rstrip(" \t\r")
        full += bool(line)
        if full > most:
            break
        if full:
            found.append(_Row(_cut(line), _cut(firm[: len(line)])))
    return found[::-1]


def _last(rows: Sequence[_Row], count: int) -> Sequence[_Row]:
    """Return the end of the rows: so many that are not blank, with the blank ones between them."""
    at = len(rows)
    while at and count:
        at -= 1
        count -= bool(rows[at].plain)
    return rows[at:]


def _full(lines: Sequence[str]) -> Sequence[str]:
    return [line for line in lines if line]


def _cut(line: str) -> str:
    half = MAX_LINE_CHARS // 2
    return line if len(line) <= MAX_LINE_CHARS else line[:half] + line[-half:]


# -- rules


def _matched(rule: Rule, look: Look, parts: _Parts) -> str | None:
    """Return the line, or the title, that a rule matches by; None when it does not match."""
    # A saved screen has no command: what is not known decides nothing.
    if rule.command and look.command and look.command not in rule.command:
        return None
    if rule.title is not None and not rule.title.search(look.title[:MAX_LINE_CHARS]):
        return None
    lines = parts.region(rule.region)
    if lines is None:
        return None
    tail = "\n".join(lines[-rule.tail :])
    if rule.unless is not None and rule.unless.search(tail):
        return None
    if rule.screen is None:
        last = lines[-1] if lines else ""
        return look.title[:MAX_LINE_CHARS] if rule.title is not None else last
    match = rule.screen.search(tail)
    return None if match is None else _line_at(tail, match)


def _line_at(text: str, match: re.Match[str]) -> str:
    start = text.rfind("\n", 0, match.start()) + 1
    return text[start:].partition("\n")[0]
