"""The manual page, made from the table of commands. Imports nothing but it: the wheel is built with this."""

from __future__ import annotations

from agentd.cli.commands import COMMANDS, GROUPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentd.cli.grammar import Command, Values

_HEAD = """\
.SH NAME
agentd \\- runs teams of terminal agents in tmux as a service
.SH SYNOPSIS
.B agentd
.I COMMAND
.RI [ ARGUMENTS ]
.SH DESCRIPTION
A daemon starts agents, each a terminal program in a pane of tmux servers of its own, knows what each one is doing
and why, and gives each a durable inbox.
Commands that need the daemon start it.
Every command takes
.B \\-\\-json
for one JSON value (JSON Lines for streams) and
.BR \\-\\-help .
.PP
TARGET is an agent's name or id,
.IR @team ,
.IR @team/role ,
.I %profile
or
.BR all ."""
_FOOT = """\
.SH EXIT STATUS
0 done; 1 failed; 2 usage; 3 no daemon and none could be started; 4 some of a batch refused; 5 not found;
6 timed out; 7 not allowed or over a limit.
.SH ENVIRONMENT
.TP
.B AGENTD_DIR
everything of an instance lies below this directory
.TP
.B AGENTD_SOCKET
the socket of the daemon to talk to
.TP
.B AGENTD_AUTOSTART
0: no command starts a daemon
.TP
.B AGENTD_DEBUG
1: tracebacks of internal errors
.TP
.B NO_COLOR
no colours
.SH SEE ALSO
.BR tmux (1)"""


def man(values: Values) -> int:
    """Print the manual page, as `man` reads it."""
    from agentd import __version__
    from agentd.cli.output import emit

    text = page(__version__)
    if values["json"]:
        emit({"version": __version__, "roff": text})
    else:
        print(text, end="")
    return 0


def page(version: str) -> str:
    """Return the whole page as roff."""
    lines = [f'.TH AGENTD 1 "" "agentd {version}" "User Commands"', *_HEAD.split("\n")]
    for group in GROUPS:
        lines.append(f'.SH "{group.upper()} COMMANDS"')
        for command in COMMANDS.values():
            if command.group == group and not command.hidden:
                lines += _command(command)
    return "\n".join([*lines, *_FOOT.split("\n")]) + "\n"


def _command(command: Command) -> Iterator[str]:
    own = [option for option in command.options if option.key not in ("json", "help")]
    arguments = [f"\\fI{_text(argument.usage)}\\fR" for argument in command.arguments]
    yield from (
        ".TP",
        " ".join([f"\\fB{_text(command.words)}\\fR", *arguments, *(["[\\fIOPTIONS\\fR]"] if own else [])]),
    )
    yield _line(command.doc)
    yield ".RS"
    for option in own:
        name = f"\\fB{_text(option.name)}\\fR"
        yield from (".TP", f"{name} \\fI{_text(option.shown_value)}\\fR" if option.value else name)
        yield _line(option.doc)
    yield from (".PP", "Example:", ".br", _line(command.example), ".RE")


def _text(text: str) -> str:
    """Return a text with nothing in it that roff takes for an order."""
    return (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha")
    )


def _line(text: str) -> str:
    """Return a text as a line of its own, which roff takes for an order where it begins with a dot."""
    return f"\\&{_text(text)}"
