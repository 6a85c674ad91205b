"""T07, T08, T13, S01: every text that a call takes is refused or comes back as it was given; none of it acts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from instance import Instance, alive, instance, wait_until

from agentd.errors import AgentdError

# `{}` stands for a command that makes a sentinel. Each acts where tmux, a shell or a control line takes it in.
ACTS = {
    "tmux format": "#({})",
    "shell": "$({})",
    "backquotes": "`{}`",
    "tmux command": '"; run-shell "{}',
    "control line": 'x\nrun-shell "{}"\n',
    "expanded title": "#{{E:pane_title}}#({})",
}
NOT_NAMES = [
    "../../x",
    "/etc/x",
    "~",
    "%00",
    "x" * 5000,
    "",
    ".",
    "..",
    "a/b",
    "a:b",
    "a.b",
    "A",
    "-x",
    "a\n",
    "a\x00",
    "оperator",
]
NOT_NAMES += ["operator", "system", "daemon", "all", "a-", "=a", "$x", "@1", "%1", "#(true)", "a b", "x" * 49]


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        one.up()
        one.spawn(name="d")
        yield one


def control(whole: Instance, kind: str, sentinel: Path) -> None:
    """Give the same text to what takes it for more than text, and see it act."""
    text = ACTS[kind].format(f"touch {sentinel}")
    if kind in ("shell", "backquotes"):
        subprocess.run(["sh", "-c", f"echo {text}"], check=True, capture_output=True)
    else:
        quote = {"tmux command": '"', "control line": ""}.get(kind, "'")
        carelessly_asked(whole, f"display-message -p {quote}{text}{quote}", sentinel)
    wait_until(sentinel.exists, "the control to act")
    sentinel.unlink()


def carelessly_asked(whole: Instance, line: str, sentinel: Path) -> None:
    """Give tmux a line as a careless program would; jobs of a format live as long as the client that asked."""
    argv = ["tmux", "-S", str(whole.directory / "tmux-0.sock"), "-C", "attach"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as client:
        assert client.stdin
        client.stdin.write(line + "\n")
        client.stdin.flush()
        wait_until(sentinel.exists, "the control to act")


def fields(act: str, odd_dir: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield calls with the text in one field each, and whether it is a text that has to be taken."""
    demo = {"profile": "demo"}
    yield "agents.spawn", {**demo, "name": act}, False
    yield "agents.spawn", {**demo, "role": act}, False
    yield "agents.spawn", {**demo, "team": act}, False
    yield "agents.spawn", {"profile": act}, False
    yield "agents.spawn", {**demo, "env": {act: "x"}}, False
    yield "agents.spawn", {**demo, "cwd": act}, False
    yield "agents.spawn", {**demo, "cwd": f"/{act}"}, False
    yield "agents.spawn", {**demo, "cwd": odd_dir}, True
    yield "agents.spawn", {**demo, "env": {"ODD": act}}, True
    yield "agents.spawn", {**demo, "prompt": act}, True
    for method in ("get", "explain", "capture", "interrupt", "respawn"):
        yield f"agents.{method}", {"target": act}, False
    for mark in ("@", "@t/", "%"):
        yield "agents.list", {"target": mark + act}, False
    yield "agents.keys", {"target": "d", "keys": [act[:32]]}, False
    yield "messages.send", {"to": act, "body": "x"}, False
    yield "messages.send", {"to": "d", "body": act, "headers": {act: act}, "key": act[:200]}, True
    yield "messages.nack", {"ids": ["m0000"], "detail": act}, True
    yield "teams.up", {"team": {"name": act}, "agents": [{"name": "a", "profile": "demo"}], "cwd": "/"}, False
    yield "teams.up", {"team": {"name": "t"}, "agents": [{"name": act, "profile": "demo"}], "cwd": "/"}, False
    yield (
        "teams.up",
        {"team": {"name": "t"}, "agents": [{"name": "a", "profile": "demo", "role": act}], "cwd": "/"},
        False,
    )
    member = {"name": "a", "profile": "demo", "env": {act: "x"}}
    yield "teams.up", {"team": {"name": "t"}, "agents": [member], "cwd": "/"}, False
    yield "teams.get", {"team": act}, False
    yield "sessions.get", {"session": act[:100]}, False
    yield "profiles.get", {"name": act[:48]}, False
    yield "events.list", {"types": [act]}, False


