"""Where state, socket, logs and configuration live: AGENTD_DIR for everything, else the XDG directories.

Imported by the thin client: `os` only.
"""

from __future__ import annotations

import os

from agentd.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET_PATH_MAX_BYTES = 103 if os.uname().sysname == "Darwin" else 107  # sun_path less its NUL


class Paths:
    """The places of one instance."""

    __slots__ = ("config_dir", "one_dir", "runtime_dir", "state_dir")

    def __init__(self, state_dir: str, runtime_dir: str, config_dir: str, *, one_dir: bool = False) -> None:
        self.state_dir = state_dir
        self.runtime_dir = runtime_dir
        self.config_dir = config_dir
        self.one_dir = one_dir

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Paths:
        """Return the places that the environment names; nothing is created or looked at."""
        one = environ.get("AGENTD_DIR")
        if one:
            root = os.path.abspath(one)
            return cls(root, root, root, one_dir=True)
        home = environ.get("HOME") or _home_of_this_uid()
        state = _absolute(environ, "XDG_STATE_HOME") or os.path.join(home, ".local", "state")
        config = _absolute(environ, "XDG_CONFIG_HOME") or os.path.join(home, ".config")
        runtime = _absolute(environ, "XDG_RUNTIME_DIR")
        runtime_dir = os.path.join(runtime, "agentd") if runtime else f"/tmp/agentd-{os.getuid()}"  # noqa: S108  checked by private_dir
        return cls(os.path.join(state, "agentd"), runtime_dir, os.path.join(config, "agentd"))

    @property
    def socket(self) -> str:
        """Return the path of the RPC socket."""
        return os.path.join(self.runtime_dir, "agentd.sock")

    def tmux_socket(self, index: int) -> str:
        """Return the path of the socket of one of our tmux servers; the first is 0."""
        return os.path.join(self.runtime_dir, f"tmux-{index}.sock")

    def tmux_conf(self, index: int) -> str:
        """Return the path of the tmux configuration we write for a server."""
        return os.path.join(self.runtime_dir, f"tmux-{index}.conf")

    def tmux_sockets(self) -> dict[int, str]:
        """Return what is at the places of our tmux servers' sockets, by index, whether a server lives there or not."""
        try:
            names = os.listdir(self.runtime_dir)
        except FileNotFoundError:
            return {}
        found = [name[5:-5] for name in names if name.startswith("tmux-") and name.endswith(".sock")]
        indices = sorted(int(number) for number in found if number.isascii() and number.isdigit())
        return {index: self.tmux_socket(index) for index in indices if f"{index}" in found}

    @property
    def config_file(self) -> str:
        """Return the path of the user's configuration file."""
        return os.path.join(self.config_dir, "config.toml")

    @property
    def profiles_dir(self) -> str:
        """Return the directory of the user's own profiles."""
        return os.path.join(self.config_dir, "profiles")

    @property
    def mailbox_dir(self) -> str:
        """Return the directory of the shards."""
        return os.path.join(self.state_dir, "mailbox")

    @property
    def registry_file(self) -> str:
        """Return the path of the registry of agents."""
        return os.path.join(self.state_dir, "registry.db")

    @property
    def cache_file(self) -> str:
        """Return the path of the answers that are kept across restarts."""
        return os.path.join(self.state_dir, "cache.db")

    @property
    def events_dir(self) -> str:
        """Return the directory of what happened."""
        return os.path.join(self.state_dir, "events")

    @property
    def agents_dir(self) -> str:
        """Return the directory under which each agent has its private one."""
        return os.path.join(self.state_dir, "agents")

    @property
    def worktrees_dir(self) -> str:
        """Return the directory below which agents have git worktrees of their own."""
        return os.path.join(self.state_dir, "worktrees")

    @property
    def launcher(self) -> str:
        """Return the path of the program that is the daemon's own agentd, for what agents' programs start."""
        return os.path.join(self.state_dir, "run-agentd")

    @property
    def transcripts_dir(self) -> str:
        """Return the directory of what agents printed."""
        return os.path.join(self.state_dir, "transcripts")

    @property
    def log_file(self) -> str:
        """Return the path of the daemon's log."""
        return os.path.join(self.state_dir, "agentd.log")

    @property
    def audit_file(self) -> str:
        """Return the path of the record of who answered which prompt."""
        return os.path.join(self.state_dir, "audit.jsonl")

    @property
    def repl_history(self) -> str:
        """Return the path of what was typed into `agentd repl`."""
        return os.path.join(self.state_dir, "repl_history")

    @property
    def access_file(self) -> str:
        """Return the path of the record of refused calls, of the operator's own and of peers that were cut off."""
        return os.path.join(self.state_dir, "access.jsonl")

    @property
    def lock_files(self) -> tuple[str, ...]:
        """Return the locks that make the daemon the only one of its state and of its runtime directory."""
        state = os.path.join(self.state_dir, "state.lock")
        return (state, os.path.join(self.runtime_dir, "run.lock"))


def _absolute(environ: Mapping[str, str], name: str) -> str:
    # The XDG specification: a relative path is to be ignored. Two working directories would make two daemons.
    value = environ.get(name, "")
    return value if os.path.isabs(value) else ""


def socket_path(environ: Mapping[str, str]) -> str:
    """Return where a client finds the daemon: AGENTD_SOCKET, else the instance's own."""
    return environ.get("AGENTD_SOCKET") or Paths.find(environ).socket


def check_socket_path(path: str) -> str:
    """Return the path, or raise InvalidValue when the system could not bind it."""
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_MAX_BYTES:
        raise InvalidValue(
            f"the socket path is {size} bytes long and the system allows {SOCKET_PATH_MAX_BYTES}: {path}",
            hint="set AGENTD_DIR (or XDG_RUNTIME_DIR) to a shorter directory",
        )
    return path


def _home_of_this_uid() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise InvalidValue("HOME is not set and this uid has no home directory", hint="set AGENTD_DIR") from None
