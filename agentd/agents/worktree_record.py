"""What is known of a worktree beside it, on disk before git is asked and until everything of it is gone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from agentd.agents.ids import id_of_session, session_name
from agentd.errors import InvalidValue, StorageError
from agentd.private import open_private, private_dir

_NAME_CHARS = 40
_UNCLEAN = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Record:
    """One worktree: `made` are the branches that are ours, `finished` tells whether it may hold anybody's work."""

    repo: str
    branch: str
    base: str
    made: tuple[str, ...] = ()
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Slot:
    """The places of one worktree: <root>/<repository>/<id> and what lies beside it."""

    home: str
    id: str

    @property
    def path(self) -> str:
        """Return the directory of the worktree."""
        return f"{self.home}/{self.id}"

    @property
    def going(self) -> str:
        """Return where the directory is while it is removed: a removal that was cut off is known by it."""
        return f"{self.path}.going"

    @property
    def log(self) -> str:
        """Return the file with the output of the setup command."""
        return f"{self.path}.log"

    @property
    def is_there(self) -> bool:
        """Tell whether the directory is there."""
        return Path(self.path).is_dir()

    @property
    def is_taken(self) -> bool:
        """Tell whether anything of a worktree is left."""
        return any(os.path.lexists(path) for path in (self.record, self.path, self.going))

    def leftovers(self) -> bool:
        """Tell whether there is anything in the directory but the file that points to its repository."""
        return self.is_there and any(not (e.name == ".git" and e.is_file()) for e in Path(self.path).iterdir())

    def scratch(self) -> str:
        """Return a fresh name for a copy of git's index."""
        return f"{self.path}.{secrets.token_hex(4)}.index"

    @property
    def record(self) -> str:
        """Return the file of the record."""
        return f"{self.path}.json"

    def check(self) -> Slot:
        """Return the slot, or raise InvalidValue when something that is not ours is in the place of a directory."""
        private_dir(self.home)
        for path in (self.path, self.going):
            if os.path.lexists(path) and (Path(path).is_symlink() or not Path(path).is_dir()):
                raise InvalidValue(
                    f"{path} is not a directory (a symlink is not accepted); it was left alone",
                    hint="see who put it there, and remove it",
                )
        return self

    def read(self) -> Record | None:
        """Return the record; None when there is none, or none that can be read."""
        try:
            with os.fdopen(open_private(self.record, os.O_RDONLY), encoding="utf-8") as file:
                data = json.load(file)
            return Record(**{**data, "made": tuple(data["made"])})
        except (OSError, InvalidValue, ValueError, TypeError, KeyError):
            return None

    def write(self, record: Record) -> None:
        """Put the record in the place of what was there."""
        fresh = f"{self.record}.new"
        try:
            with os.fdopen(open_private(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="utf-8") as file:
                json.dump(asdict(record), file)
                file.flush()
                os.fsync(file.fileno())
            Path(fresh).replace(self.record)
        except OSError as error:
            Path(fresh).unlink(missing_ok=True)
            raise StorageError(f"cannot write {self.record}: {error.strerror}", hint="free disk space") from error

    def forget(self) -> None:
        """Remove what lies beside the worktree, the record last."""
        beside = sorted(Path(self.home).glob(f"{self.id}.*"), key=lambda path: str(path) == self.record)
        for path in beside:
            path.unlink(missing_ok=True)


def slot_of(root: str, repo: str, id_: str) -> Slot:
    """Return the slot of an agent's worktree of a repository; no user's text becomes a path unclean."""
    if not is_id(id_):
        raise InvalidValue(
            f"{id_!r} is not an agent's id; nothing was made", hint="take one of a new agent", field="id"
        )
    return Slot(f"{root}/{clean_name(repo)}-{hashlib.sha256(os.fsencode(repo)).hexdigest()[:8]}", id_)


def clean_name(repo: str) -> str:
    """Return what a directory may be called after a repository."""
    path = Path(repo)
    name = (path.parent.name if path.name == ".git" else path.name).removesuffix(".git")
    return _UNCLEAN.sub("-", name).strip(".-")[:_NAME_CHARS] or "repository"


def slots_below(root: str) -> Iterator[Slot]:
    """Return every slot of which anything is left."""
    for home in sorted(Path(root).iterdir()):
        if home.is_symlink() or not home.is_dir():
            continue
        ids = {entry.name.partition(".")[0] for entry in home.iterdir() if entry.suffix not in (".log", ".index")}
        yield from (Slot(str(home), id_) for id_ in sorted(filter(is_id, ids)))


def is_id(text: str) -> bool:
    """Tell whether a text is an agent's id."""
    return text != "" and id_of_session(session_name("", text)) == text