@pytest.mark.parametrize("kind", ACTS)
def test_no_field_of_a_call_acts(whole: Instance, kind: str):
    sentinel = whole.directory / "S"
    control(whole, kind, sentinel)
    # Relative, so that it may stand in a directory's name; every program of ours would make it where it runs.
    act = ACTS[kind].format("touch S")
    odd_dir = whole.directory / ACTS[kind].format("touch S")
    odd_dir.mkdir()
    started: list[dict[str, Any]] = []
    with whole.client() as client:
        for method, params, taken in fields(act, str(odd_dir)):
            answer = answer_of(client, method, params)
            if isinstance(answer, AgentdError):
                assert not taken, (method, params, answer)
                well_said(answer)
                continue
            if method == "agents.spawn":
                assert taken, params
                started += answer["agents"]
                assert answer["agents"][0]["cwd"] == params.get("cwd", str(whole.directory / "home"))
            if "body" in params and taken:
                message = client.call("messages.get", {"id": answer["id"]})
                assert (message["body"], message["headers"], message["key"]) == (act, {act: act}, act[:200])
        assert started
        for agent in started:
            client.call("agents.wait", {"target": agent["id"], "until": "idle", "timeout_s": 20})
        with_env = [client.call("agents.get", {"target": agent["id"]}) for agent in started]
        assert [agent["env"]["ODD"] for agent in with_env if agent["env"]] == [act]
        for agent in started:
            if agent["cwd"] == str(odd_dir):
                assert os.readlink(f"/proc/{agent['pid']}/cwd") == str(odd_dir)
        for method in ("agents.list", "sessions.list", "events.list", "teams.list", "daemon.status"):
            client.call(method)
        client.call("agents.stop", {"targets": [agent["id"] for agent in started], "force": True})
    for words in (["ls"], ["show", "d"], ["read", "d"], ["events"], ["inbox", "d"], ["call", "sessions.list"]):
        whole.cli(*words)
    assert not [str(path) for path in whole.directory.rglob("S")]
    assert not Path("S").exists()
    assert not Path("/S").exists()


def test_a_title_that_a_program_prints_is_never_expanded(whole: Instance):
    """T08: the title says `#(touch S)`; everything that shows agents is asked, and none lets tmux expand it."""
    agent = whole.spawn("sh", name="titled")
    sentinel = whole.directory / "titled-S"
    whole.cli("send", "titled", f"printf '\\033]2;#(touch {sentinel})\\007'; echo titled", "--wait", "delivered")
    title = f"#(touch {sentinel})"
    wait_until(lambda: whole.tmux("display-message", "-p", "-t", agent["pane"], "#{pane_title}").strip() == title, "it")
    for words in (["ls"], ["ls", "--json"], ["show", "titled"], ["explain", "titled"], ["read", "titled"], ["events"]):
        whole.cli(*words)
    whole.cli("attach", "titled", "--json")
    whole.cli("read", "titled", "--raw")
    whole.cli("call", "sessions.list")
    whole.cli("send", "titled", "echo again", "--wait", "delivered", "--timeout", "20")
    assert not sentinel.exists()
    carelessly_asked(whole, f"display-message -p -t {agent['pane']} '#{{E:pane_title}}'", sentinel)


