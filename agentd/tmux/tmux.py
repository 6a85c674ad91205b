"""The dozen operations agentd needs of tmux; nothing above this module knows a tmux command.

Panes are addressed by id and only while the server lives that gave the id; names are never targets.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup

from agentd.config import TmuxConfig
from agentd.errors import AgentdError, AlreadyExists, Busy, StaleTarget
from agentd.records import PaneRef
from agentd.tmux.connection import HUB, ControlConnection
from agentd.tmux.events import (
    Activity,
    Lost,
    Output,
    PaneDied,
    Renamed,
    Restored,
    ServerGone,
    SessionsChanged,
    TmuxEvent,
    WindowsChanged,
)
from agentd.tmux.failures import PaneDead, TmuxRefused, TmuxTimeout, TmuxUnavailable
from agentd.tmux.gate import Gate
from agentd.tmux.input import (
    INLINE_BYTES,
    MAX_PASTE_BYTES,
    check_keys,
    check_program,
    check_session_name,
    check_text,
    private_file,
)
from agentd.tmux.links import Links
from agentd.tmux.notation import Notification, Reply, command, escape_format, line, output_of, quote, quote_lines
from agentd.tmux.processes import ProcessTable, send_signal, wait_until_gone
from agentd.tmux.server import Server, ServerPlace
from agentd.tmux.views import (
    FACTS_FORMAT,
    NOT_HUB,
    PANES_FORMAT,
    SESSIONS_FORMAT,
    Facts,
    Look,
    PaneInfo,
    facts_of,
    pane_of,
    session_of,
)

__all__ = [
    "Activity",
    "Look",
    "Lost",
    "Output",
    "PaneDead",
    "PaneDied",
    "PaneInfo",
    "Renamed",
    "Restored",
    "ServerGone",
    "SessionsChanged",
    "Tmux",
    "TmuxEvent",
    "TmuxRefused",
    "TmuxTimeout",
    "TmuxUnavailable",
    "WindowsChanged",
]

_WATCH_S = 1.0  # how often the socket's file is looked for
_AGAIN_S = 1.0  # between attempts to have a server again
_END_LOOKS = 25  # at a pane that is dead without a status, until tmux has learned how it ended
_END_LOOK_S = 0.02
_KILL_S = 2.0  # for the kernel to end what got SIGKILL
_MAX_LINES = 100_000
_NEW_FORMAT = "#{session_id}|#{window_id}|#{pane_id}|#{pane_pid}"
_DEAD_FORMAT = "#{pane_id}|#{pane_dead_status}#{pane_dead_signal}"
_REFUSED = "agentd-refused"  # printed by the other branch of a guarded command

# The directory is an argument of the launcher and entered by it: as `-c` tmux would run any #(command) in its name.
# TMUX would show the agent the way to our server.
_LAUNCHER = 'unset TMUX TMUX_PANE; umask "$1"; cd -- "$2" && shift 2 && exec "$@"'


class Tmux:
    """One tmux server of ours, over control connections that are kept open."""

    def __init__(self, config: TmuxConfig, place: ServerPlace, log: Any, on_event: Callable[[TmuxEvent], None]) -> None:
        self._config = config
        self._place = place
        self._log = log
        self._on_event = on_event
        self._gate = Gate()
        self._table = ProcessTable()
        self._links: Links | None = None
        self._server: Server | None = None
        self._death_hint = anyio.Event()
        self._told_dead: set[str] = set()
        self._activity: dict[str, str] = {}
        self._heard: set[str] = set()  # whose output was told since the last snapshot
        self._unread_bytes: dict[str, int] = {}
        self._stopped = False
        self._tasks: TaskGroup | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: TmuxConfig,
        socket: str,
        conf: str,
        instance: str,
        log: Any,
        on_event: Callable[[TmuxEvent], None],
    ) -> AsyncIterator[Tmux]:
        """Adopt our running server or start one, and stay connected; closing leaves the server and its panes running.

        Raises Conflict when the server at the socket belongs to another instance.
        """
        tmux = cls(config, ServerPlace(config, socket, conf, instance), log, on_event)
        server = await tmux._place.find_or_start()
        failure: Exception | None = None
        async with anyio.create_task_group() as tmux._tasks:
            await tmux._tasks.start(tmux._live, server)
            tmux._tasks.start_soon(tmux._watch_deaths)
            tmux._tasks.start_soon(tmux._watch_socket)
            try:
                yield tmux
            except Exception as error:  # noqa: BLE001  raised again below, as itself and not inside a group
                failure = error
            finally:
                await tmux.close()
        if failure is not None:
            raise failure

    @property
    def server(self) -> str:
        """Return the server's identity, "pid:start time"; empty while there is none."""
        return self._server.id if self._server else ""

    @property
    def version(self) -> str:
        """Return the server's version."""
        return self._server.version if self._server else ""

    async def close(self) -> None:
        """Disconnect; the server and its panes go on."""
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    async def stop_server(self) -> None:
        """End the server and every program in it; no ServerGone is told for what was asked."""
        self._stopped = True
        server, self._server = self._server, None
        if self._links is not None:
            self._links.leave()
        if server is not None:
            await self._place.stop(server)

    # -- starting and ending programs

    async def spawn(
        self,
        session_name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        width: int,
        height: int,
        umask: int = 0o022,
    ) -> PaneRef:
        """Start a program in a session of its own and return its pane; a failure leaves no session behind.

        The program may end at once: that is told by PaneDied and by look(), not by an error here. What it printed in
        its first moments is on the screen, but no Output told of it: so look once.
        """
        check_session_name(session_name, HUB)
        check_program(argv, env, cwd)
        words = ["new-session", "-d", "-P", "-F", _NEW_FORMAT, "-s", session_name]
        words += ["-x", str(width), "-y", str(height), "-c", "/"]
        for name, value in env.items():
            words += ["-e", f"{name}={value}"]
        words += ["--", "/bin/sh", "-c", _LAUNCHER, "sh", f"{umask:03o}", cwd, *argv]
        # Shielded, and each step has its deadline: a cancelled caller must not leave half a session.
        with anyio.CancelScope(shield=True):
            try:
                async with self._mutation() as (connection, server):
                    reply = await self._asked(connection, line(*(quote_lines(word) for word in words)))
                    ref = PaneRef(*_ids(reply), server=server)
                    await self._take_in(connection, ref)
            except AlreadyExists:
                raise
            except AgentdError:
                await self._undo_spawn(session_name)
                raise
        return ref

    async def _undo_spawn(self, session_name: str) -> None:
        """End what a spawn that failed half-way may have left."""
        try:
            for pane in await self.panes():
                if pane.session_name == session_name:
                    await self.kill(pane.ref, 0.0)
        except AgentdError as error:
            self._log.warning("could not see what a failed start left", session=session_name, error=error.message)

    async def kill(self, ref: PaneRef, timeout_s: float) -> None:
        """End a pane with everything that runs in it: hang up, and kill what is left after the time given.

        What is gone already is no error. Each step is awaited: in one burst they crash every tmux (tmux-2.md §4).
        """
        self._check_server(ref)
        server_pid = int(ref.server.partition(":")[0])
        family = await anyio.to_thread.run_sync(self._table.family, ref.pid, server_pid)
        if timeout_s <= 0:
            _kill_all(family)
        with anyio.CancelScope(shield=True):
            async with self._mutation(ref) as (connection, _):
                hub_link = f"={HUB}:{ref.window_id}"
                await self._asked(connection, command("unlink-window", "-t", hub_link), refused_ok=True)
                await self._asked(connection, command("kill-session", "-t", ref.session_id), missing_ok=True)
                # Its session may have been ended by a person: then the hub's was the last link.
                await self._asked(connection, command("kill-window", "-t", ref.window_id), missing_ok=True)
        self._forget(ref.pane_id)
        left = await wait_until_gone(family, timeout_s)
        _kill_all(left)
        left = await wait_until_gone(left, _KILL_S)
        if left:
            self._log.warning("programs outlive SIGKILL", pids=[process.pid for process in left])

    # -- looking

    async def look(self, ref: PaneRef, lines: int | None = None, escapes: bool = False) -> Look:
        """Return what the pane shows; with so many `lines` of scrollback; with `escapes`, colours too."""
        reply, facts = await self._capture(ref, lines, escapes)
        for _ in range(_END_LOOKS):
            if not facts.end_unknown:
                break
            self._nudge()
            await anyio.sleep(_END_LOOK_S)
            reply, facts = await self._capture(ref, lines, escapes)
        shown = [each.decode("utf-8", "replace") for each in reply.lines]
        return facts.look("\n".join(shown if escapes else [each.rstrip(" ") for each in shown]))

    async def panes(self) -> list[PaneInfo]:
        """Return every pane that is not the hub's."""
        connection, server = await self._connected()
        rows = await self._run(connection, "list-panes", "-a", "-f", NOT_HUB, "-F", PANES_FORMAT)
        return [pane_of(row, server) for row in rows]

    async def sessions(self) -> list[dict[str, Any]]:
        """Return every session but the hub: id, name, windows, panes, activity (seconds since 1970)."""
        connection, _ = await self._connected()
        rows = await self._run(connection, "list-sessions", "-f", NOT_HUB, "-F", SESSIONS_FORMAT)
        return [session_of(row) for row in rows]

    def attach_argv(self, ref: PaneRef) -> list[str]:
        """Return the command with which a person looks over the program's shoulder."""
        self._check_server(ref)
        return [self._config.binary, "-S", self._place.socket, "attach-session", "-t", ref.session_id]

    # -- typing

    async def paste(self, ref: PaneRef, text: str, bracketed: bool = True) -> None:
        """Paste a text of up to 64 KiB; without bracketed paste, of one line.

        Raises PaneDead, with nothing typed, when the pane's program is not the one of the ref any more: the check and
        the paste are one step of the server, because pasting into a dead pane kills tmux 3.3a. Raises Busy while 64 KiB
        stand in front of a program that has shown no sign of reading.
        """
        data = check_text(text, newlines=bracketed)
        if not data:
            return
        self._check_unread(ref.pane_id, len(data))
        buffer = f"agentd-{secrets.token_hex(8)}"
        paste = command("paste-buffer", "-p", "-r", "-d", "-b", buffer, "-t", ref.pane_id)
        if len(data) <= INLINE_BYTES:
            await self._guarded(ref, paste, before=_set_buffer(buffer, text), otherwise=_delete_buffer(buffer))
        else:
            with private_file(self._place.directory, data) as path:
                load = command("load-buffer", "-b", buffer, escape_format(path))
                await self._guarded(ref, paste, before=load, otherwise=_delete_buffer(buffer))
        self._unread_bytes[ref.pane_id] = self._unread_bytes.get(ref.pane_id, 0) + len(data)

    async def type_text(self, ref: PaneRef, text: str) -> None:
        """Type one line of text as keys, each meaning itself."""
        if check_text(text, newlines=False):
            await self._guarded(ref, command("send-keys", "-t", ref.pane_id, "-l", "--", text))

    async def keys(self, ref: PaneRef, *names: str) -> None:
        """Press keys, by tmux's names for them."""
        check_keys(names)
        if names:
            await self._guarded(ref, command("send-keys", "-t", ref.pane_id, "--", *names))

    async def leave_mode(self, ref: PaneRef) -> None:
        """End the copy mode a person left the pane in; keys would go to it."""
        async with self._mutation(ref) as (connection, _):
            await self._asked(connection, command("copy-mode", "-q", "-t", ref.pane_id))

    # -- how commands are run

    async def _connected(self, ref: PaneRef | None = None) -> tuple[ControlConnection, str]:
        if ref is not None:
            self._check_server(ref)
        if self._links is None:
            raise TmuxUnavailable("there is no tmux server at the moment", hint="agentd starts one by itself")
        connection = await self._links.calls()
        if ref is not None:
            self._check_server(ref)
        return connection, self._links.server.id

    @asynccontextmanager
    async def _mutation(self, ref: PaneRef | None = None) -> AsyncIterator[tuple[ControlConnection, str]]:
        """Give the connection for commands that change something: they make tmux notify, so they pass the gate."""
        await self._connected(ref)
        async with self._gate.shared():
            yield await self._connected(ref)

    def _check_server(self, ref: PaneRef) -> None:
        if self._stopped:
            raise TmuxUnavailable("the tmux server was stopped on request")
        if ref.server != self.server:
            raise StaleTarget(
                f"pane {ref.pane_id} belongs to the tmux server {ref.server}, which is gone",
                hint="start the agent again",
            )

    async def _run(self, connection: ControlConnection, *arguments: str) -> list[str]:
        return await connection.run(*arguments, timeout_s=self._config.command_timeout_s)

    async def _asked(
        self, connection: ControlConnection, command_line: str, *, missing_ok: bool = False, refused_ok: bool = False
    ) -> str:
        reply = await connection.ask(command_line, timeout_s=self._config.command_timeout_s)
        said = "\n".join(each.decode("utf-8", "replace") for each in reply.lines)
        if reply.ok or refused_ok:
            return said
        name = command_line.partition(" ")[0]
        refused = TmuxRefused(name, said)
        if refused.missing:
            if missing_ok:
                return said
            raise PaneDead(f"its pane is gone ({said})")
        if "duplicate session" in said:
            raise AlreadyExists(f"tmux has a session of that name already ({said})")
        raise refused

    async def _take_in(self, connection: ControlConnection, ref: PaneRef) -> None:
        """Keep the window's size whoever looks at it, and link it into the hub so that its output is heard."""
        await self._asked(connection, command("set-option", "-w", "-t", ref.window_id, "window-size", "manual"))
        await self._asked(connection, command("link-window", "-d", "-s", ref.window_id, "-t", f"={HUB}:"))

    async def _guarded(self, ref: PaneRef, then: str, *, before: str = "", otherwise: str = "") -> None:
        """Run a command only while the pane's program is the one of the ref; check and command are one server step."""
        condition = f"#{{?pane_dead,0,#{{==:#{{pane_pid}},{ref.pid}}}}}"
        refuse = " ; ".join(each for each in (otherwise, command("display-message", "-p", _REFUSED)) if each)
        guarded = line("if-shell", "-F", "-t", quote(ref.pane_id), quote(condition), quote(then), quote(refuse))
        async with self._mutation(ref) as (connection, _):
            reply = await connection.frame(
                [each for each in (before, guarded) if each], timeout_s=self._config.command_timeout_s
            )
        said = b" ".join(reply.lines).decode("utf-8", "replace")
        if said == _REFUSED:
            raise PaneDead(f"the program in pane {ref.pane_id} has ended; nothing was typed")
        if not reply.ok:
            raise TmuxRefused(then.partition(" ")[0], said)

    async def _capture(self, ref: PaneRef, lines: int | None, escapes: bool) -> tuple[Reply, Facts]:
        words = ["capture-pane", "-p", "-J", "-t", ref.pane_id]
        words += ["-e"] if escapes else []
        words += ["-S", str(-min(lines, _MAX_LINES))] if lines else []
        connection, _ = await self._connected(ref)
        reply = await connection.capture(
            command(*words), FACTS_FORMAT, ref.pane_id, timeout_s=self._config.command_timeout_s
        )
        facts = facts_of(reply.frame)
        if facts is None or facts.pid != ref.pid:
            raise PaneDead(f"pane {ref.pane_id} is gone")
        return reply, facts

    def _check_unread(self, pane_id: str, size_bytes: int) -> None:
        unread = self._unread_bytes.get(pane_id, 0)
        if unread + size_bytes > MAX_PASTE_BYTES:
            raise Busy(f"{unread} bytes wait in front of a program that does not react; nothing was typed")

    # -- what the server tells

    async def _live(self, server: Server, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Stay connected to one server after the other."""
        first = True
        while True:
            links = self._new_links(server)
            self._server, self._links = server, links
            async with anyio.create_task_group() as group:
                await group.start(links.run)
                if first:
                    task_status.started()
                else:
                    self._tell(Restored(server.id))
                first = False
            self._lose_server(server)
            if self._stopped:
                return
            server = await self._server_again()

    def _new_links(self, server: Server) -> Links:
        return Links(
            self._place,
            server,
            self._gate,
            timeout_s=self._config.command_timeout_s,
            on_notification=self._on_notification,
            on_hook=self._take_hook,
            tell=self._tell,
            log=self._log,
        )

    def _lose_server(self, server: Server) -> None:
        self._links, self._server = None, None
        self._told_dead.clear()
        self._activity.clear()
        self._unread_bytes.clear()
        if not self._stopped:
            self._tell(ServerGone(server.id))

    async def _server_again(self) -> Server:
        while True:
            try:
                return await self._place.find_or_start()
            except AgentdError as error:
                self._log.error("no tmux server", error=error.message)
            await anyio.sleep(_AGAIN_S)

    def _on_notification(self, notification: Notification) -> None:
        output = output_of(notification)
        if output is not None:
            pane_id, escaped = output
            self._unread_bytes.pop(pane_id, None)
            self._heard.add(pane_id)
            self._tell(Output(pane_id, escaped, self.server))
            return
        rest = notification.rest.decode("utf-8", "replace")
        match notification.name:
            case b"subscription-changed":
                self._take_snapshot(rest.partition(" : ")[2])
            case b"pause":
                self._resume(rest)
            case b"sessions-changed":
                self._tell(SessionsChanged(self.server))
            case b"window-add" | b"window-close" | b"unlinked-window-add" | b"unlinked-window-close":
                self._tell(WindowsChanged(self.server))
            case b"session-renamed":
                session_id, _, name = rest.partition(" ")
                self._tell(Renamed(session_id, name, self.server))

    def _take_snapshot(self, snapshot: str) -> None:
        before, heard = self._activity, self._heard
        self._heard = set()
        self._activity = dict(each.split(" ", 1) for each in snapshot.split(";") if each)
        for pane_id in self._unread_bytes.keys() - self._activity.keys():
            del self._unread_bytes[pane_id]
        for pane_id, state in self._activity.items():
            if before.get(pane_id) == state:
                continue
            dead = state.startswith("1")
            if dead or pane_id not in heard:
                self._tell(Activity(pane_id, dead, self.server))
            if dead and pane_id not in self._told_dead:
                self._death_hint.set()

    def _resume(self, pane_id: str) -> None:
        """Go on with a pane whose output came faster than we read it; what was skipped is not sent again."""
        events = self._links.events() if self._links else None
        if events is not None:
            events.post("refresh-client", "-A", f"{pane_id}:continue")
        self._tell(Output(pane_id, b"", self.server))

    def _tell(self, event: TmuxEvent) -> None:
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001  whatever a listener does wrong, the connection must go on
            self._log.exception("a listener failed on a tmux event", tmux_event=type(event).__name__)

    # -- deaths

    def _take_hook(self) -> None:
        self._death_hint.set()
        self._tell(WindowsChanged(self.server))

    async def _watch_deaths(self) -> None:
        while True:
            await self._death_hint.wait()
            self._death_hint = anyio.Event()
            try:
                await self._tell_deaths()
            except AgentdError as error:
                self._log.warning("could not see which panes died", error=error.message)

    async def _tell_deaths(self) -> None:
        for attempt in range(_END_LOOKS):
            connection, server = await self._connected()
            rows = await self._run(connection, "list-panes", "-a", "-f", "#{pane_dead}", "-F", _DEAD_FORMAT)
            waiting = False
            self._told_dead &= {row.partition("|")[0] for row in rows}
            for row in rows:
                pane_id, how = row.split("|", 1)
                if pane_id in self._told_dead:
                    continue
                if how or attempt == _END_LOOKS - 1:
                    self._told_dead.add(pane_id)
                    self._tell(PaneDied(pane_id, server))
                else:
                    waiting = True
            if not waiting:
                return
            self._nudge()
            await anyio.sleep(_END_LOOK_S)

    def _nudge(self) -> None:
        """Have the server reap its children: with utempter it loses the signal of many (tmux-2.md §0.8)."""
        if self._server is not None:
            send_signal(self._server.process, signal.SIGCHLD)

    def _forget(self, pane_id: str) -> None:
        self._told_dead.discard(pane_id)
        self._activity.pop(pane_id, None)
        self._unread_bytes.pop(pane_id, None)

    async def _watch_socket(self) -> None:
        while True:
            await anyio.sleep(_WATCH_S)
            if self._server is not None and self._place.restore_socket(self._server):
                self._log.warning("the tmux socket was removed; its server made it again", socket=self._place.socket)


def _ids(reply: str) -> tuple[str, str, str, int]:
    session_id, window_id, pane_id, pid = reply.split("|")
    return session_id, window_id, pane_id, int(pid)


def _set_buffer(buffer: str, content: str) -> str:
    return line("set-buffer", "-b", buffer, "--", quote_lines(content))


def _delete_buffer(buffer: str) -> str:
    return command("delete-buffer", "-b", buffer)


def _kill_all(processes: Sequence[Any]) -> None:
    for process in processes:
        send_signal(process, signal.SIGKILL)
