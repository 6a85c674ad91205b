"""Our tmux server: its configuration, how it is started, adopted and stopped. Cold path, through libtmux.

Everything the agents need afterwards goes over control connections.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio

from agentd.config import TmuxConfig
from agentd.errors import Conflict
from agentd.paths import check_socket_path
from agentd.private import open_private, private_dir
from agentd.tmux.binary import check_binary, check_version, find_binary
from agentd.tmux.connection import HUB
from agentd.tmux.failures import TmuxUnavailable
from agentd.tmux.notation import command, quote
from agentd.tmux.orphans import is_orphan
from agentd.tmux.processes import Process, is_alive, send_signal, start_of, wait_until_gone

HOOKS = "agentd-hooks"  # the channel that our hooks signal
# What no notification tells of: a program's end while its pane stays, and a split.
_HOOKED = ("pane-died", "window-layout-changed")
_START_S = 20.0  # a server that is just ending refuses new ones for that long (tmux-2.md §4)
_RETRY_S = 0.1
_LOOK_S = 0.02
_ANSWER_S = 10.0
_FOREVER_S = 2_147_483_647
_ABOUT = "#{pid}|#{start_time}|#{version}|#{@agentd_instance}"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

T = TypeVar("T")

# Not `window-size manual` here: as a global option it makes tmux 3.3a crash on the first detached new-session.
# Every agent's window gets it when it is made.
_OPTIONS = (
    ("set-option", "-s", "exit-empty", "off"),
    ("set-option", "-s", "escape-time", "0"),
    ("set-option", "-s", "set-clipboard", "off"),  # an agent must not write the user's clipboard
    ("set-option", "-s", "focus-events", "off"),
    ("set-option", "-s", "default-terminal", "screen-256color"),
    ("set-option", "-g", "destroy-unattached", "off"),
    ("set-option", "-g", "update-environment", ""),
    ("set-option", "-g", "default-shell", "/bin/sh"),
    ("set-option", "-g", "status", "off"),
    ("set-option", "-g", "set-titles", "off"),
    ("set-option", "-g", "visual-activity", "off"),
    ("set-option", "-g", "visual-bell", "off"),
    ("set-option", "-g", "visual-silence", "off"),
    ("set-option", "-g", "bell-action", "none"),
    ("set-option", "-g", "activity-action", "none"),
    ("set-option", "-g", "silence-action", "none"),
    ("set-option", "-wg", "remain-on-exit", "on"),  # how a program ended must stay readable
    ("set-option", "-wgq", "remain-on-exit-format", ""),  # tmux's own line would look like the program's
    ("set-option", "-wg", "automatic-rename", "off"),
    ("set-option", "-wg", "allow-rename", "off"),
    ("set-option", "-wg", "monitor-activity", "off"),
    ("set-option", "-wg", "monitor-bell", "off"),
    ("set-option", "-wgq", "allow-passthrough", "off"),
    ("set-option", "-wgq", "allow-set-title", "on"),  # some agents tell their state in the title
)


@dataclass(frozen=True, slots=True)
class Server:
    """One life of a tmux server."""

    process: Process
    start_time: str
    version: str

    @property
    def id(self) -> str:
        """Return what tells this server from any other: pid and start time."""
        return f"{self.process.pid}:{self.start_time}"

    @property
    def alive(self) -> bool:
        """Tell whether it still runs."""
        return is_alive(self.process)


class ServerPlace:
    """The socket at which our tmux server lives."""

    def __init__(self, config: TmuxConfig, socket: str, conf: str, instance: str) -> None:
        self._config = config
        self._instance = instance
        self._conf = conf
        self.socket = check_socket_path(socket)
        self.process_s = 0.0  # what the last command in a process of its own took
        self.orphans_closed = 0

    @property
    def directory(self) -> str:
        """Return the private directory of the socket."""
        return str(Path(self.socket).parent)

    @property
    def client_argv(self) -> list[str]:
        """Return the tmux program with the options that lead to our server."""
        return [self._config.binary, "-S", self.socket, "-f", self._conf]

    async def find_or_start(self) -> Server:
        """Return the running server if it is ours, else start one.

        Raises Conflict when the server there belongs to somebody else: it is left alone.
        """
        private_dir(self.directory)
        binary = find_binary(self._config.binary)
        await _in_thread(lambda: check_binary(binary), _ANSWER_S)
        self._write_conf()
        deadline_s = anyio.current_time() + _START_S
        while True:
            try:
                return await self._find() or await self._start()
            except TmuxUnavailable:
                if anyio.current_time() >= deadline_s:
                    raise
            await anyio.sleep(_RETRY_S)

    async def stop(self, server: Server) -> None:
        """End the server and every program in it."""
        await self._ask("kill-server", anything=True)
        if await wait_until_gone([server.process], _ANSWER_S):
            send_signal(server.process, signal.SIGKILL)

    def restore_socket(self, server: Server) -> bool:
        """Have the server make its socket again if somebody removed it; tell whether that was needed."""
        if Path(self.socket).exists():
            return False
        return send_signal(server.process, signal.SIGUSR1)

    async def _find(self) -> Server | None:
        answer = await self._ask("display-message", "-p", _ABOUT, anything=True)
        if not answer.lines:
            if any(mark in answer.text for mark in ("no server", "error connecting", "No such file")):
                return None
            raise TmuxUnavailable(f"the tmux server at {self.socket} does not answer: {answer.text}")
        pid, start_time, version, instance = answer.lines[0].split("|", 3)
        if instance != self._instance:
            raise Conflict(
                f"the tmux server at {self.socket} belongs to {instance or 'somebody else'}; it was left alone",
                hint="stop it, or give this daemon another AGENTD_DIR",
            )
        check_version(version)
        await self._adopt()
        return Server(start_of(int(pid)), start_time, version)

    async def _adopt(self) -> None:
        """Apply our configuration again, bring back the hub, end the clients of a daemon that died."""
        await self._ask("source-file", self._conf)
        if (await self._ask("has-session", "-t", f"={HUB}", anything=True)).text:
            await self._ask(*self._hub())
        seen: set[Process] = set()
        with anyio.move_on_after(_ANSWER_S):
            while orphans := await self._clients_of_the_dead():
                seen |= orphans
                for orphan in orphans:
                    send_signal(orphan, signal.SIGKILL)
                # Until the server has let go of them: it must not be telling of that while we connect (see Gate).
                await anyio.sleep(_LOOK_S)
        self.orphans_closed += len(seen)

    async def _clients_of_the_dead(self) -> set[Process]:
        rows = await self._ask("list-clients", "-F", "#{client_control_mode} #{client_pid} #{client_session}")
        each = [row.split(" ", 2) for row in rows.lines]
        clients = [int(pid) for control, pid, session in each if control == "1" and session == HUB]
        return {start_of(pid) for pid in clients if is_orphan(pid)}

    async def _start(self) -> Server:
        await self._ask(*self._hub())
        answer = await self._ask("display-message", "-p", _ABOUT)
        pid, start_time, version, _ = answer.lines[0].split("|", 3)
        check_version(version)
        return Server(start_of(int(pid)), start_time, version)

    def _hub(self) -> list[str]:
        size = ["-x", str(self._config.width), "-y", str(self._config.height)]
        return ["new-session", "-d", "-s", HUB, *size, "-c", "/", "sleep", str(_FOREVER_S)]

    def _write_conf(self) -> None:
        lines = [command(*option) for option in _OPTIONS]
        lines += [
            command("set-option", "-g", "history-limit", str(self._config.history_limit)),
            command("set-option", "-g", "default-size", f"{self._config.width}x{self._config.height}"),
            *(f"set-hook -g {hook} {quote(command('wait-for', '-S', HOOKS))}" for hook in _HOOKED),
            command("set-option", "-s", "@agentd_instance", self._instance),
        ]
        lines += [command("set-environment", "-gu", name) for name in _unwanted(os.environ)]
        temporary = f"{self._conf}.new"
        with os.fdopen(open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            file.write("\n".join(["# written by agentd at every start; changes are lost", *lines, ""]))
        Path(temporary).replace(self._conf)

    async def price(self) -> None:
        """Measure what a command in a process of its own takes."""
        with suppress(TmuxUnavailable):  # then it has no price, and whoever needs it is told
            await self._ask("display-message", "-p", "", anything=True)

    async def _ask(self, *arguments: str, anything: bool = False) -> Answer:
        """Run one tmux command in a process of its own; with `anything` an error is an answer like another."""
        started_s = anyio.current_time()
        answer = await _in_thread(lambda: self._libtmux(arguments), _ANSWER_S)
        self.process_s = anyio.current_time() - started_s
        if answer.text and not anything:
            raise TmuxUnavailable(f"tmux {arguments[0]} failed: {answer.text}")
        return answer

    def _libtmux(self, arguments: Sequence[str]) -> Answer:
        import libtmux
        from libtmux.exc import LibTmuxException

        try:
            server = libtmux.Server(
                socket_path=self.socket, config_file=self._conf, tmux_bin=find_binary(self._config.binary)
            )
            done = server.cmd(*arguments)
        except LibTmuxException as error:
            raise TmuxUnavailable(
                f"cannot run tmux: {error or type(error).__name__}", hint="is tmux installed?"
            ) from None
        return Answer(done.stdout, " ".join(done.stderr) or ("" if done.returncode == 0 else "it gave no reason"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What one tmux command printed: its lines, and the text of its error."""

    lines: list[str]
    text: str


def _unwanted(environ: os._Environ[str] | dict[str, str]) -> list[str]:
    """Return the variables of ours that must not reach agents: those of an outer tmux, and another agent's identity."""
    return [name for name in environ if name.startswith(("TMUX", "AGENTD_")) and _VARIABLE.match(name)]


async def _in_thread(function: Callable[[], T], timeout_s: float) -> T:
    """Run a blocking function in a daemon thread: a frozen tmux must not keep us from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result, failure = function(), None
        except Exception as error:  # noqa: BLE001  carried to the caller, who waits for it
            result, failure = None, error
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, future, result, failure)

    threading.Thread(target=run, name="agentd-libtmux", daemon=True).start()
    with anyio.move_on_after(timeout_s):
        return await future
    raise TmuxUnavailable(f"tmux gave no answer within {timeout_s:g} s", hint="see whether the tmux server is stopped")


def _settle(future: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
