"""Plain text of what programs print: nothing that acts on a terminal is left, and nothing that was written is."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentd.transcripts.plain import LONGEST_LINE, Growth, Plain, text_of

ESC = "\x1b"
SAFE = re.compile("[^\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]*")


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        ("one\r\ntwo\n", "one\ntwo"),
        ("a\tb\n\n  c", "a\tb\n\n  c"),
        (f"{ESC}[1;31mred{ESC}[0m", "red"),
        (f"{ESC}[38:2::1:2:3mx", "x"),
        (f"{ESC}]0;title\x07x", "x"),
        (f"{ESC}]8;;http://e/{ESC}\\link{ESC}]8;;{ESC}\\", "link"),
        (f"{ESC}]52;c;c2VjcmV0\x07x", "x"),
        (f"{ESC}P$q\x07m{ESC}\\x", "x"),
        (f"{ESC}_apc{ESC}\\x{ESC}^pm{ESC}\\y{ESC}Xsos{ESC}\\z", "xyz"),
        (f"a{ESC}]0;never ended{ESC}[1mb", "ab"),
        (f"{ESC}(0lqk{ESC}(B", "lqk"),
        (f"{ESC}7x{ESC}8", "x"),
        ("10%\r20%\r100%\n", "100%"),
        ("100\r2\n", "200"),
        (f"old text\r{ESC}[Knew\n", "new"),
        (f"{ESC}[2Kx", "x"),
        (f"abc{ESC}[1Kd", "   d"),
        ("abc\b\bX\n", "aXc"),
        (f"a{ESC}[3Cb", "a   b"),
        (f"abcd{ESC}[2DX", "abXd"),
        (f"abc{ESC}[2GX", "aXc"),
        (f"abcd\r{ESC}[2P", "cd"),
        (f"abcd\r{ESC}[2X", "  cd"),
        (f"ab\r{ESC}[2@", "  ab"),
        (f"one{ESC}[5;1Htwo{ESC}[Athree", "one\ntwo\nthree"),
        (f"one{ESC}[5;1H{ESC}[6;1Htwo", "one\ntwo"),
        (f"one{ESC}[?1049htwo{ESC}[?1049lthree{ESC}[?25h four", "one\ntwo\nthree four"),
        (f"one{ESC}Mtwo{ESC}ctree", "one\ntwo\ntree"),
        (f"{ESC}[?2004h{ESC}[>c{ESC}[2 qx", "x"),
        ("\x00\x07\x0e\x0f\x7f\x85\x9bx", "x"),
        ("\u202eabc\u2066", "\ufffdabc\ufffd"),
        (f"{ESC}", ""),
        (f"{ESC}[3\nx", "[3\nx"),
        ("日本語", "日本語"),
    ],
)
def test_what_is_left(printed: str, text: str):
    assert text_of(printed.encode()) == text


def test_bytes_that_are_no_text():
    assert text_of(b"a\xff\xe2\x82b") == "a\ufffd\ufffd\ufffdb"


PIECES = st.sampled_from(
    [
        *(b"word", b"x", b" ", b"  ", b"\n", b"\r\n", b"\r", b"\b", b"\t", b"\x07", b"\x00", b"\x1b", b"\x18", b"\x9b"),
        *(b"\x1b[", b"\x1b[K", b"\x1b[1K", b"\x1b[2K", b"\x1b[3C", b"\x1b[2D", b"\x1b[9G", b"\x1b[2P", b"\x1b[5;9H"),
        *(b"\x1b]0;t\x07", b"\x1b]", b"\x1bP", b"\x1b\\", b"\x1b(B", b"\x1b(", b"[31m", b"m", b";", b"\x1b[?1049h"),
        *("é".encode(), "漢".encode(), "😀".encode(), b"\xe6\xbc", b"\xff", "\u202e".encode(), b"\xc2\x9b", b"\x1bM"),
    ]
)
OUTPUT = st.one_of(st.lists(PIECES, max_size=40).map(b"".join), st.binary(max_size=200))


@given(OUTPUT)
@example(b"\x1b\x1b[201~\x1b")
def test_nothing_that_acts_on_a_terminal_is_left(data: bytes):
    assert SAFE.fullmatch(text_of(data).replace("\n", ""))
    growth = Growth()
    shown = "".join(growth.feed(data[n : n + 3]) for n in range(0, len(data), 3)) + growth.say("end")
    assert SAFE.fullmatch(shown.replace("\n", ""))
    assert shown.endswith("end\n")


@given(OUTPUT, st.lists(st.integers(1, 7), min_size=1))
def test_portions_do_not_matter(data: bytes, sizes: list[int]):
    whole, parts = Plain(), Plain()
    lines, at, n = [], 0, 0
    while at < len(data):
        size = sizes[n % len(sizes)]
        lines += parts.feed(data[at : at + size])
        at, n = at + size, n + 1
    assert whole.feed(data) == lines
    assert (whole.line, whole.held_bytes, whole.unsettled_bytes) == (
        parts.line,
        parts.held_bytes,
        parts.unsettled_bytes,
    )


@given(OUTPUT, OUTPUT)
def test_one_may_begin_anew_where_a_line_ended(before: bytes, after: bytes):
    """What a page leaves for the next one is neither lost nor shown twice."""
    whole, first, second = Plain(), Plain(), Plain()
    begun = first.feed(before)
    rest = before[len(before) - first.unsettled_bytes :]
    lines = begun + second.feed(rest + after)
    assert whole.feed(before + after) == lines
    assert second.line == whole.line


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=100))
def test_plain_text_stays_as_it_is(text: str):
    wanted = re.sub("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", "\ufffd", re.sub("[\x7f-\x9f]", "", text))
    assert text_of(text.encode()) == ("" if not wanted.strip() else wanted.rstrip(" "))


def test_long_lines_are_cut_and_long_strings_skipped():
    plain = Plain()
    for _ in range(100):
        assert all(len(line) <= LONGEST_LINE for line in plain.feed(b"x" * 1000))
        assert len(plain.line) <= LONGEST_LINE
    plain = Plain()
    plain.feed(b"a\x1b]52;c;")
    for _ in range(1000):
        assert plain.feed(b"QUJD" * 100) == []
        assert plain.held_bytes <= 4200
    plain.feed(b"\x1b\\b\x1b[999999999999999999Cc")
    assert plain.line.startswith("ab ")
    assert plain.line.endswith("c")
    assert len(plain.line) <= LONGEST_LINE + 1


def test_growth_shows_each_change_once():
    growth = Growth()
    assert growth.feed(b"demo> ") == "demo>"
    assert growth.feed(b"hello") == " hello"
    assert growth.feed(b"\x1b[31") == ""
    assert growth.held_bytes == 4
    assert growth.feed(b"m!\r\n10%") == "!\n10%"
    assert growth.feed(b"\r20%") == "\n20%"
    assert growth.feed(b"\r20%\x1b[K") == ""
    assert growth.feed(b"\r\x1b[K") == ""
    assert growth.feed(b"done\n") == "\ndone\n"
    assert growth.feed(b"half") == "half"
    assert growth.say("a gap") == "\na gap\n"
