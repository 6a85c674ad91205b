"""What a program says and what its screen shows, folded into one state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lives import SETTLE_S, UNKNOWN, Agent, said

from agentd.agents.claim import WORDS
from agentd.agents.outlook import NAME
from agentd.agents.screen import Verdict
from agentd.agents.status import DRAWN_S, FLIP_S, QUIET_UNKNOWN_S, RELEASE_S, TOLD_QUIET_S
from agentd.records import AgentState

IDLE = Verdict(AgentState.IDLE, "the composer is empty", "rules[3] idle")
DRAFT = Verdict(AgentState.IDLE, "a half-typed text stands there", "rules[4] draft", "", True, "hel")
WORKING = Verdict(AgentState.WORKING, "it can be interrupted", "rules[2] working")
ASKING = Verdict(AgentState.WAITING, "it asks", "rules[1] waiting", "Proceed?", waits_for="permission")
DEAD = Verdict(AgentState.FAILED, "its program has ended with exit status 1", "dead")


def idle() -> Agent:
    agent = Agent().shows(IDLE).waits(RELEASE_S)
    assert agent.status.deliverable
    agent.states = [AgentState.IDLE]
    return agent


# -- strength


@pytest.mark.parametrize("means", sorted(WORDS))
def test_the_programs_end_is_stronger_than_anything_it_said(means):
    agent = idle().says(means).shows(DEAD)
    assert agent.state is AgentState.FAILED
    assert agent.status.opinion.source == "process"
    agent.says(means).waits(60)
    assert agent.state is AgentState.FAILED
    assert not agent.status.deliverable


@pytest.mark.parametrize("means", sorted(WORDS))
def test_a_question_on_the_screen_counts_whatever_was_said(means):
    agent = idle().says(means).shows(ASKING)
    assert agent.state is AgentState.WAITING
    assert agent.status.opinion.waits_for == "permission"
    agent.says(means).waits(60)
    assert agent.state is AgentState.WAITING
    assert not agent.status.deliverable


def test_what_is_said_is_told_at_once_and_with_its_evidence():
    agent = idle()
    assert agent.status.hear(said("permission", "Bash: touch p1"), agent.now_s)
    opinion = agent.status.opinion
    assert (opinion.state, opinion.waits_for, opinion.source) == (AgentState.WAITING, "permission", "hook")
    assert opinion.rule == "hook Event"
    assert opinion.evidence == "Bash: touch p1"
    assert opinion.since_s == agent.now_s
    assert NAME in opinion.would_change


def test_a_title_is_named_as_the_source():
    agent = idle().shows(Verdict(AgentState.WORKING, "its title spins", "rules[1] working", source="title"))
    assert agent.waits(FLIP_S).status.opinion.source == "title"


# -- work without an end


def test_work_that_was_said_to_begin_and_never_to_end_is_over_when_the_screen_is_idle_and_silent():
    agent = idle().says("submitted").shows(IDLE)
    assert agent.state is AgentState.WORKING
    assert not agent.status.deliverable
    agent.waits(RELEASE_S - 0.01)
    assert agent.state is AgentState.WORKING
    agent.waits(0.01)
    assert agent.state is AgentState.IDLE
    assert agent.status.deliverable
    assert agent.status.opinion.source == "screen"


def test_a_program_that_says_it_works_and_prints_works_though_its_composer_is_empty():
    """Codex shows no spinner while its answer streams."""
    agent = idle().says("working").prints_for(30, [IDLE])
    assert agent.states == [AgentState.IDLE, AgentState.WORKING]


def test_the_end_of_a_turn_makes_it_deliverable_soon():
    agent = idle().says("submitted").prints_for(3, [WORKING]).says("done").shows(IDLE)
    agent.waits(TOLD_QUIET_S - 0.01)
    assert not agent.status.deliverable
    agent.waits(0.01)
    assert agent.status.deliverable
    assert agent.states == [AgentState.IDLE, AgentState.WORKING, AgentState.IDLE]


def test_without_a_word_from_the_program_an_idle_screen_is_believed_only_after_a_while():
    agent = idle().prints_for(3, [WORKING]).shows(IDLE).waits(RELEASE_S - 0.01)
    assert agent.state is AgentState.WORKING
    assert agent.waits(0.01).status.deliverable


def test_a_program_that_tells_nothing_is_believed_at_once():
    agent = Agent(quiet_s=0).shows(IDLE).shows(WORKING).waits(1).shows(IDLE)
    assert agent.status.deliverable


def test_output_takes_back_that_it_is_deliverable():
    agent = idle()
    agent.status.printed(agent.now_s)
    assert not agent.status.deliverable
    assert agent.looked().state is AgentState.IDLE
    assert agent.waits(RELEASE_S).status.deliverable


def test_what_it_said_of_being_idle_is_over_with_the_next_prompt():
    """Or the next message would be typed into the turn that the last one began."""
    agent = idle().says("done").shows(IDLE).waits(TOLD_QUIET_S)
    assert agent.status.deliverable
    agent.submits().waits(TOLD_QUIET_S * 2)
    assert not agent.status.deliverable


def test_what_it_said_after_the_prompt_counts_though_it_came_before_we_knew_that_it_was_entered():
    agent = idle()
    since_s = agent.now_s
    agent.waits(0.01).says("error", "overloaded")
    agent.status.submitted(since_s)
    assert agent.looked().status.opinion.waits_for == "error"


def test_an_end_that_the_screen_contradicts_is_believed_when_it_is_silent():
    """An answer that quotes `esc to interrupt` looks like work."""
    agent = idle().says("working").shows(WORKING).says("done").waits(RELEASE_S - 0.01)
    assert agent.state is AgentState.WORKING
    agent.waits(0.01)
    assert agent.state is AgentState.IDLE
    assert agent.status.opinion.source == "hook"
    assert not agent.status.deliverable


def test_a_turn_that_failed_is_idle_with_the_reason():
    agent = idle().says("working").prints_for(1, [WORKING]).says("error", "overloaded").shows(IDLE).waits(TOLD_QUIET_S)
    assert agent.status.deliverable
    assert agent.status.opinion.reason == "it says that its turn failed: overloaded"


# -- questions


@pytest.mark.parametrize("after", [IDLE, WORKING])
def test_a_question_is_over_when_it_has_left_the_screen(after):
    """No hook tells that a person denied it."""
    agent = idle().says("working").says("permission").shows(WORKING).shows(ASKING).waits(5).shows(after)
    agent.waits(RELEASE_S)
    assert agent.state is after.state


def test_a_question_is_not_over_before_it_was_drawn():
    agent = idle().says("working").prints_for(1, [WORKING]).says("permission").shows(WORKING).shows(IDLE).waits(60)
    assert agent.state is AgentState.WAITING
    assert not agent.status.deliverable


def test_a_question_no_rule_knows_is_over_when_the_program_goes_on():
    agent = idle().says("permission").shows(IDLE).waits(DRAWN_S * 2).shows(IDLE).waits(QUIET_UNKNOWN_S - 0.01)
    assert agent.state is AgentState.WAITING
    assert agent.waits(0.01).status.deliverable
    working = idle().says("permission").shows(WORKING).prints_for(RELEASE_S + 0.3, [WORKING])
    assert working.states == [AgentState.IDLE, AgentState.WAITING, AgentState.WORKING]


def test_a_question_that_is_drawn_anew_is_not_taken_for_answered():
    agent = idle().shows(ASKING).prints_for(10, [ASKING, UNKNOWN, ASKING, WORKING], every_s=FLIP_S * 0.9)
    assert agent.states == [AgentState.IDLE, AgentState.WAITING]


def test_the_end_of_a_session_leaves_the_screen_to_decide():
    agent = idle().says("working").prints_for(1, [WORKING]).says("ended").shows(IDLE).waits(RELEASE_S)
    assert agent.status.deliverable


# -- screens that nobody knows


def test_text_that_streams_is_work_though_no_rule_knows_it():
    agent = idle().prints_for(60, [UNKNOWN])
    assert agent.states == [AgentState.IDLE, AgentState.WORKING]
    agent.waits(QUIET_UNKNOWN_S)
    assert agent.state is AgentState.WAITING
    assert "a person should look" in agent.status.opinion.reason


@pytest.mark.parametrize("means", ["working", "done"])
def test_an_unknown_screen_that_stays_silent_is_for_a_person_whatever_was_said(means):
    agent = idle().says(means).shows(UNKNOWN).waits(QUIET_UNKNOWN_S - 0.01)
    assert agent.state is (AgentState.WORKING if means == "working" else AgentState.IDLE)
    assert not agent.status.deliverable
    assert agent.waits(0.02).state is AgentState.WAITING


# -- boot


def test_a_program_that_says_it_is_ready_is_so_at_once_where_another_takes_the_silence():
    told = Agent(started=False).shows(IDLE).says("ready").waits(SETTLE_S)
    assert told.status.deliverable
    untold = Agent(started=False).shows(IDLE).waits(RELEASE_S - 0.01)
    assert untold.state is AgentState.STARTING
    assert untold.waits(0.01).status.deliverable


def test_a_program_that_starts_with_a_prompt_works():
    agent = Agent(started=False).shows(UNKNOWN).says("working")
    assert agent.states == [AgentState.STARTING, AgentState.WORKING]


def test_a_dialog_at_boot_is_for_a_person_and_the_boot_goes_on_after_it():
    agent = Agent(started=False).says("trust").shows(ASKING).waits(20)
    assert agent.state is AgentState.WAITING
    agent.shows(IDLE).waits(RELEASE_S)
    assert agent.states == [AgentState.STARTING, AgentState.WAITING, AgentState.STARTING, AgentState.IDLE]


def test_a_program_that_never_is_quiet_is_not_started():
    agent = Agent(started=False).prints_for(11, [IDLE])
    assert agent.state is AgentState.FAILED
    assert "seeing whether it stays so" in agent.status.opinion.reason


# -- flips


@pytest.mark.parametrize("quiet_s", [0.0, RELEASE_S])
def test_glimpses_are_no_states(quiet_s):
    agent = Agent(quiet_s=quiet_s).shows(IDLE).waits(RELEASE_S)
    agent.states = [AgentState.IDLE]
    for glimpse in (WORKING, UNKNOWN):
        for _ in range(20):
            agent.shows(glimpse).waits(FLIP_S * 0.9)
            assert not agent.status.deliverable
            agent.shows(IDLE).waits(FLIP_S)
    assert agent.states == [AgentState.IDLE]


def test_a_pause_in_the_work_is_no_idleness():
    agent = idle().shows(WORKING).waits(FLIP_S)
    for _ in range(20):
        agent.shows(IDLE).waits(RELEASE_S * 0.9).shows(WORKING).waits(0.5)
    assert agent.states == [AgentState.IDLE, AgentState.WORKING]


# -- any order of things

SCREENS = st.sampled_from([IDLE, DRAFT, WORKING, ASKING, UNKNOWN])
STEPS = st.one_of(
    st.tuples(st.just("shows"), SCREENS),
    st.tuples(st.just("says"), st.sampled_from([*sorted(WORDS), "ended", "ignore"])),
    st.tuples(st.just("prints"), st.none()),
    st.tuples(st.just("submits"), st.none()),
    st.tuples(st.just("waits"), st.sampled_from([0.01, 0.09, 0.2, 0.31, 1.0, 2.1, 5.0, 11.0])),
)
AGENTS = st.tuples(st.sampled_from([0.0, RELEASE_S]), st.booleans(), st.lists(STEPS, max_size=40))


def lived(quiet_s: float, started: bool, steps: Sequence[tuple[str, Any]]) -> Agent:
    agent = Agent(quiet_s=quiet_s, started=started)
    agent.after = check
    for name, value in steps:
        step = getattr(agent, name)
        step() if value is None else step(value)
    assert agent.looks < 20 * (len(steps) + 1)
    return agent


def check(agent: Agent) -> None:
    """Hold after every step."""
    if agent.status.deliverable:
        assert agent.state is AgentState.IDLE
    if agent.screen.state is AgentState.WAITING and agent.status._verdict is agent.screen:
        assert agent.state is AgentState.WAITING
    if agent.screen is not IDLE and agent.status._verdict is agent.screen:
        assert not agent.status.deliverable
    assert agent.status.opinion.since_s <= agent.now_s
    assert agent.status.opinion.would_change


@given(AGENTS)
def test_nothing_is_typed_into_a_question_a_draft_or_an_unknown_screen(life):
    lived(*life)


@given(AGENTS)
def test_an_idle_screen_that_stays_silent_is_idle_in_bounded_time(life):
    agent = lived(*life).shows(IDLE).waits(QUIET_UNKNOWN_S + RELEASE_S)
    claim = agent.status._claim
    if claim is not None and claim.state is AgentState.WAITING:  # said, and never seen: a person has to say so
        assert agent.state is AgentState.WAITING
    else:
        assert agent.state is AgentState.IDLE
        assert agent.status.deliverable


@given(AGENTS)
def test_a_program_that_says_so_itself_is_deliverable_sooner(life):
    agent = lived(*life).shows(IDLE).says("done").waits(SETTLE_S + TOLD_QUIET_S)
    assert agent.status.deliverable


@given(AGENTS, st.lists(STEPS, max_size=10))
def test_an_end_is_final(life, after):
    agent = lived(*life).shows(DEAD)
    for name, value in after:
        if name in ("says", "waits"):
            getattr(agent, name)(value)
    assert agent.state is AgentState.FAILED
    assert not agent.status.deliverable
