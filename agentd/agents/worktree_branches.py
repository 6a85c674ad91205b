"""The branches of worktrees: which are free, what is on them alone, and their end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from agentd.agents.git import Git, checked, inside, of
from agentd.agents.worktree_record import Record
from agentd.errors import AlreadyExists, InvalidValue

SHARED_REFS: Final = ("--branches", "--remotes", "--tags")  # what keeps commits whatever becomes of a worktree


async def checked_name(git: Git, branch: str) -> str:
    """Return a branch's name, or raise InvalidValue when it is none, or stands for another one as `@{-1}` does."""
    said = await git.say(of(os.devnull), "check-ref-format", "--branch", branch)  # in no repository they stand for none
    if said.status != 0:
        raise InvalidValue(
            f"{branch!r} is not a name for a branch; nothing was changed",
            hint="take letters, digits, `-` and `/`, without `..`, spaces or a leading `-`",
            field="branch",
        )
    return branch


async def commit_of(git: Git, repo: str, ref: str) -> str:
    """Return the commit that a ref of a repository names; empty when there is none."""
    return (await git.say(of(repo), "rev-parse", "--verify", "-q", f"{ref}^{{commit}}")).out.strip()


async def tip_of(git: Git, repo: str, branch: str) -> str:
    """Return the last commit of a branch; empty when there is no such branch."""
    return await commit_of(git, repo, f"refs/heads/{branch}") if branch else ""


async def current_branch(git: Git, entry: str) -> str:
    """Return the branch that a worktree is on; empty when it is on none."""
    said = await git.say(of(entry), "symbolic-ref", "-q", "HEAD")
    return said.out.strip().removeprefix("refs/heads/")


async def used_at(git: Git, repo: str, branch: str) -> str:
    """Return the directory in which a branch is checked out; empty when it is nowhere."""
    return (await git.read(of(repo), "for-each-ref", "--format=%(worktreepath)", f"refs/heads/{branch}")).strip("\n")


async def own_commits(git: Git, repo: str, branch: str) -> int:
    """Return how many commits are on a branch and on no other branch, tag or remote."""
    if not await tip_of(git, repo, branch):
        return 0
    words = ("rev-list", "--count", f"refs/heads/{branch}", "--not", f"--exclude={branch}", *SHARED_REFS)
    return int(await git.read(of(repo), *words))


async def head_at(git: Git, place: str) -> str:
    """Return the commit that new branches begin at; raises InvalidValue when there is none."""
    head = (await git.say(inside(place), "rev-parse", "--verify", "-q", "HEAD^{commit}")).out.strip()
    if not head:
        raise InvalidValue(f"the repository at {place} has no commits yet; nothing was made", hint="make one there")
    return head


async def planned(git: Git, place: str, repo: str, branch: str) -> Record:
    """Return what a worktree on a branch will be; raises when there is nothing to begin at, or the branch is in use."""
    tip = await tip_of(git, repo, branch)
    if not tip:
        return Record(repo, branch, await head_at(git, place), made=(branch,))
    elsewhere = await used_at(git, repo, branch)
    if elsewhere:
        why = f"the branch {branch} is checked out at {elsewhere}; nothing was made"
        raise AlreadyExists(why, hint="choose another name", field="branch")
    return Record(repo, branch, tip)


async def drop(git: Git, record: Record, current: str, held: Sequence[int]) -> str:
    """Remove the branches that were made for a worktree, which is gone; return which ones stay, and why."""
    kept = []
    for name in dict.fromkeys((*record.made, record.branch, current)):
        tip = await tip_of(git, record.repo, name)
        why = await _why_kept(git, record, name, tip) if tip else ""
        if why:
            kept.append(f"the branch {name} was kept: {why}")
        elif tip:
            words = ("branch", "-q", "-D", "--", name)
            checked(await git.say(of(record.repo), *words, held=held), words)
    return "; ".join(kept)


async def _why_kept(git: Git, record: Record, name: str, tip: str) -> str:
    count = 0 if not record.finished and tip == record.base else await own_commits(git, record.repo, name)
    if count:
        return f"{counted(count, 'commit')} on no other branch"
    if name not in record.made:
        return "it was not made for the worktree"
    elsewhere = await used_at(git, record.repo, name)
    return f"it is checked out at {elsewhere}" if elsewhere else ""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
