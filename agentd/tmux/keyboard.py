"""Typing into panes: only while the program is the one that is meant; check and typing are one step of the server."""

from __future__ import annotations

import secrets

from agentd.errors import Busy
from agentd.records import PaneRef
from agentd.tmux.calls import Calls
from agentd.tmux.failures import PaneDead, TmuxRefused
from agentd.tmux.hearing import Hearing
from agentd.tmux.input import INLINE_BYTES, MAX_PASTE_BYTES, check_keys, check_text, private_file
from agentd.tmux.notation import command, escape_format, line, quote, quote_lines

_REFUSED = "agentd-refused"  # printed by the other branch of a guarded command


class Keyboard:
    """Pastes, texts and keys, each checked once more."""

    def __init__(self, calls: Calls, hearing: Hearing, directory: str) -> None:
        self._calls = calls
        self._hearing = hearing
        self._directory = directory

    async def paste(self, ref: PaneRef, text: str, *, bracketed: bool) -> None:
        """Paste a text; see Tmux.paste."""
        data = check_text(text, newlines=bracketed)
        if not data:
            return
        self._check_unread(ref.pane_id, len(data))
        buffer = f"agentd-{secrets.token_hex(8)}"
        paste = command("paste-buffer", "-p", "-r", "-d", "-b", buffer, "-t", ref.pane_id)
        if len(data) <= INLINE_BYTES:
            await self._guarded(ref, paste, before=_set_buffer(buffer, text), otherwise=_delete_buffer(buffer))
        else:
            with private_file(self._directory, data) as path:
                load = command("load-buffer", "-b", buffer, escape_format(path))
                await self._guarded(ref, paste, before=load, otherwise=_delete_buffer(buffer))
        unread = self._hearing.unread_bytes
        unread[ref.pane_id] = unread.get(ref.pane_id, 0) + len(data)

    async def type_text(self, ref: PaneRef, text: str) -> None:
        """Type one line of text as keys, each meaning itself."""
        if check_text(text, newlines=False):
            await self._guarded(ref, command("send-keys", "-t", ref.pane_id, "-l", "--", text))

    async def keys(self, ref: PaneRef, *names: str) -> None:
        """Press keys."""
        check_keys(names)
        if names:
            await self._guarded(ref, command("send-keys", "-t", ref.pane_id, "--", *names))

    async def leave_mode(self, ref: PaneRef) -> None:
        """End the copy mode a person left the pane in."""
        async with self._calls.mutation(ref) as (channel, _):
            await self._calls.ask(channel, command("copy-mode", "-q", "-t", ref.pane_id))

    async def forget_scrollback(self, ref: PaneRef) -> None:
        """Forget what has scrolled out of the pane."""
        await self._guarded(ref, command("clear-history", "-t", ref.pane_id))

    async def _guarded(self, ref: PaneRef, then: str, *, before: str = "", otherwise: str = "") -> None:
        """Run a command only while the pane's program is the one of the ref; check and command are one server step."""
        condition = f"#{{?pane_dead,0,#{{==:#{{pane_pid}},{ref.pid}}}}}"
        refuse = " ; ".join(each for each in (otherwise, command("display-message", "-p", _REFUSED)) if each)
        guarded = line("if-shell", "-F", "-t", quote(ref.pane_id), quote(condition), quote(then), quote(refuse))
        async with self._calls.mutation(ref) as (channel, _):
            reply = await channel.frame([each for each in (before, guarded) if each], timeout_s=self._calls.timeout_s)
        said = b" ".join(reply.lines).decode("utf-8", "replace")
        if said == _REFUSED:
            raise PaneDead(f"the program in pane {ref.pane_id} has ended; nothing was typed")
        if not reply.ok:
            raise TmuxRefused(then.partition(" ")[0], said)

    def _check_unread(self, pane_id: str, size_bytes: int) -> None:
        unread = self._hearing.unread_bytes.get(pane_id, 0)
        if unread + size_bytes > MAX_PASTE_BYTES:
            raise Busy(f"{unread} bytes wait in front of a program that does not react; nothing was typed")


def _set_buffer(buffer: str, content: str) -> str:
    return line("set-buffer", "-b", buffer, "--", quote_lines(content))


def _delete_buffer(buffer: str) -> str:
    return command("delete-buffer", "-b", buffer)
