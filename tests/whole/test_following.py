"""Following a real daemon through its restarts and its death: filters, ids, gaps, transcripts, the access log."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from instance import Instance, instance, wait_until

from agentd import aio
from agentd.errors import AgentdError, InvalidValue

FORGED = 'x\n{"level": "error", "event": "forged"}'


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    with instance() as whole:
        yield whole


@pytest.fixture
def whole(shared: Instance) -> Instance:
    """Give the instance that all of these tests share, with a daemon that runs."""
    if not (shared.directory / "agentd.sock").exists():
        shared.up()
    return shared


def last_event(whole: Instance) -> int:
    with whole.client() as client:
        return int(client.call("events.list", {"limit": 1})["last"])


class Follower:
    """A thread that follows events and goes on by itself."""

    def __init__(self, whole: Instance, **params: Any) -> None:
        self.seen: list[dict[str, Any]] = []
        self.error: AgentdError | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(whole, params), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self, whole: Instance, params: dict[str, Any]) -> None:
        try:
            with whole.client() as client:
                since = client.call("events.list", {"limit": 1})["last"]
                self._ready.set()
                for event in client.events(follow=True, since=since, **params):
                    self.seen.append(event)
        except AgentdError as error:
            self.error = error

    def accepted(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many messages were seen to be accepted; return all that was seen."""
        wait_until(lambda: self.error or len(of(self.seen, "message.accepted")) >= count, f"{count} messages")
        assert self.error is None, (self.error.message, self.seen)
        return self.seen

    def end(self) -> None:
        """Wait until it has given up."""
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def follow(whole: Instance) -> Any:
    return lambda **params: Follower(whole, **params)


