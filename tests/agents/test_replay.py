"""Streams played into the status give the states there were, each once."""

from __future__ import annotations

import functools
import itertools
import os
import random
import re
import select
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
from lives import Agent
from panes import BUILT_IN, DEADLINE_S, Seen, Tmux, tmux_server
from ptys import Run
from recorded import RECORDED, Recorded

from agentd.agents.attributes import read
from agentd.agents.screen import Verdict, classify
from agentd.records import AgentState

IDLE, WORKING, WAITING = AgentState.IDLE, AgentState.WORKING, AgentState.WAITING
STARTING = AgentState.STARTING
FRAME_S = 0.1
REST_S = 0.5  # longer than any of the times by which a state is held
SPINNERS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
STARS = "·✢✳✶✻✽"

# -- streams made from the recorded screens


@dataclass(frozen=True)
class Frame:
    """One screen of a stream."""

    recorded: Recorded
    text: str  # with attributes

    def verdict(self) -> Verdict:
        return verdict_on(self.recorded, self.text)


@functools.cache  # the same screens come again in many streams
def verdict_on(recorded: Recorded, text: str) -> Verdict:
    shown = read(text)
    seen = Seen(shown.plain, title=recorded.fact("pane_title"))
    return classify(BUILT_IN.get(recorded.program), seen, shown.solid)


@functools.cache
def frames(program: str, label: str) -> list[Frame]:
    chosen = [each for each in RECORDED if each.program == program and each.label == label]
    return [Frame(each, each.text(".ansi.txt")) for each in chosen]


def turned(frame: Frame, number: int) -> Frame:
    """Return a working screen a moment later: its spinner has turned, its seconds have passed."""
    text = re.sub(f"[{SPINNERS}]", SPINNERS[number % len(SPINNERS)], frame.text)
    text = re.sub(f"(?m)^((?:\x1b\\[[0-9;]*m)*)[{STARS}](?= )", rf"\g<1>{STARS[number % len(STARS)]}", text)
    return replace(frame, text=re.sub(r"\b\d+s\b", f"{number // 10}s", text))


def torn(before: Frame, after: Frame, share: float) -> Frame:
    """Return the screen while the next one is drawn over it, from the top."""
    old, new = before.text.split("\n"), after.text.split("\n")
    cut = int(len(new) * share)
    return replace(after, text="\n".join([*new[:cut], *old[cut:]]))


PROGRAMS = sorted({each.program for each in RECORDED})
WITH_WORK = [program for program in PROGRAMS if frames(program, "idle") and frames(program, "working")]
WITH_QUESTIONS = [program for program in WITH_WORK if frames(program, "waiting")]


def agent_of(program: str) -> Agent:
    return Agent(quiet_s=BUILT_IN.get(program).quiet_s)


def plays(agent: Agent, stream: Sequence[Frame]) -> None:
    """Draw each screen in two steps, a tenth of a second apart, and look after each step."""
    for before, after in zip([stream[0], *stream], stream, strict=False):
        agent.shows(torn(before, after, 0.5).verdict()).waits(0.005)
        agent.shows(after.verdict()).waits(FRAME_S - 0.005)


def rests(agent: Agent, frame: Frame) -> None:
    plays(agent, [frame])
    agent.waits(5)


@pytest.mark.parametrize("program", WITH_WORK)
def test_a_turn_is_idle_working_idle(program):
    chance = random.Random(program)
    for idle in frames(program, "idle"):
        for working in frames(program, "working"):
            agent = agent_of(program)
            rests(agent, idle)
            agent.states = [agent.state]
            for _ in range(2):
                plays(agent, [turned(working, number) for number in range(chance.randrange(15, 40))])
                rests(agent, idle)
            assert agent.states == [IDLE, WORKING, IDLE, WORKING, IDLE], (idle.recorded.name, working.recorded.name)


@pytest.mark.parametrize("program", WITH_QUESTIONS)
def test_a_question_in_a_turn_is_one_wait(program):
    idle, working = frames(program, "idle")[0], frames(program, "working")[0]
    work = [turned(working, number) for number in range(20)]
    for question in frames(program, "waiting"):
        agent = agent_of(program)
        rests(agent, idle)
        agent.states = [agent.state]
        plays(agent, work)
        plays(agent, [question] * 3)  # drawn anew, as when a person moves in it
        agent.waits(60)
        assert not agent.status.deliverable
        plays(agent, work)
        rests(agent, idle)
        assert agent.states == [IDLE, WORKING, WAITING, WORKING, IDLE], question.recorded.name


