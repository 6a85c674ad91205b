"""Texts that try to be more than text, and careless helpers that show each of them works where nothing guards."""

from __future__ import annotations

import subprocess
from typing import Any

from instance import Instance, wait_until

from agentd.testing.composer import LONG_PASTE_CHARS

# Written as they are: what reaches a program must be exactly agentd.agents.text.sanitise of it.
ODD_TEXTS = {
    "combining": "e\u0301 a\u0308\u0323 n\u0303o",
    "emoji": "ok \U0001f44d\U0001f3fd family \U0001f468\u200d\U0001f469\u200d\U0001f467 flag \U0001f1e9\U0001f1ea",
    "ends in emoji": "done \U0001f680",
    "cjk": "日本語のテスト 한국어 中文，全角",
    "rtl": "שלום עולם مرحبا بالعالم",
    "bidi override": "user\u202etxt.exe\u2066x\u2069",
    "zero width": "a\u200bb\ufeffc\u00adend",
    "private use": "\ue0b0 \uf8ff \U000f0000 x",
    "newlines": "first\nsecond\n\n  fourth, indented\n",
    "crlf": "one\r\ntwo\rthree",
    "line separators": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "tabs": "a\tb\t\tc",
    "semicolon": "; kill-server",
    "semicolon at the end": "a ;",
    "escaped semicolon": "a\\; b\\;",
    "leading dash": "-R",
    "option": "-X cancel",
    "two dashes": "--",
    "key Enter": "Enter",
    "key C-c": "C-c",
    "key name with brackets": "<Enter> ^C M-x",
    "trailing backslash": "x\\",
    "pane id": "%0",
    "strftime": "%H:%M:%S",
    "open brace": "{",
    "braces": "{ kill-server }",
    "tilde": "~",
    "home": "$HOME ${HOME} ~root",
    "quotes": 'it\'s "quoted" `x`',
    "comment": "# not a comment",
    "format": "#{pane_id} #[fg=red] #(true) ##",
    "bang": "!! !$ ^a^b",
    "control mode words": "%end 1 1 1\n%exit\n%output %0 x",
    "quote prefix": "| a line that looks quoted\n| another",
    "blank": "   ",
    "long line": "x" * (LONG_PASTE_CHARS * 3) + " end",
    "all of C0": "a" + "".join(map(chr, range(0x20))) + "z",
    "all of C1 and DEL": "a" + "".join(map(chr, range(0x7F, 0xA0))) + "z",
}

BREAKOUTS = {
    "end of paste": "x\x1b[201~\r{act}\r",
    "end of paste put together by deletion": "x\x1b[20\x1b[201~1~\r{act}\r",
    "two ends of paste": "x\x1b[201~\x1b[201~\r\r{act}\r",
}


def send(instance: Instance, to: str, body: str, **more: Any) -> str:
    """Send a body that no command line could carry; return its id."""
    with instance.client() as client:
        return str(client.call("messages.send", {"to": to, "body": body, **more})["id"])


def state_of(instance: Instance, id_: str) -> str:
    """Return the state of a message."""
    with instance.client() as client:
        return str(client.call("messages.get", {"id": id_})["state"])


def settled(instance: Instance, id_: str, *states: str) -> str:
    """Wait until a message has one of the states."""
    wanted = states or ("delivered", "acked")
    return str(wait_until(lambda: (now := state_of(instance, id_)) in wanted and now, f"{id_} to be {wanted}"))


def carelessly(instance: Instance, agent: dict[str, Any], text: str, *, brackets: bool = True, enter: str = "") -> None:
    """Paste the bytes as they are, as a program would that trusts its input: the control of every attack here."""
    socket = str(instance.directory / "tmux-0.sock")
    argv = ["tmux", "-S", socket, "load-buffer", "-b", "careless", "-"]
    subprocess.run(argv, input=text.encode(), check=True, timeout=20)
    flags = ["-p", "-r", "-d"] if brackets else ["-r", "-d"]
    instance.tmux("paste-buffer", *flags, "-b", "careless", "-t", agent["pane"])
    if enter:
        instance.tmux("send-keys", "-t", agent["pane"], enter)
