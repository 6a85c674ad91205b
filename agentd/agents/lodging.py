"""Where an agent's program works: the directory that was named, or a git worktree of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agentd.agents.worktree_state import WorktreeState
from agentd.agents.worktrees import Cleaned, Worktree, Worktrees
from agentd.errors import AgentdError, NotFound
from agentd.logs import Log
from agentd.records import Agent


@dataclass(frozen=True, slots=True)
class Wish:
    """That an agent has a worktree of its own."""

    repo: str  # the repository's common git directory
    branch: str | None = None  # None: a fresh one


NO_WISH: Final = Wish("")


class Lodging:
    """Makes worktrees for agents and cleans them up behind them; work in them is never lost."""

    def __init__(self, worktrees: Worktrees, log: Log) -> None:
        self._worktrees = worktrees
        self._log = log

    async def wish(self, cwd: str, branch: str | None) -> Wish:
        """Return the wish for a worktree of the repository around a directory; raises what is wrong with that."""
        return Wish(await self._worktrees.repository(cwd), branch)

    async def lodge(self, agent: Agent, wish: Wish) -> Agent:
        """Return the agent with the directory its program is to start in; a worktree is made on the way."""
        if not wish.repo:
            return agent
        worktree = await self._worktrees.create(agent.cwd, agent.id, wish.branch)
        submodules = await self._worktrees.submodules(worktree)
        if submodules:
            self._log.info("submodules are not checked out", path=worktree.path, submodules=submodules)
        return replace(agent, cwd=worktree.path, repo=worktree.repo, branch=worktree.branch)

    async def refresh(self, agent: Agent, branch: str | None) -> Agent:
        """Return a slot whose worktree is at its repository's HEAD, on the branch that was asked for.

        Raises Conflict, NotFound or AlreadyExists when it cannot be had so.
        """
        worktree = await self.of(agent)
        if worktree is None:
            raise NotFound(f"{agent.cwd} is gone", hint="start it again")
        if await self._worktrees.head(worktree.repo) != worktree.base:
            worktree = await self._worktrees.renew(worktree) or worktree
        if branch is not None:
            worktree = await self._worktrees.rename_branch(worktree, branch)
        return replace(agent, branch=worktree.branch)

    async def of(self, agent: Agent) -> Worktree | None:
        """Return an agent's worktree; None when it has none, or it is gone."""
        return await self._worktrees.at(agent.cwd)

    async def look(self, agent: Agent) -> WorktreeState | None:
        """Return what is in an agent's worktree; None when it is gone."""
        worktree = await self.of(agent)
        return await self._worktrees.state(worktree) if worktree else None

    async def vacate(self, agent: Agent, *, force: bool = False) -> Cleaned:
        """Remove an agent's worktree unless there is work in it; `force` gives up what is not committed."""
        worktree = await self.of(agent) if agent.repo else None
        if worktree is None:
            return Cleaned(False)
        cleaned = await self._worktrees.clean(worktree, force=force)
        if cleaned.why:
            self._log.warning("a worktree was kept", path=worktree.path, branch=worktree.branch, why=cleaned.why)
        return cleaned

    async def sweep(self, known: Collection[str]) -> list[str]:
        """Remove worktrees of agents that nobody knows, unless there is work in them; return those that were kept."""
        kept: list[str] = []
        if self._worktrees.ids() <= set(known):
            return kept
        for worktree in await self._worktrees.found():
            if Path(worktree.path).name in known:
                continue
            try:
                cleaned = await self._worktrees.clean(worktree)
            except AgentdError as error:
                cleaned = Cleaned(False, error.message)
            if not cleaned.removed:
                self._log.warning("a worktree of nobody was kept", path=worktree.path, why=cleaned.why)
                kept.append(worktree.path)
        return kept
