"""The hot commands start fast: what a whole process imports, as it runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from agentd.cli.commands import COMMANDS
from agentd.cli.usual import USUAL

DENIED = {
    *("argparse", "asyncio", "anyio", "collections", "dataclasses", "difflib", "enum", "functools", "json", "inspect"),
    *("importlib", "libtmux", "logging", "msgspec", "pathlib", "re", "socket", "structlog", "subprocess", "tempfile"),
    *("struct", "threading", "typing", "apsw"),
    *("agentd.records", "agentd.daemon", "agentd.api", "agentd.agents", "agentd.config"),
}
HOT = (
    ["ls"],
    ["send", "a", "hello"],
    ["status"],
    ["msg", "m1"],
    ["inbox"],
    ["ack", "m1"],
    ["wait", "a", "--for", "idle"],
    ["hook", "Stop"],
    ["__complete", "--line=agentd send le"],
)
WITHOUT_A_DAEMON = {"hook": 0, "__complete": 0}
PROBE = """
import sys
import msgpack
brought = set(sys.modules)
from agentd.cli import main
code = main(sys.argv[1:])
print(*sorted(set(sys.modules) - brought), file=sys.stderr)
sys.exit(code)
"""


def probe(argv: list[str], code: int, program: str = PROBE) -> set[str]:
    """Run a command in a process of its own; return what it imported beside msgpack and what msgpack imports."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program, *argv], env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["human", "json"])
@pytest.mark.parametrize("argv", HOT, ids=lambda argv: argv[0])
def test_without_a_daemon(argv, json, directory):
    assert not probe([*argv, *json], WITHOUT_A_DAEMON.get(argv[0], 3)) & DENIED
    assert not directory.exists()


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["human", "json"])
def test_with_a_daemon(json, served):
    agent = {"id": "a1", "name": "a", "profile": "shell", "team": "", "role": "", "state": "idle", "since_s": 1.0}
    served.answers.agents_list = lambda _: {"agents": [{**agent, "inbox": 0, "cwd": "/"}]}
    assert not probe(["ls", *json], 0) & DENIED
    assert not probe(["send", "a", "hello", *json], 0) & DENIED
    assert not probe(["__complete", "--line=agentd send a", *json], 0) & DENIED
    served.answers.agents_report = lambda _: {"output": "{}", "leases": ["m1#1"]}
    served.answers.messages_confirm = lambda _: {"done": ["m1#1"], "failed": []}
    assert not probe(["hook", "Stop", *json], 0) & DENIED


def test_a_command_that_says_little_needs_no_msgpack(served):
    served.answers.agents_list = lambda _: {"agents": []}
    for argv in (["ls"], ["send", "a", "hello"]):
        assert "msgpack" not in probe(argv, 0, PROBE.replace("import msgpack\n", ""))


def test_a_text_and_its_receipt_need_neither_struct_nor_json(served):
    brought = probe(["send", "a", "hello"], 0, PROBE.replace("import msgpack\n", ""))
    assert not brought & {"struct", "_struct", "_json", "msgpack", "agentd.wire.structure", "agentd.cli.commands"}
    assert not brought & {"agentd.client", "agentd.calling", "agentd.wire.frames"}


def test_the_usual_commands_are_those_of_the_whole_table():
    assert all(COMMANDS[words] is command for words, command in USUAL.items())
    assert not [words for words in COMMANDS if words not in USUAL and words.split()[0] in USUAL]


END = """
import sys
sys.argv[1:] = ["version"]
if {wanted!r}:
    import atexit
    atexit.register(print, "last things")
class Late:
    def __del__(self):
        print("taken apart")
late = Late()
from agentd.cli import run
run()
"""


@pytest.mark.parametrize("wanted", [True, False])
def test_the_end_is_quick_where_nothing_is_left_to_do_and_whole_elsewhere(wanted):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-c", END.format(wanted=wanted)]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=30, check=True)
    version, *rest = done.stdout.splitlines()
    assert version.startswith("agentd ")
    assert rest == (["last things", "taken apart"] if wanted else [])


def test_python_dash_m_says_nothing_but_its_sentence(directory):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-m", "agentd", "ls"], env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("agentd: no daemon is running")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_and_a_closed_pipe_are_no_tracebacks(directory):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-m", "agentd", "schema"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            argv, env=environ, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("agentd: ")
    assert done.stderr.count("\n") == 1
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = subprocess.run(
            argv, env=environ, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (141, "")
