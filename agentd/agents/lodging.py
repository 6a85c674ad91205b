"""Where an agent's program works: the directory that was named, or a git worktree of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import anyio

from agentd.agents.project import Setup
from agentd.agents.projects import UNFITTED, Fitting, Projects
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
    fitting: Fitting = UNFITTED


NO_WISH: Final = Wish("")
SETUPS_AT_ONCE: Final = 4  # each may be an installation that takes all the cores it gets
_OURS: Final = ("AGENTD_", "TMUX")  # variables by which a command would be taken for an agent's, or find its terminal


class Lodging:
    """Makes worktrees for agents and cleans them up behind them; work in them is never lost."""

    def __init__(self, worktrees: Worktrees, projects: Projects, environ: Mapping[str, str], log: Log) -> None:
        self._worktrees = worktrees
        self._projects = projects
        self._environ = {name: value for name, value in environ.items() if not name.startswith(_OURS)}
        self._log = log
        self._setups = anyio.CapacityLimiter(SETUPS_AT_ONCE)

    async def wish(self, cwd: str, branch: str | None) -> Wish:
        """Return the wish for a worktree of the repository around a directory; raises what is wrong with that."""
        return Wish(await self._worktrees.repository(cwd), branch, await self._projects.fitting(cwd))

    async def fresh_wish(self, cwd: str) -> Wish:
        """Return the wish for worktrees to come; raises also when there is no commit to begin them at."""
        wish = await self.wish(cwd, None)
        await self._worktrees.check_start(cwd)
        return wish

    async def lodge(self, agent: Agent, wish: Wish) -> Agent:
        """Return the agent with the directory its program is to start in; a worktree is made and set up on the way.

        Where that fails, nothing of the worktree is left.
        """
        if not wish.repo:
            return agent
        worktree = await self._worktrees.create(agent.cwd, agent.id, wish.branch)
        submodules = await self._worktrees.submodules(worktree)
        if submodules:
            self._log.info("submodules are not checked out", path=worktree.path, submodules=submodules)
        try:
            await self._set_up(worktree, wish.fitting.setup)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self._give_up(worktree)
            if isinstance(error, AgentdError):
                error.hint = "nothing was started; correct `setup`, or what it needs: agentd project"
            raise
        return replace(agent, cwd=worktree.path, repo=worktree.repo, branch=worktree.branch)

    async def _set_up(self, worktree: Worktree, setup: Setup | None) -> None:
        if setup is None:
            return
        async with self._setups:
            await self._worktrees.setup(worktree, setup.words, setup.timeout_s, self._environ)

    async def _give_up(self, worktree: Worktree) -> None:
        try:
            await self._worktrees.clean(worktree, force=True)
        except AgentdError as error:
            self._log.warning("a worktree without its setup is left", path=worktree.path, error=error.message)

    async def refresh(self, agent: Agent, branch: str | None, origin: str) -> Agent:
        """Return a slot whose worktree is at its repository's HEAD, on the branch that was asked for.

        `origin` is the directory it was made from. Raises Conflict, NotFound, AlreadyExists or DeadlineExceeded when
        it cannot be had so.
        """
        worktree = await self.of(agent)
        if worktree is None:
            raise NotFound(f"{agent.cwd} is gone", hint="start it again")
        if await self._worktrees.head(worktree.repo) != worktree.base:
            renewed = await self._worktrees.renew(worktree)
            if renewed is not None:
                setup = (await self._projects.fitting(origin)).setup
                await self._set_up(renewed, None if setup and setup.once else setup)
                worktree = renewed
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
