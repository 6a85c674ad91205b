"""P4: what is sent through a real tmux arrives byte for byte, with exactly one reply."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import Place, became, exists, spawn

from agentd.records import PaneRef
from agentd.tmux.tmux import Tmux

TRICKY = [
    "a;kill-server",
    "a\\;b",
    "$HOME",
    "%H",
    "{",
    "}",
    "it's",
    "\\",
    "x\\",
    "#(touch S)",
    "~",
    ";",
    '"',
    "-l",
    "#",
    "'",
]
SEND_KEYS_TEXT = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Cn", "Co", "Mn", "Me", "Cf")), min_size=1, max_size=40
)
PASTED_TEXT = st.text(
    st.characters(blacklist_categories=("Cc", "Cs"), whitelist_characters="\n\t"), min_size=1, max_size=80
)


class Recorder:
    """A pane that writes down what it reads, and what it has written down."""

    def __init__(self, portal: BlockingPortal, tmux: Tmux, ref: PaneRef, file: Path) -> None:
        self._portal = portal
        self.tmux = tmux
        self.ref = ref
        self._file = file

    def got(self, function: object, *arguments: object, size: int) -> bytes:
        """Call something that types and return what newly arrived."""
        before = self._file.stat().st_size

        async def call() -> bytes:
            await function(*arguments)
            await became(lambda: self._file.stat().st_size >= before + size)
            return self._file.read_bytes()[before:]

        return self._portal.call(call)


@pytest.fixture
def recorder(place: Place) -> Iterator[Recorder]:
    file = place.directory / "got"
    script = f"stty raw -echo; touch up; exec cat > {file}"
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(place.open()) as (tmux, _):

        async def start() -> PaneRef:
            ref = await spawn(tmux, "sh", "-c", script, cwd=str(place.directory))
            await exists(place.directory / "up")
            await exists(file)
            return ref

        ref = portal.call(start)
        server = tmux.server
        yield Recorder(portal, tmux, ref, file)
        assert tmux.server == server
        assert not (place.directory / "S").exists()


def fresh(recorder: Recorder) -> None:
    recorder.tmux._hearing.unread_bytes.clear()  # it never answers, so pastes would soon be refused


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.sampled_from(TRICKY), SEND_KEYS_TEXT))
def test_p4_typed_text_arrives_as_it_is(recorder: Recorder, text: str) -> None:
    assert recorder.got(recorder.tmux.type_text, recorder.ref, text, size=len(text.encode())) == text.encode()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.sampled_from(TRICKY), PASTED_TEXT))
def test_p4_pasted_text_arrives_as_it_is(recorder: Recorder, text: str) -> None:
    fresh(recorder)
    assert recorder.got(recorder.tmux.paste, recorder.ref, text, size=len(text.encode())) == text.encode()


@pytest.mark.anyio
async def test_p4_every_command_has_exactly_one_reply(place: Place) -> None:
    """A thousand hostile arguments in flight: each reply says what its own command asked."""
    async with place.open() as (tmux, _):
        connection = tmux._calls.channel()
        words = [f"{number} {text}" for number, text in enumerate(TRICKY * 60)]
        shown: dict[str, str] = {}

        async def ask(word: str) -> None:
            literal = word.replace("#", "##").replace("%", "%%")  # a format, and then strftime's
            (shown[word],) = await connection.run("display-message", "-p", "--", literal, timeout_s=5)

        async with anyio.create_task_group() as group:
            for word in words:
                group.start_soon(ask, word)
        assert [word for word in words if unicodedata.normalize("NFC", shown[word]) != word] == []
