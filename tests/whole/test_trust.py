"""A directory is trusted when whoever starts an agent there says so, and not otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from instance import Instance, instance, wait_until
from scripted import add_scripted

# It asks first, as the real ones do, unless it is told.
ASKING = """
[ "$1" = --trust ] || { echo 'Do you trust this directory?'; read -r answer; }
echo "trusted $2 and $TRUSTED"; printf 'ready> '; read -r end
"""
TOLD = r"""
[trust]
args = ["--trust", "{cwd}"]
env = { TRUSTED = "{cwd}" }
[stop]
text = "end"
[[rules]]
state = "waiting"
waits_for = "trust"
screen = '^Do you trust this directory\?$'
tail = 1
"""


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        add_scripted(one, "asking", ASKING, TOLD)
        one.up()
        yield one


def test_without_a_word_it_asks_and_waits_for_a_person(whole: Instance) -> None:
    whole.cli("spawn", "asking", "--name", "asks", "--wait", "waiting")
    agent = whole.json("show", "asks")
    assert (agent["waits_for"], agent["trusted"]) == ("trust", False)
    assert "trusted" not in whole.screen(agent)


def test_with_it_the_program_is_told_now_and_when_it_is_started_again(whole: Instance) -> None:
    cwd = whole.directory / "a 'place'"
    cwd.mkdir()
    whole.cli("spawn", "asking", "--name", "told", "--cwd", str(cwd), "--trust", "--wait", "idle")
    assert f"trusted {cwd} and {cwd}" in whole.screen(whole.json("show", "told"))
    whole.cli("stop", "told")
    whole.cli("respawn", "told")
    wait_until(lambda: whole.json("show", "told")["state"] == "idle", "it to be ready again")
    again = whole.json("show", "told")
    assert again["trusted"]
    assert f"trusted {cwd} and {cwd}" in whole.screen(again)
    assert "its directory" in whole.cli("show", "told").stdout


def test_a_team_file_says_it_for_each_of_its_agents(whole: Instance) -> None:
    file = whole.directory / "team.toml"
    members = (("plain", ""), ("trusting", "trust = true\n"))
    tables = [f'[[agents]]\nname = "{name}"\nprofile = "asking"\n{more}' for name, more in members]
    file.write_text('[team]\nname = "crew"\n' + "".join(tables))
    whole.cli("team", "up", str(file))
    wait_until(lambda: whole.json("show", "trusting")["state"] == "idle", "the one to be ready")
    wait_until(lambda: whole.json("show", "plain")["waits_for"] == "trust", "the other one to ask")
