"""A project's file: found, read once, and either understood or refused with one sentence; trusted byte by byte."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentd.agents.profile import Profile, read_profile
from agentd.agents.project import MAX_SETUP_S, Project, one_line, parse
from agentd.agents.project_file import MAX_BYTES, ProjectFile, find, read
from agentd.agents.projects import Projects, Standing
from agentd.agents.registry import Registry
from agentd.errors import Conflict, InvalidValue, NotFound

FULL = """
[worktree]
setup = "npm ci && make"
setup_timeout_s = 60
setup_once = true
[profiles.reviewer]
command = "claude"
args = ["--model", "small"]
[profiles.reviewer.env]
MODE = "review"
[[profiles.reviewer.rules]]
state = "idle"
screen = '^> $'
[[pool]]
profile = "claude"
size = 2
most = 4
worktree = true
[[pool]]
profile = "shell"
size = 1
cwd = "sub"
[team]
name = "crew"
[[agents]]
name = "lead"
profile = "demo"
cwd = "sub"
"""
_RULE = "[profiles.x]\ncommand = 'x'\n[[profiles.x.rules]]\nstate = 'idle'\nscreen = '{}'"
_FILE = "[profiles.x]\ncommand = 'x'\n[[profiles.x.files]]\nname = '{}'\ntext = ''"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    place = tmp_path / "home" / "project"
    (place / "sub" / "deep").mkdir(parents=True)
    return place


def project(top: Path, text: str) -> Project:
    (top / "agentd.toml").write_text(text)
    return parse(read(str(top / "agentd.toml")))


def toml_of(text: str, name: str) -> str:
    """Return the lines of a profile in a project's file as they would stand in a file of its own."""
    lines = text[text.index(f"[profiles.{name}]") :].partition("\n[[pool]]")[0]
    return lines.partition("\n")[2].replace(f"profiles.{name}.", "")


def refused(top: Path, text: str) -> str:
    with pytest.raises(InvalidValue) as caught:
        project(top, text)
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(f"{top}/agentd.toml: ")
    assert caught.value.hint
    return caught.value.message.removeprefix(f"{top}/agentd.toml: ")


# -- what stands in it


def test_everything_that_may_stand_in_it(top: Path):
    found = project(top, FULL)
    assert found.setup is not None
    assert (found.setup.words, found.setup.timeout_s, found.setup.once) == (
        ("/bin/sh", "-c", "npm ci && make"),
        60.0,
        True,
    )
    assert [(pool.profile, pool.cwd, pool.size, pool.most, pool.worktree) for pool in found.pools] == [
        ("claude", str(top), 2, 4, True),
        ("shell", str(top / "sub"), 1, None, False),
    ]
    (reviewer,) = found.profiles
    assert (reviewer.name, reviewer.argv(), dict(reviewer.env)) == (
        "reviewer",
        ["claude", "--model", "small"],
        {"MODE": "review"},
    )
    assert reviewer == read_profile("reviewer", toml_of(FULL, "reviewer"), "its own file")
    assert found.team is not None
    assert [(place.name, place.cwd) for place in found.team.places] == [("lead", str(top / "sub"))]


