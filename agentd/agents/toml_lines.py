"""At which line of a TOML text a key stands; Python's reader does not tell."""

from __future__ import annotations

import re
from collections import Counter

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*["']?([^"'=\s]+)["']?\s*=""")
_INDEX = re.compile(r"\[[^\[\]]*\]$")


def line_of(text: str, key: str) -> int | None:
    """Return the line of a key like `input.envelope` or `rules[2].screen`, else that of its table; None for neither."""
    wanted_table, _, wanted = key.rpartition(".")
    tables: Counter[str] = Counter()
    table, table_line = "", None
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.fullmatch(line):
            table = _table(header, tables)
            table_line = number if table in (wanted_table, key) else table_line
        elif table == wanted_table and (found := _KEY.match(line)) and found[1] in (wanted, _INDEX.sub("", wanted)):
            return number
    return table_line


def _table(header: re.Match[str], tables: Counter[str]) -> str:
    name = header[2]
    if header[1] == "[":
        return name
    tables[name] += 1
    return f"{name}[{tables[name] - 1}]"
