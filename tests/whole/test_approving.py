"""Permission prompts of real programs in real terminals: seen, answered by whoever may, and by nobody else."""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faults import rows
from instance import Instance, wait_until

from agentd.errors import (
    EXIT_FAILED,
    EXIT_NOT_ALLOWED,
    EXIT_NOT_FOUND,
    EXIT_PARTIAL,
    EXIT_USAGE,
    AgentGone,
    Conflict,
    DeadlineExceeded,
    Denied,
)

DEMO = Path(__file__).parents[2] / "agentd/agents/profiles/demo.toml"


def asking(whole: Instance, name: str = "a", mode: str = "asks-permission", delay_s: float = 0.0, **more: Any) -> Path:
    """Spawn a demo agent that asks before each prompt; return the file it writes down what it did."""
    log = whole.directory / f"{name}.log"
    env = {"AGENTD_DEMO_MODE": mode, "AGENTD_DEMO_LOG": str(log), "AGENTD_DEMO_DELAY_S": str(delay_s)}
    whole.spawn(more.pop("profile", "demo"), name=name, env=env, **more)
    return log


def waits(whole: Instance, name: str = "a") -> dict[str, Any]:
    """Wait until an agent's prompt stands; return the agent's row."""

    def row() -> dict[str, Any] | None:
        found = whole.json("ls", name)[0]
        return found if found["prompt"] else None

    return dict(wait_until(row, f"{name} to ask"))


def done(log: Path) -> list[str]:
    return [row["body"] for row in rows(log)]


def audit(whole: Instance) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (whole.directory / "audit.jsonl").read_text().splitlines()]


def events(whole: Instance, type_: str) -> list[dict[str, Any]]:
    with whole.client() as client:
        return [event["data"] for event in client.call("events.list", types=[type_], limit=10_000)["events"]]


def demo_profile(whole: Instance, name: str, answers: str, *changes: tuple[str, str]) -> None:
    """Give the instance a demo profile with other answers."""
    directory = whole.directory / "profiles"
    directory.mkdir(exist_ok=True, mode=0o700)
    asks = next(line for line in DEMO.read_text().splitlines() if line.startswith("asks = "))
    text = DEMO.read_text().partition("[answers]")[0] + f"[answers]\n{asks}\n{answers}"
    for old, new in changes:
        text = text.replace(old, new)
    (directory / f"{name}.tmp").write_text(text)
    (directory / f"{name}.tmp").rename(directory / f"{name}.toml")


def test_the_whole_path(running: Instance):
    """It asks, the event comes within a second, approve lets it go on, and what waited meanwhile arrives after that."""
    log = asking(running)
    with running.client() as client, running.client() as sender:
        followed = client.stream("events.follow", {"types": ["agent.state", "message.delivered"]}, credit=100)
        sender.call("messages.send", to="a", body="first")
        events_ = {}
        while events_.keys() != {"agent.state", "message.delivered"}:
            event = next(followed)
            if event["data"].get("state") in (None, "waiting"):
                events_[event["type"]] = event
    data = events_["agent.state"]["data"]
    assert (data["waits_for"], data["asks"]) == ("permission", "first")
    # Delivered is what was seen to leave the composer; it asks in the same moment.
    assert events_["agent.state"]["at"] - events_["message.delivered"]["at"] <= 1.0
    row = waits(running)
    assert (row["prompt"], row["asks"], row["state"]) == (data["prompt"], "first", "waiting")
    running.cli("send", "a", "second")
    running.cli("send", "a", "third")
    assert done(log) == []
    assert row["prompt"] in running.cli("show", "a").stdout
    explained = running.json("explain", "a")
    assert (explained["prompt"], explained["asks"]) == (row["prompt"], "first")
    assert row["prompt"] in running.cli("approve").stdout
    answer = running.json("approve", "a", "--prompt", row["prompt"])
    assert answer["failed"] == []
    assert [(r["name"], r["answer"], r["asks"]) for r in answer["answered"]] == [("a", "approve", "first")]
    assert answer["answered"][0]["then"] in ("working", "idle", "waiting")
    wait_until(lambda: done(log) == ["first"], "the first to be done")
    again = wait_until(lambda: (r := waits(running))["prompt"] != row["prompt"] and r, "it to ask for the next")
    assert again["asks"].split("\n") == ["second", "  third"]
    running.cli("approve", "a")
    wait_until(lambda: done(log) == ["first", "second", "third"], "all to be done, in order")


def test_a_denial_is_told_with_its_reason(running: Instance):
    log = asking(running)
    running.cli("send", "a", "rm -rf build")
    waits(running)
    said = running.cli("deny", "a", "--reason", "use make clean").stdout
    assert said == "denied a: rm -rf build\n"
    told = "Your request for permission was denied: use make clean"
    wait_until(lambda: waits(running)["asks"] == told, "the reason to arrive")
    assert done(log) == []
    decided = audit(running)[0]
    assert (decided["answer"], decided["reason"], decided["asks"]) == ("deny", "use make clean", "rm -rf build")


