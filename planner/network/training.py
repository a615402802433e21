"""Training that can be stopped at any moment: one loop for whole models, sub-models and fusions.

Random numbers are drawn anew for each epoch from (seed, epoch), the schedule is a function of
the step, and the state after each epoch is a safetensors file. So a run that was killed and
started again gives bit for bit what an unbroken one gives.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from planner.errors import PlannerError
from planner.network.lessons import Data
from planner.network.objectives import Objective
from planner.schema.base import write_bytes


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


@dataclass(frozen=True)
class Training:
    """A network, what it is to minimise, and on what data."""

    name: str
    # Its trainable parameters are changed in place.
    module: nn.Module
    objective: Objective
    data: Data
    # Not learned from: when to stop is decided on these.
    held: Data
    schedule: Schedule
    seed: int


class Train(Protocol):
    """Who trains: here or elsewhere, one after the other or side by side."""

    def __call__(self, trainings: Sequence[Training]) -> None:
        """Train all modules in place; they are independent of each other, and are left in eval mode."""


def fit(training: Training, checkpoint: Path | None = None, on_epoch: Callable[[], None] = lambda: None) -> None:
    """Train a module in place.

    Args:
        training: What to train.
        checkpoint: Where to keep the state after each epoch; read first, if it is there.
        on_epoch: Called after each epoch, those that the checkpoint already holds included.

    Raises:
        PlannerError: If the loss is not a number any more.
    """
    module, schedule, num_samples = training.module, training.schedule, len(training.data)
    optimizer = torch.optim.AdamW(_trainable(module).values(), lr=0.0, weight_decay=schedule.weight_decay)
    start = _resume(checkpoint, module, optimizer) if checkpoint else 0
    for _ in range(start):
        on_epoch()
    batches = math.ceil(num_samples / schedule.batch_size)
    module.train()
    for epoch in range(start, schedule.epochs):
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + epoch)
        order = torch.randperm(num_samples, generator=generator)
        for i, indices in enumerate(order.split(schedule.batch_size)):
            rate = schedule.rate(epoch * batches + i, schedule.epochs * batches)
            for group in optimizer.param_groups:
                group["lr"] = rate
            value = training.objective(module, training.data.batch(indices, generator), generator)
            if not value.isfinite():
                raise PlannerError(
                    f"The loss became {value.item()} in epoch {epoch + 1} at learning rate {rate:.2g}: lower it."
                )
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        if checkpoint:
            _save(checkpoint, module, optimizer, epoch + 1)
        on_epoch()
    module.eval()


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    for name, p in _trainable(model).items():
        tensors |= {f"{key}.{name}": value for key, value in optimizer.state[p].items()}
    write_bytes(path, save(tensors, {"epoch": json.dumps(epoch)}))


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a state if there is one; return the number of epochs it has behind it."""
    if not path.exists():
        return 0
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            epoch = int((file.metadata() or {})["epoch"])
            with torch.no_grad():
                for name, p in model.named_parameters():
                    p.copy_(file.get_tensor(f"model.{name}"))
                for name, p in _trainable(model).items():
                    keys = ("step", "exp_avg", "exp_avg_sq")
                    optimizer.state[p] = {key: file.get_tensor(f"{key}.{name}") for key in keys}
    # Missing or unreadable metadata is a KeyError or ValueError, another network's shape a RuntimeError.
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise PlannerError(f"{path}: not a training state ({error}); delete it to begin again.") from None
    return epoch
