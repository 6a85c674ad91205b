"""What would make an agent's state another one: a sentence for those who ask."""

from __future__ import annotations

from typing import Final

from agentd.records import AgentState

NAME: Final = "NAME"  # stands for the agent's

_BY_STATE = {
    AgentState.STARTING: "a screen that its profile calls idle; see it with: agentd read NAME",
    AgentState.IDLE: "a message, or text typed by a person",
    AgentState.WORKING: "its program coming back to its prompt",
    AgentState.WAITING: "an answer at its terminal: agentd attach NAME",
    AgentState.STOPPED: "agentd respawn NAME; what waits in its inbox is kept",
    AgentState.FAILED: "a ready screen; or agentd stop NAME and agentd respawn NAME",
}
_BY_WAITS_FOR = {
    "permission": "an answer: agentd approve NAME or agentd deny NAME, or at its terminal: agentd attach NAME",
    "login": "a login at its terminal: agentd attach NAME",
    "rate_limit": "its program going on by itself, or a person at its terminal: agentd attach NAME",
    "error": "a person who sees to it at its terminal: agentd attach NAME",
}
_BY_SOURCE = {
    "osc": "its program saying so, or an idle screen and two seconds without output",
    "hook": "its program saying so, or an idle screen and two seconds without output",
}


def would_change(state: AgentState, waits_for: str = "", *, draft: bool = False, source: str = "") -> str:
    """Return what would change the state of a live agent."""
    if draft:
        return "the half-typed text in its composer being submitted or cleared; until then nothing is typed over it"
    if state is AgentState.WAITING and waits_for in _BY_WAITS_FOR:
        return _BY_WAITS_FOR[waits_for]
    if state is AgentState.WORKING and source in _BY_SOURCE:
        return _BY_SOURCE[source]
    return _BY_STATE[state]
