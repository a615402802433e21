"""Training that can be stopped at any moment: one loop for whole models, sub-models and fusions.

Random numbers are drawn anew for each epoch from (seed, epoch), the schedule is a function of the step, and the state
after each epoch is a string of bytes. So a run that was killed and started again, here or elsewhere, gives bit for bit
what an unbroken one gives.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

from planner.errors import PlannerError
from planner.network.compute_device import check_device
from planner.network.training_run import TrainingRun, read_state
from planner.network.training_state import Epoch, history, is_finished, to_bytes, translating_errors
from planner.network.training_task import Preparation, Schedule, TrainFunction, TrainingTask
from planner.schema.base import write_bytes

__all__ = [
    "Epoch",
    "Preparation",
    "Schedule",
    "TrainFunction",
    "TrainingTask",
    "check_device",
    "history",
    "is_finished",
    "load_best_weights",
    "run_epoch",
    "train",
    "train_inline",
]


def run_epoch(task: TrainingTask, state: bytes | None, device: str = "cpu") -> bytes:
    """Return the state after one more epoch, at first the start; nothing that is given is changed.

    Args:
        task: Network, loss and data.
        state: State after the epochs so far; None before the start.
        device: "cpu" or "cuda[:n]".

    Raises:
        PlannerError: If the loss is not a number any more, or the state is not this task's or finished.
    """
    where = f"training {task.name!r}"
    run = TrainingRun(task, copy.deepcopy(task.module), check_device(device))
    if state is not None:
        run.restore(state, where)
    if run.finished:
        raise PlannerError(f"{where}: must have epochs left to run, got a state that is finished.")
    run.next_epoch()
    return to_bytes(run.state())


def load_best_weights(task: TrainingTask, state: bytes) -> None:
    """Put the best epoch's weights into the module, in place, and leave it in eval mode.

    Raises:
        PlannerError: If the state is damaged, or another task's.
    """
    with translating_errors(f"training {task.name!r}"):
        found = read_state(task, state)
        task.module.load_state_dict(found.best or found.model)
    task.module.eval()


def train(
    task: TrainingTask,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    device: str = "cpu",
) -> None:
    """Train a module in place, in this process; it is left with the best epoch's weights, on the CPU, in eval mode.

    Args:
        task: Network, loss and data.
        checkpoint: File for the state after each epoch; read first, if it is there.
        on_epoch: Called after the start and after each epoch, first with those that the checkpoint already holds.
        device: "cpu" or "cuda[:n]".

    Raises:
        PlannerError: If the loss is not a number any more, or the checkpoint is damaged or another task's.
    """
    run = TrainingRun(task, task.module, check_device(device))
    if checkpoint is not None and checkpoint.exists():
        with translating_errors(str(checkpoint)):
            content = checkpoint.read_bytes()
        run.restore(content, str(checkpoint))
    for epoch in run.history:
        on_epoch(epoch)
    while not run.finished:
        epoch = run.next_epoch()
        if checkpoint is not None:
            write_bytes(checkpoint, to_bytes(run.state()))
        on_epoch(epoch)
    if run.best:
        run.module.load_state_dict(run.best)
    run.module.to("cpu").eval()


def train_inline(
    tasks: Sequence[TrainingTask], on_epoch: Callable[[Epoch], None] = lambda epoch: None, device: str = "cpu"
) -> None:
    """Train one after the other in this process, without checkpoints: the simplest `TrainFunction`."""
    for task in tasks:
        train(task, None, on_epoch, device)