def test_a_title_is_not_expanded_for_a_person_who_is_attached(whole: Instance):
    """T08: what `attach` runs draws the whole screen, status line and all, in a terminal of its own."""
    import pty

    agent = whole.spawn("sh", name="watched")
    sentinel = whole.directory / "watched-S"
    whole.cli("send", "watched", f"printf '\\033]2;#(touch {sentinel})\\007'; echo shown", "--wait", "delivered")
    argv = whole.json("attach", "watched")["attach"]
    main, side = pty.openpty()
    person = subprocess.Popen(
        argv, stdin=side, stdout=side, stderr=side, start_new_session=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(side)
    try:
        seen = b""
        while b"shown" not in seen:
            seen += os.read(main, 65_536)
        whole.tmux("refresh-client", "-S", "-t", whole.tmux("list-clients", "-F", "#{client_name}").split()[-1])
        whole.cli("send", "watched", "echo more", "--wait", "delivered", "--timeout", "20")
        assert whole.screen(agent)
    finally:
        person.terminate()
        os.close(main)
        person.wait(timeout=20)
    assert not sentinel.exists()


def test_stopping_an_agent_leaves_its_namesakes(whole: Instance):
    """T13: a name is never a prefix or a pattern."""
    agents = {name: whole.spawn(name=name) for name in ("n-1", "n-10", "n-11", "n")}
    assert whole.cli("stop", "n-1").returncode == 0
    whole.cli("stop", "n-1", check=False)
    whole.cli("stop", "n-1", "--force", check=False)
    assert not alive(agents["n-1"]["pid"])
    whole.cli("stop", "n-*", "n-?", "n-1.", check=False)
    assert all(alive(agents[name]["pid"]) for name in ("n-10", "n-11", "n"))
    whole.cli("stop", "n")
    assert all(alive(agents[name]["pid"]) for name in ("n-10", "n-11"))
    whole.cli("stop", "n-10", "n-11")


def tree(directory: Path) -> list[str]:
    return sorted(f"{path} {path.lstat().st_mtime_ns}" for path in directory.rglob("*"))


def test_what_is_no_name_is_refused_and_touches_nothing(whole: Instance, tmp_path: Path):
    """S01: names never become paths; nothing outside the instance's directory changes."""
    (tmp_path / "x").write_text("mine")
    before = tree(tmp_path)
    below = {path.name for path in whole.directory.iterdir()}
    outside = str(os.path.relpath(tmp_path / "x", whole.directory / "agents"))
    with whole.client() as client:
        for odd in [*NOT_NAMES, outside, str(tmp_path / "x")]:
            for method, params in (
                ("agents.spawn", {"profile": "demo", "name": odd}),
                ("agents.spawn", {"profile": "demo", "team": odd}),
                ("agents.spawn", {"profile": "demo", "role": odd}),
                ("agents.spawn", {"profile": odd}),
                ("agents.get", {"target": odd}),
                ("agents.stop", {"targets": [odd]}),
                ("agents.capture", {"target": odd}),
                ("agents.respawn", {"target": odd}),
                ("messages.send", {"to": odd, "body": "x"}),
                ("messages.get", {"id": odd}),
                ("messages.ack", {"ids": [odd]}),
                ("messages.drop", {"ids": [odd]}),
                ("teams.get", {"team": odd}),
                ("teams.down", {"team": odd}),
                ("teams.up", {"team": {"name": odd}, "agents": [{"name": "a", "profile": "demo"}], "cwd": "/"}),
                ("teams.up", {"team": {"name": "t"}, "agents": [{"name": odd, "profile": "demo"}], "cwd": "/"}),
                ("profiles.get", {"name": odd}),
                ("sessions.get", {"session": odd}),
            ):
                refused(client, method, params)
    assert tree(tmp_path) == before
    assert {path.name for path in whole.directory.iterdir()} <= below | {"agents"}


def refused(client: Any, method: str, params: dict[str, Any]) -> None:
    if "all" in (params.get("target"), params.get("to"), *params.get("targets", ())) or params.get("to") == "operator":
        return  # reserved because they mean somebody
    answer = answer_of(client, method, params)
    if isinstance(answer, AgentdError):
        well_said(answer)
    else:
        assert answer.get("failed"), (method, params, answer)


def answer_of(client: Any, method: str, params: dict[str, Any]) -> dict[str, Any] | AgentdError:
    try:
        return dict(client.call(method, params))
    except AgentdError as error:
        return error


def well_said(error: AgentdError) -> None:
    """An error is one printable line that says what was wrong, and never that we failed."""
    assert error.code not in {"internal", "unavailable"}, error
    assert error.message.isprintable(), error
    assert len(error.message) < 600, error
