"""Commands about agentd itself."""

from __future__ import annotations

from agentd import __version__
from agentd.cli.output import emit, say
from agentd.errors import EXIT_OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values


def demo(values: Values) -> int:
    """Do the main job on an instance of its own."""
    from agentd.demo import run

    return run(as_json=values["json"])


def version(values: Values) -> int:
    """Print the version."""
    if values["json"]:
        import sys

        from agentd.wire import PROTOCOL

        python = ".".join(map(str, sys.version_info[:3]))
        emit({"version": __version__, "protocol": PROTOCOL, "python": python, "executable": sys.executable})
    else:
        say(f"agentd {__version__}")
    return EXIT_OK
