"""Profiles: how to start one kind of agent, how to read its screen and how to type into it. Data, never code."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agentd.agents.patterns import compile_pattern
from agentd.agents.profile_files import AGAIN, BUILT_IN, ProfileFile, built_in, users
from agentd.agents.toml_lines import line_of
from agentd.agents.toml_tables import tables_of
from agentd.errors import InvalidValue, NotFound

QUIET_S = 2.0  # agents.md §1: at work no program measured was silent for more than 0.5 s, on a loaded machine
PYTHON = "{python}"  # in a command's words: the interpreter that runs agentd
SESSION = "{session}"  # in the words that resume: the id of the program's session
DAEMONS_OWN = frozenset({"token", "identity.json", "last-screen.txt"})  # in an agent's private directory

_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")  # it becomes a word of a command line: never an option

Pattern = re.Pattern[str]
Words = tuple[Annotated[str, Meta(max_length=4096)], ...]
Keys = tuple[Annotated[str, Meta(min_length=1, max_length=32)], ...]
Millis = Annotated[int, Meta(ge=0, le=60_000)]
Seconds = Annotated[float, Meta(ge=0, le=3600)]
WaitsFor = Literal["permission", "question", "login", "rate_limit", "trust", "error"]
# What an event of the program says: it is ready, a prompt was submitted, it works, it asks, it ended a turn, it failed
# one, it ends. `tool`: it works, and is between two steps of a turn. `ignore`: known, and says nothing of the state.
Means = Literal[
    "ready",
    "submitted",
    "working",
    "tool",
    "permission",
    "question",
    "login",
    "rate_limit",
    "trust",
    "done",
    "error",
    "ended",
    "ignore",
]
# How a hook's answer brings a text: beside what the agent reads next, or as the reason not to end the turn.
Shape = Literal["context", "block"]
EventName = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}(:[A-Za-z0-9_.-]{1,64})?$(?!\n)")]
EnvName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)")]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of a profile: a key nobody knows is an error, not a silence."""


def _check_group(key: str, pattern: Pattern | None, group: str) -> None:
    """Raise ValueError for a key's pattern that lacks the group it is read by."""
    if pattern is not None and group not in pattern.groupindex:
        raise ValueError(f"`{key}` needs a group (?P<{group}>...)")


def _last(pattern: Pattern | None, group: str, screen: str) -> str:
    """Return what the group of the last match on a screen holds; empty when nothing matches."""
    found = [match[group] for match in pattern.finditer(screen)] if pattern else []
    return (found[-1] or "") if found else ""


class Rule(_Table, frozen=True, rename={"unless": "not"}):
    """One line of the state rules: every condition given must hold; the first rule that matches decides."""

    state: Literal["starting", "idle", "working", "waiting", "draft"]  # draft: idle, but a half-typed text stands there
    waits_for: WaitsFor | None = None  # what a waiting agent wants of a person
    region: Literal["bottom", "above", "below", "bare"] = "bottom"  # bare: bottom of a screen without a composer
    screen: Pattern | None = None  # searched for in the last lines of the region
    unless: Pattern | None = None  # `not`: must not be found in them
    title: Pattern | None = None  # searched for in the pane's title
    command: Words = ()  # names of the foreground program; one that is not known holds
    tail: Annotated[int, Meta(ge=1, le=200)] = 12  # how many of the last lines that are not blank
    reason: str = ""
    composer: bool = True  # false: what looks like a composer on such a screen is none


class Boot(_Table, frozen=True):
    """When the program counts as ready, and what it takes of the machine until then."""

    timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    settle_ms: Millis = 300  # it must look idle this long
    cores: Annotated[float, Meta(ge=0, le=1024)] = 1.0  # that it keeps busy until then; 0 with no memory: never waits
    memory_mb: Annotated[int, Meta(ge=0, le=1_000_000)] = 200  # that it has taken by then


