"""Progress as lines of text, for logs and pipes."""

from collections.abc import Callable
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

_SECONDS_BETWEEN = 60.0


class ProgressLines(Progress):
    """Progress that is printed as a line a minute, where bars cannot be drawn."""

    def __init__(self, console: Console, get_time: Callable[[], float] = monotonic) -> None:
        super().__init__(console=console, disable=True, speed_estimate_period=3600, get_time=get_time)
        self._printed_at = get_time()

    def update(self, task_id: TaskID, *arguments: Any, **fields: Any) -> None:
        """Update a task, and print it if a minute has passed since the last line."""
        super().update(task_id, *arguments, **fields)
        if self.get_time() - self._printed_at < _SECONDS_BETWEEN:
            return
        self._printed_at = self.get_time()
        task = self._tasks[task_id]
        left = "" if task.time_remaining is None else f", {max(1, round(task.time_remaining / 60))} min left"
        self.console.print(f"{task.description}: {task.percentage:.0f}%{left}", markup=False, highlight=False)
