"""What a program says of itself, whichever way it comes: a status record in its output, a hook, an event stream."""

from __future__ import annotations

from dataclasses import dataclass

from agentd.agents.profile import Means


@dataclass(frozen=True, slots=True)
class Report:
    """One thing that a program said."""

    means: Means
    source: str  # osc 7501, hook Stop, ...: shown as the evidence
    message: str = ""  # what it asks or why it failed, sanitised
    resume_id: str = ""
    log_path: str = ""
    answer: str = ""  # the whole text of the answer that ended a turn
    asks: str = ""  # tool and arguments of a permission, sanitised; what `answers.allow` is matched against
