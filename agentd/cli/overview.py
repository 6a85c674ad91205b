"""What `agentd top` shows, live or once: agents in order of interest, and the daemon's totals."""

from __future__ import annotations

from typing import Any, NamedTuple

from agentd.cli.agents import state_of
from agentd.cli.output import cell, duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HEADS = ("NAME", "STATE", "FOR", "INBOX", "TEAM", "PROFILE", "REASON")
_INTEREST = ("waiting", "failed", "working", "starting", "idle", "stopped")
ORDERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "state": lambda agent: _INTEREST.index(agent["state"]) if agent["state"] in _INTEREST else 0,
    "inbox": lambda agent: -agent["inbox"],
    "since": lambda agent: agent["since_s"],
    "team": lambda agent: agent["team"] or "~",  # those of no team last
    "name": lambda _agent: 0,
}


class Counted(NamedTuple):
    """What the daemon had counted at a moment of its life."""

    uptime_s: float
    messages: float
    cpu_s: float


BORN = Counted(0.0, 0.0, 0.0)


def in_order(agents: Sequence[dict[str, Any]], order: str, wanted: str = "") -> list[dict[str, Any]]:
    """Return the agents that the text is found in, in an order of ORDERS and then by name."""
    text = wanted.lower()
    found = [agent for agent in agents if not text or any(text in part.lower() for part in row_of(agent))]
    return sorted(found, key=lambda agent: (ORDERS[order](agent), agent["name"]))


def row_of(agent: Mapping[str, Any]) -> tuple[str, ...]:
    """Return an agent's cells below HEADS."""
    cells = (
        *(agent["name"], state_of(dict(agent)), duration(agent["since_s"]), agent["inbox"] or ""),
        *(agent["team"], agent["profile"], agent["reason"]),
    )
    return tuple(map(cell, cells))


def counted(status: Mapping[str, Any], metrics: Mapping[str, float]) -> Counted:
    """Return what two answers of the daemon say together."""
    messages, cpu_s = metrics.get("messages_accepted_total", 0.0), metrics.get("cpu_seconds_total", 0.0)
    return Counted(status["uptime_s"], messages, cpu_s)


def totals(status: Mapping[str, Any], before: Counted, now: Counted) -> str:
    """Return one line about the daemon; rates are those since `before`, and since its start where it is a new one."""
    if now.uptime_s <= before.uptime_s:
        before = BORN
    took_s = max(now.uptime_s - before.uptime_s, 1e-3)
    states = ", ".join(f"{count} {state}" for state in _INTEREST if (count := status["agents"].get(state)))
    warm = sum(row.get("warm", 0) for row in status["pool"])
    parts = (
        states or "no agents",
        f"{(now.messages - before.messages) / took_s:.1f} messages/s",
        f"{status['mailbox'].get('waiting', 0)} wait",
        f"daemon {100 * (now.cpu_s - before.cpu_s) / took_s:.1f} % CPU, up {duration(now.uptime_s)}",
        f"pool {warm} warm" if status["pool"] else "no pool",
    )
    return " · ".join(parts)
