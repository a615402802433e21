"""Covering of the classes by class sets: the linear program, whose duals are prices, and whole covers.

It is the problem of `problem.covering` after Dantzig and Wolfe, for one time limit: columns are (option, class set)
whose sub-model may be within it. What stays uncovered is to be least.

Variables
    x_i    devices of group g_i that serve class set S_i            >= 0
    u_r    what row r lacks                                        >= 0

Constraints
    (1) sum_{i: c in S_i, g_i in G} x_i + u_r >= k                 for each class c and rule (k, G): row r
    (2) sum_{i: g_i = g} x_i <= n_g                                for each group g
    (3) sum_i x_i <= the most devices that may be used

Objective: least sum_r u_r. The dual price of row r is what covering it is worth.

Source: Dantzig and Wolfe, doi:10.1287/opre.8.1.101.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ortools.linear_solver import pywraplp

from planner.arrays import Floats, Ints
from planner.solver.problem.assignment import cover
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.covering import CoverRow, cover_rows
from planner.solver.problem.instance import DEVICES, NEVER, Instance
from planner.solver.problem.subsets import mask_of

# Rough time of the linear program [s], where work is counted.
_PROGRAM_S = 5e-3


@dataclass(frozen=True, order=True)
class ClassSet:
    """A class set on an option (by its index): a column."""

    option: int
    classes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class FractionalCover:
    """Optimal solution of the linear program."""

    uncovered: float
    row_prices: Floats  # (rows,)
    used: list[tuple[float, ClassSet]]


class SetCover:
    """Covering problem of an instance, for any columns."""

    def __init__(self, instance: Instance, max_devices: int = NEVER) -> None:
        self.instance, self.max_devices = instance, max_devices
        self.rows: list[CoverRow] = cover_rows(instance.survival_rules, instance.num_classes)
        self.demand: Floats = np.array([float(row.min_devices) for row in self.rows])
        self.counts = np.array([len(group.names) for group in instance.groups])
        self.group_of = [option.group for option in instance.options]
        # Whether row r counts devices of group g, as 0 or 1, (groups, rows).
        self._counted = np.array([[float(row.counts(g)) for row in self.rows] for g in range(len(self.counts))])
        self._class_of = np.array([row.class_index for row in self.rows], dtype=np.int64)
        self._rows_of: dict[tuple[int, int], list[int]] = {}
        for r, row in enumerate(self.rows):
            for g in row.rule.groups:
                self._rows_of.setdefault((g, row.class_index), []).append(r)

    def class_prices(self, group: int, row_prices: Floats) -> Floats:
        """Return what each class on a device of a group is worth, (C,)."""
        prices = np.zeros(self.instance.num_classes)
        np.add.at(prices, self._class_of, row_prices * self._counted[group])
        return prices

    def most(self, by_group: Floats) -> float:
        """Return the most that all devices together can serve, when a device of a group serves so much at most."""
        each = np.sort(np.repeat(by_group, self.counts))[::-1]
        return float(each[: min(len(each), self.max_devices)].sum())

    def fractional(self, columns: list[ClassSet], clock: Clock, fixed: Sequence[ClassSet] = ()) -> FractionalCover:
        """Return the fractional cover that leaves least uncovered, beside devices whose class sets are fixed."""
        clock.spend(_PROGRAM_S)
        demand, counts = self._left(fixed)
        lp = pywraplp.Solver.CreateSolver("GLOP")
        unbounded, objective = lp.infinity(), lp.Objective()
        objective.SetMinimization()
        covers = [lp.Constraint(k, unbounded) for k in demand.tolist()]  # (1)
        limits = [lp.Constraint(-unbounded, float(n)) for n in counts.tolist()]  # (2)
        total = lp.Constraint(-unbounded, float(min(self.max_devices - len(fixed), int(counts.sum()))))  # (3)
        for row in covers:
            lacking = lp.NumVar(0, unbounded, "")
            row.SetCoefficient(lacking, 1)
            objective.SetCoefficient(lacking, 1)
        variables = []
        for column in columns:
            x, group = lp.NumVar(0, unbounded, ""), self.group_of[column.option]
            variables.append(x)
            limits[group].SetCoefficient(x, 1)
            total.SetCoefficient(x, 1)
            for c in column.classes:
                for r in self._rows_of.get((group, c), ()):
                    covers[r].SetCoefficient(x, 1)
        if lp.Solve() != pywraplp.Solver.OPTIMAL:
            return FractionalCover(float(self.demand.sum()), np.ones(len(covers)), [])
        return FractionalCover(
            objective.Value(),
            np.array([min(1.0, max(0.0, row.dual_value())) for row in covers]),
            [(x.solution_value(), column) for x, column in zip(variables, columns, strict=True)],
        )

    def missing(self, fixed: Sequence[ClassSet]) -> set[int]:
        """Return the classes that are on too few devices yet, beside devices whose class sets are fixed."""
        return set(self._class_of[self._left(fixed)[0] > 0].tolist())

    def _left(self, fixed: Sequence[ClassSet]) -> tuple[Floats, Ints]:
        demand, counts = self.demand.copy(), self.counts.copy()
        for column in fixed:
            group = self.group_of[column.option]
            counts[group] -= 1
            for c in column.classes:
                for r in self._rows_of.get((group, c), ()):
                    demand[r] = max(0.0, demand[r] - 1)
        return demand, counts

    def whole(self, columns: list[ClassSet], clock: Clock) -> list[ClassSet] | None:
        """Return columns, one for each used device, that cover all classes; None if none were found."""
        by_mask = {Column(column.option, mask_of(column.classes)): column for column in columns}
        max_use: Ints = np.full(self.instance.num_resources, NEVER, dtype=np.int64)
        max_use[DEVICES] = self.max_devices
        try:
            found = cover(self.instance, list(by_mask), [0] * len(by_mask), max_use, clock)
        except TimeoutError:
            return None
        return None if found is None else [by_mask[column] for column in found]
