"""Completion scripts, and the words they ask for."""

from __future__ import annotations

from agentd.cli.commands import COMMANDS
from agentd.cli.names import names
from agentd.cli.output import cell
from agentd.cli.words import split
from agentd.errors import EXIT_OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentd.cli.grammar import Argument, Command, Option, Values

# bash cuts words at `=`, `:` and `@` too and replaces what is behind: it is told the whole line, and what it replaces.
_BASH = """\
_agentd() {
    local word
    COMPREPLY=()
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(
        agentd __complete --line="${COMP_LINE:0:COMP_POINT}" --typed="$2" 2>/dev/null </dev/null
    )
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o default -F _agentd agentd"""
_ZSH = """\
#compdef agentd
_agentd() {
    local -a found
    found=("${(@f)$(agentd __complete -- "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null </dev/null)}")
    if [[ -z "${found[1]}" ]]; then
        _files
    else
        compadd -- "${(@)found:#*=}"
        compadd -S '' -- "${(@M)found:#*=}"
    fi
}
if [[ "${funcstack[1]}" == _agentd ]]; then _agentd "$@"; else compdef _agentd agentd; fi"""
_FISH = """\
function __agentd_words
    set -l before (commandline -opc)
    set -l begun (string trim --left --chars='"\\'' -- (commandline -ct))
    set -l found (agentd __complete -- $before[2..-1] "$begun" 2>/dev/null </dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path "$begun"
    end
end
complete -c agentd -f -a '(__agentd_words)'"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_FIRST_OPTIONS = ("--help", "--json", "--version")
_HELP = "help"


def script(values: Values) -> int:
    """Print a shell's completion script."""
    print(SCRIPTS[values["shell"]])
    return EXIT_OK


def complete(values: Values) -> int:
    """Print what may stand where the last word stands, a word a line; nothing means a file."""
    if values["line"] is not None:
        found = endings(values["line"], values["typed"])
    else:
        words = values["word"] or [""]
        found = candidates(words[:-1], words[-1])
    for candidate in found:
        print(cell(candidate))
    return EXIT_OK


def endings(line: str, typed: str | None, *, named: bool = True) -> list[str]:
    """Return what may replace `typed`, the last part of the line; `named`: its first word is `agentd`."""
    before, begun, _ = split(line)
    begun = begun or ""
    typed = begun if typed is None or not begun.endswith(typed) else typed
    kept = len(begun) - len(typed)
    return [candidate[kept:] for candidate in candidates(before[1:] if named else before, begun)]


def candidates(before: Sequence[str], begun: str) -> list[str]:
    """Return the words that may follow and begin with what is typed; none where anything may, a file for example."""
    before = list(before[1:] if before[:1] == ["--json"] else before)
    if before[:1] == [_HELP]:
        found: Iterable[str] = _commands(before[1:])
    else:
        found = _following(before, begun)
    return [word for word in dict.fromkeys(found) if word.startswith(begun)]


def _following(before: list[str], begun: str) -> Iterable[str]:
    command, rest = _command(before)
    if command is None:
        first = () if before else (*_FIRST_OPTIONS, _HELP) if begun else (_HELP,)
        return [*_commands(before), *first]
    if "--" in rest:
        return _values_of(_argument(command, rest), begun)
    options = _options(command)
    last = options.get(rest[-1]) if rest else None
    if last and last.value and not last.optional:
        return _values_of(last, begun)
    name, equals, value = begun.partition("=")
    if equals and name in options:
        return [f"{name}={found}" for found in _values_of(options[name], value)]
    if begun.startswith("-"):
        return _unused(options, rest)
    verbs = [] if rest else [words.split()[1] for words in COMMANDS if words.startswith(f"{command.words} ")]
    argument = _argument(command, rest)
    if argument is None and not verbs:
        return _unused(options, rest)
    return [*verbs, *_values_of(argument, begun)]


def _commands(before: list[str]) -> list[str]:
    """Return the words of commands that may stand behind the first ones."""
    at = len(before)
    rows = (words.split() for words, command in COMMANDS.items() if not command.hidden)
    return [words[at] for words in rows if len(words) > at and words[:at] == before]


def _command(before: list[str]) -> tuple[Command | None, list[str]]:
    for length in (2, 1):
        name = " ".join(before[:length])
        if len(before) >= length and name in COMMANDS:
            return COMMANDS[name], before[length:]
    return None, before


def _options(command: Command) -> dict[str, Option]:
    return {option.name: option for option in command.options}


def _argument(command: Command, rest: Sequence[str]) -> Argument | None:
    """Return the argument that comes next: the words so far less the options and their values."""
    options = _options(command)
    given, skip, only_words = 0, False, False
    for word in rest:
        option = None if only_words or skip else options.get(word.partition("=")[0]) or _attached(options, word)
        if option:
            skip = bool(option.value) and not option.optional and word == option.name
        elif word == "--" and not only_words and not skip:
            only_words = True
        else:
            given, skip = given + (not skip), False
    if given < len(command.arguments):
        return command.arguments[given]
    last = command.arguments[-1] if command.arguments else None
    return last if last and last.many else None


def _attached(options: dict[str, Option], word: str) -> Option | None:
    """Return the option that a word like -n3 gives its value."""
    return options.get(word[:2]) if word[1:2] != "-" else None


def _unused(options: dict[str, Option], rest: Sequence[str]) -> list[str]:
    used = {word.partition("=")[0] for word in rest}
    return [name for name, option in options.items() if option.repeat or name not in used]


def _values_of(wanted: Argument | Option | None, begun: str) -> Sequence[str]:
    if wanted is None:
        return ()
    return wanted.choices or names(wanted.completes, begun)
