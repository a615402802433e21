"""Executions in parallel processes, in the order given, until the time is up."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

from rich.progress import Progress

from benchmarks.accuracy.execution import Execution, execute, training_macs
from planner.errors import PlannerError

T = TypeVar("T")


def interleaved(of_subjects: Sequence[Sequence[T]]) -> list[T]:
    """Return the jobs of all subjects in turns: the first of each, then the second of each, and so on."""
    num_turns = max(map(len, of_subjects), default=0)
    return [jobs[turn] for turn in range(num_turns) for jobs in of_subjects if turn < len(jobs)]


def run_executions(jobs: Sequence[Execution], num_processes: int, until: float | None, progress: Progress) -> None:
    """Run the jobs that have no result yet.

    Args:
        jobs: The jobs, most important first.
        num_processes: Number of parallel processes.
        until: Time after which no further job is started, on the clock of `time.monotonic`.
        progress: Shows the work done, and the time left.
    """
    open_jobs = [job for job in dict.fromkeys(jobs) if not job.out.exists()]
    work = {job: training_macs(job) for job in open_jobs}
    task = progress.add_task("executions", total=sum(work.values()) or 1.0)
    # Processes ignore Ctrl-C: this one handles it and terminates them.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_processes, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        for job in _run_all(
            pool, open_jobs, num_processes, until, lambda text: progress.update(task, description=text)
        ):
            progress.advance(task, work[job])
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    progress.remove_task(task)


def _run_all(
    pool: ProcessPoolExecutor,
    jobs: list[Execution],
    num_processes: int,
    until: float | None,
    describe: Callable[[str], None],
) -> Iterator[Execution]:
    """Run jobs until none is left or the time is up; yield each as it ends. A failure is printed, not raised."""
    running: dict[Future[None], Execution] = {}
    while True:
        while jobs and len(running) < num_processes and (until is None or time.monotonic() < until):
            job = jobs.pop(0)
            running[pool.submit(execute, job)] = job
        if not running:
            return
        describe(f"{len(jobs) + len(running)} left: {'; '.join(job.name for job in running.values())}")
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job = running.pop(future)
            try:
                future.result()
            except PlannerError as error:
                print(f"{job.name}: {error}", file=sys.stderr)
            yield job
