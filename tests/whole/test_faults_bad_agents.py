"""Agents that end, hang, never start or print rubbish: each is told apart, and its messages are kept."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from faults import rows
from instance import Instance, alive, wait_until

from agentd.errors import AgentdError

FAILED_SH = 'doc = "a shell that never shows a prompt"\ncommand = "sh"\nargs = ["-c", "{script}"]\ndelivery = "type"\n'
RULES = '[boot]\ntimeout_s = 0.5\nsettle_ms = 20\n[[rules]]\nstate = "idle"\nscreen = "^ready>$"\ntail = 1\n'


@pytest.fixture(autouse=True)
def _the_daemon_lives(running: Instance):
    """No agent, whatever it does, costs the daemon its life or a fault in its log."""
    yield
    assert alive(running.pid())
    log = (running.directory / "agentd.log").read_text()
    assert "Traceback" not in log
    assert '"level": "error"' not in log.replace('"tmux server gone"', "")


def profile(whole: Instance, name: str, script: str) -> None:
    """Give the instance a profile of its own that runs a line of sh."""
    directory = whole.directory / "profiles"
    directory.mkdir(exist_ok=True, mode=0o700)
    (directory / f"{name}.toml").write_text(FAILED_SH.format(script=script) + RULES)


def message(whole: Instance, id_: str) -> dict[str, Any]:
    with whole.client() as client:
        return dict(client.call("messages.get", id=id_))


def in_state(whole: Instance, name: str, state: str) -> dict[str, Any]:
    """Wait until an agent has a state; return the explanation."""

    def explained() -> dict[str, Any] | None:
        with whole.client() as client:
            found = dict(client.call("agents.explain", target=name))
        return found if found["state"] == state else None

    return dict(wait_until(explained, f"{name} to be {state}", 20))


@pytest.mark.parametrize(
    ("mode", "state", "reason"),
    [
        ("crash", "failed", "its program exited with status 1"),
        ("exit0", "stopped", "its program exited with status 0"),
    ],
)
def test_an_agent_that_ends_at_the_first_message(running: Instance, mode: str, state: str, reason: str):
    """The message it read and did not acknowledge waits again, and is read by the next life of the same agent."""
    switch = running.directory / "mode"
    switch.write_text(mode)
    log = running.directory / "a.log"
    profile_in_mode(running, switch)
    agent = running.spawn("switched", name="a", env={"AGENTD_DEMO_LOG": str(log)})
    id_ = running.json("send", "a", "hello")["id"]
    explained = in_state(running, "a", state)
    assert explained["reason"] == reason
    assert not alive(agent["pid"])
    kept = wait_until(lambda: (m := message(running, id_))["state"] == "accepted" and m, "the message to wait again")
    assert kept["waits_for"] == f"a is {state}: {reason}"
    assert "agentd respawn a" in explained["would_change"]
    switch.write_text("echo")
    running.cli("respawn", "a")
    wait_until(lambda: [row["id"] for row in rows(log)] == [id_], "the next life to read it")
    wait_until(lambda: message(running, id_)["state"] == "acked", "it to be acknowledged")


def profile_in_mode(whole: Instance, switch: Path) -> None:
    """Give the instance a demo agent whose mode stands in a file at its start."""
    directory = whole.directory / "profiles"
    directory.mkdir(exist_ok=True, mode=0o700)
    source = Path(__file__).parents[2] / "agentd/agents/profiles/demo.toml"
    text = source.read_text().replace('command = "{python}"', 'command = "sh"')
    run = f"exec {{python}} -P -m agentd.testing.demo_agent --mode $(cat {switch})"
    (directory / "switched.toml").write_text(
        "\n".join(f'args = ["-c", "{run}"]' if line.startswith("args") else line for line in text.split("\n"))
    )
    whole.cli("restart")


def test_an_agent_that_ends_again_and_again_uses_up_a_message(running: Instance):
    """After the last attempt the message is a dead letter that is kept, and says why."""
    running.cli("restart", "--set", "courier.max_attempts=2")
    running.spawn(name="a", env={"AGENTD_DEMO_MODE": "crash"})
    id_ = running.json("send", "a", "hello")["id"]
    in_state(running, "a", "failed")
    wait_until(lambda: message(running, id_)["state"] == "accepted", "the message to wait again")
    running.cli("respawn", "a")
    wait_until(lambda: message(running, id_)["state"] == "dead", "it to be given up")
    assert message(running, id_)["history"][-1]["detail"] == "the agent ended before it acknowledged"
    assert [row["id"] for row in running.json("dead", "ls")] == [id_]


def test_an_agent_that_crashes_is_started_again_some_times_and_then_left(running: Instance):
    """F17: each pause twice as long as the one before, an end to it, and its messages kept."""
    running.cli("restart", "--set", "agents.respawn_pause_s=0.05")
    lives = running.directory / "lives"
    script = f"date +%s.%N >> {lives}; exit 1"
    profile(running, "phoenix", script)
    path = running.directory / "profiles" / "phoenix.toml"
    path.write_text('on_crash = "respawn"\n' + path.read_text())
    wait_until(lambda: "phoenix" in running.cli("profile", "ls").stdout, "the profile to be read")
    running.cli("spawn", "phoenix", "--name", "a")
    id_ = running.json("send", "a", "hello")["id"]
    given_up = "its program exited with status 1, and it was not started again: it was tried 5 times within 10 minutes"
    wait_until(lambda: running.json("explain", "a")["reason"] == given_up, "it to be given up")
    born = [float(line) for line in lives.read_text().split()]
    assert len(born) == 1 + 5
    pauses = [after - before for before, after in itertools.pairwise(born)]
    assert all(pause > 0.05 * 2**number for number, pause in enumerate(pauses)), pauses
    assert message(running, id_)["state"] == "accepted"
    running.cli("stop", "a")


def test_an_agent_that_was_stopped_meanwhile_is_not_started_again(running: Instance):
    running.cli("restart", "--set", "agents.respawn_pause_s=2")
    lives = running.directory / "lives"
    profile(running, "phoenix", f"echo x >> {lives}; exit 1")
    path = running.directory / "profiles" / "phoenix.toml"
    path.write_text('on_crash = "respawn"\n' + path.read_text())
    wait_until(lambda: "phoenix" in running.cli("profile", "ls").stdout, "the profile to be read")
    running.cli("spawn", "phoenix", "--name", "a")
    in_state(running, "a", "failed")
    running.cli("stop", "a")
    with running.client() as client, pytest.raises(AgentdError):
        client.call("agents.wait", target="a", until="starting", timeout_s=3.0)
    assert lives.read_text() == "x\n"


def test_an_agent_that_is_never_ready(running: Instance):
    """Failed after its boot's time, with the time in the reason; a ready screen that comes after all is believed."""
    go = running.directory / "go"
    profile(running, "late", f"until test -e {go}; do sleep 0.05; done; printf 'ready>'; cat")
    running.cli("restart")
    running.spawn("late", name="a", ready=False)
    id_ = running.json("send", "a", "hello")["id"]
    explained = in_state(running, "a", "failed")
    assert explained["reason"].startswith("not ready after 0.5 s")
    assert message(running, id_)["state"] == "accepted"
    assert message(running, id_)["waits_for"].startswith("a is failed: not ready after 0.5 s")
    go.touch()
    wait_until(lambda: message(running, id_)["attempts"] >= 1, "the message to be typed once it is ready")


