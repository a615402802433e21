"""Time that a profile took so far, in this process and in those that were interrupted before it."""

import time
from pathlib import Path

from planner.profiler.work_files import read_work_file
from planner.schema import Frozen, write_document
from planner.schema.quantities import Seconds

_MIN_SAVE_INTERVAL_S = 2.0


class TimeTaken(Frozen):
    """Time that a measurement took so far."""

    seconds: Seconds


class Stopwatch:
    """Time taken, kept in a file of the work folder."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._before = read_work_file(file, TimeTaken).seconds if file.exists() else 0.0
        self._begun = self._saved_at = time.monotonic()

    def seconds(self) -> float:
        """Return the time taken so far [s]."""
        return self._before + time.monotonic() - self._begun

    def save_if_due(self) -> None:
        """Write the time to the file if the last time was a while ago."""
        if time.monotonic() - self._saved_at >= _MIN_SAVE_INTERVAL_S:
            write_document(self.file, TimeTaken(seconds=round(self.seconds(), 3)))
            self._saved_at = time.monotonic()
