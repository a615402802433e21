"""Calls in processes of this machine, which Ctrl-C does not reach and which end with this one."""

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

from planner.errors import PlannerError
from planner.workers.base import Submit

# What a process was started with.
_carried: list[Any] = []


@dataclass(frozen=True)
class ProcessExecutor:
    """Processes of this machine; they are given what is carried as they start."""

    jobs: int

    @property
    def width(self) -> int:
        return self.jobs

    @contextmanager
    def lent(self, carried: object, num_calls: int, kept: str) -> Iterator[Submit]:
        """See `Workers`; a process that is killed ends it all."""
        jobs = min(self.jobs, num_calls)
        context = multiprocessing.get_context("spawn")
        end, lifeline = context.Pipe(duplex=False)
        resource_tracker.ensure_running()
        pool = ProcessPoolExecutor(jobs, context, _begin_process, (end, pickle.dumps(carried)))

        def submit(task: Callable[..., Any], *args: Any) -> "Future[Any]":
            with _no_interrupt():
                return pool.submit(_call, task, args)

        try:
            yield submit
        except BaseException as error:
            lifeline.close()
            if isinstance(error, BrokenProcessPool):
                raise PlannerError(
                    f"One of {jobs} processes was killed, perhaps for want of memory; {kept}, with fewer --jobs in "
                    "less memory."
                ) from None
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            lifeline.close()
            end.close()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: they inherit what is blocked here; this one gets it afterwards."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_process(end: Connection, carried: bytes) -> None:
    Thread(target=_end_with, args=(end,), daemon=True).start()
    # Of our own making, from the process that started this one.
    _carried.append(pickle.loads(carried))


def _end_with(end: Connection) -> None:
    """Wait until the other end of the pipe is closed, as it is when its process ends in any way."""
    with suppress(EOFError, OSError):
        end.recv_bytes()
    os._exit(1)


def _call(task: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return task(_carried[0], *args)
