"""Profiles are data: every mistake is one line that names the file and the key."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import msgspec
import pytest

from agentd.agents.profile import Profiles, ProjectProfile, read_profile
from agentd.agents.toml_lines import line_of
from agentd.errors import InvalidValue, NotFound

HEAD = 'command = "x"\n'
SHELLS = ("sh", "shell", "zsh")
AGENTS = ("aider", "claude", "codex", "gemini", "goose", "opencode", "pi")
OURS = sorted((*AGENTS, *SHELLS, "demo", "generic"))


@pytest.fixture(scope="module")
def built_in() -> Profiles:
    return Profiles.load("/nonexistent")


def test_the_profiles_we_ship(built_in: Profiles) -> None:
    assert built_in.names() == OURS
    for row in built_in.rows():
        assert row.keys() == {"name", "doc", "version", "origin", "command", "delivery", "error"}
        assert row["doc"]
        assert row["origin"] == "built-in"
    assert built_in.get("demo").argv()[0] == sys.executable
    assert built_in.get("demo").acks
    assert built_in.get("demo").batches
    assert not built_in.get("shell").batches


@pytest.mark.parametrize("name", AGENTS)
def test_a_real_agents_profile_says_what_a_message_to_it_needs(built_in: Profiles, name: str) -> None:
    profile = built_in.get(name)
    assert profile.boot.settle_ms >= 300  # a composer is drawn before what may come after it
    assert profile.input.envelope == "header"  # a body that begins with `!` or `/` is never a command
    assert profile.input.composer is not None
    assert not any("yolo" in word or "dangerous" in word or "bypass" in word for word in profile.args)
    assert profile.stop.text
    assert "C-c" not in profile.stop.keys  # it ends some of them, and others take it for an answer
    assert "C-c" not in profile.input.clear_keys
    assert all(rule.reason for rule in profile.rules)


@pytest.mark.parametrize("name", AGENTS)
def test_what_asks_is_looked_for_before_what_works_and_what_is_idle(built_in: Profiles, name: str) -> None:
    order = {"waiting": 0, "working": 1, "idle": 2, "draft": 3, "starting": 3}
    states = [rule.state for rule in built_in.get(name).rules if rule.screen or rule.title]
    assert states == sorted(states, key=lambda state: order[state])


@pytest.mark.parametrize("name", OURS)
def test_a_profiles_data_is_plain_and_makes_the_same_profile(built_in: Profiles, name: str) -> None:
    profile = built_in.get(name)
    data = msgspec.msgpack.decode(msgspec.msgpack.encode(profile.data()))
    assert msgspec.convert(data, type(profile), dec_hook=lambda _, text: re.compile(text, re.MULTILINE)) == profile


def test_an_unknown_profile_is_not_found_and_the_known_ones_are_named(built_in: Profiles) -> None:
    with pytest.raises(NotFound) as caught:
        built_in.get("shel")
    assert caught.value.hint == f"profiles: {', '.join(OURS)}"


def test_a_users_profile_overrides_ours_by_name(tmp_path: Path) -> None:
    (tmp_path / "shell.toml").write_text('command = "fish"\n')
    (tmp_path / "mine.toml").write_text('command = "{python}"\nargs = ["-c", "{python}"]\n[env]\nA = "1"\n')
    (tmp_path / "notes.txt").write_text("no profile")
    profiles = Profiles.load(str(tmp_path))
    assert profiles.get("shell").argv() == ["fish"]
    assert profiles.origin("shell") == str(tmp_path / "shell.toml")
    assert profiles.origin("sh") == "built-in"
    assert profiles.get("mine").argv() == [sys.executable, "-c", sys.executable]
    assert profiles.get("mine").env == {"A": "1"}


MISTAKES = [
    ("", "missing required field `command`"),
    ("command = 3", "command: Expected `str`, got `int`"),
    (HEAD + "colour = 1", "there is no key `colour`"),
    (HEAD + '"a\\nb" = 1', "there is no key `a\\nb`"),
    (HEAD + "[input]\nenvelop = 1", "input: there is no key `envelop`"),
    (HEAD + '[input]\nenvelope = "x"', "input.envelope: Invalid enum value 'x'"),
    (HEAD + "[input]\nenter_delay_ms = -1", "input.enter_delay_ms: Expected `int` >= 0"),
    (HEAD + '[input]\ncomposer = "x"', "input: `composer` needs a group (?P<text>...)"),
    (HEAD + '[[rules]]\nstate = "idl"', "rules[1].state: Invalid enum value 'idl'"),
    (HEAD + '[[rules]]\nscreen = "x"', "rules[1]: missing required field `state`"),
    (HEAD + '[[rules]]\nstate = "idle"\nunless = "x"', "rules[1]: there is no key `unless`"),
    (HEAD + '[[rules]]\nstate = "idle"\ntail = 0', "rules[1].tail: Expected `int` >= 1"),
    (HEAD + '[[rules]]\nstate = "idle"\nscreen = 1', "rules[1].screen: Expected a regular expression"),
    (
        HEAD + '[[rules]]\nstate = "idle"\nscreen = "("',
        "rules[1].screen: the pattern '(' is not valid: missing ), unterminated subpattern at position 0",
    ),
    (
        HEAD + '[[rules]]\nstate = "idle"\nnot = "(a+)+b"',
        "rules[1].not: the pattern '(a+)+b' has a repeat within a repeat; some screens would take it hours",
    ),
    (
        HEAD + '[[rules]]\nstate = "idle"\nnot = "(?:ab)*+c"',
        "rules[1].not: the pattern '(?:ab)*+c' has a group before *+, ++ or ?+, which some Pythons match wrongly",
    ),
    (HEAD + '[[rules]]\nstate = "idle"\n[[rules]]\nstate = "idle"\ntail = 0', "rules[2].tail: Expected `int` >= 1"),
    (HEAD + '[[rules]]\nstate = "idle"\nregion = "top"', "rules[1].region: Invalid enum value 'top'"),
    (HEAD + '[[rules]]\nstate = "idle"\nregion = "bare"', "rules[1].region: `bare` needs `input.composer`"),
    (HEAD + 'name = "y"', "`name` is 'y'"),
]


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Profiles]:
    """Give a directory with each of the mistakes in a profile of its own, x0, x1 and so on."""
    place = tmp_path_factory.mktemp("mistaken")
    for number, (text, _) in enumerate(MISTAKES):
        (place / f"x{number}.toml").write_text(text)
    return place, Profiles.load(str(place))


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[message[:60] for _, message in MISTAKES])
def test_a_mistake_is_one_line_with_file_and_key(mistaken: tuple[Path, Profiles], number: int) -> None:
    place, profiles = mistaken
    path, message = place / f"x{number}.toml", MISTAKES[number][1]
    with pytest.raises(InvalidValue) as caught:
        profiles.get(path.stem)
    assert re.sub(r"^(.*?\.toml), line \d+: ", r"\1: ", caught.value.message) == f"{path}: {message}"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "data"), [("x.toml", b"a = ["), ("x.toml", b"\xff"), ("Bad.toml", b""), ("all.toml", b"")]
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    profiles = Profiles.load(str(tmp_path))
    assert profiles.names() == OURS
    (row,) = [row for row in profiles.rows() if row["error"]]
    assert row["origin"] == str(tmp_path / name)
    assert row["origin"] in row["error"]
    assert "\n" not in row["error"]


@pytest.mark.parametrize(
    "pattern", ["(a+)+", "(?:a*b)*", "(?:x|(?:y+))+z", "(?:(?=a+)b)*", "(?:a{1,50}){2,60}", "x" * 1001]
)
def test_a_pattern_that_could_run_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidValue):
        read_profile("x", f"{HEAD}[[rules]]\nstate = 'idle'\nscreen = '{pattern}'", "x.toml")


@pytest.mark.parametrize(
    "pattern", [r"^\$$", "(?:ab)+c", r"[a-z]{1,5}(?:\.\d{1,3}){3}", r"^.*?\$ +\S", "(?:a{1,9}){1,9}"]
)
def test_an_ordinary_pattern_is_taken(pattern: str) -> None:
    profile = read_profile("x", f"{HEAD}[[rules]]\nstate = 'idle'\nscreen = '{pattern}'", "x.toml")
    assert profile.rules[0].screen is not None


LINES = """# a profile
command = "x"
doc = 'has [input] in it'

