"""Good sub-models for thousands of class subsets: all at once, by prices.

Take the problem of `submodel`, give each floor (1) a price and drop it. What remains is solved by
looking: a unit is kept if what it earns, sum_c price_c I_cu, is more than its time t_u. A class
that gets less than its floor raises its price, one that gets more lowers it; after some rounds
the units, sorted by what they earn per time, are in the order in which a best sub-model takes
them. The shortest beginning of that order that meets all floors, less what turns out not to be
needed, is within a percent of the linear relaxation for most subsets.

Where memory is short, it has a price as well, the same for all units.

Legend: B subsets at a time, n classes of a subset, U units, H halves of blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Bools, Floats, Ints
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER, Instance, Option

_ROUNDS = 36
# What memory costs against time, in whole models.
_MEMORY_PRICES = (0.0, 0.5, 2.0, 8.0, 1e3)
# At most so many numbers in one array.
_CHUNK = 3_000_000
# Units at the end of the order that are tried without.
_TRIED = 48


@dataclass(frozen=True)
class BuiltSubModels:
    """Sub-models for some class subsets.

    Compute time [us] (B,), `NEVER` where none was found; kept units (B, U); share of the memory for units (B,).
    """

    compute_us: Ints
    kept: Bools
    fullness: Floats


class LagrangianHeuristic:
    """Builds sub-models for one option."""

    def __init__(self, instance: Instance, option: Option) -> None:
        units = instance.units
        self._option = option
        self._importance = units.importance / IMPORTANCE_SCALE  # (C, U)
        # A little more than is needed, against rounding.
        self._need = option.need / IMPORTANCE_SCALE + 1e-12 * len(units)
        self._ticks = np.maximum(option.unit_ticks.astype(np.float64), 1e-6)
        half = units.block * 2 + units.is_head
        self._in_half = np.zeros((len(units), 2 * units.depth))  # (U, H)
        self._in_half[np.arange(len(units)), half] = 1
        switches = np.where(np.arange(2 * units.depth) % 2 == 1, option.attention_ticks, option.mlp_ticks)
        self._switches: Ints = switches.astype(np.int64)  # (H,)
        self._activations = units.size * np.where(units.is_head, option.head_grains, option.channel_grains)  # (U,)

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
        return BuiltSubModels(compute_us, kept, self._grains(kept) / max(1, self._option.free_grains))

    def _build(self, classes: Ints) -> tuple[Ints, Bools]:
        shares = self._importance[classes]  # (B, n, U)
        need = self._need[classes, classes.shape[1] - 1]  # (B, n)
        compute_us = np.full(len(classes), NEVER)
        kept = np.zeros((len(classes), len(self._ticks)), dtype=bool)
        enough: Bools = shares.sum(axis=2) >= need
        left = np.flatnonzero(enough.all(axis=1))
        per_grain = self._ticks.sum() / max(1, int(self._option.unit_grains.sum()))
        for price in _MEMORY_PRICES:
            if not len(left) or self._option.free_grains < 0:
                break
            prices = self._ticks + price * per_grain * self._option.unit_grains
            tried = self._kept(shares[left], need[left], prices)
            fits = self._grains(tried) <= self._option.free_grains
            done = left[fits]
            kept[done] = tried[fits]
            compute_us[done] = self._compute_us(tried[fits])
            left = left[~fits]
        return compute_us, kept

    def _kept(self, shares: Floats, need: Floats, prices: Floats) -> Bools:
        """Return the units of a good sub-model at these prices of units, (B, U)."""
        earned, is_open = self._earnings(shares, need, prices)
        # In a block that nothing has opened yet, a unit pays its part of the switch as well.
        switch = (self._switches / self._in_half.sum(axis=0).clip(1)) @ self._in_half.T  # (U,)
        score = earned / (prices + np.where(is_open, 0.0, switch))
        order = np.argsort(-score, axis=1, kind="stable")  # (B, U)
        sorted_shares = np.take_along_axis(shares, order[:, None, :], axis=2)
        have = np.cumsum(sorted_shares, axis=2)  # (B, n, U)
        met: Bools = have >= need[:, :, None]
        enough = np.all(met, axis=1)  # (B, U)
        count = np.where(np.any(enough, axis=1), np.argmax(enough, axis=1) + 1, have.shape[2])
        rows = np.arange(len(count))
        spare = have[rows, :, count - 1] - need  # (B, n)
        taken = np.arange(have.shape[2]) < count[:, None]  # (B, U), in the order
        for back in range(1, min(_TRIED, have.shape[2]) + 1):
            at = count - back
            loss = sorted_shares[rows, :, np.maximum(at, 0)]
            drop = (at >= 0) & (spare >= loss).all(axis=1)
            spare -= loss * drop[:, None]
            taken[rows[drop], at[drop]] = False
        kept: Bools = np.zeros(taken.shape, dtype=bool)
        np.put_along_axis(kept, order, taken, axis=1)
        return kept

    def _earnings(self, shares: Floats, need: Floats, prices: Floats) -> tuple[Floats, Bools]:
        """Return what each unit earns once the classes' prices have settled, and whether its half is open."""
        wants = need > 0
        of_class = np.where(wants, prices.sum() / need.shape[1], 0.0)  # (B, n)
        has_switches = bool(self._switches.any())
        is_open: Bools = np.ones((len(need), len(prices)), dtype=bool)
        for k in range(_ROUNDS):
            earned = np.matmul(of_class[:, None, :], shares)[:, 0, :]  # (B, U)
            gain = earned - prices
            blur = max(0.02, 0.5 * 0.92**k)
            keep = np.clip(gain / (blur * prices) + 0.5, 0, 1)
            if has_switches:
                by_half = np.maximum(gain, 0) @ self._in_half
                share = np.clip((by_half / np.maximum(self._switches, 1e-9) - 1) / blur + 0.5, 0, 1)
                opened = np.where(self._switches > 0, share, 1.0) @ self._in_half.T
                keep *= opened
                is_open = opened > 0.5
            have = np.matmul(shares, keep[:, :, None])[:, :, 0]  # (B, n)
            step = max(0.3, 3 * 0.94**k)
            of_class = of_class * np.clip(need / np.maximum(have, 1e-9), 0.5, 2) ** step
            of_class = np.where(wants, np.maximum(of_class, 1e-6 * of_class.max(axis=1, keepdims=True)), 0.0)
        return np.matmul(of_class[:, None, :], shares)[:, 0, :], is_open

    def _compute_us(self, kept: Bools) -> Ints:
        ticks = self._option.fixed_ticks + kept @ self._option.unit_ticks
        ticks = ticks + (kept @ self._in_half > 0) @ self._switches
        compute_us: Ints = -(-ticks // self._option.ticks_per_us)
        return compute_us

    def _grains(self, kept: Bools) -> Ints:
        peaks = np.rint((kept * self._activations) @ self._in_half).astype(np.int64).max(axis=1, initial=0)
        grains: Ints = kept @ self._option.unit_grains + peaks
        return grains
