"""Training that can be stopped at any moment: one loop for whole models, sub-models and fusions.

Random numbers are drawn anew for each epoch from (seed, epoch), the schedule is a function of the step, and the state
after each epoch is a string of bytes. So a run that was killed and started again, here or elsewhere, gives bit for bit
what an unbroken one gives.

Early stopping: after each epoch the loss of the validation samples is measured; where it does not become lower for a
while, the training ends. In any case the best epoch's weights remain.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from planner.errors import PlannerError
from planner.network.compute_device import autocast, check_device
from planner.network.distillation_data import BatchSource
from planner.network.losses import Loss
from planner.network.training_state import Epoch, State, from_bytes, history, is_finished, to_bytes, translating_errors
from planner.schema.base import write_bytes

__all__ = [
    "Epoch",
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


@dataclass(frozen=True)
class Schedule:
    """AdamW with a short linear warm-up and a cosine down to zero."""

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_share: float = 0.1

    def rate(self, step: int, num_steps: int) -> float:
        """Return the learning rate of a step."""
        warmup = max(1, int(self.warmup_share * num_steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))

    @property
    def patience(self) -> int:
        """Number of epochs without a lower validation loss after which a training ends."""
        return max(2, math.ceil(self.epochs / 4))


@dataclass(frozen=True)
class TrainingTask:
    """A network with the loss that it is to minimise, and the data."""

    name: str
    # Its trainable parameters are changed in place.
    module: nn.Module
    loss: Loss
    data: BatchSource
    # Decides when to stop; where it is empty, all epochs are run.
    validation: BatchSource
    schedule: Schedule
    seed: int


class TrainFunction(Protocol):
    """A function that does training tasks: in this process or elsewhere, one after the other or side by side."""

    def __call__(self, tasks: Sequence[TrainingTask]) -> None:
        """Train all modules in place; the tasks are independent of each other, the modules are left in eval mode."""


def run_epoch(task: TrainingTask, state: bytes | None, device: str = "cpu") -> bytes:
    """Return the state after one more epoch; nothing that is given is changed.

    Args:
        task: Network, loss and data.
        state: State after the epochs so far; None before the first.
        device: "cpu" or "cuda[:n]".

    Raises:
        PlannerError: If the loss is not a number any more, or the state is not this task's or finished.
    """
    where = f"training {task.name!r}"
    run = _TrainingRun(task, copy.deepcopy(task.module), check_device(device))
    if state is not None:
        run.restore(state, where)
    if run.finished:
        raise PlannerError(f"{where}: must have epochs left to run, got a state that is finished.")
    run.epoch()
    return to_bytes(run.state())


def load_best_weights(task: TrainingTask, state: bytes) -> None:
    """Put the best epoch's weights into the module, in place, and leave it in eval mode.

    Raises:
        PlannerError: If the state is damaged, or another task's.
    """
    with translating_errors(f"training {task.name!r}"):
        found = _state_of(task, state)
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
        on_epoch: Called after each epoch, first with those that the checkpoint already holds.
        device: "cpu" or "cuda[:n]".

    Raises:
        PlannerError: If the loss is not a number any more, or the checkpoint is damaged or another task's.
    """
    run = _TrainingRun(task, task.module, check_device(device))
    if checkpoint is not None and checkpoint.exists():
        with translating_errors(str(checkpoint)):
            content = checkpoint.read_bytes()
        run.restore(content, str(checkpoint))
    for epoch in run.history:
        on_epoch(epoch)
    while not run.finished:
        epoch = run.epoch()
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


