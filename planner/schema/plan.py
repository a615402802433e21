"""plan.json: what was asked, what was decided, and how good that is."""

import math
from fractions import Fraction
from typing import Literal

from pydantic import Field, model_validator

from planner.schema.base import Document, Frozen
from planner.schema.fleet import Name

Method = Literal["exact", "random-equal", "greedy"]


class Goal(Frozen):
    """What a plan must hold.

    The retention floor comes from `min_retention` if given, else from the profile's recovery
    row for `max_accuracy_drop`.
    """

    max_accuracy_drop: float | None = Field(0.02, ge=0, le=1)
    min_retention: float | None = Field(None, ge=0, le=1)
    max_latency_ms: float | None = Field(None, gt=0)
    leave_idle: bool = False
    method: Method = "exact"

    @property
    def max_latency_us(self) -> int | None:
        """The latency limit [us], rounded down; exact, as 1.001 ms are 1001 us."""
        return None if self.max_latency_ms is None else math.floor(1000 * Fraction(repr(self.max_latency_ms)))

    @model_validator(mode="after")
    def _one_floor(self) -> "Goal":
        if self.max_accuracy_drop is None and self.min_retention is None:
            raise ValueError("a goal must have max_accuracy_drop or min_retention, got neither")
        return self


class _Placed(Frozen):
    # A base of its own: fields of the last base come first in the file, and a reader looks for the name.
    device: Name


class SubModel(Frozen):
    """The pruned ViT for one class subset: what is kept, in indices of the whole model."""

    classes: tuple[Name, ...] = Field(min_length=1)
    embed_dim: int = Field(ge=1)
    kept_heads: tuple[tuple[int, ...], ...]
    kept_channel_groups: tuple[tuple[int, ...], ...]


class Assignment(SubModel, _Placed):
    """A sub-model on a device, and what it costs there."""

    send_us: int = Field(ge=0)
    compute_us: int = Field(ge=0)
    return_us: int = Field(ge=0)
    memory_bytes: int = Field(ge=0)
    energy_mj: float | None = Field(None, ge=0)
    retention: dict[str, float]
    estimated: bool

    @property
    def latency_us(self) -> int:
        """One image on this device: send, compute, return [us]."""
        return self.send_us + self.compute_us + self.return_us


class FusionCost(Frozen):
    """Where the features are joined, and how long that takes."""

    device: Name
    latency_us: int = Field(ge=0)


class SolverRun(Frozen):
    """How to make the plan again."""

    version: str
    seconds: float = Field(ge=0)
    seed: int


class Plan(Document):
    """Which device runs which sub-model, with the proof: objective, bound and gap."""

    status: Literal["optimal", "feasible"]
    latency_us: int = Field(ge=0)
    bound_us: int = Field(ge=0)
    gap: float = Field(ge=0)
    goal: Goal
    profile_sha256: str
    fleet_sha256: str
    solver: SolverRun
    assignments: tuple[Assignment, ...] = Field(min_length=1)
    idle: tuple[Name, ...] = ()
    fusion: FusionCost

    @property
    def bottleneck(self) -> Assignment:
        """The assignment of the slowest device."""
        return max(self.assignments, key=lambda a: a.latency_us)
