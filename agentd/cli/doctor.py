"""`agentd doctor`: what this machine and installation are like, and what to do about it. Needs no daemon."""

from __future__ import annotations

import os
import re
import resource
import shutil
import stat
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

from agentd import __version__, config
from agentd.cli.output import clean, colours, emit
from agentd.client import connect
from agentd.errors import EXIT_FAILED, EXIT_OK, AgentdError, Unavailable
from agentd.paths import Paths, check_socket_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values

OK, WARN, FAIL = "ok", "warn", "fail"
OLDEST_PYTHON = (3, 11)
OLDEST_TMUX = (3, 2)
DEAD_PANE_FIXED = (3, 4)
BEST_TMUX = (3, 7)
OLDEST_SQLITE = (3, 51, 3)
LEAST_FREE_MB = 256
LEAST_FILES = 1024
RESIDUAL_RISK = (
    "agents run as your own user: one that means harm can reach our tmux server's socket, "
    "other agents' terminals and your files"
)

Row = tuple[str, str, str, str]  # what, verdict, what was found, what to do
_COLOURS = {OK: 32, WARN: 33, FAIL: 31}


def doctor(values: Values) -> int:
    """Check everything; fails when something does that agentd cannot do without."""
    rows = findings()
    failed = any(verdict == FAIL for _, verdict, _, _ in rows)
    if values["json"]:
        keys = ("check", "result", "found", "todo")
        emit({"ok": not failed, "checks": [dict(zip(keys, row, strict=True)) for row in rows]})
    else:
        _print(rows)
    return EXIT_FAILED if failed else EXIT_OK


def findings() -> list[Row]:
    """Return one row for each check."""
    paths = Paths.find(os.environ)
    return [
        _python(),
        *_tmux(_tmux_binary(paths)),
        _sqlite(),
        _configuration(paths),
        *_shards(paths),
        _socket_path(paths),
        *(_directory(what, path) for what, path in _directories(paths)),
        _disk(paths),
        _files(),
        _daemon(),
        ("isolation", WARN, RESIDUAL_RISK, "run agents that you do not trust as another user or in a container"),
    ]


def _print(rows: list[Row]) -> None:
    size = max(len(row[0]) for row in rows)
    with_colours = colours()
    for what, verdict, found, todo in rows:
        shown = f"\x1b[{_COLOURS[verdict]}m{verdict:<4}\x1b[0m" if with_colours else f"{verdict:<4}"
        print(f"{shown}  {what:<{size}}  {clean(found)}")
        if todo:
            print(f"{'':<4}  {'':<{size}}  -> {clean(todo)}")


def _python() -> Row:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return ("python", FAIL, found, "install Python 3.11 or later")
    return ("python", OK, found, "")


def _tmux_binary(paths: Paths) -> str:
    try:
        return config.load(paths.config_file, os.environ).tmux.binary
    except AgentdError:  # reported by its own row
        return "tmux"


def _tmux(binary: str) -> list[Row]:
    path = shutil.which(binary)
    if path is None:
        return [("tmux", FAIL, f"no program `{binary}` on PATH", "install tmux 3.4 or later")]
    said = _output([path, "-V"]).strip()
    numbers = re.search(r"(\d+)\.(\d+)", said)
    if numbers is None:
        verdict, todo = WARN, "it does not say a version; agentd needs 3.2 or later"
    else:
        verdict, todo = _about_version((int(numbers[1]), int(numbers[2])))
    return [("tmux", verdict, f"{said or 'unknown version'} at {path}", todo), *_utempter(path)]


def _about_version(version: tuple[int, int]) -> tuple[str, str]:
    if version < OLDEST_TMUX:
        return FAIL, "agentd needs tmux 3.2 or later; upgrade it"
    if version < DEAD_PANE_FIXED:
        return WARN, "below 3.4 a paste into a dead pane crashes tmux; agentd guards against it, an upgrade is safer"
    if version < BEST_TMUX:
        return WARN, "3.7 has fixes for programs that control it as agentd does; upgrade when you can"
    return OK, ""


def _utempter(path: str) -> list[Row]:
    ldd = shutil.which("ldd")
    if ldd is None or "libutempter" not in _output([ldd, path]):
        return []
    found = "this tmux writes logins by libutempter: starting and ending an agent takes twice as long"
    return [("utempter", WARN, found, "a tmux built without it is faster; nothing is wrong")]


