"""Git worktrees of agents: made, named, looked at, renewed and cleaned; work is never lost, and nothing leaks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import anyio

from agentd.agents.git import Git, checked, inside, of
from agentd.agents.worktree_branches import (
    checked_name,
    commit_of,
    current_branch,
    drop,
    head_at,
    own_commits,
    planned,
    tip_of,
)
from agentd.agents.worktree_record import Record, Slot, is_id, slot_of, slots_below
from agentd.agents.worktree_removal import entry_of, remove
from agentd.agents.worktree_setup import run_setup
from agentd.agents.worktree_state import Tree, WorktreeState, look, submodules_of
from agentd.agents.worktree_turns import Turns
from agentd.errors import AgentdError, AlreadyExists, Conflict, InvalidValue, NotFound
from agentd.failpoint import failpoint
from agentd.logs import Log
from agentd.private import private_dir

CHECKOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Worktree:
    """A worktree of an agent: `repo` is the repository's common git directory, `base` the commit it began at.

    One that is not `finished` was cut off while it was made or renewed: it holds no work and is only good for `clean`.
    """

    repo: str
    path: str
    branch: str
    base: str
    finished: bool = True


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What became of a worktree and its branch; `why` tells what was kept, and is empty when everything went."""

    removed: bool
    why: str = ""
    branch_kept: bool = False


