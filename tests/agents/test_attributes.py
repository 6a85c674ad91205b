"""What is faint on a screen: any bytes are taken, and the text is what tmux shows without colours."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from recorded import RECORDED, Recorded

from agentd.agents.attributes import read

MOVED_BETWEEN_CAPTURES = {
    "aider/http_500",
    "opencode/working_80x24",
    "claude/permission_bash_80x24",
}  # a spinner's turn
SEQUENCES = st.one_of(
    st.builds("\x1b[{}m".format, st.from_regex(r"(?:[0-9]{0,4}[;:]?){0,8}", fullmatch=True)),
    st.sampled_from(["\x1b[2m", "\x1b[7m", "\x1b[0m", "\x1b[38;5;244m", "\x1b[38;2;128;128;128m", "\x1b[38", "\x1b"]),
    st.sampled_from(
        ["\x1b]8;;http://x\x1b\\", "\x1b]0;title\x07", "\x1b(B", "\x1b[?25l", "\x0e", "\x0f", "\n", "\x1bP"]
    ),
)


@given(st.lists(st.one_of(SEQUENCES, st.text())).map("".join))
@example("\x1b[38;2m")
@example("\x1b[38:2::128:128:128mx")
@example("\x1b[²m\x1b[38;5;²mx")
def test_any_text_is_taken_and_both_readings_have_the_same_places(captured: str) -> None:
    shown = read(captured)
    assert [len(line) for line in shown.plain.split("\n")] == [len(line) for line in shown.solid.split("\n")]
    assert all(solid in (plain, " ") for plain, solid in zip(shown.plain, shown.solid, strict=True))


@given(st.binary())
def test_any_bytes_are_taken(data: bytes) -> None:
    read(data.decode("utf-8", "replace"))


@given(st.text(st.characters(exclude_characters="\x1b\x0e\x0f")))
def test_a_text_without_colours_is_itself(text: str) -> None:
    shown = read(text)
    assert shown.plain == shown.solid == text


@pytest.mark.parametrize("recorded", RECORDED, ids=str)
def test_the_text_of_a_coloured_capture_is_the_plain_capture(recorded: Recorded) -> None:
    if recorded.name in MOVED_BETWEEN_CAPTURES:
        pytest.skip("its spinner moved between the two captures")
    plain, coloured = recorded.text(".txt"), read(recorded.text(".ansi.txt")).plain
    assert [line.rstrip(" ") for line in coloured.split("\n")] == [line.rstrip(" ") for line in plain.split("\n")]


@pytest.mark.parametrize(
    ("captured", "solid"),
    [
        ("> \x1b[2mtype here\x1b[0m.", ">          ."),
        ("> \x1b[38;5;244mtype\x1b[39m.", ">     ."),
        ("> \x1b[38;2;128;128;128mtype\x1b[39m.", ">     ."),
        ("> \x1b[38:2::128:128:128mtype\x1b[39m.", ">     ."),
        ("> \x1b[90mtype\x1b[0m.", ">     ."),
        ("> \x1b[90mtype\x1b[31mred", ">     red"),
        ("> \x1b[2mone\ntwo\x1b[22mthree", ">    \n   three"),  # a pen is kept from line to line
        ("> \x1b[7mR\x1b[0;2mesend\x1b[0m", ">       "),  # the cursor on the hint's first letter
        ("> typ\x1b[7me\x1b[0md \x1b[2mhint\x1b[0m", "> typed     "),
        ("> \x1b[7mselected\x1b[0m", "> selected"),
        ("> \x1b[1;38;5;231mtyped\x1b[0m", "> typed"),
        ("> \x1b[38;2;68;68;68mdark text of a light theme\x1b[0m", "> dark text of a light theme"),
        ("> \x1b[38;2;128;130;220mblue\x1b[0m", "> blue"),
        ("> \x1b[48;5;244mon grey\x1b[0m", "> on grey"),
        ("> \x1b[48;2;128;128;128;1mon grey\x1b[0m", "> on grey"),
    ],
)
def test_dim_and_grey_are_faint(captured: str, solid: str) -> None:
    assert read(captured).solid == solid
