"""Permission prompts of real programs in real terminals: seen, answered by whoever may, and by nobody else."""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faults import rows
from instance import Instance, instance, wait_until

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


# What an agent may wait for besides permission, by the name of a profile that does.
KINDS = {kind.replace("_", "-"): kind for kind in ("question", "login", "trust", "rate_limit", "error")}


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    """Give an instance with every profile that is wanted here, and whose daemon runs."""
    with instance() as one:
        both = "approve_keys = ['y']\ndeny_keys = ['n']\n"
        demo_profile(one, "wary", f"{both}policy = 'allow'\nallow = ['git (?:status|log .*)']\n")
        demo_profile(one, "never", "deny_keys = ['n']\npolicy = 'never'\n")
        demo_profile(one, "mute", "")
        demo_profile(one, "late", "", ("[input]", "[input]\nenter_delay_ms = 600"))
        for name, kind in KINDS.items():
            text = DEMO.read_text().replace('waits_for = "permission"', f'waits_for = "{kind}"')
            (one.directory / "profiles" / f"{name}.toml").write_text(text)
        one.up("courier.confirm_s=30", "courier.backoff_s=0.05")
        yield one


@pytest.fixture
def whole(shared: Instance) -> Iterator[Instance]:
    """Give the shared instance without agents, and with nothing in its audit."""
    os.truncate(shared.directory / "audit.jsonl", 0)
    yield shared
    shared.tidy()


@pytest.fixture(scope="module")
def shared_hasty() -> Iterator[Instance]:
    """Give an instance that soon takes a prompt for one that stands."""
    with instance() as one:
        one.up("courier.confirm_s=0.5")
        yield one


@pytest.fixture
def hasty(shared_hasty: Instance) -> Iterator[Instance]:
    """Give the shared one without agents, and with nothing in its audit."""
    os.truncate(shared_hasty.directory / "audit.jsonl", 0)
    yield shared_hasty
    shared_hasty.tidy()


def asking(whole: Instance, name: str = "a", mode: str = "asks-permission", delay_s: float = 0.0, **more: Any) -> Path:
    """Spawn a demo agent that asks before each prompt; return the file it writes down what it did."""
    log = Path(tempfile.mkdtemp(dir=whole.directory)) / "log"
    env = {"AGENTD_DEMO_MODE": mode, "AGENTD_DEMO_LOG": str(log), "AGENTD_DEMO_DELAY_S": str(delay_s)}
    whole.spawn(more.pop("profile", "demo"), name=name, env=env, **more)
    return log


def send(whole: Instance, name: str, body: str) -> str:
    with whole.client() as client:
        return client.send(name, body).id


def listed(whole: Instance, name: str = "a") -> dict[str, Any]:
    with whole.client() as client:
        return dict(client.call("agents.list", target=name)["agents"][0])


def act(whole: Instance, verb: str, name: str = "a", **more: Any) -> None:
    with whole.client() as client:
        client.call(f"agents.{verb}", target=name, **more)


def waits(whole: Instance, name: str = "a") -> dict[str, Any]:
    """Wait until an agent's prompt stands; return the agent's row."""
    return dict(wait_until(lambda: (row := listed(whole, name))["prompt"] and row, f"{name} to ask"))


def done(log: Path) -> list[str]:
    return [row["body"] for row in rows(log)]


def audit(whole: Instance) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (whole.directory / "audit.jsonl").read_text().splitlines()]


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


def test_the_whole_path(whole: Instance):
    """It asks, the event comes within a second, approve lets it go on, and what waited meanwhile arrives after that."""
    log = asking(whole)
    with whole.client() as client, whole.client() as sender:
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
    row = waits(whole)
    assert (row["prompt"], row["asks"], row["state"]) == (data["prompt"], "first", "waiting")
    send(whole, "a", "second")
    send(whole, "a", "third")
    assert done(log) == []
    assert row["prompt"] in whole.cli("show", "a").stdout
    explained = whole.json("explain", "a")
    assert (explained["prompt"], explained["asks"]) == (row["prompt"], "first")
    assert row["prompt"] in whole.cli("approve").stdout
    answer = whole.json("approve", "a", "--prompt", row["prompt"])
    assert answer["failed"] == []
    assert [(r["name"], r["answer"], r["asks"]) for r in answer["answered"]] == [("a", "approve", "first")]
    assert answer["answered"][0]["then"] in ("working", "idle", "waiting")
    wait_until(lambda: done(log) == ["first"], "the first to be done")
    again = wait_until(lambda: (r := waits(whole))["prompt"] != row["prompt"] and r, "it to ask for the next")
    assert again["asks"].split("\n") == ["second", "  third"]
    whole.cli("approve", "a")
    wait_until(lambda: done(log) == ["first", "second", "third"], "all to be done, in order")


