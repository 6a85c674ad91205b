"""The kept lists of agents say at any moment what freshly made rows say, whatever happened in between.

Directory, ledger, live agents, their questions and the inboxes are the real ones; only panes and disks are not there.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentd.agents.asking import Asking
from agentd.agents.directory import Directory
from agentd.agents.ledger import Ledger, ended
from agentd.agents.live import LiveAgent
from agentd.agents.profile import Profiles
from agentd.agents.registry import Entry
from agentd.agents.reports import Report
from agentd.agents.roster import Roster
from agentd.agents.screen import classify
from agentd.agents.signal import Signal
from agentd.agents.status import Status
from agentd.api import agent_rows, agents
from agentd.api.agent_rows import KEPT, PackedAgents
from agentd.api.views import agent_row, ages_s
from agentd.doors import replies
from agentd.doors.told import told
from agentd.errors import OverLimit, UnknownTarget
from agentd.events import Events
from agentd.mailbox.inboxes import Inboxes, Snapshot
from agentd.mailbox.transaction import Arrivals, Step
from agentd.records import Agent, AgentState, Change, MessageState, PaneRef
from agentd.wire import RESULT, calls

DEMO = Profiles.load("/nonexistent").get("demo")
NAMES = ("lead", "worker-1", "worker-2", "worker-10", "a")
TEAMS = ("", "red", "blue")
SERVERS = ("1:1", "2:2")
TARGETS = (None, "all", "@red", "@red/tester", "%demo", "lead", "nobody")
STATES = (None, "idle", "waiting", "stopped")
ACCEPTED, ACKED = MessageState.ACCEPTED, MessageState.ACKED
MEANS = ("ready", "working", "permission", "done")
SCREENS = (
    "> ",
    "\n".join(["demo asks to run: git push", "Allow? [y/N]"]),
    "\n".join(["demo asks to run: rm -r x", "Allow? [y/N]"]),
    "thinking",
)


def seen(text: str) -> Any:
    """Return a look at a pane that shows this."""
    return SimpleNamespace(text=text, cursor_x=0, cursor_y=0, dead=False, in_mode=False, command="", title="")


class World:
    """What the list of agents is made from."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.roster = Roster(None)  # type: ignore[arg-type]
        nothing = SimpleNamespace(save=None)
        made_of: Any = SimpleNamespace(
            directory=self.directory,
            registry=nothing,
            places=nothing,
            lodging=nothing,
            transcripts=nothing,
            events=Events(),
            log=None,
        )
        self.ledger = Ledger(made_of, self.roster)
        self.inboxes = Inboxes()
        self.sockets = dict(zip(SERVERS, ("/run/0.sock", "/run/1.sock"), strict=True))
        self.screens: dict[str, Any] = {}
        self.number = 0
        self.parts: Any = SimpleNamespace(
            directory=self.directory,
            crew=SimpleNamespace(live=self.roster.live.get),
            mailbox=SimpleNamespace(depth=self.inboxes.depth, depths=self.inboxes.depths),
            tmux=SimpleNamespace(
                socket_of=lambda pane: self.sockets.get(pane.server), sockets=lambda: dict(self.sockets)
            ),
            packed_agents=PackedAgents(),
        )
        self.follow_inboxes()

    def follow_inboxes(self) -> None:
        self.parts.mailbox.inboxes_version = self.inboxes.version

    def spawn(self, name: str, team: str = "", server: str = SERVERS[0], *, pooled: bool = False) -> str:
        self.number += 1
        id_ = f"a{self.number}"
        pane = PaneRef("$1", "@1", f"%{self.number}", self.number, server)
        agent = Agent(id_, name, "demo", AgentState.STARTING, team=team, role="tester", pane=pane, pooled=pooled)
        self.directory.put(Entry(agent, f"token of {id_}"))
        self.live(id_, pane)
        return id_

    def live(self, id_: str, pane: PaneRef) -> None:
        self.screens[id_] = seen(SCREENS[0])

        async def look() -> Any:
            return self.screens[id_], classify(DEMO, self.screens[id_])

        async def tidy(_look: Any, _verdict: Any) -> bool:
            return False

        def nobody(*_told: Any) -> None:
            pass

        terminal: Any = SimpleNamespace(ref=pane, told=nobody, changed=Signal(), look=look)
        self.roster.add(
            LiveAgent(
                id_,
                DEMO,
                terminal,
                SimpleNamespace(tidy=tidy),  # type: ignore[arg-type]
                Status(settle_s=0.0, boot_timeout_s=10, now_s=0.0),
                Asking(id_, DEMO, terminal, nobody, nobody),  # type: ignore[arg-type]
                SimpleNamespace(close=nobody),  # type: ignore[arg-type]
                on_opinion=self.ledger.on_opinion,
                on_asked=self.ledger.on_asked,
                on_report=lambda _id, _report: None,
                on_notice=nobody,
                may_deliver=lambda: True,
                log=None,  # type: ignore[arg-type]
            )
        )

    def change(self, id_: str, **values: Any) -> None:
        self.ledger.put(replace(self.directory.entry(id_).agent, **values))

    def ids(self) -> list[str]:
        return [agent.id for agent in (*self.directory, *self.directory.pooled())]

    def kept(self, target: str | None = None, state: Any = None) -> list[dict[str, Any]]:
        packed = agents.list_(self.parts, None, calls.AgentsList(target=target, state=state))  # type: ignore[arg-type]
        rows: list[dict[str, Any]] = msgspec.msgpack.decode(packed)["agents"]
        return rows

    def fresh(self, target: str | None, state: str | None) -> list[dict[str, Any]]:
        """Return the rows as each would be made for this call alone, in no order."""
        found = self.directory.resolve(target) if target else list(self.directory)
        wanted = [agent for agent in found if state == agent.state or (state is None and self._is_meant(agent, target))]
        rows: list[dict[str, Any]] = msgspec.to_builtins([agent_row(self.parts, agent) for agent in wanted])
        return rows

    def _is_meant(self, agent: Agent, target: str | None) -> bool:
        return target is not None or agent.state is not AgentState.STOPPED

    def check(self, target: str | None, state: str | None) -> None:
        """See that the kept list is the fresh one; ages apart, which a moment passes between."""
        try:
            fresh = self.fresh(target, state)
        except UnknownTarget:
            with pytest.raises(UnknownTarget):
                self.kept(target, state)
            return
        kept = self.kept(target, state)
        assert [row.keys() for row in kept] == [row.keys() for row in fresh]
        assert by_id(kept) == by_id(fresh)
        assert [row["name"] for row in kept] == sorted((row["name"] for row in kept), key=by_number)


