"""What is in a worktree: everything that would be lost with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.to_thread

from agentd.agents.git import Git, lines_of, of, tree
from agentd.agents.worktree_branches import SHARED_REFS, commit_of, counted, current_branch, own_commits

NAMES_SHOWN: Final = 5
_UNDER_WAY: Final = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "MERGE_HEAD": "a merge",
    "MERGE_AUTOSTASH": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "sequencer": "a cherry-pick or revert",
    "BISECT_LOG": "a bisection",
}


@dataclass(frozen=True, slots=True)
class Tree:
    """A worktree as git knows it: `entry` is its own git directory inside the repository's."""

    repo: str
    entry: str
    path: str

    @property
    def at(self) -> tuple[str, ...]:
        """Return the options for commands in it; without the directory only commits can be asked for."""
        return tree(self.entry, self.path) if self.is_there else of(self.entry)

    def has(self, name: str) -> bool:
        """Tell whether there is anything under a name in it."""
        return os.path.lexists(f"{self.path}/{name}")

    @property
    def is_there(self) -> bool:
        """Tell whether the directory is there."""
        return Path(self.path).is_dir()


@dataclass(frozen=True, slots=True)
class WorktreeState:
    """What is in a worktree.

    `dirty` counts what is edited, staged, in conflict or untracked (once for a directory that is untracked as a whole),
    `names` are the first few. `own_commits` are on its branch and on no other branch, tag or remote. `doings` are
    kinds of work beside files; `held` is what not even force gives up: commits that are nowhere else, and a lock.
    """

    branch: str = ""
    dirty: int = 0
    names: tuple[str, ...] = ()
    own_commits: int = 0
    doings: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    gone: bool = False

    @property
    def work(self) -> str:
        """Return what keeps the worktree, in words; empty when nothing does."""
        files = f"{counted(self.dirty, 'changed file')} ({self._shown()})" if self.dirty else ""
        return ", ".join(filter(None, (files, *self.doings, *self.held)))

    def _shown(self) -> str:
        return ", ".join(self.names) + (", ..." if self.dirty > len(self.names) else "")


async def look(git: Git, place: Tree, branch: str, made: Sequence[str], scratch: str) -> WorktreeState:
    """Look at everything in a worktree; `scratch` is a file for a copy of its index.

    What cannot be looked at raises: it is never taken for empty.
    """
    current = await current_branch(git, place.entry)
    branches = [*dict.fromkeys(filter(None, (current, branch, *made)))]
    gone = not place.is_there
    files = [] if gone else await _changed(git, place, scratch)
    return WorktreeState(
        branch=current or branch,
        dirty=len(files),
        names=tuple(os.fsencode(name).decode("utf-8", "replace") for name in files[:NAMES_SHOWN]),
        own_commits=await own_commits(git, place.repo, current or branch),
        doings=() if gone else (*_under_way(place), *await _stashed(git, place, branches)),
        held=(*_lock(place), *await _detached(git, place), *await _in_submodules(git, place)),
        gone=gone,
    )


async def submodules_of(git: Git, place: Tree) -> list[str]:
    """Return the paths at which a worktree has submodules, whether they are checked out or not."""
    entries = (entry.partition("\t") for entry in lines_of(await git.read(place.at, "ls-files", "-s", "-z")))
    return [path for facts, _, path in entries if facts.startswith("160000 ")]


async def _changed(git: Git, place: Tree, scratch: str) -> list[str]:
    marked = await _marked(git, place)
    try:
        index = await _unmarked_copy(git, place, marked, scratch) if marked else None
        words = ("status", "--porcelain", "-z", "--no-renames", "-unormal", "--ignore-submodules=none")
        return [entry[3:] for entry in lines_of(await git.read(place.at, *words, index=index))]
    finally:
        Path(scratch).unlink(missing_ok=True)  # noqa: ASYNC240  a file of ours on the local disk


async def _marked(git: Git, place: Tree) -> list[str]:
    """Return the files whose changes git was told to overlook, and that are there."""
    entries = lines_of(await git.read(place.at, "ls-files", "-v", "-z"))
    marked = [entry[2:] for entry in entries if entry[0] == "S" or entry[0].islower()]
    return [name for name in marked if place.has(name)]


async def _unmarked_copy(git: Git, place: Tree, marked: Sequence[str], scratch: str) -> str:
    shutil.copyfile(f"{place.entry}/index", scratch, follow_symlinks=False)
    for start in range(0, len(marked), 200):  # a command line has an end
        some = marked[start : start + 200]
        for mark in ("--no-assume-unchanged", "--no-skip-worktree"):
            await git.read(place.at, "update-index", mark, "--", *some, index=scratch)
    return scratch


def _under_way(place: Tree) -> list[str]:
    what = sorted({f"{name} in progress" for file, name in _UNDER_WAY.items() if Path(place.entry, file).exists()})
    return what if _is_pointer(place) else [*what, "a .git that is not the worktree's own"]


def _lock(place: Tree) -> list[str]:
    try:
        reason = Path(place.entry, "locked").read_text(errors="replace").strip()[:200]
    except FileNotFoundError:
        return []
    return [f"a lock ({reason})" if reason else "a lock"]


def _is_pointer(place: Tree) -> bool:
    file = Path(place.path, ".git")
    if file.is_symlink() or not file.is_file():
        return False
    to = os.fsdecode(file.read_bytes()).strip().removeprefix("gitdir: ")
    return Path(place.path, to).resolve() == Path(place.entry).resolve()


async def _stashed(git: Git, place: Tree, branches: Sequence[str]) -> list[str]:
    if not await commit_of(git, place.repo, "refs/stash"):
        return []
    entries = (await git.read(of(place.repo), "rev-list", "-g", "--format=%s", "refs/stash", "--")).splitlines()
    # Some versions of git write the whole name of the branch, others what follows its last slash.
    names = {name for branch in branches for name in (branch, branch.rpartition("/")[2])}
    begins = tuple(f"{word} {name}: " for name in names for word in ("WIP on", "On"))
    count = sum(entry.startswith(begins) for entry in entries)
    return [f"{count} stashes" if count > 1 else "a stash"] if count else []


async def _detached(git: Git, place: Tree) -> list[str]:
    """Return the commits that only this worktree's own refs lead to."""
    words = ("rev-list", "--count", "HEAD", "--glob=refs/worktree", "--not", *SHARED_REFS)
    if not await commit_of(git, place.entry, "HEAD"):
        return []  # a branch that was not born yet
    count = int(await git.read(of(place.entry), *words))
    return [f"{counted(count, 'commit')} on no branch"] if count else []


async def _in_submodules(git: Git, place: Tree) -> list[str]:
    """Return the submodules whose repositories, which go with the worktree, hold what no remote of theirs has."""
    modules = Path(place.entry, "modules")
    repos = [repo for repo in await anyio.to_thread.run_sync(_repositories, modules) if await _unpushed(git, str(repo))]
    return [f"commits of the submodule {repo.relative_to(modules)} on no remote" for repo in repos]


def _repositories(modules: Path) -> list[Path]:
    return sorted(head.parent for head in modules.rglob("HEAD") if (head.parent / "objects").is_dir())


async def _unpushed(git: Git, repo: str) -> int:
    tips = [ref for ref in ("HEAD", "refs/stash") if await commit_of(git, repo, ref)]
    return int(await git.read(of(repo), "rev-list", "--count", *tips, "--branches", "--not", "--remotes"))
