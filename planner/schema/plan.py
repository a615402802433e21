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
    """The device's name; one of a `count` has its number: `pi-1`."""


class SubModel(Frozen):
    """The pruned ViT for one class subset: what is kept, in indices of the whole model."""

    classes: tuple[Name, ...] = Field(min_length=1)
    """The classes that it answers for."""
    embed_dim: int = Field(ge=1)
    """Its width: one of the profile's."""
    kept_heads: tuple[tuple[int, ...], ...]
    """Kept heads of each block, rising."""
    kept_channel_groups: tuple[tuple[int, ...], ...]
    """Kept channel groups of each block, rising; which channels they are is in the profile."""
    precision: Precision | None = None
    """Of the weights; none means the only one that the device has."""


class Assignment(SubModel, _Placed):
    """A sub-model on a device, and what it costs there."""

    send_us: int = Field(ge=0)
    """Time until the device has the image [us]; 0 on the aggregator."""
    compute_us: int = Field(ge=0)
    """Time of its sub-model [us]."""
    return_us: int = Field(ge=0)
    """Time until the aggregator has the features [us]; 0 on the aggregator."""
    memory_bytes: int = Field(ge=0)
    """Weights, peak activations and runtime overhead [bytes]."""
    energy_mj: float | None = Field(None, ge=0)
    """Energy of computing one image [mJ], where the device's power is known."""
    retention: dict[str, float]
    """The share of its importance that each class keeps, 0..1."""
    estimated: bool
    """Whether the compute time is from a declared MAC rate, not from a measured table."""

    @property
    def latency_us(self) -> int:
        """One image on this device: send, compute, return [us]."""
        return self.send_us + self.compute_us + self.return_us


class FusionCost(Frozen):
    """Where the features are joined, and how long that takes."""

    device: Name
    """The aggregator."""
    latency_us: int = Field(ge=0)
    """Time of the fusion [us]."""


class PredictedAccuracy(Frozen):
    """Fused accuracy on new images as the profile's probes predict it, give or take the error of such predictions."""

    accuracy: float = Field(ge=0, le=1)
    """The share of images that the fused answer gets right."""
    error: float = Field(ge=0, le=1)
    """How far predictions of the profile's own probes were off, as a share of images."""


class SolverRun(Frozen):
    """How to make the plan again."""

    version: str
    """Of the planner and of OR-Tools."""
    seconds: float = Field(ge=0)
    """How long it took [s]."""
    seed: int
    """Of everything that was drawn."""


class Plan(Document):
    """Which device runs which sub-model, with the proof: objective, bound and gap.

    `latency_us` and `bound_us` are the objective and its bound, unless the goal has another
    objective: then `objective_value` and `objective_bound` are (energy in mJ, devices, or the
    lowest retention, which is to be high), and `bound_us` bounds the latency of any plan at all.
    """

    status: Literal["optimal", "feasible"]
    """`optimal` only where the objective equals its bound."""
    latency_us: int = Field(ge=0)
    """One image on the fleet: the slowest device, then the fusion [us]."""
    bound_us: int = Field(ge=0)
    """No plan for this goal has less latency [us]."""
    gap: float = Field(ge=0)
    """The distance between objective and bound, as a share of the objective."""
    objective_value: float | None = Field(None, ge=0)
    """What another objective than latency came to: energy in mJ, devices, or the lowest retention."""
    objective_bound: float | None = Field(None, ge=0)
    """The proven bound of `objective_value`, in the same unit."""
    goal: Goal
    """What was asked."""
    profile_sha256: str
    """Of the profile that it is a plan for: of its content, however the file is laid out."""
    fleet_sha256: str
    """Of the fleet that it is a plan for, likewise."""
    solver: SolverRun
    """How it was found."""
    assignments: tuple[Assignment, ...] = Field(min_length=1)
    """The sub-model of each used device."""
    idle: tuple[Name, ...] = ()
    """Devices without a sub-model."""
    fusion: FusionCost
    """The last step."""
    predicted_accuracy: PredictedAccuracy | None = None
    """What the fused answer will be worth; none where the profile cannot tell."""

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
