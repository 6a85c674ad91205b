"""The table: call -> function. The right needed and the types stand in wire/calls.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentd.api import (
    agents,
    daemon,
    events,
    hooks,
    loops,
    mailbox,
    messages,
    permissions,
    pool,
    projects,
    search,
    sending,
    sessions,
    teams,
    transcripts,
    worktrees,
)
from agentd.api.parts import Parts
from agentd.records import Caller
from agentd.wire.calls import CALLS, Params

Function = Callable[[Parts, Caller, Any], Any]

FUNCTIONS: dict[str, Function] = {
    "daemon.status": daemon.status,
    "daemon.shutdown": daemon.shutdown,
    "daemon.metrics": daemon.metrics,
    "config.show": daemon.config_show,
    "notify.test": daemon.notify_test,
    "agents.spawn": agents.spawn,
    "agents.starting": agents.starting,
    "agents.list": agents.list_,
    "agents.get": agents.get,
    "agents.explain": agents.explain,
    "agents.stop": agents.stop,
    "agents.respawn": agents.respawn,
    "agents.rotate_token": agents.rotate_token,
    "agents.keys": agents.keys,
    "agents.interrupt": agents.interrupt,
    "agents.approve": permissions.approve,
    "agents.deny": permissions.deny,
    "agents.capture": agents.capture,
    "agents.answer": agents.answer,
    "agents.wait": agents.wait,
    "agents.whoami": agents.whoami,
    "agents.report": hooks.report,
    "agents.follow": transcripts.follow,
    "agents.transcript": transcripts.transcript,
    "agents.own_log": transcripts.own_log,
    "messages.send": sending.send,
    "messages.send_batch": sending.send_batch,
    "messages.get": messages.get,
    "messages.thread": messages.thread,
    "messages.wait": messages.wait,
    "messages.inbox": messages.inbox,
    "messages.take": messages.take,
    "messages.extend": messages.extend,
    "messages.ack": messages.ack,
    "messages.done": messages.done,
    "messages.confirm": hooks.confirm,
    "messages.nack": messages.nack,
    "messages.dead": messages.dead,
    "messages.retry": messages.retry,
    "messages.drop": messages.drop,
    "messages.search": search.search,
    "messages.reindex": search.reindex,
    "messages.follow": messages.follow,
    "loops.list": loops.list_,
    "loops.reset": loops.reset,
    "mailbox.stats": mailbox.stats,
    "mailbox.verify": mailbox.verify,
    "mailbox.export": mailbox.export,
    "mailbox.import": mailbox.import_,
    "mailbox.compact": mailbox.compact,
    "sessions.list": sessions.list_,
    "sessions.get": sessions.get,
    "teams.up": teams.up,
    "teams.list": teams.list_,
    "teams.get": teams.get,
    "teams.down": teams.down,
    "pool.list": pool.list_,
    "pool.set": pool.set_,
    "pool.drain": pool.drain,
    "projects.get": projects.get,
    "projects.trust": projects.trust,
    "projects.untrust": projects.untrust,
    "projects.up": projects.up,
    "worktrees.list": worktrees.list_,
    "worktrees.clean": worktrees.clean,
    "profiles.list": daemon.profiles_list,
    "profiles.get": daemon.profiles_get,
    "schema": daemon.schema,
    "events.list": events.list_,
    "events.follow": events.follow,
}

assert FUNCTIONS.keys() == CALLS.keys()  # noqa: S101  checked at import, so that a call without a function cannot ship


def answer(parts: Parts, caller: Caller, method: str, params: Params, _context: object) -> Any:
    """Return the call's value, coroutine or stream."""
    return FUNCTIONS[method](parts, caller, params)
