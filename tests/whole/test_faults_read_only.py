"""The daemon's disk takes no writes for a while: it says so, goes on reading, and recovers without a restart (F19)."""

from __future__ import annotations

import resource
import sys
import time

import pytest
from faults import say
from instance import Instance, wait_until

from agentd.errors import StorageError
from agentd.mailbox.ids import home_of
from agentd.records import OPERATOR

BACK_S = 3.0
SHARDS = 2
SHARD = f"s{home_of(OPERATOR, SHARDS):02d}.db"  # of the inbox that is sent to; others may fail as well


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can change another process's limits")
def test_a_disk_that_takes_no_writes_is_told_of_and_waited_for(running: Instance):
    agent = running.spawn()
    pid = running.pid()
    with running.client() as client:
        kept = client.send("operator", "kept", key="k1")
        usual = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, usual[1]))
        with pytest.raises(StorageError):
            client.send("operator", "while it fails", key="k2")
        shard = wait_until(lambda: _read_only(running), "a shard to be told as read-only")
        assert shard["reason"]
        assert shard["name"] in running.cli("status").stdout
        with pytest.raises(StorageError, match=rf"{shard['name']} cannot be written since"):
            client.send("operator", "while it fails", key="k2")
        assert client.call("messages.get", id=kept.id)["body"] == "kept"
        assert client.send("operator", "kept", key="k1").id == kept.id

        resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)
        begun_s = time.monotonic()
        wait_until(lambda: not _read_only(running), "the shard to be written again", BACK_S)
        say(f"F19: back {time.monotonic() - begun_s:.2f} s after the disk")
        first = client.send("operator", "while it fails", key="k2")
        assert client.send("operator", "while it fails", key="k2").id == first.id
        bodies = [m["body"] for m in client.call("messages.inbox", target="operator", all=True)["messages"]]
        assert sorted(bodies) == ["kept", "while it fails"]
        events = client.call("events.list", types=["mailbox.shard"])["events"]
        states = [event["data"]["state"] for event in events if event["data"]["name"] == shard["name"]]
        assert states == ["read-only", "ok"]
        assert client.call("agents.get", target=agent["id"])["pid"] == agent["pid"]
    assert running.pid() == pid


def _read_only(whole: Instance) -> dict | None:
    shards = whole.json("status")["mailbox"]["shard"]
    assert len(shards) == SHARDS
    return next((shard for shard in shards if (shard["name"], shard["state"]) == (SHARD, "read-only")), None)
