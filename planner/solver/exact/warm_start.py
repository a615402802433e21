"""Warm starts: what an earlier search proved of t(o, S), for another search to begin with.

The cost of a sub-model for class subset S on option o depends on the units' times and sizes there, on the needs of
the classes and on what budgets leave; not on names, links, the number of devices, or demands. So what is proven of it
is valid for every fleet with devices of the same costs:

- A cut: a solution of the dual of the linear relaxation (see `submodels.relaxation`). It stays feasible when needs or
  what budgets leave change, and so bounds every S that holds the classes it prices:
  t(o, S) >= constant + sum_m per_grain_m free_m + sum_c price_c need[c, |S|]. (Where a budget is too short, the same of
  what is needed of it.)
- A proof: no sub-model for S takes less than some time. It holds where classes need as much or more and budgets are as
  short or shorter, and for every superset.
- A sub-model, usable wherever it fits and meets the floors.

Legend: C classes, K cuts, U units, M budgets; class subsets are bit masks.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Bools, Floats, Ints
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER, Units
from planner.solver.problem.option import Option
from planner.solver.submodels.relaxation import DualCut, safely_rounded_up

# Cuts of at most so many other budgets and needs of the same costs are handed on, so that warm starts stay small.
_MAX_HANDED_ON = 8
# In place of a budget, for cuts that bound the time.
_TIME = -1
# Rounding error of a bound [us].
_NEGLIGIBLE_US = 1e-6


@dataclass(frozen=True, eq=False)
class DualCuts:
    """Cuts, proofs and sub-models of one option."""

    costs: str  # fingerprint of the option's times and sizes
    need: Ints  # (C, C) see `Option`
    free_grains: Ints  # (M,)
    masks: Ints  # (K,) class subsets whose relaxations gave the cuts
    prices: Floats  # (K, C)
    per_grain: Floats  # (K, M) not above 0
    constant: Floats  # (K,)
    budget: Ints  # (K,) what is bounded: grains of this budget, or the time [us] where it is `_TIME`
    proofs: tuple[tuple[int, int], ...]  # (mask, least time [us])
    sub_models: tuple[tuple[int, bytes], ...]  # (mask, kept units as packed bits)

    def by_count(self, option: Option) -> Ints:
        """Return the bound [us] of each cut on class subsets of n classes, at an option's needs and budgets, (K, C)."""
        values = self.prices @ (option.need / IMPORTANCE_SCALE)
        values += (self.constant + self.per_grain @ option.free_grains)[:, None]
        bounds = safely_rounded_up(values)
        never = np.where(bounds > option.free_grains[self.budget][:, None], NEVER, 0)
        by_count: Ints = np.where(self.budget[:, None] == _TIME, bounds, never)
        return by_count

    def same_terms(self, option: Option) -> bool:
        """Return whether these were learned at an option's needs and budgets."""
        return _same_terms(self, option)

    def exact_at(self, option: Option) -> Bools:
        """Return which cuts equal relaxations solved at an option's own needs and budgets, (K,)."""
        if (self.free_grains > option.free_grains).any() or not np.array_equal(self.need, option.need):
            return np.zeros(len(self.masks), dtype=bool)
        # Where a budget had no price, more of it changes nothing.
        unchanged = self.per_grain @ (self.free_grains - option.free_grains) < _NEGLIGIBLE_US
        exact: Bools = unchanged & (self.budget == _TIME)
        return exact

    def stricter(self, mask: int, option: Option) -> Bools:
        """Return for which numbers of classes a proof for a class subset holds on an option, (C,)."""
        classes = [c for c in range(len(self.need)) if mask >> c & 1]
        if (option.free_grains > self.free_grains).any():
            return np.zeros(len(self.need), dtype=bool)
        return as_demanding(option, classes, self.need[classes, len(classes) - 1])


@dataclass(frozen=True)
class WarmStart:
    """Cuts by option; no search changes them, it returns new ones."""

    cuts: tuple[DualCuts, ...] = ()

    def of(self, costs: str) -> list[DualCuts]:
        """Return the cuts of options with these costs."""
        return [cuts for cuts in self.cuts if cuts.costs == costs]

    def updated(self, newer: Iterable[DualCuts]) -> "WarmStart":
        """Return this warm start with newer cuts, and without the oldest."""
        kept = _joined(newer)
        for older in self.cuts:
            alike = [other for other in kept if other.costs == older.costs]
            if len(alike) < _MAX_HANDED_ON and not any(_same_terms(other, older) for other in alike):
                kept.append(older)
        return WarmStart(tuple(kept))


