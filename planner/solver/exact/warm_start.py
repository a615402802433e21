"""What an earlier search learned of t(o, S), to begin another with.

What a sub-model for class subset S costs on option o depends on the units' times and sizes there,
on the needs of the classes and on the memory that is free; not on names, links, the number of
devices, or what is demanded of them. So what was learned of it is good for every fleet with
devices of the same costs:

- A cut: a solution of the dual of the linear relaxation (see `submodel`). It stays one when needs
  or free memory change, and so bounds every S that holds the classes it prices:
  t(o, S) >= constant + per_grain free + sum_c price_c need[c, |S|]. (Where memory is too short, the
  same of the memory that is needed.)
- A proof: no sub-model for S takes less than so long. It holds where classes need as much or
  more, memory is as short or shorter, and for every superset.
- A sub-model, good wherever it fits and meets the floors.

Legend: C classes, K cuts, U units; class subsets are bit masks.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Bools, Floats, Ints
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER, Option, Units
from planner.solver.submodels.knapsack import DualCut, whole

# Of the same costs, the lessons of at most so many other budgets and needs are handed on.
_MOST_HANDED_ON = 8
# Less than this is a rounding error [us].
_NEGLIGIBLE_US = 1e-6


@dataclass(frozen=True, eq=False)
class DualCuts:
    """What was learned of the sub-models of one option."""

    costs: str  # fingerprint of the option's times and sizes
    need: Ints  # (C, C) see `Option`
    free_grains: int
    masks: Ints  # (K,) whose relaxations these cuts are
    prices: Floats  # (K, C)
    per_grain: Floats  # (K,) not above 0
    constant: Floats  # (K,)
    of_memory: Bools  # (K,) bounds the memory [grains], not the time [us]
    proofs: tuple[tuple[int, int], ...]  # (mask, least time [us])
    sub_models: tuple[tuple[int, bytes], ...]  # (mask, kept units as packed bits)

    def by_count(self, option: Option) -> Ints:
        """Return the bound [us] of each cut on class subsets of n classes, at an option's own terms, (K, C)."""
        values = self.prices @ (option.need / IMPORTANCE_SCALE)
        values += (self.constant + self.per_grain * option.free_grains)[:, None]
        bounds = whole(values)
        never = np.where(bounds > option.free_grains, NEVER, 0)
        return np.where(self.of_memory[:, None], never, bounds)

    def same_terms(self, option: Option) -> bool:
        """Say whether these lessons were learned at an option's needs and free memory."""
        return self.free_grains == option.free_grains and np.array_equal(self.need, option.need)

    def exact_at(self, option: Option) -> Bools:
        """Return which cuts are as good as relaxations solved at an option's own terms, (K,)."""
        if self.free_grains > option.free_grains or not np.array_equal(self.need, option.need):
            return np.zeros(len(self.masks), dtype=bool)
        # Where memory had no price, more of it changes nothing.
        exact: Bools = self.per_grain * (self.free_grains - option.free_grains) < _NEGLIGIBLE_US
        return exact & ~self.of_memory

    def stricter(self, mask: int, option: Option) -> Bools:
        """Return for which numbers of classes what was proven of a class subset holds on an option, (C,)."""
        classes = [c for c in range(len(self.need)) if mask >> c & 1]
        if option.free_grains > self.free_grains:
            return np.zeros(len(self.need), dtype=bool)
        return as_demanding(option, classes, self.need[classes, len(classes) - 1])


@dataclass(frozen=True)
class WarmStart:
    """What was learned; no search changes it, it hands on a new one."""

    lessons: tuple[DualCuts, ...] = ()

    def of(self, costs: str) -> list[DualCuts]:
        """Return what was learned of options of these costs."""
        return [lessons for lessons in self.lessons if lessons.costs == costs]

    def and_then(self, newer: Iterable[DualCuts]) -> "WarmStart":
        """Return this experience with newer lessons, and without what is too long ago."""
        kept = _joined(newer)
        for lessons in self.lessons:
            alike = [other for other in kept if other.costs == lessons.costs]
            if len(alike) < _MOST_HANDED_ON and not any(_same_terms(other, lessons) for other in alike):
                kept.append(lessons)
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
    """Return what was learned of an option, with what was known before at the same terms.

    Args:
        costs: The option's fingerprint.
        option: At whose needs and free memory it was learned.
        cuts: With the class subset that each is for.
        proofs: The least time [us] of class subsets.
        sub_models: The best known for each class subset.
        known: Of the same costs.
    """
    own = DualCuts(
        costs=costs,
        need=option.need,
        free_grains=option.free_grains,
        masks=np.array([mask for mask, _ in cuts], dtype=np.int64),
        prices=np.array([cut.prices for _, cut in cuts]).reshape(-1, len(option.need)),
        per_grain=np.array([cut.per_grain for _, cut in cuts]),
        constant=np.array([cut.constant for _, cut in cuts]),
        of_memory=np.array([cut.of_memory for _, cut in cuts], dtype=bool),
        proofs=tuple(sorted(proofs.items())),
        sub_models=tuple(sorted(sub_models)),
    )
    return _joined([own, *(lessons for lessons in known if lessons.same_terms(option))])[0]


def fingerprint(units: Units, option: Option) -> str:
    """Return a text that is the same for all options on which the same sub-models take the same time and memory."""
    numbers = (
        option.ticks_per_us,
        option.fixed_ticks,
        option.attention_ticks,
        option.mlp_ticks,
        option.grains_per_byte,
        option.head_grains,
        option.channel_grains,
        units.depth,
        *units.importance.shape,
    )
    digest = hashlib.sha256(repr(numbers).encode())
    for array in (units.block, units.is_head, units.size, units.importance, option.unit_ticks, option.unit_grains):
        digest.update(array.tobytes())
    return digest.hexdigest()


def as_demanding(option: Option, classes: Sequence[int], need: Ints) -> Bools:
    """Return beside how many others all of these classes need at least so much on an option, (C,)."""
    enough: Bools = option.need[list(classes)] >= need[:, None]
    found: Bools = np.asarray(np.all(enough, axis=0))
    return found


def _same_terms(one: DualCuts, other: DualCuts) -> bool:
    return one.free_grains == other.free_grains and np.array_equal(one.need, other.need)


def _joined(lessons: Iterable[DualCuts]) -> list[DualCuts]:
    """Return lessons with those of the same costs and terms made one."""
    joined: list[DualCuts] = []
    for new in lessons:
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
        of_memory=np.concatenate([one.of_memory, other.of_memory[added]]),
        proofs=tuple(sorted(proofs.items())),
        sub_models=tuple(sorted((dict(other.sub_models) | dict(one.sub_models)).items())),
    )