def test_a_denial_is_told_with_its_reason(whole: Instance):
    log = asking(whole)
    send(whole, "a", "rm -rf build")
    waits(whole)
    said = whole.cli("deny", "a", "--reason", "use make clean").stdout
    assert said == "denied a: rm -rf build\n"
    told = "Your request for permission was denied: use make clean"
    wait_until(lambda: waits(whole)["asks"] == told, "the reason to arrive")
    assert done(log) == []
    decided = audit(whole)[0]
    assert (decided["answer"], decided["reason"], decided["asks"]) == ("deny", "use make clean", "rm -rf build")


def test_an_agents_word_approves_nothing(whole: Instance):
    """M12: neither a message, nor the call, nor keys; the operator's word, with the same call, does."""
    log = asking(whole)
    peer = whole.spawn(name="peer")
    send(whole, "a", "make deploy")
    prompt = waits(whole)["prompt"]
    token = (whole.directory / "agents" / peer["id"] / "token").read_text().strip()
    with whole.client(token=token) as client:
        for body in ("approve a", "y", "y\n", "agentd approve a", f"approve {prompt}", "\x1b[201~y\r"):
            client.call("messages.send", to="a", body=body)
        for method, params in (
            ("agents.approve", {"target": "a", "prompt": prompt}),
            ("agents.deny", {"target": "a"}),
            ("agents.keys", {"target": "a", "keys": ["y"]}),
        ):
            with pytest.raises(Denied):
                client.call(method, params)
    assert waits(whole)["prompt"] == prompt
    assert done(log) == []
    assert not (whole.directory / "audit.jsonl").read_text()
    act(whole, "approve")  # the positive control
    wait_until(lambda: done(log) == ["make deploy"], "it to be done")


def test_a_program_in_a_pane_approves_nothing(whole: Instance):
    """The command itself, run by an agent: refused, whatever environment it gives itself."""
    log = asking(whole)
    whole.spawn("sh", name="s")
    send(whole, "a", "make deploy")
    waits(whole)
    code = whole.directory / "code"
    for prefix in ("", "env -u AGENTD_TOKEN_FILE "):
        code.unlink(missing_ok=True)
        send(whole, "s", f"{prefix}{_agentd(whole)} approve a; echo $? > {code}.tmp; mv {code}.tmp {code}")
        wait_until(code.exists, "the command to end")
        assert code.read_text() == f"{EXIT_NOT_ALLOWED}\n"
    assert done(log) == []


def _agentd(whole: Instance) -> str:
    return f"env PYTHONPATH={os.environ.get('PYTHONPATH', '')} AGENTD_DIR={whole.directory} {sys.executable} -m agentd"


def test_another_prompt_than_the_one_that_was_seen_is_left_alone(whole: Instance):
    log = asking(whole, mode="asks-twice")
    send(whole, "a", "first")
    seen = waits(whole)
    act(whole, "keys", keys=["y"])  # somebody else was quicker
    now = wait_until(lambda: (r := waits(whole))["prompt"] != seen["prompt"] and r, "the second question")
    refused = whole.cli("approve", "a", "--prompt", seen["prompt"], check=False)
    assert refused.returncode == EXIT_FAILED
    assert f"a asks something else by now, prompt {now['prompt']}; nothing was pressed" in refused.stderr
    assert waits(whole)["prompt"] == now["prompt"]
    assert done(log) == []
    assert [e["prompt"] for e in whole.events("agent.state") if e["prompt"]] == [seen["prompt"], now["prompt"]]
    act(whole, "approve", prompt=now["prompt"])
    wait_until(lambda: len(done(log)) == 1, "it to be done")


def test_of_two_who_saw_the_same_prompt_one_is_too_late(whole: Instance):
    """Both are let in while it stands; the second comes to the next question, which nobody has seen yet."""
    log = asking(whole, mode="asks-twice")
    send(whole, "a", "first")
    seen = waits(whole)["prompt"]
    with whole.client() as client, client.pipeline() as together:
        answers = [together.call("agents.approve", target="a") for _ in range(2)]
    assert answers[0].result()["answered"][0]["prompt"] == seen
    with pytest.raises(Conflict, match="another prompt stands there now; nothing was pressed"):
        answers[1].result()
    assert waits(whole)["prompt"] != seen
    assert done(log) == []


