"""Commands about configuration; none needs a daemon."""

from __future__ import annotations

import os
import shlex

from agentd import config
from agentd.cli.output import emit, facts, say, table
from agentd.client import connect
from agentd.errors import EXIT_OK, AlreadyExists, Unavailable
from agentd.paths import Paths
from agentd.private import open_private, private_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values


def show(values: Values) -> int:
    """Print each setting as a daemon started now has it; a running one's --set count, as they outlive a restart."""
    rows = config.load(Paths.find(os.environ).config_file, os.environ, _overrides()).rows()
    if values["json"]:
        emit(rows)
    else:
        shown = [(row["key"], _text(row["value"]), row["origin"], row["doc"]) for row in rows]
        table(("SETTING", "VALUE", "FROM", "ABOUT"), shown)
    return EXIT_OK


def _overrides() -> list[str]:
    try:
        client = connect(autostart=False)
    except Unavailable:
        return []
    with client:
        return list(client.call("daemon.status").get("overrides", ()))


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return shlex.join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def path(values: Values) -> int:
    """Print where things are."""
    paths = Paths.find(os.environ)
    places = {
        "config": paths.config_file,
        "profiles": paths.profiles_dir,
        "state": paths.state_dir,
        "runtime": paths.runtime_dir,
        "socket": os.environ.get("AGENTD_SOCKET") or paths.socket,
        "tmux_socket": paths.tmux_socket(0),  # of the first server; each agent's row names its own
        "log": paths.log_file,
    }
    if values["json"]:
        emit(places)
    else:
        facts(list(places.items()))
    return EXIT_OK


def init(values: Values) -> int:
    """Write a configuration file in which every setting is named, unless there is one."""
    paths = Paths.find(os.environ)
    private_dir(paths.config_dir)
    if os.path.lexists(paths.config_file):
        raise AlreadyExists(f"{paths.config_file} exists and was left alone", hint="edit it, or move it away")
    with os.fdopen(open_private(paths.config_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
        file.write(config.template())
    if values["json"]:
        emit({"config": paths.config_file})
    else:
        say(f"wrote {paths.config_file}; every line in it is a default")
    return EXIT_OK
