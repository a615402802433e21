"""The least latency of a fleet, with a proof, for up to a dozen classes.

t(o, S), the least latency of a sub-model for class subset S on option o, is a small but hard
problem, and there are 2^C of them for each option. Few matter. So each starts with a cheap
bound, and only those that the assignment wants to use are looked at more closely:

1. With the bounds in the place of t, find the assignment of least latency. It is a bound on the
   latency of the fleet, since it believes every promise.
2. Where it uses a sub-model that nobody has built yet, build it: first a bound by linear
   programming, then the exact one. What is learned of S is a bound for every
   superset of S too, since more classes never need less.
3. When every sub-model of the assignment of step 1 exists, that assignment is a plan, and its
   latency is its own bound: optimal. Until then, go back to 1.

Bounds only rise, and in the end are exact, so this ends; stopped early, it has a bound and
usually a plan.
"""

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from planner.solver import submodel
from planner.solver.assign import Candidate, classes_of, cover
from planner.solver.instance import NEVER, Found, Instance, Ints, Placed, Progress
from planner.solver.submodel import Answer, LinearBound

MOST_CLASSES = 12


class Cost(Protocol):
    """What the slowest device is judged by: a number for each option and class subset, the less the better."""

    def bound(self, option: int, classes: tuple[int, ...]) -> LinearBound | None:
        """Return a bound for these classes and others like them; None if the option cannot serve them."""
        ...

    def least(self, option: int, classes: tuple[int, ...], seconds: float) -> Answer:
        """Return the least cost of any sub-model for these classes."""
        ...

    def of(self, option: int, kept: tuple[int, ...]) -> int:
        """Return the cost of a sub-model."""
        ...


class Latency:
    """The cost that plans are made for [us]."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._relaxations = [submodel.Relaxation(instance, option) for option in instance.options]

    def bound(self, option: int, classes: tuple[int, ...]) -> LinearBound | None:
        """See `Cost`."""
        bound = self._relaxations[option].bound(classes)
        if bound is None:
            return None
        return LinearBound(bound.binding, bound.by_count + self._instance.options[option].path_us)

    def least(self, option: int, classes: tuple[int, ...], seconds: float) -> Answer:
        """See `Cost`."""
        at = self._instance.options[option]
        answer = submodel.cheapest(self._instance, at, classes, seconds)
        if answer.bound is None:
            return answer
        return Answer(at.path_us + answer.bound, answer.kept)

    def of(self, option: int, kept: tuple[int, ...]) -> int:
        """See `Cost`."""
        return self._instance.latency_us(self._instance.options[option], kept)


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
        # (latency, embed dims) within which no assignment exists; bounds only rise, so it stays true.
        self.hopeless: list[tuple[int, int]] = []
        self._bounded: NDArray[np.bool_] = np.zeros(shape, dtype=bool)
        self.low[:, 0] = NEVER
        for o in range(shape[0]):
            for c in range(num_classes):
                self._bound(Candidate(o, 1 << c))

    def within(self, latency_us: int, deadline: float) -> list[Candidate]:
        """Return the largest class subsets that may be this fast, as far as their relaxations tell.

        Raises:
            TimeoutError: If the deadline passes on the way.
        """
        candidates = []
        for o, row in enumerate(self.low):
            while True:
                masks = _largest(row <= latency_us)
                unbounded = masks[~self._bounded[o, masks]]
                if not len(unbounded):
                    break
                for mask in unbounded.tolist():
                    if time.monotonic() > deadline:
                        raise TimeoutError
                    # What was learned of one may have settled the next.
                    if row[mask] <= latency_us:
                        self._bound(Candidate(o, mask))
            candidates += [Candidate(o, mask) for mask in masks.tolist()]
        return candidates

    def levels(self, above_us: int, to_us: int) -> list[int]:
        """Return the different bounds above one latency and up to another, rising."""
        levels: list[int] = np.unique(self.low[(self.low > above_us) & (self.low <= to_us)]).tolist()
        return levels

    def examine(self, candidate: Candidate, seconds: float) -> None:
        """Build the candidate's cheapest sub-model, or learn that it does not exist."""
        answer = self._cost.least(candidate.option, candidate.classes, seconds)
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

    def _bound(self, candidate: Candidate) -> None:
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

    def _raise_low(self, candidate: Candidate, latency_us: int) -> None:
        """Raise the bound of a class subset and of its supersets with no lower floor."""
        mask, by_count = candidate.mask, self.instance.floor.by_count
        n = mask.bit_count()
        stricter = np.array(
            [False] + [k >= n and by_count[k - 1] >= by_count[n - 1] for k in range(1, len(by_count) + 1)]
        )
        row = self.low[candidate.option]
        supersets = ((self.masks & mask) == mask) & stricter[self.sizes]
        row[supersets] = np.maximum(row[supersets], latency_us)


