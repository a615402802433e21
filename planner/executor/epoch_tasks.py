"""Side by side, an epoch is a task: a training's state goes to whoever is free and comes back after the epoch.

It is kept in a file, so whatever dies, no more than unfinished epochs are lost. Whoever trains, the bits are the same.
"""

import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from pathlib import Path
from typing import Protocol

import torch

from planner.network.training import Epoch, TrainingTask, adopt, history, is_finished, run_epoch
from planner.schema.base import write_bytes
from planner.workers import MAX_LOSSES, lost_error

# Called with a training's position and each of its epochs, first with those that are in its file already.
OnEpoch = Callable[[int, Epoch], None]
# Begins an epoch of the training at a position, from its state.
SubmitEpoch = Callable[[int, bytes | None], "Future[bytes]"]

KEPT = "the same command goes on from the last finished epochs"


class Trainer(Protocol):
    """By what means trainings that are independent of each other are done."""

    @property
    def width(self) -> int:
        """How many are done at a time."""

    @property
    def device(self) -> str:
        """Where networks are while they are trained: cpu, or cuda[:n]."""

    def __call__(self, trainings: Sequence[TrainingTask], states: Sequence[Path], on_epoch: OnEpoch) -> None:
        """Train all modules in place; the state of each is kept in its file, from which a next run goes on."""


def train_by_epochs(
    trainings: Sequence[TrainingTask], states: Sequence[Path], on_epoch: OnEpoch, submit: SubmitEpoch
) -> None:
    """Train side by side, an epoch a task; trainings take turns.

    Raises:
        PlannerError: If a loss is not a number any more, a state is not its training's, or an epoch was lost too often.
    """
    pending: dict[Future[bytes], tuple[int, bytes | None]] = {}
    losses = [0] * len(trainings)

    def begin(i: int, state: bytes | None) -> None:
        if state is None or not is_finished(state):
            pending[submit(i, state)] = i, state

    for i, path in enumerate(states):
        known = path.read_bytes() if path.exists() else None
        for epoch in () if known is None else history(known):
            on_epoch(i, epoch)
        begin(i, known)
    while pending:
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            i, before = pending.pop(future)
            try:
                state = future.result()
            except CancelledError:
                losses[i] += 1
                if losses[i] > MAX_LOSSES:
                    raise lost_error(
                        f"training {trainings[i].name!r}", "the same command goes on from the last finished epoch"
                    ) from None
                begin(i, before)
                continue
            write_bytes(states[i], state)
            on_epoch(i, history(state)[-1])
            begin(i, state)
    for training, path in zip(trainings, states, strict=True):
        adopt(training, path.read_bytes())


class SharedTasks:
    """Trainings on their way to another process: what they share travels once."""

    def __init__(self, trainings: Sequence[TrainingTask]) -> None:
        self.trainings = tuple(trainings)

    def __reduce__(self) -> tuple[Callable[[bytes], "SharedTasks"], tuple[bytes]]:
        # Bytes of our own: other picklers have ways of theirs with tensors, such as shared memory.
        return _unpacked, (pickle.dumps(self.trainings, pickle.HIGHEST_PROTOCOL),)

    def run_epoch(self, i: int, state: bytes | None) -> bytes:
        """Return the state of a training after one more epoch, on one thread."""
        torch.set_num_threads(1)
        return run_epoch(self.trainings[i], state)


def _unpacked(content: bytes) -> SharedTasks:
    # Of our own making, from the process that started this one, or from the cluster.
    return SharedTasks(pickle.loads(content))
