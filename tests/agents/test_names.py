"""Names: each refusal has one reason (M04), an accepted name is safe everywhere (P3)."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import PurePosixPath
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.agents.names import next_free, next_names, valid_name
from agentd.errors import InvalidValue
from agentd.records import NAME_PATTERN, RESERVED_NAMES


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is empty"),
        ("a" * 49, "it has 49 characters"),
        ("оperator", "it does not begin with a letter from a to z"),  # a Cyrillic letter
        ("Operator", "it does not begin with a letter from a to z"),
        ("-x", "it does not begin with a letter from a to z"),
        ("..", "it does not begin with a letter from a to z"),
        ("7up", "it does not begin with a letter from a to z"),
        ("system", "it is reserved"),
        ("all", "it is reserved"),
        ("a--", "it ends with a dash"),
        ("a/b", "'/' may not stand in it"),
        ("a:b", "':' may not stand in it"),
        ("a.b", "'.' may not stand in it"),
        ("a_b", "'_' may not stand in it"),
        ("aB", "'B' may not stand in it"),
        ("a\x00", "'\\x00' may not stand in it"),
        ("a\n", "'\\n' may not stand in it"),
        ("aо", "'\\u043e' may not stand in it"),
    ],
)
def test_each_refusal_has_one_reason(name: str, reason: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        valid_name(name)
    assert caught.value.message.endswith(f": {reason}")
    assert caught.value.message.isascii()


@given(st.text() | st.from_regex(NAME_PATTERN) | st.sampled_from(sorted(RESERVED_NAMES)))
def test_a_name_is_refused_or_safe_everywhere(text: str) -> None:
    try:
        name = valid_name(text)
    except InvalidValue:
        return
    assert re.fullmatch(NAME_PATTERN, name)
    assert name not in RESERVED_NAMES
    assert unicodedata.normalize("NFC", name) == name == quote(name, safe="") == json.loads(json.dumps(name))
    assert PurePosixPath("/x", name).parent == PurePosixPath("/x")


@given(st.from_regex(r"[a-z]([a-z0-9-]{0,46}[a-z0-9])?", fullmatch=True))
def test_every_name_of_the_pattern_that_ends_well_is_accepted(name: str) -> None:
    if name not in RESERVED_NAMES:
        assert valid_name(name) == name


def test_the_next_free_numbers_are_taken() -> None:
    assert next_names("shell", 3, {"shell-1", "shell-3"}) == ["shell-2", "shell-4", "shell-5"]
    assert next_free("a", set()) == "a-1"
    with pytest.raises(InvalidValue, match="49 characters"):
        next_free("a" * 47, set())
