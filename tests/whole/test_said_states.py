"""What a program says of itself decides, through the shim, the daemon and every door."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from instance import Instance, alive, instance, wait_until

SAYING = f"""
command = "{sys.executable}"
args = ["-u", "{Path(__file__).with_name("saying.py")}"]

[boot]
settle_ms = 50

[input]
envelope = "none"
bracketed = false
multiline = false
clear_keys = ["C-u"]
composer = '^say>(?: (?P<text>.*))?\\Z'
composer_tail = 1

[signals]
osc = "OSC"
notices = true

[[rules]]
state = "idle"
screen = '^say>'
tail = 1
reason = "the composer is there"
"""


def profile(whole: Instance, name: str, text: str) -> None:
    directory = whole.directory / "profiles"
    directory.mkdir(exist_ok=True, mode=0o700)
    (directory / f"{name}.toml").write_text(text)


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    """Give an instance with the profiles that are wanted here, and whose daemon runs."""
    with instance() as one:
        profile(one, "saying", SAYING.replace("OSC", "shim"))
        profile(one, "free", SAYING.replace("OSC", "free"))
        shell = (Path(__file__).parents[2] / "agentd/agents/profiles/shell.toml").read_text()
        profile(one, "shimmed", shell + '\n[signals]\nosc = "shim"\n')
        profile(one, "absent", 'command = "no-such-agent"\n[signals]\nosc = "shim"\n')
        one.up()
        yield one


@pytest.fixture
def whole(shared: Instance) -> Iterator[Instance]:
    """Give the shared instance without agents."""
    yield shared
    shared.tidy()


@pytest.fixture
def said(whole: Instance) -> Instance:
    """Give the shared instance with an agent `a`, which says what it does."""
    whole.spawn("saying", name="a")
    return whole


class Heard:
    """The events of an instance, as they come."""

    def __init__(self, whole: Instance, *types: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._begun = threading.Event()
        threading.Thread(target=self._follow, args=(whole, types), daemon=True).start()
        whole.cli("events")  # the daemon has taken in what came before

    def _follow(self, whole: Instance, types: tuple[str, ...]) -> None:
        with whole.client() as client:
            try:
                for event in client.stream("events.follow", {"types": list(types), "since": whole.seen}):
                    self.events.append(event["data"])
            except Exception:  # noqa: BLE001  the daemon ends before the test does
                return

    def states(self, name: str) -> list[str]:
        return [event["state"] for event in self.events if event["name"] == name]


def explained(whole: Instance, name: str, state: str) -> dict[str, Any]:
    with whole.client() as client:
        return dict(
            wait_until(
                lambda: (e := client.call("agents.explain", target=name))["state"] == state and e,
                f"{name} to be {state}",
            )
        )


def send(whole: Instance, body: str, *, until: str = "delivered") -> str:
    with whole.client() as client:
        id_ = client.send("a", body).id
        if until:
            client.call("messages.wait", id=id_, until=until, timeout_s=20.0)
        return id_


def message_state(whole: Instance, id_: str) -> str:
    with whole.client() as client:
        return str(client.call("messages.get", id=id_)["state"])


def test_a_program_behind_the_shim_is_understood_and_without_it_is_not(said: Instance):
    assert "understood" in said.cli("read", "a").stdout
    found = explained(said, "a", "idle")
    assert (found["source"], found["rule"]) == ("osc", "osc 7501")
    said.spawn("free", name="b")
    assert "alone" in said.cli("read", "b").stdout


def test_work_that_no_screen_shows_holds_the_next_message_back(said: Instance):
    heard = Heard(said, "agent.state")
    send(said, "work 1.5")
    later = send(said, "second", until="")
    found = explained(said, "a", "working")
    assert found["source"] == "osc"
    assert "saying so" in found["would_change"]
    assert message_state(said, later) == "accepted"
    wait_until(lambda: message_state(said, later) == "delivered", "the second one")
    explained(said, "a", "idle")
    screen = said.cli("read", "a").stdout
    assert screen.index("got work 1.5") < screen.index("got second")
    wait_until(lambda: heard.states("a")[-1:] == ["idle"], "its last event")
    assert "idle" in heard.states("a")[heard.states("a").index("working") :]
    assert heard.states("a").count("working") <= 2


def test_a_question_is_told_everywhere_and_nothing_is_typed_into_it(said: Instance):
    heard = Heard(said, "agent.state")
    send(said, "ask")
    found = explained(said, "a", "waiting")
    assert found["waits_for"] == "permission"
    assert found["evidence"] == "Bash: rm -rf \ufffd[2J/"
    later = send(said, "hello", until="")
    assert "waiting: permission" in said.cli("ls").stdout
    shown = said.cli("show", "a").stdout + said.cli("explain", "a").stdout
    assert "waiting: permission" in shown
    assert "Bash: rm -rf" in shown
    assert not {char for char in shown if ord(char) < 0x20} - {"\n"}
    with said.client() as client:
        assert client.call("agents.explain", target="a")["waits_for"] == "permission"
    wait_until(lambda: [e for e in heard.events if e.get("waits_for") == "permission"], "its event")
    assert message_state(said, later) == "accepted"
    said.cli("keys", "a", "y")
    wait_until(lambda: message_state(said, later) == "delivered", "the message after the answer")


def test_a_turn_that_failed_is_idle_with_the_reason(said: Instance):
    send(said, "fail")
    with said.client() as client:
        found = wait_until(
            lambda: (e := client.call("agents.explain", target="a"))["waits_for"] == "error" and e, "the failure"
        )
    assert found["state"] == "idle"
    assert found["reason"].endswith("overloaded")


def test_a_program_killed_behind_the_shim_is_told_as_it_ended(said: Instance):
    pid = said.json("show", "a")["pid"]
    send(said, "die", until="")
    found = explained(said, "a", "failed")
    assert found["reason"] == "its program was killed by signal 9 (SIGKILL)"
    assert found["source"] == "process"
    assert "agentd respawn a" in found["would_change"]
    assert not alive(pid)


def test_what_it_wants_noticed_is_an_event_with_a_harmless_text(said: Instance):
    heard = Heard(said, "agent.notified")
    send(said, "ring")
    (notice,) = wait_until(lambda: heard.events, "the notice")
    assert (notice["name"], notice["kind"], notice["text"]) == ("a", "osc 9", "look")


def test_a_shell_behind_the_shim_is_read_typed_into_and_known_as_without_it(whole: Instance):
    """Rules by the foreground command, line mode, identity and stopping see through it."""
    agent = whole.spawn("shimmed", name="a")
    done = whole.directory / "whoami"
    send(whole, f"{sys.executable} -m agentd whoami > {done}")
    wait_until(lambda: done.exists() and done.read_text(), "whoami")
    assert done.read_text().startswith("a (")
    send(whole, "cat")
    assert explained(whole, "a", "working")["reason"] == "a command runs"
    whole.cli("interrupt", "a")
    explained(whole, "a", "idle")
    whole.cli("stop", "a")
    assert not alive(agent["pid"])


def test_a_program_that_is_not_there_is_told_although_the_shim_is(whole: Instance):
    done = whole.cli("spawn", "absent", check=False)
    assert done.returncode != 0
    assert "no program `no-such-agent` can be run" in done.stderr


def test_many_agents_change_their_state_once_for_each_change(whole: Instance):
    """Twelve agents, six of which work: each is seen to work and to be idle again, once."""
    heard = Heard(whole, "agent.state")
    with whole.client() as client:
        env = {"AGENTD_DEMO_MODE": "slow", "AGENTD_DEMO_DELAY_S": "1.5"}
        agents = client.call("agents.spawn", profile="demo", n=12, cwd=str(whole.directory), env=env)["agents"]
        names = [agent["name"] for agent in agents]
        for name in names:
            client.call("agents.wait", target=name, until="idle", timeout_s=30)
        client.send_batch([{"to": name, "body": "go"} for name in names[:6]])
    wait_until(lambda: all(heard.states(name)[-2:] == ["working", "idle"] for name in names[:6]), "six to have worked")
    assert {name: heard.states(name) for name in names[:6]} == {name: ["idle", "working", "idle"] for name in names[:6]}
    assert all(heard.states(name) == ["idle"] for name in names[6:])
