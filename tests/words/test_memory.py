"""Threads of a daemon share few arenas; counted by the C library itself."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from agentd.memory import ARENAS

THREADS = 8
COUNT = f"""
import ctypes, os, sys, threading
from agentd.memory import bound_arenas
if sys.argv[1] == "bound":
    bound_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fdopen.restype = ctypes.c_void_p
together = threading.Barrier({THREADS})
def work():
    together.wait()
    libc.malloc(ctypes.c_size_t(1000))
    together.wait()
threads = [threading.Thread(target=work) for _ in range({THREADS})]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="only glibc has arenas, and tells of them")
def test_threads_share_few_arenas():
    def arenas(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True)
        return done.stdout.count("<heap nr=")

    assert arenas("free") > ARENAS, "each thread has its own"
    assert arenas("bound") <= ARENAS
