"""What it costs to keep what agents print, and to index it: CPU for each megabyte, in process and on a whole instance.

    python -m bench transcripts [--quick]

In process: each kind of output, as tmux sends it, is appended to a file (decoded, the baseline), stored (decoded,
checksummed, written, compressed), made into lines, and indexed by each engine. Whole: 500 agents of which 50 print,
with transcripts off (the baseline), on, and on with their index; CPU is the daemon's own time from /proc (Linux only).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from agentd.client import Client
from agentd.config import SearchConfig, TranscriptsConfig
from agentd.index.engine import Entry
from agentd.index.home import IndexHome
from agentd.tmux.notation import decode_output
from agentd.transcripts.plain import Plain
from agentd.transcripts.reading import Reader
from agentd.transcripts.search import Recent, next_step
from agentd.transcripts.store import Store
from agentd.transcripts.waiting import Heard
from bench.load import cpu_s, rss_mb, settle
from bench.main_job import instance

CHUNK_BYTES = 4096  # of an %output
BATCH_BYTES = 64 * 1024  # written at once
AGENTS, PRINTING = 500, 50
PRINTS = (
    f"exec {sys.executable} -uc 'import itertools, time; "
    '[(print("".join(f"\\x1b[32m{n * 40 + k:09}\\x1b[0m this is what is done to file number {n % 977}\\n" '
    'for k in range(20)), end=""), time.sleep(0.1)) for n in itertools.count()]\''
)
WHOLE = {
    "off (baseline)": ["transcripts.enabled=false"],
    "stored": ["transcripts.search=false"],
    "stored and indexed": [],
}


def log_lines(dice: random.Random) -> bytes:
    """Return lines of a build."""
    words = ["compiling", "src/main.rs", "warning:", "unused", "variable", "tests", "passed", "in", "error[E0382]:"]
    return b"".join(f"\x1b[32m{n:06}\x1b[0m {' '.join(dice.choices(words, k=9))}\r\n".encode() for n in range(500))


def redraws(dice: random.Random) -> bytes:
    """Return frames of a full-screen program: most of each is the one before."""
    rows = [
        f"\x1b[{row};1H\x1b[2K\x1b[38;5;{row}m│ {dice.randrange(9)} The row {row} of it \x1b[0m" for row in range(1, 40)
    ]
    return "".join("".join(rows) + f"\x1b[40;1H\x1b[2K✻ Working… ({n}s)" for n in range(25)).encode()


def escape(data: bytes) -> bytes:
    """Return output as tmux sends it."""
    return b"".join(b"\\%03o" % byte if byte < 0x20 or byte == 0x5C else bytes((byte,)) for byte in data)


def cpu_ms(work: Callable[[], object]) -> float:
    """Return the CPU time of some work, all threads of it."""
    before = time.process_time()
    work()
    return (time.process_time() - before) * 1000


def in_process(size_mb: float) -> None:
    """Print the table of each kind."""
    print(f"{size_mb:g} MB of each; CPU ms for each MB; ratio: of storing to appending")
    print(f"{'output':<14}{'append':>9}{'store':>9}{'lines':>9}{'tantivy':>9}{'fts5':>9}{'ratio':>9}{'on disk':>9}")
    dice = random.Random(1)
    noise = bytes(dice.randrange(32, 255) for _ in range(1 << 16))
    for name, part in (("build log", log_lines(dice)), ("redraws", redraws(dice)), ("noise", noise)):
        data = part * max(1, int(size_mb * 1e6 / len(part)))
        show(name, data, [escape(data[n : n + CHUNK_BYTES]) for n in range(0, len(data), CHUNK_BYTES)])


def show(name: str, data: bytes, escaped: list[bytes]) -> None:
    """Print one row."""
    mb = len(data) / 1e6
    with tempfile.TemporaryDirectory(prefix="agd-bench-") as place:
        appending = cpu_ms(partial(append, Path(place, "bare"), escaped)) / mb
        storing = cpu_ms(partial(store, Path(place), escaped)) / mb
        size = sum(path.stat().st_size for path in Path(place, "1").iterdir())
        lines = cpu_ms(lambda: Plain().feed(data)) / mb
        indexing = [cpu_ms(partial(index, Path(place), engine)) / mb for engine in ("tantivy", "fts5")]
    costs = "".join(f"{cost:>9.1f}" for cost in (appending, storing, lines, *indexing))
    print(f"{name:<14}{costs}{storing / appending:>9.1f}{100 * size / len(data):>7.1f} %", flush=True)


def append(path: Path, escaped: list[bytes]) -> None:
    """Write output with nothing around it, in the same portions."""
    step = BATCH_BYTES // CHUNK_BYTES
    for n in range(0, len(escaped), step):
        with path.open("ab") as file:
            file.write(decode_output(b"".join(escaped[n : n + step])))


def store(place: Path, escaped: list[bytes]) -> None:
    """Write output as the daemon does."""
    keeper = Store(place, TranscriptsConfig(reserve_mb=0), decode_output, print)
    step = BATCH_BYTES // CHUNK_BYTES
    for n in range(0, len(escaped), step):
        keeper.write({"1": Heard(n + 1, list(escaped[n : n + step]))})


def index(place: Path, engine: str) -> None:
    """Index what was written."""
    home = IndexHome(place / engine, "transcripts", SearchConfig(engine=engine), range(1), lambda _: None)
    home.open()
    position, seq, recent = 0, 0, Recent()
    while parts := next_step(Reader(place / "1", position, print), recent):
        position = parts[-1].end
        home.add([Entry(seq + n, "1", "", part.words) for n, part in enumerate(parts)])
        seq += len(parts)
    home.commit({0: 1})
    home.close()


def whole(agents: int, seconds: float) -> None:
    """Print the table of whole instances."""
    print(f"\n{agents} agents, {PRINTING} of them printing; {seconds:g} s")
    print(
        f"{'transcripts':<22}{'printed MB/s':>13}{'daemon CPU':>12}{'ms a MB':>9}{'stall p99 ms':>14}{'daemon MB':>11}"
    )
    for name, settings in WHOLE.items():
        with instance(*settings) as (client, _):
            client.call("agents.spawn", {"profile": "sh", "n": agents}, timeout_s=300)
            settle(client, agents)
            client.send_batch([{"to": f"sh-{n}", "body": PRINTS} for n in range(1, PRINTING + 1)])
            time.sleep(5)
            print(f"{name:<22}{measured(client, seconds)}", flush=True)


def measured(client: Client, seconds: float) -> str:
    """Return a row: what the printing agents wrote is asked of the kernel."""
    daemon = client.call("daemon.status")["pid"]
    pids = [client.call("agents.get", target=f"sh-{n}")["pid"] for n in range(1, PRINTING + 1)]
    before, cpu = sum(map(written, pids)), cpu_s(daemon)
    started = time.perf_counter()
    time.sleep(seconds)
    took_s, mb = time.perf_counter() - started, (sum(map(written, pids)) - before) / 1e6
    used_s = cpu_s(daemon) - cpu
    stall_ms = client.call("daemon.metrics")["loop_stall_ms_p99"]
    shares = f"{mb / took_s:>13.2f}{used_s / took_s * 100:>10.1f} %{used_s * 1000 / mb:>9.0f}"
    return f"{shares}{stall_ms:>14.1f}{rss_mb(daemon):>11.0f}"


def written(pid: int) -> int:
    """Return how many bytes a process has written."""
    rows = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(rows["wchar"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2 MB of each, 100 agents, 10 seconds")
    given = parser.parse_args()
    in_process(2 if given.quick else 20)
    whole(*((100, 10.0) if given.quick else (AGENTS, 30.0)))
