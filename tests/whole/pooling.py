"""The warm pool as its tests see it: by its calls, by tmux itself, and by what is on disk."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from faults import pane_pids
from instance import Instance, wait_until

from agentd.agents.ids import id_of_session

BUSY = "pool.load_max=1000"  # whatever else runs on the machine, the pool boots
DEMO = (Path(__file__).parents[2] / "agentd/agents/profiles/demo.toml").read_text()


def pools(whole: Instance) -> list[dict[str, Any]]:
    """Return the rows of the pool."""
    with whole.client() as client:
        return list(client.call("pool.list")["pools"])


def pool(whole: Instance, profile: str = "demo") -> dict[str, Any]:
    """Return the one row of a profile."""
    (row,) = (row for row in pools(whole) if row["profile"] == profile)
    return row


def filled(whole: Instance, count: int, profile: str = "demo") -> dict[str, int]:
    """Wait until exactly so many slots are there and all of them ready; return them."""

    def ready() -> bool:
        row = pool(whole, profile)
        return (row["warm"], row["booting"]) == (count, 0) and len(slots(whole)) == count

    wait_until(ready, f"{count} slots of {profile} to be ready")
    return slots(whole)


def keep(
    whole: Instance, count: int, *, profile: str = "demo", cwd: Path | None = None, recycle: bool = False
) -> dict[str, int]:
    """Have slots kept, in the instance's own place; return the pids in their panes by their ids."""
    whole.call("pool.set", profile=profile, size=count, cwd=str(cwd or whole.place), recycle=recycle)
    return filled(whole, count, profile)


@contextmanager
def at_a_new_place(whole: Instance) -> Iterator[Instance]:
    """Give an instance that tests share with a place that no test has had; nothing runs in it afterwards."""
    whole.place = Path(tempfile.mkdtemp(prefix="place-", dir=whole.directory))
    try:
        yield whole
    finally:
        emptied(whole)


def emptied(whole: Instance) -> None:
    """End every agent and slot, and give every place up."""
    with whole.client() as client:
        for profile in {row["profile"] for row in client.call("pool.list")["pools"]}:
            client.call("pool.drain", profile=profile)
        if found := [agent["id"] for agent in client.call("agents.list")["agents"]]:
            client.call("agents.stop", targets=found, force=True)
    wait_until(lambda: not pools(whole) and not panes(whole), "nothing to run any more")


def slots(whole: Instance) -> dict[str, int]:
    """Return the panes that are no agent's, by the ids in their sessions' names."""
    named = {agent["id"] for agent in agents(whole)}
    return {id_: pid for id_, pid in panes(whole).items() if id_ not in named}


def panes(whole: Instance) -> dict[str, int]:
    """Return the pid in every pane of ours, by tmux itself."""
    found = pane_pids(whole) if whole.servers() else {}
    by_id = {id_of_session(session): pid for session, pid in found.items()}
    assert len(by_id) == len(found), f"two panes of one agent: {sorted(found)}"
    return by_id


def agents(whole: Instance) -> list[dict[str, Any]]:
    """Return the agents that have not stopped."""
    with whole.client() as client:
        return list(client.call("agents.list")["agents"])


def written_slots(whole: Instance) -> set[str]:
    """Return the ids of the slots that are on disk."""
    file = f"file:{whole.directory / 'registry.db'}?mode=ro"
    with closing(sqlite3.connect(file, uri=True)) as db:
        found = [json.loads(data) for (data,) in db.execute("SELECT data FROM agents")]
    return {agent["id"] for agent in found if agent["pooled"]}


def put_profile(whole: Instance, name: str, text: str) -> None:
    """Write a profile of the user's; a running daemon takes it up by itself."""
    directory = whole.directory / "profiles"
    directory.mkdir(exist_ok=True, mode=0o700)
    (directory / f"{name}.toml").write_text(text)


def claim(whole: Instance, **more: Any) -> dict[str, Any]:
    """Spawn one agent where slots are kept, and wait for nothing."""
    with whole.client() as client:
        params = {"profile": "demo", "cwd": str(whole.place), **more}
        return dict(client.call("agents.spawn", params)["agents"][0])


def answered(whole: Instance, *names: str) -> None:
    """Check that each of the agents acknowledges a message."""
    with whole.client() as client:
        sent = {name: client.call("messages.send", to=name, body=f"are you {name}?")["id"] for name in names}
        for id_ in sent.values():
            client.call("messages.wait", id=id_, until="acked", timeout_s=30.0)