def test_a_list_of_words_is_run_without_a_shell_and_nothing_is_nothing(top: Path):
    listed = project(top, '[worktree]\nsetup = ["npm", "ci"]').setup
    assert listed is not None
    assert (listed.words, listed.timeout_s, listed.once) == (("npm", "ci"), 600.0, False)
    assert project(top, "") == Project(ProjectFile(f"{top}/agentd.toml", b""), None, [], [], None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[worktree", "not TOML"),
        ("[profile.x]", "`profile` is unknown; it has [worktree], [profiles.NAME], [[pool]], [team], [[agents]]"),
        ("profiles = 3", "`profiles` is no table; write [profiles.NAME]"),
        ("[[profiles]]\ncommand = 'x'", "`profiles` is no table; write [profiles.NAME]"),
        ("[profiles]\nx = 3", "`profiles.x` is no table; write [profiles.x]"),
        ("[profiles.x]", "[profiles.x], line 1: missing required field `command`"),
        ("[profiles.X]\ncommand = 'x'", "[profiles]: 'X' is not a valid name"),
        ('[profiles."a\\nb"]\ncommand = "x"', "[profiles]: 'a\\nb' is not a valid name"),
        ("[profiles.all]\ncommand = 'x'", "[profiles]: 'all' is not a valid name: it is reserved"),
        ("[profiles.x]\ncommand = 3", "[profiles.x], line 2: command: Expected `str`, got `int`"),
        ("[profiles.x]\ncommand = 'x'\nname = 'y'", "[profiles.x]: `name` is 'y'"),
        ("[profiles.x]\ncommand = 'x'\nhooks = 1", "[profiles.x], line 3: there is no key `hooks`"),
        ("[profiles.x]\ncommand = 'x'\n[profiles.x.boot]\nsettle_ms = -1", "[profiles.x], line 4: boot.settle_ms"),
        (_RULE.format("("), "[profiles.x], line 5: rules[1].screen: the pattern '(' is not valid"),
        (_RULE.format("a{99999999999}"), "the pattern 'a{99999999999}' is not valid"),
        (_RULE.format("(" * 480 + ")" * 480), "has too many groups within groups"),
        (_FILE.format("../token"), "[profiles.x], line 4: files[1].name"),
        (_FILE.format("/etc/passwd"), "files[1].name"),
        (_FILE.format("a/../../b"), "files[1].name"),
        (_FILE.format("Token"), "`Token` is a file of agentd's own"),
        (_FILE.format("identity.json"), "`identity.json` is a file of agentd's own"),
        ("worktree = 3", "`worktree` is no table"),
        ("[pool]\nsize = 1", "`pool` is no list of tables"),
        ("pool = [1]", "`pool` is no list of tables"),
        ("[worktree]\nsetpu = 'x'", "[worktree]: Object contains unknown field `setpu`"),
        ("[worktree]\nsetup = 3", "[worktree]: Expected `str | array | null`, got `int` - at `$.setup`"),
        ("[worktree]\nsetup = ['a', 3]", "$.setup[1]"),
        ("[worktree]\nsetup = ''", "`setup` is empty"),
        ("[worktree]\nsetup = '  '", "`setup` is empty"),
        ("[worktree]\nsetup = []", "`setup` is empty"),
        ("[worktree]\nsetup = ['']", "`setup` is empty"),
        ('[worktree]\nsetup = "a\\u0000b"', "NUL"),
        ("[worktree]\nsetup_timeout_s = 0", "$.setup_timeout_s"),
        ("[worktree]\nsetup_timeout_s = nan", "setup_timeout_s"),
        ("[worktree]\nsetup_timeout_s = inf", "$.setup_timeout_s"),
        ("[worktree]\nsetup_timeout_s = 2026-01-01", "$.setup_timeout_s"),
        ("[worktree]\nsetup_once = 1", "$.setup_once"),
        ("[[pool]]\nsize = 1", "[[pool]] number 1: Object missing required field `profile`"),
        ("[[pool]]\nprofile = 'a'\nsize = true", "$.size"),
        ("[[pool]]\nprofile = 'a'\nsize = 3\nmost = 2", "`most` is 2 and `size` is 3"),
        ("[[pool]]\nprofile = 'a'\nsize = 1\n" * 2, "number 2 is for the same place"),
        ("[[pool]]\nprofile = 'a'\nsize = 1\ncwd = '..'", "not below"),
        ("[[pool]]\nprofile = 'a'\nsize = 1\ncwd = '/'", "not below"),
        ('[[pool]]\nprofile = "a"\nsize = 1\ncwd = "a\\u0000"', "NUL"),
        ("[team]\nname = 'crew'", "go together"),
        ("[[agents]]\nname = 'a'\nprofile = 'b'", "go together"),
        ("[team]\nname = 'crew'\ncwd = '..'\n[[agents]]\nname = 'a'\nprofile = 'b'", "[team]: `cwd`"),
        ("[team]\nname = 'crew'\n[[agents]]\nname = 'a'\nprofile = 'b'\ncwd = '/'", "[[agents]] `a`: `cwd`"),
        ("[team]\nname = 'crew'\n[[agents]]\nname = 'a'\nprofile = 'b'\nsize = 1", "[[agents]] number 1"),
        ("[team]\nname = 'A'\n[[agents]]\nname = 'a'\nprofile = 'b'", "not a valid name"),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("a = " + "9" * 5000, "not TOML"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_file_the_table_and_the_key(top: Path, text: str, says: str):
    assert says in refused(top, text)


def test_a_directory_that_a_link_leads_out_of_the_project_is_refused(top: Path, tmp_path: Path):
    (top / "out").symlink_to(tmp_path)
    assert "not below" in refused(top, "[[pool]]\nprofile = 'a'\nsize = 1\ncwd = 'out'")
    team = "[team]\nname = 'crew'\n[[agents]]\nname = 'a'\nprofile = 'b'\ncwd = 'out'"
    assert "not below" in refused(top, team)


def test_a_key_that_would_take_minutes_to_read_is_refused_at_once(top: Path):
    begun_s = time.perf_counter()
    assert "dots" in refused(top, "a." * 100_000 + "a = 1")
    assert time.perf_counter() - begun_s < 1.0


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
_keys = st.sampled_from(
    ["setup", "setup_timeout_s", "setup_once", "profile", "size", "most", "worktree", "cwd", "name", "role", "env", "x"]
)
_heads = st.sampled_from(
    [
        "[worktree]",
        "[profiles]",
        "[[profiles]]",
        "[[pool]]",
        "[team]",
        "[[agents]]",
        "[x]",
        "[worktree.y]",
        "[pool]",
        "[[team]]",
    ]
)


def _toml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    return repr(value)


_tables = st.lists(st.tuples(_heads, st.dictionaries(_keys, _values, max_size=4)), max_size=4).map(
    lambda rows: "\n".join("\n".join([head, *(f"{k} = {_toml(v)}" for k, v in keys.items())]) for head, keys in rows)
)


def outcome(content: bytes) -> Project | InvalidValue:
    try:
        return parse(ProjectFile("/p/agentd.toml", content))
    except InvalidValue as error:
        return error


@settings(deadline=None, max_examples=300)
@given(st.one_of(_tables.map(lambda text: text.encode(errors="surrogatepass")), st.binary(max_size=200)))
@example(FULL.encode())
@example(b"\xff")
def test_any_bytes_are_a_project_or_one_sentence(content: bytes):
    found = outcome(content)
    if isinstance(found, InvalidValue):
        assert found.message.startswith("/p/agentd.toml: ")
        assert found.message.isprintable()
        return
    assert found.setup is None or (found.setup.words and 0.1 <= found.setup.timeout_s <= MAX_SETUP_S)
    assert all(Path(pool.cwd).is_relative_to("/p") for pool in found.pools)
    assert all(Path(place.cwd).is_relative_to("/p") for place in (found.team.places if found.team else ()))


@settings(deadline=None)
@given(st.text())
@example("npm ci\x1b[2K\u202e\nrm")
def test_what_is_shown_hides_nothing(text: str):
    assert one_line(text).isprintable()
    assert one_line(text) == text or not text.isprintable()


_INNER = ("name", "text", "screen", "state", "composer", "policy", "keys", "events", "args", "env")
# Keys and values that are near to what a profile may say: most are refused, by one sentence each.
_texts = st.text(max_size=12) | st.sampled_from(
    ["(", "a{2}", "(?P<text>.*)", "(a+)+", "x" * 5000, "../x", "token", "C-c"]
)
_near = st.recursive(
    _values | _texts | st.sampled_from(["idle", "type", "header", "never", "allow"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*Profile.__struct_fields__, *_INNER]) | st.text(max_size=5), inner, max_size=4
        )
    ),
    max_leaves=12,
)
_profiles = st.dictionaries(st.sampled_from([*Profile.__struct_fields__, "x"]), _near, max_size=5).map(
    lambda table: {"command": "x"} | table
)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_inline(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(_inline, value)) + "]" if isinstance(value, list) else _toml(value)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of re, about patterns whose meaning may change
@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(["a", "b-1"]) | st.text(max_size=6), _profiles | _near, max_size=3))
@example({"a": {"command": "x", "files": [{"name": "identity.json", "text": ""}]}})
@example({"a": {"command": "x", "rules": [{"state": "idle", "screen": "((" * 240 + "))" * 240}]}})
def test_any_table_is_a_profile_or_one_sentence(profiles: dict[str, Any]):
    found = outcome(f"profiles = {_inline(profiles)}".encode(errors="surrogatepass"))
    if isinstance(found, InvalidValue):
        assert found.message.startswith("/p/agentd.toml: ")
        assert found.message.isprintable()
        return
    assert [profile.name for profile in found.profiles] == list(profiles)
    for file in (file for profile in found.profiles for file in profile.files):
        assert Path(os.path.normpath(Path("/private", file.name))).is_relative_to("/private")


