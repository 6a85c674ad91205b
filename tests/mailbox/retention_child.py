"""`python retention_child.py DIRECTORY` removes old messages, and can be killed while it does."""

from __future__ import annotations

import asyncio
import sys
import time

from boxes import Running, open_box


async def main(directory: str) -> None:
    clock = Running()
    clock.forward(40 * 86_400)
    async with open_box(directory, clock, shards=1) as box:
        clock.forward(100)
        deadline = time.monotonic() + 20
        while (await box.counts("a")) and time.monotonic() < deadline:
            clock.forward(30)


def run(words: list[str]) -> None:
    """Live once."""
    asyncio.run(main(words[0]))


if __name__ == "__main__":
    run(sys.argv[1:])
