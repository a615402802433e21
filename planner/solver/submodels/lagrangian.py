"""Lagrangian heuristic for the sub-model problem: thousands of class subsets at once.

Take the problem of `knapsack`, give each floor (1) a multiplier and drop it. What remains is solved by inspection: a
unit is kept if what it earns, sum_c multiplier_c I_cu, exceeds its time t_u. A class that gets less than its floor
raises its multiplier, one that gets more lowers it (a multiplicative ascent in place of the subgradient's steps).
After some rounds the units, sorted by earnings per time, are in the order in which a best sub-model takes them. The
shortest prefix of that order that meets all floors, less what turns out not to be needed, is within a percent of the
linear relaxation for most subsets.

The anchor head comes first in every order and is never removed. Where budgets are short, what units take of them has a
price as well, the same for all units.

Legend: B subsets at a time, n classes of a subset, U units, P unit sets with a common charge, M budgets.

Source: Fisher, The Lagrangian relaxation method for solving integer programming problems, doi:10.1287/mnsc.27.1.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Bools, Floats, Ints
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER, Instance
from planner.solver.problem.option import Option

_ROUNDS = 36
# Prices of budgets against time that are tried, in whole models.
_BUDGET_PRICES = (0.0, 0.5, 2.0, 8.0, 1e3)
# At most so many numbers in one array, whatever the number of subsets.
_CHUNK = 3_000_000
# Units at the end of the prefix whose removal is tried.
_MAX_REMOVALS = 48


@dataclass(frozen=True)
class BuiltSubModels:
    """Sub-models for some class subsets.

    Compute time [us] (B,), `NEVER` where none was found; kept units (B, U); share of the fullest budget for units (B,).
    """

    compute_us: Ints
    kept: Bools
    fullness: Floats


class LagrangianHeuristic:
    """Good sub-models for one option."""

    def __init__(self, instance: Instance, option: Option) -> None:
        self._option, self._costs = option, option.costs
        self._importance = instance.units.shares  # (C, U)
        # A little more than is needed, against rounding.
        self._need = option.need / IMPORTANCE_SCALE + 1e-12 * len(instance.units)
        self._ticks = np.maximum(option.costs.unit_ticks.astype(np.float64), 1e-6)
        self._always_kept = list(instance.units.always_kept)
        self._is_removable = np.ones(len(self._ticks), dtype=bool)
        self._is_removable[self._always_kept] = False

    def build(self, subsets: Sequence[tuple[int, ...]]) -> BuiltSubModels:
        """Return a sub-model for each class subset."""
        num_units = len(self._ticks)
        compute_us, kept = np.full(len(subsets), NEVER), np.zeros((len(subsets), num_units), dtype=bool)
        sizes = np.array([len(subset) for subset in subsets])
        for n in np.unique(sizes).tolist():
            members = np.flatnonzero(sizes == n)
            step = max(1, _CHUNK // (n * num_units))
            for at in range(0, len(members), step):
                rows = members[at : at + step]
                classes = np.array([subsets[b] for b in rows], dtype=np.int64)
                compute_us[rows], kept[rows] = self._build(classes)
        shares = self._costs.grains(kept) / np.maximum(1, self._option.free_grains)  # (B, M)
        return BuiltSubModels(compute_us, kept, shares.max(axis=1))

    def _build(self, classes: Ints) -> tuple[Ints, Bools]:
        shares = self._importance[classes]  # (B, n, U)
        need = self._need[classes, classes.shape[1] - 1]  # (B, n)
        compute_us = np.full(len(classes), NEVER)
        kept = np.zeros((len(classes), len(self._ticks)), dtype=bool)
        enough: Bools = shares.sum(axis=2) >= need
        left = np.flatnonzero(enough.all(axis=1))
        unit_grains, free_grains = self._costs.unit_grains, self._option.free_grains
        per_grain = self._ticks.sum() / np.maximum(1, unit_grains.sum(axis=1))  # (M,)
        for price in _BUDGET_PRICES:
            if not len(left) or (free_grains < 0).any():
                break
            tried = self._kept(shares[left], need[left], self._ticks + price * per_grain @ unit_grains)
            fits = (self._costs.grains(tried) <= free_grains).all(axis=1)
            done = left[fits]
            kept[done] = tried[fits]
            compute_us[done] = self._costs.compute_us(tried[fits])
            left = left[~fits]
        return compute_us, kept

    def _kept(self, shares: Floats, need: Floats, prices: Floats) -> Bools:
        """Return the units of a good sub-model at these prices of units, (B, U)."""
        earned, is_charged = self._earnings(shares, need, prices)
        # A unit of a set that is not charged yet pays its part of the charge as well.
        score = earned / (prices + np.where(is_charged, 0.0, self._costs.charge_shares))
        score[:, self._always_kept] = np.inf
        order = np.argsort(-score, axis=1, kind="stable")  # (B, U)
        sorted_shares = np.take_along_axis(shares, order[:, None, :], axis=2)
        have = np.cumsum(sorted_shares, axis=2)  # (B, n, U)
        met: Bools = have >= need[:, :, None]
        enough = np.all(met, axis=1)  # (B, U)
        count = np.where(np.any(enough, axis=1), np.argmax(enough, axis=1) + 1, have.shape[2])
        count = np.maximum(count, len(self._always_kept))
        rows = np.arange(len(count))
        spare = have[rows, :, count - 1] - need  # (B, n)
        taken = np.arange(have.shape[2]) < count[:, None]  # (B, U), in the order
        for back in range(1, min(_MAX_REMOVALS, have.shape[2]) + 1):
            at = count - back
            loss = sorted_shares[rows, :, np.maximum(at, 0)]
            drop = (at >= 0) & self._is_removable[order[rows, at]] & (spare >= loss).all(axis=1)
            spare -= loss * drop[:, None]
            taken[rows[drop], at[drop]] = False
        kept: Bools = np.zeros(taken.shape, dtype=bool)
        np.put_along_axis(kept, order, taken, axis=1)
        return kept

    def _earnings(self, shares: Floats, need: Floats, prices: Floats) -> tuple[Floats, Bools]:
        """Return the earnings of each unit at settled multipliers, and whether its sets are charged, each (B, U)."""
        wants = need > 0
        multipliers = np.where(wants, prices.sum() / need.shape[1], 0.0)  # (B, n)
        charges, member = self._costs.charges, self._costs.member
        has_charges = bool(charges.any())
        is_charged: Bools = np.ones((len(need), len(prices)), dtype=bool)
        for k in range(_ROUNDS):
            earned = np.matmul(multipliers[:, None, :], shares)[:, 0, :]  # (B, U)
            gain = earned - prices
            # Kept in part at first and by all or nothing at last, so that multipliers settle.
            blur = max(0.02, 0.5 * 0.92**k)
            keep = np.clip(gain / (blur * prices) + 0.5, 0, 1)
            if has_charges:
                by_set = np.maximum(gain, 0) @ member
                share = np.clip((by_set / np.maximum(charges, 1e-9) - 1) / blur + 0.5, 0, 1)
                # Of several sets of one unit, each must be charged.
                charged = np.clip(1 - np.where(charges > 0, 1 - share, 0.0) @ member.T, 0, 1)
                keep *= charged
                is_charged = charged > 0.5
            keep[:, self._always_kept] = 1.0
            have = np.matmul(shares, keep[:, :, None])[:, :, 0]  # (B, n)
            step = max(0.3, 3 * 0.94**k)
            multipliers = multipliers * np.clip(need / np.maximum(have, 1e-9), 0.5, 2) ** step
            smallest = 1e-6 * multipliers.max(axis=1, keepdims=True)
            multipliers = np.where(wants, np.maximum(multipliers, smallest), 0.0)
        return np.matmul(multipliers[:, None, :], shares)[:, 0, :], is_charged