def test_a_program_that_is_not_there(running: Instance):
    """A command that cannot run is a failed agent with a reason, not a daemon that waits."""
    directory = running.directory / "profiles"
    directory.mkdir(mode=0o700)
    (directory / "none.toml").write_text('command = "/nowhere/program"\n' + RULES)
    running.cli("restart")
    refused = running.cli("spawn", "none", "--name", "a", check=False)
    if refused.returncode == 0:
        explained = in_state(running, "a", "failed")
        assert "exited with status 127" in explained["reason"]
    else:
        assert "/nowhere/program" in refused.stderr
        assert running.json("ls") == []


def test_a_profile_that_is_gone_when_the_daemon_comes_back(running: Instance):
    """A file that somebody removed must not keep the daemon from its other agents."""
    profile(running, "brief", "printf 'ready>'; cat")
    running.cli("restart")
    kept = running.spawn("sh", name="kept")
    running.spawn("brief", name="a")
    running.kill()
    (running.directory / "profiles" / "brief.toml").unlink()
    running.up()
    assert running.json("show", "kept")["pid"] == kept["pid"]
    running.cli("send", "kept", "true", "--wait", "delivered", "--timeout", "20")
    explained = wait_until(lambda: (e := running.json("explain", "a"))["reason"] and e, "a reason")
    assert "brief" in explained["reason"]
    running.cli("stop", "a")


def test_a_screen_full_of_rubbish(running: Instance):
    """It is not thought ready; nothing is typed; stopping it works."""
    agent = running.spawn(name="a", env={"AGENTD_DEMO_MODE": "garbage"}, ready=False)
    id_ = running.json("send", "a", "hello")["id"]
    wait_until(lambda: not running.screen(agent).isascii(), "noise to show")
    explained = running.json("explain", "a")
    assert explained["state"] == "starting"
    assert explained["inbox"] == 1
    assert message(running, id_)["state"] == "accepted"
    shown = running.cli("read", "a").stdout + running.cli("explain", "a").stdout + running.cli("ls").stdout
    assert not {char for char in shown if ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0} - {"\n", "\t"}
    running.cli("stop", "a", "--force")
    assert not alive(agent["pid"])
    assert message(running, id_)["state"] == "accepted"


def test_an_agent_that_turns_to_rubbish(running: Instance):
    """Ready once, then a screen full of noise: nothing is typed into it, the message waits until it is itself again."""
    stop = running.directory / "stop"
    running.spawn("shell", name="a")
    # Without what asks the terminal a question: its answer would be typed into the shell.
    noise = r"head -c 3000 /dev/urandom | tr -d '\033\302\016'"
    running.cli("send", "a", f"until test -e {stop}; do {noise}; done", "--wait", "delivered")
    id_ = running.json("send", "a", f"touch {running.directory}/done")["id"]
    waiting = in_state(running, "a", "working")
    assert waiting["inbox"] == 1
    assert message(running, id_)["state"] == "accepted"
    stop.touch()
    wait_until((running.directory / "done").exists, "the message to run after the rubbish", 20)


def test_an_agent_that_looks_ready_and_reads_nothing(running: Instance):
    """The paste is not seen, so no Enter is pressed; the attempt is counted, and the dead letter says what was seen."""
    running.cli("restart", "--set", "courier.confirm_s=0.3", "--set", "courier.max_attempts=2")
    running.cli("restart", "--set", "courier.backoff_s=0.05")
    running.spawn(name="a", env={"AGENTD_DEMO_MODE": "deaf"})
    id_ = running.json("send", "a", "hello")["id"]
    wait_until(lambda: message(running, id_)["state"] == "dead", "it to be given up")
    assert "Enter was not pressed" in message(running, id_)["history"][-1]["detail"]
    running.cli("dead", "retry", id_)
    wait_until(lambda: message(running, id_)["state"] == "dead", "it to be given up again")
