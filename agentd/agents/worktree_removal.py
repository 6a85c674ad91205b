"""How the files of a worktree go, and git's entry for it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread

from agentd.agents.git import Git, checked, of
from agentd.agents.worktree_record import Record, Slot
from agentd.errors import StorageError
from agentd.failpoint import failpoint


def entry_of(repo: str, path: str) -> str:
    """Return the directory in which a repository keeps a worktree's own part; empty when it does not know it."""
    try:
        entries = sorted(Path(repo, "worktrees").iterdir()) if repo else []
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return next((str(entry) for entry in entries if _pointed(entry) == path), "")


async def remove(git: Git, slot: Slot, record: Record, held: Sequence[int]) -> None:
    """Remove a worktree's directory and git's entry for it, whatever is in them; what was cut off is gone on with."""
    await anyio.to_thread.run_sync(_remove_files, slot)
    if entry_of(record.repo, slot.path):
        words = ("worktree", "remove", "--force", "--force", "--", slot.path)  # twice: one half made is locked
        checked(await git.say(of(record.repo), *words, held=held), words)
    if record.repo and not record.finished:
        _remove_stump(Path(record.repo, "worktrees", slot.id))


def _pointed(entry: Path) -> str:
    try:
        to = os.fsdecode((entry / "gitdir").read_bytes()).removesuffix("\n")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return os.path.normpath(entry / to).removesuffix("/.git")


def _remove_stump(entry: Path) -> None:
    """Remove what a git left that ended before it wrote whose entry it is: git never looks at it again."""
    if entry.is_dir() and not (entry / "gitdir").exists():
        shutil.rmtree(entry)


def _remove_files(slot: Slot) -> None:
    try:
        _remove_tree(slot.going)
        if slot.is_there:
            Path(slot.path).rename(slot.going)  # half removed, it would look like a worktree with changes in it
            failpoint("worktree.going")
            _remove_tree(slot.going)
    except OSError as error:
        why = f"{error.filename or slot.going} cannot be removed: {error.strerror}"
        raise StorageError(
            f"{why}; there was no work in it", hint="remove it as whoever owns it, and clean again"
        ) from error


def _remove_tree(path: str) -> None:
    if not os.path.lexists(path):
        return
    try:
        shutil.rmtree(path)
    except PermissionError:  # directories that their makers made read-only, as caches of modules do
        open_up(path)
        shutil.rmtree(path)


def open_up(path: str) -> None:
    """Make every directory below one writable, and nothing that a link leads to."""
    for above, names, _ in os.walk(path):
        for name in names:
            if not Path(above, name).is_symlink():
                Path(above, name).chmod(stat.S_IRWXU)
