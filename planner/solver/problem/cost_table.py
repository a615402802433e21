"""Cost of kept units on one option, in whole numbers: the one place where the solver's arithmetic stands.

For kept units y (binary), with unit sets P (the attention and the MLP half of each block):

    ticks(y)    = fixed + sum_u t_u y_u + sum_P charge_P [some u in P is kept]
    grains_m(y) = sum_u w_mu y_u + [m is memory] max over P of sum_{u in P} peak_u y_u

where fixed holds the costs of what every sub-model keeps, the anchor head; its own t_u and w_mu are 0.

The first is a linear cost with fixed charges. The others are what is used of each budget m: of memory always, and of
storage on a device that has a budget for it. The largest activations take memory; weights take the storage, or else
memory. Exact and heuristic solvers, relaxations and bounds all read this table, so a new cost term is a new entry here.

Legend: U units, P unit sets, M budgets, B class subsets at a time.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from planner.arrays import Bools, Floats, Ints

# Position of the budget that activations take.
MEMORY = 0


@dataclass(frozen=True, eq=False)
class UnitSet:
    """Units with a cost in common: a fixed charge if any is kept, and activations that are alive together."""

    members: Ints  # (n,) positions of the units
    charge_ticks: int
    peak_grains: Ints  # (n,) activations of each member


@dataclass(frozen=True, eq=False)
class CostTable:
    """Time in ticks of any choice of units, and in grains what it takes of each budget."""

    ticks_per_us: int
    fixed_ticks: int
    unit_ticks: Ints  # (U,)
    grains_per_byte: int
    unit_grains: Ints  # (M, U) weights
    unit_sets: tuple[UnitSet, ...]

    @property
    def max_ticks(self) -> int:
        """Ticks of the whole model."""
        return self.fixed_ticks + int(self.unit_ticks.sum()) + sum(s.charge_ticks for s in self.unit_sets)

    @cached_property
    def whole_grains(self) -> Ints:
        """Grains of each budget that the whole model takes, (M,)."""
        whole: Ints = self.grains(np.ones((1, len(self.unit_ticks)), dtype=bool))[0]
        return whole

    @cached_property
    def charges(self) -> Ints:
        """Ticks of each set's fixed charge, (P,)."""
        return np.array([s.charge_ticks for s in self.unit_sets], dtype=np.int64)

    @cached_property
    def member(self) -> Floats:
        """Membership of units in sets, 0 or 1, (U, P)."""
        # As floats, since only their matrix products are done by BLAS.
        member = np.zeros((len(self.unit_ticks), len(self.unit_sets)))
        for p, unit_set in enumerate(self.unit_sets):
            member[unit_set.members, p] = 1
        return member

    @cached_property
    def peaks(self) -> Ints:
        """Activations [grains] of each unit in each set, (U, P)."""
        peaks = np.zeros((len(self.unit_ticks), len(self.unit_sets)), dtype=np.int64)
        for p, unit_set in enumerate(self.unit_sets):
            peaks[unit_set.members, p] = unit_set.peak_grains
        return peaks

    @cached_property
    def sets_of(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Sets of each unit, with its activations [grains] in each."""
        found: list[list[tuple[int, int]]] = [[] for _ in self.unit_ticks]
        for p, unit_set in enumerate(self.unit_sets):
            for u, grains in zip(unit_set.members.tolist(), unit_set.peak_grains.tolist(), strict=True):
                found[u].append((p, grains))
        return tuple(map(tuple, found))

    @cached_property
    def _peaks_as_floats(self) -> Floats:
        return self.peaks.astype(np.float64)

    @cached_property
    def charge_shares(self) -> Floats:
        """Ticks of each unit's even share of its sets' charges, (U,).

        Kept units that pay their shares pay at most the charge, so sums of shares bound costs from below.
        """
        shares: Floats = self.member @ (self.charges / np.maximum(1, self.member.sum(axis=0)))
        return shares

    def compute_us(self, kept: Bools) -> Ints:
        """Return the compute time [us] of kept units (B, U), rounded up, (B,)."""
        ticks = self.fixed_ticks + kept @ self.unit_ticks + (kept @ self.member > 0) @ self.charges
        compute_us: Ints = -(-ticks // self.ticks_per_us)
        return compute_us

    def grains(self, kept: Bools) -> Ints:
        """Return what kept units (B, U) take of each budget [grains], (B, M)."""
        grains: Ints = kept @ self.unit_grains.T
        grains[:, MEMORY] += np.rint(kept @ self._peaks_as_floats).astype(np.int64).max(axis=1, initial=0)
        return grains
