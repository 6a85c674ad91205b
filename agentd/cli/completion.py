"""Completion scripts, and the words they ask for."""

from __future__ import annotations

from agentd.cli.commands import COMMANDS
from agentd.cli.output import cell
from agentd.errors import EXIT_OK, AgentdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from agentd.cli.grammar import Argument, Command, Option, Values

_BASH = """\
_agentd() {
    local words=("${COMP_WORDS[@]:1:COMP_CWORD}") found
    found="$(agentd __complete -- "${words[@]}" 2>/dev/null)"
    local IFS=$'\\n'
    COMPREPLY=($found)
}
complete -o default -F _agentd agentd"""
_ZSH = """\
#compdef agentd
_agentd() {
    local -a found
    found=("${(@f)$(agentd __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _agentd agentd"""
_FISH = """\
function __agentd_words
    set -l words (commandline -opc) (commandline -ct)
    agentd __complete -- $words[2..-1] 2>/dev/null
end
complete -c agentd -a '(__agentd_words)'"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_LIVE_TIMEOUT_S = 1.0
_GROUPS = ("all", "operator")


def script(values: Values) -> int:
    """Print a shell's completion script."""
    print(SCRIPTS[values["shell"]])
    return EXIT_OK


def complete(values: Values) -> int:
    """Print what may stand where the last word stands, a word a line; nothing means a file."""
    words = values["word"] or [""]
    for candidate in candidates(words[:-1], words[-1]):
        print(cell(candidate))
    return EXIT_OK


def candidates(before: Sequence[str], begun: str) -> list[str]:
    """Return the words that may follow and begin with what is typed."""
    return [word for word in _following(list(before)) if word.startswith(begun)]


def _following(before: list[str]) -> list[str]:
    command, rest = _command(before)
    if command is None:
        at = len(before)
        return _unique(w.split()[at] for w, c in COMMANDS.items() if not c.hidden and w.split()[:at] == before)
    verbs = [] if rest else [w.split()[1] for w in COMMANDS if w.startswith(f"{command.words} ")]
    options = {option.name: option for option in command.options}
    if rest and rest[-1] in options and options[rest[-1]].value:
        return list(_values_of(options[rest[-1]]))
    argument = _argument(command, options, rest)
    return [*verbs, *(_values_of(argument) if argument else ()), *_unused(options, rest)]


def _command(before: list[str]) -> tuple[Command | None, list[str]]:
    for length in (2, 1):
        name = " ".join(before[:length])
        if len(before) >= length and name in COMMANDS:
            return COMMANDS[name], before[length:]
    return None, before


def _argument(command: Command, options: dict[str, Option], rest: list[str]) -> Argument | None:
    """Return the argument that comes next: the words so far less the options and their values."""
    given = 0
    skip = False
    for word in rest:
        option = options.get(word)
        if skip or option:
            skip = bool(option and option.value and not skip)
        else:
            given += 1
    if given < len(command.arguments):
        return command.arguments[given]
    last = command.arguments[-1] if command.arguments else None
    return last if last and last.many else None


def _unused(options: dict[str, Option], rest: list[str]) -> list[str]:
    return [name for name, option in options.items() if option.repeat or name not in rest]


def _values_of(wanted: Argument | Option) -> Sequence[str]:
    if wanted.choices:
        return wanted.choices
    lists = {
        "agents": ("agents.list", "agents", _GROUPS),
        "teams": ("teams.list", "teams", ()),
        "profiles": ("profiles.list", "profiles", ()),
    }
    if wanted.completes == "methods":
        from agentd.wire.calls import CALLS

        return list(CALLS)
    if wanted.completes not in lists:
        return ()
    method, key, more = lists[wanted.completes]
    return [*(row["name"] for row in _live(method, key)), *more]


def _live(method: str, key: str) -> list[dict[str, Any]]:
    """Return what the running daemon lists; nothing when there is none, for a TAB must not start one or complain."""
    from agentd.client import connect

    try:
        with connect(autostart=False, timeout_s=_LIVE_TIMEOUT_S) as client:
            rows: list[dict[str, Any]] = client.call(method)[key]
            return rows
    except AgentdError:
        return []


def _unique(words: Any) -> list[str]:
    return list(dict.fromkeys(words))
