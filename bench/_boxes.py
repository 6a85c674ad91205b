"""What the benches of the mailbox share: a place on the disk, a mailbox in it, and figures."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from agentd.config import MailboxConfig
from agentd.mailbox.mailbox import Mailbox

BODY = "x" * 200
SHARDS = MailboxConfig().shards


@contextmanager
def directory() -> Iterator[Path]:
    """Give a directory in TMPDIR."""
    place = Path(tempfile.mkdtemp(prefix="agentd-bench-"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


@asynccontextmanager
async def opened(place: Path, shards: int = SHARDS, **settings: Any) -> AsyncIterator[Mailbox]:
    """Open a mailbox without the limits that a bench would reach."""
    config = MailboxConfig(shards=shards, reserve_mb=1, max_inbox_messages=10_000_000, **settings)
    async with Mailbox.open(place / "box", config, lambda _changes: None) as box:
        yield box


def quantile_ms(values_s: Sequence[float], q: float) -> float:
    """Return a quantile of some seconds in milliseconds."""
    return sorted(values_s)[int(q * (len(values_s) - 1))] * 1e3


def spread(values: Sequence[float]) -> float:
    """Return (greatest - least) / median."""
    median = statistics.median(values)
    return (max(values) - min(values)) / median if median else 0.0


def progress(text: str) -> None:
    """Say on a terminal what is under way; an empty text wipes the line."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
