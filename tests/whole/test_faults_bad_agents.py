"""Agents that end, hang, never start or print rubbish: each is told apart, and its messages are kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import rows
from instance import Instance, alive, instance, wait_until

from agentd.errors import AgentdError

FAILED_SH = 'doc = "a shell that never shows a prompt"\ncommand = "sh"\nargs = ["-c", "{script}"]\ndelivery = "type"\n'
RULES = '[boot]\ntimeout_s = 0.5\nsettle_ms = 20\n[[rules]]\nstate = "idle"\nscreen = "^ready>$"\ntail = 1\n'


@pytest.fixture(scope="module")
def patient() -> Iterator[Instance]:
    """Give an instance that tries things as often as it does by itself; what crashes comes back soon."""
    yield from watched("agents.respawn_pause_s=0.05")


@pytest.fixture(scope="module")
def impatient() -> Iterator[Instance]:
    """Give an instance that gives messages up soon; what crashes comes back late."""
    yield from watched(
        *("courier.confirm_s=0.3", "courier.max_attempts=2", "courier.backoff_s=0.05", "agents.respawn_pause_s=0.7")
    )


def watched(*settings: str) -> Iterator[Instance]:
    """Give a running instance, and check in the end that no agent cost its daemon life or a fault in its log."""
    with instance() as whole:
        whole.up(*settings)
        pid = whole.pid()
        yield whole
        assert alive(pid)
        check_log(whole)


def check_log(whole: Instance) -> None:
    log = (whole.directory / "agentd.log").read_text()
    assert "Traceback" not in log
    assert '"level": "error"' not in log.replace('"tmux server gone"', "")


def profile(whole: Instance, name: str, script: str, head: str = "") -> None:
    """Give the instance a profile of its own that runs a line of sh."""
    add_profile(whole, name, head + FAILED_SH.format(script=script) + RULES)


def add_profile(whole: Instance, name: str, text: str) -> None:
    """Write a profile, whole at once, and wait until the daemon, when it runs, has read it."""
    directory = whole.directory / "profiles"
    directory.mkdir(exist_ok=True, mode=0o700)
    (directory / f"{name}.new").write_text(text)
    (directory / f"{name}.new").rename(directory / f"{name}.toml")
    if (whole.directory / "agentd.sock").exists():
        with whole.client() as client:
            wait_until(lambda: name in {row["name"] for row in client.call("profiles.list")["profiles"]}, name)


def send(whole: Instance, to: str, body: str = "hello") -> str:
    with whole.client() as client:
        return client.send(to, body).id


def respawn(whole: Instance, name: str) -> None:
    with whole.client() as client:
        client.call("agents.respawn", target=name)


def stop(whole: Instance, *names: str) -> None:
    with whole.client() as client:
        client.call("agents.stop", targets=list(names), force=True)


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
def test_an_agent_that_ends_at_the_first_message(patient: Instance, mode: str, state: str, reason: str):
    """The message it read and did not acknowledge waits again, and is read by the next life of the same agent."""
    switch = patient.directory / f"mode-{mode}"
    switch.write_text(mode)
    log = patient.directory / f"{mode}.log"
    add_profile(patient, f"switched-{mode}", demo_in_mode(switch))
    agent = patient.spawn(f"switched-{mode}", name=mode, env={"AGENTD_DEMO_LOG": str(log)})
    id_ = send(patient, mode)
    explained = in_state(patient, mode, state)
    assert explained["reason"] == reason
    assert not alive(agent["pid"])
    kept = wait_until(lambda: (m := message(patient, id_))["state"] == "accepted" and m, "the message to wait again")
    assert kept["waits_for"] == f"{mode} is {state}: {reason}"
    assert f"agentd respawn {mode}" in explained["would_change"]
    switch.write_text("echo")
    respawn(patient, mode)
    wait_until(lambda: [row["id"] for row in rows(log)] == [id_], "the next life to read it")
    wait_until(lambda: message(patient, id_)["state"] == "acked", "it to be acknowledged")
    stop(patient, mode)


def demo_in_mode(switch: Path) -> str:
    """Return the profile of a demo agent whose mode stands in a file at its start."""
    source = Path(__file__).parents[2] / "agentd/agents/profiles/demo.toml"
    text = source.read_text().replace('command = "{python}"', 'command = "sh"')
    run = f"exec {{python}} -P -m agentd.testing.demo_agent --mode $(cat {switch})"
    return "\n".join(f'args = ["-c", "{run}"]' if line.startswith("args") else line for line in text.split("\n"))


def test_an_agent_that_ends_again_and_again_uses_up_a_message(impatient: Instance):
    """After the last attempt the message is a dead letter that is kept, and says why."""
    impatient.spawn(name="again", env={"AGENTD_DEMO_MODE": "crash"})
    id_ = send(impatient, "again")
    in_state(impatient, "again", "failed")
    wait_until(lambda: message(impatient, id_)["state"] == "accepted", "the message to wait again")
    respawn(impatient, "again")
    wait_until(lambda: message(impatient, id_)["state"] == "dead", "it to be given up")
    assert message(impatient, id_)["history"][-1]["detail"] == "the agent ended before it acknowledged"
    assert [row["id"] for row in impatient.json("dead", "ls", "again")] == [id_]


def test_an_agent_that_crashes_is_started_again_some_times_and_then_left(patient: Instance):
    """F17: each pause twice as long as the one before, an end to it, and its messages kept."""
    lives = patient.directory / "lives"
    profile(patient, "phoenix", f"date +%s.%N >> {lives}; exit 1", 'on_crash = "respawn"\n')
    patient.spawn("phoenix", name="phoenix", ready=False)
    id_ = send(patient, "phoenix")
    given_up = "its program exited with status 1, and it was not started again: it was tried 5 times within 10 minutes"
    wait_until(lambda: in_state(patient, "phoenix", "failed")["reason"] == given_up, "it to be given up")
    born = [float(line) for line in lives.read_text().split()]
    assert len(born) == 1 + 5
    pauses = [after - before for before, after in itertools.pairwise(born)]
    assert all(pause > 0.05 * 2**number for number, pause in enumerate(pauses)), pauses
    assert message(patient, id_)["state"] == "accepted"
    patient.cli("stop", "phoenix")


def test_an_agent_that_was_stopped_meanwhile_is_not_started_again(impatient: Instance):
    lives = impatient.directory / "lives"
    profile(impatient, "phoenix", f"echo x >> {lives}; exit 1", 'on_crash = "respawn"\n')
    impatient.spawn("phoenix", name="phoenix", ready=False)
    in_state(impatient, "phoenix", "failed")
    with impatient.client() as client:
        client.call("agents.stop", targets=["phoenix"])
        assert lives.read_text() == "x\n", "the scene needs a stop within the pause"
        with pytest.raises(AgentdError):
            client.call("agents.wait", target="phoenix", until="starting", timeout_s=1.2)
    assert lives.read_text() == "x\n"


def test_an_agent_that_is_never_ready(patient: Instance):
    """Failed after its boot's time, with the time in the reason; a ready screen that comes after all is believed."""
    go = patient.directory / "go"
    profile(patient, "late", f"until test -e {go}; do sleep 0.05; done; printf 'ready>'; cat")
    patient.spawn("late", name="late", ready=False)
    id_ = send(patient, "late")
    explained = in_state(patient, "late", "failed")
    assert explained["reason"].startswith("not ready after 0.5 s")
    assert message(patient, id_)["state"] == "accepted"
    assert message(patient, id_)["waits_for"].startswith("late is failed: not ready after 0.5 s")
    go.touch()
    wait_until(lambda: message(patient, id_)["attempts"] >= 1, "the message to be typed once it is ready")
    stop(patient, "late")


