"""Trainers: this process, or workers side by side; the trained weights are bit for bit the same."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from planner import workers
from planner.errors import InputError, setting
from planner.executor.epoch_tasks import RESUME_HINT, OnEpoch, SharedTasks, Trainer, train_by_epochs
from planner.network.training import TrainingTask, check_device, train
from planner.workers import Executor, ProcessExecutor, Tls


@dataclass(frozen=True)
class InlineTrainer:
    """Trainer of one task after the other in this process, perhaps on its GPU."""

    device: str = "cpu"

    @property
    def num_workers(self) -> int:
        return 1

    def __call__(self, tasks: Sequence[TrainingTask], states: Sequence[Path], on_epoch: OnEpoch) -> None:
        for i, (task, state) in enumerate(zip(tasks, states, strict=True)):
            train(task, state, partial(on_epoch, i), self.device)


@dataclass(frozen=True)
class ParallelTrainer:
    """Trainer of tasks side by side, each epoch on one thread of a worker."""

    workers: Executor

    device = "cpu"

    @property
    def num_workers(self) -> int:
        return self.workers.num_workers

    def __call__(self, tasks: Sequence[TrainingTask], states: Sequence[Path], on_epoch: OnEpoch) -> None:
        if isinstance(self.workers, ProcessExecutor) and len(tasks) == 1:
            # Starting a process takes longer than it saves.
            InlineTrainer()(tasks, states, on_epoch)
            return
        with self.workers.session(SharedTasks(tasks), len(tasks), RESUME_HINT) as call:

            def submit(i: int, state: bytes | None) -> "Future[bytes]":
                return call(SharedTasks.run_epoch, i, state)

            train_by_epochs(tasks, states, on_epoch, submit)


@contextmanager
def make_trainer(
    jobs: int | None = None, scheduler: str | None = None, tls: Tls | None = None, device: str = "cpu"
) -> Iterator[Trainer]:
    """Make the trainer for the given resources.

    Args:
        jobs: Number of processes on this machine; as many as cores that this process may use unless given.
        scheduler: Address of a Dask cluster instead.
        tls: Files for the connection to it.
        device: A GPU trains one task after the other, in this process.

    Raises:
        InputError: If these do not go together, or what they name is not there.
    """
    check_device(device)
    if device != "cpu":
        if scheduler is not None:
            raise InputError(
                f"{setting('scheduler')} leaves the work to its cluster: give it without {setting('device', device)}."
            )
        if jobs not in (None, 1):
            raise InputError(
                f"{setting('device', device)} does one training after the other: "
                f"give it without {setting('jobs', jobs)}."
            )
        yield InlineTrainer(device)
        return
    # Another version of torch would give other weights.
    with workers.make_executor(jobs, scheduler, tls, packages=("torch",)) as executor:
        yield InlineTrainer() if isinstance(executor, workers.InlineExecutor) else ParallelTrainer(executor)
