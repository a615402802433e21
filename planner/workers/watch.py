"""Futures of calls on a cluster that always end: with a result, an error, or cancelled, which means lost.

A cluster does not always report a loss. Where workers die with all that was sent to them, a task may wait for ever
for data that no worker has, or its result may be fetched from a worker that is gone. So the scheduler is asked now and
then whether any worker processes our calls; if none does, twice in a row, they count as lost.
"""

import asyncio
import time
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any

# Before Python 3.11 asyncio's was another, and Dask raises that.
TIMEOUT_ERRORS = (TimeoutError, asyncio.TimeoutError)

# Seconds between looks at the futures and between questions to the scheduler, and the longest fetch of a result [s].
_POLL_S, _QUERY_S, _FETCH_TIMEOUT_S = 0.01, 10, 60


class FutureWatch:
    """Watch over the tasks of one client, in a thread of its own."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._tasks: dict[Future[Any], Any] = {}
        self._lock, self._ended = Lock(), Event()
        # Set when calls were lost without a report: the data that was sent for them may be lost, too.
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
        """Stop watching; tasks that are not done are given up."""
        self._ended.set()
        # Without a scheduler, a question to it may wait for an answer that never comes.
        self._thread.join(_QUERY_S if self._client.status == "running" else 0)
        with self._lock:
            self._tasks.clear()

    def _watch(self) -> None:
        queried, idle = time.monotonic(), 0
        while not self._ended.wait(_POLL_S):
            with self._lock:
                tasks = dict(self._tasks)
            ended = [(future, task) for future, task in tasks.items() if task.status != "pending"]
            for future, task in ended:
                self._settle(future, task)
            if ended or not tasks:
                queried, idle = time.monotonic(), 0
            elif time.monotonic() - queried > _QUERY_S:
                idle = 0 if self._is_processing(tasks.values()) else idle + 1
                queried = time.monotonic()
                if idle == 2:
                    self.silent_loss, idle = True, 0
                    for future in tasks:
                        self._lose(future)

    def _settle(self, future: "Future[Any]", task: Any) -> None:
        try:
            if task.status == "finished":
                result = task.result(timeout=_FETCH_TIMEOUT_S)
                self._forget(future)
                future.set_result(result)
                return
            error = task.exception(timeout=_FETCH_TIMEOUT_S) if task.status == "error" else None
        # The result was there, and was lost with its worker.
        except (*TIMEOUT_ERRORS, CancelledError, OSError):
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

    def _is_processing(self, tasks: Any) -> bool:
        ours = {task.key for task in tasks}
        # A client that has lost its scheduler cancels its tasks by itself.
        if self._client.status != "running":
            return True
        try:
            return any(ours.intersection(keys) for keys in self._client.processing().values())
        except Exception:
            return True
