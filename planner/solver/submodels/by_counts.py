"""Cheapest sub-model by branching on how many units of each cost are kept.

Units cost alike by the hundred (a head takes as long as any other, so does a channel group), so the time of a sub-model
is known from a few counts: heads, channel groups, half-blocks in use. Its relaxation leaves those counts fractional,
and most of the distance between relaxed and whole sub-models is in rounding them. With all counts fixed, CP-SAT decides
in hundredths of a second whether there is a sub-model, where the problem with free counts may take a minute.

So nodes are boxes of counts, bounded by their relaxations and taken best first. One whose relaxation has whole counts
is decided (`knapsack.with_counts`); if there is no sub-model with just these counts, the box is split around them. What
is not settled after some of that is left to CP-SAT as one model.

Legend: K costs that units, or charges of unit sets, have in common.

Source: Land and Doig, An automatic method of solving discrete programming problems, doi:10.2307/1910129.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ortools.linear_solver import pywraplp

from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER, Instance
from planner.solver.problem.option import Option
from planner.solver.submodels import knapsack
from planner.solver.submodels.knapsack import SubModelResult
from planner.solver.submodels.lagrangian import LagrangianHeuristic
from planner.solver.submodels.relaxation import Relaxation, safely_rounded_up

# Of more costs than this, most counts are small and say little.
_MAX_COSTS = 8
# Boxes and counts without a sub-model, after which one model takes over.
_MAX_NODES, _MAX_REFUTED = 150, 12
_WHOLE = 1e-6
# Rough time of a relaxation [s], where work is counted.
_LP_S = 1e-3

# Least and most of each count, (K,) each.
_Box = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class _Node:
    """Box of counts with its relaxation: least compute time [us], and the counts at which it is reached."""

    bound_us: int
    box: _Box
    counts: tuple[float, ...]


@dataclass(frozen=True)
class _Best:
    """Best sub-model so far: its compute time [us], `NEVER` before there is one, and its units."""

    us: int
    kept: tuple[int, ...] | None


class CheapestSubModels:
    """Cheapest sub-models of one option, for any class subsets."""

    def __init__(self, instance: Instance, option: Option) -> None:
        self._instance, self._option = instance, option
        costs = option.costs
        # What is counted: units by their ticks, then unit sets by their charges.
        self._units = knapsack.alike(costs.unit_ticks.tolist())
        self._charges = knapsack.alike(costs.charges.tolist())
        self._relaxation: _CountedRelaxation | None = None
        self._heuristic = LagrangianHeuristic(instance, option)

    def cheapest(
        self, classes: Sequence[int], clock: Clock, enough_us: int = 0, beyond_us: int = NEVER
    ) -> SubModelResult:
        """Return the least compute time [us] of a sub-model for these classes.

        Args:
            classes: Class subset.
            clock: Time for it.
            enough_us: Any sub-model is good enough that takes at most so long [us].
            beyond_us: No sub-model is of interest once it is proven that none takes less [us].
        """
        built = self._heuristic.build([tuple(classes)])
        best = _Best(int(built.compute_us[0]), None)
        if best.us < NEVER:
            best = _Best(best.us, tuple(np.flatnonzero(built.kept[0]).tolist()))
        if best.us <= enough_us:
            return SubModelResult(0, best.kept)
        if len(self._units) + len(self._charges) > _MAX_COSTS:
            return self._as_one_model(classes, clock, enough_us, _Node(0, self._whole(), ()), best)
        return self._by_branching(tuple(classes), clock, enough_us, beyond_us, best)

    def _by_branching(
        self, classes: tuple[int, ...], clock: Clock, enough_us: int, beyond_us: int, best: _Best
    ) -> SubModelResult:
        nodes, num_refuted = _Nodes(self, classes, clock), 0
        nodes.push([self._whole()], best.us)
        while (node := nodes.pop(best.us)) is not None:
            if clock.expired() or node.bound_us >= beyond_us:
                return SubModelResult(node.bound_us, best.kept)
            if nodes.num_pushed > _MAX_NODES or num_refuted > _MAX_REFUTED:
                return self._as_one_model(classes, clock, enough_us, node, best)
            k = int(np.argmax([abs(n - round(n)) for n in node.counts]))
            if abs(node.counts[k] - round(node.counts[k])) > _WHOLE:
                nodes.push(_halves(node.box, k, math.floor(node.counts[k])), best.us)
                continue
            counts = tuple(round(n) for n in node.counts)
            found = knapsack.with_counts(self._instance, self._option, classes, self._by_ticks(counts), clock)
            if found.kept is not None:
                best = _Best(self._instance.compute_us(self._option, found.kept), found.kept)
            # Without a sub-model and without a proof, time is over.
            if best.us <= enough_us or (found.kept is None and found.bound is not None):
                return SubModelResult(min(node.bound_us, best.us), best.kept)
            num_refuted += 1
            nodes.push(_around(node.box, counts), best.us)
        return SubModelResult(None if best.kept is None else best.us, best.kept)

    def _as_one_model(
        self, classes: Sequence[int], clock: Clock, enough_us: int, node: _Node, best: _Best
    ) -> SubModelResult:
        """Return what CP-SAT finds no faster than a node, and faster than the best sub-model so far."""
        within_us = node.bound_us, best.us
        found = knapsack.cheapest(self._instance, self._option, classes, clock, math.inf, enough_us, within_us)
        if found.bound is None:
            return SubModelResult(None if best.kept is None else best.us, best.kept)
        return SubModelResult(max(node.bound_us, found.bound), best.kept if found.kept is None else found.kept)

    def _whole(self) -> _Box:
        most = [len(members) for members in (*self._units.values(), *self._charges.values())]
        return (0,) * len(most), tuple(most)

    def _by_ticks(self, counts: Sequence[int]) -> knapsack.KeptCounts:
        num_units = len(self._units)
        return (
            dict(zip(self._units, counts[:num_units], strict=True)),
            dict(zip(self._charges, counts[num_units:], strict=True)),
        )

    def node(self, classes: Sequence[int], box: _Box) -> _Node | None:
        """Return the node of a box; None where its relaxation has no sub-model."""
        if self._relaxation is None:
            members = (list(self._units.values()), list(self._charges.values()))
            self._relaxation = _CountedRelaxation(self._instance, self._option, *members)
        found = self._relaxation.within(classes, box)
        return None if found is None else _Node(found[0], box, found[1])


class _Nodes:
    """Open nodes for one class subset, taken best first."""

    def __init__(self, of: CheapestSubModels, classes: tuple[int, ...], clock: Clock) -> None:
        self._of, self._classes, self._clock = of, classes, clock
        self._heap: list[tuple[int, int, _Node]] = []
        self.num_pushed = 0

    def push(self, boxes: Iterable[_Box], below_us: int) -> None:
        """Add the boxes that may hold a sub-model below a time [us]."""
        for box in boxes:
            self._clock.spend(_LP_S)
            node = self._of.node(self._classes, box)
            if node is not None and node.bound_us < below_us:
                self.num_pushed += 1
                heapq.heappush(self._heap, (node.bound_us, self.num_pushed, node))

    def pop(self, below_us: int) -> _Node | None:
        """Return the node with the least bound; None where none is below a time [us]."""
        if not self._heap or self._heap[0][0] >= below_us:
            return None
        return heapq.heappop(self._heap)[2]


class _CountedRelaxation(Relaxation):
    """Relaxation with a row for each count.

    Args:
        units: Units of each cost.
        charged: Unit sets of each charge.
    """

    def __init__(
        self, instance: Instance, option: Option, units: Sequence[Sequence[int]], charged: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(instance, option)
        self._counted = [[self._y[u] for u in members] for members in units]
        self._counted += [[self._charged[p] for p in members] for members in charged]
        self._rows = []
        for variables in self._counted:
            row = self._lp.Constraint(0, len(variables))
            for variable in variables:
                row.SetCoefficient(variable, 1)
            self._rows.append(row)

    def within(self, classes: Sequence[int], box: _Box) -> tuple[int, tuple[float, ...]] | None:
        """Return a bound on the compute time [us] within a box, and the counts there; None if there is none."""
        for row, low, high in zip(self._rows, *box, strict=True):
            row.SetBounds(low, high)
        status = self._solve(classes, self._option.need[:, len(classes) - 1] / IMPORTANCE_SCALE)
        if status == pywraplp.Solver.INFEASIBLE:
            return None
        if status != pywraplp.Solver.OPTIMAL:
            # Nothing is known: the box is split in the middle of its widest count.
            return 0, tuple((low + high) / 2 for low, high in zip(*box, strict=True))
        counts = (sum(v.solution_value() for v in variables) for variables in self._counted)
        return int(safely_rounded_up(np.array(self._lp.Objective().Value()))), tuple(counts)


def _halves(box: _Box, k: int, at: int) -> Iterator[_Box]:
    """Yield the boxes with count k at most, and above, a number."""
    low, high = box
    yield low, (*high[:k], at, *high[k + 1 :])
    yield (*low[:k], at + 1, *low[k + 1 :]), high


def _around(box: _Box, counts: Sequence[int]) -> Iterator[_Box]:
    """Yield boxes that hold all of a box but one point."""
    low, high = box
    for k, n in enumerate(counts):
        if low[k] < n:
            yield low, (*high[:k], n - 1, *high[k + 1 :])
        if n < high[k]:
            yield (*low[:k], n + 1, *low[k + 1 :]), high
        low, high = (*low[:k], n, *low[k + 1 :]), (*high[:k], n, *high[k + 1 :])
