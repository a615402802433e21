"""goal.json: the constraints and the objective of a plan, as in the flags of `planner solve`."""

import math
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.schema.base import Document, Frozen
from planner.schema.text import Name

Method = Literal["exact", "random-equal", "greedy", "memory-proportional"]
Objective = Literal["latency", "accuracy", "energy", "devices"]
DEFAULT_ACCURACY_DROP = 0.02
Pair = Annotated[tuple[Name, ...], Field(min_length=2)]


class Goal(Frozen):
    """Constraints and objective of a plan.

    With `max_accuracy_drop`, the plan is predicted to lose no more, and its retention floors are set accordingly; with
    `min_retention`, which takes its place, the floor is given. The name of a device with a count stands for each of its
    devices.
    """

    objective: Objective = "latency"
    """Objective: least latency, highest predicted accuracy (`accuracy`), least energy, or fewest devices."""
    max_accuracy_drop: float | None = Field(None, ge=0, le=1)
    """Largest predicted loss of fused accuracy, as a share; 0.02 unless given, with objective `accuracy` any."""
    accuracy_confidence: float | None = Field(None, ge=0.5, le=0.99)
    """Probability with which the loss stays within `max_accuracy_drop`; the predicted loss unless given."""
    min_retention: float | None = Field(None, ge=0, le=1)
    """One retention floor for all classes, instead of `max_accuracy_drop`."""
    max_latency_ms: float | None = Field(None, gt=0, le=1e12)
    """Largest latency of one image [ms]; objectives `accuracy` and `energy` need it."""
    max_energy_mj: float | None = Field(None, gt=0, le=1e12)
    """Largest energy of one image on all devices together [mJ]."""
    survive: int = Field(0, ge=0, le=100)
    """Number of devices, whichever they are, that may be lost with every class still served."""
    pin: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    """Devices that must serve a class, by class."""
    forbid: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)
    """Devices that must not serve a class, by class."""
    together: tuple[Pair, ...] = ()
    """Sets of classes of which a device serves all or none."""
    apart: tuple[Pair, ...] = ()
    """Sets of classes of which a device serves at most one."""
    leave_out: tuple[Name, ...] = ()
    """Devices that get no sub-model."""
    leave_idle: bool = False
    """True if a device that the objective does not need stays idle."""
    method: Method = "exact"
    """Planning method: `exact`, or a baseline to compare with."""

    @property
    def accuracy_drop(self) -> float | None:
        """Largest predicted loss of accuracy; None with a given floor, or where accuracy is the objective alone."""
        if self.min_retention is not None:
            return None
        if self.max_accuracy_drop is None and self.objective != "accuracy":
            return DEFAULT_ACCURACY_DROP
        return self.max_accuracy_drop

    @property
    def max_latency_us(self) -> int | None:
        """Latency limit [us], rounded down from the decimal number as written: 1.001 ms are 1001 us."""
        return None if self.max_latency_ms is None else math.floor(1000 * Fraction(repr(self.max_latency_ms)))

    @property
    def max_energy_uj(self) -> Fraction | None:
        """Energy limit [uJ], exact."""
        return None if self.max_energy_mj is None else 1000 * Fraction(repr(self.max_energy_mj))

    @model_validator(mode="after")
    def _is_whole(self) -> "Goal":
        if self.objective in ("accuracy", "energy") and self.max_latency_ms is None:
            raise ValueError(f"objective {self.objective!r} must have max_latency_ms beside it, got none")
        return self


class GoalFile(Goal, Document):
    """Goal in a file of its own."""
