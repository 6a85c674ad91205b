"""The directory of a mailbox: its FORMAT file, its shards' names, and the way from one version to the next."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import apsw

from agentd.errors import InvalidValue, StorageError, VersionMismatch
from agentd.failpoint import failpoint
from agentd.mailbox.ids import MAX_SHARDS
from agentd.mailbox.recovery import sync_directory
from agentd.mailbox.schema import UPGRADE_FROM_1, UPGRADE_FROM_2, refuse_newer
from agentd.private import open_private, private_dir

VERSION: Final = 3
FORMAT: Final = "FORMAT"  # {"version": 2, "shards": 2, "created": "2026-01-31T12:00:00Z"}
Upgrade = Callable[[Path], None]  # turns the directory it is given, a copy, into the next version


def _in_each_shard(sql: str) -> Upgrade:
    def upgrade(directory: Path) -> None:
        for path in sorted(directory.glob("s??.db")):
            connection = apsw.Connection(str(path))
            try:
                connection.execute(sql).fetchall()
            finally:
                connection.close()

    return upgrade


# From this version to the next.
UPGRADES: Final[Mapping[int, Upgrade]] = {1: _in_each_shard(UPGRADE_FROM_1), 2: _in_each_shard(UPGRADE_FROM_2)}


@dataclass(frozen=True, slots=True)
class Layout:
    """What a mailbox's directory says about itself; fixed when it is created."""

    version: int
    shards: int
    created: str

    def paths(self, directory: Path) -> list[Path]:
        """Return the shards' files."""
        return [directory / f"s{index:02d}.db" for index in range(self.shards)]


def prepare(
    directory: Path, shards: int, *, version: int = VERSION, upgrades: Mapping[int, Upgrade] = UPGRADES
) -> tuple[Layout, bool]:
    """Return the layout of a mailbox in this version, and whether it was there before.

    A missing one is created, an older one upgraded. Raises VersionMismatch for a newer one, which is left untouched.
    """
    _finish_upgrade(directory, version)
    private_dir(str(directory))
    layout = read(directory)
    if layout is None:
        layout = Layout(version, shards, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        write(directory, layout)
        sync_directory(directory.parent)
        return layout, False
    if layout.version > version:
        raise VersionMismatch(
            f"{directory} was written by a newer agentd (format {layout.version}, this one knows {version});"
            " it was left alone",
            hint="start the newer agentd, or choose another place with AGENTD_DIR",
        )
    for path in layout.paths(directory):
        refuse_newer(path, version)
    if layout.version < version:
        layout = _upgrade(directory, layout, version, upgrades)
    return layout, True


def find(directory: Path) -> Layout | None:
    """Return the layout of a mailbox, None when there is none; a swap that was cut off is finished."""
    _finish_upgrade(directory, VERSION)
    return read(directory)


def read(directory: Path) -> Layout | None:
    """Return what FORMAT says, None when there is none; raises InvalidValue when it says nothing sensible."""
    path = directory / FORMAT
    if not path.exists() and not path.is_symlink():
        return None
    with os.fdopen(open_private(str(path), os.O_RDONLY), "rb") as file:
        text = file.read(4096)
    try:
        values = json.loads(text)
        layout = Layout(int(values["version"]), int(values["shards"]), str(values.get("created", "")))
    except (ValueError, KeyError, TypeError):
        raise InvalidValue(f"{path} cannot be read; nothing was changed", hint="put it back from a copy") from None
    if layout.version <= VERSION and not 1 <= layout.shards <= MAX_SHARDS:
        raise InvalidValue(f"{path} says {layout.shards} shards; nothing was changed", hint="put it back from a copy")
    return layout


def write(directory: Path, layout: Layout) -> None:
    """Put FORMAT in place, whole or not at all."""
    new = directory / f"{FORMAT}.new"
    with os.fdopen(open_private(str(new), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
        file.write(json.dumps(asdict(layout)) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(directory / FORMAT)
    sync_directory(directory)


# -- upgrades: copy, change the copy, verify it, swap. At each moment either the old or the new directory is whole, and
# so it is when the number of shards is changed (resharding.py), which keeps the old one as mailbox.2-shards:
#
#   mailbox  mailbox.new                  the copy is being made or changed; thrown away by the next attempt
#   mailbox  mailbox.new/FORMAT (new)     verified and on disk; the swap is next
#   mailbox.v1  mailbox.new/FORMAT (new)  half swapped; the next start finishes it
#   mailbox.v1  mailbox                   done; the old one is kept


def _upgrade(directory: Path, old: Layout, version: int, upgrades: Mapping[int, Upgrade]) -> Layout:
    new = remove_new(directory)
    shutil.copytree(directory, new, symlinks=True, ignore=shutil.ignore_patterns(FORMAT))
    failpoint("migrate.after_copy")
    for step in range(old.version, version):
        upgrades[step](new)
        failpoint("migrate.after_step")
    _verify(directory, new, old)
    layout = Layout(version, old.shards, old.created)
    swap(directory, layout, f"v{old.version}")
    return layout


def remove_new(directory: Path) -> Path:
    """Return where the next mailbox is made, beside the present one; nothing is there."""
    new = _beside(directory, "new")
    shutil.rmtree(new, ignore_errors=True)
    return new


def swap(directory: Path, layout: Layout, suffix: str) -> Path:
    """Put the next mailbox, which is whole, in the place of the present one; returns where that is kept."""
    new, kept = _beside(directory, "new"), _free(_beside(directory, suffix))
    _sync_tree(new)
    write(new, layout)
    failpoint("migrate.before_swap")
    directory.rename(kept)
    failpoint("migrate.mid_swap")
    new.rename(directory)
    sync_directory(directory.parent)
    return kept


def _free(path: Path) -> Path:
    names = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], names) if not free.exists())


def _finish_upgrade(directory: Path, version: int) -> None:
    new = _beside(directory, "new")
    if new.is_dir() and not directory.exists():
        layout = read(new)
        if layout and layout.version == version:
            new.rename(directory)
            sync_directory(directory.parent)


def _verify(old_directory: Path, new_directory: Path, layout: Layout) -> None:
    pairs = zip(layout.paths(old_directory), layout.paths(new_directory), strict=True)
    for old, new in pairs:
        before, after = _counts(old), _counts(new)
        if before != after:
            raise StorageError(
                f"upgrading {old} would have turned {before} into {after}; the mailbox was left as it was",
                hint="keep the older agentd and report this",
            )


def _counts(path: Path) -> dict[int, int]:
    """Return how many messages of each state a sound file holds."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        if connection.execute("PRAGMA quick_check(1)").get != "ok":
            raise StorageError(f"{path} is damaged; the mailbox was left as it was", hint="start the older agentd once")
        views = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name='message'").get
        states = f"SELECT state, count(*) FROM {'message' if views else 'm'} GROUP BY state"  # noqa: S608  names of ours
        counts: list[Any] = connection.execute(states).fetchall()
        return dict(counts)
    finally:
        connection.close(force=True)


def _sync_tree(directory: Path) -> None:
    for path in [directory, *directory.rglob("*")]:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(f"{directory.name}.{suffix}")
