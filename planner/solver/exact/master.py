"""The best assignment there would be, were every bound of `knowledge` kept.

What devices share makes one slow the others: every embed dim used takes the fusion longer, every
byte on a shared medium makes its other users wait. So an assignment is searched for in a box:
of each resource, at least so much and at most so much is used. Delays are computed for the
least, which makes the answer a bound for the box; where it uses more than the least, and is
slower for it than it seemed, the box is split there, and the halves are searched, the more
promising first. (Branch and bound; without media it is done after a split or two.)

Where only embed dims are shared, the best assignment of a box is found by `partition`, else by
CP-SAT (`assign`), beginning where `partition` says that none can be before.
"""

import heapq
import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Ints
from planner.schema import Objective
from planner.solver.exact.assignment import Column, cover
from planner.solver.exact.column_generation import cheapest_cover
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.subset_dp import SubsetDP
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, MEDIA, NEVER, Instance, Option, PlacedSubModel


class ObjectiveFunction:
    """What assignments are judged by, in whole numbers: latency [us], energy [units] or devices."""

    def __init__(self, instance: Instance, objective: Objective = "latency") -> None:
        self.instance, self.objective = instance, objective
        limit_us = instance.goal.max_latency_us
        # Least latency needs no limit on the way: whether it is within the limit is seen at the end.
        self.limit_us = NEVER if limit_us is None or objective == "latency" else limit_us
        self.with_energy = objective == "energy" or instance.max_energy is not None

    def value(self, options: Sequence[Option], compute_us: Sequence[int]) -> int:
        """Return the objective; `NEVER` where a limit is broken."""
        instance = self.instance
        latency_us = self.slowest_us(options, compute_us) + instance.fusion_us(sum(o.embed_dim for o in options))
        energy = sum(o.energy_per_us * us for o, us in zip(options, compute_us, strict=True))
        if latency_us > self.limit_us or (instance.max_energy is not None and energy > instance.max_energy):
            return NEVER
        return {"latency": latency_us, "accuracy": latency_us, "energy": energy, "devices": len(options)}[
            self.objective
        ]

    def value_of(self, placed: Sequence[PlacedSubModel]) -> int:
        """Return the objective of a plan; `NEVER` where a limit is broken."""
        return self.value([p.option for p in placed], [self.instance.compute_us(p.option, p.kept) for p in placed])

    def slowest_us(self, options: Sequence[Option], compute_us: Sequence[int]) -> int:
        """Return the latency [us] of the slowest device."""
        used = self.instance.used(options)
        return max(self.instance.path_us(o, used) + us for o, us in zip(options, compute_us, strict=True))


@dataclass(frozen=True)
class OptimisticAssignment:
    """An assignment, and its objective if every bound is kept."""

    picks: list[Column]
    value: int
    needed_us: list[int]  # the most compute time of each pick with which the promise is kept


