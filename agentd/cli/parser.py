"""One small parser over the table of commands: argv -> command and values, or a UsageError that says what to do."""

from __future__ import annotations

from agentd.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentd.cli.grammar import Argument, Command, Option, Values

SHORT = {"-h": "--help"}


def find(table: Mapping[str, Command], argv: Sequence[str]) -> tuple[Command, list[str]]:
    """Return the command that the first one or two words name, and the words after it."""
    first, rest = argv[0], list(argv[1:])
    if rest and f"{first} {rest[0]}" in table:
        return table[f"{first} {rest[0]}"], rest[1:]
    if first in table:
        return table[first], rest
    verbs = [words.split()[1] for words in table if words.startswith(first + " ")]
    if verbs and not (rest and not rest[0].startswith("-")):
        raise UsageError(
            f"`agentd {first}` needs one of {', '.join(verbs)}", hint=f"for example: agentd {first} {verbs[0]}"
        )
    if verbs:
        raise UsageError(
            f"`agentd {first}` has no `{rest[0]}`", hint=_suggest(rest[0], verbs) or f"it has {', '.join(verbs)}"
        )
    known = {words.split()[0] for words, command in table.items() if not command.hidden}
    raise UsageError(f"no command `{first}`", hint=_suggest(first, known) or "see `agentd --help`")


def parse(command: Command, words: Sequence[str]) -> Values:
    """Return the values of a command's arguments and options; what was not given is None, False or empty."""
    values: Values = {option.key: _absent(option) for option in command.options}
    options = {option.name: option for option in command.options}
    given: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            given += left
            break
        if len(word) < 2 or word[0] != "-":
            given.append(word)
            continue
        option, text = _option(command, options, word)
        if option.optional and text is None:
            # A word behind it is its value only when the command has all the words that it needs.
            missing = sum(argument.required for argument in command.arguments) > len(given)
            text = left.pop(0) if left and left[0][:1] != "-" and not missing else None
        elif option.value and text is None:
            if not left or left[0] == "--":
                raise UsageError(f"{option.name} needs a value", hint=f"write {option.name} {option.value}")
            text = left.pop(0)
        _store(values, option, text)
        if option.key == "help":
            return values
    _assign(command, values, given)
    return values


def _absent(option: Option) -> object:
    if option.repeat:
        return []
    return None if option.value else False


def _option(command: Command, options: Mapping[str, Option], word: str) -> tuple[Option, str | None]:
    name, equals, text = word.partition("=")
    name = SHORT.get(name, name)
    option = options.get(name)
    attached: str | None = text if equals else None
    if option is None and word[:2] in options and word[1] != "-":
        option, attached = options[word[:2]], word[2:]
    if option is None:
        near = _suggest(name, options)
        hint = near or f"see `agentd {command.words} --help`, or write `--` before a text that begins with a dash"
        raise UsageError(f"`agentd {command.words}` has no option {name}", hint=hint)
    if attached is not None and not option.value:
        raise UsageError(f"{option.name} takes no value", hint=f"write {option.name} alone")
    return option, attached


def _store(values: Values, option: Option, text: str | None) -> None:
    if text is None:
        values[option.key] = True
    elif option.repeat:
        values[option.key] = [*values[option.key], _checked(option, text)]
    else:
        values[option.key] = _checked(option, text)


def _checked(option: Option, text: str) -> object:
    if option.choices and text not in option.choices:
        hint = _suggest(text, option.choices) or f"it is one of {', '.join(option.choices)}"
        raise UsageError(f"{option.name} cannot be `{text}`", hint=hint)
    if option.kind in ("int", "number"):
        return _number(option, text)
    if option.kind == "pair" and not text.partition("=")[1]:
        raise UsageError(f"{option.name} {text} has no `=`", hint=f"write {option.name} {option.value}")
    return text


def _number(option: Option, text: str) -> int | float:
    what = "a whole number" if option.kind == "int" else "a number"
    low = 0 if option.low is None else option.low
    try:
        number: int | float = int(text) if option.kind == "int" else float(text)
    except ValueError:
        number = low - 1
    if low <= number and (option.high is None or number <= option.high) and number != float("inf"):
        return number
    upto = "" if option.high is None else f" to {option.high:g}"
    raise UsageError(f"{option.name} cannot be `{text}`", hint=f"it is {what} from {low:g}{upto or ' up'}")


def _assign(command: Command, values: Values, given: list[str]) -> None:
    left = list(given)
    for argument in command.arguments:
        if not left and argument.required:
            raise UsageError(f"`agentd {command.words}` needs {argument.name}", hint=f"for example: {command.example}")
        taken, left = (left, []) if argument.many else (left[:1], left[1:])
        _check_choice(argument, taken)
        values[argument.key] = taken if argument.many else (taken[0] if taken else None)
    if left:
        quote = ", or put quotes around a text of several words" if command.words == "send" else ""
        hint = f"see `agentd {command.words} --help`{quote}"
        raise UsageError(f"`agentd {command.words}` does not take `{left[0]}`", hint=hint)


def _check_choice(argument: Argument, taken: Iterable[str]) -> None:
    for text in taken:
        if argument.choices and text not in argument.choices:
            hint = _suggest(text, argument.choices) or f"it is one of {', '.join(argument.choices)}"
            raise UsageError(f"{argument.name} cannot be `{text}`", hint=hint)


def _suggest(word: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else ""
