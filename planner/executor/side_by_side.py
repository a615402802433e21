"""Who trains: this process, several of this machine, or a cluster; the bits are the same in any case."""

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

from planner.errors import InputError, PlannerError
from planner.executor.cluster import Tls, connected
from planner.executor.epochs import Carried, Means, OnEpoch, Submit, train_by_epochs
from planner.network.training import Training, check_device, fit


@dataclass(frozen=True)
class Here:
    """One after the other in this process, perhaps on its GPU."""

    device: str = "cpu"

    @property
    def width(self) -> int:
        return 1

    def __call__(self, trainings: Sequence[Training], states: Sequence[Path], on_epoch: OnEpoch) -> None:
        for i, (training, state) in enumerate(zip(trainings, states, strict=True)):
            fit(training, state, partial(on_epoch, i), self.device)


@dataclass(frozen=True)
class Processes:
    """Side by side in processes of this machine, each on one thread."""

    jobs: int

    device = "cpu"

    @property
    def width(self) -> int:
        return self.jobs

    def __call__(self, trainings: Sequence[Training], states: Sequence[Path], on_epoch: OnEpoch) -> None:
        jobs = min(self.jobs, len(trainings))
        if jobs == 1:
            Here()(trainings, states, on_epoch)
            return
        try:
            with _processes(jobs, trainings) as submit:
                train_by_epochs(trainings, states, on_epoch, submit)
        except BrokenProcessPool:
            raise PlannerError(
                f"One of {jobs} training processes was killed, perhaps for want of memory; the same command goes on "
                f"from the last finished epochs, with fewer --jobs in less memory."
            ) from None


@contextmanager
def chosen(
    jobs: int | None = None, scheduler: str | None = None, tls: Tls | None = None, device: str = "cpu"
) -> Iterator[Means]:
    """Decide who trains.

    Args:
        jobs: How many processes of this machine; as many as cores that this one may use unless given.
        scheduler: The address of a Dask cluster instead.
        tls: Files for it.
        device: Where there is a GPU, one training after the other in this process.

    Raises:
        InputError: If these do not go together, or what they name is not there.
    """
    check_device(device)
    if scheduler is not None and (jobs is not None or device != "cpu"):
        raise InputError("--scheduler leaves the work to its cluster: give it without --jobs and --device.")
    if scheduler is None and tls is not None:
        raise InputError("--tls-ca, --tls-cert and --tls-key are for --scheduler tls://host:port, got none.")
    if device != "cpu" and jobs not in (None, 1):
        raise InputError(f"--device {device} does one training after the other: give it without --jobs {jobs}.")
    if scheduler is not None:
        with connected(scheduler, tls) as cluster:
            yield cluster
        return
    jobs = usable_cores() if jobs is None else jobs
    yield Here(device) if device != "cpu" or jobs == 1 else Processes(jobs)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- processes of this machine ---

# What a process was started with.
_carried: list[Carried] = []


@contextmanager
def _processes(jobs: int, trainings: Sequence[Training]) -> Iterator[Submit]:
    """Have processes that are given the trainings as they start, and end at once with this process or on an error."""
    context = multiprocessing.get_context("spawn")
    end, lifeline = context.Pipe(duplex=False)
    resource_tracker.ensure_running()
    pool = ProcessPoolExecutor(jobs, context, _begin_process, (end, pickle.dumps(Carried(trainings))))

    def submit(i: int, state: bytes | None) -> "Future[bytes]":
        with _no_interrupt():
            return pool.submit(_run_epoch, i, state)

    try:
        yield submit
    except BaseException:
        lifeline.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        lifeline.close()
        end.close()


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
    _carried.append(pickle.loads(carried))


def _end_with(end: Connection) -> None:
    """Wait until the other end of the pipe is closed, as it is when its process ends in any way."""
    with suppress(EOFError, OSError):
        end.recv_bytes()
    os._exit(1)


def _run_epoch(i: int, state: bytes | None) -> bytes:
    return _carried[0].run_epoch(i, state)
