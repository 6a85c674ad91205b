"""Calls about the daemon, its configuration, profiles and events."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections import Counter
from typing import Any

from agentd import __version__
from agentd.api.parts import Parts
from agentd.records import AgentState, Caller
from agentd.wire import PROTOCOL, calls


def status(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """Say how the daemon is."""
    states = Counter(agent.state for agent in parts.directory)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime_s": round((time.time_ns() - parts.started_ns) / 1e9, 3),
        "protocol": PROTOCOL,
        "instance": parts.instance,
        "overrides": list(parts.overrides),
        "agents": {"live": parts.crew.count, **{state: states.get(state, 0) for state in AgentState}},
        "tmux": {"version": parts.tmux.version, "servers": _servers(parts)},
        "mailbox": {**parts.mailbox.stats(), "shard": [row._asdict() for row in parts.mailbox.standings()]},
        "transcripts": parts.transcripts.stats(),
        "cache": parts.cache.stats(),
        "switches": [switch.row() for switch in parts.switches],
        "pool": parts.pool.rows(),
        "hooks": parts.errands.stats(),
        "rss_mb": round(_rss_bytes() / 1e6, 1),
    }


def _servers(parts: Parts) -> list[dict[str, Any]]:
    """Return each server with what its connections counted."""
    counted = {row["index"]: row for row in parts.tmux.stats()}
    return [{**counted.get(row["index"], {}), **row} for row in parts.tmux.servers()]


def _rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux, bytes on macOS


def shutdown(parts: Parts, _caller: Caller, params: calls.Shutdown) -> dict[str, Any]:
    """Stop the daemon after this answer."""
    parts.request_stop(params.agents)
    return {"pid": os.getpid(), "agents": params.agents}


def metrics(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """Return counters and gauges."""
    return parts.metrics.snapshot()


def config_show(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """Return each setting, its value and where it came from."""
    return {"settings": parts.config.rows()}


async def notify_test(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """Run the commands of the configuration's [hooks] once, with an example."""
    return {"hooks": await parts.errands.test()}


def schema(_parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """Return the table of calls with its types."""
    return calls.schema()


def profiles_list(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """List profiles."""
    return {"profiles": parts.profiles.rows()}


def profiles_get(parts: Parts, _caller: Caller, params: calls.OneProfile) -> dict[str, Any]:
    """Return one profile's data as it is in force, where it came from, and what is wrong with its file now."""
    profile, problem = parts.profiles.get(params.name), parts.profiles.problem(params.name)
    origin = parts.profiles.origin(params.name)
    return {**profile.data(), "origin": origin, "error": problem.message if problem else None}