def _largest(member: NDArray[np.bool_]) -> Ints:
    """Return the masks that are members and, with any one class more, would not be."""
    num_classes = len(member).bit_length() - 1
    largest = member.copy()
    masks = np.arange(len(member))
    for c in range(num_classes):
        without = masks[(masks >> c & 1) == 0]
        largest[without] &= ~member[without | 1 << c]
    return np.flatnonzero(largest)


def search(knowledge: Knowledge, deadline: float, progress: Progress, enough_us: int = 0) -> Found:
    """Find the assignment of least latency and prove it, or come as far as the deadline allows.

    Args:
        knowledge: Of an instance with at most `MOST_CLASSES` classes; what is learned is added to it.
        deadline: When to stop, in the time of `time.monotonic` [s].
        progress: Called with the best latency so far and the bound [us].
        enough_us: Stop at any plan that is this fast.
    """
    best: tuple[Placed, ...] | None = None
    best_us, bound_us, least_us = NEVER, 0, 0
    try:
        while True:
            promise = _least_promise(knowledge, least_us, deadline)
            if promise is None:
                return Found(None, None)
            least_us = promise.least_us
            bound_us = max(bound_us, promise.total_us)
            unbuilt = [pick for pick in promise.picks if knowledge.high[pick.option, pick.mask] > promise.bottleneck_us]
            for pick in unbuilt:
                knowledge.examine(pick, deadline - time.monotonic())
            if all(pick in knowledge.kept for pick in promise.picks):
                total_us = _total_us(knowledge, promise.picks)
                if total_us < best_us:
                    best_us, best = total_us, _placed(knowledge, promise.picks)
            progress(best_us if best else None, bound_us)
            if best_us <= bound_us:
                return Found(best, best_us)
            if (best is not None and best_us <= enough_us) or time.monotonic() > deadline:
                return Found(best, bound_us)
    except TimeoutError:
        return Found(best, bound_us)


@dataclass(frozen=True)
class _Promise:
    picks: list[Candidate]
    bottleneck_us: int
    total_us: int
    least_us: int  # the least bottleneck of any assignment, whatever its fusion costs


def _least_promise(knowledge: Knowledge, least_us: int, deadline: float) -> _Promise | None:
    """Return the assignment of least latency, with every bound believed; None if there is none.

    A slower bottleneck can pay where it makes do with fewer embed dims, which the fusion has to
    go through; so those are asked for too, as long as they could win.
    """
    instance = knowledge.instance
    first = _least_bottleneck(knowledge, least_us, NEVER - 1, None, deadline)
    if first is None:
        return None
    least_us, picks = first
    bottleneck_us = least_us
    fewest = min(option.embed_dim for option in instance.options)
    best: _Promise | None = None
    while True:
        embed_dims = sum(instance.options[i.option].embed_dim for i in picks)
        total_us = bottleneck_us + instance.fusion_us(embed_dims)
        if best is None or total_us < best.total_us:
            best = _Promise(picks, bottleneck_us, total_us, least_us)
        most_us = best.total_us - 1 - instance.fusion_us(fewest)
        slower = _least_bottleneck(knowledge, bottleneck_us, most_us, embed_dims - 1, deadline)
        if slower is None:
            return best
        bottleneck_us, picks = slower


def _least_bottleneck(
    knowledge: Knowledge, from_us: int, to_us: int, most_embed_dims: int | None, deadline: float
) -> tuple[int, list[Candidate]] | None:
    """Return the least bottleneck within a range at which all classes can be served, and by what."""
    dims = NEVER if most_embed_dims is None else most_embed_dims
    if to_us < from_us or any(to_us <= us and dims <= most for us, most in knowledge.hopeless):
        return None

    def picks_at(latency_us: int) -> list[Candidate] | None:
        seconds = deadline - time.monotonic()
        return cover(knowledge.instance, knowledge.within(latency_us, deadline), most_embed_dims, seconds)

    # The answer is most often the first level: gallop from there, then halve. Bounds rise as
    # they are looked at, so the levels between are asked for anew each time.
    level, failed, step = from_us, from_us - 1, 1
    while (picks := picks_at(level)) is None:
        failed = level
        above = knowledge.levels(failed, to_us)
        if not above:
            knowledge.hopeless.append((to_us, dims))
            return None
        level, step = above[min(step, len(above)) - 1], 2 * step
    while between := knowledge.levels(failed, level - 1):
        middle = between[len(between) // 2]
        fewer = picks_at(middle)
        if fewer is None:
            failed = middle
        else:
            level, picks = middle, fewer
    return level, picks


def _total_us(knowledge: Knowledge, picks: list[Candidate]) -> int:
    options = knowledge.instance.options
    slowest = max(int(knowledge.high[pick.option, pick.mask]) for pick in picks)
    return slowest + knowledge.instance.fusion_us(sum(options[pick.option].embed_dim for pick in picks))


def _placed(knowledge: Knowledge, picks: list[Candidate]) -> tuple[Placed, ...]:
    options = knowledge.instance.options
    return tuple(Placed(options[p.option], classes_of(p.mask), knowledge.kept[p]) for p in picks)
