"""The composition root: builds every part, runs them in one task group, closes them in reverse."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from agentd import __version__, config, logs
from agentd.agents.adoption import Adoption
from agentd.agents.audit import Audit
from agentd.agents.causes import Causes
from agentd.agents.crew import Crew
from agentd.agents.crew_parts import CrewParts
from agentd.agents.directory import Directory
from agentd.agents.lodging import Lodging
from agentd.agents.loops import Loops
from agentd.agents.offspring import Offspring
from agentd.agents.places import Places
from agentd.agents.profile import Profiles
from agentd.agents.profile_watch import ProfileWatch
from agentd.agents.projects import Projects
from agentd.agents.refusals import Refusals
from agentd.agents.registry import Registry
from agentd.agents.teams import Teams
from agentd.agents.waiters import Waiters
from agentd.agents.worktrees import Worktrees
from agentd.api import table
from agentd.api.agent_rows import PackedAgents
from agentd.api.event_rows import PackedEvents
from agentd.api.parts import Parts
from agentd.cache.cache import Cache
from agentd.cache.query import Query
from agentd.config import Config
from agentd.doors.access import AccessLog
from agentd.doors.identity import identify
from agentd.doors.inhabitants import Inhabitants
from agentd.doors.listening import AlreadyRunning, InstanceLock, check_place
from agentd.doors.rpc import RpcDoor
from agentd.errands.errands import Errands, Surroundings
from agentd.errors import AgentdError
from agentd.events import Events
from agentd.events.store import EventStore
from agentd.garbage import collect_rarely
from agentd.mailbox.health import Standing
from agentd.mailbox.mailbox import Mailbox
from agentd.mailbox.search import Search
from agentd.memory import bound_arenas
from agentd.metrics import LoopLag, Metrics
from agentd.paths import Paths, check_socket_path
from agentd.private import open_private, private_dir
from agentd.records import Agent, Change, Delivery
from agentd.supervisor import Supervisor
from agentd.switches import Switch
from agentd.tmux.fleet import Fleet
from agentd.tmux.measured import switches_of
from agentd.tmux.notation import decode_output
from agentd.tmux.queries import Queries, ask, tags_of
from agentd.transcripts.search import TranscriptSearch
from agentd.transcripts.transcripts import Transcripts

EXIT_ALREADY_RUNNING = 75  # sysexits EX_TEMPFAIL; reliability.md R05
EXIT_CANNOT_START = 78  # sysexits EX_CONFIG; reliability.md R04

Relay = list[Callable[[Any], None]]  # parts built later join those that an earlier one tells


def main(paths: Paths, overrides: Sequence[str], ready_fd: int | None) -> int:
    """Run the daemon until it is told to stop; one line to `ready_fd` says whether it started."""
    starter = _Starter(ready_fd, os.umask(0o077))
    try:
        supervisor = Supervisor.take(os.environ, paths.socket)
        with _sole_instance(paths) as settings_of:
            settings = settings_of(overrides)
            log = logs.to_file(paths.log_file, settings.log.level)
            given = _Given(paths, settings, overrides, starter.umask, log, supervisor)
            collect_rarely()
            bound_arenas()
            return anyio.run(_serve, given, starter)
    except (AgentdError, BaseExceptionGroup) as raised:
        error = _ours(raised)
        if error is None or starter.told:
            raise
        starter.tell(f"error {error.code} {error.message}" + (f"; {error.hint}" if error.hint else ""))
        return EXIT_ALREADY_RUNNING if isinstance(error, AlreadyRunning) else EXIT_CANNOT_START


def _ours(raised: BaseException) -> AgentdError | None:
    """Return the error of ours that a task group wrapped, when it is alone there."""
    while isinstance(raised, BaseExceptionGroup) and len(raised.exceptions) == 1:
        raised = raised.exceptions[0]
    return raised if isinstance(raised, AgentdError) else None


@contextlib.contextmanager
def _sole_instance(paths: Paths) -> Iterator[Callable[[Sequence[str]], Config]]:
    for directory in (paths.state_dir, paths.runtime_dir):
        private_dir(directory)
    for path in (paths.socket, paths.tmux_socket(config.MAX_SERVERS - 1)):
        check_socket_path(path)
    with InstanceLock(paths):
        for path in (paths.socket, *paths.tmux_sockets().values()):
            check_place(path)  # before tmux is started, which would take the place of a file
        _set_limits()
        yield partial(config.load, paths.config_file, os.environ)


def _set_limits() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 65_536
    with contextlib.suppress(ValueError, OSError):  # macOS refuses more than its own maximum
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold messages and tokens


class _Starter:
    """Whoever started us, who is told once whether we came up."""

    def __init__(self, ready_fd: int | None, umask: int) -> None:
        self._ready_fd = ready_fd
        self.umask = umask
        self.told = False

    def tell(self, line: str) -> None:
        """Say `ready`, or `error CODE SENTENCE`."""
        self.told = True
        if self._ready_fd is None:
            print(f"agentd: {line.removeprefix('error ')}", file=sys.stderr)  # noqa: T201  --foreground talks to its terminal
            return
        with contextlib.suppress(OSError):  # whoever started us may be gone; we go on
            os.write(self._ready_fd, line.replace("\n", " ").encode() + b"\n")
            os.close(self._ready_fd)


@dataclass(frozen=True, slots=True)
class _Given:
    """What the daemon is built from."""

    paths: Paths
    settings: Config
    overrides: Sequence[str]
    umask: int  # of whoever started us
    log: logs.Log
    supervisor: Supervisor


async def _serve(given: _Given, starter: _Starter) -> int:
    stop = _Stop()
    async with AsyncExitStack() as stack:
        parts, door, recovered = await _build(given, stop, stack)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop.on_signals)
            tasks.start_soon(parts.events.run)
            tasks.start_soon(_gauges(parts, door).run)
            if given.settings.watch.enabled:
                tasks.start_soon(
                    parts.switches.watch, given.settings.watch.period_s, partial(_tell_off, parts), parts.tmux.price
                )
            await tasks.start(parts.cache.run)
            await tasks.start(parts.transcripts.run)
            await tasks.start(parts.crew.run)
            await tasks.start(parts.search.run)
            tasks.start_soon(parts.errands.run)
            await tasks.start(parts.transcript_search.run)
            adoption = await parts.crew.adopt(recovered)
            tasks.start_soon(parts.profile_watch.run)
            tasks.start_soon(parts.pool.run)
            await parts.queries.revive()
            await tasks.start(door.serve)
            _announce(parts, adoption, given.paths)
            starter.tell("ready")
            given.supervisor.ready(f"{parts.crew.count} agents adopted")
            tasks.start_soon(given.supervisor.watch)
            await stop.requested.wait()
            given.supervisor.stopping(f"agents: {stop.agents}")
            await _close(parts, door, stop)
            tasks.cancel_scope.cancel()
    given.log.info("daemon stopped", agents=stop.agents)
    return 0


async def _build(given: _Given, stop: _Stop, stack: AsyncExitStack) -> tuple[Parts, RpcDoor, Sequence[Delivery]]:
    """Build the parts, lowest floor first; the stack closes them in reverse."""
    paths, settings = given.paths, given.settings
    started_ns, started_cpu_s = time.time_ns(), time.process_time()
    instance = _instance_id(paths)
    events, metrics, waiters = Events(_event_store(given)), Metrics(), Waiters()
    metrics.gauge("cpu_seconds_total", lambda: round(time.process_time() - started_cpu_s, 3))  # as long as uptime_s
    stack.push_async_callback(events.close)
    events.on_event.append(waiters.on_event)
    on_changes: Relay = [waiters.on_changes]
    on_tmux: Relay = []
    registry, mailbox, transcripts, tmux, cache = await _open_floors(
        given, events, instance, stack, on_changes, on_tmux
    )
    search, transcript_search = await _open_searches(given, mailbox, transcripts, stack)
    queries = Queries(cache, tmux)
    mailbox.on_standing.append(partial(_tell_standing, given.log, events))
    directory = Directory(await registry.entries())
    places = Places(paths, instance)
    places.write_launcher()
    projects = Projects(registry, os.environ.get("HOME", "/"))
    profiles = Profiles.load(paths.profiles_dir, (await projects.trusted()).profiles)
    worktrees = Worktrees(paths.worktrees_dir, given.log, os.environ, given.umask)
    lodging = Lodging(worktrees, projects, os.environ, given.log)
    crew = Crew(
        CrewParts(
            tmux=tmux,
            mailbox=mailbox,
            registry=registry,
            directory=directory,
            profiles=profiles,
            events=events,
            metrics=metrics,
            config=settings,
            places=places,
            lodging=lodging,
            audit=stack.enter_context(Audit.open(paths.audit_file, directory, events, given.log)),
            transcripts=transcripts,
            instance=instance,
            umask=given.umask,
            log=given.log,
        )
    )
    causes = Causes(mailbox, settings.loops.window_s, time.time_ns)
    on_changes += [causes.on_changes, search.on_changes, crew.on_changes, partial(_emit_changes, events, directory)]
    on_tmux += [queries.on_tmux, crew.on_tmux]
    parts = Parts(
        config=settings,
        overrides=given.overrides,
        instance=instance,
        started_ns=started_ns,
        tmux=tmux,
        cache=cache,
        queries=queries,
        switches=switches_of(settings, cache, tmux),
        mailbox=mailbox,
        search=search,
        registry=registry,
        directory=directory,
        places=places,
        lodging=lodging,
        projects=projects,
        offspring=Offspring(settings.agents, directory, time.monotonic),
        transcripts=transcripts,
        transcript_search=transcript_search,
        profiles=profiles,
        profile_watch=ProfileWatch(
            profiles, projects, crew.profile_changed, crew.outcomes.profile_changed, events, given.log
        ),
        crew=crew,
        pool=crew.pool,
        teams=Teams(registry, directory, await registry.teams()),
        waiters=waiters,
        loops=Loops(settings.loops, time.monotonic, time.time_ns),
        causes=causes,
        refusals=Refusals(events, metrics, directory.display, time.monotonic),
        events=events,
        packed_events=PackedEvents(),
        packed_agents=PackedAgents(),
        errands=Errands(
            settings.hooks, Surroundings(os.environ, given.umask, paths.socket, tmux.attached), events, given.log
        ),
        metrics=metrics,
        log=given.log,
        request_stop=stop.request,
    )
    access = stack.enter_context(AccessLog.open(paths.access_file, events.emit, given.log))
    door = _door(parts, given, access)
    crew.on_retired.append(door.cut)
    crew.tokens.on_rotated.append(partial(door.cut, why="has a new token"))
    return parts, door, mailbox.recover()


def _event_store(given: _Given) -> EventStore | None:
    keep_bytes = int(given.settings.events.store_mb * 1_000_000)
    return EventStore(given.paths.events_dir, keep_bytes) if keep_bytes else None


async def _open_searches(
    given: _Given, mailbox: Mailbox, transcripts: Transcripts, stack: AsyncExitStack
) -> tuple[Search, TranscriptSearch]:
    """Open the indexes that follow the mailbox and the transcripts."""
    paths, settings = given.paths, given.settings

    def report(text: str) -> None:
        given.log.warning("search", report=text)

    search = await stack.enter_async_context(Search.open(paths.mailbox_dir, settings.search, mailbox, report))
    transcript_search = await stack.enter_async_context(
        TranscriptSearch.open(paths.transcripts_dir, settings.transcripts, settings.search, report)
    )
    transcripts.on_written.append(transcript_search.on_written)
    return search, transcript_search


async def _open_floors(
    given: _Given, events: Events, instance: str, stack: AsyncExitStack, on_changes: Relay, on_tmux: Relay
) -> tuple[Registry, Mailbox, Transcripts, Fleet, Cache]:
    """Open what lives outside of this process: the files and the tmux servers."""
    paths, settings, log = given.paths, given.settings, given.log

    async def asked(query: Query) -> Any:
        return await ask(tmux, query)

    # Before tmux is started, like whatever may refuse its settings.
    cache = await stack.enter_async_context(
        Cache.open(settings.cache, asked, tags_of, lambda: instance, paths.cache_file, log)
    )
    registry = await Registry.open(paths.registry_file)
    stack.push_async_callback(registry.close)
    mailbox = await stack.enter_async_context(
        Mailbox.open(paths.mailbox_dir, settings.mailbox, partial(_tell, on_changes, log))
    )
    _compare_shards(settings, mailbox, log)
    transcripts = await stack.enter_async_context(  # closed after tmux: until then programs are heard
        Transcripts.open(
            paths.transcripts_dir, settings.transcripts, decode_output, partial(_tell_transcripts, log, events)
        )
    )
    tmux = await stack.enter_async_context(
        Fleet.open(settings.tmux, paths, instance, log, partial(_tell, on_tmux, log))
    )
    return registry, mailbox, transcripts, tmux, cache


def _compare_shards(settings: Config, mailbox: Mailbox, log: logs.Log) -> None:
    """Say that a number of shards was asked for which the mailbox, being there already, does not have."""
    wanted, found = settings.mailbox.shards, mailbox.stats()["shards"]
    if "mailbox.shards" in settings.origins and wanted != found:
        todo = f"agentd down, then agentd mailbox reshard {wanted}"
        log.warning("mailbox.shards is for a new mailbox only", wanted=wanted, shards=found, todo=todo)


def _door(parts: Parts, given: _Given, access: AccessLog) -> RpcDoor:
    return RpcDoor(
        path=given.paths.socket,
        listener=given.supervisor.listener,
        config=parts.config.rpc,
        answer=partial(table.answer, parts),
        identify=partial(identify, directory=Inhabitants(parts.directory, parts.crew, parts.instance)),
        agents_start=parts.offspring.allowed,
        access=access,
        hello={"server": f"agentd {__version__}", "pid": os.getpid(), "instance": parts.instance},
        log=parts.log,
    )


def _gauges(parts: Parts, door: RpcDoor) -> LoopLag:
    """Show what is counted elsewhere; return the one measure that is a task of its own."""
    lag, gauge = LoopLag(), parts.metrics.gauge
    gauge("agents_live", lambda: parts.crew.count)
    gauge("waiters", lambda: len(parts.waiters))
    gauge("tmux_servers", lambda: len(parts.tmux.servers()))
    gauge("event_lag_ms", lambda: max((row["event_lag_ms"] for row in parts.tmux.stats()), default=0.0))
    gauge("cache_invalidations_total", lambda: parts.cache.stats()["invalidations"])
    gauge("prefetch_precision", lambda: parts.cache.stats()["prefetch"]["precision"] or 0.0)
    for tier in ("l1", "l2", "l3"):
        gauge(f"cache_{tier}_hit_ratio", partial(_hit_ratio, parts, tier))
    gauge("loop_stall_ms_p99", lambda: round(lag.quantile_ms(0.99), 3))
    gauge("loop_stall_ms_max", lambda: round(lag.quantile_ms(1.0), 3))
    gauge("rpc_connections", lambda: door.counters.connections)
    gauge("rpc_calls_in_flight", lambda: door.counters.in_flight)
    gauge("rpc_slow_consumers_total", lambda: door.counters.slow_consumers)
    return lag


def _hit_ratio(parts: Parts, tier: str) -> float:
    row = parts.cache.stats().get(tier, {"hits": 0, "misses": 0})
    hits, misses = int(row["hits"]), int(row["misses"])
    return round(hits / max(1, hits + misses), 4)


def _tell_off(parts: Parts, switch: Switch) -> None:
    """Tell that the watch has turned something off."""
    parts.log.warning("a switch was turned off", **switch.row())
    parts.events.emit("switch.off", **switch.row())


def _tell_standing(log: logs.Log, events: Events, standing: Standing) -> None:
    """Tell that a shard of the mailbox takes no writes, or takes them again."""
    log.warning("a shard's standing changed", **standing._asdict())
    events.emit("mailbox.shard", **standing._asdict())


def _tell_transcripts(log: logs.Log, events: Events, event: str, data: dict[str, Any]) -> None:
    """Tell that what agents print is not kept any more, is kept again, or that a part of it is damaged."""
    log.warning(event, **data)
    events.emit(event, **data)


async def _close(parts: Parts, door: RpcDoor, stop: _Stop) -> None:
    parts.events.emit("daemon.stopping", agents=stop.agents)
    parts.pool.close()
    if stop.agents == "stop":
        async with anyio.create_task_group() as group:
            for agent in [*parts.directory, *parts.directory.pooled()]:
                if parts.crew.live(agent.id):
                    group.start_soon(_stop_one, parts, agent)
    # A delivery that is cut off between Enter and its record would be made again by the next daemon.
    await parts.crew.quiesce(2 * parts.config.courier.confirm_s)
    await door.drain()
    if stop.agents == "stop":
        await parts.tmux.stop()


async def _stop_one(parts: Parts, agent: Agent) -> None:
    try:
        await parts.crew.stop(agent, force=False)
    except AgentdError as error:  # the server's own end takes it along
        parts.log.warning("could not stop an agent", agent=agent.id, error=error.message)


def _announce(parts: Parts, adoption: Adoption, paths: Paths) -> None:
    took_ms = (time.time_ns() - parts.started_ns) // 1_000_000
    parts.events.emit(
        "daemon.started", pid=os.getpid(), adopted=len(adoption.adopted), lost=list(adoption.lost), took_ms=took_ms
    )
    for report in parts.mailbox.reports:
        parts.log.error("mailbox", report=report)
    parts.log.info(
        "daemon started",
        version=__version__,
        socket=paths.socket,
        adopted=len(adoption.adopted),
        lost=adoption.lost,
        orphans=adoption.orphans,
        took_ms=took_ms,
    )


def _tell(listeners: Relay, log: logs.Log, what: Any) -> None:
    for listener in listeners:
        try:
            listener(what)
        except Exception:  # a listener must not stop the floor below it or its neighbours
            log.error("a listener failed", listener=repr(listener), exc_info=True)


def _emit_changes(events: Events, directory: Directory, changes: Sequence[Change]) -> None:
    """Emit one event for all messages of a commit that went the same way between the same two."""
    ways: dict[tuple[str, str, str], list[Change]] = {}
    for change in changes:
        ways.setdefault((change.state, change.to, change.sender), []).append(change)
    for (state, to, sender), rows in ways.items():
        events.emit(
            f"message.{state}",
            ids=[change.id for change in rows],
            to_id=to,
            to_name=directory.display(to),
            from_id=sender,
            from_name=directory.display(sender),
            detail=rows[0].detail,
        )


def _instance_id(paths: Paths) -> str:
    """Return the id that marks what is ours; made once for a state directory."""
    descriptor = open_private(os.path.join(paths.state_dir, "instance"), os.O_RDWR | os.O_CREAT)  # noqa: PTH118
    with os.fdopen(descriptor, "r+") as file:
        known = file.read().strip()
        if not known:
            known = secrets.token_hex(8)
            file.write(known + "\n")
            file.flush()
            os.fsync(file.fileno())
        return known


class _Stop:
    """Who asked the daemon to stop, and what becomes of the agents."""

    def __init__(self) -> None:
        self.requested = anyio.Event()
        self.agents = "keep"

    def request(self, agents: str) -> None:
        """Ask for the end, agents kept or stopped."""
        self.agents = agents
        self.requested.set()

    async def on_signals(self) -> None:
        """Turn SIGTERM and SIGINT into a request that keeps the agents."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                self.request("keep")
