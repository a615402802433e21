"""A training in memory: its start, its epochs, and its state between two of them.

A training begins with epoch 0, which takes no step: what prepares the module is done, such as a reconstruction in
closed form, and the validation loss of this start is measured. After each epoch it is measured again; where it does not
become lower for a while, the training ends. The best epoch's weights remain, and the start is one of the candidates: a
training never makes the validation loss worse. Where a schedule wants a moving average of the weights, it is the
average that is measured and remains, while the steps go on from the weights themselves.
"""

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from planner.errors import PlannerError
from planner.network.compute_device import mixed_precision
from planner.network.distillation_data import BatchSource
from planner.network.training_state import Epoch, State, from_bytes, translating_errors
from planner.network.training_task import TrainingTask

# Smallest learning rate that is tried, as a share of the schedule's, and the ratio of one to the next.
_MIN_RATE_SHARE = 1e-3
_RATE_STEP = 1 / 3
# Batches of a trial of a learning rate, at most, and validation samples to look at before and after it.
TRIAL_BATCHES = 12
_TRIAL_SAMPLES = 512
# Largest validation loss after a trial, as a multiple of the start's. Some rise is usual at rates that are best in the
# end: a sub-model of digits rose by 23 % at 2e-3, and ended two points of accuracy below at the rate of no rise.
_MAX_RISE = 1.5
# A trial ends early where a batch's loss is so many times the largest that is allowed.
_HOPELESS_RISE = 2.0


# Networks of so many parameters work on so many samples of a batch at a time: a step of four sub-models of ViT-Small
# takes about as long, in a process of 1.9 in place of 3.4 GiB.
_LARGE_PARAMETERS, _SAMPLES_AT_A_TIME = 4_000_000, 32


