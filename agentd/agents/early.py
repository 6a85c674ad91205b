"""What programs print before we know in which pane they live: kept for a moment, within a bound."""

from __future__ import annotations

from typing import Final

from agentd.tmux.tmux import Output

MOST_BYTES: Final = 4 * 1024 * 1024  # of all panes together

Place = tuple[str, str]  # server and pane


class Early:
    """Keeps the output of panes that nobody is known to live in, while agents are being started."""

    def __init__(self) -> None:
        self._kept: dict[Place, list[Output]] = {}
        self._size_bytes = 0

    def keep(self, output: Output) -> None:
        """Keep output; over the bound, an empty one stands for what is left out."""
        kept = self._kept.setdefault((output.server, output.pane_id), [])
        if self._size_bytes + len(output.escaped) <= MOST_BYTES:
            self._size_bytes += len(output.escaped)
            kept.append(output)
        elif not kept or kept[-1].escaped:
            kept.append(Output(output.pane_id, b"", output.server))

    def take(self, place: Place) -> list[Output]:
        """Return what a pane printed, and forget it."""
        taken = self._kept.pop(place, [])
        self._size_bytes -= sum(len(output.escaped) for output in taken)
        return taken

    def clear(self) -> None:
        """Forget everything: nobody is being started any more."""
        self._kept.clear()
        self._size_bytes = 0
