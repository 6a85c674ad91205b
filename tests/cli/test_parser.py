"""The parser alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.cli.grammar import Argument, Command, Option
from agentd.cli.parser import parse
from agentd.errors import UsageError

PLAY = Command(
    "play",
    "x:y",
    "Play.",
    "agentd play it",
    (Argument("PIECE"), Argument("PLAYER", required=False, many=True)),
    (
        Option("-n", "N", kind="int", low=1, high=9),
        Option("--tempo", "BPM", kind="number", high=300),
        Option("--key", "KEY", choices=("major", "minor")),
        Option("--with", "K=V", kind="pair", repeat=True),
        Option("--loud"),
        Option("--with-care"),
    ),
)


def play(*words):
    return {key: value for key, value in parse(PLAY, words).items() if key not in ("json", "help")}


def test_options_stand_anywhere_and_in_every_form():
    expected = {
        "piece": "it",
        "player": ["a", "b"],
        "n": 3,
        "tempo": 90.5,
        "key": "minor",
        "with": ["x=1", "y="],
        "loud": True,
        "with_care": False,
    }
    assert (
        play("it", "-n", "3", "a", "--tempo=90.5", "--key", "minor", "--with", "x=1", "--loud", "b", "--with=y=")
        == expected
    )
    assert (
        play("-n3", "--loud", "--tempo", "90.5", "--key=minor", "--with=x=1", "--with", "y=", "it", "a", "b")
        == expected
    )


def test_what_is_not_given():
    values = parse(PLAY, ["it"])
    assert values == {
        "piece": "it",
        "player": [],
        "n": None,
        "tempo": None,
        "key": None,
        "with": [],
        "loud": False,
        "with_care": False,
        "json": False,
        "help": False,
    }


def test_after_two_dashes_everything_is_a_word():
    assert play("--loud", "--", "--loud", "-n", "--")["player"] == ["-n", "--"]
    assert play("-")["piece"] == "-"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "needs PIECE"),
        (["it", "--loudd"], "--loud"),
        (["it", "--loud=1"], "takes no value"),
        (["it", "-n"], "needs a value"),
        (["it", "-n", "--"], "needs a value"),
        (["it", "-n", "10"], "from 1 to 9"),
        (["it", "-n", "1.5"], "whole number"),
        (["it", "--tempo", "inf"], "a number from 0"),
        (["it", "--tempo", "-1"], "a number from 0"),
        (["it", "--key", "minr"], "minor"),
        (["it", "--with", "x"], "K=V"),
    ],
)
def test_mistakes_say_what_to_do(words, says):
    with pytest.raises(UsageError) as caught:
        parse(PLAY, words)
    assert says in f"{caught.value.message}; {caught.value.hint}"


@given(
    st.lists(
        st.text(max_size=12) | st.sampled_from(["-n", "--with", "--key", "--", "-", "--loud", "3", "minor"]), max_size=8
    )
)
def test_any_words_are_values_or_one_usage_error(words):
    try:
        values = parse(PLAY, words)
    except UsageError:
        return
    assert values["help"] or isinstance(values["piece"], str)
    assert values["n"] is None or 1 <= values["n"] <= 9
    assert values["key"] in (None, "major", "minor")


@given(st.lists(st.text(), min_size=1, max_size=6))
def test_texts_pass_unchanged_behind_two_dashes(words):
    assert play("--", *words) == {**play("it"), "piece": words[0], "player": words[1:]}
