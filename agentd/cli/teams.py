"""Commands about teams."""

from __future__ import annotations

import os
import tomllib
from typing import Any

from agentd.cli.agents import print_agents, print_stopped
from agentd.cli.onlooker import starting, watched
from agentd.cli.output import emit, say, table, tell_notices
from agentd.cli.session import ask, connection, report_failed
from agentd.errors import EXIT_OK, InvalidValue, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values

UP_TIMEOUT_S = 4200.0  # a project's setup command may take an hour
DOWN_TIMEOUT_S = 300.0


def up(values: Values) -> int:
    """Bring a team up from its file."""
    team, agents = read_file(values["file"])
    params = {"team": team, "agents": agents, "cwd": os.path.dirname(os.path.abspath(values["file"]))}
    with connection() as client, watched(starting, quiet=values["json"]):
        answer = client.call("teams.up", params, timeout_s=UP_TIMEOUT_S)
    tell_notices(answer)
    if values["json"]:
        emit(answer)
    else:
        started = sum(agent["started"] for agent in answer["agents"])
        say(f"team {answer['team']}: {started} started, {len(answer['agents']) - started} were running")
        print_agents(answer["agents"])
    return report_failed(answer["failed"], "name")


def read_file(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a team file's [team] and [[agents]] tables; what stands in them is checked by the call."""
    try:
        with open(name, "rb") as file:
            tables = tomllib.load(file)
    except FileNotFoundError:
        raise NotFound(f"no file {name}", hint="see examples/team.toml for one") from None
    except OSError as error:
        raise InvalidValue(f"cannot read {name}: {error.strerror}", hint="nothing was started") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{name} is not TOML: {error}", hint="correct it; nothing was started") from None
    unknown = sorted(tables.keys() - {"team", "agents"})
    team, agents = tables.get("team"), tables.get("agents")
    if unknown:
        raise InvalidValue(f"{name}: `{unknown[0]}` is unknown", hint="a team file has [team] and [[agents]]")
    if not isinstance(team, dict) or not isinstance(team.get("name"), str):
        raise InvalidValue(f"{name}: [team] with a `name` is missing", hint='write [team] and name = "review"')
    if not isinstance(agents, list) or not agents or not all(isinstance(agent, dict) for agent in agents):
        raise InvalidValue(f"{name}: [[agents]] is missing", hint="write one [[agents]] table for each")
    for number, agent in enumerate(agents, 1):
        for key in ("name", "profile"):
            if not isinstance(agent.get(key), str):
                where = f"{name}: [[agents]] number {number}"
                raise InvalidValue(f"{where}: `{key}` is missing or no text", hint="nothing was started")
    return team, agents


def ls(values: Values) -> int:
    """List teams."""
    answer = ask("teams.list")
    if values["json"]:
        emit(answer["teams"])
    elif answer["teams"]:
        rows = [(team["name"], team["agents"], team["live"], team.get("cwd")) for team in answer["teams"]]
        table(("TEAM", "AGENTS", "LIVE", "CWD"), rows)
    else:
        say("no teams; try `agentd team up FILE.toml`")
    return EXIT_OK


def show(values: Values) -> int:
    """Show one team."""
    answer = ask("teams.get", {"team": values["team"]})
    if values["json"]:
        emit(answer)
        return EXIT_OK
    say(f"team {answer['name']} in {answer['cwd']}")
    if answer["agents"]:
        print_agents(answer["agents"])
    else:
        say("none of its agents run; bring them up with `agentd team up FILE.toml`")
    return EXIT_OK


def down(values: Values) -> int:
    """Stop a team's agents."""
    with connection() as client:
        answer = client.call("teams.down", {"team": values["team"]}, timeout_s=DOWN_TIMEOUT_S)
    if values["json"]:
        emit(answer)
    else:
        print_stopped(answer["stopped"])
        say(f"team {values['team']}: {len(answer['stopped'])} stopped")
    return report_failed(answer["failed"], "target")
