"""Looking for damage: a shard is gone over in steps, each short enough to be taken between two commits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import apsw
import msgspec

from agentd.errors import InvalidValue, NotFound, StorageError
from agentd.mailbox import layout, schema
from agentd.mailbox.ids import text_of
from agentd.mailbox.keys import digest, get_meta
from agentd.mailbox.rows import COLUMNS, Row, envelope_of, intact, place_of
from agentd.mailbox.transaction import Transaction

STEP_ROWS: Final = 200
_ROW: Final = (
    f"SELECT {COLUMNS}, (SELECT count(*) FROM box b WHERE b.agent=message.agent AND b.seq=message.seq"  # noqa: S608
    " AND b.place IN (0, 1, 2, 3, 4, 5) AND b.exp IS message.exp AND b.size=length(message.body)"
    " AND b.sender=message.sender) FROM message WHERE seq=?"
)
_BOX: Final = (
    "SELECT b.agent, b.place, b.seq, b.state, m.prio, m.agent IS b.agent FROM box b"
    " LEFT JOIN m ON m.seq=b.seq WHERE (b.agent, b.place, b.seq) > (?, ?, ?)"
    " ORDER BY b.agent, b.place, b.seq LIMIT ?"
)
_KEYS: Final = (
    "SELECT k, CAST(m.sender AS BLOB), CAST(m.agent AS BLOB), m.body FROM idem{} i"
    " LEFT JOIN m ON m.seq=i.seq WHERE k>? ORDER BY k LIMIT ?"
)


@dataclass(slots=True)
class Checked:
    """What a step looked at and found; `cursor` is where to go on, None at the end of the shard."""

    cursor: str | None
    messages: int = 0
    damaged: list[str] = field(default_factory=list)  # messages whose bytes are not what was accepted
    misplaced: list[str] = field(default_factory=list)  # messages that box and table do not agree about
    wrong_keys: int = 0  # keys that stand for a message with another key

    def add(self, other: Checked) -> None:
        """Take in what a later step found."""
        self.cursor = other.cursor
        self.messages += other.messages
        self.damaged += other.damaged
        self.misplaced += other.misplaced
        self.wrong_keys += other.wrong_keys


@dataclass(frozen=True, slots=True)
class Verify:
    """Check a part of a shard."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = True
    cost: ClassVar[int] = STEP_ROWS
    cursor: str

    def run(self, tx: Transaction) -> Checked:
        """Return what was found; raises InvalidValue for a cursor that none of ours is."""
        return check(tx.connection, self.cursor)


def check(connection: apsw.Connection, cursor: str) -> Checked:
    """Check the part of a shard that a cursor stands for, the first one for an empty text."""
    step = _step_of(cursor or "messages:0")
    if step is None:
        raise InvalidValue(f"`{cursor[:80]}` is no cursor of an answer", hint="begin without one", field="cursor")
    try:
        return step(connection)
    except UnicodeDecodeError:
        raise StorageError(
            "the index of a shard holds a name that is no text",
            hint="stop the daemon and move the shard aside; it is rebuilt",
        ) from None


def _step_of(cursor: str) -> Callable[[apsw.Connection], Checked] | None:
    part, _, after = cursor.partition(":")
    try:
        if part == "messages":
            return partial(_check_messages, after=int(after))
        if part == "box":
            return partial(_check_box, after=msgspec.json.decode(after, type=tuple[str, int, int]))
        if part in ("keys0", "keys1"):
            return partial(_check_keys, generation=int(part[-1]), after=bytes.fromhex(after))
    except (ValueError, msgspec.MsgspecError):
        return None
    return None