class MasterProblem:
    """Finds the best promise again and again while the knowledge grows."""

    def __init__(self, knowledge: SubsetCosts, judge: ObjectiveFunction, most: Ints | None = None) -> None:
        self._knowledge, self._judge, self._instance = knowledge, judge, knowledge.instance
        self._most = np.full(self._instance.num_resources, NEVER) if most is None else most
        self._least = np.zeros(self._instance.num_resources, dtype=np.int64)
        fewest = max((rule.least for rule in self._instance.survivors), default=1)
        self._least[EMBED_DIMS] = fewest * min(option.embed_dim for option in self._instance.options)
        # What cannot be stays so, since bounds only rise: (limits, most), and the least bottleneck of a box.
        self._hopeless: list[tuple[Ints, Ints]] = []
        self._floors: dict[bytes, int] = {}
        self._settled: dict[bytes, list[Column]] = {}
        self._partition = SubsetDP(knowledge)

    def best(self, clock: Clock, below: int = NEVER) -> OptimisticAssignment | None:
        """Return the best promise below a value; None if not even promises make such a plan.

        Raises:
            TimeoutError: If it was not found in time.
        """
        order = itertools.count()
        boxes = [(0, next(order), self._least, self._most)]
        best: OptimisticAssignment | None = None
        while boxes:
            bound, _, least, most = heapq.heappop(boxes)
            if bound >= below:
                break
            relaxed = self._relaxed(least, most, below, clock)
            if relaxed is None:
                continue
            bound, picks = relaxed
            promise = self._promise(picks)
            if promise.value < below:
                best, below = promise, promise.value
            if promise.value > bound:
                for child in self._halves(least, most, picks):
                    later_us = self._fusion_us(child[0]) - self._fusion_us(least)
                    low = bound + (later_us if self._judge.objective == "latency" else 0)
                    heapq.heappush(boxes, (low, next(order), *child))
        return best

    def _promise(self, picks: list[Column]) -> OptimisticAssignment:
        options = [self._instance.options[i.option] for i in picks]
        compute_us = [int(self._knowledge.low[i.option, i.mask]) for i in picks]
        value = self._judge.value(options, compute_us)
        if self._judge.with_energy:
            return OptimisticAssignment(picks, value, compute_us)
        used = self._instance.used(options)
        allowed_us = self._judge.slowest_us(options, compute_us)
        if self._judge.objective == "devices":
            allowed_us = self._judge.limit_us - self._fusion_us(used)
        return OptimisticAssignment(
            picks, value, [min(allowed_us, NEVER - 1) - self._instance.path_us(o, used) for o in options]
        )

    def _fusion_us(self, used: Ints) -> int:
        return self._instance.fusion_us(int(used[EMBED_DIMS]))

    def _relaxed(self, least: Ints, most: Ints, below: int, clock: Clock) -> tuple[int, list[Column]] | None:
        """Return a bound on the objective within a box, and the picks that have it; None if none is below."""
        paths_us = np.array([self._instance.path_us(option, least) for option in self._instance.options])
        fusion_us = self._fusion_us(least)
        if self._judge.objective == "latency":
            found = self._least_bottleneck(paths_us, least, most, below - 1 - fusion_us, clock)
            return None if found is None else (found[0] + fusion_us, found[1])
        limits = self._judge.limit_us - fusion_us - paths_us
        if self._judge.objective == "devices":
            picks = self._fewest(limits, most, clock)
            return None if picks is None else (len(picks), picks)
        picks = self._cover(limits, most, clock)
        return None if picks is None else (sum(self._energy(i) for i in picks), picks)

    def _fewest(self, limits: Ints, most: Ints, clock: Clock) -> list[Column] | None:
        """Return the assignment of fewest devices; within the energy limit, where there is one."""
        picks = self._cover(limits, most, clock)
        # Where energy counts, that was the one of least energy: fewer devices may do with more.
        while picks is not None and self._judge.with_energy:
            fewer = most.copy()
            fewer[DEVICES] = len(picks) - 1
            found = self._cover(limits, fewer, clock)
            if found is None:
                break
            picks = found
        return picks

    def _energy(self, i: Column) -> int:
        return self._instance.options[i.option].energy_per_us * int(self._knowledge.low[i.option, i.mask])

    def _halves(self, least: Ints, most: Ints, picks: list[Column]) -> Iterator[tuple[Ints, Ints]]:
        """Split a box at what the picks use, where that costs most beyond what was assumed."""
        used = self._instance.used(self._instance.options[i.option] for i in picks)
        rates = [0.0, 0.0, *(2 * [float(rate) for rate in self._instance.us_per_byte])]
        delays = (used - least) * np.array(rates)
        delays[EMBED_DIMS] = self._fusion_us(used) - self._fusion_us(least)
        r = int(np.argmax(np.where(used > least, delays, -1.0)))
        if used[r] <= least[r]:
            return
        fewer, more = most.copy(), least.copy()
        fewer[r], more[r] = used[r] - 1, used[r]
        yield least, fewer
        yield more, most

    def _least_bottleneck(
        self, paths_us: Ints, least: Ints, most: Ints, to_us: int, clock: Clock
    ) -> tuple[int, list[Column]] | None:
        """Return the least latency of the slowest device at which all classes can be served, and by what."""
        box = least[MEDIA:].tobytes() + most.tobytes()
        from_us = self._floors.get(box, 0)
        if self._partition.is_quick and from_us <= to_us:
            from_us = max(from_us, self._partition.slowest_us(paths_us, clock))
        if to_us < from_us:
            return None
        if self._partition.decides(most) and not self._judge.with_energy:
            return self._by_partition(box, from_us, paths_us, most, to_us, clock)

        def picks_at(latency_us: int) -> list[Column] | None:
            return self._cover(latency_us - paths_us, most, clock)

        def levels(above_us: int, up_to_us: int) -> list[int]:
            return self._levels(paths_us, above_us, up_to_us)

        # The answer is most often the first level: gallop from there, then halve. Bounds rise as
        # they are looked at, so the levels between are asked for anew each time.
        level, failed, step = from_us, from_us - 1, 1
        while (picks := picks_at(level)) is None:
            failed = level
            above = levels(failed, to_us)
            if not above:
                self._floors[box] = to_us + 1
                return None
            level, step = above[min(step, len(above)) - 1], 2 * step
        while between := levels(failed, level - 1):
            middle = between[len(between) // 2]
            fewer = picks_at(middle)
            if fewer is None:
                failed = middle
            else:
                level, picks = middle, fewer
        self._floors[box] = level
        return level, picks

    def _by_partition(
        self, box: bytes, from_us: int, paths_us: Ints, most: Ints, to_us: int, clock: Clock
    ) -> tuple[int, list[Column]] | None:
        """Do as `_least_bottleneck`, where devices share nothing but embed dims."""
        level, picks = from_us, self._settled.get(box, [])
        # Bounds only rise: what was best is so while it is still promised.
        if picks and all(self._knowledge.low[i.option, i.mask] + paths_us[i.option] <= level for i in picks):
            return level, picks
        while not clock.expired():
            if self._partition.embed_dims(level - paths_us, clock) > most[EMBED_DIMS]:
                level = self._least_within(level, paths_us, most, to_us, clock)
            self._floors[box] = level
            if level > to_us:
                return None
            # What is promised at this level is looked at more closely, and then may no longer be.
            before = self._knowledge.num_bounded
            self._knowledge.within(level - paths_us, clock)
            if self._knowledge.num_bounded == before:
                self._settled[box] = self._partition.picks(level - paths_us, clock)
                return level, self._settled[box]
            level = max(level, self._partition.slowest_us(paths_us, clock))
        raise TimeoutError

    def _least_within(self, failed: int, paths_us: Ints, most: Ints, to_us: int, clock: Clock) -> int:
        """Return the least latency [us] at which few enough embed dims may do; more than `to_us` if there is none."""
        levels = [*self._levels(paths_us, failed, to_us), to_us + 1]
        return levels[
            bisect_left(
                levels[:-1],
                x=True,
                key=lambda us: self._partition.embed_dims(us - paths_us, clock) <= most[EMBED_DIMS],
            )
        ]

    def _levels(self, paths_us: Ints, above_us: int, up_to_us: int) -> list[int]:
        """Return the latencies [us] between these that some sub-model has, as far as is known."""
        times = self._knowledge.low + paths_us[:, None]
        between: list[int] = np.unique(times[(times > above_us) & (times <= up_to_us)]).tolist()
        return between

    def _cover(self, limits: Ints, most: Ints, clock: Clock) -> list[Column] | None:
        """Return the best assignment of what computes within these limits [us] of each option."""
        if any((limits <= worse).all() and (most <= fewer).all() for worse, fewer in self._hopeless):
            return None
        picks = self._searched(limits, most, clock)
        if picks is None:
            self._hopeless.append((limits, most))
        return picks

    def _searched(self, limits: Ints, most: Ints, clock: Clock) -> list[Column] | None:
        instance = self._instance
        if not self._judge.with_energy:
            candidates = self._knowledge.within(limits, clock)
            by_count = self._judge.objective == "devices"
            weights = [1 if by_count else instance.options[i.option].embed_dim for i in candidates]
            return cover(instance, candidates, weights, most, clock)
        picks = cheapest_cover(self._knowledge, limits, most, clock)
        if picks is None or (instance.max_energy is not None and sum(map(self._energy, picks)) > instance.max_energy):
            return None
        return picks