class Preface(_Table, frozen=True):
    """Words of ours before a long text, in a paste of their own.

    For a program that tells its model of a long paste that its user may not have written what it says.
    """

    text: Annotated[str, Meta(min_length=1, max_length=400)]
    over_lines: Annotated[int, Meta(ge=1)] = 3  # a text of more lines than this
    over_chars: Annotated[int, Meta(ge=1)] = 800  # or of more characters

    def __post_init__(self) -> None:
        if not self.text.isprintable():
            raise ValueError("`text` must be one line without control characters")

    def belongs_before(self, text: str) -> bool:
        """Tell whether the program would fold this text."""
        return len(text) > self.over_chars or text.count("\n") >= self.over_lines


class Input(_Table, frozen=True):
    """How text is typed into the program."""

    envelope: Literal["none", "header"] = "header"  # none: the body itself, one message at a time
    bracketed: bool = True  # it takes pastes between brackets, newlines and all
    multiline: bool = True  # a text of several lines may be typed
    max_inline_bytes: Annotated[int, Meta(ge=100, le=60_000)] = 16_000  # beyond: a pointer to the message
    enter_delay_ms: Millis = 0
    quiet_ms: Millis | None = None  # silence before an idle screen is believed; if not said: 2000 with signals, else 0
    clear_keys: Keys = ("C-u",)
    submit_key: Annotated[str, Meta(min_length=1, max_length=32)] = "Enter"
    interrupt_keys: Keys = ("C-c",)
    composer: Pattern | None = None  # its group `text` is what stands in the composer
    composer_tail: Annotated[int, Meta(ge=1, le=200)] = 12  # lines it is looked for in
    frame: Annotated[str, Meta(max_length=8)] = ""  # characters its lines begin with: drawn, not typed
    hint: Pattern | None = None  # what stands in an empty one
    faint: bool = False  # what is drawn dim or grey in it is a hint, too; costs a capture with colours
    placeholder: Pattern | None = None  # what a long paste is shown as
    preface: Preface | None = None
    defuse: Pattern | None = None  # what it acts on inside a text, as `@file`; a backslash is put before each
    verify: bool = True  # the text is seen in the composer before Enter

    def __post_init__(self) -> None:
        _check_group("composer", self.composer, "text")
        if self.multiline and not self.bracketed:
            raise ValueError("`multiline` needs `bracketed`: elsewhere every line would be entered by itself")


class Signals(_Table, frozen=True):
    """What the program itself says of its state, which counts more than its screen."""

    osc: Literal["none", "free", "shim"] = "none"  # OSC 7501: never, unasked, or to a terminal that says it knows it
    notices: bool = False  # its bell, OSC 9 and OSC 777 are told as events `agent.notified`
    events: dict[EventName, Means] = {}  # by an event of its hooks: `Stop`, or more exactly `StopFailure:rate_limit`
    carries: dict[EventName, Shape] = {}  # the events whose answer can bring messages

    @property
    def heard(self) -> bool:
        """Tell whether its output is listened to."""
        return self.osc != "none" or self.notices


class SeedFile(_Table, frozen=True):
    """A file in the agent's private directory, written before its program starts.

    `{private}` (that directory), `{cwd}`, `{agentd}` (the program that is agentd, here as one word of a shell's command
    line), `{python}` and `{socket}` are filled in, here as in `args` and `env`.
    """

    name: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}){0,3}$(?!\n)")
    ]
    text: Annotated[str, Meta(max_length=65_536)]

    def __post_init__(self) -> None:
        # Some file systems take `Token` for `token`.
        if self.name.partition("/")[0].casefold() in DAEMONS_OWN:
            raise ValueError(f"`{self.name}` is a file of agentd's own; choose another name")


class Trust(_Table, frozen=True):
    """What tells the program that its user trusts its directory, so that it does not ask; where it asks at all."""

    args: Words = ()  # after its other ones; `{cwd_quoted}` is the directory as a string of TOML
    env: dict[EnvName, str] = {}