def test_an_agents_word_approves_nothing(running: Instance):
    """M12: neither a message, nor the call, nor keys; the operator's word, with the same call, does."""
    log = asking(running)
    peer = running.spawn(name="peer")
    running.cli("send", "a", "make deploy")
    prompt = waits(running)["prompt"]
    token = (running.directory / "agents" / peer["id"] / "token").read_text().strip()
    with running.client(token=token) as client:
        for body in ("approve a", "y", "y\n", "agentd approve a", f"approve {prompt}", "\x1b[201~y\r"):
            client.call("messages.send", to="a", body=body)
        for method, params in (
            ("agents.approve", {"target": "a", "prompt": prompt}),
            ("agents.deny", {"target": "a"}),
            ("agents.keys", {"target": "a", "keys": ["y"]}),
        ):
            with pytest.raises(Denied):
                client.call(method, params)
    assert waits(running)["prompt"] == prompt
    assert done(log) == []
    assert not (running.directory / "audit.jsonl").read_text()
    running.cli("approve", "a")  # the positive control
    wait_until(lambda: done(log) == ["make deploy"], "it to be done")


def test_a_program_in_a_pane_approves_nothing(running: Instance):
    """The command itself, run by an agent: refused, whatever environment it gives itself."""
    log = asking(running)
    running.spawn("sh", name="s")
    running.cli("send", "a", "make deploy")
    waits(running)
    code = running.directory / "code"
    for prefix in ("", "env -u AGENTD_TOKEN_FILE "):
        code.unlink(missing_ok=True)
        running.cli("send", "s", f"{prefix}{_agentd(running)} approve a; echo $? > {code}.tmp; mv {code}.tmp {code}")
        wait_until(code.exists, "the command to end")
        assert code.read_text() == f"{EXIT_NOT_ALLOWED}\n"
    assert done(log) == []


def _agentd(whole: Instance) -> str:
    return f"env PYTHONPATH={os.environ.get('PYTHONPATH', '')} AGENTD_DIR={whole.directory} {sys.executable} -m agentd"


def test_another_prompt_than_the_one_that_was_seen_is_left_alone(running: Instance):
    log = asking(running, mode="asks-twice")
    running.cli("send", "a", "first")
    seen = waits(running)
    running.cli("keys", "a", "y")  # somebody else was quicker
    now = wait_until(lambda: (r := waits(running))["prompt"] != seen["prompt"] and r, "the second question")
    refused = running.cli("approve", "a", "--prompt", seen["prompt"], check=False)
    assert refused.returncode == EXIT_FAILED
    assert f"a asks something else by now, prompt {now['prompt']}; nothing was pressed" in refused.stderr
    assert waits(running)["prompt"] == now["prompt"]
    assert done(log) == []
    assert [e["prompt"] for e in events(running, "agent.state") if e["prompt"]] == [seen["prompt"], now["prompt"]]
    running.cli("approve", "a", "--prompt", now["prompt"])
    wait_until(lambda: len(done(log)) == 1, "it to be done")


def test_of_two_who_saw_the_same_prompt_one_is_too_late(running: Instance):
    """Both are let in while it stands; the second comes to the next question, which nobody has seen yet."""
    log = asking(running, mode="asks-twice")
    running.cli("send", "a", "first")
    seen = waits(running)["prompt"]
    with running.client() as client, client.pipeline() as together:
        answers = [together.call("agents.approve", target="a") for _ in range(2)]
    assert answers[0].result()["answered"][0]["prompt"] == seen
    with pytest.raises(Conflict, match="another prompt stands there now; nothing was pressed"):
        answers[1].result()
    assert waits(running)["prompt"] != seen
    assert done(log) == []


def test_a_prompt_that_takes_no_answer_is_said_to_stand(running: Instance):
    running.cli("restart", "--set", "courier.confirm_s=0.5")
    asking(running, mode="asks-stubbornly")
    running.cli("send", "a", "first")
    waits(running)
    with running.client() as client, pytest.raises(DeadlineExceeded) as caught:
        client.call("agents.approve", target="a")
    assert caught.value.message == "y was pressed and the prompt still stands after 0.5 s"
    assert [line["step"] for line in audit(running)] == ["decided", "failed"]


def test_an_agent_that_ends_under_an_answer_is_told_as_gone(running: Instance):
    running.cli("restart", "--set", "courier.confirm_s=30")
    asking(running, mode="asks-stubbornly")
    running.cli("send", "a", "first")
    waits(running)
    with running.client() as client, ThreadPoolExecutor() as threads:
        answer = threads.submit(client.call, "agents.approve", target="a")
        wait_until(lambda: audit(running), "the answer to be under way")
        running.cli("stop", "a", "--force")
        with pytest.raises(AgentGone):
            answer.result(20)
    assert [line["step"] for line in audit(running)] == ["decided", "failed"]


