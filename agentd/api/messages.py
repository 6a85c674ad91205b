"""Calls about messages."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from agentd.api.event_rows import event_row
from agentd.api.parts import Parts
from agentd.api.sending import may_see, recipients, send_batch
from agentd.api.views import message_row, outcome
from agentd.api.waits import CallersWait
from agentd.errors import DeadlineExceeded, Denied, InvalidValue, NotFound
from agentd.records import OPERATOR, Caller, Change, Event, Message, MessageState, Role
from agentd.wire import calls

OPEN = (MessageState.ACCEPTED, MessageState.DELIVERING, MessageState.DELIVERED)
READ_BYTES = 4 * 1024 * 1024  # of one inbox in one answer
MOST_ACKED = 10_000  # of one inbox at once; more are acknowledged by doing it again
UNREAD = (MessageState.ACCEPTED, MessageState.DELIVERING)
REACHED = {  # what `--wait STATE` is satisfied by
    "accepted": frozenset(MessageState),
    "delivered": frozenset({MessageState.DELIVERED, MessageState.ACKED}),
    "acked": frozenset({MessageState.ACKED}),
}


async def get(parts: Parts, caller: Caller, params: calls.OneMessage) -> dict[str, Any]:
    """Return a message that the caller sent or received, with why it still waits."""
    message = await _visible(parts, caller, params.id)
    row = message_row(parts.directory, message)
    row["waits_for"] = _waits_for(parts, message)
    return row


async def thread(parts: Parts, caller: Caller, params: calls.MessagesThread) -> dict[str, Any]:
    """Return the conversation that a message belongs to, oldest first."""
    message = await _visible(parts, caller, params.id)
    party = caller.agent_id if caller.role is Role.AGENT else None
    found = await parts.mailbox.thread(message.thread or message.id, params.limit, party)
    return {"messages": [message_row(parts.directory, each) for each in found]}


def _waits_for(parts: Parts, message: Message) -> str:
    if message.state not in UNREAD:
        return ""
    if message.to == OPERATOR:
        return "the operator to read it: agentd inbox"
    agent = parts.directory.get(message.to)
    return f"{agent.name} is {agent.state}: {agent.reason}" if agent else "its recipient is gone"


async def _visible(parts: Parts, caller: Caller, id_: str) -> Message:
    message = await parts.mailbox.get(id_)
    if not may_see(caller, message):
        raise NotFound(f"no message `{id_}`", hint="an agent sees the messages it sent or received")
    return message


async def wait(parts: Parts, caller: Caller, params: calls.MessagesWait) -> Any:
    """Wait until a message reached a state or was answered."""
    kind = _ReplyWait if params.until == "reply" else _StateWait
    return await kind(parts, caller, params).begin()


class _MessageWait(CallersWait):
    """A wait for what becomes of a message."""

    __slots__ = ("_until",)
    method = "messages.wait"

    def __init__(self, parts: Parts, caller: Caller, params: calls.MessagesWait) -> None:
        super().__init__(parts, caller, params.id, params.timeout_s)
        self._until: str = params.until


class _StateWait(_MessageWait):
    """A wait for a message's state, or its end."""

    __slots__ = ()

    def wanted(self, what: Change | Event) -> bool:
        """Tell whether the message is as it is wanted, or will never be."""
        if not (isinstance(what, Change) and what.id == self.key):
            return False
        return what.state in REACHED[self._until] or what.state.final

    async def look(self, *, over: bool) -> dict[str, Any] | None:
        """Return the message when it reached the state."""
        message = await _visible(self._parts, self._caller, self.key)
        if message.state in REACHED[self._until]:
            return {"message": message_row(self._parts.directory, message)}
        if not (over or message.state.final):
            return None
        where = _waits_for(self._parts, message) or f"it is {message.state}"
        raise DeadlineExceeded(
            f"{self.key} was not {self._until} in {self.timeout_s:g} s; {where}", hint=f"agentd msg {self.key}"
        )