NO_WARM_START = WarmStart()


def learned_cuts(
    costs: str,
    option: Option,
    cuts: Sequence[tuple[int, DualCut]],
    proofs: dict[int, int],
    sub_models: Iterable[tuple[int, bytes]],
    known: Iterable[DualCuts],
) -> DualCuts:
    """Return what was proven of an option, merged with what was known before at the same needs and budgets.

    Args:
        costs: Fingerprint of the option.
        option: Option with the needs and the budgets of the proofs.
        cuts: Cuts, each with the class subset of its relaxation.
        proofs: Least time [us] of class subsets.
        sub_models: Best known sub-model of each class subset.
        known: Earlier cuts of the same costs.
    """
    own = DualCuts(
        costs=costs,
        need=option.need,
        free_grains=option.free_grains,
        masks=np.array([mask for mask, _ in cuts], dtype=np.int64),
        prices=np.array([cut.prices for _, cut in cuts]).reshape(-1, len(option.need)),
        per_grain=np.array([cut.per_grain for _, cut in cuts]).reshape(-1, len(option.free_grains)),
        constant=np.array([cut.constant for _, cut in cuts]),
        budget=np.array([_TIME if cut.budget is None else cut.budget for _, cut in cuts], dtype=np.int64),
        proofs=tuple(sorted(proofs.items())),
        sub_models=tuple(sorted(sub_models)),
    )
    return _joined([own, *(older for older in known if older.same_terms(option))])[0]


def fingerprint(units: Units, option: Option) -> str:
    """Return a hash that is equal for options on which the same sub-models take the same time and budgets."""
    costs = option.costs
    numbers = (
        costs.ticks_per_us,
        costs.fixed_ticks,
        costs.grains_per_byte,
        units.depth,
        units.always_kept,
        *units.importance.shape,
        *costs.unit_grains.shape,
        *(unit_set.charge_ticks for unit_set in costs.unit_sets),
    )
    digest = hashlib.sha256(repr(numbers).encode())
    for array in (units.block, units.is_head, units.size, units.importance, costs.unit_ticks, costs.unit_grains):
        digest.update(array.tobytes())
    digest.update(costs.peaks.tobytes())
    digest.update(costs.member.tobytes())
    return digest.hexdigest()


def as_demanding(option: Option, classes: Sequence[int], need: Ints) -> Bools:
    """Return beside how many others all of these classes need at least as much on an option, (C,)."""
    enough: Bools = option.need[list(classes)] >= need[:, None]
    demanding: Bools = np.asarray(np.all(enough, axis=0))
    return demanding


def _same_terms(one: DualCuts | Option, other: DualCuts | Option) -> bool:
    return np.array_equal(one.free_grains, other.free_grains) and np.array_equal(one.need, other.need)


def _joined(cuts: Iterable[DualCuts]) -> list[DualCuts]:
    """Return cuts with those of the same costs, needs and budgets merged."""
    joined: list[DualCuts] = []
    for new in cuts:
        i = next((i for i, old in enumerate(joined) if old.costs == new.costs and _same_terms(old, new)), None)
        if i is None:
            joined.append(new)
        else:
            joined[i] = _merged(joined[i], new)
    return joined


def _merged(one: DualCuts, other: DualCuts) -> DualCuts:
    added = ~np.isin(other.masks, one.masks)
    proofs = dict(other.proofs)
    proofs |= {mask: max(bound, proofs.get(mask, 0)) for mask, bound in one.proofs}
    return DualCuts(
        costs=one.costs,
        need=one.need,
        free_grains=one.free_grains,
        masks=np.concatenate([one.masks, other.masks[added]]),
        prices=np.concatenate([one.prices, other.prices[added]]),
        per_grain=np.concatenate([one.per_grain, other.per_grain[added]]),
        constant=np.concatenate([one.constant, other.constant[added]]),
        budget=np.concatenate([one.budget, other.budget[added]]),
        proofs=tuple(sorted(proofs.items())),
        sub_models=tuple(sorted((dict(other.sub_models) | dict(one.sub_models)).items())),
    )