def test_a_program_that_is_not_there(patient: Instance):
    """A command that cannot run is a failed agent with a reason, not a daemon that waits."""
    add_profile(patient, "none", 'command = "/nowhere/program"\n' + RULES)
    refused = patient.cli("spawn", "none", "--name", "none", check=False)
    if refused.returncode == 0:
        explained = in_state(patient, "none", "failed")
        assert "exited with status 127" in explained["reason"]
    else:
        assert "/nowhere/program" in refused.stderr
        assert "none" not in {row["name"] for row in patient.json("ls")}


def test_a_profile_that_is_gone_when_the_daemon_comes_back(idle_instance: Instance):
    """A file that somebody removed must not keep the daemon from its other agents."""
    profile(idle_instance, "brief", "printf 'ready>'; cat")
    idle_instance.up()
    kept = idle_instance.spawn("sh", name="kept")
    idle_instance.spawn("brief", name="a")
    idle_instance.kill()
    (idle_instance.directory / "profiles" / "brief.toml").unlink()
    idle_instance.up()
    with idle_instance.client() as client:
        assert client.call("agents.get", target="kept")["pid"] == kept["pid"]
        client.call("messages.wait", id=client.send("kept", "true").id, until="delivered", timeout_s=20.0)
        explained = wait_until(lambda: (e := client.call("agents.explain", target="a"))["reason"] and e, "a reason")
        assert "brief" in explained["reason"]
    idle_instance.cli("stop", "a")
    check_log(idle_instance)


