"""Objective functions of assignments, in whole numbers."""

from collections.abc import Sequence

from planner.schema import Objective
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.option import Option, PlacedSubModel


class ObjectiveFunction:
    """Latency [us], energy [units of the instance] or number of devices of an assignment.

    For accuracy, which the floors decide, it is the latency.
    """

    def __init__(self, instance: Instance, objective: Objective = "latency") -> None:
        self.instance, self.name = instance, objective
        limit_us = instance.goal.max_latency_us
        # Least latency needs no limit during the search: the caller compares the result with the limit.
        self.limit_us = NEVER if limit_us is None or objective == "latency" else limit_us
        self.with_energy = objective == "energy" or instance.max_energy is not None

    def value(self, options: Sequence[Option], compute_us: Sequence[int]) -> int:
        """Return the objective; `NEVER` where a limit is broken."""
        instance = self.instance
        latency_us = self.bottleneck_us(options, compute_us) + instance.fusion_us(sum(o.embed_dim for o in options))
        energy = sum(o.energy_per_us * us for o, us in zip(options, compute_us, strict=True))
        if latency_us > self.limit_us or (instance.max_energy is not None and energy > instance.max_energy):
            return NEVER
        return {"latency": latency_us, "accuracy": latency_us, "energy": energy, "devices": len(options)}[self.name]

    def value_of(self, placed: Sequence[PlacedSubModel]) -> int:
        """Return the objective of a placement; `NEVER` where a limit is broken."""
        return self.value([p.option for p in placed], [self.instance.compute_us(p.option, p.kept) for p in placed])

    def bottleneck_us(self, options: Sequence[Option], compute_us: Sequence[int]) -> int:
        """Return the latency [us] of the slowest device."""
        used = self.instance.used(options)
        return max(self.instance.path_us(o, used) + us for o, us in zip(options, compute_us, strict=True))
