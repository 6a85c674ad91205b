"""What is filled into a profile's words and files, whatever the directories are called."""

from __future__ import annotations

import json
import shlex
import tomllib
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.agents.placeholders import Placeholders

PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=30).map(
    lambda name: f"/{name}"
)
PLAIN = Placeholders(private="/p", cwd="/c", agentd="/a", python="/y", socket="/s")
MARKS = [field.name for field in fields(Placeholders)]


def all_of(name: str) -> str:
    return f"{{{name}}}"


def test_every_placeholder_and_nothing_else():
    word = " ".join(map(all_of, MARKS)) + " {session} {other} {} { cwd } {{cwd}}"
    assert PLAIN.words([word]) == ["/p /c /a /y /s {session} {other} {} { cwd } {/c}"]


@pytest.mark.parametrize("mark", MARKS)
@given(path=PATHS)
def test_a_word_gets_the_value_as_it_is(mark: str, path: str):
    places = replace(PLAIN, **{mark: path})
    assert places.words([f"--dir={all_of(mark)}"]) == [f"--dir={path}"]


@given(path=PATHS)
def test_a_quoted_directory_is_a_string_of_toml(path: str):
    (word,) = replace(PLAIN, cwd=path).words(["{{cwd_quoted}={level=1}}"])
    assert tomllib.loads(f"a={word}") == {"a": {path: {"level": 1}}}


@pytest.mark.parametrize("mark", sorted(set(MARKS) - {"agentd"}))
@given(path=PATHS)
def test_a_string_of_a_file_is_the_value_again(mark: str, path: str):
    places = replace(PLAIN, **{mark: path})
    assert json.loads(places.file("x.json", f'{{"a": "<{all_of(mark)}>"}}')) == {"a": f"<{path}>"}
    assert tomllib.loads(places.file("d/x.toml", f'a = "<{all_of(mark)}>"')) == {"a": f"<{path}>"}
    assert places.file("x.txt", f"<{all_of(mark)}>") == f"<{path}>"


@given(path=PATHS)
def test_agentd_in_a_file_is_one_word_of_a_shell(path: str):
    places = replace(PLAIN, agentd=path)
    for read in (
        json.loads(places.file("x.json", '{"a": "{agentd} hook Stop"}'))["a"],
        tomllib.loads(places.file("x.toml", 'a = "{agentd} hook Stop"'))["a"],
        places.file("x.sh", "{agentd} hook Stop"),
    ):
        assert shlex.split(read) == [path, "hook", "Stop"]


@given(path=PATHS)
def test_a_value_is_not_filled_again(path: str):
    places = replace(PLAIN, private=f"{path}{{cwd}}")
    assert places.words(["{private}"]) == [f"{path}{{cwd}}"]
