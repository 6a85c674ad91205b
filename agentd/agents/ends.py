"""How agents end: on request, by themselves, or with their tmux server."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import anyio
import anyio.to_thread

from agentd.agents import survivors
from agentd.agents.crew_parts import CrewParts
from agentd.agents.ledger import Ledger, ended
from agentd.agents.live import Ended, LiveAgent
from agentd.agents.profile import Profile
from agentd.agents.roster import Roster
from agentd.errors import AgentdError, AgentGone, StaleTarget
from agentd.records import Agent, AgentState, MessageState, PaneRef

BURY_S = 1.0  # what a program that has ended left running gets to hang up
LOST = "lost: its tmux server ended"


class Ends:
    """Ends programs with all they started, and writes down how each ended."""

    def __init__(self, parts: CrewParts, roster: Roster, ledger: Ledger) -> None:
        self._parts = parts
        self._roster = roster
        self._ledger = ledger
        self.on_crash: list[Callable[[Agent], None]] = []

    # -- on request

    async def stop(self, agent: Agent, *, force: bool) -> Agent:
        """End an agent's program and everything it started; what waits in its inbox is kept."""
        live = self._roster.live.get(agent.id)
        if live is None and agent.state is AgentState.STOPPED:
            return agent
        with anyio.CancelScope(shield=True):  # a caller who goes away must not leave half an agent
            if live is not None:
                stopped = await self._stop(agent, live, force=force)
            else:
                as_stopped = ended(agent, AgentState.STOPPED, agent.reason, agent.exit_status)
                stopped = (await self._ledger.keep([as_stopped]))[0]
        return stopped

    async def _stop(self, agent: Agent, live: LiveAgent, *, force: bool) -> Agent:
        timeout_s = 0.0 if force else self._parts.config.agents.stop_timeout_s
        with self._roster.being_stopped([live.id]):
            try:
                self._ledger.keep_screen(live.id, (await live.terminal.capture(None, escapes=False)).text)
                if not force and await live.end_by_itself():
                    self._keep_session(live, (await live.terminal.capture(None, escapes=False)).text)
                await self._parts.tmux.kill(live.terminal.ref, timeout_s)
            except (AgentGone, StaleTarget):
                pass  # it ended by itself meanwhile
        if self._roster.live.get(live.id) is not live:  # another stop, or its tmux server's end, was quicker
            gone = ended(
                agent, AgentState.STOPPED, "stopped on request", None
            )  # a slot of the pool is forgotten at once
            return self._parts.directory.get(live.id) or gone
        self._roster.remove(live.id)
        stopped = ended(self._parts.directory.entry(live.id).agent, AgentState.STOPPED, "stopped on request", None)
        await self._ledger.keep([stopped])
        await self.forget_oldest()
        return stopped

    # -- by itself

    async def on_end(self, live: LiveAgent, how: Ended) -> None:
        """Write down that an agent's program ended, and remove what it left."""
        if not self._is_ours_to_tell(live):
            return
        self._ledger.keep_screen(live.id, how.screen)
        self._keep_session(live, how.screen)
        await self._give_back_unacked(live.id, live.profile)
        # Before its end is told: who starts it again at once must not find the old session.
        await self.bury(live.terminal.ref)
        if not self._is_ours_to_tell(live):
            return
        self._roster.remove(live.id)
        state = AgentState.STOPPED if how.exit_status == 0 else AgentState.FAILED
        agent, why = self._parts.directory.entry(live.id).agent, _how_it_ended(how)
        if how.exit_status and not live.status.started and agent.resume_id:
            why = f"{why} before it was ready; its session {agent.resume_id} is given up, and a respawn begins another"
            agent = replace(agent, resume_id="", log_path="")
        (kept,) = await self._ledger.keep([ended(agent, state, why, how.exit_status)])
        await self.forget_oldest()
        if state is AgentState.FAILED:
            for tell in self.on_crash:
                tell(kept)

    def _keep_session(self, live: LiveAgent, last_screen: str) -> None:
        """Keep the session that a program names when it ends."""
        session = live.profile.resume.session_on(last_screen)
        if session:
            self._ledger.put(replace(self._parts.directory.entry(live.id).agent, resume_id=session))

    def _is_ours_to_tell(self, live: LiveAgent) -> bool:
        """Tell whether nobody ends it meanwhile, or has ended it and perhaps started it again."""
        return self._roster.live.get(live.id) is live and live.id not in self._roster.stopping

    async def bury(self, pane: PaneRef) -> None:
        """Remove a pane whose program has ended, or that nobody knows."""
        try:
            await self._parts.tmux.kill(pane, BURY_S)
        except AgentdError as error:
            self._parts.log.warning("could not remove a dead pane", pane=pane.pane_id, error=error.message)

    async def forget_oldest(self) -> None:
        """Remove the oldest ended agents beyond those that stay listed."""
        depth, known = self._parts.mailbox.depth, self._roster.known
        gone = [agent for agent in self._parts.directory if not known(agent.id) and not depth(agent.id)]
        gone.sort(key=lambda agent: agent.since_ns, reverse=True)
        await self._ledger.discard([agent.id for agent in gone[self._parts.config.agents.keep_stopped :]])

    async def _give_back_unacked(self, agent_id: str, profile: Profile) -> None:
        """Offer again what was typed into a program that acknowledges and ended before it did."""
        if not profile.acks:
            return
        mailbox = self._parts.mailbox
        unacked = await mailbox.inbox(agent_id, [MessageState.DELIVERED], 10_000)
        if unacked:
            ids = [message.id for message in unacked]
            why = "the agent ended before it acknowledged"
            await mailbox.nack(ids, 0.0, why, self._parts.config.courier.max_attempts)

    # -- with its server

    async def server_gone(self, server: str) -> Sequence[Agent]:
        """Write down that every agent of a dead tmux server failed, and return them; its survivors are ended first.

        Until then they count as live: one that is started again at once must not be taken for its own survivor.
        """
        gone = self._roster.on_server(server)
        self._parts.log.error("tmux server gone", server=server, agents=len(gone))
        with self._roster.being_stopped(gone):  # their own tasks see an end, too; it is told here
            await self.end_survivors([self._parts.directory.entry(agent_id).agent.home for agent_id in gone])
            for live in [live for live in self._roster.live.values() if live.id in gone]:
                await self._give_back_unacked(live.id, live.profile)
        gone &= self._roster.live.keys()  # less what a stop that was under way has dealt with
        for agent_id in gone:
            self._roster.remove(agent_id)
        agents = [self._parts.directory.entry(agent_id).agent for agent_id in gone]
        failed = await self._ledger.keep([ended(agent, AgentState.FAILED, LOST, None) for agent in agents])
        self._parts.events.emit("tmux.gone", server=server, agents=len(gone))
        return failed

    async def end_survivors(self, homes: Collection[str]) -> None:
        """End what agents started and their tmux server's end did not."""
        pids = await anyio.to_thread.run_sync(survivors.end_all, self._parts.instance, homes)
        if pids:
            self._parts.log.warning("ended programs that outlived their pane", pids=pids)


def _how_it_ended(how: Ended) -> str:
    if how.exit_signal:
        return f"its program was killed by signal {_signal_name(how.exit_signal)}"
    if how.exit_status is None:
        return "its program ended, and tmux did not learn how"
    return f"its program exited with status {how.exit_status}"


def _signal_name(number: str) -> str:
    try:
        return f"{number} ({signal.Signals(int(number)).name})"
    except ValueError:
        return number
