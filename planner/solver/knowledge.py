"""What is known of t(o, S), the least cost of a sub-model for class subset S on option o.

For up to a dozen classes, every subset has a row: a proven bound, and the best sub-model built
so far. Both are filled lazily, and what is learned of one subset is a bound for others.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from planner.solver import submodel
from planner.solver.assign import Candidate
from planner.solver.clock import Clock
from planner.solver.instance import NEVER, Instance, Ints
from planner.solver.submodel import Answer, LinearBound

# About what a linear relaxation takes [s], where work is counted.
LP_S = 5e-4


class Cost(Protocol):
    """What a sub-model is judged by: a number for each option and class subset, the less the better."""

    def bound(self, option: int, classes: tuple[int, ...]) -> LinearBound | None:
        """Return a bound for these classes and others like them; None if the option cannot serve them."""
        ...

    def least(self, option: int, classes: tuple[int, ...], clock: Clock, enough: int) -> Answer:
        """Return the least cost of any sub-model for these classes, or any that is at most `enough`."""
        ...

    def of(self, option: int, kept: tuple[int, ...]) -> int:
        """Return the cost of a sub-model."""
        ...


class ComputeTime:
    """The cost that plans are made for [us]: latency and energy both follow from it."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._relaxations = [submodel.Relaxation(instance, option) for option in instance.options]

    def bound(self, option: int, classes: tuple[int, ...]) -> LinearBound | None:
        """See `Cost`."""
        return self._relaxations[option].bound(classes)

    def least(self, option: int, classes: tuple[int, ...], clock: Clock, enough: int) -> Answer:
        """See `Cost`."""
        return submodel.cheapest(self._instance, self._instance.options[option], classes, clock, enough_us=enough)

    def of(self, option: int, kept: tuple[int, ...]) -> int:
        """See `Cost`."""
        return self._instance.compute_us(self._instance.options[option], kept)


class Knowledge:
    """What is known of t(o, S) for every option o and class subset S: bounds and sub-models."""

    def __init__(self, instance: Instance, cost: Cost) -> None:
        self.instance = instance
        self._cost = cost
        num_classes = instance.num_classes
        shape = (len(instance.options), 2**num_classes)
        self.masks = np.arange(shape[1])
        self.sizes = np.array([mask.bit_count() for mask in range(shape[1])])
        self.low: Ints = np.zeros(shape, dtype=np.int64)
        self.high: Ints = np.full(shape, NEVER, dtype=np.int64)
        self.kept: dict[Candidate, tuple[int, ...]] = {}
        self._bounded: NDArray[np.bool_] = np.zeros(shape, dtype=bool)
        for o, option in enumerate(instance.options):
            self.low[o, ~_allowed(instance, option.group, self.masks)] = NEVER
            for c in range(num_classes):
                self.bound(Candidate(o, 1 << c))

    def within(self, limits: Ints, clock: Clock) -> list[Candidate]:
        """Return each option's largest class subsets that may cost this little, as far as relaxations tell.

        Raises:
            TimeoutError: If time runs out on the way.
        """
        candidates = []
        for o, (row, limit) in enumerate(zip(self.low, limits.tolist(), strict=True)):
            while True:
                masks = _largest(row <= limit)
                unbounded = masks[~self._bounded[o, masks]]
                if not len(unbounded):
                    break
                for mask in unbounded.tolist():
                    if clock.expired():
                        raise TimeoutError
                    # What was learned of one may have settled the next.
                    if row[mask] <= limit:
                        clock.spend(LP_S)
                        self.bound(Candidate(o, mask))
            candidates += [Candidate(o, mask) for mask in masks.tolist()]
        return candidates

    def is_bounded(self, candidate: Candidate) -> bool:
        """Say whether the candidate's own relaxation was solved."""
        return bool(self._bounded[candidate.option, candidate.mask])

    def examine(self, candidate: Candidate, clock: Clock, enough: int = 0) -> None:
        """Build the candidate's cheapest sub-model, or one that is cheap enough, or learn that there is none."""
        answer = self._cost.least(candidate.option, candidate.classes, clock, enough)
        self._raise_low(candidate, NEVER if answer.bound is None else answer.bound)
        if answer.kept is not None:
            self.add(candidate, answer.kept)

    def add(self, candidate: Candidate, kept: tuple[int, ...]) -> None:
        """Remember a sub-model that meets the candidate's floors and budget."""
        key = (candidate.option, candidate.mask)
        cost = self._cost.of(candidate.option, kept)
        if cost < self.high[key]:
            self.high[key] = cost
            self.kept[candidate] = kept

    def bound(self, candidate: Candidate) -> None:
        """Bound a class subset, and all others that hold the classes which make it dear."""
        self._bounded[candidate.option, candidate.mask] = True
        bound = self._cost.bound(candidate.option, candidate.classes)
        if bound is None:
            self._raise_low(candidate, NEVER)
            return
        binding = sum(1 << c for c in bound.binding)
        holding = self.masks[((self.masks & binding) == binding) & (self.masks > 0)]
        row = self.low[candidate.option]
        row[holding] = np.maximum(row[holding], bound.by_count[self.sizes[holding] - 1])

    def _raise_low(self, candidate: Candidate, cost: int) -> None:
        """Raise the bound of a class subset and of its supersets with no lower floor."""
        mask, by_count = candidate.mask, self.instance.floor.by_count
        n = mask.bit_count()
        stricter = np.array(
            [False] + [k >= n and by_count[k - 1] >= by_count[n - 1] for k in range(1, len(by_count) + 1)]
        )
        row = self.low[candidate.option]
        supersets = ((self.masks & mask) == mask) & stricter[self.sizes]
        row[supersets] = np.maximum(row[supersets], cost)


def _allowed(instance: Instance, group: int, masks: Ints) -> NDArray[np.bool_]:
    """Return which class subsets the demands let a device of this group serve."""
    must, never = (
        sum(1 << c for c in classes) for classes in (instance.groups[group].must, instance.groups[group].never)
    )
    allowed: NDArray[np.bool_] = (masks > 0) & ((masks & must) == must) & ((masks & never) == 0)
    for classes in instance.together:
        both = sum(1 << c for c in classes)
        allowed &= ((masks & both) == 0) | ((masks & both) == both)
    for classes in instance.apart:
        some = masks & sum(1 << c for c in classes)
        allowed &= (some & (some - 1)) == 0
    return allowed


def _largest(member: NDArray[np.bool_]) -> Ints:
    """Return the masks that are members and have no larger member above them."""
    num_classes = len(member).bit_length() - 1
    masks = np.arange(len(member))
    lower = [masks[(masks >> c & 1) == 0] for c in range(num_classes)]
    above = member.copy()  # the mask itself or a superset is a member
    for c in range(num_classes):
        above[lower[c]] |= above[lower[c] | 1 << c]
    largest = member.copy()
    for c in range(num_classes):
        largest[lower[c]] &= ~above[lower[c] | 1 << c]
    return np.flatnonzero(largest)
