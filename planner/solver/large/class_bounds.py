"""Bounds for fleets with more classes than can be listed subset by subset.

On option o, a sub-model that serves class c beside n - 1 others takes at least as long as the
linear relaxation for c alone, at the floor for n: solo(o, c, n). (It is a fractional knapsack with
one constraint, so sorting solves it.) Within a time T, class c can thus only be on a device of
group g that serves at most N_gc(T) classes. What is left of the problem is a flow:

Variables
    y_gn   devices of group g that serve up to n classes     >= 0
    f_cgn  devices of y_gn that serve class c                >= 0, only where n <= N_gc(T)

Constraints
    (1) sum_{g in G, n} f_cgn >= k          for each class c and rule (k, G); see `assign`
    (2) sum_c f_cgn <= n y_gn
    (3) sum_n y_gn <= n_g;  sum_gn y_gn <= the most devices that may be used

Objective: least embed dims, devices or energy. Classes with the same N are one class, n times over.
"""

from dataclasses import dataclass

import numpy as np
from ortools.linear_solver import pywraplp

from planner.arrays import Floats, Ints
from planner.schema import Objective
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER, Instance, Option

# Prices of memory against time that are tried, in whole models.
_MEMORY_PRICES = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
# Less than this share of a class is a rounding error, not a class without a device.
_UNSERVED = 1e-5
# About what the flow takes [s], where work is counted.
_LP_S = 0.05
# The bound is known to this share of itself.
_FINE = 2e-4


@dataclass(frozen=True)
class Flow:
    """An assignment with divisible devices: its objective, and who serves what."""

    value: float
    # (group, n, devices that serve up to n classes, share of each class on them (C,))
    cells: list[tuple[int, int, float, Floats]]


class ClassBounds:
    """What single classes say about the whole fleet."""

    def __init__(self, instance: Instance, most_devices: int = NEVER) -> None:
        self._instance, self._most_devices = instance, most_devices
        self.solo = [solo_us(instance, option) for option in instance.options]  # (C, C) for each option

    @property
    def longest_us(self) -> int:
        """The latency [us] that a device takes at most, whatever it serves; -1 if none can serve anything."""
        pairs = zip(self.solo, self._instance.options, strict=True)
        times = [int(solo[solo < NEVER].max()) + o.alone_us for solo, o in pairs if (solo < NEVER).any()]
        return max(times, default=-1)

    def slowest_us(self, clock: Clock) -> int | None:
        """Return a bound on the slowest device's latency [us]; None if the fleet cannot hold all classes.

        Out of time, it is a lower one.
        """
        # Within `slow` there is an assignment, within `fast` there is none.
        fast, slow = -1, self.longest_us
        if slow < 0 or self.relaxed(slow, "latency") is None:
            return None
        while slow - fast > max(1, _FINE * slow) and not clock.expired():
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
        """Return the least embed dims, devices or energy of any assignment within a time; None if there is none."""
        found = self.flow(latency_us, objective)
        return None if found is None else found.value

    def flow(self, latency_us: int, objective: Objective, served: Ints | None = None) -> "Flow | None":
        """Return the assignment of least embed dims, devices or energy within a time, devices being divisible.

        Args:
            latency_us: The most that a device may take [us].
            objective: Embed dims for "latency".
            served: N within this time, (C, groups), if it is not to be that of the bound.
        """
        instance = self._instance
        served = self.served(latency_us) if served is None else served
        kinds, kind_of, sizes = np.unique(served, axis=0, return_inverse=True, return_counts=True)
        lp = pywraplp.Solver.CreateSolver("GLOP")
        unbounded, goal = lp.infinity(), lp.Objective()
        goal.SetMinimization()
        covers = [
            [lp.Constraint(float(rule.least * size), unbounded) for size in sizes.tolist()]
            for rule in instance.survivors
        ]
        unserved = []
        for rows in covers:
            for row in rows:  # so that it has an answer, and a shortage can be told from a rounding error
                lack = lp.NumVar(0, unbounded, "")
                row.SetCoefficient(lack, 1)
                unserved.append(lack)
        total = lp.Constraint(-unbounded, unbounded if self._most_devices >= NEVER else float(self._most_devices))
        dearest = 1.0
        cells: list[tuple[int, int, pywraplp.Variable, dict[int, pywraplp.Variable]]] = []
        for g, group in enumerate(instance.groups):
            count = lp.Constraint(-unbounded, len(group.names))  # (3)
            per_device = self._per_device(g, objective)
            for n in np.unique(kinds[:, g][kinds[:, g] > 0]).tolist():
                y, load = lp.NumVar(0, unbounded, ""), lp.Constraint(-unbounded, 0)
                goal.SetCoefficient(y, per_device)
                for row, factor in ((load, -n), (count, 1), (total, 1)):  # (2), (3)
                    row.SetCoefficient(y, factor)
                cells.append((g, n, y, {}))
                energies = self._energies(g, n, kind_of.reshape(-1), len(kinds)) if objective == "energy" else None
                for kind in np.flatnonzero(kinds[:, g] >= n).tolist():
                    f = lp.NumVar(0, unbounded, "")
                    load.SetCoefficient(f, 1)
                    cells[-1][3][kind] = f
                    for rule, rows in zip(instance.survivors, covers, strict=True):  # (1)
                        if g in rule.groups:
                            rows[kind].SetCoefficient(f, 1)
                    if energies is not None:
                        goal.SetCoefficient(f, float(energies[kind]))
                        dearest = max(dearest, float(energies[kind]))
            dearest = max(dearest, per_device)
        for lack in unserved:
            goal.SetCoefficient(lack, 1e4 * dearest)
        if lp.Solve() != pywraplp.Solver.OPTIMAL:
            return Flow(0.0, [])
        missing = sum(lack.solution_value() for lack in unserved)
        if missing > _UNSERVED:
            return None
        value = float(goal.Value() * (1 - 1e-6) - 1e4 * dearest * missing)
        found = []
        for g, n, y, parts in cells:
            shares = np.zeros(len(kinds))
            for kind, f in parts.items():
                shares[kind] = f.solution_value() / sizes[kind]
            found.append((g, n, y.solution_value(), shares[kind_of.reshape(-1)]))
        return Flow(value, found)

    def served(self, latency_us: int) -> Ints:
        """Return N: how many classes a device may serve when it serves class c, (C, groups)."""
        instance = self._instance
        served = np.zeros((instance.num_classes, len(instance.groups)), dtype=np.int64)
        counts = np.arange(1, instance.num_classes + 1)
        for option, solo in zip(instance.options, self.solo, strict=True):
            possible = solo + option.alone_us <= latency_us
            most = (possible * counts).max(axis=1)
            served[:, option.group] = np.maximum(served[:, option.group], most)
        for g, group in enumerate(instance.groups):
            served[sorted(group.never), g] = 0
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
        return float(min(o.embed_dim for o in self._instance.options if o.group == group))

    def _energies(self, group: int, n: int, kind_of: Ints, num_kinds: int) -> Floats:
        """Return each class kind's part of the energy of a device that serves n: a share of what it needs alone."""
        least = np.full(num_kinds, np.inf)
        for option, solo in zip(self._instance.options, self.solo, strict=True):
            if option.group == group:
                parts = option.energy_per_us * solo[:, n - 1] / n
                np.minimum.at(least, kind_of, parts)
        return least


