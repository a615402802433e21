"""What is known of t(o, S), the least cost of a sub-model for class subset S on option o.

For up to a dozen classes, every subset has a row: a proven bound, and the best sub-model built
so far. Both are filled lazily, and what is learned of one subset is a bound for others. What
another search learned is where it begins (see `experience`).
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from planner.arrays import Bools, Ints
from planner.solver.exact.assignment import Column, classes_of
from planner.solver.exact.warm_start import DualCuts, WarmStart, as_demanding, fingerprint, learned_cuts
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance, Option
from planner.solver.submodels import knapsack
from planner.solver.submodels.knapsack import DualCut, LinearBound, SubModelResult

# About what a linear relaxation takes [s], where work is counted.
LP_S = 5e-4


class SubModelCost(Protocol):
    """What a sub-model is judged by: a number for each option and class subset, the less the better."""

    def bound(self, option: int, classes: tuple[int, ...]) -> LinearBound | None:
        """Return a bound for these classes and others like them; None if the option cannot serve them."""
        ...

    def least(self, option: int, classes: tuple[int, ...], clock: Clock, enough: int) -> SubModelResult:
        """Return the least cost of any sub-model for these classes, or any that is at most `enough`."""
        ...

    def of(self, option: int, kept: tuple[int, ...]) -> int:
        """Return the cost of a sub-model."""
        ...


class ComputeTime:
    """The cost that plans are made for [us]: latency and energy both follow from it."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._relaxations: dict[tuple[int, bool], knapsack.Relaxation] = {}

    def bound(self, option: int, classes: tuple[int, ...]) -> LinearBound | None:
        """See `Cost`."""
        of_time = self._relaxation(option, False).bound(classes)
        if of_time is not None:
            return of_time
        # Too little memory: how much is needed says for which others there is too little as well.
        of_memory = self._relaxation(option, True).bound(classes)
        free_grains = self._instance.options[option].free_grains
        if of_memory is None or of_memory.by_count[len(classes) - 1] <= free_grains:
            return None
        never = np.where(of_memory.by_count > free_grains, NEVER, 0)
        return LinearBound(of_memory.binding, never, of_memory.cut)

    def _relaxation(self, option: int, of_memory: bool) -> knapsack.Relaxation:
        key = option, of_memory
        if key not in self._relaxations:
            self._relaxations[key] = knapsack.Relaxation(self._instance, self._instance.options[option], of_memory)
        return self._relaxations[key]

    def least(self, option: int, classes: tuple[int, ...], clock: Clock, enough: int) -> SubModelResult:
        """See `Cost`."""
        return knapsack.cheapest(self._instance, self._instance.options[option], classes, clock, enough_us=enough)

    def of(self, option: int, kept: tuple[int, ...]) -> int:
        """See `Cost`."""
        return self._instance.compute_us(self._instance.options[option], kept)


