"""Processes that began with a marked environment, found wherever they moved to: children of a command that is gone."""

import os
import time
from pathlib import Path

from tests.helpers.common import PATIENCE_S

_MARK = "PLANNER_TEST_MARK"


def marked_environment(mark: str) -> dict[str, str]:
    """Return this process's environment with a mark, which children inherit."""
    return os.environ | {_MARK: mark}


def alive(mark: str) -> list[int]:
    """Return the living processes with a mark (Linux alone)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = f"{_MARK}={mark}\0".encode() in (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if is_ours and state != "Z":
            found.append(int(folder.name))
    return found


def nobody_left(mark: str) -> bool:
    """Wait for all processes with a mark to end, and return whether they did."""
    deadline = time.monotonic() + PATIENCE_S
    while alive(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(mark)
