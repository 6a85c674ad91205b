"""The command line: argv -> call -> print."""

from __future__ import annotations

import io
import os
import sys

from agentd.errors import EXIT_FAILED, EXIT_OK, AgentdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

HOOK = "hook"  # always ends well: another code would be an order to the agent that runs it, and 2 stops its work
HAVE_LAST_THINGS = frozenset(("atexit", "readline", "threading"))  # modules with something to do as a process ends
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it
EXIT_NO_READER = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; whatever happens is one sentence, never a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    code = _told(words)
    return EXIT_OK if words[:1] == [HOOK] else code


def run() -> NoReturn:
    """Run the command of this process, and end the process with its exit code."""
    code = main()
    if not HAVE_LAST_THINGS.isdisjoint(sys.modules):
        sys.exit(code)
    os._exit(code)  # all is flushed; to take the interpreter apart takes a quarter of what `agentd ls` does


def _told(words: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name or screen that the locale cannot write
    try:
        code = run_one(words)
    except KeyboardInterrupt:
        _silence_stdout()
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return EXIT_NO_READER
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):  # what `run_one` has told already
        _silence_stdout()
    return code


def run_one(words: list[str]) -> int:
    """Run one command; what goes wrong is one sentence on stderr and the exit code."""
    try:
        code = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()
    except AgentdError as error:
        return _refused(error, words)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  the last place that can turn it into a sentence
        return _internal(error)
    return code


def _run(words: list[str]) -> int:
    from agentd.cli.parser import find, parse
    from agentd.cli.usual import USUAL

    json_first = words[:1] == ["--json"]
    words = words[1:] if json_first else words
    commands = USUAL
    if not words or words[0] not in USUAL:
        from agentd.cli.commands import COMMANDS

        commands = COMMANDS
    if not words or words[0] in ("--help", "-h", "help"):
        from agentd.cli.help import show_help

        return show_help(commands, words[1:])
    if words[1:] in (["--help"], ["-h"]) and words[0] not in commands:
        from agentd.cli.help import show_help

        return show_help(commands, words[:1])
    if words[0] == "--version":
        words = ["version", *words[1:]]
    command, rest = find(commands, words)
    values = parse(command, rest)
    if values["help"]:
        from agentd.cli.help import show_command

        return show_command(command)
    values["json"] = values["json"] or json_first
    module, _, function = command.home.partition(":")
    home = __import__(f"agentd.cli.{module}", fromlist=[function])
    code: int = getattr(home, function)(values)
    return code


def _refused(error: AgentdError, words: list[str]) -> int:
    from agentd.cli.output import complain, emit

    before_texts = words[: words.index("--")] if "--" in words else words
    try:
        if "--json" in before_texts:
            emit({"error": error.as_json()})
        complain(error)
    except BrokenPipeError:
        _silence_stdout()
    return error.exit_code


def _internal(error: Exception) -> int:
    from agentd.cli.output import note

    if os.environ.get("AGENTD_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        note(f"agentd: {error.strerror}{where}; rerun with AGENTD_DEBUG=1 for details")
    else:
        note(f"agentd: internal error: {type(error).__name__}: {error}; rerun with AGENTD_DEBUG=1 for details")
    return EXIT_FAILED


def _silence_stdout() -> None:
    """Keep the interpreter from writing what is still buffered, and from saying so, when it ends."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):  # closed, or a stand-in without a file
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


__all__ = ["EXIT_OK", "main", "run", "run_one"]
