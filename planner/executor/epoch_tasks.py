"""Trainings side by side, one epoch at a time: a training's state goes to a free worker and returns after the epoch.

The state is kept in a file, so that whatever dies, no more than unfinished epochs are lost. The weights are bit for
bit the same whichever worker trains.
"""

import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from pathlib import Path
from typing import Protocol

import torch

from planner.network.training import Epoch, TrainingTask, history, is_finished, load_best_weights, run_epoch
from planner.schema.base import write_bytes
from planner.workers import MAX_LOSSES, lost_error

# Called with a training's position and each of its epochs, first with those that are in its file already.
OnEpoch = Callable[[int, Epoch], None]
# Starts an epoch of the training at a position, from its state.
SubmitEpoch = Callable[[int, bytes | None], "Future[bytes]"]

RESUME_HINT = "the same command goes on from the last finished epochs"


class Trainer(Protocol):
    """Executor of independent trainings."""

    @property
    def num_workers(self) -> int:
        """Number of trainings at a time."""

    @property
    def device(self) -> str:
        """Device on which networks are trained: cpu, or cuda[:n]."""

    def __call__(self, tasks: Sequence[TrainingTask], states: Sequence[Path], on_epoch: OnEpoch) -> None:
        """Train all modules in place; the state of each is kept in its file, from which a later run resumes."""


def train_by_epochs(
    tasks: Sequence[TrainingTask], states: Sequence[Path], on_epoch: OnEpoch, submit: SubmitEpoch
) -> None:
    """Train side by side, one epoch at a time; trainings take turns.

    Raises:
        PlannerError: If a loss is not a number any more, a state is not its training's, or an epoch was lost too often.
    """
    pending: dict[Future[bytes], tuple[int, bytes | None]] = {}
    losses = [0] * len(tasks)

    def begin(i: int, state: bytes | None) -> None:
        if state is None or not is_finished(state):
            pending[submit(i, state)] = i, state

    for i, path in enumerate(states):
        saved = path.read_bytes() if path.exists() else None
        for epoch in () if saved is None else history(saved):
            on_epoch(i, epoch)
        begin(i, saved)
    while pending:
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            i, previous = pending.pop(future)
            try:
                state = future.result()
            except CancelledError:
                losses[i] += 1
                if losses[i] > MAX_LOSSES:
                    raise lost_error(
                        f"training {tasks[i].name!r}", "the same command goes on from the last finished epoch"
                    ) from None
                begin(i, previous)
                continue
            write_bytes(states[i], state)
            on_epoch(i, history(state)[-1])
            begin(i, state)
    for task, path in zip(tasks, states, strict=True):
        load_best_weights(task, path.read_bytes())


class SharedTasks:
    """Training tasks for another process: tensors that they share are sent once."""

    def __init__(self, tasks: Sequence[TrainingTask]) -> None:
        self.tasks = tuple(tasks)

    def __reduce__(self) -> tuple[Callable[[bytes], "SharedTasks"], tuple[bytes]]:
        # Pickled here, since other picklers treat tensors in ways of their own, such as shared memory.
        return _unpickle, (pickle.dumps(self.tasks, pickle.HIGHEST_PROTOCOL),)

    def run_epoch(self, i: int, state: bytes | None) -> bytes:
        """Return the state of a training after one more epoch, on one thread."""
        torch.set_num_threads(1)
        return run_epoch(self.tasks[i], state)


def _unpickle(content: bytes) -> SharedTasks:
    # Safe: the bytes were made by the process that started this one, or come from the cluster that the user named.
    return SharedTasks(pickle.loads(content))
