"""Where the daemon is, as whom a client comes, and starting it. Part of the thin client: `os` and `sys` only."""

from __future__ import annotations

import os
import sys

from agentd.errors import Unauthenticated, Unavailable
from agentd.paths import Paths, check_socket_path, socket_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_AUTOSTART_S = 20.0


class Place:
    """Where the daemon is, as whom we come, and whether we may start it."""

    __slots__ = ("_token", "environ", "may_start", "path")

    def __init__(self, path: str, token: str | None, environ: Mapping[str, str], *, may_start: bool) -> None:
        self.path = path
        self._token = token
        self.environ = environ
        self.may_start = may_start

    @property
    def token(self) -> str | None:
        """Return the token that was given, else what its file holds now: agentd makes it anew at a hand-out."""
        token_file = self.environ.get("AGENTD_TOKEN_FILE")
        return _read_token(token_file) if self._token is None and token_file else self._token

    @classmethod
    def find(
        cls, socket: str | None, *, autostart: bool, token: str | None, environ: Mapping[str, str] | None
    ) -> Place:
        """Return the place that arguments and environment name."""
        values = os.environ if environ is None else environ
        path = check_socket_path(socket or socket_path(values))
        token_file = values.get("AGENTD_TOKEN_FILE")
        may_start = (
            autostart
            and not token_file
            and values.get("AGENTD_AUTOSTART") != "0"
            and path == Paths.find(values).socket  # a daemon that we start listens there and nowhere else
        )
        return cls(path, token, values, may_start=may_start)

    def not_running(self) -> Unavailable:
        """Return the error for a socket that nobody serves."""
        return Unavailable(f"no daemon is running at {self.path}", hint="run `agentd up`")

    def start(self) -> None:
        """Run `agentd up`; raises Unavailable with its sentence when it fails."""
        import subprocess
        import tempfile

        with tempfile.TemporaryFile() as said:  # not a pipe: a daemon that keeps it open would hold us
            try:
                done = subprocess.run(
                    [sys.executable, "-P", "-m", "agentd", "up"],  # -P: a queue.py where the user stands is not ours
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env=dict(self.environ),
                    timeout=_AUTOSTART_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise Unavailable(f"the daemon did not start within {_AUTOSTART_S:g} s", hint="see its log") from None
            if done.returncode:
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
                why = lines[-1].removeprefix("agentd: ")
                raise Unavailable(f"no daemon is running and it could not be started: {why}", hint="then try again")


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123  pathlib costs the thin client 4 ms
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unauthenticated(
            f"the token file {path} cannot be read: {error}", hint="unset AGENTD_TOKEN_FILE outside agents' panes"
        ) from None