class Resume(_Table, frozen=True):
    """How the program goes on with a session of its own after its end."""

    args: Words = ()  # after its other ones; `{session}` is the session's id
    screen: Pattern | None = None  # where the id stands on its last screen; its group `session`

    def __post_init__(self) -> None:
        _check_group("screen", self.screen, "session")

    def session_on(self, screen: str) -> str:
        """Return the session that a program's last screen names; empty when it names none."""
        found = _last(self.screen, "session", screen)
        return found if valid_session(found) else ""


class Usage(_Table, frozen=True):
    """Where the program shows what it has used: tokens, money, how full its context is."""

    screen: Pattern | None = None  # its group `usage`, as it stands there; the last one counts

    def __post_init__(self) -> None:
        _check_group("screen", self.screen, "usage")

    def shown_on(self, screen: str) -> str:
        """Return what a screen shows of it; empty when it shows nothing."""
        return _last(self.screen, "usage", screen).strip()


def valid_session(text: str) -> bool:
    """Tell whether a text can be the id of a program's session."""
    return _SESSION.fullmatch(text) is not None


class Answers(_Table, frozen=True):
    """What answers a permission prompt, and who may."""

    approve_keys: Keys = ()
    deny_keys: Keys = ()
    policy: Literal["never", "ask", "allow"] = "ask"  # never: deny at once; allow: approve what `allow` matches
    allow: tuple[Pattern, ...] = ()  # each must match all of what is asked
    asks: Pattern | None = None  # where that stands on the screen when no hook tells it; its group `asks`

    def __post_init__(self) -> None:
        _check_group("asks", self.asks, "asks")
        if self.policy == "never" and not self.deny_keys:
            raise ValueError("`policy` is never, and there are no `deny_keys`")
        if self.policy == "allow" and not (self.approve_keys and self.allow):
            raise ValueError("`policy` is allow, which needs `approve_keys` and `allow`")


class Stop(_Table, frozen=True):
    """How the program is asked to end."""

    text: str = ""
    keys: Keys = ()
    timeout_s: Seconds = 5.0


class Recycle(_Table, frozen=True):
    """How the program forgets its session, so that it can be somebody else's."""

    text: Annotated[str, Meta(min_length=1, max_length=400)]  # typed and entered, as its command for a new session
    expect: Pattern  # found on the screen once it has forgotten: what only a fresh session shows
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 10.0


class Profile(_Table, frozen=True):
    """One kind of agent."""

    name: str
    command: Annotated[str, Meta(min_length=1, max_length=4096)]
    doc: str = ""
    install: str = ""  # the command that gets the program, told to whoever does not have it
    version: str = ""  # of the program that the rules were written for
    args: Words = ()
    env: dict[EnvName, str] = {}
    delivery: Literal["type", "pull", "both"] = "type"
    acks: bool = False  # the program itself says when it has dealt with a message
    on_lost: Literal["fail", "respawn"] = "fail"  # when its tmux server crashed
    on_crash: Literal["fail", "respawn"] = "fail"  # when it ended by itself with an error or a signal
    boot: Boot = Boot()
    input: Input = Input()
    signals: Signals = Signals()
    files: tuple[SeedFile, ...] = ()
    trust: Trust = Trust()
    resume: Resume = Resume()
    usage: Usage = Usage()
    answers: Answers = Answers()
    stop: Stop = Stop()
    recycle: Recycle | None = None  # None: its program always ends with its agent
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        for number, rule in enumerate(self.rules, 1):
            if rule.region != "bottom" and self.input.composer is None:
                raise ValueError(f"rules[{number}].region: `{rule.region}` needs `input.composer`")

    def argv(self) -> list[str]:
        """Return the command's words."""
        return [word.replace(PYTHON, sys.executable) for word in (self.command, *self.args)]

    @property
    def tells(self) -> bool:
        """Tell whether the program says anything of its own state."""
        return self.signals.osc != "none" or any(means != "ignore" for means in self.signals.events.values())

    @property
    def quiet_s(self) -> float:
        """Return how long it must have printed nothing before its idle screen is believed."""
        if self.input.quiet_ms is not None:
            return self.input.quiet_ms / 1000
        return QUIET_S if self.tells else 0.0

    @property
    def batches(self) -> bool:
        """Tell whether several messages may stand in one paste."""
        return self.input.envelope == "header" and self.input.multiline

    def data(self) -> dict[str, Any]:
        """Return the profile as its file could say it."""
        values: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_pattern_text)
        return values


