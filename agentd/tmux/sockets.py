"""What is at the places of our servers' sockets."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from agentd.errors import Conflict

_PROBE_S = 1.0


def check_free(path: str) -> None:
    """Raise Conflict when something else than a socket is there: tmux would take its place."""
    if Path(path).exists() and not Path(path).is_socket():
        raise Conflict(f"{path} is there and is not a socket; it was left alone", hint="move it away")


def living(paths: Mapping[int, str]) -> list[int]:
    """Return the indices at which a server accepts connections; sockets of dead ones are removed."""
    return [index for index, path in paths.items() if Path(path).is_socket() and _answers(path)]


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(FileNotFoundError):
                Path(path).unlink()
            return False
        except OSError:  # it accepts nothing at the moment: it lives, and says later what is the matter with it
            return True
    return True
