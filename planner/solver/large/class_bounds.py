"""Bounds from single classes, for fleets with more classes than can be listed subset by subset.

On option o, a sub-model that serves class c beside n - 1 others takes at least single(o, c, n); see
`submodels.single_class`. Within a time T, class c can thus only be on a device of group g that serves at most N_gc(T)
classes. The rest of the problem is a generalised flow, a linear program:

Variables
    y_gn   devices of group g that serve up to n classes     >= 0
    f_cgn  devices of y_gn that serve class c                >= 0, only where n <= N_gc(T)

Constraints
    (1) sum_{g in G, n} f_cgn >= k          for each class c and rule (k, G); see `problem.covering`
    (2) sum_c f_cgn <= n y_gn
    (3) sum_n y_gn <= n_g;  sum_gn y_gn <= the most devices that may be used

Objective: least embed dims, devices or energy. Classes with the same N are aggregated into one, with their number as
its demand.
"""

from dataclasses import dataclass

import numpy as np
from ortools.linear_solver import pywraplp

from planner.arrays import Floats, Ints
from planner.schema import Objective
from planner.solver.problem.clock import Clock
from planner.solver.problem.covering import cover_rows
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.submodels.single_class import single_class_us

# An unserved share of a class below this is a rounding error, not a class without a device.
_UNSERVED = 1e-5
# Rough time of the flow [s], where work is counted.
_LP_S = 0.05
# Bisection stops when the bound is known to this share of itself.
_PRECISION = 2e-4


@dataclass(frozen=True)
class Flow:
    """Assignment with divisible devices: its objective, and the shares of classes on each group."""

    value: float
    # (group, n, devices that serve up to n classes, share of each class on them (C,))
    cells: list[tuple[int, int, float, Floats]]


class ClassBounds:
    """Bounds on the fleet from the single classes of an instance."""

    def __init__(self, instance: Instance, max_devices: int = NEVER) -> None:
        self._instance, self._max_devices = instance, max_devices
        self.single_us = [single_class_us(instance, option) for option in instance.options]  # (C, C) for each option

    @property
    def longest_us(self) -> int:
        """Longest latency [us] of any device with any classes; -1 if none can serve any."""
        pairs = zip(self.single_us, self._instance.options, strict=True)
        times = [
            int(single_us[single_us < NEVER].max()) + o.alone_us for single_us, o in pairs if (single_us < NEVER).any()
        ]
        return max(times, default=-1)

    def slowest_us(self, clock: Clock, known_us: int = 0) -> int | None:
        """Return a bound on the slowest device's latency [us]; None if the fleet cannot hold all classes.

        Out of time, it is a lower one.

        Args:
            clock: Time for it.
            known_us: Bound that is known already [us].
        """
        # Within `slow` there is an assignment, within `fast` there is none.
        fast, slow = known_us - 1, self.longest_us
        if slow < 0 or self.relaxed(slow, "latency") is None:
            return None
        clock.spend(_LP_S)
        if known_us > 0 and self.relaxed(known_us, "latency") is not None:
            return known_us
        while slow - fast > max(1, _PRECISION * slow) and not clock.expired():
            clock.spend(_LP_S)
            middle = (fast + slow) // 2
            fast, slow = (fast, middle) if self.relaxed(middle, "latency") is not None else (middle, slow)
        return fast + 1

    def fusion_us(self, slowest_us: int) -> int:
        """Return a bound on the fusion [us] of any plan whose slowest device takes no longer than this."""
        least = self.relaxed(min(slowest_us, self.longest_us), "latency")
        fewest = min(option.embed_dim for option in self._instance.options)
        return self._instance.fusion_us(max(fewest, rounded_up(least)))

    def relaxed(self, latency_us: int, objective: Objective) -> float | None:
        """Return a bound on the embed dims, devices or energy of assignments within a time; None if there is none."""
        found = self.flow(latency_us, objective)
        return None if found is None else found.value

    def flow(self, latency_us: int, objective: Objective, served: Ints | None = None) -> "Flow | None":
        """Return the assignment of least embed dims, devices or energy within a time, devices being divisible.

        Args:
            latency_us: Longest time of a device [us].
            objective: Objective; embed dims stand for "latency".
            served: N within this time, (C, groups); that of the bound unless given.
        """
        served = self.served(latency_us) if served is None else served
        rows, row_of, sizes = np.unique(served, axis=0, return_inverse=True, return_counts=True)
        row_of = row_of.reshape(-1)
        program = _FlowProgram(self._instance, sizes, self._max_devices)
        for g in range(len(self._instance.groups)):
            per_device = self._per_device(g, objective)
            for n in np.unique(rows[:, g][rows[:, g] > 0]).tolist():
                energies = self._energies(g, n, row_of, len(rows)) if objective == "energy" else None
                program.add_cell(g, n, np.flatnonzero(rows[:, g] >= n).tolist(), per_device, energies)
            program.dearest = max(program.dearest, per_device)
        return program.solve(row_of)

    def served(self, latency_us: int) -> Ints:
        """Return N, the most classes that a device may serve when it serves class c, (C, groups)."""
        instance = self._instance
        served = np.zeros((instance.num_classes, len(instance.groups)), dtype=np.int64)
        counts = np.arange(1, instance.num_classes + 1)
        for option, single_us in zip(instance.options, self.single_us, strict=True):
            possible = single_us + option.alone_us <= latency_us
            most = (possible * counts).max(axis=1)
            served[:, option.group] = np.maximum(served[:, option.group], most)
        for g, group in enumerate(instance.groups):
            served[sorted(group.forbidden), g] = 0
        # Beside n - 1 others, each of them must be able to do the same.
        able = np.sort(served, axis=0)[::-1]
        together = (np.minimum(able, counts[:, None])).max(axis=0)  # (groups,)
        capped: Ints = np.minimum(served, together)
        return capped

    def _per_device(self, group: int, objective: Objective) -> float:
        if objective == "energy":
            return 0.0
        if objective == "devices":
            return 1.0
        # A device that can hold no sub-model has no option.
        return float(min((o.embed_dim for o in self._instance.options if o.group == group), default=0))

    def _energies(self, group: int, n: int, row_of: Ints, num_rows: int) -> Floats:
        """Return each aggregated class's part of the energy of a device that serves n: a share of its need alone."""
        least = np.full(num_rows, np.inf)
        for option, single_us in zip(self._instance.options, self.single_us, strict=True):
            if option.group == group:
                parts = option.energy_per_us * single_us[:, n - 1] / n
                np.minimum.at(least, row_of, parts)
        return least