def by_id(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["id"]: {name: value for name, value in row.items() if name != "since_s"} for row in rows}


def by_number(name: str) -> tuple[str, int]:
    return ("worker", int(name[7:])) if name.startswith("worker-") else (name, 0)


def at_once(waiting: Coroutine[Any, Any, Any]) -> None:
    with suppress(StopIteration):
        waiting.send(None)
        raise AssertionError("it waits for something")


class Lists(RuleBasedStateMachine):
    """Whatever may change a row, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def one(self, pick: int) -> str | None:
        ids = self.world.ids()
        return ids[pick % len(ids)] if ids else None

    @rule(name=st.sampled_from(NAMES), team=st.sampled_from(TEAMS), server=st.sampled_from(SERVERS))
    def spawn(self, name: str, team: str, server: str) -> None:
        self.world.spawn(name, team, server)

    @rule()
    def boot_for_the_pool(self) -> None:
        self.world.spawn("slot", pooled=True)

    @rule(name=st.sampled_from(NAMES))
    def hand_out(self, name: str) -> None:
        for slot in self.world.directory.pooled()[:1]:
            self.world.change(slot.id, name=name, pooled=False, warm=True)

    @rule(pick=st.integers(0, 9), name=st.sampled_from(NAMES))
    def rename(self, pick: int, name: str) -> None:
        if id_ := self.one(pick):
            self.world.change(id_, name=name)

    @rule(pick=st.integers(0, 9), team=st.sampled_from(TEAMS))
    def change_team(self, pick: int, team: str) -> None:
        if id_ := self.one(pick):
            self.world.change(id_, team=team)

    @rule(
        pick=st.integers(0, 9),
        means=st.sampled_from(("ready", "working", "permission", "done")),
        asks=st.sampled_from(("", "ls", "make")),
    )
    def report(self, pick: int, means: Any, asks: str) -> None:
        if live := self.world.roster.live.get(self.one(pick) or ""):
            live.reported(Report(means, "hook Event", asks=asks))

    @rule(pick=st.integers(0, 9), screen=st.sampled_from(SCREENS))
    def look(self, pick: int, screen: str) -> None:
        if live := self.world.roster.live.get(self.one(pick) or ""):
            self.world.screens[live.id] = seen(screen)
            at_once(live._observe())

    @rule(pick=st.integers(0, 9), written=st.booleans())
    def end(self, pick: int, written: bool) -> None:
        """It is out of the roster before it is written down as stopped, and a list may come between."""
        if (id_ := self.one(pick)) and id_ in self.world.roster.live:
            self.world.roster.remove(id_)
        if id_ and written:
            self.world.ledger.put(
                ended(self.world.directory.entry(id_).agent, AgentState.STOPPED, "its program exited with status 0", 0)
            )

    @rule(pick=st.integers(0, 9))
    def remove(self, pick: int) -> None:
        if id_ := self.one(pick):
            self.world.roster.live.pop(id_, None)
            self.world.ledger.drop([id_])

    @rule(pick=st.integers(0, 9))
    def message_comes(self, pick: int) -> None:
        if id_ := self.one(pick):
            self.world.inboxes.apply([Arrivals([Change("m1", id_, ACCEPTED, "operator", None)])])
            self.world.follow_inboxes()

    @rule(pick=st.integers(0, 9))
    def message_is_acked(self, pick: int) -> None:
        if (id_ := self.one(pick)) and self.world.inboxes.depth(id_):
            self.world.inboxes.apply([Step(1, ACCEPTED, 0, Change("m1", id_, ACKED, "operator", None))])
            self.world.follow_inboxes()

    @rule(pick=st.integers(0, 9), depth=st.integers(1, 5))
    def shard_is_opened_again(self, pick: int, depth: int) -> None:
        if id_ := self.one(pick):
            self.world.inboxes.load(Snapshot({id_: depth}, []))
            self.world.follow_inboxes()

    @rule(server=st.sampled_from(SERVERS), lives=st.booleans())
    def server_comes_or_goes(self, server: str, lives: bool) -> None:
        self.world.sockets.pop(server, None)
        if lives:
            self.world.sockets[server] = f"/run/again-{server}.sock"

    @invariant()
    def each_list_is_as_a_fresh_one(self) -> None:
        for target in TARGETS:
            for state in STATES:
                self.world.check(target, state)


TestLists = Lists.TestCase
TestLists.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


# -- one at a time


def test_a_row_is_packed_once_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    world, made = World(), list[str]()
    first, second = world.spawn("lead"), world.spawn("worker-1")
    real = agent_rows.agent_row
    monkeypatch.setattr(agent_rows, "agent_row", lambda parts, agent: made.append(agent.id) or real(parts, agent))
    world.kept()
    world.kept("all")
    assert made == [first, second]
    world.change(second, reason="another")
    assert world.kept()[1]["reason"] == "another"
    assert made == [first, second, second]


def test_a_question_that_becomes_another_is_told_though_its_agent_is_the_same() -> None:
    world = World()
    id_ = world.spawn("lead")
    live = world.roster.live[id_]
    for screen, asks in zip(SCREENS[1:3], ("git push", "rm -r x"), strict=True):
        world.screens[id_] = seen(screen)
        at_once(live._observe())
        at_once(live._observe())
        assert world.kept()[0]["asks"] == asks


def test_what_is_asked_is_told_before_the_prompt_is_drawn() -> None:
    world = World()
    live = world.roster.live[world.spawn("lead")]
    for asks in ("ls", "make"):
        live.reported(Report("permission", "hook Event", asks=asks))
        assert (world.kept()[0]["prompt"], world.kept()[0]["asks"]) == (None, asks)


def test_an_age_is_the_one_of_the_moment_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    world, now_ns = World(), 5_000_000_000_000
    monkeypatch.setattr(agent_rows.time, "time_ns", lambda: now_ns)
    world.spawn("lead")
    world.change("a1", since_ns=now_ns - 1_234_567_890)
    assert world.kept()[0]["since_s"] == 1.234
    now_ns += agent_rows.AGES_NS - 1
    assert world.kept()[0]["since_s"] == 1.234
    now_ns += 1
    assert world.kept()[0]["since_s"] == 1.244
    now_ns -= 3_000_000_000  # the clock is put back
    assert world.kept()[0]["since_s"] == 0.0


def test_a_text_like_the_packed_age_is_a_text() -> None:
    world = World()
    world.spawn("lead")
    text = msgspec.msgpack.encode({"since_s": 1.5}).decode("latin-1")
    world.change("a1", reason=text, cwd=text)
    assert (world.kept()[0]["reason"], world.kept()[0]["cwd"]) == (text, text)


def test_an_empty_list_is_one() -> None:
    assert World().kept() == []


def test_lists_of_many_targets_are_not_all_kept() -> None:
    world = World()
    for number in range(1, KEPT + 10):
        world.spawn(f"worker-{number}")
        world.kept(f"worker-{number}")
    for number in range(1, KEPT + 10):
        assert [row["name"] for row in world.kept(f"worker-{number}")] == [f"worker-{number}"]
    assert len(world.parts.packed_agents._lists) == KEPT


def test_a_tool_gets_the_plain_form() -> None:
    world = World()
    world.spawn("lead")
    packed = agents.list_(world.parts, None, calls.AgentsList())  # type: ignore[arg-type]
    assert told(packed)["structuredContent"]["agents"][0]["name"] == "lead"


@pytest.mark.parametrize("call_id", [1, 127, 128, 70_000, 2**40])
def test_what_is_packed_already_goes_out_as_any_result(call_id: int) -> None:
    value = {"agents": [{"name": "lead"}]}
    framed = replies.result(call_id, msgspec.Raw(msgspec.msgpack.encode(value)), 1_000)
    assert framed == replies.result(call_id, value, 1_000)
    assert msgspec.msgpack.decode(framed[4:]) == [RESULT, call_id, value]
    with pytest.raises(OverLimit):
        replies.result(call_id, msgspec.Raw(msgspec.msgpack.encode(value)), len(framed) - 5)


def test_ages_are_whole_milliseconds() -> None:
    assert ages_s(10_000_000_000, [10_000_000_000, 8_999_999_999, 11_000_000_000]) == [0.0, 1.0, 0.0]