class SubsetCosts:
    """What is known of t(o, S) for every option o and class subset S: bounds and sub-models."""

    def __init__(self, instance: Instance, cost: SubModelCost, experience: WarmStart) -> None:
        self.instance = instance
        self._cost, self._experience = cost, experience
        num_classes = instance.num_classes
        shape = (len(instance.options), 2**num_classes)
        self.masks = np.arange(shape[1])
        self.sizes = np.array([mask.bit_count() for mask in range(shape[1])])
        self.low: Ints = np.zeros(shape, dtype=np.int64)
        self.high: Ints = np.full(shape, NEVER, dtype=np.int64)
        self.kept: dict[Column, tuple[int, ...]] = {}
        self._bounded: Bools = np.zeros(shape, dtype=bool)
        self.num_bounded = 0
        self._costs = [fingerprint(instance.units, option) for option in instance.options]
        # What was learned here, of each option.
        self._cuts: list[list[tuple[int, DualCut]]] = [[] for _ in instance.options]
        self._proofs: list[dict[int, int]] = [{} for _ in instance.options]
        for o, option in enumerate(instance.options):
            self.low[o, ~_allowed(instance, option.group, self.masks) | self._unreachable(option)] = NEVER
            earlier = experience.of(self._costs[o])
            for lessons in earlier:
                self._recall(o, lessons)
            for c in range(0 if earlier else num_classes):
                self.bound(Column(o, 1 << c))

    def _unreachable(self, option: Option) -> Bools:
        """Return which class subsets have a class that needs more than there is, (2^C,)."""
        too_much = option.need > self.instance.units.importance.sum(axis=1)[:, None]  # (C, C)
        holds = self.masks[:, None] >> np.arange(self.instance.num_classes) & 1 > 0  # (2^C, C)
        found: Bools = np.asarray(np.any(holds & too_much.T[self.sizes - 1], axis=1))
        return found

    def experience(self) -> WarmStart:
        """Return what is known, for other searches to begin with."""
        known, num_units = self._experience, len(self.instance.units)
        sub_models: list[list[tuple[int, bytes]]] = [[] for _ in self.instance.options]
        for i, kept in self.kept.items():
            chosen = np.zeros(num_units, dtype=bool)
            chosen[list(kept)] = True
            sub_models[i.option].append((i.mask, np.packbits(chosen).tobytes()))
        learned = [
            learned_cuts(costs, option, self._cuts[o], self._proofs[o], sub_models[o], known.of(costs))
            for o, (costs, option) in enumerate(zip(self._costs, self.instance.options, strict=True))
        ]
        return known.and_then(learned)

    def _recall(self, o: int, lessons: DualCuts) -> None:
        """Begin with what was learned of an option of the same costs."""
        option, num_classes = self.instance.options[o], self.instance.num_classes
        binding = (lessons.prices > 0) @ (1 << np.arange(num_classes))
        held = np.zeros((len(self.masks), num_classes), dtype=np.int64)
        np.maximum.at(held, binding, lessons.by_count(option))
        for below, above in halves(held.reshape((2,) * num_classes + (num_classes,)), num_classes):
            np.maximum(above, below, out=above)
        self.low[o, 1:] = np.maximum(self.low[o, 1:], held[self.masks[1:], self.sizes[1:] - 1])
        self._bounded[o, lessons.masks[lessons.exact_at(option)]] = True
        for mask, bound in lessons.proofs:
            self._raise_low(Column(o, mask), bound, lessons.stricter(mask, option))
        for mask, packed in lessons.sub_models:
            bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=len(self.instance.units))
            kept = tuple(np.flatnonzero(bits).tolist())
            if self.instance.meets_floors(option, classes_of(mask), kept) and self.instance.fits(option, kept):
                self.add(Column(o, mask), kept)

    def within(self, limits: Ints, clock: Clock) -> list[Column]:
        """Return each option's largest class subsets that may cost this little, as far as relaxations tell.

        Raises:
            TimeoutError: If time runs out on the way.
        """
        while True:
            largest = _largest(self.low <= limits[:, None])
            unbounded = np.argwhere(largest & ~self._bounded).tolist()
            if not unbounded:
                return [Column(o, mask) for o, mask in np.argwhere(largest).tolist()]
            for o, mask in unbounded:
                if clock.expired():
                    raise TimeoutError
                # What was learned of one may have settled the next.
                if self.low[o, mask] <= limits[o]:
                    clock.spend(LP_S)
                    self.bound(Column(o, mask))

    def is_bounded(self, candidate: Column) -> bool:
        """Say whether the candidate's own relaxation was solved."""
        return bool(self._bounded[candidate.option, candidate.mask])

    def examine(self, candidate: Column, clock: Clock, enough: int = 0) -> None:
        """Build the candidate's cheapest sub-model, or one that is cheap enough, or learn that there is none."""
        answer = self._cost.least(candidate.option, candidate.classes, clock, enough)
        self._prove(candidate, NEVER if answer.bound is None else answer.bound)
        if answer.kept is not None:
            self.add(candidate, answer.kept)

    def add(self, candidate: Column, kept: tuple[int, ...]) -> None:
        """Remember a sub-model that meets the candidate's floors and budget."""
        key = (candidate.option, candidate.mask)
        cost = self._cost.of(candidate.option, kept)
        if cost < self.high[key]:
            self.high[key] = cost
            self.kept[candidate] = kept

    def bound(self, candidate: Column) -> None:
        """Bound a class subset, and all others that hold the classes which make it dear."""
        self._bounded[candidate.option, candidate.mask] = True
        self.num_bounded += 1
        bound = self._cost.bound(candidate.option, candidate.classes)
        if bound is None:
            self._prove(candidate, NEVER)
            return
        if bound.cut is not None:
            self._cuts[candidate.option].append((candidate.mask, bound.cut))
        binding = sum(1 << c for c in bound.binding)
        holding = self.masks[((self.masks & binding) == binding) & (self.masks > 0)]
        row = self.low[candidate.option]
        row[holding] = np.maximum(row[holding], bound.by_count[self.sizes[holding] - 1])

    def _prove(self, candidate: Column, cost: int) -> None:
        """Remember what a class subset costs at least; so do its supersets with no lower floor."""
        proofs = self._proofs[candidate.option]
        proofs[candidate.mask] = max(cost, proofs.get(candidate.mask, 0))
        option, classes = self.instance.options[candidate.option], list(candidate.classes)
        stricter = as_demanding(option, classes, option.need[classes, len(classes) - 1])
        self._raise_low(candidate, cost, stricter)

    def _raise_low(self, candidate: Column, cost: int, stricter: Bools) -> None:
        """Raise the bound of a class subset and its supersets, those with a number of classes that is `stricter`."""
        row, mask = self.low[candidate.option], candidate.mask
        supersets = ((self.masks & mask) == mask) & np.append(stricter, False)[self.sizes - 1]
        row[supersets] = np.maximum(row[supersets], cost)


def halves(table: NDArray[Any], num_classes: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield, for each class, views of a table's rows for the class subsets without it, and of those with it.

    Args:
        table: Its first axes, one for each class, are the class subsets.
        num_classes: So many axes.
    """
    for axis in range(num_classes):
        without, with_class = np.moveaxis(table, axis, 0)
        yield without, with_class


def _allowed(instance: Instance, group: int, masks: Ints) -> Bools:
    """Return which class subsets the demands let a device of this group serve."""
    must, never = (
        sum(1 << c for c in classes) for classes in (instance.groups[group].must, instance.groups[group].never)
    )
    allowed: Bools = (masks > 0) & ((masks & must) == must) & ((masks & never) == 0)
    for classes in instance.together:
        both = sum(1 << c for c in classes)
        allowed &= ((masks & both) == 0) | ((masks & both) == both)
    for classes in instance.apart:
        some = masks & sum(1 << c for c in classes)
        allowed &= (some & (some - 1)) == 0
    return allowed


def _largest(member: Bools) -> Bools:
    """Return which masks of each row are members and have no larger member above them, (O, 2^C)."""
    num_classes = member.shape[1].bit_length() - 1
    shape = (2,) * num_classes + (len(member),)
    largest = member.T.reshape(shape).copy()
    above = largest.copy()  # the mask itself or a superset is a member
    for without, with_class in halves(above, num_classes):
        without |= with_class
    for (lower, _), (_, upper) in zip(halves(largest, num_classes), halves(above, num_classes), strict=True):
        lower &= ~upper
    found: Bools = largest.reshape(-1, len(member)).T
    return found