class TrainingRun:
    """A training in memory."""

    def __init__(self, task: TrainingTask, module: nn.Module, device: torch.device) -> None:
        self.task, self.device = task, device
        # In place, and before the optimizer is given its parameters.
        self.module = module.to(device)
        self.loss = copy.deepcopy(task.loss).to(device)
        self.precision = mixed_precision(self.module, device)
        self.schedule = task.schedule
        is_large = sum(p.numel() for p in self.module.parameters()) >= _LARGE_PARAMETERS
        self.samples_at_a_time = _SAMPLES_AT_A_TIME if is_large else self.schedule.batch_size
        self.optimizer = self._fresh_optimizer()
        # Of the start and of each epoch.
        self.history: list[Epoch] = []
        # Moving average of the weights, once there are steps.
        self.average: dict[str, Tensor] | None = None
        # The best epoch's model, where it may not be the module as it is: there are validation samples, or averages.
        self.best: Mapping[str, Tensor] | None = None

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        # Fused: a step of a sub-model takes a quarter of the time, for many small tensors.
        parameters = _trainable(self.module).values()
        return torch.optim.AdamW(parameters, lr=0.0, weight_decay=self.schedule.weight_decay, fused=True)

    @property
    def finished(self) -> bool:
        """Return whether all epochs are done, or none of the last few brought a lower validation loss.

        The start does not count: at first a training may lose what it makes good later.
        """
        if not self.history:
            return False
        _, *epochs = self.history
        lowest = min(epochs, key=_held_loss, default=None)
        since = 0 if lowest is None or lowest.held_loss is None else len(epochs) - lowest.epoch
        return len(epochs) >= self.schedule.num_epochs or since >= self.schedule.patience

    def next_epoch(self) -> Epoch:
        """Do the start, or train one epoch, and measure the result."""
        start = time.perf_counter()
        if not self.history:
            accuracy_as_cut, loss, rate = self._start(), None, self.schedule.learning_rate
        else:
            accuracy_as_cut = None
            loss, rate = self._train_epoch()
        with self._averaged():
            validation_loss, accuracy = self._validate()
            best = validation_loss is None or all(
                e.held_loss is None or validation_loss < e.held_loss for e in self.history
            )
            if best and (validation_loss is not None or self.average is not None):
                self.best = self._weights()
        self.history.append(
            Epoch(
                training=self.task.name,
                epoch=len(self.history),
                epochs=self.schedule.num_epochs,
                loss=loss,
                held_loss=validation_loss,
                held_accuracy=accuracy,
                accuracy_as_cut=accuracy_as_cut,
                learning_rate=rate,
                seconds=time.perf_counter() - start,
                best=best,
            )
        )
        return self.history[-1]

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Let the module have the average's weights for a while, where there is one."""
        if self.average is None:
            yield
            return
        own = self._weights()
        self.module.load_state_dict(self.average)
        try:
            yield
        finally:
            self.module.load_state_dict(own)

    def _average(self, weight: float) -> None:
        """Add the weights as they are to their average."""
        weights = self._weights()
        if self.average is None:
            self.average = weights
            return
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, weight)

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.module.state_dict().items()}

    def _start(self) -> float | None:
        """Prepare the module and set the learning rate; return the accuracy before, where there is a preparation."""
        before = None
        if self.task.preparation is not None:
            before = self._validate()[1]
            self.task.preparation(self.module.to("cpu"))
            self.module.to(self.device)
        if self.schedule.rate_search and self.schedule.epochs and len(self.task.validation):
            self.schedule = replace(self.schedule, learning_rate=self._largest_harmless_rate())
        return before

    def _largest_harmless_rate(self) -> float:
        """Return the largest learning rate at which a few batches do not undo the start: the loss hardly rises.

        Each rate is tried from the start, with a linear warm-up; the module is left as it is.

        Source:
            A learning rate range test, from above: Smith, arXiv 1506.01186.
        """
        start, limit = self._weights(), _MAX_RISE * self._validation_loss(_TRIAL_SAMPLES)
        highest = self.schedule.learning_rate
        rate = highest
        while rate > _MIN_RATE_SHARE * highest:
            harmless = self._loss_after_trial(rate, limit) <= limit
            self.module.load_state_dict(start)
            self.optimizer = self._fresh_optimizer()
            if harmless:
                return rate
            rate *= _RATE_STEP
        return rate

    def _loss_after_trial(self, rate: float, limit: float) -> float:
        """Return the validation loss after a few batches with a rising learning rate; infinity far beyond the limit."""
        generator = torch.Generator().manual_seed(self.task.seed)
        batches = torch.randperm(len(self.task.data), generator=generator).split(self.schedule.batch_size)
        batches = batches[:TRIAL_BATCHES]
        self.module.train()
        try:
            for i, indices in enumerate(batches, start=1):
                if self._step(indices, generator, rate * i / len(batches)) > _HOPELESS_RISE * limit:
                    return float("inf")
            return self._validation_loss(_TRIAL_SAMPLES)
        except PlannerError:
            # The loss is not a number any more.
            return float("inf")

    def _train_epoch(self) -> tuple[float, float]:
        """Take the steps of an epoch; return the mean loss of its batches, and the last learning rate."""
        task, schedule, epoch = self.task, self.schedule, self.history[-1].epoch
        # A number of its own for every (seed, epoch): no two epochs draw the same.
        generator = torch.Generator().manual_seed(task.seed * 1_000_003 + epoch)
        batches = torch.randperm(len(task.data), generator=generator).split(schedule.batch_size)
        num_steps, done = schedule.num_steps(len(batches)), epoch * len(batches)
        batches = batches[: num_steps - done]
        self.module.train()
        total, rate = 0.0, 0.0
        for i, indices in enumerate(batches):
            rate = schedule.rate(done + i, num_steps)
            total += self._step(indices, generator, rate)
            if schedule.average_share:
                self._average(schedule.average_weight(done + i, num_steps))
        return total / len(batches), rate

    def _step(self, indices: Tensor, generator: torch.Generator, rate: float) -> float:
        """Take a step on a batch and return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        total = 0.0
        for part in indices.split(self.samples_at_a_time):
            loss = self._batch_loss(self.task.data, part, generator, rate) * (len(part) / len(indices))
            loss.backward()
            total += loss.item()
        self.optimizer.step()
        return total

    def _validate(self) -> tuple[float | None, float | None]:
        """Return mean loss and accuracy of the validation samples, each epoch of the same copies; None without any."""
        validation = self.task.validation
        if len(validation) == 0:
            return None, None
        loss, hits = self._validation_loss(), 0
        generator = torch.Generator().manual_seed(self.task.seed)
        with torch.no_grad():
            for indices in torch.arange(len(validation)).split(self.schedule.batch_size):
                batch = validation.batch(indices, generator).to(self.device)
                hits += int((self.module(batch.inputs).argmax(1) == batch.labels).sum())
        return loss, hits / len(validation)

    def _validation_loss(self, limit: int | None = None) -> float:
        """Return the mean loss of the validation samples, or of so many of them."""
        validation = self.task.validation
        chosen = torch.arange(len(validation))
        if limit is not None and limit < len(chosen):
            chosen = torch.linspace(0, len(chosen) - 1, limit).long()
        generator = torch.Generator().manual_seed(self.task.seed)
        self.module.eval()
        total = 0.0
        with torch.no_grad():
            for indices in chosen.split(self.schedule.batch_size):
                total += len(indices) * self._batch_loss(validation, indices, generator, 0.0).item()
        return total / len(chosen)

    def _batch_loss(self, data: BatchSource, indices: Tensor, generator: torch.Generator, rate: float) -> Tensor:
        batch = data.batch(indices, generator).to(self.device)
        with self.precision:
            loss: Tensor = self.loss(self.module, batch, generator)
        if not loss.isfinite():
            raise PlannerError(
                f"training {self.task.name!r}: the loss became {loss.item()} in epoch {len(self.history)} "
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
        is_best = not self.history or (self.history[-1].best and self.average is None)
        best = None if is_best else self.best
        return State(self.module.state_dict(), moments, self.average, best, tuple(self.history), self.finished)

    def restore(self, content: bytes, where: str) -> None:
        """Go on from a state.

        Raises:
            PlannerError: If it is damaged, or another task's.
        """
        with translating_errors(where):
            found = read_state(self.task, content)
            self.module.load_state_dict(found.model)
            for name, p in _trainable(self.module).items():
                self._restore_moments(name, p, found.moments)
            self.history = list(found.history)
            self.schedule = replace(self.schedule, learning_rate=self.history[0].learning_rate)
            self.average = None if found.average is None else {k: t.to(self.device) for k, t in found.average.items()}
            if found.best or len(self.task.validation):
                self.best = found.best or self._weights()

    def _restore_moments(self, name: str, p: nn.Parameter, moments: Mapping[str, Tensor]) -> None:
        if f"step.{name}" not in moments:
            return
        # AdamW keeps `step` on the CPU, the moments where the parameter is.
        places = {"step": torch.empty(()), "exp_avg": torch.empty_like(p), "exp_avg_sq": torch.empty_like(p)}
        self.optimizer.state[p] = {key: place.detach().copy_(moments[f"{key}.{name}"]) for key, place in places.items()}


def read_state(task: TrainingTask, content: bytes) -> State:
    """Return the state in a file's content; to be called within `translating_errors`.

    Raises:
        ValueError: If it is another task's.
    """
    state = from_bytes(content)
    expected = (task.name, task.schedule.num_epochs)
    found = {(epoch.training, epoch.epochs) for epoch in state.history}
    if found != {expected} or state.history[0].epoch != 0:
        raise ValueError(f"it must be of {expected[0]!r} with {expected[1]} epochs, got {sorted(found)}")
    return state


def _held_loss(epoch: Epoch) -> float:
    return 0.0 if epoch.held_loss is None else epoch.held_loss


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
