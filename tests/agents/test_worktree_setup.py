"""A project's setup command: in its worktree, within its time, with the end of its output kept."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repositories import Scene

from agentd.agents.worktree_setup import LOG_BYTES, SetupLog
from agentd.agents.worktrees import Worktree
from agentd.errors import Conflict, DeadlineExceeded, InvalidValue, NotFound

pytestmark = pytest.mark.anyio

ENVIRON = {"PATH": os.environ["PATH"], "MARK": "given"}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def run(scene: Scene, made: Worktree, script: str, timeout_s: float = 30.0) -> None:
    await scene.worktrees.setup(made, ["sh", "-c", script], timeout_s, ENVIRON)


def log_of(made: Worktree) -> Path:
    return Path(f"{made.path}.log")


async def test_it_runs_in_the_worktree_with_its_environment_and_its_output_is_kept(scene: Scene):
    made = await scene.create()
    await run(scene, made, 'pwd >ignored-not; echo "$MARK ${HOME-none}"; echo err >&2; cat')
    assert (Path(made.path) / "ignored-not").read_text() == f"{made.path}\n"
    assert log_of(made).read_text() == "given none\nerr\n"
    assert log_of(made).stat().st_mode & 0o077 == 0
    assert await scene.worktrees.found() == [made]
    await scene.worktrees.clean(made, force=True)
    assert scene.nothing_left()


async def test_a_failure_tells_its_status_and_its_last_line(scene: Scene):
    made = await scene.create()
    with pytest.raises(Conflict, match=r"exited with status 7; last: npm ERR! no lock file") as caught:
        await run(scene, made, "echo first; printf 'npm ERR! no lock file\\n\\n  \\n'; exit 7")
    assert caught.value.hint == f"its output is in {log_of(made)}"
    with pytest.raises(Conflict, match="was killed by signal 9; last: nothing"):
        await run(scene, made, "kill -9 $$")
    with pytest.raises(Conflict, match=r"last: .*\ufffd"):
        await run(scene, made, "printf 'a\\033[2Jb\\377'; exit 1")


async def test_past_its_time_all_of_its_group_ends(scene: Scene):
    """Also a child that does not listen to TERM and prints elsewhere."""
    made = await scene.create()
    pids = scene.top / "pids"
    os.mkfifo(pids)
    script = f"(trap '' TERM; echo $$ >'{pids}'; while :; do sleep 0.05; done) >/dev/null 2>&1 & echo waiting; wait"
    found: list[int] = []

    async def read() -> None:
        found.append(int(await anyio.to_thread.run_sync(pids.read_text)))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            with pytest.raises(DeadlineExceeded, match=r"did not end within 1 s and was ended; last: waiting"):
                await run(scene, made, script, timeout_s=1.0)
        await group_gone(found[0])


async def test_cancelled_it_ends(scene: Scene):
    made = await scene.create()
    pids = scene.top / "pids"
    os.mkfifo(pids)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(run, scene, made, f"echo $$ >'{pids}'; sleep 1000")
            pid = int(await anyio.to_thread.run_sync(pids.read_text))
            group.cancel_scope.cancel()
        await group_gone(pid)


async def group_gone(pid: int) -> None:
    while True:
        try:
            os.killpg(pid, 0)
        except (ProcessLookupError, PermissionError):
            return
        if all("\nState:\tZ" in text for text in statuses_of(pid)):
            return  # whoever inherited them has not looked yet
        await anyio.sleep(0.01)


def statuses_of(group: int) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(entry.name)) == group:
                found.append((entry / "status").read_text())
        except (ProcessLookupError, FileNotFoundError):
            continue
    return found


async def test_what_it_leaves_running_is_not_waited_for(scene: Scene):
    made = await scene.create()
    pids = scene.top / "pids"
    with anyio.fail_after(20):
        await run(scene, made, f"sleep 1000 & echo $! >'{pids}'; echo done")
    os.kill(int(pids.read_text()), signal.SIGKILL)
    assert log_of(made).read_text() == "done\n"


async def test_much_output_leaves_the_end_of_it(scene: Scene):
    made = await scene.create()
    await run(
        scene, made, "i=0; while [ $i -lt 40 ]; do head -c 10000 /dev/zero | tr '\\0' x; i=$((i+1)); done; echo end"
    )
    text = log_of(made).read_text()
    assert len(text) == LOG_BYTES
    assert text.endswith("xend\n")


async def test_what_cannot_be_run_is_named(scene: Scene):
    made = await scene.create()
    for command in ([], [""], ["a\0b"]):
        with pytest.raises(InvalidValue, match="nothing was run"):
            await scene.worktrees.setup(made, command, 1.0, ENVIRON)
    with pytest.raises(NotFound, match="`no-such-program` cannot be run: No such file"):
        await scene.worktrees.setup(made, ["no-such-program"], 1.0, ENVIRON)
    await scene.worktrees.clean(made)
    with pytest.raises(NotFound, match="is gone; nothing was run"):
        await run(scene, made, "true")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 100_000), max_size=12))
def test_the_log_is_the_end_of_all_output_and_bounded(tmp_path_factory: pytest.TempPathFactory, sizes_bytes: list[int]):
    path = tmp_path_factory.mktemp("log") / "x.log"
    log, whole = SetupLog(str(path)), b""
    for size_bytes in sizes_bytes:
        chunk = (b"%d " % len(whole) * (size_bytes // 2 + 1))[:size_bytes]
        whole += chunk
        log.add(chunk)
        assert path.stat().st_size <= 2 * LOG_BYTES
    log.close()
    assert whole.endswith(path.read_bytes())
    assert path.stat().st_size == min(len(whole), LOG_BYTES)
