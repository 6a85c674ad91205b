"""What the configuration allows the pool, and what the machine could ever hold."""

from __future__ import annotations

from typing import Final

from agentd.agents import machine
from agentd.agents.snapshot import Limits
from agentd.config import PoolConfig
from agentd.errors import OverLimit

_MB: Final = 1_000_000


def limits_of(config: PoolConfig) -> Limits:
    """Return the limits that decisions are made within; a pool that is off has no slots."""
    return Limits(
        boots_at_once=config.boots_at_once,
        max_slots=config.max_slots if config.enabled else 0,
        max_age_s=config.max_age_s,
        max_boot_s=config.max_boot_s,
        grace_s=config.grace_s,
        memory_per_slot_bytes=config.slot_mb * _MB,
        memory_reserve_bytes=config.reserve_mb * _MB,
        load_max=config.load_max,
    )


def check_size(config: PoolConfig, size: int) -> None:
    """Raise OverLimit for more slots than are allowed, or than this machine's memory could hold."""
    if size > config.max_slots:
        raise OverLimit(
            f"{size} slots are more than pool.max_slots = {config.max_slots}; nothing was changed", hint="ask for fewer"
        )
    total = machine.total_bytes()
    if total is not None and size * config.slot_mb * _MB > total - config.reserve_mb * _MB:
        raise OverLimit(
            f"{size} slots of about {config.slot_mb} MB are more than this machine's memory allows "
            f"({total // _MB} MB, {config.reserve_mb} MB reserved); nothing was changed",
            hint="ask for fewer, or tell how much one takes: pool.slot_mb",
        )
