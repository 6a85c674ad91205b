"""`agentd search` on a whole instance: what is sent is found, by those who may, after whatever happened."""

from __future__ import annotations

import time
from typing import Any

import pytest
from instance import Instance, wait_until

from agentd.client import Client
from agentd.errors import Denied, InvalidValue, UnknownTarget


def search(client: Client, query: str, **more: Any) -> list[str]:
    """Return the ids found once the index has caught up."""
    wait_until(lambda: client.call("messages.search", {"query": query})["indexed_behind"] == 0, "the index")
    return sorted(row["id"] for row in client.call("messages.search", {"query": query, **more})["messages"])


def test_who_finds_what(running: Instance):
    agents = {name: running.spawn("sh", name=name, team=team) for name, team in (("ann", "red"), ("bob", "blue"))}
    began = time.time()
    with running.client() as operator:
        to_ann, to_bob = (operator.send(name, f"the needle for {name}").id for name in agents)
        token = (running.directory / "agents" / agents["ann"]["id"] / "token").read_text().strip()
        with running.client(token=token) as ann:
            from_ann = ann.send("bob", "my needle").id
            assert search(ann, "needle") == sorted([to_ann, from_ann])
            assert search(ann, "needle", target="bob") == [from_ann]
            with pytest.raises(Denied):
                ann.call("messages.reindex")
        assert search(operator, "needle") == sorted([to_ann, to_bob, from_ann])
        assert search(operator, "need*", target="@blue") == sorted([to_bob, from_ann])
        assert search(operator, "needle", target="all", sender="ann") == [from_ann]
        assert search(operator, "needle", sender="operator") == sorted([to_ann, to_bob])
        assert search(operator, "needle", since=began - 60, until=began - 30) == []
        assert len(search(operator, "needle", since=began - 1)) == 3
        assert len(search(operator, "needle", limit=2)) == 2


def test_what_is_asked_wrongly_is_said(running: Instance):
    with running.client() as client:
        for params, error, words in (
            ({"query": "?"}, InvalidValue, "no word"),
            ({"query": "x", "in": "transcripts", "sender": "operator"}, InvalidValue, "no sender"),
            ({"query": "x", "target": "nobody"}, UnknownTarget, "nobody"),
            ({"query": "x", "since": 2, "until": 1}, InvalidValue, "after"),
        ):
            with pytest.raises(error, match=words):
                client.call("messages.search", params)


def test_found_after_a_kill_a_restart_and_a_rebuild(running: Instance):
    running.spawn("sh", name="ann")
    with running.client() as client:
        ids = sorted(
            receipt.id for receipt in client.send_batch([{"to": "ann", "body": f"needle {n}"} for n in range(20)])
        )
    running.kill()
    running.up()
    with running.client() as client:
        assert search(client, "needle", limit=100) == ids
        running.cli("mailbox", "reindex")
        assert search(client, "needle", limit=100) == ids
        (running.directory / "mailbox" / "index").rename(running.directory / "gone")
    running.cli("restart")
    with running.client() as client:
        assert search(client, "needle", limit=100) == ids
    assert "needle 7" in running.cli("search", '"needle 7"').stdout


def test_large_messages_are_left_out_of_an_answer_and_counted(running: Instance):
    running.spawn("sh", name="ann")
    with running.client() as client:
        client.send_batch([{"to": "ann", "body": "needle " * 30_000} for _ in range(25)])
        wait_until(lambda: client.call("messages.search", {"query": "needle"})["indexed_behind"] == 0, "the index")
        answer = client.call("messages.search", {"query": "needle", "limit": 100})
        assert len(answer["messages"]) + answer["left_out"] == 25
        assert 0 < answer["left_out"] < 25


def test_turned_off(idle_instance: Instance):
    idle_instance.up("search.enabled=false")
    done = idle_instance.cli("search", "needle", check=False)
    assert done.returncode == 2
    assert "search.enabled" in done.stderr
    assert not (idle_instance.directory / "mailbox" / "index").exists()