class _TrainingRun:
    """A training in memory."""

    def __init__(self, task: TrainingTask, module: nn.Module, device: torch.device) -> None:
        self.task, self.device = task, device
        # In place, and before the optimizer is given its parameters.
        self.module = module.to(device)
        self.loss = copy.deepcopy(task.loss).to(device)
        weight_decay = task.schedule.weight_decay
        parameters = _trainable(module).values()
        # Fused: a step of a sub-model takes a quarter of the time, for many small tensors.
        self.optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=weight_decay, fused=True)
        self.history: list[Epoch] = []
        # The best epoch's model, where there are validation samples: the last may not be it.
        self.best: Mapping[str, Tensor] | None = None

    @property
    def finished(self) -> bool:
        """Return whether all epochs are done, or none of the last few brought a lower validation loss."""
        schedule, done = self.task.schedule, len(self.history)
        best = max((epoch.epoch for epoch in self.history if epoch.best), default=0)
        return done >= schedule.epochs or done - best >= schedule.patience

    def epoch(self) -> Epoch:
        """Train one epoch and measure it."""
        start = time.perf_counter()
        loss, rate = self._train_epoch()
        validation_loss = self._validation_loss(rate)
        best = validation_loss is None or all(
            e.held_loss is None or validation_loss < e.held_loss for e in self.history
        )
        if validation_loss is not None and best:
            self.best = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
        name, epochs, seconds = self.task.name, self.task.schedule.epochs, time.perf_counter() - start
        self.history.append(Epoch(name, len(self.history) + 1, epochs, loss, validation_loss, rate, seconds, best))
        return self.history[-1]

    def _train_epoch(self) -> tuple[float, float]:
        """Take the steps of an epoch; return the mean loss of its batches, and the last learning rate."""
        task, schedule, epoch = self.task, self.task.schedule, len(self.history)
        # A number of its own for every (seed, epoch): no two epochs draw the same.
        generator = torch.Generator().manual_seed(task.seed * 1_000_003 + epoch)
        batches = torch.randperm(len(task.data), generator=generator).split(schedule.batch_size)
        self.module.train()
        total, rate = 0.0, 0.0
        for i, indices in enumerate(batches):
            rate = schedule.rate(epoch * len(batches) + i, schedule.epochs * len(batches))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._batch_loss(task.data, indices, generator, rate)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        return total / len(batches), rate

    def _validation_loss(self, rate: float) -> float | None:
        """Return the mean loss of the validation samples, each epoch of the same copies; None without any."""
        validation, seed = self.task.validation, self.task.seed
        if len(validation) == 0:
            return None
        generator = torch.Generator().manual_seed(seed)
        self.module.eval()
        total = 0.0
        with torch.no_grad():
            for indices in torch.arange(len(validation)).split(self.task.schedule.batch_size):
                total += len(indices) * self._batch_loss(validation, indices, generator, rate).item()
        return total / len(validation)

    def _batch_loss(self, data: BatchSource, indices: Tensor, generator: torch.Generator, rate: float) -> Tensor:
        batch = data.batch(indices, generator).to(self.device)
        with autocast(self.device):
            loss: Tensor = self.loss(self.module, batch, generator)
        if not loss.isfinite():
            raise PlannerError(
                f"training {self.task.name!r}: the loss became {loss.item()} in epoch {len(self.history) + 1} "
                f"at learning rate {rate:.2g}; look for extreme weights or images, or take another recipe or seed."
            )
        return loss

    def state(self) -> State:
        """Return the state that `restore` takes; it shares its tensors with the run."""
        moments = {
            f"{key}.{name}": value
            for name, p in _trainable(self.module).items()
            # A parameter that the loss does not reach has none.
            for key, value in self.optimizer.state.get(p, {}).items()
        }
        best = None if not self.history or self.history[-1].best else self.best
        return State(self.module.state_dict(), moments, best, tuple(self.history), self.finished)

    def restore(self, content: bytes, where: str) -> None:
        """Go on from a state.

        Raises:
            PlannerError: If it is damaged, or another task's.
        """
        with translating_errors(where):
            found = _state_of(self.task, content)
            self.module.load_state_dict(found.model)
            for name, p in _trainable(self.module).items():
                self._restore_moments(name, p, found.moments)
            self.history = list(found.history)
            if len(self.task.validation):
                self.best = found.best or {key: value.clone() for key, value in self.module.state_dict().items()}

    def _restore_moments(self, name: str, p: nn.Parameter, moments: Mapping[str, Tensor]) -> None:
        if f"step.{name}" not in moments:
            return
        # AdamW keeps `step` on the CPU, the moments where the parameter is.
        places = {"step": torch.empty(()), "exp_avg": torch.empty_like(p), "exp_avg_sq": torch.empty_like(p)}
        self.optimizer.state[p] = {key: place.detach().copy_(moments[f"{key}.{name}"]) for key, place in places.items()}


def _state_of(task: TrainingTask, content: bytes) -> State:
    """Return the state in a file's content, which must be this task's."""
    state = from_bytes(content)
    expected = (task.name, task.schedule.epochs)
    found = {(epoch.training, epoch.epochs) for epoch in state.history}
    if found != {expected}:
        raise ValueError(f"it must be of {expected[0]!r} with {expected[1]} epochs, got {sorted(found)}")
    return state


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
