"""Conversations: an answer belongs to the thread of what it answers, and each party sees its own part."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from instance import Instance, instance
from speaking import add_reader, agents_of

from agentd.errors import NotFound


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        add_reader(one)
        one.up("mailbox.shards=4", "search.enabled=false")  # the index commits, too
        yield one


def test_a_conversation_over_several_inboxes(whole: Instance):
    with agents_of(whole, 3) as (ann, bob, eve), whole.client() as operator:
        first = operator.send(ann.name, "please review").id
        ids = [first]
        for agent, to, body in ((ann, bob.name, "which file?"), (bob, ann.name, "this"), (ann, "operator", "done")):
            ids.append(agent.client.send(to, body, reply_to=ids[-1]).id)
        ids.append(operator.send(ann.name, "thanks", reply_to=ids[-1]).id)
        operator.send(ann.name, "something else")

        def thread(client, id_: str) -> list[str]:
            return [message["id"] for message in client.call("messages.thread", id=id_)["messages"]]

        assert thread(operator, ids[2]) == thread(operator, first) == ids
        assert thread(ann.client, ids[1]) == ids
        assert thread(bob.client, ids[1]) == ids[1:3]
        with pytest.raises(NotFound):
            thread(eve.client, first)
        shown = whole.json("msg", ids[-1], "--thread")
        assert [(row["id"], row["thread"]) for row in shown] == [(id_, first if id_ != first else None) for id_ in ids]
        assert "which file?" in whole.cli("msg", first, "--thread").stdout


def test_an_answer_to_what_the_sender_cannot_see_is_refused_alone(whole: Instance):
    with agents_of(whole, 2) as (ann, eve), whole.client() as operator:
        secret = operator.send(ann.name, "secret").id
        items = [{"to": "operator", "body": "x", "reply_to": id_} for id_ in (secret, "m000000000000", "m1")]
        results = eve.client.call("messages.send_batch", messages=[*items, {"to": "operator", "body": "good"}])[
            "results"
        ]
        assert [row.get("error", {}).get("code") for row in results] == ["not_found"] * 3 + [None]
        assert ann.client.send("operator", "seen", reply_to=secret).id


def test_a_fan_out_is_one_commit(whole: Instance):
    with agents_of(whole, 12), whole.client() as operator:

        def commits() -> int:
            return int(operator.call("daemon.status")["mailbox"]["commits"])

        before = commits()
        assert len(operator.send("%reader", "all of you").receipts) == 12
        assert commits() - before <= 4  # one for each shard, however many recipients
