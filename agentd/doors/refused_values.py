"""What to say of a parameter that is not of its call's type: which, what it was, and what it may be."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import inspect

from agentd.errors import InvalidValue

SEE_SCHEMA = "`agentd schema` has the types"
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_KEY = "a key"  # the step to a map's keys
_SHOWN = 60  # characters of a value


def invalid(method: str, wanted: Any, params: Any, error: msgspec.ValidationError) -> InvalidValue:
    """Return the error for parameters that msgspec refused; choices and forms of names are told, never a pattern."""
    what, at, path = str(error).rpartition(" - at `")
    path = path.rstrip("`").removeprefix("key` in `")
    field = path if at else "$"
    what = what if at else str(error)
    steps = [name or index for name, index in _STEP.findall(field)] + ([_KEY] if "key` in `" in str(error) else [])
    meant, hint = _meant(inspect.type_info(wanted), steps), SEE_SCHEMA
    if choices := _choices(meant):
        what = f"{_shown(params, steps)} is none of the choices"
        hint = f"it is one of {', '.join(choices)}"
    elif "matching regex" in what and (form := _form(meant)):
        what = f"{_shown(params, steps)} has not the right form"
        hint = form
    return InvalidValue(f"{method}: {what}, at {field}", field=field, hint=hint)


def _meant(info: inspect.Type, steps: list[str]) -> list[inspect.Type]:
    """Return the types that may stand where the steps lead; more than one where there is a choice."""
    if isinstance(info, inspect.UnionType):
        return [found for part in info.types for found in _meant(part, steps)]
    if isinstance(info, inspect.Metadata):
        below = _meant(info.type, steps)
        return [info] if not steps and info.extra_json_schema else below
    if not steps:
        return [info]
    first, rest = steps[0], steps[1:]
    if isinstance(info, inspect.StructType):
        return [found for field in info.fields if field.encode_name == first for found in _meant(field.type, rest)]
    if isinstance(info, inspect.ListType):
        return _meant(info.item_type, rest)
    if isinstance(info, inspect.DictType):
        return _meant(info.key_type if first == _KEY else info.value_type, rest)
    return []


def _choices(meant: list[inspect.Type]) -> list[str]:
    return [str(value) for info in meant if isinstance(info, inspect.LiteralType) for value in info.values]


def _form(meant: list[inspect.Type]) -> str:
    """Return what a type's own description says of how it is written."""
    said = [
        (info.extra_json_schema or {}).get("description", "") for info in meant if isinstance(info, inspect.Metadata)
    ]
    return next(filter(None, said), "")


def _shown(params: Any, steps: list[str]) -> str:
    """Return the value at the end of the steps, quoted and short."""
    value = params
    for step in steps:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return "a value"
    text = str(value)
    return f"`{text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'}`"
