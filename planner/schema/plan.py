"""plan.json: a goal, the assignment of sub-models to devices, and its certificate."""

import math
from typing import Literal

from pydantic import Field

from planner.schema.base import Document, Forgotten, Frozen
from planner.schema.fleet import Engine, Precision
from planner.schema.goal import Goal
from planner.schema.quantities import Coefficient, Dim, Energy, Index, Microseconds, NumBytes, NumEpochs, Ratio, Seconds
from planner.schema.text import Name, Text


class _Placed(Frozen):
    # A base of its own: fields of the last base come first in the file, where a reader looks for the name.
    device: Name
    """Name of the device; one of a `count` has its number: `pi-1`."""


class SubModel(Frozen):
    """Pruned ViT for one class subset: the kept units, in indices of the whole model."""

    classes: tuple[Name, ...] = Field(min_length=1)
    """Class subset that the sub-model answers for."""
    embed_dim: Dim
    """Embed dim of the sub-model: one of the profile's widths."""
    kept_heads: tuple[tuple[Index, ...], ...]
    """Kept heads of each block, in ascending order."""
    kept_channel_groups: tuple[tuple[Index, ...], ...]
    """Kept channel groups of each block, in ascending order; the profile lists the channels of each group."""
    precision: Precision | None = None
    """Precision of the weights; null means the only one that the device has."""


class Assignment(SubModel, _Placed):
    """Sub-model on a device, with its costs there."""

    # Plans for ONNX Runtime stay as older versions wrote them.
    engine: Engine | None = Field(None, exclude_if=lambda engine: engine is None)
    """Engine that runs it, where that is `c`; null: ONNX Runtime, or not known to an older version."""
    send_us: Microseconds
    """Time until the device has the image [us]; 0 on the aggregator."""
    compute_us: Microseconds
    """Compute time of the sub-model [us]."""
    return_us: Microseconds
    """Time until the aggregator has the features [us]; 0 on the aggregator."""
    memory_bytes: NumBytes
    """RAM of peak activations, runtime and, where the device has no storage budget, weights [bytes]."""
    storage_bytes: NumBytes | None = Field(None, exclude_if=lambda num_bytes: num_bytes is None)
    """Flash of weights and code [bytes], where the device has a storage budget."""
    energy_mj: Energy | None = None
    """Energy of computing one image [mJ], where the device's power is known."""
    retention: dict[Name, Coefficient]
    """Share of its importance that each class keeps, 0..1."""
    estimated: bool
    """True if the compute time is from a declared MAC rate instead of a measured table."""

    @property
    def latency_us(self) -> int:
        """Latency of one image on this device: send, compute, return [us]."""
        return self.send_us + self.compute_us + self.return_us


class FusionCost(Frozen):
    """Device that joins the features, and the time that takes."""

    device: Name
    """Name of the aggregator."""
    latency_us: Microseconds
    """Time of the fusion [us]."""


class PredictedAccuracy(Frozen):
    """Fused accuracy on new images as predicted from the profile's trial plans, with an interval for it."""

    accuracy: float = Field(ge=0, le=1)
    """Predicted share of images that the fused answer gets right."""
    loss: float = Field(0.0, ge=0, le=1)
    """Predicted loss against the whole model, as a share of images."""
    low: float = Field(0.0, ge=0, le=1)
    """Lower end of the interval that holds the accuracy of four plans in five."""
    high: float = Field(1.0, ge=0, le=1)
    """Upper end of that interval."""
    epochs: NumEpochs = 0.0
    """Epochs of retraining for which the prediction holds; 0: recovery in closed form alone."""

    error: Forgotten = None


SolverMethod = Literal["exact", "large", "random-equal", "greedy", "memory-proportional"]


class SolverRun(Frozen):
    """Record of the solver's run, from which the plan can be made again."""

    version: Text
    """Versions of the planner and of OR-Tools."""
    seconds: Seconds
    """Solve time [s]."""
    seed: int = Field(ge=-(2**63), lt=2**63)
    """Seed of all random draws."""
    method: SolverMethod | None = None
    """Method that found the plan: `exact`, `large` for many classes, or a baseline; null in older plans."""


class Plan(Document):
    """Assignment of sub-models to devices, with its certificate: objective, bound and gap.

    `latency_us` and `bound_us` are the objective and its bound, unless the goal has another objective: then
    `objective_value` and `objective_bound` are (energy in mJ, devices, or the predicted accuracy, which is maximised),
    and `bound_us` bounds the latency of any plan at all. Where the goal is an accuracy drop, bounds are proven for
    plans with the floors that follow from `retention_floor`.
    """

    status: Literal["optimal", "feasible"]
    """Status of the plan: `optimal` only if the objective equals its bound."""
    latency_us: Microseconds
    """Latency of one image on the fleet: the slowest device, then the fusion [us]."""
    bound_us: Microseconds
    """Proven lower bound on the latency of any plan for this goal [us]."""
    gap: Ratio
    """Distance between objective and bound, as a share of the objective."""
    objective_value: Energy | None = None
    """Value of an objective other than latency: energy in mJ, devices, or the predicted accuracy."""
    objective_bound: Energy | None = None
    """Proven bound of `objective_value`, in the same unit."""
    goal: Goal
    """Goal that the plan was made for."""
    profile_sha256: Text
    """SHA-256 of the profile that the plan is for: of its content, whatever the layout of the file."""
    fleet_sha256: Text
    """SHA-256 of the fleet that the plan is for, likewise."""
    solver: SolverRun
    """Run of the solver that found the plan."""
    assignments: tuple[Assignment, ...] = Field(min_length=1)
    """Sub-model of each used device."""
    idle: tuple[Name, ...] = ()
    """Devices without a sub-model."""
    fusion: FusionCost
    """Fusion, the last step of an inference."""
    predicted_accuracy: PredictedAccuracy | None = None
    """Predicted accuracy of the fused answer; null if the profile cannot predict it."""
    retention_floor: float | None = Field(None, ge=0, le=1)
    """Retention floor of a mean class that the solver set for the goal; null where the goal gives the floor."""
    goal_bound_us: Microseconds | None = None
    """Bound on the latency of any plan that is predicted to keep the goal, whatever its floors [us]."""

    @property
    def bottleneck(self) -> Assignment:
        """Assignment of the slowest device."""
        return max(self.assignments, key=lambda a: a.latency_us)

    @property
    def value(self) -> float:
        """Value of the objective: latency [us], energy [mJ], devices, or the predicted accuracy."""
        if self.goal.objective == "energy":
            return round(self.energy_mj or 0.0, 6)
        if self.goal.objective == "devices":
            return len(self.assignments)
        if self.goal.objective == "accuracy":
            return 0.0 if self.predicted_accuracy is None else self.predicted_accuracy.accuracy
        return self.latency_us

    @property
    def bound(self) -> float:
        """Proven bound of `value`."""
        return self.bound_us if self.objective_bound is None else self.objective_bound

    @property
    def energy_mj(self) -> float | None:
        """Energy of one image on all devices [mJ], if the power of each is known."""
        energies = [a.energy_mj for a in self.assignments if a.energy_mj is not None]
        return math.fsum(energies) if len(energies) == len(self.assignments) else None

    @property
    def lowest_retention(self) -> float:
        """Lowest retention of any class on any of its devices."""
        return min(kept for a in self.assignments for kept in a.retention.values())