[input]  # how it is typed into
envelope = "header"

[[rules]]
state = "idle"

[[ rules ]]
# a remark: screen = "no"
state = "working"
"screen" = "("
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("command", 2),
        ("input.envelope", 6),
        ("input.colour", 5),
        ("rules[0].state", 9),
        ("rules[1].state", 13),
        ("rules[1].screen", 14),
        ("rules[1]", 11),
        ("input", 5),
        ("rules[7].state", None),
        ("answers.allow[2]", None),
        ("colour", None),
    ],
)
def test_the_line_of_a_key(key: str, line: int | None) -> None:
    assert line_of(LINES, key) == line


def test_a_bad_rule_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(LINES)
    with pytest.raises(InvalidValue) as caught:
        Profiles.load(str(tmp_path)).get("x")
    assert caught.value.message.startswith(f"{tmp_path}/x.toml, line 14: rules[2].screen: the pattern '(' is not valid")


def test_a_bad_file_stands_in_nobodys_way_and_is_not_replaced_by_ours(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text(HEAD)
    (tmp_path / "shell.toml").write_text("command = ")
    profiles = Profiles.load(str(tmp_path))
    assert profiles.get("good").command == "x"
    assert "shell" not in profiles.names()
    with pytest.raises(InvalidValue, match=r"shell\.toml is not TOML"):
        profiles.get("shell")
    assert profiles.get("sh").command == "sh"


def test_reading_again_keeps_what_a_bad_file_said_before(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD)
    profiles = Profiles.load(str(tmp_path))
    path.write_text("command = 3")
    (tmp_path / "shell.toml").write_text("nonsense")
    profiles.shelf = profiles.read(())
    assert profiles.get("mine").command == "x"
    assert profiles.problem("mine") is not None
    assert profiles.origin("shell") == "built-in"  # it was in force until now
    path.write_text('command = "y"')
    profiles.shelf = profiles.read(())
    assert (profiles.get("mine").command, profiles.problem("mine")) == ("y", None)
    path.unlink()
    profiles.shelf = profiles.read(())
    with pytest.raises(NotFound):
        profiles.get("mine")


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "dir.toml").mkdir()
    (tmp_path / "nothing.toml").symlink_to(tmp_path / "gone")
    (tmp_path / "huge.toml").touch()
    os.truncate(tmp_path / "huge.toml", 1 << 40)
    profiles = Profiles.load(str(tmp_path))
    assert {Path(row["origin"]).stem for row in profiles.rows() if row["error"]} == {"pipe", "dir", "nothing", "huge"}


