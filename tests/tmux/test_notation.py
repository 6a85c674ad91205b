"""The notation, without a tmux: quoting rules and the parser against hostile transcripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.errors import InvalidValue
from agentd.tmux.failures import Desync
from agentd.tmux.notation import (
    MAX_LINE_BYTES,
    ControlParser,
    Notification,
    Reply,
    command,
    decode_output,
    escape_format,
    line,
    output_of,
    quote,
    quote_lines,
)

NONCE = "5ca1ab1e"


def in_chunks(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    return [*chunks, data[at:]]


def heard(parser: ControlParser, data: bytes, sizes: list[int]) -> list[Reply | Notification]:
    return [each for chunk in in_chunks(data, sizes) for each in parser.feed(chunk)]


@pytest.mark.parametrize("bad", ['x"\nkill-server\n"', "a\rb", "a\0b", "\n"])
def test_t09_a_line_break_never_reaches_a_command(bad: str) -> None:
    with pytest.raises(InvalidValue):
        quote(bad)
    with pytest.raises(InvalidValue):
        command("display-message", bad)


@pytest.mark.parametrize("bad", [[], [""], ["#x"], [" #x"], ["  "], ["a\nb"]])
def test_t11_lines_without_a_reply_are_refused(bad: list[str]) -> None:
    with pytest.raises(InvalidValue):
        line(*bad)


def test_an_empty_argument_is_a_command_word_that_tmux_answers() -> None:
    assert command("") == "''"


def test_quoting_leaves_plain_words_alone() -> None:
    assert quote("%12") == "%12"
    assert quote("%s") == "'%s'"
    assert quote("it's") == r"'it'\''s'"
    assert quote_lines("a b\n\nc") == "'a b'\"\\n\"''\"\\n\"c"
    assert escape_format("#(touch S)") == "##(touch S)"


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InvalidValue):
        quote("\ud83d")


HOSTILE_LINES = st.one_of(
    st.sampled_from(
        [
            b"%begin 1 7 1",
            b"%end 1 7 1",
            b"%error 1 7 1",
            b"%end 1 8 1",
            b"%begin 1 8 1",
            b"%exit",
            b"%output %1 x",
            b"%sessions-changed",
            b"",
        ]
    ),
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"")),
)
NOTIFICATIONS = st.sampled_from([b"%output %1 a\\015\\012", b"%sessions-changed", b"%window-renamed @1 %end 1 7 1"])
SIZES = st.lists(st.integers(1, 40), max_size=30)


@given(body=st.lists(HOSTILE_LINES, max_size=20), later=st.lists(NOTIFICATIONS, max_size=3), sizes=SIZES)
def test_p2_a_capture_is_exact_whatever_the_pane_shows(body: list[bytes], later: list[bytes], sizes: list[int]) -> None:
    """T12: forged guards, exits and output in a pane's content stay content."""
    transcript = [b"%begin 1 7 1", *body, b"%end 1 7 1", *later]
    transcript += [b"%begin 1 8 1", NONCE.encode() + b"|facts", b"%end 1 8 1", b"%sessions-changed", b""]
    parser = ControlParser()
    parser.expect_capture(NONCE)
    told = heard(parser, b"\n".join(transcript), sizes)
    expected_later = [Notification(*each[1:].partition(b" ")[::2]) for each in later]
    assert told == [Reply(body, True, frame=b"|facts"), *expected_later, Notification(b"sessions-changed", b"")]


PLAIN_BODY = st.lists(st.sampled_from([b"", b"row 1", b"$1|@1|%1", b"%end 9 9 1", b"%begin 2 2 1"]), max_size=4)
BLOCK = st.tuples(st.just("block"), PLAIN_BODY, st.booleans(), st.sampled_from([0, 1]))
NOTICE = st.tuples(st.just("notice"), NOTIFICATIONS)


