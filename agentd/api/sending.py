"""Calls that send: from targets to drafts, past the loop guard, into the mailbox, and back as receipts."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from agentd.agents.directory import is_group
from agentd.agents.loops import Cause
from agentd.api.parts import Parts
from agentd.api.views import error_row, receipt_row
from agentd.errors import AgentdError, InvalidValue, NotFound, OverLimit
from agentd.records import OPERATOR, Caller, Draft, Message, Priority, Receipt, Role
from agentd.wire import calls

_PRIORITIES = {priority.name.lower(): priority for priority in Priority}
MOST_DRAFTS = 100_000  # that one batch may become when its targets are resolved


class Judged(NamedTuple):
    """One recipient's message, and what the loop guard has against it."""

    draft: Draft
    refusal: AgentdError | None = None


async def send(parts: Parts, caller: Caller, params: calls.Send) -> dict[str, Any]:
    """Send one message to every agent the target names."""
    judge = await _judge(parts, caller, [params])
    judged = judge.judged(params)
    return _receipt(parts, judged, await _put(parts, judged), group=is_group(params.to))


async def send_batch(parts: Parts, caller: Caller, params: calls.SendBatch) -> dict[str, Any]:
    """Send many; the answers stand in the order of the items."""
    items = _items(params.messages)
    judge = await _judge(parts, caller, [item for item in items if isinstance(item, calls.Send)])
    judged: list[Judged] = []
    spans: list[tuple[int, int, bool] | AgentdError] = []
    for item in items:
        try:
            if isinstance(item, AgentdError):
                raise item
            mine = judge.judged(item, room=MOST_DRAFTS - len(judged))
            spans.append((len(judged), len(judged) + len(mine), judge.names_group(item.to)))
            judged += mine
        except AgentdError as error:
            spans.append(error)
    results = await _put(parts, judged)
    return {"results": [_batch_row(parts, span, judged, results) for span in spans]}


def _items(raw: list[Any]) -> Sequence[calls.Send | InvalidValue]:
    try:
        return msgspec.convert(raw, list[calls.Send])
    except msgspec.ValidationError:
        return [_item(one) for one in raw]


def _item(raw: Any) -> calls.Send | InvalidValue:
    try:
        return msgspec.convert(raw, calls.Send)
    except msgspec.ValidationError as error:
        return InvalidValue(str(error))


def _batch_row(
    parts: Parts,
    span: tuple[int, int, bool] | AgentdError,
    judged: Sequence[Judged],
    results: Sequence[Receipt | AgentdError],
) -> dict[str, Any]:
    if isinstance(span, AgentdError):
        return error_row(span)
    start, end, group = span
    if not group:
        result = results[start]
        return error_row(result) if isinstance(result, AgentdError) else receipt_row(parts.directory, result)
    try:
        return _receipt(parts, judged[start:end], results[start:end], group=True)
    except AgentdError as error:
        return error_row(error)


# -- what a message becomes before it is put


async def _judge(parts: Parts, caller: Caller, sends: Iterable[calls.Send]) -> _Judge:
    answered = {params.reply_to for params in sends if params.reply_to is not None}
    return _Judge(
        parts,
        caller,
        await parts.mailbox.origins(answered) if answered else {},
        await parts.causes.of(caller.agent_id) if caller.role is Role.AGENT else None,
    )


