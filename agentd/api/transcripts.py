"""Calls about what agents printed."""

from __future__ import annotations

import base64
import codecs
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio.to_thread

from agentd.agents.own_log import read_part
from agentd.api.agents import running
from agentd.api.parts import Parts
from agentd.errors import InvalidValue, NotFound
from agentd.records import Agent, Caller
from agentd.transcripts.folder import Extent
from agentd.transcripts.plain import Growth, Plain
from agentd.transcripts.reading import Page
from agentd.transcripts.segment import Missing, Printed
from agentd.wire import calls

LINE_BYTES = 120  # a guess at how long a line is, with its colours
MOST_TAIL_BYTES = 4 * 1024 * 1024  # looked through for the last lines


async def transcript(parts: Parts, _caller: Caller, params: calls.Transcript) -> dict[str, Any]:
    """Return a part of what an agent printed; the next one begins at `next`."""
    parts.transcripts.require()
    _check_one_beginning(params)
    agent = parts.directory.one(params.target)
    extent = await parts.transcripts.extent(agent.id)
    if params.lines is not None:
        page = await _last_lines(parts, agent, params.lines, extent)
    else:
        start = await _start(parts, agent, params, extent)
        page = await parts.transcripts.page(agent.id, start, params.limit_bytes)
    end = max(extent.end, page.next)
    part = _raw(page) if params.raw else _text(page, is_last=page.next == end, lines=params.lines)
    return {"id": agent.id, "name": agent.name, **part, "first": extent.first, "end": end}


def _check_one_beginning(params: calls.Transcript) -> None:
    given = [name for name in ("offset", "since", "lines") if getattr(params, name) is not None]
    if len(given) > 1:
        raise InvalidValue(f"{given[0]} and {given[1]} both say where to begin", hint="give one", field=given[1])


async def _start(parts: Parts, agent: Agent, params: calls.Transcript, extent: Extent) -> int:
    if params.since is not None:
        return await parts.transcripts.position_at(agent.id, int(params.since * 1e9))
    return extent.first if params.offset is None else params.offset


async def _last_lines(parts: Parts, agent: Agent, lines: int, extent: Extent) -> Page:
    """Return the end of a transcript with so many lines in it, if it need not be too large for that."""
    size = lines * LINE_BYTES
    while True:
        size = min(size, MOST_TAIL_BYTES)
        start = max(extent.first, extent.end - size)
        page = await parts.transcripts.page(agent.id, start, size)
        if start == extent.first or size == MOST_TAIL_BYTES or _count_lines(page) > lines:
            return page
        size *= 4


def _count_lines(page: Page) -> int:
    plain = Plain()
    return sum(len(plain.feed(piece.data)) for piece in page.pieces if isinstance(piece, Printed))


def _raw(page: Page) -> dict[str, Any]:
    data = b"".join(piece.data for piece in page.pieces if isinstance(piece, Printed))
    return {"data": _base64(data), **_about(page), "next": page.next}


def _text(page: Page, *, is_last: bool, lines: int | None) -> dict[str, Any]:
    """Return the page as text; a line that goes on in the next one is left to it."""
    plain = Plain()
    found: list[str] = []
    for piece in page.pieces:
        found += plain.feed(piece.data) if isinstance(piece, Printed) else [*plain.end_line(), piece.sentence]
    left_bytes = plain.unsettled_bytes
    rest = ""
    if is_last or page.next - left_bytes <= page.start:
        left_bytes = plain.held_bytes
        rest = plain.line.rstrip(" ")
    if lines is not None:
        found = found[len(found) + bool(rest) - lines :] if len(found) + bool(rest) > lines else found
    text = "".join(f"{line}\n" for line in found) + rest
    return {"text": text, **_about(page), "next": page.next - left_bytes}


def _about(page: Page) -> dict[str, Any]:
    """Return what every part says of itself; a gap's offset is where it begins."""
    gaps: list[dict[str, Any]] = []
    offset = page.start
    for piece in page.pieces:
        if isinstance(piece, Missing):
            gaps.append(_gap_row(offset, piece))
        offset += piece.positions
    at_ns = next((piece.at_ns for piece in page.pieces if piece.at_ns), 0)
    return {"offset": page.start, "at": at_ns / 1e9 if at_ns else None, "gaps": gaps}


def _gap_row(offset: int, gap: Missing) -> dict[str, Any]:
    at = gap.at_ns / 1e9 if gap.at_ns else None
    return {"offset": offset, "at": at, "why": gap.why.name.lower(), "bytes": gap.size_bytes or None}


async def follow(parts: Parts, _caller: Caller, params: calls.AgentsFollow) -> AsyncIterator[dict[str, Any]]:
    """Stream what an agent prints: from an offset on, or what is added to its screen."""
    parts.transcripts.require()
    offset = params.offset
    if offset is None:
        live = running(parts, params.target)
        agent_id = live.id
        # Before the look: what is printed meanwhile may be shown twice, and is never left out.
        offset = (await parts.transcripts.extent(agent_id)).end
        look = await live.terminal.capture(None, escapes=params.raw)
        screen = look.text.rstrip() + "\n"
        begun = {"data": _base64(screen.encode())} if params.raw else {"text": screen}
        yield {**begun, "offset": offset, "next": offset, "gaps": []}
    else:
        agent_id = parts.directory.one(params.target).id
        end = (await parts.transcripts.extent(agent_id)).end
        if offset > end:
            raise InvalidValue(
                f"the transcript ends at {end}, before {offset}", field="offset", hint="follow from its end, or without"
            )
    async with aclosing(parts.transcripts.follow(agent_id, offset, lambda: parts.crew.live(agent_id) is None)) as pages:
        growth = Growth()
        async for page in pages:
            part = _raw(page) if params.raw else _grown(growth, page)
            if part.get("text") != "":
                yield part


def _grown(growth: Growth, page: Page) -> dict[str, Any]:
    text = "".join(
        growth.feed(piece.data) if isinstance(piece, Printed) else growth.say(piece.sentence) for piece in page.pieces
    )
    return {"text": text, **_about(page), "next": page.next - growth.held_bytes}


async def own_log(parts: Parts, _caller: Caller, params: calls.OwnLog) -> dict[str, Any]:
    """Return a part of the file in which an agent's program keeps its session itself."""
    agent = parts.directory.one(params.target)
    if not agent.log_path:
        raise NotFound(
            f"{agent.name} has not told of a file in which it keeps its session",
            hint=f"what it printed: agentd transcript {agent.name}",
        )
    part = await anyio.to_thread.run_sync(read_part, agent.log_path, params.offset, params.limit_bytes)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    shown = {"data": _base64(part.data)} if params.raw else {"text": decoder.decode(part.data)}
    next_ = params.offset + len(part.data) - len(decoder.getstate()[0])  # half a character is left to the next part
    about = {"path": agent.log_path, "offset": params.offset, "next": next_, "end": part.size_bytes}
    return {"id": agent.id, "name": agent.name, **shown, **about}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
