"""Pricing: the dearest class set that one device of an option can serve in time, and a bound on its price.

Parameters: price p_c of each class; conflicts A (see `conflicts`).

Variables
    z_c   class c is in the set                  binary

Constraints
    (1) sum_{c in A} (1 - z_c) >= 1              for each conflict A within the time

Objective: greatest sum_c p_c z_c, in whole numbers that are rounded up.

Only conflicts that have been met are constraints: a solution is looked through for more, and the model is solved again.
So the solver's bound is a bound on the price of every set that can be served, at any moment; it falls with each step.
"""

import numpy as np
from ortools.sat.python import cp_model

from planner.arrays import Floats
from planner.solver.large.conflicts import Conflicts
from planner.solver.problem.clock import Clock

# Units of a price of 1.
_SCALE = 10**5
# Prices below this are none.
_NO_PRICE = 1e-7
# Time limit of one model [s].
_MODEL_S = 2.0
# Known conflicts that are added in one step.
_MAX_ADDED = 300


class Pricing:
    """Bound on the price of any class set that a device of one option serves within a time."""

    def __init__(self, conflicts: Conflicts, prices: Floats, latency_us: int) -> None:
        self.conflicts, self._prices, self._latency_us = conflicts, prices, latency_us
        priced = np.flatnonzero((prices > _NO_PRICE) & (conflicts.single_us <= latency_us)).tolist()
        self._priced: list[int] = priced
        self._weights = [int(np.ceil(prices[c] * _SCALE)) for c in priced]
        # What is below the least price counts as well.
        self._rest = float(prices[prices <= _NO_PRICE].sum())
        self.bound = sum(self._weights) / _SCALE + self._rest
        self._model: cp_model.CpModel | None = None
        self._variables: dict[int, cp_model.IntVar] = {}
        self._added: set[tuple[int, ...]] = set()
        # No further step will lower the bound.
        self.is_done = not priced

    def step(self, clock: Clock) -> tuple[int, ...] | None:
        """Lower the bound, and return a dear class set within the time by the relaxation, or None."""
        chosen = self._priced if self._model is None else self._dearest(clock)
        if self._model is None:
            self._model = self._begun()
        if not chosen:
            self.is_done = True
            return None
        before = len(self._added)
        rest = self._repaired(chosen, clock)
        for classes in self.conflicts.violated(chosen, self._latency_us)[:_MAX_ADDED]:
            self._add(classes)
        self.is_done = self.is_done or len(self._added) == before
        return rest

    def _begun(self) -> cp_model.CpModel:
        model = cp_model.CpModel()
        self._variables = {c: model.new_bool_var(f"z{c}") for c in self._priced}
        model.maximize(cp_model.LinearExpr.weighted_sum(list(self._variables.values()), self._weights))
        return model

    def _dearest(self, clock: Clock) -> list[int]:
        assert self._model is not None
        solver = cp_model.CpSolver()
        status = clock.solve(solver, self._model, _MODEL_S)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            self.is_done = True
            return []
        self.bound = min(self.bound, solver.best_objective_bound / _SCALE + self._rest)
        return [c for c, z in self._variables.items() if solver.boolean_value(z)]

    def _add(self, classes: tuple[int, ...]) -> None:
        if classes not in self._added and all(c in self._variables for c in classes) and self._model is not None:
            self._added.add(classes)
            self._model.add_bool_or([~self._variables[c] for c in classes])  # (1)

    def _repaired(self, chosen: list[int], clock: Clock) -> tuple[int, ...] | None:
        """Return what is left of a class set when the cheapest class of each of its conflicts is given up."""
        left = set(chosen)
        while left and not clock.expired():
            conflict = self.conflicts.find(sorted(left), self._latency_us, clock)
            if conflict is None:
                return tuple(sorted(left))
            self._add(conflict)
            left.remove(min(conflict, key=lambda c: (self._prices[c], c)))
        return None
