"""Commands about the daemon itself."""

from __future__ import annotations

import os
import time

from agentd.cli.output import duration, emit, facts, megabytes, say
from agentd.cli.session import ask_once, reached
from agentd.errors import EXIT_OK, Denied, InvalidValue, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agentd.cli.grammar import Values


def up(values: Values) -> int:
    """Start the daemon."""
    if os.environ.get("AGENTD_TOKEN_FILE"):
        raise Denied("an agent may not start the daemon", hint="run `agentd up` outside agents' panes")
    if values["foreground"]:
        from agentd.cli.launching import run_here

        return run_here(values["set"])
    running = _status()
    if running is None:
        return _start(values, values["set"])
    if values["set"]:
        _check_settings(values["set"])
    later = "; --set takes effect with `agentd restart --set ...`" if values["set"] else ""
    _tell(values, {"pid": running["pid"], "started": False}, f"already running (pid {running['pid']}){later}")
    return EXIT_OK


def down(values: Values) -> int:
    """Stop the daemon and wait until it is gone."""
    agents = values["agents"] or "keep"
    running = _status()
    if running is None and agents == "stop":
        running = _started_to_stop_agents()
    if running is None:
        _tell(values, {"stopped": False, "pid": None}, "not running")
        return EXIT_OK
    _shut_down(running["pid"], agents)
    alive = _alive(running) if agents == "keep" else ""
    _tell(values, {"stopped": True, "pid": running["pid"], "agents": agents}, f"stopped (pid {running['pid']}){alive}")
    return EXIT_OK


def restart(values: Values) -> int:
    """Stop the daemon, keep the agents, start it again."""
    if os.environ.get("AGENTD_TOKEN_FILE"):
        raise Denied("an agent may not restart the daemon", hint="run `agentd restart` outside agents' panes")
    running = _status()
    overrides = list(values["set"])
    if running is not None:
        overrides = [*running.get("overrides", ()), *overrides]
        _check_settings(overrides)
        _shut_down(running["pid"], "keep")
    return _start(values, overrides)


def _alive(running: dict[str, Any]) -> str:
    """Return in words what goes on without the daemon; slots of the pool are no agents yet."""
    live, slots = running["agents"].get("live", 0), _slots(running.get("pool", []))
    kept = [f"{live} agent{'s' * (live != 1)}"] * (live > 0) + [f"{slots} of the pool"] * (slots > 0)
    return f"; {' and '.join(kept)} stay{'s' * (live + slots == 1)} alive" if kept else ""


def _slots(pool: list[dict[str, Any]]) -> int:
    return sum(row["warm"] + row["booting"] for row in pool)


def _check_settings(overrides: list[str]) -> None:
    """Raise what is wrong with the settings before a daemon that runs is stopped for them."""
    from agentd import config
    from agentd.paths import Paths

    try:
        config.load(Paths.find(os.environ).config_file, os.environ, overrides)
    except InvalidValue as error:
        raise InvalidValue(error.message, hint="correct it; the running daemon was left as it is") from None


def status(values: Values) -> int:
    """Say how the daemon is."""
    answer = ask_once("daemon.status")
    if values["json"]:
        emit(answer)
        return EXIT_OK
    agents = ", ".join(f"{count} {state}" for state, count in answer["agents"].items() if count)
    facts(
        [
            ("daemon", f"agentd {answer['version']}, pid {answer['pid']}, up {duration(answer['uptime_s'])}"),
            ("agents", agents or "none; try `agentd spawn shell`"),
            ("mailbox", _mailbox(answer["mailbox"])),
            ("transcripts", _transcripts(answer.get("transcripts"))),
            ("tmux", _tmux(answer["tmux"])),
            ("cache", _cache(answer["cache"])),
            ("switches", _switches(answer["switches"])),
            ("pool", _pool(answer["pool"])),
            ("settings", " ".join(answer.get("overrides", ()))),
        ]
    )
    return EXIT_OK


def _pool(pool: list[dict[str, Any]]) -> str:
    if not pool:
        return "none"
    warm, target = sum(row["warm"] for row in pool), sum(row["target"] for row in pool)
    booting = sum(row["booting"] for row in pool)
    more = f", {booting} booting" if booting else ""
    return f"{warm} of {target} ready{more}, in {len(pool)} place{'s' * (len(pool) != 1)}"


