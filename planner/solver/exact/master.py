"""Master problem of the decomposition: the best assignment if every lower bound of `subset_costs` were attained.

Shared resources couple the devices: every embed dim used makes the fusion slower, every byte on a shared medium makes
its other users wait. So an assignment is searched for in a box: the use of each resource is between two limits.
Delays are computed for the lower limits, which makes the answer a bound for the box; where it uses more, and is slower
for it than assumed, the box is split there, and the halves are searched best first. (Branch and bound; without shared
media it ends after a split or two.)

Where only embed dims are shared, the best assignment of a box is found by dynamic programming (`subset_dp`), else by
CP-SAT (`assignment`), which begins where the dynamic program proves that none can be before.
"""

import heapq
import itertools
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planner.arrays import Ints
from planner.solver.exact.column_generation import cheapest_cover
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.subset_dp import SubsetDP
from planner.solver.problem.assignment import cover
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, MEDIA, NEVER
from planner.solver.problem.objective import ObjectiveFunction


@dataclass(frozen=True)
class OptimisticAssignment:
    """Assignment whose columns cost their lower bounds."""

    columns: list[Column]
    value: int
    max_compute_us: list[int]  # the longest that each column may compute with this objective still attained


class MasterProblem:
    """Search for the best optimistic assignment, again and again while the bounds rise."""

    def __init__(self, subset_costs: SubsetCosts, objective: ObjectiveFunction, max_use: Ints | None = None) -> None:
        self._subset_costs, self._objective, self._instance = subset_costs, objective, subset_costs.instance
        self._max_use = np.full(self._instance.num_resources, NEVER) if max_use is None else max_use
        self._min_use = np.zeros(self._instance.num_resources, dtype=np.int64)
        min_devices = max((rule.min_devices for rule in self._instance.survival_rules), default=1)
        self._min_use[EMBED_DIMS] = min_devices * min(option.embed_dim for option in self._instance.options)
        # Bounds only rise, so what is infeasible stays so: (time limits, max_use), and the least bottleneck of a box.
        self._infeasible: list[tuple[Ints, Ints]] = []
        self._bottlenecks: dict[bytes, int] = {}
        self._settled: dict[bytes, list[Column]] = {}
        self._dp = SubsetDP(subset_costs)

    def best_optimistic_assignment(self, clock: Clock, below: int = NEVER) -> OptimisticAssignment | None:
        """Return the best assignment with an objective below a value; None if not even lower bounds allow one.

        Raises:
            TimeoutError: If it was not found in time.
        """
        order = itertools.count()
        boxes = [(0, next(order), self._min_use, self._max_use)]
        best: OptimisticAssignment | None = None
        while boxes:
            bound, _, min_use, max_use = heapq.heappop(boxes)
            if bound >= below:
                break
            relaxed = self._relaxed(min_use, max_use, below, clock)
            if relaxed is None:
                continue
            bound, columns = relaxed
            assignment = self._assignment(columns)
            if assignment.value < below:
                best, below = assignment, assignment.value
            if assignment.value > bound:
                for child in self._halves(min_use, max_use, columns):
                    later_us = self._fusion_us(child[0]) - self._fusion_us(min_use)
                    low = bound + (later_us if self._objective.name == "latency" else 0)
                    heapq.heappush(boxes, (low, next(order), *child))
        return best

    def _assignment(self, columns: list[Column]) -> OptimisticAssignment:
        options = [self._instance.options[i.option] for i in columns]
        compute_us = [int(self._subset_costs.lower_bound[i.option, i.mask]) for i in columns]
        value = self._objective.value(options, compute_us)
        if self._objective.with_energy:
            return OptimisticAssignment(columns, value, compute_us)
        used = self._instance.used(options)
        allowed_us = self._objective.bottleneck_us(options, compute_us)
        if self._objective.name == "devices":
            allowed_us = self._objective.limit_us - self._fusion_us(used)
        max_compute_us = [min(allowed_us, NEVER - 1) - self._instance.path_us(o, used) for o in options]
        return OptimisticAssignment(columns, value, max_compute_us)

    def _fusion_us(self, used: Ints) -> int:
        return self._instance.fusion_us(int(used[EMBED_DIMS]))

    def _relaxed(self, min_use: Ints, max_use: Ints, below: int, clock: Clock) -> tuple[int, list[Column]] | None:
        """Return a bound on the objective within a box, and the columns that attain it; None if none is below."""
        paths_us = np.array([self._instance.path_us(option, min_use) for option in self._instance.options])
        fusion_us = self._fusion_us(min_use)
        if self._objective.name == "latency":
            found = self._min_bottleneck(paths_us, min_use, max_use, below - 1 - fusion_us, clock)
            return None if found is None else (found[0] + fusion_us, found[1])
        limits = self._objective.limit_us - fusion_us - paths_us
        if self._objective.name == "devices":
            columns = self._fewest(limits, max_use, clock)
            return None if columns is None else (len(columns), columns)
        columns = self._cover(limits, max_use, clock)
        return None if columns is None else (sum(self._energy(i) for i in columns), columns)

    def _fewest(self, limits: Ints, max_use: Ints, clock: Clock) -> list[Column] | None:
        """Return the assignment of fewest devices; within the energy limit, where there is one."""
        columns = self._cover(limits, max_use, clock)
        # Where energy counts, that was the one of least energy: fewer devices may do with more.
        while columns is not None and self._objective.with_energy:
            fewer = max_use.copy()
            fewer[DEVICES] = len(columns) - 1
            found = self._cover(limits, fewer, clock)
            if found is None:
                break
            columns = found
        return columns

    def _energy(self, column: Column) -> int:
        rate = self._instance.options[column.option].energy_per_us
        return rate * int(self._subset_costs.lower_bound[column.option, column.mask])

    def _halves(self, min_use: Ints, max_use: Ints, columns: list[Column]) -> Iterator[tuple[Ints, Ints]]:
        """Split a box at the use of the columns, where that costs most beyond what was assumed."""
        used = self._instance.used(self._instance.options[i.option] for i in columns)
        rates = [0.0, 0.0, *(2 * [float(rate) for rate in self._instance.us_per_byte])]
        delays = (used - min_use) * np.array(rates)
        delays[EMBED_DIMS] = self._fusion_us(used) - self._fusion_us(min_use)
        r = int(np.argmax(np.where(used > min_use, delays, -1.0)))
        if used[r] <= min_use[r]:
            return
        fewer, more = max_use.copy(), min_use.copy()
        fewer[r], more[r] = used[r] - 1, used[r]
        yield min_use, fewer
        yield more, max_use

    def _min_bottleneck(
        self, paths_us: Ints, min_use: Ints, max_use: Ints, to_us: int, clock: Clock
    ) -> tuple[int, list[Column]] | None:
        """Return the least latency of the slowest device at which all classes can be served, and the columns."""
        box = min_use[MEDIA:].tobytes() + max_use.tobytes()
        from_us = self._bottlenecks.get(box, 0)
        if self._dp.is_quick and from_us <= to_us:
            from_us = max(from_us, self._dp.bottleneck_us(paths_us, clock))
        if to_us < from_us:
            return None
        if self._dp.decides(max_use) and not self._objective.with_energy:
            return self._by_dp(box, from_us, paths_us, max_use, to_us, clock)

        def columns_at(latency_us: int) -> list[Column] | None:
            return self._cover(latency_us - paths_us, max_use, clock)

        def levels(above_us: int, up_to_us: int) -> list[int]:
            return self._levels(paths_us, above_us, up_to_us)

        # The answer is most often the first level: gallop from there, then halve. Bounds rise as
        # they are looked at, so the levels between are listed anew each time.
        level, failed, step = from_us, from_us - 1, 1
        while (columns := columns_at(level)) is None:
            failed = level
            above = levels(failed, to_us)
            if not above:
                self._bottlenecks[box] = to_us + 1
                return None
            level, step = above[min(step, len(above)) - 1], 2 * step
        while between := levels(failed, level - 1):
            middle = between[len(between) // 2]
            faster = columns_at(middle)
            if faster is None:
                failed = middle
            else:
                level, columns = middle, faster
        self._bottlenecks[box] = level
        return level, columns

    def _by_dp(
        self, box: bytes, from_us: int, paths_us: Ints, max_use: Ints, to_us: int, clock: Clock
    ) -> tuple[int, list[Column]] | None:
        """Return the same as `_min_bottleneck`, where devices share nothing but embed dims."""
        level, columns = from_us, self._settled.get(box, [])
        # Bounds only rise: what was best is so as long as its own bounds stand.
        if columns and all(
            self._subset_costs.lower_bound[i.option, i.mask] + paths_us[i.option] <= level for i in columns
        ):
            return level, columns
        while not clock.expired():
            if self._dp.embed_dims(level - paths_us, clock) > max_use[EMBED_DIMS]:
                level = self._first_level(level, paths_us, max_use, to_us, clock)
            self._bottlenecks[box] = level
            if level > to_us:
                return None
            # Columns at this level are relaxed, and then may no longer be at it.
            before = self._subset_costs.num_relaxed
            self._subset_costs.largest_within(level - paths_us, clock)
            if self._subset_costs.num_relaxed == before:
                self._settled[box] = self._dp.columns(level - paths_us, clock)
                return level, self._settled[box]
            level = max(level, self._dp.bottleneck_us(paths_us, clock))
        raise TimeoutError

    def _first_level(self, failed: int, paths_us: Ints, max_use: Ints, to_us: int, clock: Clock) -> int:
        """Return the least latency [us] at which few enough embed dims may do; more than `to_us` if there is none."""
        levels = [*self._levels(paths_us, failed, to_us), to_us + 1]
        return levels[
            bisect_left(
                levels[:-1],
                x=True,
                key=lambda us: self._dp.embed_dims(us - paths_us, clock) <= max_use[EMBED_DIMS],
            )
        ]

    def _levels(self, paths_us: Ints, above_us: int, up_to_us: int) -> list[int]:
        """Return the lower bounds of latency [us] in a range that some column has."""
        times = self._subset_costs.lower_bound + paths_us[:, None]
        between: list[int] = np.unique(times[(times > above_us) & (times <= up_to_us)]).tolist()
        return between

    def _cover(self, limits: Ints, max_use: Ints, clock: Clock) -> list[Column] | None:
        """Return the best assignment of columns that compute within limits [us] of each option."""
        if any((limits <= worse).all() and (max_use <= fewer).all() for worse, fewer in self._infeasible):
            return None
        columns = self._searched(limits, max_use, clock)
        if columns is None:
            self._infeasible.append((limits, max_use))
        return columns

    def _searched(self, limits: Ints, max_use: Ints, clock: Clock) -> list[Column] | None:
        instance = self._instance
        if not self._objective.with_energy:
            candidates = self._subset_costs.largest_within(limits, clock)
            by_count = self._objective.name == "devices"
            weights = [1 if by_count else instance.options[i.option].embed_dim for i in candidates]
            return cover(instance, candidates, weights, max_use, clock)
        columns = cheapest_cover(self._subset_costs, limits, max_use, clock)
        if columns is None or (
            instance.max_energy is not None and sum(map(self._energy, columns)) > instance.max_energy
        ):
            return None
        return columns
