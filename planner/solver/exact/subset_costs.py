"""Bounds on t(o, S), the least cost of a sub-model for class subset S on option o, for all subsets.

For up to sixteen classes, every subset has a row: a proven lower bound, and the best sub-model built so far (an upper
bound). Both are filled lazily. A bound that is proven for one subset is one for its supersets too, since more classes
never need less; a dual cut also bounds other subsets. A warm start brings what earlier searches proved.
"""

import numpy as np

from planner.arrays import Bools, Ints
from planner.solver.exact.sub_model_costs import SubModelCosts
from planner.solver.exact.warm_start import DualCuts, WarmStart, as_demanding, fingerprint, learned_cuts
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.option import Option
from planner.solver.problem.subsets import classes_of, halves_by_class, mask_of
from planner.solver.submodels.relaxation import DualCut

# Rough time of a linear relaxation [s], where work is counted.
LP_S = 5e-4


class SubsetCosts:
    """Lower and upper bounds on t(o, S) for every option o and class subset S, each (O, 2^C)."""

    def __init__(self, instance: Instance, warm_start: WarmStart) -> None:
        self.instance = instance
        self._costs, self._warm_start = SubModelCosts(instance), warm_start
        num_classes = instance.num_classes
        shape = (len(instance.options), 2**num_classes)
        self.masks = np.arange(shape[1])
        self.sizes = np.array([mask.bit_count() for mask in range(shape[1])])
        self.member: Bools = (self.masks[:, None] >> np.arange(num_classes) & 1).astype(bool)  # (2^C, C)
        self.lower_bound: Ints = np.zeros(shape, dtype=np.int64)
        self.upper_bound: Ints = np.full(shape, NEVER, dtype=np.int64)
        self.kept: dict[Column, tuple[int, ...]] = {}
        self._relaxed: Bools = np.zeros(shape, dtype=bool)
        self.num_relaxed = 0
        self._fingerprints = [fingerprint(instance.units, option) for option in instance.options]
        # Proven in this search, by option.
        self._cuts: list[list[tuple[int, DualCut]]] = [[] for _ in instance.options]
        self._proofs: list[dict[int, int]] = [{} for _ in instance.options]
        allowed = {g: instance.allowed(g, self.member) & (self.masks > 0) for g in range(len(instance.groups))}
        for o, option in enumerate(instance.options):
            self.lower_bound[o, ~allowed[option.group] | self._unreachable(option)] = NEVER
            earlier = warm_start.of(self._fingerprints[o])
            for cuts in earlier:
                self._apply(o, cuts)
            for c in range(0 if earlier else num_classes):
                self.relax(Column(o, 1 << c))

    def _unreachable(self, option: Option) -> Bools:
        """Return which class subsets have a class that needs more importance than there is, (2^C,)."""
        too_much = option.need > self.instance.units.importance.sum(axis=1)[:, None]  # (C, C)
        unreachable: Bools = np.asarray(np.any(self.member & too_much.T[self.sizes - 1], axis=1))
        return unreachable

    def warm_start(self) -> WarmStart:
        """Return what is proven and built by now, for other searches to begin with."""
        known, num_units = self._warm_start, len(self.instance.units)
        sub_models: list[list[tuple[int, bytes]]] = [[] for _ in self.instance.options]
        for column, kept in self.kept.items():
            chosen = np.zeros(num_units, dtype=bool)
            chosen[list(kept)] = True
            sub_models[column.option].append((column.mask, np.packbits(chosen).tobytes()))
        learned = [
            learned_cuts(costs, option, self._cuts[o], self._proofs[o], sub_models[o], known.of(costs))
            for o, (costs, option) in enumerate(zip(self._fingerprints, self.instance.options, strict=True))
        ]
        return known.updated(learned)

    def _apply(self, o: int, cuts: DualCuts) -> None:
        """Begin with what was learned of an option of the same costs."""
        option, num_classes = self.instance.options[o], self.instance.num_classes
        binding = (cuts.prices > 0) @ (1 << np.arange(num_classes))
        held = np.zeros((len(self.masks), num_classes), dtype=np.int64)
        np.maximum.at(held, binding, cuts.by_count(option))
        for below, above in halves_by_class(held.reshape((2,) * num_classes + (num_classes,)), num_classes):
            np.maximum(above, below, out=above)
        row = self.lower_bound[o]
        row[1:] = np.maximum(row[1:], held[self.masks[1:], self.sizes[1:] - 1])
        self._relaxed[o, cuts.masks[cuts.exact_at(option)]] = True
        for mask, bound in cuts.proofs:
            self._raise_bound(Column(o, mask), bound, cuts.stricter(mask, option))
        for mask, packed in cuts.sub_models:
            bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=len(self.instance.units))
            kept = tuple(np.flatnonzero(bits).tolist())
            if self.instance.can_serve(option, classes_of(mask), kept):
                self.add(Column(o, mask), kept)

    def largest_within(self, limits: Ints, clock: Clock) -> list[Column]:
        """Return each option's largest class subsets that may cost this little, as far as relaxations tell.

        Args:
            limits: Most compute time [us] of each option, (O,).
            clock: Time for it.

        Raises:
            TimeoutError: If time runs out on the way.
        """
        while True:
            largest = _largest(self.lower_bound <= limits[:, None])
            unrelaxed = np.argwhere(largest & ~self._relaxed).tolist()
            if not unrelaxed:
                return [Column(o, mask) for o, mask in np.argwhere(largest).tolist()]
            for o, mask in unrelaxed:
                if clock.expired():
                    raise TimeoutError
                # The relaxation of one subset may have settled the next.
                if self.lower_bound[o, mask] <= limits[o]:
                    clock.spend(LP_S)
                    self.relax(Column(o, mask))

    def is_relaxed(self, column: Column) -> bool:
        """Return whether the column's own relaxation was solved."""
        return bool(self._relaxed[column.option, column.mask])

    def solve(self, column: Column, clock: Clock, enough: int = 0, beyond: int = NEVER) -> None:
        """Build the column's cheapest sub-model, or prove that there is none.

        Args:
            column: Column.
            clock: Time for it.
            enough: Any sub-model is good enough that costs at most so much.
            beyond: No sub-model is of interest once it is proven that none costs less.
        """
        result = self._costs.solve(column.option, column.classes, clock, enough, beyond)
        self._prove(column, NEVER if result.bound is None else result.bound)
        if result.kept is not None:
            self.add(column, result.kept)

    def generalise(self, column: Column, at_least: int, clock: Clock) -> None:
        """Look for few of a column's classes that cost at least so much by themselves: they bound all that hold them.

        A deletion filter (Chinneck and Dravnieks), which begins with the classes that have a price in the relaxation.
        """
        relaxed = self._costs.bound(column.option, column.classes)
        priced = () if relaxed is None else relaxed.binding
        core = column.mask
        if priced and self._costs_at_least(column.option, mask_of(priced), at_least, clock):
            core = mask_of(priced)
        for c in sorted(classes_of(core), key=lambda c: c in priced):
            fewer = core & ~(1 << c)
            if fewer and self._costs_at_least(column.option, fewer, at_least, clock):
                core = fewer

    def _costs_at_least(self, option: int, mask: int, at_least: int, clock: Clock) -> bool:
        """Return whether a class subset is proven to cost at least so much, whatever the demands allow."""
        column = Column(option, mask)
        if self._proofs[option].get(mask, 0) < at_least <= self.upper_bound[option, mask] and not clock.expired():
            self.solve(column, clock, at_least - 1, at_least)
        return self._proofs[option].get(mask, 0) >= at_least

    def add(self, column: Column, kept: tuple[int, ...]) -> None:
        """Add a sub-model that meets the column's floors and budget."""
        key = (column.option, column.mask)
        cost = self._costs.of(column.option, kept)
        if cost < self.upper_bound[key]:
            self.upper_bound[key] = cost
            self.kept[column] = kept

    def relax(self, column: Column) -> None:
        """Bound a class subset by its relaxation, and with it all that hold the classes with a price."""
        self._relaxed[column.option, column.mask] = True
        self.num_relaxed += 1
        bound = self._costs.bound(column.option, column.classes)
        if bound is None:
            self._prove(column, NEVER)
            return
        if bound.cut is not None:
            self._cuts[column.option].append((column.mask, bound.cut))
        binding = sum(1 << c for c in bound.binding)
        holding = self.masks[((self.masks & binding) == binding) & (self.masks > 0)]
        row = self.lower_bound[column.option]
        row[holding] = np.maximum(row[holding], bound.by_count[self.sizes[holding] - 1])

    def _prove(self, column: Column, cost: int) -> None:
        """Record a proven least cost of a class subset; it holds for supersets with no lower floor too."""
        proofs = self._proofs[column.option]
        proofs[column.mask] = max(cost, proofs.get(column.mask, 0))
        option, classes = self.instance.options[column.option], list(column.classes)
        self._raise_bound(column, cost, as_demanding(option, classes, option.need[classes, len(classes) - 1]))

    def _raise_bound(self, column: Column, cost: int, stricter: Bools) -> None:
        """Raise the bound of a class subset and of its supersets with a number of classes that is `stricter`."""
        row, mask = self.lower_bound[column.option], column.mask
        supersets = ((self.masks & mask) == mask) & np.append(stricter, False)[self.sizes - 1]
        row[supersets] = np.maximum(row[supersets], cost)


def _largest(member: Bools) -> Bools:
    """Return which masks of each row are members and have no larger member above them, (O, 2^C)."""
    num_classes = member.shape[1].bit_length() - 1
    shape = (2,) * num_classes + (len(member),)
    largest = member.T.reshape(shape).copy()
    above = largest.copy()  # the mask itself or a superset is a member
    for without, with_class in halves_by_class(above, num_classes):
        without |= with_class
    for (lower, _), (_, upper) in zip(
        halves_by_class(largest, num_classes), halves_by_class(above, num_classes), strict=True
    ):
        lower &= ~upper
    maximal: Bools = largest.reshape(-1, len(member)).T
    return maximal
