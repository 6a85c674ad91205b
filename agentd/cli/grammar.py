"""What a command line is made of: commands, their arguments and options, as plain data."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Values = dict[str, Any]


class Argument:
    """A word without dashes: one, or the rest of the line."""

    __slots__ = ("choices", "completes", "key", "many", "name", "required")

    def __init__(
        self,
        name: str,
        *,
        required: bool = True,
        many: bool = False,
        choices: Sequence[str] = (),
        completes: str = "",
    ) -> None:
        self.name = name
        self.key = name.lower()
        self.required = required
        self.many = many
        self.choices = tuple(choices)
        self.completes = completes

    @property
    def usage(self) -> str:
        """Return how the usage line shows it."""
        text = f"{self.name}..." if self.many else self.name
        return text if self.required else f"[{text}]"


class Option:
    """A word with dashes; a flag when it takes no value."""

    __slots__ = (
        "choices",
        "completes",
        "doc",
        "high",
        "key",
        "kind",
        "low",
        "name",
        "optional",
        "refusal",
        "repeat",
        "value",
    )

    def __init__(
        self,
        name: str,
        value: str = "",
        doc: str = "",
        *,
        kind: str = "text",
        choices: Sequence[str] = (),
        low: float | None = None,
        high: float | None = None,
        repeat: bool = False,
        optional: bool = False,
        completes: str = "",
    ) -> None:
        self.name = name
        self.key = name.lstrip("-").replace("-", "_")
        self.value = value
        self.optional = optional  # the value; it is True without one
        self.doc = doc
        self.kind = kind  # text, int, number, pair
        self.choices = tuple(choices)
        self.low = low
        self.high = high
        self.repeat = repeat
        self.completes = completes

    @property
    def shown_value(self) -> str:
        """Return how its value is shown."""
        return f"[{self.value}]" if self.optional else self.value

    @property
    def usage(self) -> str:
        """Return how the usage line shows it."""
        text = f"{self.name} {self.shown_value}".rstrip()
        return f"[{text}]..." if self.repeat else f"[{text}]"


class Command:
    """One command: how it is written, what it does, where its function lives (`module:function`)."""

    __slots__ = ("arguments", "doc", "example", "group", "hidden", "home", "options", "words")

    def __init__(
        self,
        words: str,
        home: str,
        doc: str,
        example: str,
        arguments: Sequence[Argument] = (),
        options: Sequence[Option] = (),
        *,
        group: str = "",
        hidden: bool = False,
    ) -> None:
        self.words = words
        self.home = home
        self.doc = doc
        self.example = example
        self.arguments = tuple(arguments)
        self.options = (*options, JSON, HELP)
        self.group = group
        self.hidden = hidden


JSON = Option("--json", doc="print one JSON value (JSON Lines for streams)")
HELP = Option("--help", doc="show this text")
