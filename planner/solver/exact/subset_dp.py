"""Assignments by dynamic programming over class subsets, for devices that share little.

With costs v_d(S) of device d for class subset S (a device that can serve more can serve S, so
they only fall from S to a subset), and F_0 = 0 for no class:

    F_d(M) = least over S within M of  F_{d-1}(M without S) (+) v_d(S)

is the least cost at which devices 1..d serve all of M; (+) is the larger one for latencies, the
sum for weights. That is 3^C steps for each device, a millisecond for 10 classes and 6 devices.

What devices share (a medium, a limit on their number) and classes on several devices are left
out: with them, this is a bound. Embed dims are a weight.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from planner.arrays import Ints
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.instance import EMBED_DIMS, NEVER
from planner.solver.problem.subsets import halves_by_class

# More steps than this take longer than a CP-SAT model of the assignment.
_MAX_STEPS = 10**7
# Rough time of a step [s], where work is counted.
_STEP_S = 5e-9
# The weight of an embed dim, where sub-models that are still to be built count 1.
_PER_EMBED_DIM = 2**20


@dataclass(frozen=True, eq=False)
class _Splits:
    """All splits of each class subset in two: `part` and `rest`, those of mask M from `start[M]` on."""

    part: NDArray[np.int32]
    rest: NDArray[np.int32]
    start: Ints


@lru_cache(maxsize=2)
def _splits(num_classes: int) -> _Splits:
    part, rest = np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int32)
    for c in range(num_classes):  # a class is in neither, in the part, or in the rest
        part = np.concatenate([part, part | 1 << c, part])
        rest = np.concatenate([rest, rest, rest | 1 << c])
    order = np.argsort(part | rest, kind="stable")
    part, rest = part[order].astype(np.int32), rest[order].astype(np.int32)
    return _Splits(part, rest, np.searchsorted(part | rest, np.arange(2**num_classes)))


class SubsetDP:
    """Dynamic program over the devices of an instance, at the lower bounds of its class subsets."""

    def __init__(self, subset_costs: SubsetCosts) -> None:
        self._subset_costs = subset_costs
        instance = subset_costs.instance
        # Of more devices than classes, some have nothing to do; unless all of them must.
        counts = [len(g.names) if g.pinned else min(instance.num_classes, len(g.names)) for g in instance.groups]
        self._group_of = [g for g, count in enumerate(counts) for _ in range(count)]
        self._options_of = [[o for o, x in enumerate(instance.options) if x.group == g] for g in range(len(counts))]
        self._steps = 3**instance.num_classes * len(self._group_of)
        self.is_quick = self._steps <= _MAX_STEPS

    def decides(self, max_use: Ints) -> bool:
        """Return whether the program is exact within limits of each resource, (R,)."""
        rules, others = self._subset_costs.instance.survival_rules, np.delete(max_use, EMBED_DIMS)
        return self.is_quick and len(rules) == 1 and rules[0].min_devices == 1 and bool((others >= NEVER).all())

    def bottleneck_us(self, paths_us: Ints, clock: Clock) -> int:
        """Return the least latency [us] of the slowest device; `NEVER` if there is no assignment.

        Args:
            paths_us: The time [us] of sending and returning, of each option, (O,).
            clock: Clock that counts the work.
        """
        return self._least(self._by_device(self._subset_costs.lower_bound + paths_us[:, None]), np.maximum, clock)

    def embed_dims(self, limits: Ints, clock: Clock) -> int:
        """Return the least embed dims of assignments that compute within limits [us] of each option, (O,).

        `NEVER` if there is none.
        """
        least = self._least(self._by_device(self._weights(limits)), np.add, clock)
        return NEVER if least >= NEVER else least // _PER_EMBED_DIM

    def columns(self, limits: Ints, clock: Clock) -> list[Column]:
        """Return the assignment of least embed dims within limits, of which there must be one; built columns first."""
        weights = self._weights(limits)
        by_device = self._by_device(weights)
        tables = self._tables(by_device, np.add, clock)
        splits, left, columns = _splits(self._subset_costs.instance.num_classes), len(weights[0]) - 1, []
        for g, costs, before in reversed(list(zip(self._group_of, by_device, [None, *tables], strict=True))):
            part = left
            if before is not None:
                ways = slice(splits.start[left], splits.start[left] + 2 ** left.bit_count())
                least = np.argmin(before[splits.rest[ways]] + costs[splits.part[ways]])
                part = int(splits.part[ways][least])
            if costs[part]:
                columns.append(self._largest(g, part, weights))
            left &= ~part
        return columns

    def _weights(self, limits: Ints) -> Ints:
        """Return the weight of each column: its embed dims, then one if it is still to be built, (O, 2^C)."""
        embed_dims = np.array([option.embed_dim for option in self._subset_costs.instance.options])
        unbuilt = self._subset_costs.upper_bound > limits[:, None]
        weights: Ints = np.where(
            self._subset_costs.lower_bound <= limits[:, None], embed_dims[:, None] * _PER_EMBED_DIM + unbuilt, NEVER
        )
        return weights

    def _largest(self, group: int, part: int, weights: Ints) -> Column:
        """Return the lightest column of a group that holds these classes, and of several the largest."""
        masks, rows = self._subset_costs.masks, self._options_of[group]
        holding = masks[(masks & part) == part]
        here = weights[np.ix_(rows, holding)]
        lightest = np.argwhere(here == here.min())
        row, i = lightest[np.argmax(self._subset_costs.sizes[holding[lightest[:, 1]]])].tolist()
        return Column(rows[row], int(holding[i]))

    def _by_device(self, costs: Ints) -> list[Ints]:
        """Return the cost of each class subset on each device: that of its cheapest superset; idle costs nothing."""
        subset_costs = self._subset_costs
        by_group = []
        for group, rows in zip(subset_costs.instance.groups, self._options_of, strict=True):
            least = costs[rows].min(axis=0)
            for below, above in halves_by_class(
                least.reshape((2,) * subset_costs.instance.num_classes), subset_costs.instance.num_classes
            ):
                np.minimum(below, above, out=below)
            if not group.pinned:
                least[0] = 0
            by_group.append(least)
        return [by_group[g] for g in self._group_of]

    def _tables(self, by_device: list[Ints], plus: np.ufunc, clock: Clock) -> list[Ints]:
        """Return F of all devices but the last, each (2^C,)."""
        clock.spend(_STEP_S * self._steps)
        splits = _splits(self._subset_costs.instance.num_classes)
        tables = by_device[:1]
        for costs in by_device[1:-1]:
            ways = plus(tables[-1][splits.rest], costs[splits.part])
            tables.append(np.minimum(NEVER, np.minimum.reduceat(ways, splits.start)))
        return tables[: len(by_device) - 1]

    def _least(self, by_device: list[Ints], plus: np.ufunc, clock: Clock) -> int:
        tables = self._tables(by_device, plus, clock)
        if not tables:
            return int(by_device[0][-1])
        splits = _splits(self._subset_costs.instance.num_classes)
        last = splits.start[-1]
        return int(plus(tables[-1][splits.rest[last:]], by_device[-1][splits.part[last:]]).min())
