"""The watch over each live agent: its terminal, its courier and its state, put together and set going."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import anyio

from agentd.agents.asking import Asking
from agentd.agents.booted import Booted
from agentd.agents.courier import Courier
from agentd.agents.crew_parts import CrewParts
from agentd.agents.ends import Ends
from agentd.agents.ledger import Ledger
from agentd.agents.live import LiveAgent
from agentd.agents.profile import Profile
from agentd.agents.roster import Roster
from agentd.agents.status import Status
from agentd.agents.terminal import Terminal
from agentd.records import Agent, Delivery, PaneRef
from agentd.transcripts.transcripts import Recording


class Watch:
    """Begins to watch agents, and can stop all deliveries."""

    def __init__(self, parts: CrewParts, roster: Roster, ledger: Ledger, ends: Ends) -> None:
        self._parts = parts
        self._roster = roster
        self._ledger = ledger
        self._ends = ends
        self._quiet = False  # no delivery is begun any more

    def begin(
        self,
        agent: Agent,
        profile: Profile,
        pane: PaneRef,
        *,
        started: bool = False,
        booted: Booted | None = None,
        recovered: Sequence[Delivery] = (),
    ) -> None:
        """Watch an agent until its program ends; `recovered` is what the last daemon was delivering to it."""
        parts = self._parts
        terminal = Terminal(parts.tmux, pane, profile, parts.config.courier.confirm_s)
        live = LiveAgent(
            agent.id,
            profile,
            terminal,
            Courier(
                agent.id,
                profile,
                terminal,
                parts.mailbox,
                parts.config.courier,
                parts.directory.display,
                parts.metrics,
                random.random,
            ),
            Status(
                settle_s=profile.boot.settle_ms / 1000,
                boot_timeout_s=profile.boot.timeout_s,
                now_s=time.monotonic(),
                quiet_s=profile.quiet_s,
                started=started,
            ),
            Asking(agent.id, profile, terminal, parts.audit.decided, parts.audit.answered),
            Recording(parts.transcripts, agent.id),
            on_opinion=self._ledger.on_opinion,
            on_asked=self._ledger.on_asked,
            on_report=self._ledger.on_report,
            on_notice=self._ledger.on_notice,
            may_deliver=lambda: not self._quiet,
            log=parts.log,
            booted=booted,
        )
        self._roster.add(live)
        self._roster.start(live.run, recovered, self._ends.on_end)

    async def quiesce(self, timeout_s: float) -> None:
        """Begin no delivery any more, and let those under way come to their end."""
        self._quiet = True
        with anyio.move_on_after(timeout_s):
            for live in list(self._roster.live.values()):
                await live.between_deliveries()
