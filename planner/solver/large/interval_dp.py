"""Division of the classes among device groups by dynamic programming, when only each class's own needs count.

Within a time T, class c can be on a device of group g that serves at most N_gc classes (see `class_bounds`). Rank the
classes from the hardest to the easiest, and raise N_g where need be so that it never falls along the ranks; that only
makes more possible, and little if the device kinds agree on what is hard. Then an assignment exists if and only if one
exists in which every device serves an interval of neighbouring ranks: a class in the wrong interval can be swapped
with one that is easier everywhere. A device that begins at rank r may as well serve N_gr classes. So the question is
in which order the groups follow each other along the ranks:

    reach(k + e_g) = max over g of reach(k) + N_g at rank reach(k)

where k counts the devices used of each group: a table of prod_g (n_g + 1) numbers. Where that is too many, as with
many device kinds, the flow of `class_bounds` gives the order instead (its counts are large then, so that little is
lost by dividing devices), and its bound.
"""

import math

import numpy as np

from planner.arrays import Ints
from planner.solver.large.class_bounds import ClassBounds
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance

# Largest table that is filled.
_MAX_TABLE = 6_000_000
# Rough time of filling one [s], where work is counted.
_TABLE_S = 0.05
# Bisection stops when the least time is known to this share of itself.
_PRECISION = 2e-4


class IntervalDP:
    """Dynamic program over orders of the groups along the classes, from the hardest to the easiest."""

    def __init__(self, instance: Instance, bounds: ClassBounds, max_devices: int = NEVER) -> None:
        self._instance, self._bounds, self._max_devices = instance, bounds, max_devices
        copies = max(rule.min_devices for rule in instance.survival_rules)
        hardness = sum(_ranks(single_us) for single_us in bounds.single_us)
        # Ranks from the hardest class to the easiest; a class that needs several devices, several times.
        self.order: Ints = np.argsort(-hardness, kind="stable")
        self._slots: Ints = np.repeat(self.order, copies)
        sizes = [len(group.names) + 1 for group in instance.groups]
        self.exact = math.prod(sizes) <= _MAX_TABLE
        if self.exact:
            self._sizes = np.array(sizes)
            self._strides = np.array([math.prod(sizes[g + 1 :]) for g in range(len(sizes))])
            states = np.arange(math.prod(sizes))
            used = np.zeros(len(states), dtype=np.int16)
            for g in range(len(sizes)):
                used += ((states // self._strides[g]) % self._sizes[g]).astype(np.int16)
            self._by_level = np.argsort(used, kind="stable")
            self._starts = np.searchsorted(used[self._by_level], np.arange(sum(sizes) - len(sizes) + 2))

    def sequence(self, served: Ints, latency_us: int) -> list[int] | None:
        """Return the groups of devices in the order in which they take intervals; None if there is no assignment.

        Args:
            served: N, the most classes that a device may serve when the hardest is c, (C, groups).
            latency_us: Time of N.
        """
        return self._by_table(served) if self.exact else self._by_flow(served, latency_us)

    def possible(self, latency_us: int) -> bool:
        """Return whether there may be an assignment within a time; if not, there is none."""
        served = self._bounds.served(latency_us)
        # Raised where it falls along the ranks: that makes no less possible.
        served[self.order] = np.maximum.accumulate(served[self.order], axis=0)
        return self.sequence(served, latency_us) is not None

    def slowest_us(self, clock: Clock) -> int | None:
        """Return a bound on the slowest device's latency [us]; None if there is no assignment at any.

        Out of time, it is a lower one.
        """
        if not self.exact:
            return self._bounds.slowest_us(clock)
        fast, slow = -1, self._bounds.longest_us
        if slow < 0 or not self.possible(slow):
            return None
        while slow - fast > max(1, _PRECISION * slow) and not clock.expired():
            clock.spend(_TABLE_S)
            middle = (fast + slow) // 2
            fast, slow = (fast, middle) if self.possible(middle) else (middle, slow)
        return fast + 1

    def _by_table(self, served: Ints) -> list[int] | None:
        goal = len(self._slots)
        ranks = np.arange(goal)[:, None]
        # An interval may begin earlier than it has to.
        after = np.maximum.accumulate(np.minimum(goal, ranks + served[self._slots]), axis=0)
        after = np.vstack([after, np.full((1, served.shape[1]), goal)]).T  # (groups, slots + 1)
        reach: Ints = np.zeros(len(self._by_level), dtype=np.int64)
        for level in range(1, min(len(self._starts) - 1, self._max_devices + 1)):
            states = self._by_level[self._starts[level] : self._starts[level + 1]]
            best: Ints = np.zeros(len(states), dtype=np.int64)
            for g, stride in enumerate(self._strides.tolist()):
                can = (states // stride) % self._sizes[g] > 0
                best[can] = np.maximum(best[can], after[g, reach[states[can] - stride]])
            reach[states] = best
            if len(states) and best.max() >= goal:
                return self._walk_back(int(states[int(np.argmax(best))]), reach, after)
        return None

    def _walk_back(self, state: int, reach: Ints, after: Ints) -> list[int]:
        groups: list[int] = []
        while state:
            for g, stride in enumerate(self._strides.tolist()):
                if (state // stride) % self._sizes[g] > 0 and after[g, reach[state - stride]] == reach[state]:
                    groups.append(g)
                    state -= stride
                    break
        return groups[::-1]

    def _by_flow(self, served: Ints, latency_us: int) -> list[int] | None:
        flow = self._bounds.flow(latency_us, "latency", served)
        if flow is None:
            return None
        rank = np.empty(len(self.order))
        rank[self.order] = np.arange(len(self.order))
        cells = []
        for g, _, count, shares in flow.cells:
            middle = float((shares * rank).sum() / max(1e-9, shares.sum()))
            cells += [(middle, g)] * max(1, round(count)) if count > 1e-6 else []
        left = [len(group.names) for group in self._instance.groups]
        groups = []
        for _, g in sorted(cells):
            if left[g]:
                left[g] -= 1
                groups.append(g)
        return groups


def _ranks(single_us: Ints) -> Ints:
    """Return the difficulty of each class on an option as its rank, the easiest 0."""
    middle = single_us[:, min(3, single_us.shape[1] - 1)].astype(np.float64)
    ranks: Ints = np.argsort(np.argsort(middle, kind="stable"), kind="stable")
    return ranks
