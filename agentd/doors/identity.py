"""Which identity a connection gets: from the kernel, the process tree and a token, never from what the peer claims."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from agentd.doors.peers import Peer, controlling_tty, lineage
from agentd.errors import Denied, Unauthenticated
from agentd.records import Caller, Role


class Directory(Protocol):
    """What identity asks about agents; each answers (id, name) of an agent, or None."""

    def by_token(self, token: str) -> tuple[str, str] | None:
        """Return the agent that the token was given to."""

    def by_process(self, pids: Sequence[int], tty: str) -> tuple[str, str] | None:
        """Return the agent in whose pane one of the processes, or the terminal, is."""

    def by_environment(self, pids: Sequence[int]) -> tuple[str, str] | None:
        """Return the agent, live or not, whose environment one of the processes was started with."""


def check_uid(peer: Peer) -> None:
    """Raise Denied unless the peer runs as the daemon's own user."""
    if peer.uid != os.getuid():
        raise Denied(
            f"this agentd belongs to uid {os.getuid()} and you are uid {peer.uid}",
            hint="run an agentd of your own, or connect as its owner",
        )


def identify(peer: Peer, token: str | None, directory: Directory) -> Caller:
    """Return the caller: its token's agent, else the agent whose pane it runs in, else the operator.

    Raises Denied for another uid, for another agent's token, for a process that is gone and so cannot be placed, and
    for one that left an agent's pane (its ancestors and its terminal) and does not show that agent's token.
    """
    check_uid(peer)
    pids = lineage(peer.pid)
    inside = directory.by_process(pids, controlling_tty(peer.pid)) if pids else None
    owner = _owner(token, directory) if token else inside
    if owner is None:
        if not pids:  # a child that kept the socket could be anywhere, inside a pane too
            raise Denied(
                "the process that connected is gone, so agentd cannot tell where it ran",
                hint="connect from the process that makes the calls",
            )
        _check_not_marked(directory.by_environment(pids))
        return Caller(Role.OPERATOR, pid=peer.pid, uid=peer.uid)
    home = inside or directory.by_environment(pids)
    if home is not None and home != owner:
        raise Denied(
            f"this token is not the one of {home[1]}, in whose pane you run",
            hint="leave AGENTD_TOKEN_FILE as agentd set it",
        )
    return Caller(Role.AGENT, *owner, pid=peer.pid, uid=peer.uid)


def _check_not_marked(agent: tuple[str, str] | None) -> None:
    # An environment can be changed, so it never gives a right; it only keeps one from a program that slipped away.
    if agent is not None:
        raise Denied(
            f"this program was started by {agent[1]}, left its pane and shows no token",
            hint="leave AGENTD_TOKEN_FILE as agentd set it, or use a terminal that no agent started",
        )


def _owner(token: str, directory: Directory) -> tuple[str, str]:
    owner = directory.by_token(token)
    if owner is None:
        raise Unauthenticated(
            "the token is not known here, or its agent has ended or has a new one",
            hint="read AGENTD_TOKEN_FILE again in an agent's pane, and unset it outside of them",
        )
    return owner