class _ReplyWait(_MessageWait):
    """A wait for a message's answer."""

    __slots__ = ("_sender",)

    def __init__(self, parts: Parts, caller: Caller, params: calls.MessagesWait) -> None:
        super().__init__(parts, caller, params)
        self._sender = ""  # who is answered; an answer that comes before that is known is found by looking

    def wanted(self, what: Change | Event) -> bool:
        """Tell whether a message is the answer."""
        if not isinstance(what, Change):
            return False
        return (what.reply_to, what.to, what.state) == (self.key, self._sender, MessageState.ACCEPTED)

    async def look(self, *, over: bool) -> dict[str, Any] | None:
        """Return the message and its answer when there is one."""
        message = await _visible(self._parts, self._caller, self.key)
        self._sender = message.sender
        reply = await self._parts.mailbox.answer_to(message.sender, message.id)
        if reply is not None:
            directory = self._parts.directory
            return {"message": message_row(directory, message), "reply": message_row(directory, reply)}
        if not over:
            return None
        raise DeadlineExceeded(
            f"no answer to {self.key} in {self.timeout_s:g} s; it is {message.state}", hint=f"agentd msg {self.key}"
        )


async def inbox(parts: Parts, caller: Caller, params: calls.Inbox) -> Any:
    """List an inbox; an owner who reads it has the messages delivered by that."""
    owner = caller.inbox if params.target in (None, OPERATOR, caller.name) else _other_inbox(parts, caller, params)
    if params.target == OPERATOR and caller.role is Role.AGENT:
        raise Denied("an agent cannot read the operator's inbox")
    if owner == caller.inbox and params.wait_s:
        return await _Arrival(parts, caller, params).begin()
    return await _listed(parts, caller, owner, params)


class _Arrival(CallersWait):
    """A wait for something new in the caller's own inbox."""

    __slots__ = ("_params",)
    method = "messages.inbox"

    def __init__(self, parts: Parts, caller: Caller, params: calls.Inbox) -> None:
        super().__init__(parts, caller, caller.inbox, params.wait_s)
        self._params = params

    def wanted(self, what: Change | Event) -> bool:
        """Tell whether a message has come."""
        return isinstance(what, Change) and what.to == self.key and what.state is MessageState.ACCEPTED

    async def look(self, *, over: bool) -> dict[str, Any] | None:
        """Return the inbox when there is something in it, or nothing came in time."""
        if not (over or self._parts.mailbox.depth(self.key)):
            return None
        return await _listed(self._parts, self._caller, self.key, self._params)


async def _listed(parts: Parts, caller: Caller, owner: str, params: calls.Inbox) -> dict[str, Any]:
    states = list(MessageState) if params.all else list(OPEN)
    taken = await _read_own(parts, owner, params.limit) if owner == caller.inbox else []
    messages = await parts.mailbox.inbox(owner, states, params.limit)
    listed = {message.id for message in messages}
    messages += [await parts.mailbox.get(id_) for id_ in taken if id_ not in listed]  # what was marked is shown
    messages.sort(key=lambda message: message.id)
    refused = parts.refusals.read(owner) if owner == caller.inbox else parts.refusals.rows(owner)
    return {"messages": [message_row(parts.directory, message) for message in messages], "refused": refused}


async def _read_own(parts: Parts, owner: str, limit: int) -> list[str]:
    """Mark what waits in an inbox as delivered; leased first, so that the courier does not type what is read here."""
    taken = await parts.mailbox.reserve(owner, limit, READ_BYTES, parts.config.courier.lease_s)
    await parts.mailbox.deliver(taken, "read from the inbox")
    return [delivery.message.id for delivery in taken]


def _other_inbox(parts: Parts, caller: Caller, params: calls.Inbox) -> str:
    agent = parts.directory.one(params.target or "")
    if caller.role is Role.AGENT and agent.id != caller.agent_id:
        raise Denied("an agent can read its own inbox only")
    return agent.id


async def take(parts: Parts, caller: Caller, params: calls.Take) -> dict[str, Any]:
    """Lease the next messages of the caller's inbox; whoever holds one says so by its `lease`."""
    most = parts.config.courier.max_attempts
    taken = await parts.mailbox.reserve(caller.inbox, params.limit, READ_BYTES, params.lease_s, most)
    rows = [
        {**message_row(parts.directory, message), "lease": f"{message.id}#{attempt}"}
        for message, attempt in ((delivery.message, delivery.attempt) for delivery in taken)
    ]
    return {"messages": rows, "lease_s": params.lease_s, "refused": parts.refusals.read(caller.inbox)}


async def extend(parts: Parts, caller: Caller, params: calls.Extend) -> dict[str, Any]:
    """Hold taken messages longer; an agent its own only."""
    return outcome(params.ids, await parts.mailbox.extend(params.ids, params.lease_s, _owner(caller)))


def _owner(caller: Caller) -> str | None:
    """Return whose messages the caller may settle; None for everybody's."""
    return caller.agent_id if caller.role is Role.AGENT else None


