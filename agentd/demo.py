"""`agentd demo`: the main job in a temporary instance, the daemon killed in the middle, nothing left behind."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from agentd.client import Client, connect
from agentd.errors import AgentdError

SCRIPTED_AGENTS = 8
SHELLS = 2
MESSAGES = 1000
TO_SHELLS = 40
BATCH = 100
DEADLINE_S = 120.0
POOL_S = 30.0
# The pool of a demonstration is small and short-lived: it does not wait until a busy machine has room.
POOL_SETTINGS = ("--set", "pool.load_max=1000", "--set", "pool.reserve_mb=0", "--set", "pool.slot_mb=30")
SAMPLES = 50


def run(*, as_json: bool = False) -> int:
    """Do the main job and print what came back; returns the exit code."""
    report: dict[str, Any] = {}
    with _instance() as environ, _Progress() as progress:
        _main_job(environ, report, progress.say)
    report["left_behind"] = _left_behind(environ["AGENTD_DIR"])
    print(json.dumps(report) if as_json else _table(report))
    whole = report["answered"] == report["asked"] and report["pids_kept"] and not report["left_behind"]
    return 0 if whole else 1


@contextmanager
def _instance() -> Iterator[dict[str, str]]:
    """Give an environment with a temporary AGENTD_DIR; end everything of it afterwards, whatever happened."""
    base = "/tmp" if os.path.isdir("/tmp") else None  # noqa: S108  a socket path must be short; mkdtemp is private
    directory = tempfile.mkdtemp(prefix="agentd-demo-", dir=base)
    environ = {k: v for k, v in os.environ.items() if k not in ("TMUX", "TMUX_PANE") and not k.startswith("AGENTD_")}
    environ["AGENTD_DIR"] = directory
    try:
        yield environ
    finally:
        _agentd(environ, "down", "--agents", "stop")
        shutil.rmtree(directory, ignore_errors=True)


def _agentd(environ: dict[str, str], *args: str) -> None:
    command = [sys.executable, "-m", "agentd", *args]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sentence = (done.stderr or done.stdout).strip().removeprefix("agentd: ")
        raise AgentdError(f"`agentd {' '.join(args)}` failed: {sentence}")


def _main_job(environ: dict[str, str], report: dict[str, Any], say: Callable[[str], None]) -> None:
    say("starting a daemon of its own")
    _agentd(environ, "up", *POOL_SETTINGS)
    with connect(environ=environ) as client:
        say("spawning the team")
        started = time.perf_counter()
        agents = _spawn(client, environ["AGENTD_DIR"])
        report["agents"] = len(agents)
        report["spawn_s"] = time.perf_counter() - started
        for agent in agents:
            client.call("agents.wait", {"target": agent["name"], "until": "idle", "timeout_s": 30.0})
        report["ready_s"] = time.perf_counter() - started
        pids = {agent["name"]: agent["pid"] for agent in agents}
        say("filling the pool")
        report["warm_ms"] = _from_the_pool(client, environ["AGENTD_DIR"])
        report["list_ms"] = _median_ms(lambda: client.call("agents.list"))
        report["send_ms"] = _median_ms(lambda: client.call("messages.send", {"to": "operator", "body": "to myself"}))
        report["asked"] = MESSAGES
        say(f"sending {MESSAGES} messages in batches of {BATCH}")
        started = time.perf_counter()
        accepted = _send(client, range(MESSAGES // 2))
        report["batch_ms"] = (time.perf_counter() - started) * 1000 / (MESSAGES / 2 / BATCH)
        report["answered_before_kill"] = _answers(client, wanted=1)
        pid = client.call("daemon.status")["pid"]
    say("half is sent and some is answered: killing the daemon")
    os.kill(pid, signal.SIGKILL)
    started = time.perf_counter()
    _agentd(environ, "up")
    report["back_s"] = time.perf_counter() - started
    with connect(environ=environ) as client:
        say("the daemon is back; sending the other half")
        report["accepted"] = accepted + _send(client, range(MESSAGES // 2, MESSAGES))
        report["answered"] = _answers(client, wanted=MESSAGES)
        now = {agent["name"]: agent["pid"] for agent in client.call("agents.list")["agents"]}
        report["pids_kept"] = now == pids


def _spawn(client: Client, cwd: str) -> list[dict[str, Any]]:
    agents: list[dict[str, Any]] = []
    for profile, n in (("demo", SCRIPTED_AGENTS), ("shell", SHELLS)):
        params = {"profile": profile, "n": n, "team": "crew", "cwd": cwd}
        agents += client.call("agents.spawn", params)["agents"]
    return agents


def _from_the_pool(client: Client, cwd: str) -> float | None:
    """Return how long a spawn takes that finds a booted agent, None when none was in time; leaves no pool behind."""
    client.call("pool.set", {"profile": "demo", "size": 2, "cwd": cwd})
    deadline = time.monotonic() + POOL_S
    while client.call("pool.list")["pools"][0]["warm"] < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    started = time.perf_counter()
    [agent] = client.call("agents.spawn", {"profile": "demo", "name": "warm", "cwd": cwd})["agents"]
    took_ms = (time.perf_counter() - started) * 1000
    client.call("pool.drain", {"profile": "demo"})
    client.call("agents.stop", {"targets": [agent["id"]]})
    return took_ms if agent["warm"] else None


def _send(client: Client, numbers: range) -> int:
    """Send messages batch by batch, return how many receipts came; a shell's is a command that answers by agentd."""
    items = [_for_shell(n) if n % (MESSAGES // TO_SHELLS) == 0 else _for_scripted(n) for n in numbers]
    receipts = client.send_batch(items, batch_size=BATCH)
    for receipt in receipts:
        if isinstance(receipt, AgentdError):
            raise receipt
    return len(receipts)


def _for_scripted(n: int) -> dict[str, str]:
    return {"to": f"demo-{n % SCRIPTED_AGENTS + 1}", "body": f"question {n}"}


def _for_shell(n: int) -> dict[str, str]:
    command = [sys.executable, "-m", "agentd", "send", "operator", f"echo: question {n}", "--key", f"answer-{n}"]
    # The daemon may be away when the shell runs this; the key makes repeating it harmless.
    return {
        "to": f"shell-{n // (MESSAGES // TO_SHELLS) % SHELLS + 1}",
        "body": f"until {shlex.join(command)}; do sleep 0.2; done",
    }


def _answers(client: Client, *, wanted: int) -> int:
    """Wait until so many different questions are answered in the operator's inbox; return how many are."""
    deadline = time.monotonic() + DEADLINE_S
    expected = {f"echo: question {n}" for n in range(MESSAGES)}
    while True:
        inbox = client.call("messages.inbox", {"target": "operator", "limit": 10_000})["messages"]
        found = len(expected & {message["body"] for message in inbox})
        if found >= wanted or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _median_ms(do: Callable[[], object]) -> float:
    times = []
    for _ in range(SAMPLES):
        started = time.perf_counter()
        do()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def _left_behind(directory: str) -> list[str]:
    """Name what still exists: the directory, or a process with it in its command line or environment."""
    left = [directory] if os.path.exists(directory) else []
    if os.path.isdir("/proc"):
        left += [f"pid {pid}" for pid in filter(str.isdigit, os.listdir("/proc")) if _mentions(pid, directory)]
    return left


def _mentions(pid: str, directory: str) -> bool:
    for name in ("cmdline", "environ"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                if directory.encode() in file.read():
                    return True
        except OSError:  # it ended, or is another user's
            return False
    return False


def _table(report: dict[str, Any]) -> str:
    warm_ms = report["warm_ms"]
    rows = [
        ("asked", f"{report['asked']:,} messages in batches of {BATCH}, {report['accepted']:,} receipts"),
        ("answered", f"{report['answered']:,} of {report['asked']:,}"),
        ("daemon", f"killed -9 after {report['answered_before_kill']:,} answers, back in {report['back_s']:.2f} s"),
        ("agents", f"{report['agents']} ({SHELLS} of them shells), every pid kept: {_yes(report['pids_kept'])}"),
        ("cold spawn", f"{report['spawn_s']:.2f} s for all, {report['ready_s']:.2f} s until all were ready"),
        ("warm spawn", f"{warm_ms:.1f} ms from the pool, ready for a prompt" if warm_ms else "the pool was not ready"),
        ("send", f"{report['send_ms']:.2f} ms for one receipt, {report['batch_ms']:.1f} ms for {BATCH}"),
        ("list", f"{report['list_ms']:.2f} ms"),
        ("left behind", ", ".join(report["left_behind"]) or "nothing"),
    ]
    return "\n".join(["", *(f"  {name:<12} {text}" for name, text in rows), ""])


def _yes(value: bool) -> str:
    return "yes" if value else "no"


class _Progress:
    """One line on a terminal that says what goes on; silent elsewhere."""

    def __enter__(self) -> _Progress:
        self._shown = sys.stderr.isatty()
        return self

    def say(self, text: str) -> None:
        """Replace the line."""
        if self._shown:
            print(f"\r\x1b[K{text} ...", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