@pytest.mark.parametrize("program", [program for program in WITH_WORK if BUILT_IN.get(program).signals.osc != "none"])
def test_an_answer_that_streams_without_a_spinner_is_work_to_a_program_that_says_so(program):
    idle, working = frames(program, "idle")[0], frames(program, "working")[0]
    agent = agent_of(program)
    rests(agent, idle)
    agent.states = [agent.state]
    agent.says("working")
    plays(agent, [turned(working, number) for number in range(10)])
    plays(agent, [idle] * 100)
    agent.says("done")
    rests(agent, idle)
    assert agent.states == [IDLE, WORKING, IDLE]


# -- streams of the demo agent, through a real terminal


@pytest.fixture(scope="module")
def tmux() -> Iterator[Tmux]:
    with tmux_server() as server:
        yield server


class Recording:
    """What a program printed, and when."""

    def __init__(self, run: Run) -> None:
        self.chunks: list[tuple[float, bytes]] = []
        self._run = run

    def until(self, wanted: bytes) -> None:
        """Record until it has printed something."""
        end, seen = time.monotonic() + DEADLINE_S, b""
        while wanted not in seen:
            ready, _, _ = select.select([self._run.master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"waited for {wanted!r}: {seen[-300:]!r}"
            data = os.read(self._run.master, 65_536)
            self.chunks.append((time.monotonic(), data))
            seen += data

    def pieces(self, chance: random.Random) -> Iterator[tuple[float, list[bytes]]]:
        """Yield what came at once, cut into smaller pieces, with the time until more came."""
        for (at_s, data), (next_s, _) in zip(self.chunks, [*self.chunks[1:], self.chunks[-1]], strict=True):
            cuts = sorted({0, *(chance.randrange(len(data)) for _ in range(len(data) // 20)), len(data)})
            yield next_s - at_s, [data[start:stop] for start, stop in itertools.pairwise(cuts)]


class Stage:
    """A pane that shows what it is given."""

    def __init__(self, tmux: Tmux) -> None:
        self._tmux = tmux
        self._fifo = tmux.directory / "stage"
        os.mkfifo(self._fifo)
        show = f"stty raw -echo; exec cat {self._fifo}"
        tmux.run("new-session", "-d", "-s", "stage", "-x", "100", "-y", "30", "sh", "-c", show)
        self._fd = os.open(self._fifo, os.O_WRONLY)
        self._marks = 0

    def shows(self, data: bytes) -> None:
        os.write(self._fd, data)

    def shown(self) -> Verdict:
        """Return what it shows when it has shown everything."""
        self._marks += 1
        self.shows(b"\x1b]2;%d\x07" % self._marks)
        end = time.monotonic() + DEADLINE_S
        while self._tmux.run("display", "-p", "-t", "stage", "#{pane_title}").strip() != str(self._marks):
            assert time.monotonic() < end
        return self.verdict()

    def verdict(self) -> Verdict:
        text = self._tmux.run("capture-pane", "-p", "-J", "-t", "stage")
        return classify(BUILT_IN.get("demo"), Seen(text))

    def close(self) -> None:
        os.close(self._fd)
        self._tmux.run("kill-session", "-t", "stage")
        self._fifo.unlink()


@pytest.mark.parametrize("seed", range(3))
def test_the_demo_agent_is_seen_in_each_of_its_states_once_however_its_output_is_cut(tmux, monkeypatch, seed):
    monkeypatch.setenv("AGENTD_DEMO_MODE", "slow")
    monkeypatch.setenv("AGENTD_DEMO_DELAY_S", "0.4")
    run = Run(*BUILT_IN.get("demo").argv(), shim=False)
    recording = Recording(run)
    recording.until(b"demo> ")
    for text in (b"one", b"\x1b[200~two\nlines\x1b[201~"):
        run.type(text)
        recording.until(b"lines" if b"lines" in text else b"one")
        run.type(b"\r")
        recording.until(b"working")
        recording.until(b"echo: ")
        run.type(b"x")  # a draft
        recording.until(b"demo> x")
        run.type(b"\x15")
        recording.until(b"demo> ")
    run.end()

    stage, agent = Stage(tmux), Agent(quiet_s=0, started=False)
    for pause_s, pieces in recording.pieces(random.Random(seed)):
        for piece in pieces:
            stage.shows(piece)
            agent.shows(stage.verdict()).waits(0.001)
        agent.shows(stage.shown()).waits(max(REST_S, pause_s))
    agent.waits(1)
    stage.close()
    assert agent.states == [STARTING, IDLE, WORKING, IDLE, WORKING, IDLE]
