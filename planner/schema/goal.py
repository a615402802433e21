"""goal.json: the constraints and the objective of a plan, as in the flags of `planner solve`."""

import math
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.schema.base import Document, Frozen
from planner.schema.fleet import Name

Method = Literal["exact", "random-equal", "greedy", "memory-proportional"]
Objective = Literal["latency", "accuracy", "energy", "devices"]
Pair = Annotated[tuple[Name, ...], Field(min_length=2)]


class Goal(Frozen):
    """Constraints and objective of a plan.

    The retention floor comes from `min_retention` if given, else from the profile's recovery row for
    `max_accuracy_drop`. The name of a device with a count stands for each of its devices.
    """

    objective: Objective = "latency"
    """Objective: least latency, highest lowest retention (`accuracy`), least energy, or fewest devices."""
    max_accuracy_drop: float | None = Field(0.02, ge=0, le=1)
    """Largest loss of fused accuracy, as a share: 0.02 is 2 points."""
    min_retention: float | None = Field(None, ge=0, le=1)
    """One retention floor for all classes, instead of `max_accuracy_drop`."""
    max_latency_ms: float | None = Field(None, gt=0)
    """Largest latency of one image [ms]; objectives `accuracy` and `energy` need it."""
    max_energy_mj: float | None = Field(None, gt=0)
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
    def max_latency_us(self) -> int | None:
        """Latency limit [us], rounded down from the decimal number as written: 1.001 ms are 1001 us."""
        return None if self.max_latency_ms is None else math.floor(1000 * Fraction(repr(self.max_latency_ms)))

    @property
    def max_energy_uj(self) -> Fraction | None:
        """Energy limit [uJ], exact."""
        return None if self.max_energy_mj is None else 1000 * Fraction(repr(self.max_energy_mj))

    @model_validator(mode="after")
    def _is_whole(self) -> "Goal":
        if self.max_accuracy_drop is None and self.min_retention is None:
            raise ValueError("a goal must have max_accuracy_drop or min_retention, got neither")
        if self.objective in ("accuracy", "energy") and self.max_latency_ms is None:
            raise ValueError(f"objective {self.objective!r} must have max_latency_ms beside it, got none")
        return self


class GoalFile(Goal, Document):
    """Goal in a file of its own."""