def rounded_up(bound: float | None) -> int:
    """Return a bound as a whole number, as safe as it was proven."""
    return 0 if bound is None else max(0, int(np.ceil(bound - 1e-6)))


class _FlowProgram:
    """Linear program of the flow; see the module."""

    def __init__(self, instance: Instance, sizes: Ints, max_devices: int) -> None:
        self._sizes = sizes
        self._lp = lp = pywraplp.Solver.CreateSolver("GLOP")
        self._unbounded, self._goal = lp.infinity(), lp.Objective()
        self._goal.SetMinimization()
        unbounded = self._unbounded
        self._covers = [
            (row, lp.Constraint(float(row.min_devices * int(sizes[row.class_index])), unbounded))
            for row in cover_rows(instance.survival_rules, len(sizes))
        ]
        # Slack makes the program feasible, so that a shortage can be told from a rounding error.
        self._slacks = [lp.NumVar(0, unbounded, "") for _ in self._covers]
        for (_, constraint), slack in zip(self._covers, self._slacks, strict=True):
            constraint.SetCoefficient(slack, 1)
        self._total = lp.Constraint(-unbounded, unbounded if max_devices >= NEVER else float(max_devices))
        self._counts = [lp.Constraint(-unbounded, len(group.names)) for group in instance.groups]  # (3)
        self._cells: list[tuple[int, int, pywraplp.Variable, dict[int, pywraplp.Variable]]] = []
        # Largest coefficient of the objective: slack is dearer by far.
        self.dearest = 1.0

    def add_cell(self, group: int, n: int, members: list[int], per_device: float, energies: Floats | None) -> None:
        """Add y_gn, and f_cgn for the aggregated classes that may be among n."""
        lp = self._lp
        y, load = lp.NumVar(0, self._unbounded, ""), lp.Constraint(-self._unbounded, 0)
        self._goal.SetCoefficient(y, per_device)
        for constraint, factor in ((load, -n), (self._counts[group], 1), (self._total, 1)):  # (2), (3)
            constraint.SetCoefficient(y, factor)
        shares = {i: lp.NumVar(0, self._unbounded, "") for i in members}
        self._cells.append((group, n, y, shares))
        for i, f in shares.items():
            load.SetCoefficient(f, 1)
            if energies is not None:
                self._goal.SetCoefficient(f, float(energies[i]))
                self.dearest = max(self.dearest, float(energies[i]))
        for row, constraint in self._covers:  # (1)
            if row.counts(group) and row.class_index in shares:
                constraint.SetCoefficient(shares[row.class_index], 1)

    def solve(self, row_of: Ints) -> Flow | None:
        """Return the flow, its shares by class; None if some class stays unserved."""
        penalty = 1e4 * self.dearest
        for slack in self._slacks:
            self._goal.SetCoefficient(slack, penalty)
        if self._lp.Solve() != pywraplp.Solver.OPTIMAL:
            return Flow(0.0, [])
        missing = sum(slack.solution_value() for slack in self._slacks)
        if missing > _UNSERVED:
            return None
        value = float(self._goal.Value() * (1 - 1e-6) - penalty * missing)
        cells = []
        for g, n, y, shares in self._cells:
            share = np.zeros(len(self._sizes))
            for i, f in shares.items():
                share[i] = f.solution_value() / self._sizes[i]
            cells.append((g, n, y.solution_value(), share[row_of]))
        return Flow(value, cells)
