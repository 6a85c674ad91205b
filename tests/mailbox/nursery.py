"""Lives that a test kills, forked from a process that has imported everything: `python nursery.py MODULE`."""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agentd import failpoint

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    """How a life ended."""

    returncode: int  # as of `subprocess`: -9 when it was killed
    err: str


class Nursery:
    """A process that has imported a module, and is forked for each life of its `run(words)`."""

    def __init__(self, module: str) -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        argv = [sys.executable, __file__, module]
        self._process = subprocess.Popen(argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def end(self) -> None:
        """End the process, which ends when it is asked for nothing more."""
        self._process.communicate()

    def live(self, words: list[str], environ: Mapping[str, str] | None = None) -> Ended:
        """Run one life to its end."""
        assert self._process.stdin
        assert self._process.stdout
        with tempfile.NamedTemporaryFile("r") as err:
            self._process.stdin.write(json.dumps([words, dict(environ or {}), err.name]) + "\n")
            self._process.stdin.flush()
            return Ended(int(self._process.stdout.readline()), err.read())


@functools.cache
def nursery(module: str) -> Nursery:
    """Give the nursery of a module; it ends when the tests' process does."""
    made = Nursery(module)
    atexit.register(made.end)
    return made


def _forked(module: Any, words: list[str], environ: Mapping[str, str], err: str) -> int:
    """Live in a child; return how that ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        for fd, path in ((0, os.devnull), (1, os.devnull), (2, err)):
            os.dup2(os.open(path, os.O_RDWR), fd)
        os.environ.update(environ)
        failpoint._armed.update(failpoint.parse(environ.get(failpoint.VARIABLE, "")))
        code = module.run(words) or 0
    except BaseException:  # noqa: BLE001  nothing of it may go on in the parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main(name: str) -> None:
    module = importlib.import_module(name)
    for line in sys.stdin:
        print(_forked(module, *json.loads(line)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
