"""How long a recipe takes: it is tried on a few images, and what was trained in trying is thrown away."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from planner.errors import InputError
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import NUM_COPIES, distillation_data, split_validation
from planner.network.recipes import Recipe, RecoveryTask, SubModelPart
from planner.network.surgery import cut
from planner.network.training import TrainingTask, run_epoch
from planner.network.vit import VisionTransformer

# Images that a recipe is tried on, or one of each class if there are more classes.
FEW = 128
# Enough for every recipe to do all that it does.
_TRIED_EPOCHS = 2
_MOST_EPOCHS = 1_000_000


@dataclass(frozen=True)
class TrainingTime:
    """What a training takes."""

    epochs: int
    seconds: float  # of one epoch


# The trainings of a recipe: those of one call can be done side by side, calls follow each other.
Efforts = list[list[TrainingTime]]


@dataclass(frozen=True)
class TimedRecipe:
    """A recipe that was tried, and what it takes with any number of epochs."""

    recipe: Recipe
    # Of few images, its sub-models nothing but a head layer: asked only what it would train.
    job: RecoveryTask
    # What a copy of all images takes outside of trainings, the teacher's answers among it [s].
    copy_seconds: float
    # What an epoch takes with all images, by call and position [s].
    epoch_seconds: Sequence[Sequence[float]]
    # How many copies of an image there may be.
    most_copies: int

    def efforts(self, epochs: int) -> Efforts:
        """Return what is trained with so many epochs, and how long."""
        found: Efforts = []

        def count(trainings: Sequence[TrainingTask]) -> None:
            known = self.epoch_seconds[len(found)]
            pairs = zip(trainings, known, strict=True)
            found.append([TrainingTime(training.schedule.epochs, seconds) for training, seconds in pairs])

        self.recipe(replace(self.job, epochs=epochs), count)
        return found

    def outside_seconds(self, epochs: int) -> float:
        """Return how long everything but trainings takes [s]."""
        return self.copy_seconds * min(self.most_copies, epochs)

    def seconds(self, epochs: int, width: int) -> float:
        """Return how long all of it takes where so many trainings are done at a time [s]."""
        total = self.outside_seconds(epochs)
        for call in self.efforts(epochs):
            each = [effort.epochs * effort.seconds for effort in call]
            total += max(*each, sum(each) / width) if len(each) > 1 else each[0]
        return total

    def most_epochs(self, minutes: float, width: int) -> int:
        """Return the largest number of epochs that fits.

        Raises:
            InputError: If not even one does.
        """
        limit = 60 * minutes
        if (one := self.seconds(1, width)) > limit:
            raise InputError(
                f"--minutes must be at least {math.ceil(one / 6) / 10:g}, which one epoch takes, got {minutes:g}; "
                "more --jobs or a --scheduler make it shorter."
            )
        fits, too_many = 1, 2
        while too_many < _MOST_EPOCHS and self.seconds(too_many, width) <= limit:
            fits, too_many = too_many, 2 * too_many
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if self.seconds(middle, width) <= limit else (fits, middle)
        return fits


@dataclass
class _Timing:
    """A `Train` that times an epoch of each training, in a copy."""

    device: str
    epoch_seconds: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0

    def __call__(self, trainings: Sequence[TrainingTask]) -> None:
        start = time.perf_counter()
        self.epoch_seconds.append([self._seconds(training) for training in trainings])
        self.seconds += time.perf_counter() - start

    def _seconds(self, training: TrainingTask) -> float:
        """Return what an epoch takes [s]: the shorter of two, as the first one warms up."""
        training = replace(training, schedule=replace(training.schedule, epochs=2))
        start = time.perf_counter()
        state = run_epoch(training, None, self.device)
        middle = time.perf_counter()
        run_epoch(training, state, self.device)
        return min(middle - start, time.perf_counter() - middle)


def time_recipe(
    recipe: Recipe,
    parts: tuple[SubModelPart, ...],
    teacher: VisionTransformer,
    samples: Samples,
    jitter: Jitter,
    hidden: int,
    seed: int,
    device: str = "cpu",
) -> TimedRecipe:
    """Try a recipe on a few of the images; the sub-models stay as they are.

    Args:
        recipe: What to try.
        parts: The sub-models as cut.
        teacher: Whose answers are learned.
        samples: All images.
        jitter: How copies are moved.
        hidden: Of the fusion.
        seed: Of everything that is drawn.
        device: Where it is to be trained.
    """
    few = samples.take(_few(samples.labels))
    scale = len(samples) / len(few)
    start = time.perf_counter()
    learned, held = split_validation(distillation_data(teacher, few, jitter, seed, num_copies=1), seed=seed)
    timing = _Timing(device)
    job = RecoveryTask(parts, teacher, learned, held, hidden, _TRIED_EPOCHS, seed)
    recipe(job, timing)
    outside = time.perf_counter() - start - timing.seconds
    hollow = tuple(replace(part, sub_model=_hollow(part.sub_model)) for part in parts)
    return TimedRecipe(
        recipe,
        replace(job, parts=hollow),
        scale * outside,
        [[scale * seconds for seconds in call] for call in timing.epoch_seconds],
        NUM_COPIES if jitter.moves else 1,
    )


def _few(labels: Tensor) -> Tensor:
    """Return the indices of a few images, of each class the same share and one at least."""
    by_class = labels.argsort(stable=True)
    spread = by_class[torch.linspace(0, len(labels) - 1, min(FEW, len(labels))).long()]
    firsts = torch.cat([torch.where(labels == c)[0][:1] for c in labels.unique()])
    few: Tensor = torch.cat([spread, firsts]).unique()
    return few


def _hollow(model: VisionTransformer) -> VisionTransformer:
    """Return a network of the same widths whose blocks do nothing."""
    nothing: list[list[int]] = [[]] * model.shape.depth
    return cut(model, nothing, nothing)
