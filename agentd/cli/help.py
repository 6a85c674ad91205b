"""Help made from the table of commands."""

from __future__ import annotations

from agentd.cli.commands import GROUPS
from agentd.cli.parser import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentd.cli.grammar import Command

_HEAD = """\
usage: agentd COMMAND [ARGUMENTS]

agentd runs teams of terminal agents in tmux as a service.
Commands that need the daemon start it. TARGET is an agent's name or id, @team, @team/role, %profile or all."""
_FOOT = """\
`agentd COMMAND --help` tells more and gives an example; every command takes --json.
Exit codes: 0 done, 1 failed, 2 usage, 3 no daemon, 4 some refused, 5 not found, 6 timed out,
7 not allowed or over a limit."""


def show_help(table: Mapping[str, Command], words: Sequence[str]) -> int:
    """Print the list of commands by group, or the help of the command that the words name."""
    words = [word for word in words if not word.startswith("-")]
    if words and not (len(words) == 1 and any(name.startswith(f"{words[0]} ") for name in table)):
        return show_command(find(table, words)[0])
    shown = [c for c in table.values() if not c.hidden and c.words.split()[0] in (words or c.words.split())]
    width = max(len(command.words) for command in shown)
    print(_HEAD)
    for group in GROUPS:
        rows = [f"  {c.words:<{width}}  {c.doc}" for c in shown if c.group == group]
        if rows:
            print(f"\n{group}:", *rows, sep="\n")
    print(f"\n{_FOOT}")
    return 0


def show_command(command: Command) -> int:
    """Print a command's usage, its one sentence, its options and an example."""
    options = command.options
    parts = [argument.usage for argument in command.arguments]
    parts += [option.usage for option in options if option.key not in ("json", "help")]
    rows = [(f"{option.name} {option.shown_value}".rstrip(), option.doc) for option in options]
    width = max(len(name) for name, _ in rows)
    print(" ".join(["usage: agentd", command.words, *parts]))
    print(f"\n{command.doc}\n\noptions:")
    for name, doc in rows:
        print(f"  {name:<{width}}  {doc}")
    print(f"\nexample:\n  {command.example}")
    return 0
