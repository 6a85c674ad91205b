"""python -m agentd."""

from __future__ import annotations

from agentd.cli import run

if __name__ == "__main__":
    run()