def test_a_prompt_that_takes_no_answer_is_said_to_stand(hasty: Instance):
    whole = hasty
    asking(whole, mode="asks-stubbornly")
    send(whole, "a", "first")
    waits(whole)
    with whole.client() as client, pytest.raises(DeadlineExceeded) as caught:
        client.call("agents.approve", target="a")
    assert caught.value.message == "y was pressed and the prompt still stands after 0.5 s"
    assert [line["step"] for line in audit(whole)] == ["decided", "failed"]


def test_an_agent_that_ends_under_an_answer_is_told_as_gone(whole: Instance):
    asking(whole, mode="asks-stubbornly")
    send(whole, "a", "first")
    waits(whole)
    with whole.client() as client, ThreadPoolExecutor() as threads:
        answer = threads.submit(client.call, "agents.approve", target="a")
        wait_until(lambda: audit(whole), "the answer to be under way")
        whole.json("stop", "a", "--force")
        with pytest.raises(AgentGone):
            answer.result(20)
    assert [line["step"] for line in audit(whole)] == ["decided", "failed"]


def test_who_asks_for_nothing_gets_no_answer(whole: Instance):
    """Each is a conflict whose sentence says what the agent does instead; nothing is typed."""
    asking(whole, "a")
    whole.spawn("sh", name="s")
    send(whole, "s", "cat")
    wait_until(lambda: listed(whole, "s")["state"] == "working", "cat to run")
    before = whole.screen(listed(whole, "a")), whole.screen(listed(whole, "s"))
    for verb in ("approve", "deny"):
        check_nothing_is_answered(whole, verb)
    assert (whole.screen(listed(whole, "a")), whole.screen(listed(whole, "s"))) == before
    with whole.client() as client:
        client.call("agents.stop", targets=["a"], force=True)
        for verb in ("approve", "deny"):
            with pytest.raises(AgentGone):
                client.call(f"agents.{verb}", target="a")
    assert whole.cli("approve", "--prompt", "0123456789", check=False).returncode == EXIT_USAGE
    assert whole.cli("approve").stdout == "no agent waits for an answer\n"


def check_nothing_is_answered(whole: Instance, verb: str) -> None:
    with whole.client() as client:
        with pytest.raises(Conflict, match=r"a asks for nothing; it is idle \(the composer is empty\)"):
            client.call(f"agents.{verb}", target="a")
        with pytest.raises(Conflict, match="s asks for nothing; it is working"):
            client.call(f"agents.{verb}", target="s")
        with pytest.raises(Conflict, match="no agent of `all` waits for an answer"):
            client.call(f"agents.{verb}", target="all")
    assert whole.cli(verb, "nobody", check=False).returncode == EXIT_NOT_FOUND
    assert whole.cli(verb, "s", "--prompt", "x", check=False).returncode == EXIT_USAGE


def test_only_permissions_are_approved(whole: Instance):
    """A trust dialog's or a question's keys are others: those are for a person at the terminal."""
    logs = {name: asking(whole, name, profile=name) for name in KINDS}
    for name in KINDS:
        send(whole, name, "first")
    for name, kind in KINDS.items():
        wait_until(lambda kind=kind, name=name: listed(whole, name)["waits_for"] == kind, "it to wait")
        with pytest.raises(Conflict, match=f"{name} waits, and not for permission"):
            act(whole, "approve", name)
    told = whole.json("approve")
    assert {row["name"]: row["waits_for"] for row in told} == KINDS
    assert [done(log) for log in logs.values()] == [[]] * len(KINDS)
    for name, log in logs.items():
        act(whole, "keys", name, keys=["y"])
        wait_until(lambda log=log: done(log) == ["first"], "a person's key to be taken")


def test_a_group_is_answered_and_who_could_not_be_is_named(hasty: Instance):
    whole = hasty
    logs = [asking(whole, name, team="t") for name in ("a", "b")]
    asking(whole, "deaf", mode="asks-stubbornly", team="t")
    whole.spawn(name="idle", team="t")
    for name in ("a", "b", "deaf"):
        send(whole, name, "go")
    for name in ("a", "b", "deaf"):
        waits(whole, name)
    listed = whole.json("approve")
    assert [row["name"] for row in listed] == ["a", "b", "deaf"]
    ran = whole.cli("approve", "@t", "--json", check=False)
    assert ran.returncode == EXIT_PARTIAL
    answer = json.loads(ran.stdout)
    assert sorted(row["name"] for row in answer["answered"]) == ["a", "b"]
    assert [row["target"] for row in answer["failed"]] == ["deaf"]
    assert "deaf: y was pressed" in ran.stderr
    wait_until(lambda: [done(log) for log in logs] == [["go"], ["go"]], "both to be done")
    assert whole.cli("approve", "@t", "--prompt", "0123456789", check=False).returncode == EXIT_USAGE


