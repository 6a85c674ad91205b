"""The command that an agent's own program runs to be given tools."""

from __future__ import annotations

import os

from agentd.mcp.stdio import serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values


def mcp(_values: Values) -> int:
    """Serve MCP on stdin and stdout."""
    return serve(os.environ)