@given(parts=st.lists(st.one_of(BLOCK, NOTICE), max_size=12), sizes=SIZES)
def test_p2_replies_and_notifications_whatever_the_chunks(parts: list[tuple], sizes: list[int]) -> None:
    parser, lines, expected = ControlParser(), [], []
    for number, part in enumerate(parts, start=100):
        if part[0] == "notice":
            lines.append(part[1])
            expected.append(Notification(*part[1][1:].partition(b" ")[::2]))
            continue
        _, body, ok, flags = part
        guard = f"5 {number} {flags}".encode()
        lines += [b"%begin " + guard, *body, (b"%end " if ok else b"%error ") + guard]
        expected.append(Reply(body, ok, ours=bool(flags)))
        if flags:
            parser.expect()
    data = b"".join(each + b"\n" for each in lines)
    assert heard(parser, data, sizes) == expected


@given(bodies=st.lists(PLAIN_BODY, max_size=4), sizes=SIZES)
def test_p2_a_frame_takes_any_number_of_blocks(bodies: list[list[bytes]], sizes: list[int]) -> None:
    """if-shell answers with as many blocks as it likes."""
    lines = []
    for number, body in enumerate([*bodies, [NONCE.encode()]]):
        guard = f"5 {number} 1".encode()
        lines += [b"%begin " + guard, *body, b"%end " + guard]
    parser = ControlParser()
    parser.expect_frame(NONCE)
    told = heard(parser, b"".join(each + b"\n" for each in lines), sizes)
    assert told == [Reply([each for body in bodies for each in body], True)]


STEPS = st.lists(PLAIN_BODY, min_size=1, max_size=4)


@given(groups=st.lists(st.tuples(STEPS, st.integers(0, 5)), max_size=4), sizes=SIZES)
def test_p2_a_sequence_ends_with_its_first_error(groups: list[tuple[list[list[bytes]], int]], sizes: list[int]) -> None:
    """`a ; b ; c` gives a block each until one fails; whatever comes next answers the next command."""
    parser, lines, expected, number = ControlParser(), [], [], 100
    for bodies, failing in groups:
        parser.expect_sequence(len(bodies))
        for step, body in enumerate(bodies[: failing + 1]):
            number += 1
            lines += [
                b"%%begin 5 %d 1" % number,
                *body,
                (b"%error" if step == failing else b"%end") + b" 5 %d 1" % number,
            ]
        if failing < len(bodies):
            ran = [each for body in bodies[:failing] for each in body]
            expected.append(Reply(ran, ok=False, frame=b" ".join(bodies[failing])))
        else:
            expected.append(Reply([each for body in bodies for each in body]))
        parser.expect()
        number += 1
        lines += [b"%%begin 5 %d 1" % number, b"next", b"%%end 5 %d 1" % number]
        expected.append(Reply([b"next"]))
    assert heard(parser, b"".join(each + b"\n" for each in lines), sizes) == expected


@pytest.mark.parametrize("stray", [b"%end 1 1 1\n", b"%error 1 1 1\n", b"hello\n", b"\n", b"%begin 1 1 1\n"])
def test_t11_a_stray_line_is_a_desync(stray: bytes) -> None:
    with pytest.raises(Desync):
        ControlParser().feed(stray)


def test_an_endless_line_is_a_desync() -> None:
    parser = ControlParser()
    chunk = b"x" * (MAX_LINE_BYTES // 4)
    for _ in range(4):
        parser.feed(chunk)
    with pytest.raises(Desync):
        parser.feed(b"x")


def escaped(data: bytes) -> bytes:
    """tmux's control_append_data: control characters and the backslash as three octal digits."""
    return b"".join(b"\\%03o" % byte if byte < 0x20 or byte == 0x5C else bytes((byte,)) for byte in data)


@given(st.binary(max_size=200))
def test_output_is_decoded_to_what_was_printed(data: bytes) -> None:
    assert decode_output(escaped(data)) == data
    assert output_of(Notification(b"output", b"%7 " + escaped(data))) == ("%7", escaped(data))
    assert output_of(Notification(b"extended-output", b"%7 12 : " + escaped(data))) == ("%7", escaped(data))
    assert output_of(Notification(b"sessions-changed", b"")) is None


@given(st.binary(max_size=50))
def test_decoding_never_fails(data: bytes) -> None:
    decode_output(data)
