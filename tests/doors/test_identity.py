"""Who a connection is: uid, token, process tree, terminal."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys

import pytest

from agentd.doors import peers
from agentd.doors.identity import check_uid, identify
from agentd.doors.peers import Peer, controlling_tty, lineage, peer_credentials
from agentd.errors import Denied, Unauthenticated
from agentd.records import Role

ANN, BOB = ("a1", "ann"), ("b2", "bob")
ME = Peer(os.getpid(), os.getuid())


class Places:
    """Two tokens, and which processes and terminals are inside a pane."""

    def __init__(self, pids=(), ttys=(), inside=ANN, left=None):
        self.pids, self.ttys, self.inside, self.left = set(pids), set(ttys), inside, left

    def by_token(self, token):
        return {"ann's": ANN, "bob's": BOB}.get(token)

    def by_process(self, pids, tty):
        return self.inside if self.pids & {*pids} or tty in self.ttys else None

    def by_environment(self, pids):
        return self.left if os.getpid() in pids else None


def test_outside_every_pane_without_a_token_is_the_operator():
    caller = identify(ME, None, Places())
    assert (caller.role, caller.inbox, caller.pid, caller.uid) == (Role.OPERATOR, "operator", ME.pid, ME.uid)


def test_a_token_is_its_agent():
    caller = identify(ME, "ann's", Places())
    assert (caller.role, caller.agent_id, caller.name) == (Role.AGENT, "a1", "ann")


@pytest.mark.parametrize("pid", [os.getpid(), os.getppid()], ids=["itself", "its parent"])
def test_inside_a_pane_without_a_token_is_that_panes_agent(pid):
    assert identify(ME, None, Places({pid})).agent_id == "a1"
    assert identify(ME, "", Places({pid})).agent_id == "a1"
    assert identify(ME, "ann's", Places({pid})).agent_id == "a1"


def test_another_agents_token_inside_a_pane_is_denied():
    with pytest.raises(Denied, match="ann, in whose pane you run"):
        identify(ME, "bob's", Places({os.getpid()}))


def test_an_unknown_token_is_unauthenticated_everywhere():
    for places in (Places(), Places({os.getpid()})):
        with pytest.raises(Unauthenticated):
            identify(ME, "guessed", places)


def test_a_program_that_left_a_pane_is_its_agent_with_the_token_and_nobody_without():
    left = Places(left=ANN)
    assert identify(ME, "ann's", left).agent_id == "a1"
    with pytest.raises(Denied, match="started by ann, left its pane and shows no token"):
        identify(ME, None, left)
    with pytest.raises(Denied, match="not the one of ann"):
        identify(ME, "bob's", left)


def test_another_uid_is_denied():
    with pytest.raises(Denied, match="you are uid 4242"):
        identify(Peer(os.getpid(), 4242), "ann's", Places())
    with pytest.raises(Denied):
        check_uid(Peer(os.getpid(), 4242))


def test_root_is_another_uid_too(monkeypatch: pytest.MonkeyPatch):
    """R02: no setting lets it in; it may become the user."""
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(Denied, match="belongs to uid 4242 and you are uid 0"):
        check_uid(Peer(os.getpid(), 0))


def test_a_process_that_is_gone_is_nobody_unless_it_has_a_token():
    gone = subprocess.Popen([sys.executable, "-IS", "-c", ""])
    gone.wait()
    for pid in (gone.pid, 0):
        with pytest.raises(Denied, match="is gone"):
            identify(Peer(pid, os.getuid()), None, Places())
        assert identify(Peer(pid, os.getuid()), "ann's", Places()).agent_id == "a1"


def test_credentials_are_the_kernels():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_credentials(ours) == (os.getpid(), os.getuid())


def test_the_lineage_begins_with_the_process_and_goes_up():
    assert lineage(os.getpid())[:2] == (os.getpid(), os.getppid())
    child = subprocess.Popen([sys.executable, "-IS", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert lineage(child.pid)[:2] == (child.pid, os.getpid())
    finally:
        child.communicate(b"\n")


@pytest.fixture
def in_a_terminal():
    """A process with a controlling terminal of its own; gives its pid and that terminal's path."""
    pid, master = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-IS", "-c", "import os; print(os.ttyname(0), flush=True); input()"])
    path = os.read(master, 200).decode().strip()
    yield pid, path
    os.write(master, b"\n")
    os.waitpid(pid, 0)
    os.close(master)


def test_the_controlling_terminal_places_a_process_too(in_a_terminal):
    pid, path = in_a_terminal
    assert controlling_tty(pid) == path
    assert identify(Peer(pid, os.getuid()), None, Places(ttys={path})).agent_id == "a1"


def test_ps_tells_the_same_where_there_is_no_proc(in_a_terminal, monkeypatch):
    monkeypatch.setattr(peers.sys, "platform", "other")
    pid, path = in_a_terminal
    assert controlling_tty(pid) == path
    assert lineage(pid)[:2] == (pid, os.getpid())
    assert lineage(2**22 + 1) == ()
