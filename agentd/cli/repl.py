"""`agentd repl`: one command a line, over one connection."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress

from agentd.cli import run_one
from agentd.cli.completion import endings
from agentd.cli.output import complain, note, say
from agentd.cli.session import Shared, share
from agentd.cli.words import split
from agentd.errors import EXIT_OK, EXIT_USAGE, AgentdError, UsageError
from agentd.paths import Paths
from agentd.private import open_private, private_dir

try:
    import readline
except ImportError:  # a Python without it: the lines are typed as the terminal lets one
    readline = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from agentd.cli.grammar import Values

PROMPT = "agentd> "
KEPT_LINES = 1000
_ENDS = (["exit"], ["quit"])
_ONLY_ALONE = ("repl", "mcp", "hook", "__complete")  # they read stdin themselves, or print for a program
_FOOT = "Here commands are written without `agentd`. exit or Ctrl-D ends; a line behind a space is not remembered."


def repl(values: Values) -> int:
    """Run each line; at a terminal until its end, else until the lines end, with the code of the first that failed."""
    at_terminal = sys.stdin.isatty()
    shared = Shared()
    share(shared)
    try:
        with _script() as script:
            return _run_lines(Keyboard() if at_terminal else Script(script), shared, as_json=values["json"])
    finally:
        share(None)
        shared.close()


@contextmanager
def _script() -> Iterator[TextIO]:
    """Give stdin, which the commands of a script then do not see: the rest of it is not theirs to read."""
    stdin = sys.stdin
    if stdin.isatty():
        yield stdin
        return
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield stdin
        finally:
            sys.stdin = stdin


def _run_lines(lines: Keyboard | Script, shared: Shared, *, as_json: bool) -> int:
    failed = EXIT_OK
    while True:
        try:  # around all of it: Ctrl-C may come between a line and its command, too
            if (line := lines.next()) is None:
                break
            words = words_of(line)
            if words in _ENDS:
                break
            code = _run(words, as_json=as_json) if words else EXIT_OK
        except UsageError as error:
            complain(error)
            code = EXIT_USAGE
        except KeyboardInterrupt:
            shared.close()
            if not lines.interactive:
                raise
            note("")
            continue
        failed = failed or code
    return EXIT_OK if lines.interactive else failed


def words_of(line: str) -> list[str]:
    """Return a line's words without `agentd` before them; none of a remark."""
    finished, last, quote = split(line)
    if line.lstrip().startswith("#"):
        return []
    if quote:
        what = "a backslash at its end" if quote == "\\" else f"a {quote} that is not closed"
        raise UsageError(f"the line has {what}", hint="nothing was done; write it whole on one line")
    words = finished if last is None else [*finished, last]
    return words[1:] if words[:1] == ["agentd"] else words


def _run(words: list[str], *, as_json: bool) -> int:
    if words[0] in _ONLY_ALONE or (words[0] == "up" and "--foreground" in words):
        raise UsageError(f"`{' '.join(words[:2])}` is not for here", hint="run it in a shell of its own")
    code = run_one(["--json", *words] if as_json else words)
    if words == ["help"]:
        say(f"\n{_FOOT}")
    return code


class Script:
    """Lines that are not typed but come from a file or a program."""

    interactive = False

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines

    def next(self) -> str | None:
        """Return the next line, None after the last."""
        line = self._lines.readline()
        return line.rstrip("\n") if line else None


class Keyboard:
    """Lines that somebody types, with history and completion where Python has readline."""

    interactive = True

    def __init__(self) -> None:
        self._history = History(Paths.find(os.environ))
        self._found: list[str] = []
        if readline is not None:
            self._bind()

    def _bind(self) -> None:
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        readline.set_completer_delims(" \t\n")
        readline.set_completer(self._complete)
        readline.set_auto_history(False)
        readline.clear_history()
        for line in self._history.lines():
            readline.add_history(line)

    def _complete(self, typed: str, number: int) -> str | None:
        if number == 0:
            line = readline.get_line_buffer()[: readline.get_endidx()]
            found = endings(line, typed, named=line.split()[:1] == ["agentd"])
            # a word that is whole gets the space that readline itself does not put behind it
            self._found = [word if word.endswith("=") else f"{word} " for word in found]
        return self._found[number] if number < len(self._found) else None

    def next(self) -> str | None:
        """Return what is typed next, None at its end; Ctrl-C forgets what was begun."""
        while True:
            try:
                line = input(PROMPT)
            except EOFError:
                say()
                return None
            except KeyboardInterrupt:
                say()
                continue
            self._remember(line)
            return line

    def _remember(self, line: str) -> None:
        if not line.strip() or line[0] == " " or readline is None:
            return
        readline.add_history(line)
        self._history.add(line)


class History:
    """The file of what was typed, private like everything of the instance; a repl without it works all the same."""

    def __init__(self, paths: Paths) -> None:
        self._path = paths.repl_history
        try:
            private_dir(paths.state_dir)
            self._trim()
        except AgentdError as error:
            self._path = ""
            note(f"agentd: lines are not remembered: {error.message}")

    def lines(self) -> list[str]:
        """Return the last lines, the oldest first."""
        if not self._path:
            return []
        with os.fdopen(open_private(self._path, os.O_RDONLY | os.O_CREAT), errors="replace") as file:
            return file.read().splitlines()[-KEPT_LINES:]

    def add(self, line: str) -> None:
        """Keep a line at once: several repls may write, and none needs to end well."""
        if self._path:
            with suppress(AgentdError, OSError):  # a full disk is told by the commands themselves
                self._write(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, [line])

    def _trim(self) -> None:
        """Cut the file back to what is used, once it is twice that."""
        with os.fdopen(open_private(self._path, os.O_RDONLY | os.O_CREAT), errors="replace") as file:
            lines = file.read().splitlines()
        if len(lines) > 2 * KEPT_LINES:
            fresh = f"{self._path}.new"
            self._write(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, lines[-KEPT_LINES:])
            os.replace(fresh, self._path)

    def _write(self, path: str, flags: int, lines: list[str]) -> None:
        with os.fdopen(open_private(path, flags), "w", errors="surrogateescape") as file:
            file.write("".join(f"{line}\n" for line in lines))
