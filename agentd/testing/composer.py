"""The demo agent's input line: what is typed shows as it is, a long paste as a placeholder."""

from __future__ import annotations

from agentd.agents.text import sanitise

LONG_PASTE_CHARS = 400
PLACEHOLDER_CHARS = 40


class Composer:
    """Text that is not submitted yet, as pieces that are shown and pieces that stand for more."""

    def __init__(self) -> None:
        self._pieces: list[tuple[str, str]] = []  # (shown, meant)

    @property
    def shown(self) -> str:
        """Return what stands on the input line."""
        return "".join(shown for shown, _ in self._pieces)

    @property
    def text(self) -> str:
        """Return what would be submitted."""
        return "".join(meant for _, meant in self._pieces)

    def type(self, char: str) -> None:
        """Add a typed character."""
        self._pieces.append((one_line(char), char))

    def paste(self, text: str) -> None:
        """Add a paste; one of several lines, or a long one, is folded."""
        if "\n" not in text and len(text) <= LONG_PASTE_CHARS:
            self._pieces += [(one_line(char), char) for char in text]
            return
        lines = text.count("\n") + 1
        self._pieces.append((f"[pasted {lines} lines: {one_line(text[:PLACEHOLDER_CHARS])}...]", text))

    def erase(self) -> None:
        """Take the last piece away."""
        del self._pieces[-1:]

    def clear(self) -> None:
        """Take everything away."""
        self._pieces.clear()


def one_line(text: str) -> str:
    """Return the text as it can stand on one line of a screen."""
    return sanitise(text).replace("\n", " ").replace("\t", "    ")
