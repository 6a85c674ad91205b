"""The built parts that a call may use; all are required."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentd.agents.causes import Causes
from agentd.agents.crew import Crew
from agentd.agents.directory import Directory
from agentd.agents.lodging import Lodging
from agentd.agents.loops import Loops
from agentd.agents.offspring import Offspring
from agentd.agents.places import Places
from agentd.agents.pool import Pool
from agentd.agents.profile import Profiles
from agentd.agents.profile_watch import ProfileWatch
from agentd.agents.projects import Projects
from agentd.agents.refusals import Refusals
from agentd.agents.registry import Registry
from agentd.agents.teams import Teams
from agentd.agents.waiters import Waiters
from agentd.api.event_rows import PackedEvents
from agentd.cache.cache import Cache
from agentd.config import Config
from agentd.errands.errands import Errands
from agentd.events import Events
from agentd.logs import Log
from agentd.mailbox.mailbox import Mailbox
from agentd.mailbox.search import Search
from agentd.metrics import Metrics
from agentd.switches import Switches
from agentd.tmux.fleet import Fleet
from agentd.tmux.queries import Queries
from agentd.transcripts.search import TranscriptSearch
from agentd.transcripts.transcripts import Transcripts

if TYPE_CHECKING:
    from agentd.api.agent_rows import PackedAgents  # which is made of parts itself


@dataclass(frozen=True, slots=True)
class Parts:
    """What the composition root built."""

    config: Config
    overrides: Sequence[str]
    instance: str
    started_ns: int
    tmux: Fleet
    cache: Cache
    queries: Queries
    switches: Switches
    mailbox: Mailbox
    search: Search
    registry: Registry
    directory: Directory
    places: Places
    lodging: Lodging
    projects: Projects
    offspring: Offspring
    transcripts: Transcripts
    transcript_search: TranscriptSearch
    profiles: Profiles
    profile_watch: ProfileWatch
    crew: Crew
    pool: Pool
    teams: Teams
    waiters: Waiters
    loops: Loops
    causes: Causes
    refusals: Refusals
    events: Events
    packed_events: PackedEvents
    packed_agents: PackedAgents
    errands: Errands
    metrics: Metrics
    log: Log
    request_stop: Callable[[str], None]  # "keep" or "stop" the agents
