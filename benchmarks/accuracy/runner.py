"""Executions side by side in processes of their own, the first ones first, until the time is up."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import zip_longest
from typing import TypeVar

from rich.progress import Progress

from benchmarks.accuracy.execution import Execution, execute, training_macs
from planner.errors import PlannerError

T = TypeVar("T")


def in_order(of_subjects: Sequence[Sequence[T]]) -> list[T]:
    """Return the jobs of all subjects, which take turns."""
    absent = object()
    return [job for turn in zip_longest(*of_subjects, fillvalue=absent) for job in turn if job is not absent]  # type: ignore[misc]


def run(jobs: Sequence[Execution], num_processes: int, until: float | None, progress: Progress) -> None:
    """Do the jobs that are not done yet.

    Args:
        jobs: The most important first.
        num_processes: How many run side by side.
        until: When no further one is begun, on the clock of `time.monotonic`.
        progress: Shows the work done, and the time left.
    """
    open_jobs = [job for job in dict.fromkeys(jobs) if not job.out.exists()]
    work = {job: training_macs(job) for job in open_jobs}
    task = progress.add_task("executions", total=sum(work.values()) or 1.0)
    # Workers leave Ctrl-C to their parent, who ends them.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_processes, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        for job in _finished(
            pool, open_jobs, num_processes, until, lambda said: progress.update(task, description=said)
        ):
            progress.advance(task, work[job])
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    progress.remove_task(task)


def _finished(
    pool: ProcessPoolExecutor,
    jobs: list[Execution],
    num_processes: int,
    until: float | None,
    say: Callable[[str], None],
) -> Iterator[Execution]:
    """Do jobs until none is left, or until it is time; yield each as it ends. One that fails is said and left out."""
    running: dict[Future[None], Execution] = {}
    while True:
        while jobs and len(running) < num_processes and (until is None or time.monotonic() < until):
            job = jobs.pop(0)
            running[pool.submit(execute, job)] = job
        if not running:
            return
        say(f"{len(jobs) + len(running)} left: {'; '.join(job.name for job in running.values())}")
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job = running.pop(future)
            try:
                future.result()
            except PlannerError as error:
                print(f"{job.name}: {error}", file=sys.stderr)
            yield job
