"""Calls in processes of this machine, which Ctrl-C does not reach and which end with their parent."""

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

from planner.errors import PlannerError, setting
from planner.workers.base import Submit

# The data that a worker process was started with.
_shared: list[Any] = []


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
        jobs = min(self.jobs, num_calls)
        context = multiprocessing.get_context("spawn")
        # Its end closes with this process, however that ends: the workers then end, too.
        end, lifeline = context.Pipe(duplex=False)
        resource_tracker.ensure_running()
        pool = ProcessPoolExecutor(jobs, context, _begin_process, (end, pickle.dumps(shared)))

        def submit(task: Callable[..., Any], *args: Any) -> "Future[Any]":
            with _no_interrupt():
                return pool.submit(_call, task, args)

        try:
            yield submit
        except BaseException as error:
            lifeline.close()
            if isinstance(error, BrokenProcessPool):
                raise PlannerError(
                    f"One of {jobs} processes was killed, perhaps for want of memory; {resume_hint}, with fewer "
                    f"{setting('jobs')} in less memory."
                ) from None
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            lifeline.close()
            end.close()


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Block SIGINT while processes start: they inherit the block, and this process gets the signal afterwards."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_process(end: Connection, shared: bytes) -> None:
    Thread(target=_end_with, args=(end,), daemon=True).start()
    # Safe to unpickle: the parent process made these bytes.
    _shared.append(pickle.loads(shared))


def _end_with(end: Connection) -> None:
    """End this process once the other end of the pipe is closed, as it is when its process ends in any way."""
    with suppress(EOFError, OSError):
        end.recv_bytes()
    os._exit(1)


def _call(task: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return task(_shared[0], *args)
