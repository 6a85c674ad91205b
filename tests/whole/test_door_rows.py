"""Rows of the door with a real daemon: who is who, slow readers, dying clients, descriptors, floods (R02, R09-R15)."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_rows import row
from faults import SEED, form, say, seeded
from instance import Instance, instance, wait_until
from knocking import HELLO, PYTHON, Knocker, cpu_s, descriptors, many_files, metrics, threads
from test_load import p99, rss

from agentd.wire.frames import CALL, FrameReader, encode

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    with instance() as one:
        one.up()
        yield one


@pytest.fixture
def whole(shared: Instance) -> Instance:
    """Give the instance that most of these tests share, with a daemon that runs and nothing else."""
    shared.tidy()
    return shared


# -- R02: a user namespace

SOMEBODY = ["unshare", "--user", "--map-user=4242"]
HIDDEN = [*SOMEBODY, "--pid", "--fork"]

# Writes what it is given, reads so many frames, and prints who it believes to be and what it read.
ASK = """
import os, socket, sys
path, words, wanted = sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3])
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(20)
peer.connect(path)
peer.sendall(words)
said = rest = b""
while wanted and (chunk := peer.recv(65536)):
    said, rest = said + chunk, rest + chunk
    while wanted and len(rest) >= 4 and len(rest) >= 4 + (size := int.from_bytes(rest[:4], "big")):
        rest, wanted = rest[4 + size:], wanted - 1
print(os.getuid(), said.hex())
"""


def may(*words: str) -> bool:
    """Tell whether this system lets us have namespaces of our own."""
    if not shutil.which(words[0]):
        return False
    return subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0


def asking(whole: Instance, token: str = "") -> list[str]:
    """Return the words of a program that says hello, asks who it is, and makes a call that is written down."""
    (script := whole.directory / "ask.py").write_text(ASK)
    hello = encode([0, {"v": [1], "token": token}]) if token else HELLO
    calls = [encode([CALL, 1, "agents.whoami", {}]), encode([CALL, 2, "notify.test", {}])]
    return [*PYTHON, str(script), str(whole.directory / "agentd.sock"), b"".join([hello, *calls]).hex(), "3"]


def heard(text: str) -> tuple[int, list[Any]]:
    """Return who the program believed to be and what it was told behind its greeting, or instead of that."""
    uid, data = text.split()
    frames = FrameReader().feed(bytes.fromhex(data))
    return int(uid), frames[1:] or frames


def asked_from(whole: Instance, namespace: list[str], token: str = "") -> tuple[int, list[Any]]:
    done = subprocess.run([*namespace, *asking(whole, token)], capture_output=True, text=True, timeout=30, check=True)
    return heard(done.stdout)


@pytest.mark.skipif(not may(*SOMEBODY), reason="this system has no user namespaces for us")
def test_who_is_somebody_else_in_a_namespace_is_its_own_uid(whole: Instance):
    """R02: the kernel says who it is; it is an agent with that agent's token alone, and else the user's program."""
    agent = whole.spawn("sh", name="ann")
    token = (whole.directory / "agents" / agent["id"] / "token").read_text().strip()
    uid, (me, _) = asked_from(whole, SOMEBODY)
    assert (uid, me[2]["role"]) == (4242, "operator")
    line = json.loads((whole.directory / "access.jsonl").read_text().splitlines()[-1])
    assert (line["method"], line["uid"]) == ("notify.test", os.getuid())
    _, (me, test) = asked_from(whole, SOMEBODY, token)
    assert (me[2]["role"], me[2]["id"], test[2]) == ("agent", agent["id"], "denied")
    _, told = asked_from(whole, SOMEBODY, "0123456789abcdef")
    assert [frame[:3] for frame in told] == [[3, 0, "unauthenticated"]]
    row("R02", 0, ways=3)


@pytest.mark.skipif(not may(*HIDDEN), reason="this system has no namespaces for us")
def test_who_hides_its_processes_in_a_namespace_is_found_nevertheless(whole: Instance):
    """R02: in a pane, with user and process ids of its own and without a token, it is still that pane's agent."""
    agent, out = whole.spawn("sh", name="ann"), whole.directory / f"out-{time.time_ns()}"
    (line := whole.directory / "line").write_text(f"env -i PATH=$PATH {' '.join([*HIDDEN, *asking(whole)])} >{out}\n")
    whole.send("ann", f"sh {line}; mv {out} {out}.done")
    done = Path(f"{out}.done")
    _, (me, test) = heard(wait_until(lambda: done.exists() and done.read_text(), "the program in the pane to end"))
    assert (me[2]["role"], me[2]["id"], test[2]) == ("agent", agent["id"], "denied")