@pytest.mark.parametrize("verb", ["approve", "deny"])
def test_who_asks_for_nothing_gets_no_answer(running: Instance, verb: str):
    """Each is a conflict whose sentence says what the agent does instead; nothing is typed."""
    asking(running, "a")
    running.spawn("sh", name="s")
    running.cli("send", "s", "cat", "--wait", "delivered")
    wait_until(lambda: running.json("ls", "s")[0]["state"] == "working", "cat to run")
    before = running.screen(running.json("show", "a")), running.screen(running.json("show", "s"))
    with running.client() as client:
        with pytest.raises(Conflict, match=r"a asks for nothing; it is idle \(the composer is empty\)"):
            client.call(f"agents.{verb}", target="a")
        with pytest.raises(Conflict, match="s asks for nothing; it is working"):
            client.call(f"agents.{verb}", target="s")
        with pytest.raises(Conflict, match="no agent of `all` waits for an answer"):
            client.call(f"agents.{verb}", target="all")
        running.cli("stop", "a", "--force")
        with pytest.raises(AgentGone):
            client.call(f"agents.{verb}", target="a")
    assert running.screen(running.json("show", "s")) == before[1]
    assert running.cli(verb, "nobody", check=False).returncode == EXIT_NOT_FOUND
    assert running.cli(verb, "s", "--prompt", "x", check=False).returncode == EXIT_USAGE
    assert running.cli("approve", "--prompt", "0123456789", check=False).returncode == EXIT_USAGE
    assert running.cli("approve").stdout == "no agent waits for an answer\n"


@pytest.mark.parametrize("kind", ["question", "login", "trust", "rate_limit", "error"])
def test_only_permissions_are_approved(running: Instance, kind: str):
    """A trust dialog's or a question's keys are others: those are for a person at the terminal."""
    directory = running.directory / "profiles"
    directory.mkdir(mode=0o700)
    text = DEMO.read_text().replace('waits_for = "permission"', f'waits_for = "{kind}"')
    (directory / "other.toml").write_text(text)
    running.cli("restart")
    log = asking(running, profile="other")
    running.cli("send", "a", "first")
    wait_until(lambda: running.json("ls", "a")[0]["waits_for"] == kind, "it to wait")
    with running.client() as client, pytest.raises(Conflict, match="a waits, and not for permission"):
        client.call("agents.approve", target="a")
    assert kind in running.cli("approve").stdout
    assert done(log) == []
    running.cli("keys", "a", "y")
    wait_until(lambda: done(log) == ["first"], "a person's key to be taken")


def test_a_group_is_answered_and_who_could_not_be_is_named(running: Instance):
    running.cli("restart", "--set", "courier.confirm_s=0.5")
    logs = [asking(running, name, team="t") for name in ("a", "b")]
    asking(running, "deaf", mode="asks-stubbornly", team="t")
    running.spawn(name="idle", team="t")
    for name in ("a", "b", "deaf"):
        running.cli("send", name, "go")
    for name in ("a", "b", "deaf"):
        waits(running, name)
    listed = running.json("approve")
    assert [row["name"] for row in listed] == ["a", "b", "deaf"]
    ran = running.cli("approve", "@t", "--json", check=False)
    assert ran.returncode == EXIT_PARTIAL
    answer = json.loads(ran.stdout)
    assert sorted(row["name"] for row in answer["answered"]) == ["a", "b"]
    assert [row["target"] for row in answer["failed"]] == ["deaf"]
    assert "deaf: y was pressed" in ran.stderr
    wait_until(lambda: [done(log) for log in logs] == [["go"], ["go"]], "both to be done")
    assert running.cli("approve", "@t", "--prompt", "0123456789", check=False).returncode == EXIT_USAGE


# -- policies


def test_a_policy_approves_what_it_names_and_leaves_the_rest(running: Instance):
    demo_profile(
        running,
        "wary",
        "approve_keys = ['y']\ndeny_keys = ['n']\npolicy = 'allow'\nallow = ['git (?:status|log .*)']\n",
    )
    running.cli("restart")
    log = asking(running, profile="wary")
    running.cli("send", "a", "git log --oneline")
    wait_until(lambda: done(log) == ["git log --oneline"], "the policy to approve")
    for body in ("git log x; touch evil", "git log x\ntouch evil", "git push", "git log $(touch evil)"):
        running.cli("send", "a", body)
        row = waits(running)
        assert row["asks"] == body.replace("\n", "\n  ")
        running.cli("deny", "a", "--prompt", row["prompt"])
        wait_until(lambda: running.json("ls", "a")[0]["state"] == "idle", "it to be idle again")
    assert done(log) == ["git log --oneline"]
    told = events(running, "agent.permission")
    assert [(e["by"], e["answer"], e["step"]) for e in told] == [("policy", "approve", "given")] + 4 * [
        ("operator", "deny", "given")
    ]
    assert "agent.permission" in running.cli("events", "--types", "agent.permission").stdout