def _mailbox(mailbox: dict[str, Any]) -> str:
    counts = {name: value for name, value in mailbox.items() if name != "shard"}
    return "; ".join([_flat(counts), *(_shard(shard) for shard in mailbox.get("shard", ()) if shard["state"] != "ok")])


def _shard(shard: dict[str, Any]) -> str:
    if shard["state"] == "read-only":
        return f"{shard['name']} read-only for {duration(time.time() - shard['since_ns'] / 1e9)} ({shard['reason']})"
    return f"{shard['name']} {shard['state']}, kept: {' '.join(shard['kept'])}"


def _transcripts(transcripts: dict[str, Any] | None) -> str:
    if transcripts is None:
        return ""
    if transcripts["trouble"]:
        return f"not kept at the moment: {transcripts['trouble']}"
    return f"{megabytes(transcripts['size_bytes'])} written" if transcripts["enabled"] else "off"


def _tmux(tmux: dict[str, Any]) -> str:
    servers = tmux["servers"]
    each = " + ".join(str(server["agents"]) for server in servers)
    silent = [str(server["index"]) for server in servers if server.get("breaker", {}).get("state") == "open"]
    trouble = f"; no answer from server {', '.join(silent)}" if silent else ""
    return f"{tmux['version']}, {len(servers)} server{'s' * (len(servers) != 1)} with {each or 0} panes{trouble}"


def _cache(cache: dict[str, Any]) -> str:
    tiers = []
    for name in ("l1", "l2", "l3"):
        hits, misses = cache[name]["hits"], cache[name]["misses"]
        share = f"{100 * hits / (hits + misses):.0f} % of {hits + misses:,}" if hits + misses else "not asked yet"
        tiers.append(f"{name} {share}")
    return f"hits: {', '.join(tiers)}; {cache['asks']:,} asked of tmux, {cache['invalidations']:,} changes heard"


def _switches(switches: list[dict[str, Any]]) -> str:
    off = [f"{switch['name']} off ({switch['why']})" for switch in switches if not switch["on"]]
    return "; ".join(off) or "all on"


def _status() -> dict[str, Any] | None:
    """Return the running daemon's status, None when nobody serves the socket.

    A daemon that was killed may take a connection yet, until the last of its threads is gone.
    """
    try:
        with reached() as client:
            answer: dict[str, Any] = client.call("daemon.status")
            return answer
    except Unavailable:
        return None


def _start(values: Values, overrides: list[str]) -> int:
    from agentd.cli.launching import launch

    pid = launch(overrides)
    if pid is None:
        pid = _status_of_the_other()
        _tell(values, {"pid": pid, "started": False}, f"already running (pid {pid})")
    else:
        _tell(values, {"pid": pid, "started": True}, f"running (pid {pid})")
    return EXIT_OK


def _status_of_the_other() -> int:
    """Return the pid of a daemon that somebody else is starting at this moment, once it answers."""
    from agentd.cli.launching import until

    running = until(_status, 30.0, "another agentd holds the instance and does not answer")
    return int(running["pid"])


def _started_to_stop_agents() -> dict[str, Any] | None:
    """Start a daemon where one died and left its agents alive: nobody else can stop them in order."""
    from agentd.cli.launching import launch
    from agentd.paths import Paths

    if os.environ.get("AGENTD_AUTOSTART") == "0" or not Paths.find(os.environ).tmux_sockets():
        return None
    launch([])
    return _status()


def _shut_down(pid: int, agents: str) -> None:
    from contextlib import suppress

    from agentd.cli.launching import gone, until

    with reached() as client, suppress(Unavailable):
        # An answer lost in the daemon's end is no failure: whether the process goes is what counts.
        client.call("daemon.shutdown", {"agents": agents})
    until(lambda: gone(pid) or None, 60.0, f"the daemon (pid {pid}) was told to stop and has not ended")


def _tell(values: Values, answer: dict[str, Any], sentence: str) -> None:
    if values["json"]:
        emit(answer)
    else:
        say(sentence)


def _flat(values: Any) -> str:
    if isinstance(values, dict):
        return ", ".join(f"{name} {_flat(value)}" for name, value in values.items())
    if isinstance(values, list):
        return f"{len(values)}"
    return str(values)
