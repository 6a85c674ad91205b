"""Git, run with a deadline in repositories that nobody has to trust: their hooks do not run, and nothing is asked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentd.agents.child import run
from agentd.errors import (
    AgentdError,
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    Denied,
    InvalidValue,
    NotFound,
    StorageError,
    VersionMismatch,
)

OLDEST: Final = (2, 31)  # the first with rev-parse --path-format
DEADLINE_S: Final = 30.0
_ERROR_BYTES: Final = 16_384  # of what git says was wrong; the end of it tells
_QUIET: Final = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "gc.auto=0"),  # its own child would outlive the command
    *("-c", "maintenance.auto=false"),
)
# What git says of a fault, the error it is, and what to do about it.
_FAULTS: Final[Sequence[tuple[str, type[AgentdError], str]]] = (
    ("no space left on device|disk quota exceeded", StorageError, "free disk space and do it again"),
    ("unable to (?:write|create) ", StorageError, "free disk space, or check who may write there"),  # says no more
    ("permission denied|read-only file system", StorageError, "check who may write there"),
    ("dubious ownership", Denied, "if you trust the repository, add it to git's safe.directory"),
    ("not a git repository", InvalidValue, "name a directory inside a repository, or run `git init` there"),
    ("already checked out at|already used by worktree", AlreadyExists, "choose another branch name"),
    ("' exists; cannot create|a branch named .* already exists", AlreadyExists, "choose another branch name"),
    ("", Conflict, "run `git status` and `git fsck` in the repository to see what is wrong"),
)


@dataclass(frozen=True, slots=True)
class Said:
    """What one git command printed, and its exit status."""

    status: int
    out: str
    err: str


class Git:
    """Runs git commands; `at` are the options that say in which repository, see `inside`, `of` and `tree`."""

    def __init__(self, environ: Mapping[str, str], umask: int) -> None:
        ours = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
        # Without optional locks a look at a worktree never makes a git of the agent's fail.
        self._environ = {**ours, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
        self._umask = umask
        self._checked = False

    async def read(self, at: Sequence[str], *words: str, index: str | None = None) -> str:
        """Return what a command printed; raises what its failure means. `index` is used in place of the tree's own."""
        return checked(await self.say(at, *words, index=index), words).out

    async def say(
        self,
        at: Sequence[str],
        *words: str,
        index: str | None = None,
        timeout_s: float = DEADLINE_S,
        held: Sequence[int] = (),
    ) -> Said:
        """Run a command to its end, whatever its status."""
        await self._check_version()
        more = {"GIT_INDEX_FILE": index} if index else {}
        return await self._run([*_QUIET, *at, *words], more, timeout_s, held)

    async def _check_version(self) -> None:
        if self._checked:
            return
        said = await self._run(["--version"], {}, DEADLINE_S, ())
        version = version_in(said.out)
        if version < OLDEST:
            raise VersionMismatch(
                f"git {_dotted(version)} is too old for worktrees; nothing was changed",
                hint=f"install git {_dotted(OLDEST)} or newer",
            )
        self._checked = True

    async def _run(self, words: Sequence[str], more: Mapping[str, str], timeout_s: float, held: Sequence[int]) -> Said:
        out, err = bytearray(), bytearray()
        env = {**self._environ, **more}
        try:
            ended = await run(
                ["git", *words],
                cwd="/",
                env=env,
                umask=self._umask,
                timeout_s=timeout_s,
                out=out.extend,
                err=err.extend,
                held=held,
            )
        except FileNotFoundError:
            raise NotFound("git is not installed, or not on the daemon's PATH", hint="install git") from None
        except OSError as error:
            raise StorageError(f"git cannot be run: {error.strerror}", hint="check the git on PATH") from error
        except ValueError:
            raise InvalidValue("a name for git cannot have a NUL character in it", hint="choose another") from None
        if ended.status is None or not ended.whole:
            raise DeadlineExceeded(
                f"`git {_command(words)}` did not end within {timeout_s:g} s and was ended",
                hint="look for a slow disk, or for a filter of the repository that waits",
            )
        return Said(ended.status, os.fsdecode(bytes(out)), os.fsdecode(bytes(err[-_ERROR_BYTES:])))


def inside(place: str) -> tuple[str, ...]:
    """Return the options for a directory whose repository git is to find."""
    return ("-C", place)


def of(git_dir: str) -> tuple[str, ...]:
    """Return the options for a repository itself."""
    return (f"--git-dir={git_dir}",)


def tree(git_dir: str, path: str) -> tuple[str, ...]:
    """Return the options for a worktree that is known.

    Git is not to look for the repository itself: were the worktree's `.git` gone, it would find one that lies around.
    """
    return ("-C", path, f"--git-dir={git_dir}", f"--work-tree={path}")


def checked(said: Said, words: Sequence[str]) -> Said:
    """Return what was said by a command that succeeded, or raise what its failure means."""
    if said.status == 0:
        return said
    why = "; ".join(re.findall("^(?:fatal|error): (.+)", said.err, re.MULTILINE)[-2:]) or f"exit status {said.status}"
    for pattern, kind, hint in _FAULTS:
        if re.search(pattern, said.err, re.IGNORECASE):
            raise kind(f"`git {_command(words)}` failed: {why}", hint=hint)
    raise AssertionError("the last row takes every fault")


def version_in(text: str) -> tuple[int, int]:
    """Return the version in what `git --version` prints; (0, 0) when there is none."""
    found = re.match(r"git version ([0-9]{1,9})\.([0-9]{1,9})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def lines_of(text: str) -> Iterable[str]:
    """Return the entries of what a command printed with -z."""
    return filter(None, text.split("\0"))


def _command(words: Iterable[str]) -> str:
    names = [word for word in words if not word.startswith("-") and "=" not in word and "/" not in word]
    return " ".join(names[:2] if names[:1] == ["worktree"] else names[:1])


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