# -- where it is


def test_the_nearest_is_found_from_below_and_none_in_the_home_or_above(top: Path, tmp_path: Path):
    home = tmp_path / "home"
    for place in (tmp_path, home):
        (place / "agentd.toml").write_text("")
    assert find(str(top / "sub"), str(home)) is None
    (top / "agentd.toml").write_text("")
    assert find(str(top / "sub" / "deep"), str(home)) == f"{top}/agentd.toml"
    (top / "sub" / "agentd.toml").write_text("")
    assert find(str(top / "sub" / "deep"), str(home)) == f"{top}/sub/agentd.toml"
    assert find(str(top), str(home)) == f"{top}/agentd.toml"
    assert find(str(home), str(home)) is None
    assert find(str(tmp_path), str(home)) == f"{tmp_path}/agentd.toml"


def test_a_directory_is_known_by_its_real_path(top: Path, tmp_path: Path):
    (top / "agentd.toml").write_text("")
    (tmp_path / "alias").symlink_to(top / "sub")
    assert find(str(tmp_path / "alias"), str(tmp_path / "home")) == f"{top}/agentd.toml"


def test_a_link_is_followed_only_within_its_directory(top: Path, tmp_path: Path):
    (tmp_path / "other.toml").write_text("")
    (top / "sub" / "real.toml").write_text("# real\n")
    for target in (tmp_path / "other.toml", Path("../../other.toml"), Path("/dev/zero")):
        (top / "agentd.toml").symlink_to(target)
        with pytest.raises(InvalidValue, match="leads out of its directory"):
            read(str(top / "agentd.toml"))
        (top / "agentd.toml").unlink()
    (top / "agentd.toml").symlink_to("sub/real.toml")
    assert read(str(top / "agentd.toml")) == ProjectFile(f"{top}/agentd.toml", b"# real\n")


