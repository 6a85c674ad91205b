"""The demo agent's parts by themselves: keys, composer, answers through a real door."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import in_thread, serving_in_thread

from agentd.testing.answers import Answers
from agentd.testing.composer import Composer
from agentd.testing.keys import Key, KeyReader, Paste
from agentd.testing.tui import rows

PASTED = "\x1b[200~"
END = "\x1b[201~"


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("hé", [Key("h"), Key("é")]),
        (f"a{PASTED}x\ry{END}\r", [Key("a"), Paste("x\ny"), Key("\r")]),
        (f"{PASTED}{END}", [Paste("")]),
        ("\x1b[A\x1bOP\x1b[1;5Cx", [Key("x")]),
        ("\x1b\rx", [Key("\r"), Key("x")]),
        (f"\x1b{PASTED}x{END}", [Paste("x")]),
        ("\x1b[\x07x", [Key("\x07"), Key("x")]),
        ("\x1bqx", [Key("x")]),
    ],
)
@pytest.mark.parametrize("chunk_chars", [1, 2, 1000])
def test_keys_and_pastes(text: str, items: list[Key | Paste], chunk_chars: int) -> None:
    reader = KeyReader()
    found = [i for at in range(0, len(text), chunk_chars) for i in reader.feed(text[at : at + chunk_chars])]
    assert found == items


@given(st.lists(st.text("\x1b[]20~1\r\n;ax?! ", max_size=8)))
def test_however_input_is_cut_the_same_is_read(chunks: list[str]) -> None:
    cut, whole = KeyReader(), KeyReader()
    assert [item for chunk in chunks for item in cut.feed(chunk)] == whole.feed("".join(chunks))


def test_a_long_paste_is_folded_and_submitted_whole() -> None:
    composer = Composer()
    composer.paste("short")
    composer.type("!")
    composer.paste("a\nb")
    composer.paste("x" * 401)
    assert composer.shown == f"short![pasted 2 lines: a b...][pasted 1 lines: {'x' * 40}...]"
    assert composer.text == "short!a\nb" + "x" * 401
    composer.erase()
    assert composer.text == "short!a\nb"
    composer.clear()
    assert (composer.shown, composer.text) == ("", "")


def test_rows_of_a_line() -> None:
    assert [rows(line, 10) for line in ("", "x" * 10, "x" * 11, "日" * 6, "e\u0301" * 10)] == [1, 1, 2, 2, 1]


@pytest.fixture
def socket() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="ad-", dir="/tmp") as directory:
        yield str(Path(directory, "s"))


class Daemon:
    """What the calls of a demo agent are answered with."""

    def __init__(self, answers: Any) -> None:
        self.replies: list[dict[str, Any]] = []
        self.acks: list[list[str]] = []
        self.busy_once = {"m2"}
        self.acked = threading.Event()
        answers.messages_send_batch = self.send_batch
        answers.messages_ack = self.ack
        answers.messages_get = lambda params: {"id": params.id, "body": "long\nbody"}

    def send_batch(self, params: Any) -> Any:
        return {"results": [self._sent(item) for item in params.messages]}

    def _sent(self, item: dict[str, Any]) -> Any:
        if item["reply_to"] in self.busy_once:
            self.busy_once.discard(item["reply_to"])
            return {"error": {"code": "busy", "message": "full", "hint": None, "retryable": True}}
        if item["to"] == "gone":
            return {"error": {"code": "unknown_target", "message": "no agent gone", "hint": None, "retryable": False}}
        self.replies.append(item)
        return {"id": "m9", "to": item["to"], "state": "accepted"}

    def ack(self, params: Any) -> Any:
        self.acks.append(params.ids)
        if len(self.acks) == 1 and len(params.ids) > 1:
            error = {"code": "busy", "message": "still delivering", "hint": None, "retryable": True}
            return {"done": params.ids[1:], "failed": [{"id": params.ids[0], "error": error}]}
        self.acked.set()
        return {"done": params.ids, "failed": []}


PROMPT = "\n".join(
    [
        "[agentd m1 from bob] hello",
        "[agentd m2 from eve, 2 lines]\n| a\n| b",
        "[agentd m3 from bob, re m0] an answer to me",
        "[agentd m4 from bob, 65536 bytes, read it with: agentd msg m4]",
        "[agentd m5 from gone] anybody?",
    ]
)


def test_every_message_is_answered_once_and_acknowledged(socket: str) -> None:
    said: list[str] = []
    with serving_in_thread(socket) as served:
        daemon = Daemon(served.answers)
        with closing(Answers({"AGENTD_SOCKET": socket}, said.append)) as answers:
            answers.answer(PROMPT)
    assert daemon.replies == [
        {"to": "bob", "body": "echo: hello", "reply_to": "m1", "key": "reply-m1"},
        {"to": "bob", "body": "echo: long\nbody", "reply_to": "m4", "key": "reply-m4"},
        {"to": "eve", "body": "echo: a\nb", "reply_to": "m2", "key": "reply-m2"},  # was told that it is busy
    ]
    assert daemon.acks == [["m1", "m2", "m3", "m4", "m5"], ["m1"]]
    assert said[0] == "demo: no answer to gone: no agent gone"
    assert said[1:] == ["echo: hello", "echo: a b", "echo: an answer to me", "echo: long body", "echo: anybody?"]


def test_it_waits_for_a_daemon_that_is_away(socket: str) -> None:
    said: list[str] = []
    with (
        closing(Answers({"AGENTD_SOCKET": socket}, said.append)) as answers,
        in_thread(lambda: answers.answer("[agentd m1 from bob] hello")),
        serving_in_thread(socket) as served,
    ):
        daemon = Daemon(served.answers)
        assert daemon.acked.wait(10)
    assert [item["body"] for item in daemon.replies] == ["echo: hello"]
    assert said == ["echo: hello"]


def test_a_refusal_is_said_and_not_repeated(socket: str, tmp_path: Path) -> None:
    said: list[str] = []
    environ = {"AGENTD_SOCKET": socket, "AGENTD_TOKEN_FILE": str(tmp_path / "none")}
    Answers(environ, said.append).answer("[agentd m1 from bob] hello")
    assert said[0].startswith("demo: not answered: the token file")
