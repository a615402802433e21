"""Calls on a cluster as futures that always end: with a result, an error, or as cancelled, that is lost.

A cluster does not always tell. Where workers die with all that was sent to them, a task may wait for ever for
something that nobody has, or a result be fetched from where it is no more. So it is asked now and then whether anybody
works at our calls; if nobody does, twice running, they are lost.
"""

import time
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any

# How often futures are looked at, how often the scheduler is asked, and how long a result may take to come [s].
_LOOK_S, _ASK_S, _FETCH_S = 0.01, 10, 60


class FutureWatch:
    """Watches the tasks of one client, from a thread of its own."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._tasks: dict[Future[Any], Any] = {}
        self._lock, self._ended = Lock(), Event()
        # Whether calls were lost without a word: what was sent for them may be, too.
        self.silent_loss = False
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()

    def follow(self, task: Any) -> "Future[Any]":
        """Return a future that ends when the client's task does."""
        future: Future[Any] = Future()
        with self._lock:
            self._tasks[future] = task
        return future

    def end(self) -> None:
        """Watch no longer; what is not done is given up."""
        self._ended.set()
        self._thread.join(_ASK_S)
        with self._lock:
            self._tasks.clear()

    def _watch(self) -> None:
        asked, idle = time.monotonic(), 0
        while not self._ended.wait(_LOOK_S):
            with self._lock:
                tasks = dict(self._tasks)
            ended = [(future, task) for future, task in tasks.items() if task.status != "pending"]
            for future, task in ended:
                self._settle(future, task)
            if ended or not tasks:
                asked, idle = time.monotonic(), 0
            elif time.monotonic() - asked > _ASK_S:
                idle = 0 if self._anybody_works_at(tasks.values()) else idle + 1
                asked = time.monotonic()
                if idle == 2:
                    self.silent_loss, idle = True, 0
                    for future in tasks:
                        self._lose(future)

    def _settle(self, future: "Future[Any]", task: Any) -> None:
        try:
            if task.status == "finished":
                result = task.result(timeout=_FETCH_S)
                self._forget(future)
                future.set_result(result)
                return
            error = task.exception(timeout=_FETCH_S) if task.status == "error" else None
        # It was there, and is lost with its worker.
        except (TimeoutError, CancelledError, OSError):
            error = None
        except Exception as found:
            error = found
        if error is None:
            self._lose(future)
        else:
            self._forget(future)
            future.set_exception(error)

    def _lose(self, future: "Future[Any]") -> None:
        task = self._forget(future)
        with suppress(Exception):
            task.cancel()
        future.cancel()
        future.set_running_or_notify_cancel()

    def _forget(self, future: "Future[Any]") -> Any:
        with self._lock:
            return self._tasks.pop(future)

    def _anybody_works_at(self, tasks: Any) -> bool:
        ours = {task.key for task in tasks}
        try:
            return any(ours.intersection(keys) for keys in self._client.processing().values())
        # A client that has lost its scheduler cancels its tasks by itself.
        except Exception:
            return True
