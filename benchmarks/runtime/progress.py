"""Progress of a long measurement: a line on standard error when another step begins, and one every so often."""

import sys
import time
from collections.abc import Callable

_EVERY_S = 20.0

OnStep = Callable[[str, float, float], None]


def progress_of(part: str, clock: Callable[[], float] = time.monotonic) -> OnStep:
    """Return a receiver of what is done, how much of it, and of how much."""
    last_step, last_s = "", 0.0

    def on_step(what: str, done: float, total: float) -> None:
        nonlocal last_step, last_s
        if what != last_step or clock() - last_s >= _EVERY_S:
            last_step, last_s = what, clock()
            print(f"{part}: {what}, {done:g} of {total:g}", file=sys.stderr, flush=True)

    return on_step
