"""Training time of a recipe, extrapolated from an epoch of each training on a few images."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from planner.network.data import Jitter, Samples
from planner.network.distillation_data import DistillationData, copies_for, make_distillation_data, split_validation
from planner.network.recipes import Recipe, RecoveryTask
from planner.network.surgery import cut
from planner.network.training import TrainingTask, run_epoch
from planner.network.training_run import TRIAL_BATCHES
from planner.network.vit import VisionTransformer

# Images on which a recipe is timed, or one of each class if there are more classes.
NUM_TIMING_IMAGES = 128
# Enough for every recipe to take each of its steps.
_TIMING_EPOCHS = 4
_MAX_EPOCHS = 1_000_000
# Trials of learning rates that are not broken off at once: mostly the one that is taken, and the one before.
_NUM_TRIALS = 2
# Budgets below an epoch are multiples of this.
_EPOCH_PART = 0.05


# Maker of a recipe's task from training data, validation data and a number of epochs.
TaskFactory = Callable[[DistillationData, DistillationData, int], RecoveryTask]


@dataclass(frozen=True)
class TrainingTime:
    """Number of epochs of a training, the time of each and of the start before them [s]."""

    epochs: float
    epoch_seconds: float
    start_seconds: float

    @property
    def seconds(self) -> float:
        """Time of the whole training [s]."""
        return self.start_seconds + self.epochs * self.epoch_seconds


@dataclass(frozen=True)
class EpochTimes:
    """Times of a training's start and of an epoch [s]."""

    start: float
    epoch: float


# The trainings of a recipe by call and position: those of one call can be done side by side, calls follow each other.
TrainingTimes = list[list[TrainingTime]]


def _seconds_side_by_side(call: Sequence[TrainingTime], num_workers: int) -> float:
    """Return a lower bound of the time of a call's trainings [s], which taking turns by epochs nearly reaches."""
    times = [training.seconds for training in call]
    return max(max(times), sum(times) / min(num_workers, len(times)))


@dataclass(frozen=True)
class TimedRecipe:
    """A recipe that was timed, and the estimate of its time with any number of epochs."""

    recipe: Recipe
    # Of few images and of sub-models without blocks: it serves to list the trainings, not to do them.
    task: RecoveryTask
    # Time of a copy of all images outside of trainings, the teacher's forward pass among it [s].
    copy_seconds: float
    # Times of the start and of an epoch with all images, by call and position [s].
    times: Sequence[Sequence[EpochTimes]]
    # Without a jitter there is one copy of each image, whatever the epochs.
    has_copies: bool

    def training_times(self, epochs: float) -> TrainingTimes:
        """Return the trainings of the recipe with a budget of this many epochs."""
        calls: TrainingTimes = []

        def list_tasks(tasks: Sequence[TrainingTask]) -> None:
            pairs = zip(tasks, self.times[len(calls)], strict=True)
            calls.append([TrainingTime(task.schedule.epochs, of.epoch, of.start) for task, of in pairs])

        self.recipe(replace(self.task, epochs=epochs), list_tasks)
        return calls

    def first_call_seconds(self, epochs: float, num_workers: int) -> float:
        """Return the time of the trainings that the recipe begins with [s]."""
        return _seconds_side_by_side(self.training_times(epochs)[0], num_workers)

    def overhead_seconds(self, epochs: float) -> float:
        """Return the time of everything but trainings [s]."""
        return self.copy_seconds * (copies_for(epochs) if self.has_copies else 1)

    def seconds(self, epochs: float, num_workers: int) -> float:
        """Return the time of the whole recipe where so many trainings are done at a time [s]."""
        calls = self.training_times(epochs)
        return self.overhead_seconds(epochs) + sum(_seconds_side_by_side(call, num_workers) for call in calls)

    def max_epochs(self, minutes: float, num_workers: int) -> float:
        """Return the largest number of epochs that fits: a part of one, or a whole number by doubling and bisection.

        Where the minutes are too few even for what takes no training, there is none.
        """
        limit = 60 * minutes
        if (one := self.seconds(1, num_workers)) > limit:
            none = self.seconds(0, num_workers)
            share = math.floor((limit - none) / (one - none) / _EPOCH_PART) * _EPOCH_PART
            return max(0, round(share, 2))
        fits, too_many = 1, 2
        while too_many < _MAX_EPOCHS and self.seconds(too_many, num_workers) <= limit:
            fits, too_many = too_many, 2 * too_many
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if self.seconds(middle, num_workers) <= limit else (fits, middle)
        return fits