def solo_us(instance: Instance, option: Option) -> Ints:
    """Return the least compute time [us] of serving class c beside n - 1 others, as far as c tells; [c, n - 1]."""
    units = instance.units
    need = option.need / IMPORTANCE_SCALE
    importance = units.importance / IMPORTANCE_SCALE
    ticks = option.unit_ticks.astype(np.float64)
    # A switch is on at least for the mean share of its units that are kept.
    halves = units.block * 2 + units.is_head
    size = np.bincount(halves, minlength=2 * units.depth)[halves]
    ticks = ticks + np.where(units.is_head, option.attention_ticks, option.mlp_ticks) / size
    grains = option.unit_grains.astype(np.float64)
    least = np.zeros(option.need.shape)
    if option.free_grains >= 0:
        memory = _knapsack(importance, grains, need)
        per_grain = ticks.sum() / max(1.0, grains.sum())
        for price in _MEMORY_PRICES:
            of_memory = price * per_grain
            value = _knapsack(importance, ticks + of_memory * grains, need) - of_memory * option.free_grains
            least = np.maximum(least, value)
        least[memory * (1 - 1e-9) > option.free_grains] = np.inf
    else:
        least[:] = np.inf
    time_us = (least * (1 - 1e-9) + option.fixed_ticks) / option.ticks_per_us
    never = ~np.isfinite(time_us)
    found: Ints = np.ceil(np.where(never, 0.0, time_us) - 1e-6).astype(np.int64)
    found[never] = NEVER
    return found


def _knapsack(importance: Floats, prices: Floats, need: Floats) -> Floats:
    """Return the least price at which each class keeps each need, units divisible, (C, N); inf where it cannot."""
    order = np.argsort(prices / np.maximum(importance, 1e-12), axis=1, kind="stable")
    zero = np.zeros((len(importance), 1))
    have = np.hstack([zero, np.cumsum(np.take_along_axis(importance, order, axis=1), axis=1)])
    paid = np.hstack([zero, np.cumsum(prices[order], axis=1)])
    least = np.array([np.interp(n, h, p) for n, h, p in zip(need, have, paid, strict=True)])
    least[need > have[:, -1:]] = np.inf
    return least


def rounded_up(bound: float | None) -> int:
    """Return a bound as a whole number, as safe as it was proven."""
    return 0 if bound is None else max(0, int(np.ceil(bound - 1e-6)))
