"""What the rooms of the crew are built from; all are required."""

from __future__ import annotations

from dataclasses import dataclass

from agentd.agents.audit import Audit
from agentd.agents.directory import Directory
from agentd.agents.lodging import Lodging
from agentd.agents.places import Places
from agentd.agents.profile import Profiles
from agentd.agents.registry import Registry
from agentd.config import Config
from agentd.events import Events
from agentd.logs import Log
from agentd.mailbox.mailbox import Mailbox
from agentd.metrics import Metrics
from agentd.tmux.fleet import Fleet
from agentd.transcripts.transcripts import Transcripts


@dataclass(frozen=True, slots=True)
class CrewParts:
    """The parts that the composition root hands to the crew."""

    tmux: Fleet
    mailbox: Mailbox
    registry: Registry
    directory: Directory
    profiles: Profiles
    events: Events
    metrics: Metrics
    config: Config
    places: Places
    lodging: Lodging
    audit: Audit
    transcripts: Transcripts
    instance: str
    umask: int  # of whoever started the daemon: ours is 077, and agents' files are their user's business
    log: Log
