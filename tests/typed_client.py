"""Makes agentd/typed.py from the table of calls: `./dev typed` writes it, a test says when it is behind."""

from __future__ import annotations

import inspect
import json
import types
import typing
from pathlib import Path
from typing import Any

import msgspec

from agentd.calling import WAITS
from agentd.wire.calls import CALLS, Call, Nothing, Params

FILE = Path(__file__).parents[1] / "agentd" / "typed.py"
HEAD = '''"""Every call as a method, for type checkers, editors and `help()`.

`./dev typed` makes it from the table of calls. The clients make the calls themselves, from these names:
nothing here is run.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from typing import Any, Literal

'''


def text() -> str:
    """Return the module."""
    names = "".join(f'    "{_name(call)}": "{call.name}",\n' for call in CALLS.values())
    parts = [HEAD, f"METHODS: dict[str, str] = {{\n{names}}}\n\n\n"]
    parts.append('class BlockingCalls:\n    """The methods of `agentd.Client`."""\n\n')
    parts.append("\n".join(_method(call, waits=False) for call in CALLS.values()))
    parts.append('\n\nclass AsyncCalls:\n    """The methods of `agentd.AsyncClient`."""\n\n')
    parts.append("\n".join(_method(call, waits=True) for call in CALLS.values()))
    return "".join(parts)


def _name(call: Call) -> str:
    return call.name.replace(".", "_")


def _method(call: Call, *, waits: bool) -> str:
    answer = "dict[str, Any]"
    if call.stream:
        answer = f"AsyncGenerator[{answer}, None]" if waits else f"Iterator[{answer}]"
    begin = "async def" if waits and not call.stream else "def"
    lines = "".join(f"        {line},\n" for line in ["self", "*", *_parameters(call)])
    return f"    {begin} {_name(call)}(\n{lines}    ) -> {answer}:\n{_doc(call)}        raise NotImplementedError\n"


def _parameters(call: Call) -> list[str]:
    hints = typing.get_type_hints(call.params)
    fields = sorted(msgspec.structs.fields(call.params), key=lambda field: not field.required)
    found = [f"{field.name}: {_type(hints[field.name])}{_default(field)}" for field in fields]
    if call.stream:
        found.append("credit: int = 256")
    return found if call.name in WAITS else [*found, "timeout_s: float | None = None"]


def _type(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return f"Literal[{', '.join(json.dumps(arg) for arg in args)}]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type(arg) for arg in args)
    if origin:
        return f"{origin.__name__}[{', '.join(map(_type, args))}]"
    return "None" if hint is types.NoneType else "Any" if hint is Any else hint.__name__


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return ""
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return f" = {json.dumps(value) if isinstance(value, str) else repr(value)}"


def _doc(call: Call) -> str:
    about = inspect.cleandoc(call.params.__doc__ or "") if call.params is not Nothing else ""
    lines = [f'"""{call.doc}', "", *about.split("\n"), '"""'] if about else [f'"""{call.doc}"""']
    return "".join(f"        {line}".rstrip() + "\n" for line in lines)


if __name__ == "__main__":
    assert issubclass(Nothing, Params)
    FILE.write_text(text())
