"""Everything works with each switch off; one that fails is turned off by itself, and told of."""

from __future__ import annotations

import itertools
import time
from itertools import islice
from typing import Any

import pytest
from faults import form
from instance import Instance, instance, wait_until

OFF = [
    ("control_mode", "tmux.control_mode=false"),
    ("connections", "tmux.connections=1"),
    ("parallel_spawn", "tmux.parallel_spawn=false"),
    ("servers", "tmux.servers=1"),
    ("l1", "cache.l1=false"),
    ("l2", "cache.l2=false"),
    ("l3", "cache.l3=false"),
    ("prefetch", "cache.prefetch=false"),
]
EACH = [pytest.param([row], id=row[0]) for row in OFF]
TOGETHER = [  # what is of one kind
    EACH[0],
    pytest.param(OFF[1:4], id="connections, parallel_spawn and servers"),
    pytest.param(OFF[4:], id="the cache"),
]
LINES = itertools.cycle(range(1, 10_000))
NO_REDIS = "cache.redis_url=unix:///nonexistent/redis.sock"


def switch(whole: Instance, name: str) -> dict[str, Any]:
    with whole.client() as client:
        return next(row for row in client.call("daemon.status")["switches"] if row["name"] == name)


@pytest.mark.parametrize("off", form(TOGETHER, EACH))
def test_everything_works_without_it(off: list[tuple[str, str]]):
    names = [name for name, _ in off]
    with instance() as whole:
        whole.up(*(setting for _, setting in off))
        for row in [switch(whole, name) for name in names]:
            assert (row["on"], row["why"]) == (False, "off by configuration")
        with whole.client() as client:
            client.call("agents.spawn", profile="sh", n=3, cwd=str(whole.directory))
            for number in (1, 2, 3):
                client.call("agents.wait", target=f"sh-{number}", until="idle", timeout_s=30.0)
            assert len(client.call("sessions.list")["sessions"]) == 3
            again = client.call("sessions.list")
            assert again["tier"] != "l1" or "l1" not in names
            id_ = client.send("sh-2", "echo 'it' works").id
            client.call("messages.wait", id=id_, until="delivered", timeout_s=30.0)
            wait_until(lambda: "it works" in client.call("agents.capture", target="sh-2")["text"], "the answer")
            client.call("agents.stop", targets=["sh-1"])
            assert len(client.call("sessions.list")["sessions"]) == 2
            connections = client.call("daemon.status")["tmux"]["servers"][0]["connections"]
        assert len(connections) == (3 if "connections" in names else 4)
        said = whole.cli("status").stdout
        assert [name for name in names if name not in said] == []


def ask_often(whole: Instance) -> None:
    """Have the third tier looked at again and again: each screen is another question."""
    with whole.client() as client:
        for lines in islice(LINES, 200):
            client.call("agents.capture", target="sh-1", lines=lines)


def test_one_that_fails_is_turned_off_and_told_of():
    """A third tier that answers nothing: off after a few looks, with an event; everything else goes on."""
    with instance() as whole:
        whole.up(NO_REDIS, "watch.period_s=0.2")
        whole.spawn("sh")
        end = time.monotonic() + 60
        while switch(whole, "l3")["on"]:
            ask_often(whole)
            assert time.monotonic() < end
        row = switch(whole, "l3")
        assert "uses" in row["why"]
        with whole.client() as client:
            (event,) = client.call("events.list", types=["switch.off"])["events"]
            assert event["data"]["name"] == "l3"
            assert client.call("agents.capture", target="sh-1")["text"].endswith("$")
        assert "l3 off" in whole.cli("status").stdout


def test_the_watch_can_be_told_not_to():
    """The same trouble, and nothing is turned off."""
    with instance() as whole:
        whole.up(NO_REDIS, "watch.period_s=0.1", "watch.enabled=false")
        whole.spawn("sh")
        for _ in range(2):
            ask_often(whole)
        assert switch(whole, "l3")["on"]
