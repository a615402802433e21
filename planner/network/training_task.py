"""Training tasks: what is trained, on what, by which schedule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from planner.network.distillation_data import BatchSource
from planner.network.losses import Loss


@dataclass(frozen=True)
class Schedule:
    """AdamW with a short linear warm-up and a cosine down to zero."""

    # May end within an epoch; with none, only the start remains.
    epochs: float
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_share: float = 0.1
    # Reach of a moving average of the weights, as a share of all steps: the average is what is measured and kept.
    average_share: float = 0.0
    # Look for a smaller learning rate first, where this one harms the start.
    rate_search: bool = False

    def rate(self, step: int, num_steps: int) -> float:
        """Return the learning rate of a step."""
        warmup = max(1, int(self.warmup_share * num_steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))

    @property
    def num_epochs(self) -> int:
        """Number of epochs, the last one perhaps a part of one."""
        return math.ceil(self.epochs)

    def num_steps(self, batches_per_epoch: int) -> int:
        """Return the number of batches of all epochs; of each epoch at least one."""
        return math.ceil(round(self.epochs * batches_per_epoch, 6))

    def average_weight(self, step: int, num_steps: int) -> float:
        """Return the weight of the weights after a step in their moving average: of the first few, a plain mean."""
        return max(1 / (step + 1), 1 / max(1.0, self.average_share * num_steps))

    @property
    def patience(self) -> int:
        """Number of epochs without a lower validation loss after which a training ends."""
        return max(2, math.ceil(self.epochs / 4))


class Preparation(Protocol):
    """Something that is done to a module before its training, from some images."""

    @property
    def num_images(self) -> int:
        """Number of images that it looks at."""

    @property
    def max_images(self) -> int:
        """Number of images that it looks at where there are more."""

    def __call__(self, module: nn.Module) -> None:
        """Change the module in place; the same bits whenever it is done."""


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
    preparation: Preparation | None = None


class TrainFunction(Protocol):
    """A function that does training tasks: in this process or elsewhere, one after the other or side by side."""

    def __call__(self, tasks: Sequence[TrainingTask]) -> None:
        """Train all modules in place; the tasks are independent of each other, the modules are left in eval mode."""
