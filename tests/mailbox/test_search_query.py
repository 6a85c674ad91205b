"""What counts as a word, what a query means, and what is shown of a hit."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.errors import InvalidValue
from agentd.index.query import LONGEST_QUERY, MOST_TERMS, Query, Term, parse
from agentd.index.snippet import LENGTH, snippet_of
from agentd.index.words import LONGEST, placed_words, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("src/main.py:42 foo_bar", ["src", "main", "py", "42", "foo", "bar"]),
        ("Café CAFE\u0301 Straße", ["cafe", "cafe", "strasse"]),
        ("日本語 abc漢字", ["日", "本", "語", "abc", "漢", "字"]),
        ("x" * 100, ["x" * LONGEST]),
        ("… -- \x00 \n", []),
    ],
)
def test_words(text: str, words: list[str]):
    assert words_of(text) == words


@given(st.text() | st.text(alphabet=[chr(code) for code in range(128)]))
def test_words_are_letters_and_digits_and_stand_where_they_say(text: str):
    assert words_of(text) == [word.text for word in placed_words(text)]
    for word in placed_words(text):
        assert word.text.isalnum()
        assert words_of(text[word.start : word.end]) == [word.text]


def term(text: str, *, prefix: bool = False) -> Term:
    return Term(tuple(text.split()), prefix)


@pytest.mark.parametrize(
    ("text", "groups", "without"),
    [
        ("a b", [[term("a")], [term("b")]], []),
        ("a OR b c", [[term("a"), term("b")], [term("c")]], []),
        ("a or b", [[term("a")], [term("or")], [term("b")]], []),
        ('"a b" c', [[term("a b")], [term("c")]], []),
        ("foo-bar", [[term("foo bar")]], []),
        ("dep*", [[term("dep", prefix=True)]], []),
        ('"roll ba*" "roll ba"*', [[term("roll ba", prefix=True)], [term("roll ba", prefix=True)]], []),
        ('a -b -"c d"', [[term("a")]], [term("b"), term("c d")]),
        ("OR a OR", [[term("a")]], []),
        ("a OR OR b", [[term("a"), term("b")]], []),
        ('"an open quote', [[term("an open quote")]], []),
        ("a AND (b) ! from:c", [[term("a")], [term("and")], [term("b")], [term("from c")]], []),
    ],
)
def test_what_a_query_means(text: str, groups: list[list[Term]], without: list[Term]):
    assert parse(text) == Query(tuple(map(tuple, groups)), tuple(without))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no word to look for"),
        ('""', "no word to look for"),
        ("* OR ?", "no word to look for"),
        ("-a", "only says what to leave out"),
        ("a " * (MOST_TERMS + 1), "terms"),
        ("a" * (LONGEST_QUERY + 1), "characters"),
    ],
)
def test_what_is_no_query(text: str, why: str):
    with pytest.raises(InvalidValue, match=why) as raised:
        parse(text)
    assert raised.value.field == "query"
    assert raised.value.hint


@given(st.text())
def test_any_text_is_a_query_or_invalid(text: str):
    with contextlib.suppress(InvalidValue):
        assert parse(text).groups


def shown(text: str, query: str) -> tuple[str, list[str]]:
    snippet = snippet_of(text, parse(query))
    return snippet.text, [snippet.text[begin:end] for begin, end in snippet.matches]


def test_a_snippet_marks_words_as_they_were_written():
    assert shown("Deploy the Café\nnow", "cafe dep*") == ("Deploy the Café now", ["Deploy", "Café"])
    assert shown("roll back, or roll on", '"roll back"') == ("roll back, or roll on", ["roll back"])
    assert shown("step back, roll backs", '"roll ba*"') == ("step back, roll backs", ["roll backs"])
    assert shown("backs", "back") == ("backs", [])
    assert shown("nothing", "else") == ("nothing", [])


def test_a_snippet_of_a_long_text_is_cut_around_the_first_match():
    text, words = shown("word " * 100 + "needle" + " word" * 100, "needle")
    assert words == ["needle"]
    assert text.startswith("…")
    assert text.endswith("…")
    assert len(text) == LENGTH + 2


@given(st.text(), st.text(alphabet='ab "*-é', min_size=1))
def test_matches_stand_inside_the_snippet_in_order(text: str, query: str):
    with contextlib.suppress(InvalidValue):
        snippet = snippet_of(text, parse(query))
        places = [place for match in snippet.matches for place in match]
        assert places == sorted(places)
        assert all(0 <= place <= len(snippet.text) for place in places)
        assert len(snippet.text.splitlines()) <= 1
