"""Calls about searching."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio

from agentd.api.parts import Parts
from agentd.api.views import message_row
from agentd.errors import InvalidValue, NotFound
from agentd.index.engine import FIRST_SEQ, LAST_SEQ, Within
from agentd.index.query import Query, parse
from agentd.index.snippet import Snippet, snippet_of
from agentd.mailbox.ids import STEP, first_seq_at
from agentd.records import OPERATOR, Caller, Message, Role
from agentd.wire import calls

MOST_BYTES = 4 * 1024 * 1024  # of bodies in one answer


async def search(parts: Parts, caller: Caller, params: calls.Search) -> dict[str, Any]:
    """Find messages by their words; an agent finds those that it sent or received."""
    if params.in_ == "transcripts":
        raise NotFound("transcripts are not stored, so that none can be searched", hint="leave out `in`")
    query = parse(params.query)
    found = await parts.search.find(query, _within(parts, caller, params), params.limit)
    shown = _fitting([message for message, _ in found.messages])
    snippets = await anyio.to_thread.run_sync(partial(_snippets, shown, query))
    scores = [score for _, score in found.messages]
    rows = [
        {**message_row(parts.directory, message), "score": round(score, 4), **snippet}
        for message, score, snippet in zip(shown, scores, snippets, strict=False)
    ]
    left_out = len(found.messages) - len(shown)
    return {"messages": rows, "left_out": left_out, "indexed_behind": found.behind, "engine": parts.search.engine}


def _within(parts: Parts, caller: Caller, params: calls.Search) -> Within:
    since, until = params.since, params.until
    if since is not None and until is not None and since > until:
        raise InvalidValue("the time to search from is after the time to search to", hint="swap them", field="since")
    return Within(
        to=_inboxes(parts, params.target),
        senders=_inboxes(parts, params.sender),
        of=caller.agent_id if caller.role is Role.AGENT else "",
        since_seq=FIRST_SEQ if since is None else first_seq_at(int(since * 1e9), 0),
        until_seq=LAST_SEQ if until is None else first_seq_at(int(until * 1e9), STEP - 1),
    )


def _inboxes(parts: Parts, target: str | None) -> Sequence[str]:
    if target in (None, "all"):
        return ()
    return [OPERATOR] if target == OPERATOR else [agent.id for agent in parts.directory.resolve(target)]


def _fitting(messages: Sequence[Message]) -> list[Message]:
    """Return the first messages, as many as one answer has room for."""
    shown: list[Message] = []
    room = MOST_BYTES
    for message in messages:
        room -= len(message.body)
        if room < 0:
            break
        shown.append(message)
    return shown


def _snippets(messages: Sequence[Message], query: Query) -> list[dict[str, Any]]:
    return [_snippet_row(snippet_of(message.body, query)) for message in messages]


def _snippet_row(snippet: Snippet) -> dict[str, Any]:
    return {"snippet": snippet.text, "matches": [list(match) for match in snippet.matches]}


async def reindex(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """Make the index of messages again."""
    behind = await parts.search.rebuild()
    return {"indexed_behind": behind, "engine": parts.search.engine}