@dataclass(frozen=True, slots=True)
class Shelf:
    """Every profile that can be used, where each came from, and which files cannot; made whole, exchanged whole."""

    profiles: Mapping[str, Profile]
    origins: Mapping[str, str]
    refused: Mapping[str, InvalidValue]  # by the file's path


@dataclass(frozen=True, slots=True)
class ProjectProfile:
    """A profile of a trusted project file; `origin` is that file's path, fit to be shown."""

    profile: Profile
    origin: str


class Profiles:
    """Every profile there is, as its files said when they were last read."""

    def __init__(self, user_dir: str, shelf: Shelf) -> None:
        self.user_dir = user_dir
        self.shelf = shelf

    @classmethod
    def load(cls, user_dir: str, of_projects: Sequence[ProjectProfile] = ()) -> Profiles:
        """Return the profiles we ship and those in the user's directory, which win; a bad file is kept as such."""
        profiles = cls(user_dir, Shelf({}, {}, {}))
        profiles.shelf = profiles.read(of_projects)
        return profiles

    def read(self, of_projects: Sequence[ProjectProfile]) -> Shelf:
        """Return what the files say now; where one is bad, what was in force until now stays so.

        A project's profile comes after ours and the user's, bad ones too, and after those of projects before it.
        """
        before, refused = self.shelf, dict[str, InvalidValue]()
        profiles: dict[str, Profile] = {}
        origins: dict[str, str] = {}
        for file in [*built_in(), *users(self.user_dir)]:
            profiles.pop(file.name, None)  # a file that replaces ours and is bad must not bring ours back
            origins[file.name] = file.origin
            try:
                profiles[file.name] = _profile_of(file)
            except InvalidValue as error:
                if file.origin == BUILT_IN:
                    raise
                refused[file.origin] = error
                # Not a project's: it is in force for as long as its file is trusted.
                if file.name in before.profiles and before.origins[file.name] in (file.origin, BUILT_IN):
                    profiles[file.name], origins[file.name] = before.profiles[file.name], before.origins[file.name]
        for found in of_projects:
            if found.profile.name not in origins:
                profiles[found.profile.name], origins[found.profile.name] = found.profile, found.origin
        return Shelf(dict(sorted(profiles.items())), origins, refused)

    def names(self) -> list[str]:
        """Return the names in order."""
        return list(self.shelf.profiles)

    def get(self, name: str) -> Profile:
        """Return a profile; raises InvalidValue when its file is bad, NotFound naming those there are."""
        if name in self.shelf.profiles:
            return self.shelf.profiles[name]
        if error := self.problem(name):
            raise InvalidValue(error.message, hint=error.hint)
        raise NotFound(f"no profile is named {name!a}", hint=f"profiles: {', '.join(self.shelf.profiles)}")

    def origin(self, name: str) -> str:
        """Return the file a profile came from, or `built-in`."""
        return self.shelf.origins[self.get(name).name]

    def is_users(self, origin: str) -> bool:
        """Tell whether a profile came from a file in the user's directory."""
        return Path(origin).parent == Path(self.user_dir)

    def lost_to(self, name: str, origin: str) -> str:
        """Return in words who has the name of a project's profile; empty when it has it, or can have it."""
        holder = self.shelf.origins.get(name, origin)
        if holder == origin:
            return ""
        if holder == BUILT_IN:
            return "the built-in profile has that name"
        return f"your own has that name: {holder}" if self.is_users(holder) else f"{holder} was trusted first"

    def problem(self, name: str) -> InvalidValue | None:
        """Return what is wrong with the user's file of a profile, in force or not."""
        return next((error for path, error in self.shelf.refused.items() if Path(path).stem == name), None)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per profile and bad file: name, doc, version, origin, command, delivery, error."""
        unusable = [Path(path) for path in self.shelf.refused if Path(path).stem not in self.shelf.profiles]
        rows = [self._row(profile) for profile in self.shelf.profiles.values()]
        return rows + [self._row(Profile(name=path.stem, command=" "), str(path)) for path in unusable]

    def _row(self, profile: Profile, origin: str = "") -> dict[str, Any]:
        problem = self.problem(profile.name)
        return {
            "name": profile.name,
            "doc": profile.doc,
            "version": profile.version,
            "origin": origin or self.shelf.origins[profile.name],
            "command": [] if origin else [profile.command, *profile.args],
            "delivery": "" if origin else profile.delivery,
            "error": problem.message if problem else None,
        }


def stand_in(name: str, why: str) -> Profile:
    """Return the profile for an agent without one: it is watched and can be stopped, nothing is typed into it."""
    reason = f"its screen cannot be read: {why}"
    return Profile(name=name, command=PYTHON, delivery="pull", rules=(Rule(state="waiting", reason=reason),))


def _profile_of(file: ProfileFile) -> Profile:
    if file.error is not None:
        raise file.error
    return read_profile(file.name, file.text, file.origin)


def read_profile(name: str, text: str, origin: str) -> Profile:
    """Return the profile that a TOML text describes; raises InvalidValue naming the origin and the key."""
    where = origin if origin != BUILT_IN else f"built-in profile {name}"
    try:
        table = tables_of(text)
    except ValueError as error:
        raise InvalidValue(f"{where} is not TOML: {error}", hint=AGAIN) from None
    return make_profile(name, table, where, text)


def make_profile(name: str, table: Mapping[str, Any], where: str, text: str, above: str = "") -> Profile:
    """Return the profile that a table describes; raises InvalidValue naming the place, its line and the key.

    `above` is what stands before the table's keys in the text that it was read from.
    """
    if table.get("name", name) != name:
        raise InvalidValue(f"{where}: `name` is {table['name']!r:.60}", hint=f"leave it out: it is named {name}")
    try:
        return msgspec.convert({**table, "name": name}, Profile, dec_hook=_pattern)
    except msgspec.ValidationError as error:
        key, sentence = _finding(error)
        line = line_of(text, above + key)
        place = f"{where}, line {line}" if line else where
        raise InvalidValue(f"{place}: {sentence}", hint=AGAIN) from None


def _finding(error: msgspec.ValidationError) -> tuple[str, str]:
    """Return the key that is meant, and msgspec's finding with it, counted from 1: `rules[1].state: Invalid ...`."""
    what, _, path = str(error).partition(" - at `$")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL)
    what = what.replace("Object contains unknown field", "there is no key").replace("Object missing", "missing")
    key = path.strip("`.")
    counted = re.sub(r"\[(\d+)\]", lambda index: f"[{int(index[1]) + 1}]", key)
    sentence = f"{counted}: {what}" if key else what
    # A key may be any text; an error is one line.
    shown = sentence if sentence.isprintable() else ascii(sentence)[1:-1]
    return f"{key}.{unknown[1]}".lstrip(".") if unknown else key, shown


def _pattern(_kind: Any, value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError("Expected a regular expression")
    return compile_pattern(value)


def _pattern_text(value: Any) -> Any:
    return value.pattern
