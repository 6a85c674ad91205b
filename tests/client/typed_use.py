"""What a type checker says of programs that use the clients: mypy fails where an ignore below is not needed."""

from __future__ import annotations

import agentd
from agentd.aio import AsyncClient


def blocking(client: agentd.Client) -> None:
    """Use the blocking client."""
    rows = client.agents_list(target="@reviewers", state="idle")["agents"]
    print(rows, client.agents_wait(target="a", until="idle", timeout_s=3))
    for event in client.events_follow(types=["agent.state"], heartbeat_s=10):
        print(event["id"])
    for event in client.events(follow=True, targets=["@reviewers"], patience_s=5):
        print(event["type"])
    client.events(follows=True)  # type: ignore[call-arg]
    client.events(since="yesterday")  # type: ignore[arg-type]
    client.agents_list(target=1)  # type: ignore[arg-type]
    client.agents_list(state="asleep")  # type: ignore[arg-type]
    client.agents_get()  # type: ignore[call-arg]
    client.agents_dance()  # type: ignore[attr-defined]


async def waiting(client: AsyncClient) -> None:
    """Use the asynchronous client."""
    print((await client.agents_list())["agents"])
    async for event in client.events_follow():
        print(event["id"])
    async for event in client.events(follow=True):
        print(event["id"])
    client.events(follows=True)  # type: ignore[call-arg]
    print(client.agents_list()["agents"])  # type: ignore[index]
