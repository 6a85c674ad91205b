"""How the program of an agent that is stopped becomes a slot of the pool: another agent, with nothing of the old one.

What the program was booted with stays with it: the session's name, the directory of its files and its environment
carry one id, `booted_as`, which goes over to the slot. The agent that is stopped gets a fresh one, for its next start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

import anyio
import anyio.to_thread

from agentd.agents import survivors
from agentd.agents.booted import clock_s
from agentd.agents.crew_parts import CrewParts
from agentd.agents.ends import Ends
from agentd.agents.handout import show_name
from agentd.agents.ids import new_agent_id, new_token
from agentd.agents.ledger import Ledger, ended
from agentd.agents.live import LiveAgent
from agentd.agents.profile import Profile, Recycle
from agentd.agents.registry import Entry, digest
from agentd.agents.roster import Roster
from agentd.agents.terminal import Outcome, Terminal
from agentd.agents.watch import Watch
from agentd.errors import AgentdError, AgentGone
from agentd.failpoint import failpoint
from agentd.records import Agent, AgentState, PaneRef

REST_S = 2.5  # who stops an agent waits so long at most for it to be at rest: `quiet_s` of most profiles, and a look
WHY = "stopped on request; its program was recycled"


class Recycling:
    """Takes programs from agents that are stopped, and has them forget whom they served."""

    def __init__(self, parts: CrewParts, roster: Roster, ledger: Ledger, ends: Ends, watch: Watch) -> None:
        self._parts = parts
        self._roster = roster
        self._ledger = ledger
        self._ends = ends
        self._watch = watch
        self.on_retired: list[Callable[[str], None]] = []  # told whose connections are to be closed

    # -- whether

    async def why_not(self, agent: Agent) -> str:
        """Return why the program of an agent cannot be recycled; empty when it can."""
        live = self._roster.live.get(agent.id)
        if live is None:
            return "its program has ended"
        try:
            return self._unfit(agent, live) or await self._unready(live) or await self._looks_unfit(agent, live)
        except AgentdError as error:
            return error.message

    def _unfit(self, agent: Agent, live: LiveAgent) -> str:
        """Return what is against it by what is known."""
        profile, booted = self._parts.profiles.get(agent.profile), live.booted
        if profile.recycle is None:
            return "its profile has no [recycle]"
        if agent.env or agent.repo:
            return "it was started with variables of its own" if agent.env else "it has a worktree of its own"
        if booted is None or booted.profile != profile or live.profile != profile:
            return "its program was not started by this daemon from its profile as it is now"
        if clock_s() - booted.at_s > self._parts.config.pool.max_age_s:
            return "its program is as old as slots may get"
        return "it is being stopped" if agent.id in self._roster.stopping else ""

    async def _unready(self, live: LiveAgent) -> str:
        """Return why nothing can be typed; a turn that has just ended is followed by the quiet that proves it."""
        if await live.comes_to_rest(REST_S):
            return ""
        return f"it cannot take input now ({live.status.opinion.state}: {live.status.opinion.reason})"

    async def _looks_unfit(self, agent: Agent, live: LiveAgent) -> str:
        """Return what is against it by what can be seen."""
        look, verdict = await live.terminal.look()
        if verdict.state is not AgentState.IDLE or verdict.draft:
            return f"it cannot take input now ({verdict.reason})"
        around = await self._parts.tmux.surroundings(live.terminal.ref)
        if look.in_mode or around.people:
            return "somebody is attached to it"
        if not _is_same(around.cwd, agent.cwd):
            return "it is not in its directory any more"
        if not self._parts.places.as_seeded(agent, live.profile):
            return "the files that it was given have changed"
        given = (self._parts.instance, agent.home, live.terminal.ref.pid, live.owned_since_s)
        left = await anyio.to_thread.run_sync(survivors.begun_since, *given)
        return f"{len(left)} programs that it started still run" if left else ""

    # -- the old one ends

    async def retire(self, agent: Agent, slot: Agent) -> Agent | None:
        """End an agent and give its program to a slot, in one commit; None when it must be stopped as ever."""
        live = self._roster.live.get(agent.id)
        if live is None or agent.id in self._roster.stopping:
            return None
        with self._roster.being_stopped([agent.id]):
            try:
                screen = (await live.terminal.capture(None, escapes=False)).text
            except AgentdError:
                return None
            if not await live.retire() or self._roster.live.get(agent.id) is not live:
                return None
            before, token = self._parts.directory.entry(agent.id), new_token()
            stopped = replace(ended(before.agent, AgentState.STOPPED, WHY, None), booted_as=new_agent_id())
            failpoint("recycle.before_commit")
            try:  # the old token dies with it: nothing that holds it speaks for anybody any more
                await self._ledger.save_new([Entry(stopped, ""), Entry(slot, digest(token))])
            except AgentdError:
                self._ledger.drop([slot.id])
                self._ledger.put_back([before])
                return None
            failpoint("recycle.after_commit")
            self._hand_on(stopped, slot, live)
        self._ledger.keep_screen(stopped.id, screen)
        self._write_down(slot, token)
        self._ledger.tell("agent.state", stopped)
        await self._ends.forget_oldest()
        return stopped

    def _hand_on(self, stopped: Agent, slot: Agent, live: LiveAgent) -> None:
        """Let the program be the slot's from now on, and nobody speak for the old one."""
        if self._roster.live.get(stopped.id) is live:
            self._roster.remove(stopped.id)
        self._roster.renewed[slot.id] = live.terminal.ref
        for tell in self.on_retired:
            tell(stopped.id)

    def _write_down(self, slot: Agent, token: str) -> None:
        """Let the program know who it is; what cannot be written is found when it is renewed."""
        try:
            self._parts.places.write_token(slot.home, token)
            self._parts.places.write_identity(slot)
        except AgentdError as error:
            self._parts.log.warning("could not tell a program who it is", agent=slot.id, error=error.message)
            self._roster.renewed.pop(slot.id, None)

    # -- the new one begins

    async def renew(self, slot: Agent, live: LiveAgent) -> str:
        """Have a slot's program forget whom it served, and watch it from then on; return why it could not.

        Then it is ended, and the slot forgotten.
        A crash on the way leaves a slot that is `spent`, which the next daemon ends.
        """
        booted, profile, pane = live.booted, live.profile, live.terminal.ref
        with self._roster.being_started([slot.id]):
            try:
                if slot.id not in self._roster.renewed or booted is None or profile.recycle is None:
                    raise AgentGone("its program could not be told who it is")
                await self._forget(pane, profile, profile.recycle)
                failpoint("recycle.before_ready")
                fresh = replace(self._parts.directory.entry(slot.id).agent, spent=False)
                await self._ledger.keep([fresh])
                failpoint("recycle.after_ready")
            except AgentdError as error:
                await self._give_up(slot, pane)
                return error.message
            finally:
                self._roster.renewed.pop(slot.id, None)
            self._watch.begin(fresh, profile, pane, booted=booted)
        self._roster.start(show_name, self._parts, fresh)
        return ""

    async def _forget(self, pane: PaneRef, profile: Profile, recycle: Recycle) -> None:
        """Type the command for a new session, see that there is one, and forget what has scrolled away."""
        terminal = Terminal(self._parts.tmux, pane, profile, self._parts.config.courier.confirm_s)
        with anyio.move_on_after(recycle.timeout_s) as limit:
            attempt = await terminal.submit(recycle.text)
            failpoint("recycle.after_typing")
            if attempt.outcome is not Outcome.SUBMITTED:
                raise AgentGone(f"its program did not take `{recycle.text}`: {attempt.detail}")
            await terminal.comes_to(recycle.expect)
            await self._parts.tmux.forget_scrollback(pane)
        if limit.cancelled_caught:
            raise AgentGone(f"its program showed no new session within {recycle.timeout_s:g} s")

    async def _give_up(self, slot: Agent, pane: PaneRef) -> None:
        with anyio.CancelScope(shield=True):
            await self._ends.bury(pane)
            await self._ends.end_survivors([slot.home])
            await self._ledger.discard([slot.id])


def _is_same(place: str, other: str) -> bool:
    return bool(place) and os.path.realpath(place) == os.path.realpath(other)


def slot_for(agent: Agent) -> Agent:
    """Return the slot that takes over an agent's program: a new agent in the same place."""
    id_, now_ns = new_agent_id(), time.time_ns()
    return Agent(
        id=id_,
        name=f"pool-{id_}",
        profile=agent.profile,
        state=AgentState.STARTING,
        reason="its program is to forget whom it served",
        cwd=agent.cwd,
        pane=agent.pane,
        created_ns=now_ns,
        since_ns=now_ns,
        pooled=True,
        trusted=agent.trusted,
        booted_as=agent.home,
        spent=True,
    )
