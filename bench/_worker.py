"""A program that looks like the demo agent and works by itself, over and over; it writes down when its screen changed.

python -I -S _worker.py LOG SEED
"""

from __future__ import annotations

import os
import random
import sys
import time

FRAME_S = 0.1  # of the spinner: what real agents draw
WORK_S = (1.5, 3.0)
REST_S = (0.5, 1.5)
CLEAR = "\r\x1b[K\x1b[A\r\x1b[J"
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def draw(text: str) -> None:
    """Write at once, as programs with a screen of their own do."""
    os.write(1, text.encode())


def main(log: str, seed: str) -> None:
    """Work and rest for ever."""
    chance = random.Random(seed)
    draw("\n\ndemo> ")
    with open(log, "a", buffering=1) as file:
        while True:
            time.sleep(chance.uniform(*REST_S))
            draw(f"{CLEAR}answer {chance.random()}\ndemo: working\ndemo> ")
            file.write(f"working {time.time_ns()}\n")
            end_s = time.monotonic() + chance.uniform(*WORK_S)
            number = 0
            while time.monotonic() < end_s:
                time.sleep(FRAME_S)
                number += 1
                draw(f"{CLEAR}demo: working {FRAMES[number % len(FRAMES)]}\ndemo> ")
            draw(f"{CLEAR}demo> ")
            file.write(f"idle {time.time_ns()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
