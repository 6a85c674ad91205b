"""What may be typed into a pane: checked here once more, whatever the caller did."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from agentd.errors import InvalidValue, OverLimit
from agentd.private import open_private

MAX_PASTE_BYTES = 65_536  # a pane that does not read keeps it all in the server's memory
INLINE_BYTES = 4096  # tmux-2.md §2: above it a file is faster

# C0 without newline and tab, DEL and C1: each can end a bracketed paste or act as a key.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NAMED = (
    "Enter|Escape|Tab|BTab|Space|BSpace|Up|Down|Left|Right|Home|End|PageUp|PageDown|PgUp|PgDn|PPage|NPage"
    "|IC|Insert|DC|Delete|F(?:[1-9]|1[0-2])"
)
_KEY = re.compile(rf"(?:[CMS]-){{0,3}}(?:{_NAMED}|[!-~])\Z")
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def check_text(text: str, *, newlines: bool) -> bytes:
    """Return the bytes of a text that may be typed; InvalidValue for one that could act as keys."""
    bad = _CONTROL.search(text)
    if bad:
        raise InvalidValue(
            f"the text holds the control character U+{ord(bad[0]):04X}; nothing was typed", hint="sanitise it first"
        )
    if not newlines and "\n" in text:
        raise InvalidValue(
            "this program does not know bracketed paste, so a newline would be an Enter; nothing was typed",
            hint="send one line",
        )
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise InvalidValue("the text holds half of a surrogate pair; nothing was typed") from None
    if len(data) > MAX_PASTE_BYTES:
        raise OverLimit(
            f"{len(data)} bytes are more than the {MAX_PASTE_BYTES} of one paste; nothing was typed",
            hint="send a pointer to a file",
        )
    return data


def check_keys(names: Sequence[str]) -> None:
    """Refuse what is not the name of a key or one printable character."""
    for name in names:
        if not _KEY.match(name):
            raise InvalidValue(f"no key is called {name!r}; nothing was typed", hint="tmux's names: Enter, C-c, Up, F1")


def check_session_name(name: str, reserved: str) -> None:
    """Refuse a name that tmux could read as a format or a target of another kind."""
    if not _SESSION.match(name) or name == reserved:
        raise InvalidValue(f"{name[:80]!r} cannot be a session's name", hint="1 to 64 of A-Z a-z 0-9 _ -")


def check_words(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Refuse words and variables that no program can be given."""
    if not argv or any("\0" in word for word in argv):
        raise InvalidValue("there is no program to run", field="argv")
    bad = [name for name, value in env.items() if not _VARIABLE.match(name) or "\0" in value]
    if bad:
        raise InvalidValue(f"{bad[0]!r} cannot be an environment variable", field="env")


def check_place(program: str, path: str | None, cwd: str) -> None:
    """Refuse a program or directory that is not there: tmux itself would say yes and run something else, or nothing."""
    if "\0" in cwd or not Path(cwd).is_absolute() or not Path(cwd).is_dir():
        raise InvalidValue(f"{cwd!r} is not a directory", hint="give the absolute path of one", field="cwd")
    if not os.access(cwd, os.X_OK):
        raise InvalidValue(f"the directory {cwd!r} cannot be entered", field="cwd")
    path = os.environ.get("PATH", os.defpath) if path is None else path
    found = shutil.which(str(Path(cwd, program)) if "/" in program else program, path=path)
    if not program or program.startswith("-") or found is None:
        raise InvalidValue(f"no program `{program}` can be run", hint="install it, or give its path", field="argv")


@contextmanager
def private_file(directory: str, data: bytes) -> Iterator[str]:
    """Keep the bytes in a file that only we can read, for as long as the block runs."""
    path = Path(directory, f"paste-{secrets.token_hex(8)}")
    try:
        with os.fdopen(open_private(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(data)
        yield str(path)
    finally:
        path.unlink(missing_ok=True)
