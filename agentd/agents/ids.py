"""Ids of agents and their tokens."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letter that looks like a digit
ID_CHARS = 10


def new_agent_id() -> str:
    """Return a random id that begins with a digit, so that it can never be an agent's name."""
    return secrets.choice("0123456789") + "".join(secrets.choice(_ALPHABET) for _ in range(ID_CHARS - 1))


def new_token() -> str:
    """Return 256 random bits as text."""
    return secrets.token_hex(32)


def session_name(name: str, agent_id: str) -> str:
    """Return the tmux session name that carries the identity, so that it exists from the first moment."""
    return f"{name}_{agent_id}"


def id_of_session(name: str) -> str:
    """Return the agent id in a session name, or an empty text when it is none of ours."""
    _, mark, agent_id = name.rpartition("_")
    ours = len(agent_id) == ID_CHARS and agent_id[0].isdigit() and set(agent_id) <= set(_ALPHABET)
    return agent_id if mark and ours else ""