async def ack(parts: Parts, caller: Caller, params: calls.Ack) -> dict[str, Any]:
    """Say that messages were dealt with; an agent can say it of its own only."""
    if params.all == bool(params.ids):
        raise InvalidValue("say which ids, or all of them", field="ids", hint="give either ids or all")
    ids = await _delivered(parts, caller.inbox) if params.all else params.ids
    errors = await parts.mailbox.ack(ids, caller.name, _owner(caller))
    parts.metrics.add("messages_acked_total", errors.count(None))
    return outcome(ids, errors)


async def _delivered(parts: Parts, inbox: str) -> list[str]:
    found = await parts.mailbox.inbox(inbox, [MessageState.DELIVERED], MOST_ACKED)
    return [message.id for message in found]


async def done(parts: Parts, caller: Caller, params: calls.Done) -> dict[str, Any]:
    """Answer the caller's messages and acknowledge those whose answer was accepted, or that need none."""
    ids = list(params.ids) or await _delivered(parts, caller.inbox)
    found = await parts.mailbox.origins(_message_id(taken) for taken in ids)
    asked = [id_ for id_ in ids if params.result and _wants_answer(found.get(_message_id(id_)), caller)]
    answers = [_answer_to(found[_message_id(id_)], params.result) for id_ in asked]
    sent = (await send_batch(parts, caller, calls.SendBatch(messages=answers)))["results"]
    refused = {id_: row for id_, row in zip(asked, sent, strict=True) if "error" in row}
    left = [id_ for id_ in ids if id_ not in refused]
    settled = outcome(left, await parts.mailbox.ack(left, caller.name, _owner(caller)))
    parts.metrics.add("messages_acked_total", len(settled["done"]))
    return {
        "done": settled["done"],
        "failed": [*({"id": id_, "error": row["error"]} for id_, row in refused.items()), *settled["failed"]],
        "answers": [row for row in sent if "error" not in row],
    }


def _message_id(taken: str) -> str:
    return taken.partition("#")[0]


def _wants_answer(message: Message | None, caller: Caller) -> bool:
    """Tell whether a message is the caller's to answer; to answer answers would never end."""
    return message is not None and message.to == caller.inbox and message.reply_to is None


def _answer_to(message: Message, result: str) -> dict[str, Any]:
    digest = hashlib.blake2b(result.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return {"to": message.sender, "body": result, "reply_to": message.id, "key": f"done-{message.id}-{digest}"}


async def nack(parts: Parts, caller: Caller, params: calls.Nack) -> dict[str, Any]:
    """Give messages back; they are offered again."""
    detail = params.detail or f"given back by {caller.name}"
    limit = parts.config.courier.max_attempts
    errors = await parts.mailbox.nack(params.ids, params.delay_s, detail, limit, agent=_owner(caller))
    return outcome(params.ids, errors)


async def dead(parts: Parts, _caller: Caller, params: calls.Dead) -> dict[str, Any]:
    """List dead letters."""
    if params.target is None:
        inboxes = [OPERATOR, *(agent.id for agent in parts.directory)]
    else:
        inboxes = recipients(parts, _caller, params.target)
    messages: list[Message] = []
    for owner in inboxes:
        messages += await parts.mailbox.inbox(owner, [MessageState.DEAD], params.limit)
    messages.sort(key=lambda message: message.id)
    return {"messages": [message_row(parts.directory, message) for message in messages[: params.limit]]}


async def retry(parts: Parts, _caller: Caller, params: calls.Ids) -> dict[str, Any]:
    """Offer dead letters again."""
    return outcome(params.ids, await parts.mailbox.retry(params.ids))


async def drop(parts: Parts, _caller: Caller, params: calls.Ids) -> dict[str, Any]:
    """Delete dead letters."""
    return outcome(params.ids, await parts.mailbox.drop(params.ids))


async def follow(parts: Parts, caller: Caller, params: calls.MessagesFollow) -> AsyncIterator[dict[str, Any]]:
    """Stream the changes of messages that the caller may see."""
    watched = set(recipients(parts, caller, params.target)) if params.target else set()
    if caller.role is Role.AGENT:
        watched = {caller.agent_id}

    def wanted(event: Event) -> bool:
        return not watched or bool({event.data.get("to_id"), event.data.get("from_id")} & watched)

    async with aclosing(
        parts.events.follow(params.since, ["message.*"], wanted=wanted, heartbeat_s=params.heartbeat_s)
    ) as events:
        async for event in events:
            yield event_row(event)
