"""Progress as lines of text, for logs and pipes."""

from collections.abc import Callable
from threading import Event, Thread
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import Progress, Task, TaskID

_SECONDS_BETWEEN = 60.0


class ProgressLines(Progress):
    """Progress that is printed as a line a minute, where bars cannot be drawn; during long steps, too."""

    def __init__(self, console: Console, get_time: Callable[[], float] = monotonic) -> None:
        super().__init__(console=console, disable=True, speed_estimate_period=3600, get_time=get_time)
        self._printed_at = get_time()
        self._current: TaskID | None = None
        self._stopped = Event()
        self._thread = Thread(target=self._remind, name="progress lines", daemon=True)

    def start(self) -> None:
        """Print lines from now on."""
        super().start()
        self._thread.start()

    def stop(self) -> None:
        """Print no more lines."""
        super().stop()
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def add_task(self, description: str, *arguments: Any, **fields: Any) -> TaskID:
        """Add a task, whose first step may be a long one."""
        self._current = super().add_task(description, *arguments, **fields)
        return self._current

    def update(self, task_id: TaskID, *arguments: Any, **fields: Any) -> None:
        """Update a task, and print it if a minute has passed since the last line."""
        super().update(task_id, *arguments, **fields)
        self._current = task_id
        self.print_if_due()

    def print_if_due(self) -> None:
        """Print the latest task, if there is one and a minute has passed since the last line."""
        with self._lock:
            if self._current is None or self.get_time() - self._printed_at < _SECONDS_BETWEEN:
                return
            self._printed_at = self.get_time()
            self.console.print(_line(self._tasks[self._current]), markup=False, highlight=False)

    def _remind(self) -> None:
        while not self._stopped.wait(_SECONDS_BETWEEN):
            self.print_if_due()


def _line(task: Task) -> str:
    if task.total is None:
        return task.description
    left = "" if task.time_remaining is None else f", {max(1, round(task.time_remaining / 60))} min left"
    return f"{task.description}: {task.percentage:.0f}%{left}"
