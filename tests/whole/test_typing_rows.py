"""What is typed, how much at once, and what of it people are shown: T16, T19 and T20 through the whole daemon."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from instance import Instance, instance, pids, proc, wait_until

MOST_GROWN_KB = 8 * 1024
ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
ESCAPES = "x\x1b]52;c;aGVsbG8=\x07\x1b]0;title\x07\x1b[2J\x1bPq\x1b\\\x9b2J\x1b]8;;http://x\x07y"


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """Give an instance that soon gives up what is not seen to be typed; each test has agents of its own."""
    with instance() as whole:
        whole.up("courier.confirm_s=1", "courier.backoff_s=0.1", "courier.max_attempts=100")
        yield whole


def rss_kb(pid: int) -> int:
    found = re.search(rb"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_bytes())
    return int(found[1]) if found else 0


def test_t16_a_program_that_does_not_read_costs_tmux_no_more_than_one_paste(running: Instance):
    """Its messages are kept, whoever sends them is not held up, and what would not fit is not typed."""
    running.spawn("demo", name="deaf", env={"AGENTD_DEMO_MODE": "deaf"})
    server = int(running.tmux("display-message", "-p", "#{pid}"))
    before_kb = rss_kb(server)
    with running.client() as client:
        receipts = client.send_batch([{"to": "deaf", "body": f"{n} " + "x" * 15_000} for n in range(400)])
        ids = [receipt.id for receipt in receipts]
        wait_until(lambda: client.call("daemon.metrics").get("deliveries_not_typed_total", 0) > 20, "refusals", 60)
        assert rss_kb(server) - before_kb <= MOST_GROWN_KB
        outcomes = [entry["detail"] for entry in client.call("messages.get", id=ids[0])["history"]]
        assert any(outcome.startswith("pasted, unconfirmed: ") for outcome in outcomes)
        states = {client.call("messages.get", id=id_)["state"] for id_ in ids}
        assert states <= {"accepted", "delivering"}
        client.call("agents.stop", targets=["deaf"], force=True)


def test_t19_nothing_that_people_are_shown_acts_on_their_terminal(running: Instance):
    running.spawn("demo", name="a")
    id_ = json.loads(running.cli("send", "a", "-", "--json", input_=ESCAPES).stdout)["id"]
    running.cli("wait", "a", "--for", "reply", "--timeout", "20")
    shell = running.spawn("shell", name="b", env={"ODD": ESCAPES.replace("\x00", "")})
    running.cli("send", "b", "printf '%s' \"$ODD\"; sleep 0", "--wait", "delivered", "--timeout", "20")
    commands = (
        *(("msg", id_), ("msg", id_, "--thread"), ("inbox", "a", "--all"), ("inbox", "operator", "--all")),
        *(("read", "a"), ("read", "b"), ("show", "b"), ("explain", "a"), ("explain", "b"), ("ls",), ("events",)),
        *(("transcript", "a"), ("transcript", "b"), ("search", "title")),
    )
    for words in commands:
        said = running.cli(*words)
        assert not ACTS.search(said.stdout + said.stderr), (words, said.stdout)
    assert shell["pid"]


@contextmanager
def watching(canary: bytes) -> Iterator[list[str]]:
    """Give the command lines that were seen to hold the canary while the block ran."""
    found: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            found.extend(line.decode(errors="replace") for pid in pids() if canary in (line := proc(pid, "cmdline")))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def test_t20_a_message_is_never_in_a_command_line(running: Instance):
    canary = f"canary{secrets.token_hex(8)}"
    running.spawn("demo", name="c")
    with watching(canary.encode()) as found:
        with running.client() as client:
            ids = [r.id for r in client.send_batch([{"to": "c", "body": canary * (n % 300 + 1)} for n in range(100)])]
            wait_until(lambda: client.call("messages.get", id=ids[-1])["state"] == "acked", "all to be read", 60)
        assert found == []
        running.cli("send", "c", canary)  # and what a person types as a command is seen
        wait_until(lambda: found or (running.cli("send", "c", canary) and found), "the watch to see one")
