"""Options of a profile, and its progress."""

from collections.abc import Callable
from dataclasses import dataclass

from planner.profiler.fused_accuracy import MAX_TRIALS
from planner.profiler.importance import DEFAULT_METHOD, ImportanceMethod

DEFAULT_MINUTES = 20.0


@dataclass(frozen=True)
class Stage:
    """Progress of a profile: a step's name, and how much of it is done."""

    name: str
    done: int
    total: int


OnStage = Callable[[Stage], None]


@dataclass(frozen=True)
class ProfileOptions:
    """Options of a measurement: methods, and how thorough it is.

    What is None is chosen so that the whole takes about so many minutes.
    """

    method: ImportanceMethod = DEFAULT_METHOD
    minutes: float = DEFAULT_MINUTES
    images_per_class: int | None = None
    max_trials: int = MAX_TRIALS
    # Retraining of the trial plans.
    epochs: float | None = None
    # Channels of a group are a multiple of this, to suit the devices' kernels.
    multiple: int = 8
    seed: int = 0
