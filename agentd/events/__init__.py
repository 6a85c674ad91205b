"""What happened: a ring that every reader shares, the files behind it, and following both from an id on."""

from agentd.events.events import Events

__all__ = ["Events"]