@pytest.mark.parametrize("kind", ["directory", "pipe", "gone", "dangling", "loop"])
def test_what_is_no_regular_file_is_refused_without_waiting(top: Path, kind: str):
    place = top / "agentd.toml"
    {
        "directory": place.mkdir,
        "pipe": lambda: os.mkfifo(place),
        "gone": lambda: None,
        "dangling": lambda: place.symlink_to("nothing"),
        "loop": lambda: place.symlink_to("agentd.toml"),
    }[kind]()
    with pytest.raises(InvalidValue, match="regular file" if kind in ("directory", "pipe") else "cannot be read"):
        read(str(place))


def test_the_largest_is_taken_and_one_byte_more_is_not(top: Path):
    place = top / "agentd.toml"
    place.write_bytes(b"#" * MAX_BYTES)
    assert parse(read(str(place))).setup is None
    place.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InvalidValue, match="larger"):
        read(str(place))


# -- trust


@pytest.mark.anyio
async def test_it_is_trusted_by_path_and_by_every_byte_across_a_restart(top: Path, tmp_path: Path):
    path = str(tmp_path / "registry.db")
    registry = await Registry.open(path)
    projects, place = Projects(registry, str(tmp_path / "home")), top / "agentd.toml"
    place.write_text("[worktree]\nsetup = 'true'\n")
    seen = await projects.look(str(top / "sub"))
    assert seen.standing is Standing.NOT_TRUSTED
    assert (await projects.fitting(str(top))).setup is None
    assert "is not trusted, its setup command is not run" in (await projects.fitting(str(top))).notice
    await projects.trust(str(top), seen.project.file.digest)
    await registry.close()

    registry = await Registry.open(path)
    projects = Projects(registry, str(tmp_path / "home"))
    assert (await projects.fitting(str(top / "sub"))).setup == seen.project.setup
    assert (await projects.fitting(str(top))).notice == ""
    (top / "sub" / "agentd.toml").write_bytes(place.read_bytes())  # the same bytes elsewhere
    assert (await projects.fitting(str(top / "sub"))).setup is None
    place.write_text("[worktree]\nsetup = 'true'\n\n")
    assert (await projects.look(str(top))).standing is Standing.CHANGED
    assert (await projects.fitting(str(top))).setup is None
    assert "has changed since it was trusted" in (await projects.fitting(str(top))).notice
    place.write_text("[worktree]\nsetup = 'true'\n")
    assert (await projects.fitting(str(top))).setup == seen.project.setup
    await registry.close()