def of(events: list[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == type_]


def test_a_follower_misses_nothing_through_an_orderly_restart(whole: Instance, follow: Any):
    """Neither with the client that blocks nor with the asynchronous one."""
    follower = follow(types=["daemon.*", "message.accepted"])
    with whole.client() as client:
        sent = [client.send("operator", "one").id]
    assert anyio.run(seen_in_a_restart, whole) == ["daemon.stopping", "daemon.started"]
    with whole.client() as client:
        sent.append(client.send("operator", "two").id)
    follower.accepted(2)
    types = [event["type"] for event in follower.seen]
    assert types == ["message.accepted", "daemon.stopping", "daemon.started", "message.accepted"]
    assert [event["data"]["ids"] for event in of(follower.seen, "message.accepted")] == [[id_] for id_ in sent]


async def seen_in_a_restart(whole: Instance) -> list[str]:
    """Restart the daemon; return what the asynchronous client, which follows, sees of it."""
    seen: list[str] = []
    async with aio.connect(environ=whole.environ, autostart=False) as client:
        since = (await client.call("events.list", {"limit": 1}))["last"]

        async def restart() -> None:
            await anyio.to_thread.run_sync(whole.cli, "restart")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(restart)
            with anyio.fail_after(30):
                async for event in client.events(follow=True, since=since, types=["daemon.*"]):
                    seen.append(event["type"])
                    if event["type"] == "daemon.started":
                        break
    return seen


def test_after_a_kill_ids_are_new_and_what_is_not_known_is_told(whole: Instance, follow: Any):
    follower = follow(types=["message.*"])
    with whole.client() as client:
        client.send("operator", "one")
    follower.accepted(1)
    whole.kill()
    whole.cli("up")
    with whole.client() as client:
        client.send("operator", "two")
    follower.accepted(2)
    ids = [event["id"] for event in follower.seen]
    assert ids == sorted(set(ids))
    [gap] = of(follower.seen, "gap")
    before, after = of(follower.seen, "message.accepted")
    assert before["id"] < gap["data"]["first"] <= gap["data"]["last"] < after["id"]
    with whole.client() as client, pytest.raises(InvalidValue, match="has not happened here"):
        next(iter(client.stream("events.follow", {"since": ids[-1] + 10**9})))


def test_a_daemon_that_does_not_come_back_is_told(whole: Instance, follow: Any):
    follower = follow(patience_s=0.5)
    whole.cli("down")
    follower.end()
    assert follower.error is not None
    assert follower.error.code == "unavailable"
    assert follower.seen[-1]["type"] == "daemon.stopping"


def test_events_are_filtered_by_whom_they_are_about(whole: Instance):
    ann = whole.spawn("shell", name="ann", team="red", role="lead")
    bob = whole.spawn("shell", name="bob", team="red")
    whole.spawn("demo", name="cid")
    with whole.client() as client:
        client.send("bob", "true")
        client.call("messages.wait", {"id": client.send("cid", "hello").id, "until": "acked", "timeout_s": 20.0})

        def about(*targets: str) -> set[str]:
            found = client.call("events.list", {"targets": targets, "limit": 10_000})["events"]
            return {e["data"].get("name") or e["data"].get("to_name") for e in found if e["type"] != "gap"}

        assert about("ann") == {"ann"}
        assert about(bob["id"]) == {"bob"}
        assert about("@red") == {"ann", "bob"}
        assert about("@red/lead") == {"ann"}
        assert about("%demo") >= {"cid"}
        assert about("ann", "cid") >= {"ann", "cid"}
        assert about("nobody") == set()
        every = client.call("events.list", {"limit": 10_000})["events"]
        assert {e["type"] for e in every} >= {"daemon.started", "agent.state"}
        [beat] = take(1, client.stream("events.follow", {"targets": [ann["id"]], "heartbeat_s": 0.1}))
        assert beat["type"] == "heartbeat"
        page = client.call("events.list", {"limit": 3})
        assert client.call("events.list", {"limit": 1, "since": page["next"]})["events"] == every[3:4]


def take(count: int, items: Any) -> list[Any]:
    return [next(items) for _ in range(count)]


def test_messages_are_followed_from_an_event_on(whole: Instance):
    with whole.client() as client:
        since = last_event(whole)
        first = client.send("operator", "one").id
        [event] = client.call("events.list", {"types": ["message.accepted"], "since": since})["events"]
        second = client.send("operator", "two").id
        stream = client.stream("messages.follow", {"since": event["id"] - 1, "heartbeat_s": 0.1})
        assert [item["data"]["ids"] for item in take(2, stream)] == [[first], [second]]
        assert take(1, stream)[0]["type"] == "heartbeat"


def test_a_transcript_is_not_followed_from_where_it_has_not_been(whole: Instance):
    whole.spawn("shell", name="told")
    with whole.client() as client:
        with pytest.raises(InvalidValue, match="the transcript ends at"):
            next(iter(client.stream("agents.follow", {"target": "told", "offset": 10**12})))
        end = client.call("agents.transcript", {"target": "told"})["end"]
        client.call("agents.keys", {"target": "told", "keys": [*"echo", "Space", *"hi", "Enter"]})
        stream = client.stream("agents.follow", {"target": "told", "offset": end}, timeout_s=20)
        part = next(iter(stream))
        assert part["offset"] == end  # nothing between what was read and what follows


def test_what_an_agent_was_refused_stands_in_the_access_log(whole: Instance):
    path = whole.directory / "access.jsonl"
    size = path.stat().st_size if path.exists() else 0
    agent = whole.spawn("shell", name="eve")
    token = (whole.directory / "agents" / agent["id"] / "token").read_text().strip()
    with whole.client(token=token) as client:
        for method in ("agents.stop", FORGED):
            with pytest.raises(AgentdError):
                client.call(method, {"targets": [FORGED]})
    with whole.client() as client:
        client.call("agents.stop", {"targets": [FORGED]})
    lines = [json.loads(line) for line in path.read_text()[size:].splitlines()]
    refused = [line for line in lines if line["what"] == "refused"]
    assert [(line["name"], line["method"], line["code"]) for line in refused] == [("eve", "agents.stop", "denied")]
    done = [line for line in lines if line["what"] == "done"]
    assert [line["method"] for line in done] == ["agents.spawn", "agents.stop"]
    assert done[-1]["targets"] == [FORGED]
    assert token not in path.read_text()
    for line in (whole.directory / "agentd.log").read_text().splitlines():
        assert json.loads(line)["event"] != "forged"
