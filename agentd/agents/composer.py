"""Whether a text stands in an agent's composer: typed, and not yet submitted."""

from __future__ import annotations

from agentd.agents.profile import Profile
from agentd.agents.screen import Verdict
from agentd.records import AgentState
from agentd.tmux.tmux import Look

TAIL_CHARS = 60  # of the text's end; enough to know it by, short enough to be on one screen


def holds(profile: Profile, look: Look, verdict: Verdict, text: str) -> bool:
    """Tell whether the text stands in the composer.

    Where the profile can cut the composer out of the screen that decides; a program that folds a long paste is known
    by its placeholder. Elsewhere (a shell editing several lines) the screen must end with the text at the cursor.
    """
    if look.dead or verdict.state is AgentState.WAITING:
        return False
    if verdict.composer is not None:
        return _in_composer(profile, verdict.composer, text) or (verdict.draft and _at_cursor(look, text))
    if _at_cursor(look, text):
        return True
    # An editor shows of a text that is longer than the screen its beginning and its last line.
    return verdict.draft and "\n" in text and _at_cursor(look, text.rstrip("\n").rpartition("\n")[2])


def surely_holds(profile: Profile, look: Look, verdict: Verdict, text: str) -> bool:
    """Tell the same of a text typed before: what could as well be a person's draft does not count."""
    shown = verdict.composer
    return _in_composer(profile, shown, text) if shown is not None else _at_cursor(look, text)


def begins_with(profile: Profile, verdict: Verdict, text: str) -> bool:
    """Tell whether the composer shows the header of a text of ours, whatever became of the rest."""
    if profile.input.envelope == "none":
        return False
    head = text.partition(" from ")[0]
    return _squeezed(head) in _squeezed(verdict.composer or "")


def put_back(profile: Profile, verdict: Verdict, text: str) -> bool:
    """Tell whether the composer holds a text of ours and nothing else: some programs put an interrupted prompt back."""
    if profile.input.envelope == "none":
        return False  # the same words may be a person's
    preface = profile.input.preface
    shown = _squeezed(verdict.composer or "")
    if preface is not None and preface.belongs_before(text):
        before = _squeezed(preface.text)
        whole = shown == before + _squeezed(text)
        return whole or (shown.startswith(before) and _ends_in_placeholder(profile, verdict.composer or ""))
    return bool(shown) and shown == _squeezed(text)


def _in_composer(profile: Profile, composer: str, text: str) -> bool:
    if _ends_in_placeholder(profile, composer):
        return True
    shown = _squeezed(composer)
    return bool(shown) and shown.endswith(_squeezed(text)[-TAIL_CHARS:])


def _ends_in_placeholder(profile: Profile, composer: str) -> bool:
    # What stands behind it was typed since, by somebody else.
    placeholder = profile.input.placeholder
    return placeholder is not None and any(
        not composer[match.end() :].strip() for match in placeholder.finditer(composer)
    )


def _at_cursor(look: Look, text: str) -> bool:
    # Counted from the bottom: joining wrapped lines changes the row numbers above the cursor, never below it.
    lines = look.text.split("\n")
    end = len(lines) - (look.height - look.cursor_y) + 1
    if not 0 < end <= len(lines) or not lines[end - 1].strip():
        return False
    tail = _squeezed(text)[-TAIL_CHARS:]
    return bool(tail) and _squeezed("\n".join(lines[:end])).endswith(tail)


def _squeezed(text: str) -> str:
    return "".join(text.split())
