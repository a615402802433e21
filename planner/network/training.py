"""Training that can be stopped at any moment: one loop for whole models, sub-models and fusions.

Random numbers are drawn anew for each epoch from (seed, epoch), the schedule is a function of the step, and the state
after each epoch is a string of bytes. So a run that was killed and started again, here or elsewhere, gives bit for bit
what an unbroken one gives.

After each epoch the objective is measured on held-out samples; where it does not become lower for a while, the
training ends early, and in any case the best epoch's weights are what remains.
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
from planner.network.training_state import Epoch, State, from_bytes, history, is_finished, refusing, to_bytes
from planner.schema.base import write_bytes

__all__ = [
    "Epoch",
    "Schedule",
    "TrainFunction",
    "TrainingTask",
    "adopt",
    "check_device",
    "history",
    "is_finished",
    "run_epoch",
    "train",
    "train_here",
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
        """After how many epochs without a lower held-out loss a training ends."""
        return max(2, math.ceil(self.epochs / 4))


@dataclass(frozen=True)
class TrainingTask:
    """A network, what it is to minimise, and on what data."""

    name: str
    # Its trainable parameters are changed in place.
    module: nn.Module
    objective: Loss
    data: BatchSource
    # Not learned from: when to stop is decided on these, and if there are none, at the end.
    held: BatchSource
    schedule: Schedule
    seed: int


class TrainFunction(Protocol):
    """Who trains: here or elsewhere, one after the other or side by side."""

    def __call__(self, trainings: Sequence[TrainingTask]) -> None:
        """Train all modules in place; they are independent of each other, and are left in eval mode."""


def run_epoch(training: TrainingTask, state: bytes | None, device: str = "cpu") -> bytes:
    """Return the state after one more epoch; nothing that is given is changed.

    Args:
        training: What to train.
        state: After the epochs so far; None before the first.
        device: "cpu" or "cuda[:n]".

    Raises:
        PlannerError: If the loss is not a number any more, or the state is not this training's or finished.
    """
    where = f"training {training.name!r}"
    run = _Run(training, copy.deepcopy(training.module), check_device(device))
    if state is not None:
        run.restore(state, where)
    if run.finished:
        raise PlannerError(f"{where}: must have epochs left to run, got a state that is finished.")
    run.epoch()
    return to_bytes(run.state())


def adopt(training: TrainingTask, state: bytes) -> None:
    """Put the best epoch's weights into the module, in place, and leave it in eval mode.

    Raises:
        PlannerError: If the state is damaged, or another training's.
    """
    with refusing(f"training {training.name!r}"):
        found = _checked(training, state)
        training.module.load_state_dict(found.best or found.model)
    training.module.eval()


def train(
    training: TrainingTask,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    device: str = "cpu",
) -> None:
    """Train a module in place, in this process; it is left with the best epoch's weights, on the CPU, in eval mode.

    Args:
        training: What to train.
        checkpoint: Where to keep the state after each epoch; read first, if it is there.
        on_epoch: Called after each epoch, first with those that the checkpoint already holds.
        device: "cpu" or "cuda[:n]".

    Raises:
        PlannerError: If the loss is not a number any more, or the checkpoint is damaged or another training's.
    """
    run = _Run(training, training.module, check_device(device))
    if checkpoint is not None and checkpoint.exists():
        with refusing(str(checkpoint)):
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


def train_here(
    trainings: Sequence[TrainingTask], on_epoch: Callable[[Epoch], None] = lambda epoch: None, device: str = "cpu"
) -> None:
    """Train one after the other in this process: the plainest `Train`."""
    for training in trainings:
        train(training, None, on_epoch, device)


class _Run:
    """A training in memory."""

    def __init__(self, training: TrainingTask, module: nn.Module, device: torch.device) -> None:
        self.training, self.device = training, device
        # In place, and before the optimizer is told of its parameters.
        self.module = module.to(device)
        self.objective = copy.deepcopy(training.objective).to(device)
        weight_decay = training.schedule.weight_decay
        parameters = _trainable(module).values()
        # Fused: a step of a sub-model takes a quarter of the time, for many small tensors.
        self.optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=weight_decay, fused=True)
        self.history: list[Epoch] = []
        # The best epoch's model, where some are held out: the last may not be it.
        self.best: Mapping[str, Tensor] | None = None

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or none of the last few brought a lower held-out loss."""
        schedule, done = self.training.schedule, len(self.history)
        best = max((epoch.epoch for epoch in self.history if epoch.best), default=0)
        return done >= schedule.epochs or done - best >= schedule.patience

    def epoch(self) -> Epoch:
        """Train one epoch and measure it."""
        start = time.perf_counter()
        loss, rate = self._learn()
        held_loss = self._held_loss(rate)
        best = held_loss is None or all(e.held_loss is None or held_loss < e.held_loss for e in self.history)
        if held_loss is not None and best:
            self.best = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
        name, epochs, seconds = self.training.name, self.training.schedule.epochs, time.perf_counter() - start
        self.history.append(Epoch(name, len(self.history) + 1, epochs, loss, held_loss, rate, seconds, best))
        return self.history[-1]

    def _learn(self) -> tuple[float, float]:
        """Take the steps of an epoch; return the mean loss of its batches, and the last learning rate."""
        training, schedule, epoch = self.training, self.training.schedule, len(self.history)
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + epoch)
        order = torch.randperm(len(training.data), generator=generator).split(schedule.batch_size)
        self.module.train()
        total, rate = 0.0, 0.0
        for i, indices in enumerate(order):
            rate = schedule.rate(epoch * len(order) + i, schedule.epochs * len(order))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            value = self._loss(training.data, indices, generator, rate)
            self.optimizer.zero_grad()
            value.backward()
            self.optimizer.step()
            total += value.item()
        return total / len(order), rate

    def _held_loss(self, rate: float) -> float | None:
        """Return the mean loss of the held-out samples, each epoch of the same copies."""
        held, seed = self.training.held, self.training.seed
        if len(held) == 0:
            return None
        generator = torch.Generator().manual_seed(seed)
        self.module.eval()
        total = 0.0
        with torch.no_grad():
            for indices in torch.arange(len(held)).split(self.training.schedule.batch_size):
                total += len(indices) * self._loss(held, indices, generator, rate).item()
        return total / len(held)

    def _loss(self, data: BatchSource, indices: Tensor, generator: torch.Generator, rate: float) -> Tensor:
        batch = data.batch(indices, generator).to(self.device)
        with autocast(self.device):
            value: Tensor = self.objective(self.module, batch, generator)
        if not value.isfinite():
            raise PlannerError(
                f"training {self.training.name!r}: the loss became {value.item()} in epoch {len(self.history) + 1} "
                f"at learning rate {rate:.2g}; look for extreme weights or images, or take another recipe or seed."
            )
        return value

    def state(self) -> State:
        """Return what `restore` goes on from; it shares its tensors with the run."""
        moments = {
            f"{key}.{name}": value
            for name, p in _trainable(self.module).items()
            # A parameter that the objective does not reach has none.
            for key, value in self.optimizer.state.get(p, {}).items()
        }
        best = None if not self.history or self.history[-1].best else self.best
        return State(self.module.state_dict(), moments, best, tuple(self.history), self.finished)

    def restore(self, content: bytes, where: str) -> None:
        """Go on from a state.

        Raises:
            PlannerError: If it is damaged, or another training's.
        """
        with refusing(where):
            found = _checked(self.training, content)
            self.module.load_state_dict(found.model)
            for name, p in _trainable(self.module).items():
                self._restore_moments(name, p, found.moments)
            self.history = list(found.history)
            if len(self.training.held):
                self.best = found.best or {key: value.clone() for key, value in self.module.state_dict().items()}

    def _restore_moments(self, name: str, p: nn.Parameter, moments: Mapping[str, Tensor]) -> None:
        if f"step.{name}" not in moments:
            return
        # The step's place is the CPU, the others' that of the parameter.
        places = {"step": torch.empty(()), "exp_avg": torch.empty_like(p), "exp_avg_sq": torch.empty_like(p)}
        self.optimizer.state[p] = {key: place.detach().copy_(moments[f"{key}.{name}"]) for key, place in places.items()}


def _checked(training: TrainingTask, content: bytes) -> State:
    """Return a state that is this training's."""
    found = from_bytes(content)
    ours = (training.name, training.schedule.epochs)
    theirs = {(epoch.training, epoch.epochs) for epoch in found.history}
    if theirs != {ours}:
        raise ValueError(f"it must be of {ours[0]!r} with {ours[1]} epochs, got {sorted(theirs)}")
    return found


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