def _check_messages(connection: apsw.Connection, after: int) -> Checked:
    filed = get_meta(connection, "filed", 0)
    found: list[Any] = connection.execute(
        "SELECT seq FROM m WHERE seq>? ORDER BY seq LIMIT ?", (after, STEP_ROWS)
    ).fetchall()
    if not found:
        return Checked('box:["", 0, 0]')
    checked = Checked(f"messages:{found[-1][0]}", len(found))
    for (seq,) in found:
        sound, filed_once = _look_at(connection, seq)
        if not sound:
            checked.damaged.append(text_of(seq))
        elif not filed_once and seq <= filed:
            checked.misplaced.append(text_of(seq))
    return checked


def _look_at(connection: apsw.Connection, seq: int) -> tuple[bool, bool]:
    """Tell whether a message is sound, and whether its entry in the box is."""
    try:
        *values, entries = connection.execute(_ROW, (seq,)).get
        return intact(Row._make(values)), entries == 1
    except (UnicodeDecodeError, TypeError):  # a text that is none, a number that is a text
        return False, False


def _check_box(connection: apsw.Connection, after: tuple[str, int, int]) -> Checked:
    found: list[Any] = connection.execute(_BOX, (*after, STEP_ROWS)).fetchall()
    if not found:
        return Checked("keys0:")
    checked = Checked(f"box:{json.dumps(found[-1][:3])}")
    checked.misplaced += [
        text_of(seq) for _, place, seq, state, prio, agrees in found if not agrees or place != place_of(state, prio)
    ]
    return checked


def _check_keys(connection: apsw.Connection, generation: int, after: bytes) -> Checked:
    found: list[Any] = connection.execute(_KEYS.format(generation), (after, STEP_ROWS)).fetchall()
    if not found:
        return Checked(None if generation else "keys1:")
    wrong = sum(not _right_key(*row) for row in found)
    return Checked(f"keys{generation}:{found[-1][0].hex()}", wrong_keys=wrong)


def _right_key(name: bytes, sender: bytes | None, agent: bytes, body: bytes) -> bool:
    """Tell whether a key's message, if it is still there, has that key."""
    if sender is None:
        return True
    try:
        return digest(sender.decode(), agent.decode(), envelope_of(body).key or "") == name
    except (UnicodeDecodeError, msgspec.DecodeError, TypeError):
        return True  # damaged, and named for that


# -- of a mailbox that nobody has open


@dataclass(frozen=True, slots=True)
class Verdict:
    """What there is to say about one shard."""

    shard: str
    checked: Checked
    structure: str  # "ok", or what SQLite has against the file


def verify(directory: Path, tell: Callable[[int], None]) -> list[Verdict]:
    """Check each shard of a mailbox and change nothing in it; raises NotFound, or StorageError when it is in use."""
    found = layout.read(directory)
    if found is None:
        raise NotFound(f"no mailbox at {directory}", hint="name the directory that holds its FORMAT")
    for path in found.paths(directory):
        schema.refuse_newer(path, layout.VERSION)
    if found.version < layout.VERSION:
        raise StorageError(f"{directory} is of an older version", hint="start the daemon once; it is upgraded then")
    return [_verdict(path, tell) for path in found.paths(directory)]


def _verdict(path: Path, tell: Callable[[int], None]) -> Verdict:
    if not path.exists():
        return Verdict(path.name, Checked(None), "the file is missing")
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    with closing(connection):
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            schema.check(connection, thorough=True)
            checked = _all(connection, tell)
        except (apsw.BusyError, apsw.CantOpenError) as error:
            raise StorageError(f"{path} cannot be read: {error}", hint="is a daemon running on it?") from None
        except (apsw.Error, schema.DamagedShard) as error:
            return Verdict(path.name, Checked(None), str(error))
    return Verdict(path.name, checked, "ok")


def _all(connection: apsw.Connection, tell: Callable[[int], None]) -> Checked:
    whole = Checked("")
    for step in _steps(connection):
        whole.add(step)
        tell(step.messages)
    return whole


def _steps(connection: apsw.Connection) -> Iterator[Checked]:
    cursor: str | None = ""
    while cursor is not None:
        step = check(connection, cursor)
        yield step
        cursor = step.cursor
