"""Lists the agents over and over, as `agentd ls` asks for them, until its stdin ends; prints when each began and took.

AGENTD_DIR=... python -m bench._lister
"""

from __future__ import annotations

import json
import select
import sys
import time

from agentd.client import connect


def main() -> None:
    """List; times are of the monotonic clock, which all processes of a machine share."""
    asked: list[tuple[float, float]] = []
    with connect(autostart=False) as client:
        client.call("agents.list")
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            begun_s = time.monotonic()
            client.call("agents.list")
            asked.append((begun_s, time.monotonic() - begun_s))
            time.sleep(0.005)  # a person's, or a script's; not a load of its own
    print(json.dumps(asked))


if __name__ == "__main__":
    main()
