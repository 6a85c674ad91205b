"""The table of event types is whole: what the code emits stands in it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import agentd
from agentd.records import EVENT_TYPES, MessageState

EMITTED = re.compile(r'(?:emit|tell)\((?:\([^\n]*\), )?\s*"(\w+\.\w+)"')


def test_what_the_code_emits_is_in_the_table():
    sources = [path for path in Path(agentd.__file__).parent.rglob("*.py") if "cli" not in path.parts]
    emitted = {type_ for path in sources for type_ in EMITTED.findall(path.read_text())}
    assert emitted | {f"message.{state}" for state in MessageState} == set(EVENT_TYPES)
