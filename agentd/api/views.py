"""How records are shown to callers: the keys that `--json` promises."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from agentd.agents.asking import NOTHING
from agentd.agents.directory import Directory
from agentd.api.parts import Parts
from agentd.cache.answer import Answer
from agentd.errors import AgentdError
from agentd.records import Agent, Message, Receipt
from agentd.wire import calls

NS = 1_000_000_000


def agent_row(parts: Parts, agent: Agent) -> dict[str, Any]:
    """Return the keys promised for an agent."""
    return {
        "id": agent.id,
        "name": agent.name,
        "profile": agent.profile,
        "team": agent.team,
        "role": agent.role,
        "state": agent.state,
        "reason": agent.reason,
        "waits_for": agent.waits_for,
        **question_of(parts, agent.id),
        "inbox": parts.mailbox.depth(agent.id),
        "cwd": agent.cwd,
        "pane": agent.pane.pane_id if agent.pane else None,
        "session": agent.pane.session_id if agent.pane else None,
        "socket": parts.tmux.socket_of(agent.pane) if agent.pane else None,
        "warm": agent.warm,
        "branch": agent.branch or None,
        "pid": agent.pane.pid if agent.pane else None,
        "exit_status": agent.exit_status,
        "since_s": ages_s(time.time_ns(), [agent.since_ns])[0],  # the last, where agent_rows exchanges it
    }


def question_of(parts: Parts, agent_id: str) -> Mapping[str, str | None]:
    """Return the id of the permission prompt that an agent's program shows, and what it asks."""
    live = parts.crew.live(agent_id)
    return live.question if live else NOTHING


def ages_s(now_ns: int, since_ns: Sequence[int]) -> list[float]:
    """Return how long ago each was, to the millisecond; 0 for what a clock that was put back has before it."""
    return [(now_ns - then_ns) // 1_000_000 / 1000 if then_ns < now_ns else 0.0 for then_ns in since_ns]


def max_age_s(params: calls.Cached) -> float | None:
    """Return how old an answer from the cache the caller accepts."""
    return None if params.max_age_ms is None else params.max_age_ms / 1000


def of_answer(answer: Answer) -> dict[str, Any]:
    """Return what every answer from the cache says of itself."""
    return {"tier": answer.tier, "age_ms": answer.age_ms, "bound_ms": answer.bound_ms}


def receipt_row(directory: Directory, receipt: Receipt) -> dict[str, Any]:
    """Return the keys promised for a receipt."""
    row: dict[str, Any] = {"id": receipt.id, "to": directory.display(receipt.to), "state": receipt.state}
    if receipt.duplicate:
        row["duplicate"] = True
    if receipt.receipts:
        row["receipts"] = [receipt_row(directory, each) for each in receipt.receipts]
    return row


def message_row(directory: Directory, message: Message) -> dict[str, Any]:
    """Return the keys promised for a message."""
    return {
        "id": message.id,
        "from": directory.display(message.sender),
        "to": directory.display(message.to),
        "body": message.body,
        "key": message.key,
        "state": message.state,
        "attempts": message.attempts,
        "priority": message.priority.name.lower(),
        "reply_to": message.reply_to,
        "thread": message.thread,
        "trace": message.trace,
        "hops": message.hops,
        "headers": dict(message.headers),
        "created_at": message.created_ns / NS,
        "expires_at": message.expires_ns / NS if message.expires_ns else None,
        "history": [{"state": h.state, "at": h.at_ns / NS, "detail": h.detail} for h in message.history],
    }


def error_row(error: AgentdError) -> dict[str, Any]:
    """Return one item's error inside an answer that otherwise succeeded."""
    return {"error": error.as_json()}


def outcome(ids: list[str], errors: list[AgentdError | None]) -> dict[str, Any]:
    """Return which items of a call were done and which were not."""
    pairs = list(zip(ids, errors, strict=True))
    return {
        "done": [id_ for id_, error in pairs if error is None],
        "failed": [{"id": id_, **error_row(error)} for id_, error in pairs if error is not None],
    }
