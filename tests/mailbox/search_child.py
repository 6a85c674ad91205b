"""A mailbox and its search in a process that will be killed: python search_child.py DIRECTORY ENGINE MESSAGES."""

from __future__ import annotations

import sys

import anyio

from agentd.config import MailboxConfig, SearchConfig
from agentd.mailbox.mailbox import Mailbox
from agentd.mailbox.search import Search
from agentd.records import Draft


async def main(directory: str, engine: str, messages: int) -> None:
    told: list[Search] = []
    config = MailboxConfig(reserve_mb=0, shards=2)
    async with Mailbox.open(directory, config, lambda changes: [s.on_changes(changes) for s in told]) as box:
        settings = SearchConfig(engine=engine, pace_s=0.01)
        async with Search.open(directory, settings, box, print) as search, anyio.create_task_group() as tasks:
            told.append(search)
            await tasks.start(search.run)
            for number in range(messages):
                await box.put([Draft(to=f"agent-{number % 5}", sender="s", body=f"needle {number}")])
                if number % 50 == 49:  # so that there are several commits
                    while await search.behind():
                        await anyio.sleep(0.01)
                    print("indexed", flush=True)
            tasks.cancel_scope.cancel()


def run(words: list[str]) -> None:
    """Live once."""
    anyio.run(main, words[0], words[1], int(words[2]))


if __name__ == "__main__":
    run(sys.argv[1:])
