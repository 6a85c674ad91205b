"""What is said of parameters that are not of their call's type."""

from __future__ import annotations

import msgspec
import pytest

from agentd.doors.refused_values import invalid
from agentd.wire.calls import CALLS

NAME = "a name is like build-2: a lower-case letter, then letters, digits and dashes, 48 at most"
CASES = [
    ("agents.list", {"state": "nope"}, "`nope` is none of the choices, at $.state", "idle"),
    ("messages.send", {"to": "a", "body": "x", "priority": "urgent"}, "`urgent` is none", "high"),
    ("mailbox.export", {"states": ["dead", "nope"]}, "`nope` is none of the choices, at $.states[...]", "delivering"),
    ("agents.spawn", {"profile": "sh", "name": "Bad Name"}, "`Bad Name` has not the right form, at $.name", NAME),
    ("agents.spawn", {"profile": "sh", "team": "X" * 99}, "…` has not the right form, at $.team", NAME),
    ("agents.spawn", {"profile": "sh", "env": {"1A": "x"}}, "has not the right form, at $.env", "no digit first"),
    ("messages.send", {"to": "a", "body": "x", "reply_to": "!"}, "`!` has not the right form", "m0333d61yevqh"),
    ("agents.spawn", {"profile": 7}, "Expected `str`, got `int`, at $.profile", "`agentd schema` has the types"),
    ("agents.spawn", {"profile": "sh", "n": 0}, "Expected `int` >= 1, at $.n", "`agentd schema` has the types"),
    ("agents.spawn", {}, "missing required field `profile`, at $", "`agentd schema` has the types"),
    ("agents.spawn", [], "Expected `object`, got `array`, at $", "`agentd schema` has the types"),
]


@pytest.mark.parametrize(("method", "params", "says", "hint"), CASES, ids=[case[2] for case in CASES])
def test_the_value_and_what_it_may_be(method, params, says, hint):
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(params, CALLS[method].params)
    error = invalid(method, CALLS[method].params, params, caught.value)
    assert says in error.message.replace("[1]", "[...]")
    assert hint in error.hint
    assert "regex" not in error.message
    assert "enum" not in error.message


def test_every_pattern_of_the_table_says_its_form():
    def patterns(info, described=False):
        inner = getattr(info, "type", None)
        if isinstance(info, msgspec.inspect.Metadata):
            yield from patterns(inner, described=bool((info.extra_json_schema or {}).get("description")))
            return
        if getattr(info, "pattern", None):
            yield described
        for part in (*getattr(info, "types", ()), *(field.type for field in getattr(info, "fields", ()))):
            yield from patterns(part)
        for name in ("item_type", "key_type", "value_type"):
            if hasattr(info, name):
                yield from patterns(getattr(info, name))

    for call in CALLS.values():
        assert all(patterns(msgspec.inspect.type_info(call.params))), call.name