class Worktrees:
    """The worktrees below one private directory; what is in them is their user's business, and has their umask."""

    def __init__(self, root: str, log: Log, environ: Mapping[str, str], umask: int) -> None:
        self._root = root
        self._log = log
        self._umask = umask
        self._git = Git(environ, umask)
        self._turns = Turns()

    async def repository(self, place: str) -> str:
        """Return the common git directory of the repository around a directory."""
        if not Path(place).is_absolute() or "\0" in place:
            raise InvalidValue(
                f"{place} is not an absolute path; nothing was made", hint="give a whole path", field="cwd"
            )
        if not _is_dir(place):
            raise NotFound(f"{place} is not a directory, or gone; nothing was made", hint="name one in a repository")
        words = ("rev-parse", "--path-format=absolute", "--git-common-dir")
        return _real((await self._git.read(inside(place), *words)).removesuffix("\n"))

    async def head(self, repo: str) -> str:
        """Return the commit that a repository's HEAD is at; empty when it has none."""
        return await commit_of(self._git, repo, "HEAD")

    async def check_start(self, place: str) -> None:
        """Raise InvalidValue when the repository around a directory has no commit that a worktree could begin at."""
        await head_at(self._git, place)

    async def create(self, place: str, id_: str, branch: str | None = None) -> Worktree:
        """Make a worktree of the repository around a directory, on a new branch or on one that is not in use.

        A failed one leaves nothing behind.
        """
        repo = await self.repository(place)
        slot = slot_of(self._home(), repo, id_).check()
        name = f"agentd/{id_}" if branch is None else await checked_name(self._git, branch)
        async with self._turns.of(slot.home) as held:
            if slot.is_taken:
                raise AlreadyExists(f"{id_} has a worktree at {slot.path}; it was kept", hint="clean it first")
            record = await planned(self._git, place, repo, name)
            slot.write(record)
            failpoint("worktree.recorded")
            try:
                await self._add(place, slot, record, held)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._undo(slot, record, held)
                raise
        return _worktree(slot, replace(record, finished=True))

    async def rename_branch(self, worktree: Worktree, branch: str) -> Worktree:
        """Give the branch that was made for a worktree another name."""
        slot, name = self._slot(worktree), await checked_name(self._git, branch)
        async with self._turns.of(slot.home) as held:
            record = _whole(slot, worktree)
            if record.branch not in record.made:
                raise Conflict(
                    f"{record.branch} was not made for this worktree; it kept its name", hint="rename it in git"
                )
            if await tip_of(self._git, record.repo, name):
                raise AlreadyExists(
                    f"the branch {name} exists; nothing was renamed", hint="choose another", field="branch"
                )
            slot.write(replace(record, made=(*record.made, name)))  # whichever of both a crash leaves, it is ours
            words = ("branch", "-m", "--", record.branch, name)
            try:
                checked(await self._git.say(of(record.repo), *words, held=held), words)
            except AgentdError:
                slot.write(record)
                raise
            failpoint("worktree.renamed")
            renamed = replace(record, branch=name, made=tuple({*record.made, name} - {record.branch}))
            slot.write(renamed)
        return _worktree(slot, renamed)

    async def state(self, worktree: Worktree) -> WorktreeState:
        """Return what is in a worktree; raises NotFound for one with files in it that its repository does not know."""
        slot = self._slot(worktree)
        record = _record(slot, worktree)
        entry = entry_of(record.repo, slot.path)
        if entry and record.finished:
            return await self._look(slot, record, entry)
        if record.finished and slot.leftovers():
            raise _stranger(slot)
        return WorktreeState(record.branch, gone=not slot.is_there)

    async def submodules(self, worktree: Worktree) -> list[str]:
        """Return the paths of its submodules, which are not checked out."""
        slot = self._slot(worktree)
        return await submodules_of(self._git, _tree(slot, _record(slot, worktree)))

    async def clean(self, worktree: Worktree, *, force: bool = False) -> Cleaned:
        """Remove a worktree and the branches that were made for it, but no work.

        `force` gives up what is not committed. Commits that are nowhere else are kept always: on their branch, or with
        the worktree when they are on none.
        """
        slot = self._slot(worktree)
        async with self._turns.of(slot.home) as held:
            record = _record(slot, worktree)
            why = await self._why_kept(slot, record, force=force)
            if why:
                return Cleaned(False, why, branch_kept=True)
            with anyio.CancelScope(shield=True):  # each step has its deadline; half a removal is of no use
                kept = await self._remove(slot, record, held)
        return Cleaned(True, kept, branch_kept=bool(kept))

    async def renew(self, worktree: Worktree) -> Worktree | None:
        """Set a worktree without work to the repository's HEAD, on the branch made for it; None when it has work.

        What git ignores stays as it is.
        """
        slot = self._slot(worktree)
        async with self._turns.of(slot.home) as held:
            record = _whole(slot, worktree)
            tree, head = _tree(slot, record), await commit_of(self._git, record.repo, "HEAD")
            if not head or record.branch not in record.made or await self._has_work(slot, record, tree):
                return None
            slot.write(replace(record, finished=False))  # cut off half-way it would look like somebody's work
            failpoint("worktree.renewing")
            words = ("checkout", "-q", "-f", "--no-guess", "--no-recurse-submodules", "-B", record.branch, head, "--")
            checked(await self._git.say(tree.at, *words, timeout_s=CHECKOUT_S, held=held), words)
            failpoint("worktree.renewed")
            renewed = replace(record, base=head)
            slot.write(renewed)
            # A submodule that is checked out stands where it stood, and now differs.
            return None if await self._has_work(slot, renewed, tree) else _worktree(slot, renewed)

    async def at(self, path: str) -> Worktree | None:
        """Return the worktree at a path; None when nothing of it is left."""
        home, id_ = os.path.split(path)
        return await self._found(Slot(home, id_)) if id_ in self.ids() else None

    def ids(self) -> set[str]:
        """Return for whom there are worktrees, or what is left of them."""
        return {slot.id for slot in slots_below(self._home())}

    async def found(self) -> list[Worktree]:
        """Return every worktree below the root, as a new daemon finds them."""
        return [await self._found(slot) for slot in slots_below(self._home())]

    async def setup(
        self, worktree: Worktree, command: Sequence[str], timeout_s: float, environ: Mapping[str, str]
    ) -> None:
        """Run a project's setup command in a worktree; the end of its output is kept beside it."""
        slot = self._slot(worktree)
        if not slot.is_there:
            raise NotFound(f"{slot.path} is gone; nothing was run", hint="clean this worktree and create another")
        await run_setup(command, slot.path, slot.log, timeout_s, environ, self._umask)

    def _home(self) -> str:
        return _real(private_dir(self._root))  # git knows directories by their real paths

    def _slot(self, worktree: Worktree) -> Slot:
        home, id_ = os.path.split(worktree.path)
        if os.path.normpath(home) != home or str(Path(home).parent) != self._home() or not is_id(id_):
            raise InvalidValue(
                f"{worktree.path} is no worktree of agentd; it was left alone", hint="see what is found()"
            )
        return Slot(home, id_).check()

    async def _add(self, place: str, slot: Slot, record: Record, held: Sequence[int]) -> None:
        how = ("-b", record.branch, "--", slot.path, record.base) if record.made else ("--", slot.path, record.branch)
        words = ("worktree", "add", "-q", *how)
        checked(await self._git.say(inside(place), *words, timeout_s=CHECKOUT_S, held=held), words)
        failpoint("worktree.added")
        slot.write(replace(record, finished=True))

    async def _undo(self, slot: Slot, record: Record, held: Sequence[int]) -> None:
        try:
            await self._remove(slot, record, held)
        except AgentdError as error:
            self._log.warning("half a worktree is left", path=slot.path, error=error.message)

    async def _remove(self, slot: Slot, record: Record, held: Sequence[int]) -> str:
        entry = entry_of(record.repo, slot.path)
        current = await current_branch(self._git, entry) if entry and record.finished else ""
        await remove(self._git, slot, record, held)
        failpoint("worktree.removed")
        kept = await drop(self._git, record, current, held) if _is_dir(record.repo) else ""
        slot.forget()
        return kept

    async def _look(self, slot: Slot, record: Record, entry: str) -> WorktreeState:
        tree = Tree(record.repo, entry, slot.path)
        return await look(self._git, tree, record.branch, record.made, slot.scratch())

    async def _has_work(self, slot: Slot, record: Record, tree: Tree) -> bool:
        state = await self._look(slot, record, tree.entry)
        return bool(state.work or state.own_commits or await own_commits(self._git, record.repo, record.branch))

    async def _why_kept(self, slot: Slot, record: Record, *, force: bool) -> str:
        if not record.finished:
            return ""
        entry = entry_of(record.repo, slot.path)
        if not entry:
            return _stranger(slot).message if slot.leftovers() and not force else ""
        try:
            state = await self._look(slot, record, entry)
        except AgentdError as error:
            return f"{slot.path} was kept, for it could not be looked at: {error.message}"
        what = ", ".join(state.held) if force else state.work
        return f"{slot.path} was kept: it has {what}" if what else ""

    async def _found(self, slot: Slot) -> Worktree:
        record = slot.read() or Record("", "", "", finished=True)
        try:
            record = await self._told_by_git(slot, record)
        except AgentdError as error:
            self._log.warning("could not ask git about a worktree", path=slot.path, error=error.message)
        return _worktree(slot, record)

    async def _told_by_git(self, slot: Slot, record: Record) -> Record:
        record = record if record.repo else await self._guessed(slot)
        entry = entry_of(record.repo, slot.path)
        current = await current_branch(self._git, entry) if entry and record.finished else ""
        if not current or current == record.branch:
            return record
        told = replace(record, branch=current)
        if current in record.made:  # a renaming that was cut off
            slot.write(told)
        return told

    async def _guessed(self, slot: Slot) -> Record:
        """Return what git tells of a worktree whose record is gone; no branch is taken to be made for it."""
        self._log.warning("a worktree without its record", path=slot.path)
        words = ("rev-parse", "--path-format=absolute", "--git-common-dir", "HEAD")
        said = await self._git.say(inside(slot.path), *words)
        repo, _, base = said.out.removesuffix("\n").rpartition("\n")
        known = said.status == 0 and entry_of(repo, slot.path)
        return Record(repo, "", base, finished=True) if known else Record("", "", "", finished=True)


def _is_dir(path: str) -> bool:
    return Path(path).is_dir()


def _real(path: str) -> str:
    return os.path.realpath(path)


def _worktree(slot: Slot, record: Record) -> Worktree:
    return Worktree(record.repo, slot.path, record.branch, record.base, record.finished)


def _record(slot: Slot, worktree: Worktree) -> Record:
    return slot.read() or Record(worktree.repo, worktree.branch, worktree.base, finished=worktree.finished)


def _whole(slot: Slot, worktree: Worktree) -> Record:
    record = _record(slot, worktree)
    if not record.finished:
        raise Conflict(f"{slot.path} was cut off while it was made; it holds no work", hint="clean it, create another")
    return record


def _tree(slot: Slot, record: Record) -> Tree:
    entry = entry_of(record.repo, slot.path)
    if not entry or not slot.is_there:
        raise _stranger(slot)
    return Tree(record.repo, entry, slot.path)


def _stranger(slot: Slot) -> NotFound:
    why = f"{slot.path} is gone, or its repository is or does not know it any more; what is in it was kept"
    return NotFound(why, hint="take out what you need, then clean it with force")
