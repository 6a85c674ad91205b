"""Programs that send without pause: python sender.py LEDGERS FIRST COUNT PAUSE_S AGENT...; LEDGERS/stop ends them.

Each of COUNT threads has a client, a number from FIRST on and a ledger: a file with every message that was acknowledged
to it, synced before it sends the next. It gives up on none: the same key is sent until it is acknowledged.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from pathlib import Path

from agentd.client import Client, connect
from agentd.errors import AgentdError

LONG_BODY_CHARS = 20_000  # more than is typed: it goes by pointer
AGAIN_S = 0.02


class Sender:
    """One client, one ledger."""

    def __init__(self, ledgers: Path, number: int, pause_s: float, agents: list[str]) -> None:
        self._name = f"s{number:02}"
        self._stop = ledgers / "stop"
        self._file = (ledgers / f"{self._name}.jsonl").open("a", encoding="utf-8")
        self._pause_s = pause_s
        self._agents = agents
        self._random = random.Random(number)
        self._client: Client | None = None

    def run(self) -> None:
        """Send until told to stop; the last message is acknowledged, too."""
        sent = 0
        while not self._stop.exists():
            to = self._random.choice(self._agents)
            body = f"{self._name} {sent:06}" + (" long" * (LONG_BODY_CHARS // 5) if sent % 97 == 96 else "")
            id_, duplicate = self._acknowledged(to, body, f"{self._name}-{sent}")
            self._write_down({"id": id_, "to": to, "body": body, "duplicate": duplicate})
            sent += 1
            time.sleep(self._pause_s)

    def _acknowledged(self, to: str, body: str, key: str) -> tuple[str, bool]:
        while True:
            try:
                if self._client is None:
                    self._client = connect(autostart=False)
                receipt = self._client.send(to, body, key=key)
            except AgentdError as error:
                if not error.retryable:
                    raise
                time.sleep(AGAIN_S)
            else:
                return receipt.id, receipt.duplicate

    def _write_down(self, row: dict[str, object]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def main(words: list[str]) -> int:
    """Run the senders; 1 when one of them could not go on."""
    ledgers, first, count, pause_s, agents = Path(words[0]), int(words[1]), int(words[2]), float(words[3]), words[4:]
    failed = threading.Event()

    def run(number: int) -> None:
        try:
            Sender(ledgers, number, pause_s, agents).run()
        except BaseException:
            failed.set()
            raise

    threads = [threading.Thread(target=run, args=(number,)) for number in range(first, first + count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return int(failed.is_set())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