@dataclass
class _EpochTimer:
    """A `TrainFunction` that times the start and an epoch of each training, in a copy; the modules stay as they are.

    Times are scaled from the few images of the tasks to all images.
    """

    device: str
    scale: float
    times: list[list[EpochTimes]] = field(default_factory=list)
    seconds: float = 0.0

    def __call__(self, tasks: Sequence[TrainingTask]) -> None:
        start = time.perf_counter()
        self.times.append([self._time_epoch(task) for task in tasks])
        self.seconds += time.perf_counter() - start

    def _time_epoch(self, task: TrainingTask) -> EpochTimes:
        """Return the times of the start and of an epoch, the shorter of two, as the first one warms up.

        Where a training has no epochs, none is timed.
        """
        num_epochs = 2 if task.schedule.epochs else 0
        schedule = replace(task.schedule, epochs=num_epochs, rate_search=False)
        task, rate_search = replace(task, schedule=schedule), task.schedule.rate_search
        times = [time.perf_counter()]
        state = None
        for _ in range(1 + num_epochs):
            state = run_epoch(task, state, self.device)
            times.append(time.perf_counter())
        start, *epochs = (after - before for before, after in pairwise(times))
        scale = self.scale
        if task.preparation is not None:
            scale = min(scale, task.preparation.max_images / task.preparation.num_images)
        start, epoch = scale * start, self.scale * min(epochs, default=0.0)
        if rate_search:
            num_batches = self.scale * len(task.data) / schedule.batch_size
            start += _NUM_TRIALS * min(1.0, TRIAL_BATCHES / num_batches) * epoch
        return EpochTimes(start, epoch)


def time_recipe(
    recipe: Recipe,
    make_task: TaskFactory,
    teacher: VisionTransformer,
    samples: Samples,
    jitter: Jitter,
    seed: int,
    device: str = "cpu",
    epochs: float | None = None,
) -> TimedRecipe:
    """Time a recipe on a few of the images; the sub-models stay as they are.

    Args:
        recipe: Recipe to time.
        make_task: Maker of the recipe's task.
        teacher: Teacher of the distillation.
        samples: All images.
        jitter: Jitter of the images' copies.
        seed: Seed of everything that is drawn.
        device: Device on which the recipe is to be run.
        epochs: The budget, if it is known: with none of them, only what takes no training is timed.
    """
    few = samples.take(_few_per_class(samples.labels))
    scale = len(samples) / len(few)
    start = time.perf_counter()
    data, validation = split_validation(make_distillation_data(teacher, few, jitter, seed, num_copies=1), seed=seed)
    timer = _EpochTimer(device, scale)
    task = make_task(data, validation, 0 if epochs == 0 else _TIMING_EPOCHS)
    recipe(task, timer)
    overhead = time.perf_counter() - start - timer.seconds
    # A recipe extracts features whenever it runs: with empty blocks, to list its trainings takes next to no time.
    empty = tuple(replace(part, sub_model=_without_blocks(part.sub_model)) for part in task.parts)
    return TimedRecipe(
        recipe,
        replace(task, parts=empty, whole=_without_blocks(task.whole), teacher=_without_blocks(task.teacher)),
        scale * overhead,
        timer.times,
        jitter.is_active,
    )


def _few_per_class(labels: Tensor) -> Tensor:
    """Return the indices of a few images: of each class the same share, and at least one."""
    by_class = labels.argsort(stable=True)
    spread = by_class[torch.linspace(0, len(labels) - 1, min(NUM_TIMING_IMAGES, len(labels))).long()]
    firsts = torch.cat([torch.where(labels == c)[0][:1] for c in labels.unique()])
    few: Tensor = torch.cat([spread, firsts]).unique()
    return few


def _without_blocks(model: VisionTransformer) -> VisionTransformer:
    """Return a network of the same embed dim whose blocks keep no head and no channel."""
    none_kept: list[list[int]] = [[]] * model.shape.depth
    return cut(model, none_kept, none_kept)
