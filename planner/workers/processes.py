"""Calls in processes of this machine, which Ctrl-C does not reach and which end with their parent.

A process is a Python that imports what a call names and nothing else: not the script or notebook that asked, which
would begin its own work again. It gets its calls over a pipe, and a thread of the parent waits for each answer, so that
no death of a process leaves the parent waiting: its pipes close with it.
"""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any

from planner.errors import PlannerError, setting
from planner.workers.base import Submit
from planner.workers.worker_process import receive, send

# The path is set before anything is imported: a module may lie where only this process was told to look.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from planner.workers.worker_process import answer_calls; answer_calls()"
)
_END_S = 5


class _DiedError(Exception):
    """A process of the pool has ended before its time."""


@dataclass(frozen=True)
class ProcessExecutor:
    """Processes of this machine; they receive the shared data as they start."""

    jobs: int

    @property
    def num_workers(self) -> int:
        return self.jobs

    @contextmanager
    def session(self, shared: object, num_calls: int, resume_hint: str) -> Iterator[Submit]:
        """Open a session, see `Executor`; a process that is killed ends it."""
        pool = _Pool(min(self.jobs, num_calls), pickle.dumps(shared))
        try:
            yield pool.submit
        except _DiedError:
            raise PlannerError(
                f"One of {pool.size} processes was killed, perhaps for want of memory; {resume_hint}, with fewer "
                f"{setting('jobs')} in less memory."
            ) from None
        finally:
            pool.end()


class _Pool:
    """Processes that take calls from one queue, a new one for each call until all run."""

    def __init__(self, size: int, shared: bytes) -> None:
        self.size, self._shared = size, shared
        self._calls: SimpleQueue[tuple[Future[Any], bytes] | None] = SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[Thread] = []

    def submit(self, task: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Return the future result of a call."""
        future: Future[Any] = Future()
        self._calls.put((future, pickle.dumps((task, args))))
        if len(self._threads) < self.size:
            self._start()
        return future

    def end(self) -> None:
        """End all processes, whatever they do."""
        for process in self._processes:
            process.kill()
        for _ in self._threads:
            self._calls.put(None)
        for process, thread in zip(self._processes, self._threads, strict=False):
            process.wait()
            thread.join(_END_S)

    def _start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C goes to all processes of a terminal's group.
            start_new_session=True,
        )
        self._processes.append(process)
        thread = Thread(target=self._serve, args=(process,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, process: "subprocess.Popen[bytes]") -> None:
        """Hand calls to a process, one after the other, until it dies or the pool ends."""
        calls, answers = process.stdin, process.stdout
        assert calls is not None
        assert answers is not None
        is_new = True
        while (call := self._calls.get()) is not None:
            future, content = call
            try:
                if is_new:
                    send(calls, self._shared)
                    is_new = False
                send(calls, content)
                is_error, value = pickle.loads(receive(answers))
            except (OSError, EOFError):
                future.set_exception(_DiedError())
                break
            if is_error:
                future.set_exception(value)
            else:
                future.set_result(value)
        answers.close()
        # What was not written is written now, or cannot be.
        with suppress(OSError):
            calls.close()


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
