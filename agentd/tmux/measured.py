"""What each switch of tmux and the cache has brought, as the watch reads it: uses, time saved, failures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from agentd.cache.cache import SWITCHES, Cache
from agentd.config import Config
from agentd.switches import Reading, Switch, Switches
from agentd.tmux.fleet import Fleet


def switches_of(config: Config, cache: Cache, fleet: Fleet) -> Switches:
    """Return every switch, as it is configured."""
    tmux = config.tmux
    tiers: dict[str, Callable[[Cache], Reading]] = {
        name: _prefetch if name == "prefetch" else partial(_tier, name) for name in SWITCHES
    }
    return Switches(
        [
            Switch(
                "control_mode",
                on=tmux.control_mode,
                turn=lambda on: fleet.use_control_mode(on=on),
                read=lambda: _control_mode(fleet),
            ),
            Switch(
                "connections",
                on=tmux.connections > 1,
                turn=lambda on: fleet.use_connections(on=on),
                read=lambda: _connections(fleet),
            ),
            Switch(
                "parallel_spawn",
                on=tmux.parallel_spawn,
                turn=lambda on: fleet.use_parallel_spawn(on=on),
                read=lambda: _parallel_spawn(fleet),
            ),
            Switch(
                "servers",
                on=tmux.servers != "1",
                turn=lambda on: fleet.use_servers(on=on),
                read=lambda: _servers(fleet),
            ),
            *(
                Switch(name, on=getattr(config.cache, name), turn=partial(cache.set, name), read=partial(read, cache))
                for name, read in tiers.items()
            ),
        ]
    )


def _tier(name: str, cache: Cache) -> Reading:
    """A hit saves an ask less a look; a miss costs a look."""
    stats = cache.stats()
    tier, ask_us = stats[name], stats["ask_us"] or 0.0
    look_us = tier["lookup_us"] or 0.0
    return Reading(tier["hits"], tier["misses"], tier["faults"], (ask_us - look_us) / 1e6, look_us / 1e6)


def _prefetch(cache: Cache) -> Reading:
    """A guess that is used saves its caller an ask; one that is not costs tmux one."""
    stats = cache.stats()
    ask_s = (stats["ask_us"] or 0.0) / 1e6
    return Reading(stats["prefetch"]["used"], stats["prefetch"]["wasted"], 0, ask_s, ask_s)


def _control_mode(fleet: Fleet) -> Reading:
    """A command over a connection saves a process; what that takes was measured just before."""
    rows = [(row, server["process_ms"]) for server in fleet.stats() for row in _for_commands(server)]
    uses = sum(row["commands"] for row, _ in rows)
    saved_ms = sum(row["commands"] * (process_ms - row["each_ms"]) for row, process_ms in rows)
    faults = sum(row["timeouts"] for row, _ in rows)
    return Reading(uses, 0, faults, saved_ms / 1000 / uses if uses else 0.0)


def _connections(fleet: Fleet) -> Reading:
    """What more connections than one save is not to be seen from here; that they do not stay is."""
    rows = [row for server in fleet.stats() for row in _for_commands(server)[1:]]
    return Reading(sum(row["commands"] for row in rows), 0, sum(row["reconnects"] for row in rows))


def _parallel_spawn(fleet: Fleet) -> Reading:
    """Likewise; that starts fail is."""
    stats = fleet.stats()
    failed = sum(server["spawns_failed"] for server in stats)
    return Reading(sum(server["spawned"] for server in stats), failed, failed)


def _servers(fleet: Fleet) -> Reading:
    """Likewise; that further servers do not start is."""
    started = sum(server["spawned"] for server in fleet.stats() if server["index"] > 0)
    return Reading(started, fleet.start_failures, fleet.start_failures)


def _for_commands(server: dict[str, Any]) -> list[dict[str, Any]]:
    rows = server.get("connections", [])
    return [row for row in rows if row["role"].startswith(("calls", "bulk"))]
