"""What a program asks permission for, and what its profile's policy says to it. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from hashlib import blake2b

from agentd.agents.patterns import spelled
from agentd.agents.profile import Answers, Profile
from agentd.agents.screen import Look, Verdict
from agentd.agents.text import sanitise
from agentd.records import AgentState

ID_BYTES = 5
ASKED_CHARS = 4_000  # of what is asked; longer is not judged, as it was not seen whole
# What makes one command two, or another one than it seems: no wildcard of a pattern may stand for it.
_JOINTS = frozenset(";&|<>$`()\\\N{HORIZONTAL ELLIPSIS}\N{REPLACEMENT CHARACTER}")
_TIMES = re.compile(r"\b\d+(?:\.\d+)?(?:ms|s|m|h)\b")


class Decision(enum.StrEnum):
    """What is to become of a prompt."""

    APPROVE = "approve"
    DENY = "deny"
    LEAVE = "leave"  # to a person


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question for permission as it stands on a screen."""

    id: str  # of the words on the screen: another prompt has another one
    words: str
    asks: str = ""  # tool and arguments, where the program or its screen tells them
    sure: bool = False  # that is what the screen shows, too, so that a policy may go by it


def prompt_on(profile: Profile, look: Look, verdict: Verdict) -> Prompt | None:
    """Return the prompt that a rule of the profile sees on the screen."""
    if verdict.state is not AgentState.WAITING or verdict.waits_for != "permission":
        return None
    words = _words(look.text)
    id_ = blake2b(words.encode(errors="replace"), digest_size=ID_BYTES).hexdigest()
    asks = _asked_on(profile.answers.asks, look.text)
    return Prompt(id_, words, asks, bool(asks))


def told(prompt: Prompt, asks: str) -> Prompt:
    """Return the prompt with what the program said it asks.

    What the screen does not show may be about another prompt, one before or one behind this.
    """
    return replace(prompt, asks=asks, sure=_shows(prompt.words, asks))


def decide(answers: Answers, prompt: Prompt) -> Decision:
    """Return what the policy says: a denial needs no reason, an approval one pattern that matches all that is asked."""
    if answers.policy == "never":
        return Decision.DENY
    if answers.policy == "allow" and prompt.sure and any(covers(pattern, prompt.asks) for pattern in answers.allow):
        return Decision.APPROVE
    return Decision.LEAVE


def covers(pattern: re.Pattern[str], asks: str) -> bool:
    """Tell whether the pattern matches the whole text, and itself spells out every joint in it.

    What must be matched by the letters of the pattern uses up that many joints; when there are no more of them in the
    text, none is left that a wildcard could have stood for.
    """
    return sum(map(_is_joint, asks)) == spelled(pattern, _is_joint) and pattern.fullmatch(asks) is not None


def same(before: Prompt, after: Prompt) -> bool:
    """Tell whether it is still the same question, though a clock ticks in it or another choice is marked."""
    if before.asks and after.asks and before.asks != after.asks:
        return False
    return before.id == after.id or _gist(before.words) == _gist(after.words)


def _is_joint(char: str) -> bool:
    return char in _JOINTS or not char.isprintable()


def _asked_on(pattern: re.Pattern[str] | None, text: str) -> str:
    """Return what the profile finds asked at the end of the screen: what stands above it was printed by anybody."""
    screen = "\n".join(line.rstrip() for line in text.rstrip().split("\n"))
    match = pattern.search(screen) if pattern is not None else None
    if match is None or match.end() != len(screen):
        return ""
    asks = sanitise(match["asks"] or "")
    return asks if len(asks) <= ASKED_CHARS else ""


def _shows(words: str, asks: str) -> bool:
    """Tell whether the arguments of what is asked, behind `Tool: `, stand on the screen, however it wraps them."""
    _, _, arguments = asks.partition(": ")
    wanted = _solid(_words(arguments or asks))
    return bool(wanted) and len(asks) <= ASKED_CHARS and wanted in _solid(words)


def _words(text: str) -> str:
    """Return the text without frames, marks and spinners, which are redrawn while a prompt stands."""
    plain = (char if char.isascii() or char.isalnum() else " " for char in text)
    lines = (" ".join(line.split()) for line in "".join(plain).split("\n"))
    return "\n".join(line for line in lines if line)


def _gist(words: str) -> set[str]:
    return {_TIMES.sub("", line).lstrip("> *") for line in words.split("\n")}


def _solid(words: str) -> str:
    return "".join(words.split())
