"""Who trains: this process, or workers side by side; the bits are the same in any case."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from planner import workers
from planner.errors import InputError
from planner.executor.epoch_tasks import KEPT, OnEpoch, SharedTasks, Trainer, train_by_epochs
from planner.network.training import TrainingTask, check_device, train
from planner.workers import Executor, ProcessExecutor, Tls


@dataclass(frozen=True)
class InlineTrainer:
    """One after the other in this process, perhaps on its GPU."""

    device: str = "cpu"

    @property
    def width(self) -> int:
        return 1

    def __call__(self, trainings: Sequence[TrainingTask], states: Sequence[Path], on_epoch: OnEpoch) -> None:
        for i, (training, state) in enumerate(zip(trainings, states, strict=True)):
            train(training, state, partial(on_epoch, i), self.device)


@dataclass(frozen=True)
class ParallelTrainer:
    """An epoch a task, each on one thread of some worker."""

    workers: Executor

    device = "cpu"

    @property
    def width(self) -> int:
        return self.workers.width

    def __call__(self, trainings: Sequence[TrainingTask], states: Sequence[Path], on_epoch: OnEpoch) -> None:
        if isinstance(self.workers, ProcessExecutor) and len(trainings) == 1:
            # Starting a process takes longer than it saves.
            InlineTrainer()(trainings, states, on_epoch)
            return
        with self.workers.lent(SharedTasks(trainings), len(trainings), KEPT) as lent:

            def submit(i: int, state: bytes | None) -> "Future[bytes]":
                return lent(SharedTasks.run_epoch, i, state)

            train_by_epochs(trainings, states, on_epoch, submit)


@contextmanager
def make_trainer(
    jobs: int | None = None, scheduler: str | None = None, tls: Tls | None = None, device: str = "cpu"
) -> Iterator[Trainer]:
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
    if device != "cpu":
        if scheduler is not None:
            raise InputError(f"--scheduler leaves the work to its cluster: give it without --device {device}.")
        if jobs not in (None, 1):
            raise InputError(f"--device {device} does one training after the other: give it without --jobs {jobs}.")
        yield InlineTrainer(device)
        return
    with workers.make_executor(jobs, scheduler, tls, alike=("torch",)) as found:
        yield InlineTrainer() if isinstance(found, workers.InlineExecutor) else ParallelTrainer(found)
