"""What the guides show works, and their tables say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from instance import Instance

from agentd.errors import WIRE_CODES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_profile_of_the_guide(running: Instance):
    found = re.search(r"```toml\n(.*?)```", (DOCS / "profiles.md").read_text(), re.DOTALL)
    assert found
    profiles = running.directory / "profiles"
    profiles.mkdir()
    (profiles / "py.toml").write_text(found[1])
    running.cli("restart")
    running.cli("spawn", "py", "--wait", "idle")
    running.cli("send", "py-1", "print(6 * 7)", "--wait", "delivered", "--timeout", "20")
    assert "42" in running.cli("read", "py-1").stdout
    screen = running.screen(running.json("show", "py-1"))
    verdict = running.cli("profile", "classify", "py", "-", "--json", input_=screen).stdout
    assert '"idle"' in verdict


def test_the_table_of_errors_is_the_tree_of_errors():
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| (\d) \|", (DOCS / "calls.md").read_text(), re.MULTILINE)
    told = {code: (repeat == "yes", int(exit_code)) for code, repeat, exit_code in rows}
    assert told == {code: (cls.retryable, cls.exit_code) for code, cls in WIRE_CODES.items()}
