"""plan.json: what was asked, what was decided, and how good that is."""

import math
from typing import Literal

from pydantic import Field

from planner.schema.base import Document, Frozen
from planner.schema.fleet import Name, Precision
from planner.schema.goal import Goal


class _Placed(Frozen):
    # A base of its own: fields of the last base come first in the file, and a reader looks for the name.
    device: Name


class SubModel(Frozen):
    """The pruned ViT for one class subset: what is kept, in indices of the whole model."""

    classes: tuple[Name, ...] = Field(min_length=1)
    embed_dim: int = Field(ge=1)
    kept_heads: tuple[tuple[int, ...], ...]
    kept_channel_groups: tuple[tuple[int, ...], ...]
    # None: the only one that the device has.
    precision: Precision | None = None


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


class PredictedAccuracy(Frozen):
    """Fused accuracy on new images as the profile's probes predict it, give or take the error of such predictions."""

    accuracy: float = Field(ge=0, le=1)
    error: float = Field(ge=0, le=1)


class SolverRun(Frozen):
    """How to make the plan again."""

    version: str
    seconds: float = Field(ge=0)
    seed: int


class Plan(Document):
    """Which device runs which sub-model, with the proof: objective, bound and gap.

    `latency_us` and `bound_us` are the objective and its bound, unless the goal has another
    objective: then `objective_value` and `objective_bound` are (energy in mJ, devices, or the
    lowest retention, which is to be high), and `bound_us` bounds the latency of any plan at all.
    """

    status: Literal["optimal", "feasible"]
    latency_us: int = Field(ge=0)
    bound_us: int = Field(ge=0)
    gap: float = Field(ge=0)
    objective_value: float | None = Field(None, ge=0)
    objective_bound: float | None = Field(None, ge=0)
    goal: Goal
    profile_sha256: str
    fleet_sha256: str
    solver: SolverRun
    assignments: tuple[Assignment, ...] = Field(min_length=1)
    idle: tuple[Name, ...] = ()
    fusion: FusionCost
    # None: the profile cannot tell.
    predicted_accuracy: PredictedAccuracy | None = None

    @property
    def bottleneck(self) -> Assignment:
        """The assignment of the slowest device."""
        return max(self.assignments, key=lambda a: a.latency_us)

    @property
    def value(self) -> float:
        """What the plan is judged by: latency [us], energy [mJ], devices, or the lowest retention."""
        if self.goal.objective == "energy":
            return round(self.energy_mj or 0.0, 6)
        if self.goal.objective == "devices":
            return len(self.assignments)
        return round(self.lowest_retention, 6) if self.goal.objective == "accuracy" else self.latency_us

    @property
    def bound(self) -> float:
        """The proven bound of `value`."""
        return self.bound_us if self.objective_bound is None else self.objective_bound

    @property
    def energy_mj(self) -> float | None:
        """The energy of one image on all devices [mJ], where the power of each is known."""
        energies = [a.energy_mj for a in self.assignments if a.energy_mj is not None]
        return math.fsum(energies) if len(energies) == len(self.assignments) else None

    @property
    def lowest_retention(self) -> float:
        """The retention of the class that keeps least on any of its devices."""
        return min(kept for a in self.assignments for kept in a.retention.values())
