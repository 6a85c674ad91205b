"""What stands for an agent's own places in its profile's words and files, and how it is written where."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_MARK = re.compile(r"\{(private|cwd|cwd_quoted|agentd|python|socket)\}")
_TOML_UNWRITABLE = re.compile(r'["\\\x00-\x1f\x7f]')

Write = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Placeholders:
    """The values for one agent; a brace around anything else is left as it stands."""

    private: str  # its private directory
    cwd: str
    agentd: str  # a program that is this very agentd, wherever and with whatever environment it is started
    python: str
    socket: str

    @property
    def cwd_quoted(self) -> str:
        """Return the working directory as a string of TOML, with its quotes."""
        return f'"{_in_toml_string(self.cwd)}"'

    def words(self, words: Sequence[str]) -> list[str]:
        """Return words of a command line, or values of an environment, with the values as they are."""
        return [self._fill(word, {}, str) for word in words]

    def file(self, name: str, text: str) -> str:
        """Return a file's text; its name's ending says how a value is written in it.

        In strings of JSON and TOML quotes and backslashes are escaped. `{agentd}` is one word of a shell's command.
        """
        return self._fill(text, {"agentd": shlex.quote(self.agentd)}, _writer(name))

    def _fill(self, text: str, values: dict[str, str], write: Write) -> str:
        return _MARK.sub(lambda mark: write(values.get(mark[1]) or getattr(self, mark[1])), text)


def _writer(name: str) -> Write:
    if name.endswith(".json"):
        return lambda value: json.dumps(value, ensure_ascii=False)[1:-1]
    if name.endswith(".toml"):
        return _in_toml_string
    return str


def _in_toml_string(value: str) -> str:
    return _TOML_UNWRITABLE.sub(_toml_escape, value)


def _toml_escape(found: re.Match[str]) -> str:
    return f"\\{found[0]}" if found[0] in '"\\' else f"\\u{ord(found[0]):04x}"