def _output(argv: list[str]) -> str:
    """Return what a program says; nothing when it cannot be run."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _sqlite() -> Row:
    try:
        found = version_of("apsw")
    except PackageNotFoundError:
        return ("sqlite", FAIL, "the package apsw is missing", "install agentd again")
    if tuple(int(part) for part in re.findall(r"\d+", found)[:3]) < OLDEST_SQLITE:
        return ("sqlite", FAIL, f"apsw {found}: its SQLite can corrupt a database", "pip install -U 'apsw>=3.51.3'")
    return ("sqlite", OK, f"apsw {found}", "")


def _configuration(paths: Paths) -> Row:
    try:
        config.load(paths.config_file, os.environ)
    except AgentdError as error:
        return ("configuration", FAIL, error.message, error.hint or "")
    where = paths.config_file if os.path.exists(paths.config_file) else f"defaults; no {paths.config_file}"
    return ("configuration", OK, where, "")


def _shards(paths: Paths) -> list[Row]:
    """Say so when the setting, which counts only for a new mailbox, is not what this one has."""
    from pathlib import Path

    from agentd.mailbox import layout

    try:
        settings = config.load(paths.config_file, os.environ)
        found = layout.read(Path(paths.mailbox_dir))
    except AgentdError as error:
        return [("mailbox", FAIL, error.message, error.hint or "")]
    if found is None:
        return []
    wanted = settings.mailbox.shards
    said = f"{found.shards} shards at {paths.mailbox_dir}"
    if wanted != found.shards and "mailbox.shards" in settings.origins:
        said += f"; mailbox.shards = {wanted} ({settings.origins['mailbox.shards']}) is for a new mailbox only"
        return [("mailbox", WARN, said, f"agentd down, then agentd mailbox reshard {wanted}")]
    return [("mailbox", OK, said, "")]


def _socket_path(paths: Paths) -> Row:
    try:
        check_socket_path(paths.tmux_socket(config.MAX_SERVERS - 1))  # the longest
        return ("socket path", OK, check_socket_path(paths.socket), "")
    except AgentdError as error:
        return ("socket path", FAIL, error.message, error.hint or "")


def _directories(paths: Paths) -> list[tuple[str, str]]:
    if paths.one_dir:
        return [("directory", paths.state_dir)]
    return [("state", paths.state_dir), ("runtime", paths.runtime_dir), ("config", paths.config_dir)]


def _directory(what: str, path: str) -> Row:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return (what, OK, f"{path} is not there yet; it is made when it is needed", "")
    except OSError as error:
        return (what, FAIL, f"{path}: {error.strerror}", "check its parents' permissions")
    if not stat.S_ISDIR(info.st_mode):
        return (what, FAIL, f"{path} is not a directory", "move it away")
    if info.st_uid != os.getuid():
        return (what, FAIL, f"{path} belongs to uid {info.st_uid}", "choose another place with AGENTD_DIR")
    if info.st_mode & 0o077:
        mode = stat.S_IMODE(info.st_mode)
        return (what, FAIL if what != "config" else WARN, f"{path} has mode {mode:04o}", f"chmod 700 {path}")
    return (what, OK, path, "")


def _disk(paths: Paths) -> Row:
    place = paths.state_dir
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free_mb = shutil.disk_usage(place).free // 1_000_000
    found = f"{free_mb} MB free at {place}"
    if free_mb < LEAST_FREE_MB:
        return ("disk", WARN, found, "make room: below mailbox.reserve_mb messages are refused")
    return ("disk", OK, found, "")


def _files() -> Row:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = hard == resource.RLIM_INFINITY
    found = f"{soft} open files, the daemon raises that to {'no limit' if infinite else hard}"
    if not infinite and hard < LEAST_FILES:
        return ("open files", WARN, found, f"raise the hard limit: ulimit -Hn {LEAST_FILES}")
    return ("open files", OK, found, "")


def _daemon() -> Row:
    try:
        with connect(autostart=False, timeout_s=5.0) as client:
            status = client.call("daemon.status")
    except Unavailable:
        return ("daemon", OK, "not running; commands that need it start it", "")
    except AgentdError as error:
        return ("daemon", FAIL, error.message, error.hint or "agentd restart")
    found = f"agentd {status['version']}, pid {status['pid']}"
    if status["version"] != __version__:
        return ("daemon", WARN, f"{found}; this is {__version__}", "agentd restart (agents stay alive)")
    return ("daemon", OK, found, "")