@dataclass(slots=True)
class _Judge:
    """Turns parameters into drafts; whatever has to be looked up for that was looked up once."""

    parts: Parts
    caller: Caller
    origins: Mapping[str, Message]  # of the messages that are answered
    last: Cause | None  # what the calling agent received last
    _named: dict[str, tuple[list[str], bool]] = field(default_factory=dict)  # targets that were resolved

    def names_group(self, target: str) -> bool:
        """Tell whether a target that was resolved may name several agents."""
        return self._named[target][1]

    def _resolved(self, target: str) -> tuple[list[str], bool]:
        known = self._named.get(target)
        if known is None:
            known = self._named[target] = (recipients(self.parts, self.caller, target), is_group(target))
        return known

    def judged(self, params: calls.Send, room: int = MOST_DRAFTS) -> list[Judged]:
        """Resolve the target once; the sender is who the caller is, whatever the caller says."""
        answered = self._answered(params.reply_to)
        inboxes, group = self._resolved(params.to)
        if len(inboxes) > room:
            raise OverLimit(f"the batch becomes more than {MOST_DRAFTS} messages", hint="send it in parts")
        if group:
            self._check_group(params, len(inboxes))
        # So that all that comes of a broadcast is one chain.
        trace = f"b{secrets.token_hex(6)}" if len(inboxes) > 1 else None
        return [self._admitted(self._draft(params, inbox, answered, trace), answered) for inbox in inboxes]

    def _answered(self, id_: str | None) -> Message | None:
        if id_ is None:
            return None
        message = self.origins.get(id_)
        if message is None or not may_see(self.caller, message):
            raise NotFound(
                f"no message `{id_}` to answer; this one was not sent",
                hint="send it without reply_to",
                field="reply_to",
            )
        return message

    def _check_group(self, params: calls.Send, recipients: int) -> None:
        if self.caller.role is not Role.AGENT:
            return
        refusal = self.parts.loops.group_refusal(recipients, answers=params.reply_to is not None)
        if refusal:
            self.parts.refusals.add(self.caller.inbox, params.to, refusal)
            raise refusal

    def _draft(self, params: calls.Send, inbox: str, answered: Message | None, trace: str | None) -> Draft:
        thread = (answered.thread or answered.id) if answered else None
        priority = _PRIORITIES[params.priority]
        return Draft(
            inbox,
            self.caller.inbox,
            params.body,
            params.key,
            priority,
            params.ttl_s,
            params.reply_to,
            params.headers,
            thread,
            trace,
        )

    def _admitted(self, draft: Draft, answered: Message | None) -> Judged:
        if self.caller.role is not Role.AGENT:
            return Judged(draft)
        cause = Cause.of(answered) if answered and answered.to == draft.sender else self.last
        admitted = self.parts.loops.admit(draft, cause)
        return Judged(admitted) if isinstance(admitted, Draft) else Judged(draft, admitted)


def recipients(parts: Parts, caller: Caller, target: str) -> list[str]:
    """Return the inboxes that a target names; a group leaves out the caller unless it is the only one."""
    if target == OPERATOR:
        return [OPERATOR]
    found = [agent.id for agent in parts.directory.resolve(target)]
    return [id_ for id_ in found if id_ != caller.agent_id] or found if is_group(target) else found


def may_see(caller: Caller, message: Message) -> bool:
    """Tell whether a message is the caller's to see: an agent sees what it sent or received."""
    return caller.role is not Role.AGENT or caller.agent_id in (message.sender, message.to)


# -- what became of it


async def _put(parts: Parts, judged: Sequence[Judged]) -> list[Receipt | AgentdError]:
    put = iter(await parts.mailbox.put([draft for draft, refusal in judged if refusal is None]))
    results = [
        next(put) if refusal is None else await parts.mailbox.accepted_before(draft) or refusal
        for draft, refusal in judged
    ]
    refused = [
        (draft, result) for (draft, _), result in zip(judged, results, strict=True) if isinstance(result, AgentdError)
    ]
    parts.metrics.add("messages_accepted_total", len(results) - len(refused))
    for draft, error in refused:
        parts.refusals.add(draft.sender, draft.to, error)
    return results


def _receipt(
    parts: Parts, judged: Sequence[Judged], results: Sequence[Receipt | AgentdError], *, group: bool
) -> dict[str, Any]:
    """Fold the receipts of a fan-out into one, which names those that were refused; all refused is an error."""
    receipts = [result for result in results if isinstance(result, Receipt)]
    if not receipts:
        raise next(result for result in results if isinstance(result, AgentdError))
    if not group:
        return receipt_row(parts.directory, receipts[0])
    row = receipt_row(parts.directory, receipts[0]._replace(receipts=tuple(receipts)))
    failed = [
        {"to": parts.directory.display(draft.to), **error_row(result)}
        for (draft, _), result in zip(judged, results, strict=True)
        if isinstance(result, AgentdError)
    ]
    return {**row, "failed": failed} if failed else row