def of_project(name: str, origin: str = "/p/agentd.toml", command: str = "theirs") -> ProjectProfile:
    return ProjectProfile(read_profile(name, f'command = "{command}"', origin), origin)


def test_a_projects_profile_comes_after_ours_the_users_and_those_of_projects_before_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(HEAD)
    (tmp_path / "bad.toml").write_text("nonsense")
    found = [of_project(name) for name in ("shell", "mine", "bad", "extra")]
    profiles = Profiles.load(str(tmp_path), [*found, of_project("extra", "/q/agentd.toml", "later")])
    assert profiles.get("extra").command == "theirs"
    assert profiles.origin("extra") == "/p/agentd.toml"
    assert "extra" in {row["name"] for row in profiles.rows()}
    assert (profiles.origin("shell"), profiles.origin("mine")) == ("built-in", str(tmp_path / "mine.toml"))
    with pytest.raises(InvalidValue, match="is not TOML"):  # what the user meant by that name is not known
        profiles.get("bad")
    assert [profiles.lost_to(name, "/p/agentd.toml") for name in ("shell", "mine", "bad", "extra", "free")] == [
        "the built-in profile has that name",
        f"your own has that name: {tmp_path}/mine.toml",
        f"your own has that name: {tmp_path}/bad.toml",
        "",
        "",
    ]
    assert profiles.lost_to("extra", "/q/agentd.toml") == "/p/agentd.toml was trusted first"
    assert Profiles.load(str(tmp_path)).names() == [
        *OURS[: OURS.index("opencode")],
        "mine",
        *OURS[OURS.index("opencode") :],
    ]


def test_a_bad_file_of_the_user_keeps_no_projects_profile_in_force(tmp_path: Path) -> None:
    profiles = Profiles.load(str(tmp_path), [of_project("extra")])
    (tmp_path / "extra.toml").write_text("nonsense")
    profiles.shelf = profiles.read([of_project("extra")])
    assert "extra" not in profiles.names()
    profiles.shelf = profiles.read([])
    assert "extra" not in profiles.names()


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 5000, "a = " + "9" * 5000, 'command = "x"\n[[rules]]\nstate="idle"\nscreen="a{99999999999}"'],
)
def test_what_python_itself_cannot_read_is_one_sentence_too(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_profile("mine", text, "mine.toml")
    assert caught.value.message.isprintable()
