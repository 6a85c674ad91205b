"""Killed, cancelled or out of time at any point: no worktree is lost, and none leaks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from repositories import Scene

from agentd.agents import worktrees as module
from agentd.agents.ids import new_agent_id
from agentd.agents.worktree_turns import Turns
from agentd.agents.worktrees import Worktree
from agentd.errors import Busy, Conflict, DeadlineExceeded
from agentd.failpoint import VARIABLE

pytestmark = pytest.mark.anyio

DEADLINE_S = 30
# argv: root, what to do, then its words
DAEMON = """
import os, sys
import anyio, structlog
from agentd.agents.worktrees import Worktree, Worktrees

async def main():
    worktrees = Worktrees(sys.argv[1], structlog.get_logger(), os.environ, 0o022)
    what, *words = sys.argv[2:]
    if what == "create":
        await worktrees.create(*words)
    else:
        await getattr(worktrees, what)((await worktrees.found())[0], *words)

anyio.run(main)
"""


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def daemon(scene: Scene, *words: str, point: str = "") -> subprocess.Popen[bytes]:
    environ = {**scene.environ, VARIABLE: point, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-c", DAEMON, str(scene.root), *words]
    return subprocess.Popen(argv, env=environ, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def killed_at(scene: Scene, point: str, *words: str) -> None:
    assert daemon(scene, *words, point=f"{point}:kill").wait(DEADLINE_S) == -signal.SIGKILL


class Gate:
    """A filter of the repository at which a checkout waits until it is let through."""

    def __init__(self, scene: Scene) -> None:
        self.reached, self._through = scene.top / "reached", scene.top / "through"
        for fifo in (self.reached, self._through):
            os.mkfifo(fifo)
        (scene.repo / ".gitattributes").write_text("b.txt filter=gate\n")
        scene.commit(scene.repo, "filtered")
        scene.git(scene.repo, "config", "filter.gate.smudge", f"echo $PPID >'{self.reached}'; cat - <'{self._through}'")

    async def wait(self) -> int:
        """Wait until a checkout stands before it; returns the pid of its git."""
        with anyio.fail_after(DEADLINE_S):
            return int(await anyio.to_thread.run_sync(self.reached.read_text))

    async def open(self) -> None:
        """Let one through."""
        with anyio.fail_after(DEADLINE_S):
            await anyio.to_thread.run_sync(self._through.write_text, "")


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    with anyio.fail_after(DEADLINE_S):
        while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            await anyio.sleep(0.01)


async def only_one(scene: Scene) -> Worktree:
    found = await scene.worktrees.found()
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("point", ["worktree.recorded", "worktree.added"])
async def test_killed_while_one_is_made_it_is_found_unfinished_and_goes(scene: Scene, point: str):
    killed_at(scene, point, "create", str(scene.repo), new_agent_id())
    found = await only_one(scene)
    assert not found.finished
    for use in (scene.worktrees.renew, lambda one: scene.worktrees.rename_branch(one, "x")):
        with pytest.raises(Conflict, match="was cut off"):
            await use(found)
    assert (await scene.worktrees.state(found)).work == ""
    assert (await scene.worktrees.clean(found)).removed
    assert scene.nothing_left()


async def test_killed_with_its_git_in_the_middle_of_the_checkout(scene: Scene):
    gate, child = Gate(scene), daemon(scene, "create", str(scene.repo), new_agent_id())
    checkout = await gate.wait()
    child.kill()
    child.wait(DEADLINE_S)
    os.killpg(os.getpgid(checkout), signal.SIGKILL)
    await gone(checkout)
    found = await only_one(scene)
    assert not found.finished
    assert scene.git(found.path, "status", "--porcelain") != ""  # it does look like somebody's work
    assert (await scene.worktrees.clean(found)).removed
    assert scene.nothing_left()


async def test_a_git_that_outlives_its_daemon_is_waited_for(scene: Scene):
    gate, child = Gate(scene), daemon(scene, "create", str(scene.repo), new_agent_id())
    checkout = await gate.wait()
    child.kill()
    child.wait(DEADLINE_S)
    found = await only_one(scene)
    scene.worktrees._turns = Turns(wait_s=0.2)
    with pytest.raises(Busy, match="earlier daemon"):
        await scene.worktrees.clean(found)
    assert Path(found.path).exists()
    await gate.open()
    await gone(checkout)
    scene.worktrees._turns = Turns()
    assert (await scene.worktrees.clean(found)).removed
    assert scene.nothing_left()


async def test_an_entry_of_which_git_wrote_next_to_nothing_goes_too(scene: Scene):
    id_ = new_agent_id()
    killed_at(scene, "worktree.recorded", "create", str(scene.repo), id_)
    stump, theirs = (scene.repo / ".git" / "worktrees" / name for name in (id_, "theirs"))
    for directory in (stump, theirs):
        directory.mkdir(parents=True)
        (directory / "locked").write_text("initializing")
    assert (await scene.worktrees.clean(await only_one(scene))).removed
    assert (stump.exists(), theirs.exists()) == (False, True)


@pytest.mark.parametrize("point", ["worktree.going", "worktree.removed"])
async def test_killed_while_one_is_cleaned_the_rest_goes_later(scene: Scene, point: str):
    made = await scene.create()
    killed_at(scene, point, "clean")
    # Half removed, it must never stand where it would look like a worktree with changes in it.
    assert not Path(made.path).exists()
    assert (Path(f"{made.path}.going") / "a.txt").exists() == (point == "worktree.going")
    found = await only_one(scene)
    assert (await scene.worktrees.state(replace(found, branch=made.branch))).gone
    assert (await scene.worktrees.clean(found)).removed
    assert scene.nothing_left()


async def test_killed_while_one_is_cleaned_its_commits_are_kept(scene: Scene):
    made = await scene.create()
    head = scene.commit(made.path, "work")
    killed_at(scene, "worktree.going", "clean")
    assert (await scene.worktrees.clean(await only_one(scene))).branch_kept
    assert scene.git(scene.repo, "rev-parse", made.branch) == head


async def test_killed_while_one_is_renamed_the_branch_is_still_ours(scene: Scene):
    await scene.create()
    killed_at(scene, "worktree.renamed", "rename_branch", "named")
    found = await only_one(scene)
    assert (found.branch, found.finished) == ("named", True)
    found = await scene.worktrees.rename_branch(found, "again")
    assert (await scene.worktrees.clean(found)).removed
    assert scene.branches() == ["main"]


@pytest.mark.parametrize("point", ["worktree.renewing", "worktree.renewed"])
async def test_killed_while_one_is_renewed_it_is_no_ones_work(scene: Scene, point: str):
    await scene.create()
    (scene.repo / "a.txt").write_text("new\n")
    scene.commit(scene.repo, "second")
    killed_at(scene, point, "renew")
    found = await only_one(scene)
    assert not found.finished
    assert (await scene.worktrees.clean(found)).removed
    assert scene.nothing_left()


async def test_cancelled_in_the_middle_of_the_checkout_nothing_is_left(scene: Scene):
    gate = Gate(scene)
    async with anyio.create_task_group() as group:
        group.start_soon(scene.create)
        checkout = await gate.wait()
        group.cancel_scope.cancel()
    await gone(checkout)
    assert scene.nothing_left()
    shutil.rmtree(scene.root)


async def test_a_checkout_that_takes_too_long_is_ended_and_nothing_is_left(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    gate = Gate(scene)
    monkeypatch.setattr(module, "CHECKOUT_S", 0.5)
    checkouts: list[int] = []

    async def watch() -> None:
        checkouts.append(await gate.wait())

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        with pytest.raises(DeadlineExceeded, match=r"`git worktree add` did not end within 0.5 s"):
            await scene.create()
    await gone(checkouts[0])
    assert scene.nothing_left()
