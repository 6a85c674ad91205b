"""python -m bench [NAME...] [--quick] [OPTION...]: run some benches, or all of them, one after another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run each bench as a process of its own, so that none inherits another's heat."""
    here = Path(__file__).parent
    known = sorted(file.stem for file in here.glob("*.py") if not file.stem.startswith("_"))
    words = sys.argv[1:]
    first_flag = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
    wanted, flags = words[:first_flag] or known, words[first_flag:]
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        print(f"bench: no bench is named {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    failed = 0
    for name in wanted:
        print(f"\n== {name}", flush=True)
        failed |= subprocess.run(
            [sys.executable, "-m", f"bench.{name}", *flags], cwd=here.parent, check=False
        ).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
