"""Agents that pull: what they take is theirs for a time, and what they say of it is said of that attempt."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from instance import Instance, instance, wait_until
from speaking import add_reader, agents_of

from agentd.errors import EXIT_PARTIAL, EXIT_USAGE, InvalidValue


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        add_reader(one)
        one.up("courier.max_attempts=3")
        yield one


def test_take_extend_and_ack_on_the_command_line(whole: Instance):
    with agents_of(whole, 2) as (ann, bob), whole.client() as operator:
        first, second = (operator.send(ann.name, body).id for body in ("one", "two"))
        taken = json.loads(whole.cli("inbox", "--take", "--lease", "60", "--json", **ann.environ).stdout)
        assert [(row["lease"], row["body"], row["state"]) for row in taken] == [
            (f"{first}#1", "one", "delivering"),
            (f"{second}#1", "two", "delivering"),
        ]
        assert "no messages to take" in whole.cli("inbox", "--take", **ann.environ).stdout
        assert "held longer" in whole.cli("extend", f"{first}#1", "--lease", "90", **ann.environ).stdout
        assert whole.json("msg", first)["history"][-1]["detail"] == "attempt 1, held longer"
        for words in (["ack", f"{first}#1"], ["extend", f"{first}#1"], ["nack", first]):  # of another agent
            ran = whole.cli(*words, f"{second}#1", check=False, **bob.environ)
            assert ran.returncode == EXIT_PARTIAL
            assert ran.stderr.count("no message") == 2
        mixed = whole.cli("ack", f"{first}#1", f"{second}#7", "m1", check=False, **ann.environ)
        assert (mixed.returncode, mixed.stdout) == (EXIT_PARTIAL, f"{first}#1: acked\n")
        assert f"attempt 7 of {second} is over" in mixed.stderr
        assert [whole.json("msg", id_)["state"] for id_ in (first, second)] == ["acked", "delivering"]


def test_a_lease_that_ran_out_is_a_conflict_and_the_message_comes_again(whole: Instance):
    with agents_of(whole, 1) as (ann,), whole.client() as operator:
        id_ = operator.send(ann.name, "again and again").id

        def take() -> str:
            rows = ann.client.call("messages.take", lease_s=0.1)["messages"]
            return rows[0]["lease"] if rows else ""

        leases = [wait_until(take, "the next attempt") for _ in range(3)]
        assert leases == [f"{id_}#{attempt}" for attempt in (1, 2, 3)]
        [failed] = ann.client.call("messages.ack", ids=leases[:1])["failed"]
        assert (failed["id"], failed["error"]["code"]) == (leases[0], "conflict")
        assert f"attempt 1 of {id_} is over" in failed["error"]["message"]
        wait_until(lambda: not take() and operator.call("messages.get", id=id_)["state"] == "dead", "its end")


def test_all_that_was_delivered_is_acknowledged_at_once(whole: Instance):
    with agents_of(whole, 2) as (ann, bob), whole.client() as operator:
        read = [operator.send(ann.name, f"{n}").id for n in range(3)]
        ann.client.call("messages.inbox")
        waiting, others = operator.send(ann.name, "new").id, operator.send(bob.name, "not ann's").id
        bob.client.call("messages.inbox")
        assert whole.cli("ack", "--all", **ann.environ).stdout == "".join(f"{id_}: acked\n" for id_ in read)
        states = {id_: operator.call("messages.get", id=id_)["state"] for id_ in (*read, waiting, others)}
        assert states == {**dict.fromkeys(read, "acked"), waiting: "accepted", others: "delivered"}
        assert ann.client.call("messages.ack", all=True) == {"done": [], "failed": []}
        for wrong in ({}, {"ids": read, "all": True}):
            with pytest.raises(InvalidValue):
                ann.client.call("messages.ack", wrong)
        assert whole.cli("ack", check=False).returncode == EXIT_USAGE
