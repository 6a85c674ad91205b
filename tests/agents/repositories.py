"""Real repositories for tests, and the worktrees of agents made from them; nobody's own git configuration is read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import structlog

from agentd.agents.ids import new_agent_id
from agentd.agents.worktrees import Worktree, Worktrees

WHO = {f"GIT_{role}_{what}": f"{role}@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


UMASK = 0o027  # neither ours nor the usual one


class Scene:
    """A directory with a repository, and the worktrees below another."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = top / "state" / "worktrees"
        self.home = top / "home"
        self.home.mkdir(parents=True)
        (top / "state").mkdir(mode=0o700)
        nobodys = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home), "PATH": os.environ["PATH"]}
        # Ours would lead every git astray; the worktrees are to take none of them over.
        self.environ = {**nobodys, "GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/nowhere"}
        self._git_environ = {
            **nobodys,
            **WHO,
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "LC_ALL": "C",
        }
        self.repo = self.new("repo")
        self.worktrees = self.again()

    def again(self, **environ: str) -> Worktrees:
        """Return what a new daemon would have."""
        return Worktrees(str(self.root), structlog.get_logger(), {**self.environ, **environ}, UMASK)

    def new(self, name: str) -> Path:
        """Make a repository with two files and one commit."""
        repo = self.top / name
        repo.mkdir()
        self.git(repo, "init", "-q", "-b", "main")
        (repo / "a.txt").write_text("a\n" * 20)
        (repo / ".gitignore").write_text("ignored/\n")
        (repo / "deep").mkdir()
        (repo / "deep" / "b.txt").write_text("b\n")
        self.commit(repo, "first")
        return repo

    def git(self, at: Path | str, *words: str, ok: bool = True) -> str:
        """Run the user's or an agent's git."""
        done = subprocess.run(
            ["git", *words], cwd=at, env=self._git_environ, capture_output=True, text=True, timeout=60, errors="replace"
        )
        assert done.returncode == 0 or not ok, done.stderr
        return done.stdout.removesuffix("\n")

    def commit(self, at: Path | str, message: str) -> str:
        """Commit all there is."""
        self.git(at, "add", "-A")
        self.git(at, "commit", "-q", "--allow-empty", "-m", message)
        return self.git(at, "rev-parse", "HEAD")

    async def create(self, branch: str | None = None, place: Path | None = None) -> Worktree:
        """Make a worktree for a new agent."""
        return await self.worktrees.create(str(place or self.repo), new_agent_id(), branch)

    def branches(self, repo: Path | None = None) -> list[str]:
        """Return the names of all branches."""
        return self.git(repo or self.repo, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()

    def listed(self, repo: Path | None = None) -> list[str]:
        """Return the directories of all worktrees but the main one, as git lists them."""
        lines = self.git(repo or self.repo, "worktree", "list", "--porcelain").splitlines()
        return [line.partition(" ")[2] for line in lines if line.startswith("worktree ")][1:]

    def left(self) -> list[str]:
        """Return what lies below the root, but for what belongs to a repository and not to a worktree."""
        return sorted(path.name for path in self.root.glob("*/*") if path.name != "lock")

    def nothing_left(self) -> bool:
        """Tell whether every trace of a worktree is gone."""
        entries = self.repo / ".git" / "worktrees"
        own = [name for name in self.branches() if name.startswith("agentd/")]
        return (self.left(), self.listed(), own, os.listdir(entries) if entries.exists() else []) == ([], [], [], [])