@pytest.mark.anyio
async def test_only_what_was_shown_is_trusted_and_trust_is_withdrawn_also_of_a_file_that_is_gone(
    top: Path, tmp_path: Path
):
    registry = await Registry.open(str(tmp_path / "registry.db"))
    projects, place = Projects(registry, str(tmp_path / "home")), top / "agentd.toml"
    for asked in (projects.look, projects.untrust):
        with pytest.raises(NotFound):
            await asked(str(top))
    place.write_text("# shown\n")
    digest = (await projects.look(str(top))).project.file.digest
    place.write_text("# other\n")
    with pytest.raises(Conflict, match="nothing was trusted"):
        await projects.trust(str(top), digest)
    assert await registry.trusted() == {}
    place.write_text("# shown\n")
    await projects.trust(str(top), digest)
    assert await registry.trusted() == {str(place): digest}
    place.unlink()
    assert await projects.untrust(str(top / "sub")) == str(place)
    assert await registry.trusted() == {}
    await registry.close()


@pytest.mark.anyio
async def test_a_file_that_says_nothing_is_told_and_one_without_a_setup_is_not(top: Path, tmp_path: Path):
    registry = await Registry.open(str(tmp_path / "registry.db"))
    projects = Projects(registry, str(tmp_path / "home"))
    assert (await projects.fitting(str(top))).notice == ""
    (top / "agentd.toml").write_text("[[pool]]\nprofile = 'a'\nsize = 1\n")
    assert (await projects.fitting(str(top))).notice == ""
    (top / "agentd.toml").write_text("[nonsense]")
    assert "`nonsense` is unknown" in (await projects.fitting(str(top))).notice
    assert (await projects.fitting(str(top))).setup is None
    await registry.close()


PROFILES = '[profiles.extra]\ncommand = "x"\nargs = ["{}"]\n'


@pytest.mark.anyio
async def test_profiles_are_those_of_trusted_files_that_have_not_changed_the_first_trusted_first(
    top: Path, tmp_path: Path
):
    registry = await Registry.open(str(tmp_path / "registry.db"))
    projects, other = Projects(registry, str(tmp_path / "home")), top.parent / "other"
    other.mkdir()
    for place in (top, other):
        (place / "agentd.toml").write_text(PROFILES.format(place.name))

    async def trust(place: Path) -> None:
        await projects.trust(str(place), (await projects.look(str(place))).project.file.digest)

    async def found() -> list[tuple[str, str]]:
        return [(each.profile.args[0], each.origin) for each in (await projects.trusted()).profiles]

    mine, theirs = ("project", f"{top}/agentd.toml"), ("other", f"{other}/agentd.toml")
    assert await found() == []
    await trust(top)
    await trust(other)
    assert await found() == [mine, theirs]
    await trust(top)  # again, as it is
    assert await found() == [mine, theirs]
    (top / "agentd.toml").write_text(PROFILES.format("changed"))
    assert await found() == [theirs]
    assert (await projects.trusted()).paths == (mine[1], theirs[1]), "it may be as it was again"
    await trust(top)
    assert await found() == [theirs, ("changed", mine[1])]
    (other / "agentd.toml").unlink()
    assert await found() == [("changed", mine[1])]
    await projects.untrust(str(top))
    assert await found() == []
    await registry.close()
