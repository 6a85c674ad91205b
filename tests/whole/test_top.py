"""`agentd top`: the live view, driven by textual's pilot beside a real daemon, and what is printed elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from instance import Instance, instance, proc
from textual.pilot import Pilot
from textual.widgets import Static
from typing_shell import typing_shell

from agentd.cli.live import Top

pytestmark = pytest.mark.anyio
LIMIT_S = 20.0


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """Give an instance in which two agents run, which every test leaves as they were."""
    with instance() as whole:
        whole.up()
        whole.spawn("demo", name="bea", team="crew")
        whole.spawn("shell", name="ada")
        yield whole


@pytest.fixture
def crew(running: Instance, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """Let this process connect to the instance."""
    for name in [name for name in os.environ if name.startswith("AGENTD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTD_DIR", str(running.directory))
    monkeypatch.setenv("AGENTD_AUTOSTART", "0")
    return running


def names(app: Top) -> list[str]:
    return [str(app.table.get_row_at(row)[0]) for row in range(app.table.row_count)]


def said(app: Top, selector: str) -> str:
    return str(app.screen.query_one(selector, Static).render())


async def until(pilot: Pilot[None], condition) -> None:
    """Wait until the view shows something, letting it draw meanwhile."""
    with anyio.fail_after(LIMIT_S):
        while not condition():
            await pilot.pause(0.02)


async def test_it_shows_what_happens_sorts_filters_and_shows_screens(crew: Instance):
    app = Top()
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: names(app) == ["ada", "bea"])
        assert "2 idle" in said(app, "#totals")
        crew.spawn("demo", name="abe")
        await until(pilot, lambda: names(app) == ["abe", "ada", "bea"])

        await pilot.press("s", "s", "s")  # inbox, since, team
        await until(pilot, lambda: names(app)[0] == "bea")

        crew.cli("send", "ada", "echo $((6 * 7)) [bold]", "--wait", "delivered")
        await pilot.press("slash", *"ada")
        await until(pilot, lambda: names(app) == ["ada"])
        await pilot.press("enter", "enter")  # out of the filter, into the agent
        await until(pilot, lambda: "42 [bold]" in said(app, "#screen"))
        await pilot.press("x")  # nothing is typed into it
        await pilot.press("escape", "escape")
        await until(pilot, lambda: len(names(app)) == 3)
        assert "x" not in crew.screen(crew.json("show", "ada")).splitlines()[-1]

        crew.cli("stop", "abe")
        await until(pilot, lambda: sorted(names(app)) == ["ada", "bea"])
        await pilot.press("q")
    assert app.return_code == 0


async def test_it_lists_only_what_changed_and_waits_for_a_daemon(crew: Instance):
    app = Top()
    async with app.run_test() as pilot:
        await until(pilot, lambda: len(names(app)) == 2)
        listed, began_s = app.lists, time.monotonic()
        crew.cli("send", "bea", "hello", "--wait", "reply")
        await until(pilot, lambda: app.lists > listed)
        assert app.lists - listed <= time.monotonic() - began_s + 2
        crew.cli("down")
        await until(pilot, lambda: "waiting for a daemon" in said(app, "#totals"))
        crew.up()
        await until(pilot, lambda: "2 idle" in said(app, "#totals"))


def test_what_the_start_cost_is_not_spread_over_the_seconds_after_it(idle_instance: Instance):
    """Else the daemon would be shown with far more than it uses for as long as it is young."""
    idle_instance.up()
    with idle_instance.client() as client:
        counted_s = client.daemon_metrics()["cpu_seconds_total"]
    ticks = proc(idle_instance.pid(), "stat").rpartition(b")")[2].split()[11:13]
    spent_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    assert 0 < counted_s < spent_s - 0.1  # its modules alone take that


def test_without_a_terminal_it_is_printed_once(crew: Instance):
    lines = crew.cli("top").stdout.splitlines()
    assert "2 idle" in lines[0]
    assert "% CPU" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["NAME", "ada", "bea"]
    assert {agent["name"] for agent in crew.json("top")["agents"]} == {"ada", "bea"}


def test_at_a_terminal(crew: Instance):
    with typing_shell([sys.executable, "-m", "agentd", "top"], crew.environ) as typing:
        typing.until("bea")
        typing.type("q")
        assert typing.ended() == 0


def test_without_its_extra_it_says_what_to_install(crew: Instance, tmp_path: Path):
    (tmp_path / "textual.py").write_text("raise ModuleNotFoundError('No module named textual', name='textual')\n")
    environ = {**crew.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    with typing_shell([sys.executable, "-m", "agentd", "top"], environ) as typing:
        assert typing.ended() == 1
        assert "pip install 'agentd[top]'" in typing.printed
        assert typing.printed.count("\n") == 1
    done = subprocess.run([sys.executable, "-m", "agentd", "top", "--json"], env=environ, capture_output=True)
    assert json.loads(done.stdout)["status"]["agents"]["idle"] == 2
