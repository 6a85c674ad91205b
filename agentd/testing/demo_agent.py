"""The scripted agent, profile `demo`.

    python -m agentd.testing.demo_agent [--mode MODE] [--delay SECONDS] [--settings FILE] [--resume SESSION]

It looks and types like a real terminal agent, answers every message with an echo, and can misbehave in known ways. With
settings it runs hooks; each prompt is then a turn with one use of a tool.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import queue
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentd.agents.text import Envelope, parse
from agentd.testing.answers import Answers
from agentd.testing.composer import Composer, one_line
from agentd.testing.hooks import Hooks
from agentd.testing.keys import Key, KeyReader, Paste
from agentd.testing.tui import Tui

MODES = {
    "echo": "answers at once",
    "slow": "works for --delay seconds on each prompt (2)",
    "asks-permission": "asks before each prompt; swallows pastes meanwhile",
    "asks-late": "asks --delay seconds after a paste, before Enter",
    "asks-twice": "asks before each prompt, and once more after a yes",
    "asks-stubbornly": "asks before each prompt and takes no answer",
    "deaf": "looks ready and never reads",
    "never-ready": "never shows a composer",
    "crash": "exits with status 1 at the first prompt",
    "exit0": "exits with status 0 at the first prompt",
    "flood": "prints without end and answers all the same",
    "garbage": "fills the screen with random bytes and escape sequences",
    "cooked": "reads line by line, without brackets around pastes",
    "stubborn": "ignores being told to end; only a kill ends it (or ten minutes)",
}
PROMPT = "demo> "
CLEAR = "/clear"
QUESTION = "Allow? [y/N] "
ASKS = "demo asks to run: "
ASKED_LINES = 8
SLOW_S = 2.0
TICK_S = 0.01
FLOOD_LINES = 20  # printed in each tick
STUBBORN_S = 600
CTRL_C, CTRL_D, CTRL_U, ENTER, BACKSPACE = "\x03", "\x04", "\x15", "\r", "\x7f"
BRACKETS_ON, BRACKETS_OFF = "\x1b[?2004h", "\x1b[?2004l"
EXITS = {"crash": 1, "exit0": 0}


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    mode: str
    delay_s: float = 0.0
    settings: str = ""
    resume: str = ""


class DemoAgent:
    """The raw-mode program: the main thread reads and draws, another one works."""

    def __init__(self, options: Options, tui: Tui, environ: Mapping[str, str]) -> None:
        self._mode = options.mode
        self._delay_s = options.delay_s
        self._session = options.resume or f"demo-{os.getpid()}"
        self._hooks = Hooks(options.settings, self._session)
        self._resumed = bool(options.resume)
        self._tui = tui
        self._composer = Composer()
        self._keys = KeyReader()
        self._prompts: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._asked: list[str] = []  # prompts that wait for permission
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # None: one prompt is done; ASKS: time to ask
        self._working = 0
        self._interrupted = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        self._answers = Answers(environ, self._say)
        self._flooded = 0
        self._sessions = 1

    def run(self, fd: int) -> int:
        """Serve until told to end; returns the exit status."""
        threading.Thread(target=self._work, daemon=True).start()
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._tui.write(BRACKETS_ON)
        self._hooks.run("SessionStart", source="resume" if self._resumed else "startup")
        again = f"; session {self._session} goes on" if self._resumed else ""
        self._tui.show(self._block(), [f"demo agent, mode {self._mode}: {MODES[self._mode]}{again}"])
        while True:
            ready, _, _ = select.select([fd, self._wake_read], [], [], TICK_S if self._mode == "flood" else None)
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            lines = [*self._finished(), *self._flood()]
            if fd in ready:
                data = _read(fd)
                for item in self._keys.feed(decode(data)):
                    status = self._take(item, lines)
                    if status is not None:
                        self._tui.show(("",), lines)
                        return status
                if not data:
                    return 0
            self._tui.show(self._block(), lines)

    def _block(self) -> Sequence[str]:
        if self._asked:
            return (*_asked(self._asked[-1]), QUESTION)
        composer = PROMPT + self._composer.shown
        return ("demo: working", composer) if self._working else (composer,)

    def _take(self, item: Key | Paste, lines: list[str]) -> int | None:
        """Act on a key or a paste; returns an exit status to end with."""
        if self._asked:
            self._answer_question(item, lines)
        elif isinstance(item, Paste):
            self._composer.paste(item.text)
            if self._mode == "asks-late":
                threading.Timer(self._delay_s, self._tell, (ASKS,)).start()
        elif item.char == ENTER:
            return self._submit(lines)
        elif item.char == CTRL_D and not self._composer.text:
            return 0
        else:
            self._edit(item.char)
        return None

    def _edit(self, char: str) -> None:
        if char == CTRL_C and self._working:
            self._interrupted.set()
        elif char in (CTRL_C, CTRL_U):
            self._composer.clear()
        elif char == BACKSPACE:
            self._composer.erase()
        elif char >= " " or char in "\n\t":
            self._composer.type(char)

    def _submit(self, lines: list[str]) -> int | None:
        shown, text = self._composer.shown, self._composer.text
        if not text.strip():
            return None
        self._composer.clear()
        lines.append(f"> {shown}")
        if text.strip() == "/exit":
            return 0
        if text.strip() == CLEAR and not self._working:
            self._forget(lines)
            return None
        if self._mode in EXITS:
            return EXITS[self._mode]
        if self._mode.startswith("asks-"):
            self._asked += [text, f"{text} again"] if self._mode == "asks-twice" else [text]
            self._hooks.run("PermissionRequest", tool_name="Echo", tool_input={"text": text})
        else:
            self._start(text)
        return None

    def _forget(self, lines: list[str]) -> None:
        """Begin a new session; the connection goes too, for whoever has this program next may be somebody else."""
        self._hooks.run("SessionEnd", reason="clear")
        self._sessions += 1
        self._session = f"demo-{os.getpid()}-{self._sessions}"
        self._hooks.begin_anew(self._session)
        self._answers.close()
        self._flooded = 0
        self._tui.clear()
        self._hooks.run("SessionStart", source="clear")
        lines[:] = [f"demo agent, mode {self._mode}: {MODES[self._mode]}; a new session"]

    def _answer_question(self, item: Key | Paste, lines: list[str]) -> None:
        """Take `y` or `n` (Enter is the default, no); like real agents it swallows everything else."""
        if not isinstance(item, Key) or item.char not in ("y", "Y", "n", "N", ENTER, CTRL_C):
            return
        if self._mode == "asks-stubbornly":
            return
        text = self._asked.pop()
        allowed = item.char in "yY"
        lines += [*_asked(text), QUESTION + ("yes" if allowed else "no")]
        if allowed and not self._asked:
            self._start(text)
        elif not allowed:
            self._asked.clear()

    def _start(self, text: str) -> None:
        self._working += 1
        self._prompts.put(text)

    def _finished(self) -> list[str]:
        lines = []
        while not self._said.empty():
            line = self._said.get()
            if line is None:
                self._working -= 1
            elif line is ASKS:
                self._asked.append(self._composer.text)
                self._composer.clear()
            else:
                lines.append(line)
        return lines

    def _flood(self) -> list[str]:
        if self._mode != "flood":
            return []
        self._flooded += FLOOD_LINES
        return [f"flood {number:09} {'x' * 60}" for number in range(self._flooded - FLOOD_LINES, self._flooded)]

    # -- the working thread

    def _work(self) -> None:
        while True:
            text = self._prompts.get()
            self._interrupted.clear()
            if not self._turn(text):
                self._say("demo: interrupted")
            self._tell(None)

    def _turn(self, text: str) -> bool:
        """Deal with a prompt and with what hooks bring; tell whether it came to its end."""
        brought = self._hooks.run("UserPromptSubmit", prompt=text)
        if self._interrupted.wait(self._delay_s):
            return False
        prolonged = False
        while text:
            self._answers.answer("\n".join(filter(None, [text, brought])))
            brought = self._hooks.run("PostToolUse", tool_name="Echo", tool_input={"text": text})
            if brought:
                self._answers.answer(brought)
            said = {"last_assistant_message": f"echoed {len(text)} characters", "stop_hook_active": prolonged}
            text, brought, prolonged = self._hooks.run("Stop", **said), "", True
        return True

    def _say(self, line: str) -> None:
        self._tell(line)

    def _tell(self, line: str | None) -> None:
        self._said.put(line)
        os.write(self._wake_write, b".")


def _asked(text: str) -> list[str]:
    """Return what stands above the question: the bodies of a prompt, as commands that it wants to run.

    Further lines are indented, so that none of them can look like a first one.
    """
    bodies = [item.body if isinstance(item, Envelope) else item.text for item in parse(text)]
    first, *rest = "\n".join(bodies).split("\n")
    shown = [ASKS + first, *(f"  {line}" for line in rest)]
    cut = shown if len(shown) <= ASKED_LINES else [*shown[:ASKED_LINES], "  …"]
    return [one_line(line) for line in cut]


def _read(fd: int) -> bytes:
    """Return what was typed; nothing at the end, also when the terminal is gone."""
    try:
        return os.read(fd, 65_536)
    except OSError:
        return b""


def _deaf(tui: Tui) -> int:
    tui.write(BRACKETS_ON)
    tui.show((PROMPT,))
    while True:
        signal.pause()


def _never_ready(fd: int, tui: Tui) -> int:
    tui.show(("demo: starting",))
    while _read(fd):
        pass
    return 0


def _garbage(fd: int, tui: Tui) -> int:
    """Write seeded noise, rich in escape sequences, until the terminal goes away."""
    import random

    noise = random.Random(7)
    starts = ("\x1b[", "\x1b]", "\x1bP", "\x1b", "\x9b", "")
    while True:
        ready, _, _ = select.select([fd], [], [], TICK_S)
        if ready and not _read(fd):
            return 0
        tui.write("".join(noise.choice(starts) + chr(noise.randrange(0x2500)) for _ in range(500)))


def _cooked(answers: Answers) -> int:
    print(PROMPT, end="", flush=True)
    for line in sys.stdin:
        if line.strip() == "/exit":
            return 0
        if line.strip():
            print("demo: working", flush=True)
            answers.answer(line.removesuffix("\n"))
        print(PROMPT, end="", flush=True)
    return 0


def _stay() -> None:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    signal.alarm(STUBBORN_S)


def _in_raw_mode(fd: int, options: Options, environ: Mapping[str, str]) -> int:
    tui, mode = Tui(sys.stdout.fileno()), options.mode
    if mode == "deaf":
        return _deaf(tui)
    if mode == "never-ready":
        return _never_ready(fd, tui)
    if mode == "garbage":
        return _garbage(fd, tui)
    status = DemoAgent(options, tui, environ).run(fd)
    while mode == "stubborn":
        signal.pause()
    tui.write(BRACKETS_OFF)
    return status


def _options(words: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Return the arguments, modes and delays also from the environment; raises SystemExit saying what is allowed."""
    values = {"--mode": environ.get("AGENTD_DEMO_MODE", "echo"), "--delay": environ.get("AGENTD_DEMO_DELAY_S", "")}
    values |= {"--settings": "", "--resume": ""}
    for word, value in zip(words[::2], [*words[1::2], ""], strict=False):
        if word not in values or not value:
            usage = f"[--mode {'|'.join(MODES)}] [--delay SECONDS] [--settings FILE] [--resume SESSION]"
            raise SystemExit(f"usage: demo_agent {usage}")
        values[word] = value
    if values["--mode"] not in MODES:
        raise SystemExit(f"demo_agent: no mode {values['--mode']!a}; modes: {', '.join(MODES)}")
    default_s = SLOW_S if values["--mode"] == "slow" else 0.0
    try:
        delay_s = float(values["--delay"] or default_s)
    except ValueError:
        raise SystemExit(f"demo_agent: --delay {values['--delay']!a} is not a number") from None
    return Options(values["--mode"], delay_s, values["--settings"], values["--resume"])


def main(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the demo agent; returns its exit status."""
    options = _options(words, environ)
    mode = options.mode
    fd = sys.stdin.fileno()
    if mode == "cooked" or not os.isatty(fd):
        return _cooked(Answers(environ, lambda line: print(line, flush=True)))
    if mode == "stubborn":
        _stay()
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSANOW)
    try:
        return _in_raw_mode(fd, options, environ)
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(fd, termios.TCSANOW, before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
