"""One state out of many looks."""

from __future__ import annotations

import pytest

from agentd.agents.screen import Verdict
from agentd.agents.status import FLIP_S, QUIET_UNKNOWN_S, Status
from agentd.records import AgentState

IDLE = Verdict(AgentState.IDLE, "the prompt is empty", "rules[1] idle")
WORKING = Verdict(AgentState.WORKING, "a command runs", "rules[2] working")
ASKING = Verdict(AgentState.WAITING, "it asks for permission", "rules[3] waiting")
UNKNOWN = Verdict(None, "no rule", "", "@#!")
DRAFT = Verdict(AgentState.IDLE, "a half-typed text stands there", "rules[4] draft", "", True, "hel")


def booting() -> Status:
    return Status(settle_s=0.3, boot_timeout_s=10, now_s=0)


def running() -> Status:
    return Status(settle_s=0.3, boot_timeout_s=10, now_s=0, started=True)


def test_a_booting_agent_is_ready_only_when_it_stays_so():
    status = booting()
    status.see(IDLE, 1.0)
    assert status.opinion.state is AgentState.STARTING
    assert status.look_again_in_s(1.0) == pytest.approx(0.3)
    status.see(UNKNOWN, 1.1)  # a false ready: the composer showed before a dialog
    status.see(IDLE, 1.2)
    assert status.opinion.state is AgentState.STARTING
    assert status.see(IDLE, 1.5)
    assert status.opinion.state is AgentState.IDLE
    assert status.deliverable


def test_an_agent_that_never_becomes_ready_fails_with_a_reason_and_recovers_when_it_does():
    status = booting()
    status.see(UNKNOWN, 9.9)
    assert status.opinion.state is AgentState.STARTING
    status.see(UNKNOWN, 10.0)
    assert status.opinion.state is AgentState.FAILED
    assert "not ready after 10 s" in status.opinion.reason
    assert status.opinion.evidence == "@#!"
    status.see(IDLE, 11.0)
    status.see(IDLE, 11.4)
    assert status.opinion.state is AgentState.IDLE


def test_a_dialog_during_boot_is_for_a_person():
    status = booting()
    status.see(ASKING, 1.0)
    assert status.opinion.state is AgentState.WAITING
    assert not status.deliverable


def test_a_draft_is_idle_but_not_deliverable():
    status = running()
    status.see(DRAFT, 1.0)
    assert status.opinion.state is AgentState.IDLE
    assert not status.deliverable


def test_an_unknown_screen_is_working_first_and_then_a_matter_for_a_person():
    status = running()
    status.see(IDLE, 0.0)
    status.see(UNKNOWN, 1.0)
    assert not status.deliverable
    assert status.look_again_in_s(1.0) == pytest.approx(FLIP_S)
    status.see(UNKNOWN, 1.0 + FLIP_S)
    assert status.opinion.state is AgentState.WORKING
    assert status.look_again_in_s(1.0 + FLIP_S) == pytest.approx(QUIET_UNKNOWN_S - FLIP_S)
    status.see(UNKNOWN, 1.0 + QUIET_UNKNOWN_S)
    assert status.opinion.state is AgentState.WAITING
    assert "a person should look" in status.opinion.reason
    status.see(WORKING, 20.0)
    status.see(WORKING, 20.0 + FLIP_S)
    assert status.opinion.state is AgentState.WORKING


def test_see_tells_whether_anything_changed():
    status = running()
    assert status.see(IDLE, 0.0)
    assert not status.see(IDLE, 1.0)
    assert not status.see(WORKING, 2.0)
    assert status.see(WORKING, 2.0 + FLIP_S)