def test_a_screen_full_of_rubbish(patient: Instance):
    """It is not thought ready; nothing is typed; stopping it works."""
    agent = patient.spawn(name="noise", env={"AGENTD_DEMO_MODE": "garbage"}, ready=False)
    id_ = send(patient, "noise")
    wait_until(lambda: not patient.screen(agent).isascii(), "noise to show")
    explained = in_state(patient, "noise", "starting")
    assert explained["inbox"] == 1
    assert message(patient, id_)["state"] == "accepted"
    shown = patient.cli("read", "noise").stdout + patient.cli("explain", "noise").stdout + patient.cli("ls").stdout
    assert not {char for char in shown if ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0} - {"\n", "\t"}
    patient.cli("stop", "noise", "--force")
    assert not alive(agent["pid"])
    assert message(patient, id_)["state"] == "accepted"


def test_an_agent_that_turns_to_rubbish(patient: Instance):
    """Ready once, then a screen full of noise: nothing is typed into it, the message waits until it is itself again."""
    quiet, ran = patient.directory / "quiet", patient.directory / "ran"
    patient.spawn("shell", name="turns")
    # Without what asks the terminal a question: its answer would be typed into the shell.
    noise = r"head -c 3000 /dev/urandom | tr -d '\033\302\016'"
    with patient.client() as client:
        first = client.send("turns", f"until test -e {quiet}; do {noise}; done").id
        client.call("messages.wait", id=first, until="delivered", timeout_s=20.0)
    id_ = send(patient, "turns", f"touch {ran}")
    waiting = in_state(patient, "turns", "working")
    assert waiting["inbox"] == 1
    assert message(patient, id_)["state"] == "accepted"
    quiet.touch()
    wait_until(ran.exists, "the message to run after the rubbish", 20)
    stop(patient, "turns")


def test_an_agent_that_looks_ready_and_reads_nothing(impatient: Instance):
    """The paste is not seen, so no Enter is pressed; the attempt is counted, and the dead letter says what was seen."""
    impatient.spawn(name="deaf", env={"AGENTD_DEMO_MODE": "deaf"})
    id_ = send(impatient, "deaf")
    wait_until(lambda: message(impatient, id_)["state"] == "dead", "it to be given up")
    assert "Enter was not pressed" in message(impatient, id_)["history"][-1]["detail"]
    impatient.cli("dead", "retry", id_)
    wait_until(lambda: message(impatient, id_)["state"] == "dead", "it to be given up again")
    stop(impatient, "deaf")
