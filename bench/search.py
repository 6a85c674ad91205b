"""How long a search takes over N messages, and what making the index costs, on each engine.

    python -m bench.search [--messages N] [--queries N] [--engine NAME]

Texts of 25 words from a vocabulary of 50,000 whose frequencies follow Zipf's law. A fifth of the queries each: a rare
word, a medium one, one of the hundred commonest, two words of which both must stand there, three of which one must;
then the same with a filter, and prefixes. The index class is fed directly: the mailbox has a bench of its own.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from agentd.config import SearchConfig
from agentd.index.engine import Entry, Within
from agentd.index.home import IndexHome
from agentd.index.query import parse
from agentd.index.words import words_of
from agentd.mailbox.search import COMMIT_MESSAGES

VOCABULARY = [f"w{number:05d}" for number in range(50_000)]
WEIGHTS = list(accumulate(1 / (rank + 1) for rank in range(len(VOCABULARY))))
WORDS = 25
AGENTS = 500
HITS = 20


def entries(count: int) -> Iterator[list[Entry]]:
    """Yield messages by the commit; the same ones for each engine."""
    chosen = random.Random(7)
    for start in range(0, count, COMMIT_MESSAGES):
        size = min(COMMIT_MESSAGES, count - start)
        texts = [" ".join(chosen.choices(VOCABULARY, cum_weights=WEIGHTS, k=WORDS)) for _ in range(size)]
        ends = [(f"a{chosen.randrange(AGENTS)}", f"a{chosen.randrange(AGENTS)}") for _ in range(size)]
        yield [
            Entry((start + n + 1) * 16, to, sender, words_of(text))
            for n, (text, (to, sender)) in enumerate(zip(texts, ends, strict=True))
        ]


def queries(count: int) -> dict[str, list[str]]:
    """Return the queries by kind."""
    chosen = random.Random(8)

    def words(low: int, high: int, size: int = 1) -> list[str]:
        return chosen.sample(VOCABULARY[low:high], size)

    each = range(count // 5)
    mix = {
        "rare": [words(10_000, 50_000)[0] for _ in each],
        "medium": [words(500, 5_000)[0] for _ in each],
        "common": [words(0, 100)[0] for _ in each],
        "two, both": [" ".join(words(0, 2_000, 2)) for _ in each],
        "three, one": [" OR ".join(words(0, 2_000, 3)) for _ in each],
    }
    everything = [text for texts in mix.values() for text in texts]
    prefixes = [f"{words(0, 50_000)[0][:5]}*" for _ in each]
    phrases = [f'"{" ".join(words(0, 100, 2))}"' for _ in each]
    return {**mix, "the mix": everything, "phrase": phrases, "prefix": prefixes}


def build(home: IndexHome, count: int) -> tuple[float, float]:
    """Return the time spent in the engine, and of it in the longest commit; making texts and words is not in it."""
    spent_s = longest_s = 0.0
    for batch in entries(count):
        began_s = time.perf_counter()
        home.add(batch)
        added_s = time.perf_counter()
        home.commit({0: batch[-1].seq})
        done_s = time.perf_counter()
        spent_s += done_s - began_s
        longest_s = max(longest_s, done_s - added_s)
    return spent_s, longest_s


def took_ms(home: IndexHome, texts: list[str], within: Within) -> list[float]:
    """Return what each query takes, from its text to the ids."""
    each = []
    for text in texts:
        began_s = time.perf_counter()
        home.search(parse(text), within, HITS)
        each.append((time.perf_counter() - began_s) * 1000)
    return each


def row(engine: str, kind: str, each: list[float]) -> str:
    """Return a line of the table."""
    p95 = statistics.quantiles(each, n=20)[-1]
    return f"{engine:<9}{kind:<22}{statistics.median(each):>9.2f}{p95:>9.2f}{max(each):>9.2f}"


def measure(engine: str, count: int, asked: int) -> None:
    """Print the rows of one engine."""
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        place = Path(directory, "index")
        home = IndexHome(place, "messages", SearchConfig(engine=engine), range(1), print)
        home.open()
        spent_s, longest_s = build(home, count)
        home.close()
        home.open()
        for kind, texts in queries(asked).items():
            print(row(engine, kind, took_ms(home, texts, Within())))
        mix = queries(asked)["the mix"]
        print(row(engine, "the mix, of one agent", took_ms(home, mix, Within(of="a7"))))
        print(row(engine, "the mix, last tenth", took_ms(home, mix, Within(since_seq=count * 16 * 9 // 10))))
        home.close()
        size_mb = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{engine}: {count / spent_s:,.0f} messages a second taken in, longest commit {longest_s * 1000:.0f} ms,"
        f" {size_mb:.0f} MB on disk, this process had {peak_mb:.0f} MB at most\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--engine", choices=("tantivy", "fts5"), action="append")
    parser.add_argument("--quick", action="store_true", help="fewer messages, for a first look")
    given = parser.parse_args()
    messages = 20_000 if given.quick else given.messages
    print(f"{messages:,} messages of {WORDS} words, the {HITS} best asked for; ms")
    print(f"{'engine':<9}{'query':<22}{'p50':>9}{'p95':>9}{'max':>9}")
    for name in given.engine or ("tantivy", "fts5"):
        measure(name, messages, given.queries)