def test_a_policy_of_never_denies_at_once(running: Instance):
    demo_profile(running, "never", "deny_keys = ['n']\npolicy = 'never'\n")
    running.cli("restart")
    log = asking(running, profile="never")
    running.cli("send", "a", "git status")
    wait_until(lambda: events(running, "agent.permission"), "the denial")
    assert events(running, "agent.permission")[0]["by"] == "policy"
    wait_until(lambda: running.json("ls", "a")[0]["state"] == "idle", "it to go on")
    assert done(log) == []
    refused = running.cli("approve", "a", check=False)
    assert refused.returncode == EXIT_FAILED


def test_a_profile_without_keys_is_for_a_person(running: Instance):
    demo_profile(running, "mute", "")
    running.cli("restart")
    asking(running, profile="mute")
    running.cli("send", "a", "git status")
    waits(running)
    refused = running.cli("approve", "a", check=False)
    assert refused.returncode == EXIT_FAILED
    assert "its profile mute has no answers.approve_keys" in refused.stderr


# -- deliveries


@pytest.mark.parametrize("delay_s", [0.0, 0.15])
def test_a_question_between_paste_and_enter_is_not_answered_by_the_enter(running: Instance, delay_s: float):
    """The Enter that submits would pick what is highlighted: it is not pressed, and the message is kept.

    The question comes before the paste shows in the composer, or after that, in the pause before Enter.
    """
    demo_profile(running, "late", "", ("[input]", "[input]\nenter_delay_ms = 600"))
    running.cli("restart", "--set", "courier.backoff_s=0.05")
    log = asking(running, profile="late", mode="asks-late", delay_s=delay_s)
    id_ = running.json("send", "a", "first")["id"]
    waits(running)
    with running.client() as client:
        history = wait_until(
            lambda: (
                (m := client.call("messages.get", id=id_))["attempts"] and m["state"] == "accepted" and m["history"]
            ),
            "the delivery to be given back",
        )
    assert "not pressed" in history[-1]["detail"]
    assert waits(running)["asks"] == "first"  # unanswered: Enter would have been a no
    assert not (running.directory / "audit.jsonl").read_text()
    assert done(log) == []


def test_messages_do_not_answer_while_it_asks(running: Instance):
    """Whatever comes meanwhile waits in the inbox: the prompt would take y and Enter for answers."""
    log = asking(running)
    running.cli("send", "a", "first")
    prompt = waits(running)["prompt"]
    running.cli(
        "send", "--batch", "-", input_="".join(json.dumps({"to": "a", "body": b}) + "\n" for b in ("y", "n", "\n"))
    )
    with running.client() as client:
        wait_until(lambda: client.call("agents.list", target="a")["agents"][0]["inbox"] == 3, "three to wait")
    assert waits(running)["prompt"] == prompt
    assert done(log) == []


# -- audit


def test_the_audit_says_who_answered_what_and_when(running: Instance):
    asking(running)
    running.cli("send", "a", "make \x1b[2J deploy")
    row = waits(running)
    with running.client() as client:
        client.call("agents.approve", target="a")
        me = os.getpid()
    path = running.directory / "audit.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "\x1b" not in path.read_text()
    decided, given = audit(running)
    assert (decided["step"], given["step"]) == ("decided", "given")
    for line in (decided, given):
        assert (line["by"], line["pid"], line["uid"], line["name"]) == ("operator", me, os.getuid(), "a")
        assert line["prompt"] == row["prompt"]
    assert decided["asks"] == "make \ufffd[2J deploy"
    assert decided["at"] <= given["at"]


def test_what_cannot_be_written_down_is_not_answered(running: Instance):
    """The audit comes before the key: where its file cannot grow the prompt stays, and is answered once it can."""
    most = 1 << 30
    os.truncate(running.directory / "audit.jsonl", most)  # without taking room: nothing else of ours is as large
    log = asking(running)
    resource.prlimit(running.pid(), resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    running.cli("send", "a", "first")
    prompt = waits(running)["prompt"]
    refused = running.cli("approve", "a", check=False)
    assert refused.returncode == EXIT_FAILED
    assert "so nothing was pressed" in refused.stderr
    assert waits(running)["prompt"] == prompt
    assert done(log) == []
    resource.prlimit(running.pid(), resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    running.cli("approve", "a")
    wait_until(lambda: done(log) == ["first"], "it to be done")
