"""Growth of class sets along the relaxation: the next class is the one that the sub-model nearly serves already.

A relaxed sub-model for some classes keeps most of what classes like them need. Those that it serves in full join at no
cost, and of the others the ones whose shortfall is small for their price, as long as the time allows.
"""

from collections.abc import Set as AbstractSet

import numpy as np

from planner.arrays import Floats
from planner.solver.large.conflicts import Conflicts
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import IMPORTANCE_SCALE

# Classes that are tried one by one before the growth ends.
_MAX_FAILURES = 3
# Price of a class without one, as a share of the highest.
_NO_PRICE = 0.02


class Growth:
    """Class sets of one option within a time, grown from single classes among some, or all."""

    def __init__(self, conflicts: Conflicts, latency_us: int, among: AbstractSet[int] | None = None) -> None:
        self._conflicts, self._latency_us = conflicts, latency_us
        self._instance, self._group = conflicts.instance, conflicts.option.group
        able = conflicts.single_us <= latency_us
        if among is not None:
            able &= np.isin(np.arange(len(able)), list(among))
        self._able: list[int] = np.flatnonzero(able).tolist()
        self._needs: Floats = conflicts.option.need.min(axis=1) / IMPORTANCE_SCALE
        # Classes that belong together join together.
        self._atom_of = {c: tuple(sorted(atom)) for atom in self._instance.together for c in atom}

    def grown(self, seed: int, prices: Floats, clock: Clock) -> tuple[int, ...] | None:
        """Return a class set that holds a class and is dear at some prices; None if the class is not served in time."""
        conflicts = self._conflicts
        chosen = self._joined(sorted(self._instance.groups[self._group].pinned), [seed])
        if chosen is None or conflicts.latency_us(chosen, clock) > self._latency_us:
            return None
        failures, count = 0, 1
        failed: set[int] = set()
        while not clock.expired():
            candidates = self._candidates(chosen, failed, prices, clock)
            if not candidates or failures >= _MAX_FAILURES:
                break
            wider = self._joined(chosen, candidates[:count])
            if wider is not None and conflicts.latency_us(wider, clock) <= self._latency_us:
                chosen, count = wider, 2 * count
            elif count > 1:
                count //= 2
            else:
                failures += 1
                failed.add(candidates[0])
        return tuple(chosen)

    def _candidates(self, chosen: list[int], failed: set[int], prices: Floats, clock: Clock) -> list[int]:
        """Return the classes that may join, the one with the least shortfall for its price first."""
        relaxed = self._conflicts.relaxed(chosen, clock)
        assert relaxed is not None
        out = set(chosen) | failed
        left = np.array([c for c in self._able if c not in out], dtype=np.int64)
        if not len(left):
            return []
        have = self._instance.units.shares[left] @ relaxed.kept
        shortfall = np.maximum(0.0, 1 - have / np.maximum(self._needs[left], 1e-9))
        # Classes without a price come last: what they fill up is of use in other covers.
        order = np.lexsort((-prices[left], shortfall / (prices[left] + _NO_PRICE * prices.max())))
        ordered: list[int] = left[order].tolist()
        return ordered

    def _joined(self, chosen: list[int], new: list[int]) -> list[int] | None:
        """Return classes with others and all that belong with them; None if the demands forbid it."""
        wider = set(chosen)
        for c in new:
            wider.update(self._atom_of.get(c, (c,)))
        return sorted(wider) if self._instance.allows(self._group, wider) else None
