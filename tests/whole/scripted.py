"""Agents whose program is a few lines of sh: they are ready at `ready> ` on a line of its own."""

from __future__ import annotations

from instance import Instance

_PROFILE = """\
command = "sh"
args = ["-c", '''{script}''', "sh"]
delivery = "pull"
{tables}
[boot]
settle_ms = 10
[input]
bracketed = false
multiline = false
verify = false
[[rules]]
state = "idle"
screen = '^ready>$'
tail = 1
"""


def add_scripted(whole: Instance, name: str, script: str, tables: str = "") -> None:
    """Give an instance, before its daemon starts, a profile of such agents; `tables` are further ones of its file."""
    profiles = whole.directory / "profiles"
    profiles.mkdir(exist_ok=True)
    (profiles / f"{name}.toml").write_text(_PROFILE.format(script=script, tables=tables))