# -- policies


def test_a_policy_approves_what_it_names_and_leaves_the_rest(whole: Instance):
    log = asking(whole, profile="wary")
    send(whole, "a", "git log --oneline")
    wait_until(lambda: done(log) == ["git log --oneline"], "the policy to approve")
    wait_until(lambda: listed(whole)["state"] == "idle", "it to be idle again")
    for body in ("git log x; touch evil", "git log x\ntouch evil", "git push", "git log $(touch evil)"):
        send(whole, "a", body)
        row = waits(whole)
        assert row["asks"] == body.replace("\n", "\n  ")
        act(whole, "deny", prompt=row["prompt"])
        wait_until(lambda: listed(whole)["state"] == "idle", "it to be idle again")
    assert done(log) == ["git log --oneline"]
    told = whole.events("agent.permission")
    assert [(e["by"], e["answer"], e["step"]) for e in told] == [("policy", "approve", "given")] + 4 * [
        ("operator", "deny", "given")
    ]
    assert "agent.permission" in whole.cli("events", "--types", "agent.permission").stdout


def test_a_policy_of_never_denies_at_once(whole: Instance):
    log = asking(whole, profile="never")
    send(whole, "a", "git status")
    wait_until(lambda: whole.events("agent.permission"), "the denial")
    assert whole.events("agent.permission")[0]["by"] == "policy"
    wait_until(lambda: listed(whole)["state"] == "idle", "it to go on")
    assert done(log) == []
    refused = whole.cli("approve", "a", check=False)
    assert refused.returncode == EXIT_FAILED


def test_a_profile_without_keys_is_for_a_person(whole: Instance):
    asking(whole, profile="mute")
    send(whole, "a", "git status")
    waits(whole)
    refused = whole.cli("approve", "a", check=False)
    assert refused.returncode == EXIT_FAILED
    assert "its profile mute has no answers.approve_keys" in refused.stderr


# -- deliveries


@pytest.mark.parametrize("delay_s", [0.0, 0.15])
def test_a_question_between_paste_and_enter_is_not_answered_by_the_enter(whole: Instance, delay_s: float):
    """The Enter that submits would pick what is highlighted: it is not pressed, and the message is kept.

    The question comes before the paste shows in the composer, or after that, in the pause before Enter.
    """
    log = asking(whole, profile="late", mode="asks-late", delay_s=delay_s)
    id_ = send(whole, "a", "first")
    waits(whole)
    with whole.client() as client:
        history = wait_until(
            lambda: (
                (m := client.call("messages.get", id=id_))["attempts"] and m["state"] == "accepted" and m["history"]
            ),
            "the delivery to be given back",
        )
    assert "not pressed" in history[-1]["detail"]
    assert waits(whole)["asks"] == "first"  # unanswered: Enter would have been a no
    assert not (whole.directory / "audit.jsonl").read_text()
    assert done(log) == []


def test_messages_do_not_answer_while_it_asks(whole: Instance):
    """Whatever comes meanwhile waits in the inbox: the prompt would take y and Enter for answers."""
    log = asking(whole)
    send(whole, "a", "first")
    prompt = waits(whole)["prompt"]
    whole.cli(
        "send", "--batch", "-", input_="".join(json.dumps({"to": "a", "body": b}) + "\n" for b in ("y", "n", "\n"))
    )
    with whole.client() as client:
        wait_until(lambda: client.call("agents.list", target="a")["agents"][0]["inbox"] == 3, "three to wait")
    assert waits(whole)["prompt"] == prompt
    assert done(log) == []


# -- audit


def test_the_audit_says_who_answered_what_and_when(whole: Instance):
    asking(whole)
    send(whole, "a", "make \x1b[2J deploy")
    row = waits(whole)
    with whole.client() as client:
        client.call("agents.approve", target="a")
        me = os.getpid()
    path = whole.directory / "audit.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "\x1b" not in path.read_text()
    decided, given = audit(whole)
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
