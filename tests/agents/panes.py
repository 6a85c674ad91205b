"""A private tmux server with panes that run profiles' programs, looked at as the daemon does."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentd.agents.profile import Profile, Profiles
from agentd.agents.screen import Verdict, classify

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 20.0
BUILT_IN = Profiles.load("/nonexistent")


@dataclass(frozen=True)
class Seen:
    """A look at a pane."""

    text: str = ""
    cursor_x: int = 0
    cursor_y: int = 0
    dead: bool = False
    exit_status: int | None = None
    in_mode: bool = False
    command: str = ""
    title: str = ""


class Pane:
    """One pane; it is looked at again and again until it shows what a test waits for."""

    def __init__(self, tmux: Tmux, name: str, profile: Profile) -> None:
        self.tmux = tmux
        self.name = name
        self.profile = profile

    def look(self) -> Seen:
        # One command list: what it prints belongs to one moment.
        form = "#{cursor_x}|#{cursor_y}|#{pane_dead}|#{pane_dead_status}|#{pane_current_command}|#{pane_title}"
        out = self.tmux.run("display", "-p", "-t", self.name, form, ";", "capture-pane", "-p", "-J", "-t", self.name)
        head, _, text = out.partition("\n")
        x, y, dead, status, command, title = head.split("|", 5)
        return Seen(text, int(x), int(y), dead == "1", int(status) if status else None, command=command, title=title)

    def verdict(self) -> Verdict:
        return classify(self.profile, self.look())

    def until(self, wanted: Callable[[Verdict], bool]) -> Verdict:
        deadline = time.monotonic() + DEADLINE_S
        while not wanted(verdict := self.verdict()):
            assert time.monotonic() < deadline, f"{verdict}\n{self.look()}"
        return verdict

    def until_state(self, state: str | None, *, draft: bool = False) -> Verdict:
        return self.until(lambda verdict: verdict.state == state and verdict.draft is draft)

    def until_shown(self, text: str) -> str:
        self.until(lambda _: text in self.look().text)
        return self.look().text

    def type(self, *keys: str) -> None:
        self.tmux.run("send-keys", "-t", self.name, *keys)

    def paste(self, text: str) -> None:
        self.tmux.run("load-buffer", "-b", "test", "-", stdin=text)
        self.tmux.run("paste-buffer", "-p", "-r", "-d", "-b", "test", "-t", self.name)


class Tmux:
    """A tmux server of a test's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._socket = str(directory / "s")

    def run(self, *words: str, stdin: str | None = None) -> str:
        argv = ["tmux", "-S", self._socket, "-f", "/dev/null", *words]
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environ,
            timeout=20,
            check=False,
        ).stdout

    def start(self, profile_name: str, *extra: str, env: Mapping[str, str] | None = None) -> Pane:
        profile = BUILT_IN.get(profile_name)
        settings = [word for k, v in {**profile.env, **(env or {})}.items() for word in ("-e", f"{k}={v}")]
        name = f"{profile_name}-{len(self.run('ls').splitlines())}"
        self.run(
            *("new-session", "-d", "-s", name, "-x", "100", "-y", "30", *settings, *profile.argv(), *extra),
            *(";", "set-option", "-g", "remain-on-exit", "on"),
        )
        return Pane(self, name, profile)


@contextmanager
def tmux_server() -> Iterator[Tmux]:
    with tempfile.TemporaryDirectory(prefix="ad-", dir="/tmp") as directory:
        tmux = Tmux(Path(directory))
        try:
            yield tmux
        finally:
            tmux.run("kill-server")
