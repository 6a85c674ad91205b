"""agentd runs teams of terminal agents in tmux as a service; the public names load on first use."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agentd.client import CallError, Client, connect
    from agentd.errors import AgentdError

__version__ = "0.1.0"
__all__ = ["AgentdError", "CallError", "Client", "__version__", "connect"]

_HOMES = {
    "connect": "agentd.client",
    "Client": "agentd.client",
    "CallError": "agentd.client",
    "AgentdError": "agentd.errors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'agentd' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)
