"""Calls about searching."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio

from agentd.api.parts import Parts
from agentd.api.views import message_row
from agentd.errors import InvalidValue
from agentd.index.engine import FIRST_SEQ, LAST_SEQ, Within
from agentd.index.query import Query, parse
from agentd.index.snippet import Snippet, snippet_of
from agentd.mailbox.ids import STEP, first_seq_at
from agentd.records import OPERATOR, Caller, Message, Role
from agentd.transcripts.passages import seq_at
from agentd.transcripts.search import FoundPassage
from agentd.wire import calls

MOST_BYTES = 4 * 1024 * 1024  # of bodies in one answer


async def search(parts: Parts, caller: Caller, params: calls.Search) -> dict[str, Any]:
    """Find messages by their words; an agent finds those that it sent or received."""
    query = parse(params.query)
    if params.in_ == "transcripts":
        return await _in_transcripts(parts, caller, params, query)
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


async def _in_transcripts(parts: Parts, caller: Caller, params: calls.Search, query: Query) -> dict[str, Any]:
    """Find passages of what agents printed; an agent finds those of its own transcript."""
    if params.sender is not None:
        raise InvalidValue("a transcript has no sender", hint="name the agent as the target", field="sender")
    since_ns, until_ns = _times(params)
    within = Within(
        to=[caller.agent_id] if caller.role is Role.AGENT else _inboxes(parts, params.target),
        since_seq=FIRST_SEQ if since_ns is None else seq_at(since_ns),
        until_seq=LAST_SEQ if until_ns is None else seq_at(until_ns + 1000) - 1,
    )
    found = await parts.transcript_search.find(query, within, params.limit)
    rows = [_passage_row(parts, passage, query) for passage in found.passages]
    behind, engine = found.behind_bytes, parts.transcript_search.engine
    return {"passages": rows, "left_out": 0, "indexed_behind": behind, "engine": engine}


def _passage_row(parts: Parts, found: FoundPassage, query: Query) -> dict[str, Any]:
    passage = found.passage
    return {
        "agent": parts.directory.display(passage.agent),
        "id": passage.agent,
        "at": passage.at_ns / 1e9,
        "offset": passage.start,
        "next": passage.end,
        "text": found.text,
        "score": round(found.score, 4),
        **_snippet_row(snippet_of(found.text, query)),
    }


def _times(params: calls.Search) -> tuple[int | None, int | None]:
    since, until = params.since, params.until
    if since is not None and until is not None and since > until:
        raise InvalidValue("the time to search from is after the time to search to", hint="swap them", field="since")
    return None if since is None else int(since * 1e9), None if until is None else int(until * 1e9)


def _within(parts: Parts, caller: Caller, params: calls.Search) -> Within:
    since_ns, until_ns = _times(params)
    return Within(
        to=_inboxes(parts, params.target),
        senders=_inboxes(parts, params.sender),
        of=caller.agent_id if caller.role is Role.AGENT else "",
        since_seq=FIRST_SEQ if since_ns is None else first_seq_at(since_ns, 0),
        until_seq=LAST_SEQ if until_ns is None else first_seq_at(until_ns, STEP - 1),
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


async def reindex(parts: Parts, _caller: Caller, params: calls.Reindex) -> dict[str, Any]:
    """Make the index of messages, or of transcripts, again."""
    if params.in_ == "transcripts":
        behind = await parts.transcript_search.rebuild()
        return {"indexed_behind": behind, "engine": parts.transcript_search.engine}
    behind = await parts.search.rebuild()
    return {"indexed_behind": behind, "engine": parts.search.engine}
