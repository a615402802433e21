"""Column generation for one time limit: a fractional cover within it, or a proof that there is none.

Class sets are grown along the relaxation at the prices of the linear program (`growth`, `set_cover`); where none is
found that is worth more than a device, exact pricing takes over (`price_bound`). Its prices lie between those at hand
and the ones that came nearest to a proof, which settles them. Conflicts and class sets are kept for other limits.
"""

from collections.abc import Callable, Container, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import partial

import numpy as np

from planner.arrays import Floats, Ints
from planner.solver.large.attempts import RelaxedOf
from planner.solver.large.conflicts import Conflicts, speed_factor
from planner.solver.large.growth import Growth
from planner.solver.large.price_bound import prove
from planner.solver.large.set_cover import ClassSet, FractionalCover, SetCover
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance

# Less than this uncovered is none.
_COVERED = 1e-6
# Class sets grown for each option in a round, and before a linear program the first time.
_GROWN, _GROWN_FIRST = 1, 2
# Share of the time that a proof by the first prices may take.
_FIRST_SHARE = 0.1
# Share of the best prices so far in those that are tried.
_SETTLED = 0.6
# Time of a proof at least [s], and as a share of the time by now.
_MIN_PROOF_S, _PROOF_SHARE = 0.2, 0.3
# So many rounds of growth may pass without what is uncovered falling to this share.
_PATIENCE, _PROGRESS = 3, 0.99
# A class set must be worth so much more than a device to be new.
_WORTH = 1e-4


# Function (class set, function to relaxed sub-models) -> the part of the set that a device can really serve.
Servable = Callable[[ClassSet, RelaxedOf], ClassSet]


class Outcome(Enum):
    """Answer for a time limit."""

    COVERED = "covered"  # there is a fractional cover
    REFUTED = "refuted"  # there is no plan
    OPEN = "open"  # time was up


class ColumnGeneration:
    """Class sets and conflicts of an instance, for any time limit."""

    def __init__(self, instance: Instance, single_us: Sequence[Ints], max_devices: int = NEVER) -> None:
        self.instance = instance
        self.cover = SetCover(instance, max_devices)
        pairs = zip(instance.options, single_us, strict=True)
        self.conflicts = [Conflicts(instance, option, us) for option, us in pairs]
        # Latency [us] of each class set by its relaxation.
        self._columns: dict[ClassSet, int] = {}
        # Prices of the last proof, (rows,).
        self._proving: Floats | None = None
        self._rng = np.random.default_rng(0)
        self._factors = [[speed_factor(to, of) for of in instance.options] for to in instance.options]

    def columns(self, latency_us: int) -> list[ClassSet]:
        """Return the class sets that may be within a time."""
        return [column for column, us in self._columns.items() if us <= latency_us]

    def attempt(self, latency_us: int, clock: Clock, by_growth: bool = False) -> Outcome:
        """Look for a fractional cover within a time, or a proof that there is no plan.

        Args:
            latency_us: Time [us].
            clock: Time for it.
            by_growth: Grow class sets for longer before a proof is tried, and try it for less time.
        """
        patience, proof_share = (_PATIENCE, _PROOF_SHARE) if by_growth else (1, 1.0)
        self._share_conflicts()
        if self._begun(latency_us, clock):
            return Outcome.REFUTED
        centre: Floats | None = None
        nearest = -np.inf
        last, idle, started_s = np.inf, 0, clock.left()
        while not clock.expired():
            found = self.cover.fractional(self.columns(latency_us), clock)
            if found.uncovered < _COVERED:
                return Outcome.COVERED
            last, idle = (found.uncovered, 0) if found.uncovered < _PROGRESS * last else (last, idle + 1)
            if idle <= patience and self.grow(latency_us, found, clock):
                continue
            settled = centre is not None
            prices = found.row_prices if centre is None else _SETTLED * centre + (1 - _SETTLED) * found.row_prices
            # Growth and proofs each get a part of the time: neither waits for the other.
            shortly = clock.part(max(_MIN_PROOF_S, proof_share * (started_s - clock.left())))
            proof = prove(self.cover, self.conflicts, self.columns(latency_us), prices, latency_us, shortly)
            if proof.holds:
                self._proving = prices
                return Outcome.REFUTED
            if proof.excess > nearest:
                nearest, centre = proof.excess, prices
            if self._add(proof.new, clock):
                continue
            if shortly.expired():
                # Growth has another chance, from other classes.
                idle = 0
            elif not settled:
                return Outcome.OPEN
            centre = None
        return Outcome.OPEN

    def _begun(self, latency_us: int, clock: Clock) -> bool:
        """Return whether prices at hand refute a time; if not, there are class sets to begin with."""
        # What proved one time comes near to a proof of the next.
        prices = self._first_prices(latency_us) if self._proving is None else self._proving
        shortly = clock.part(_FIRST_SHARE * clock.left())
        proof = prove(self.cover, self.conflicts, self.columns(latency_us), prices, latency_us, shortly)
        self._add(proof.new, clock)
        if not proof.holds and not self.columns(latency_us):
            self._grow(latency_us, prices, [0.0] * len(self.conflicts), _GROWN_FIRST, clock)
        return proof.holds

    def dive(self, latency_us: int, servable: Servable, begun: Sequence[ClassSet], clock: Clock) -> list[ClassSet]:
        """Return class sets for whole devices that cover most classes: one after the other the most wanted is fixed.

        Of each only what is still missing counts, and of that what a device can really serve.

        Args:
            latency_us: Time [us].
            servable: Function that tells what of a class set a device can really serve.
            begun: Class sets that are taken first.
            clock: Time for it.
        """
        fixed: list[ClassSet] = []
        out: set[ClassSet] = set()

        def fix(column: ClassSet) -> None:
            part = self._part(column, self.cover.missing(fixed))
            served = servable(part, partial(self.conflicts[column.option].relaxed, clock=clock))
            fixed.extend([served] if served.classes else [])
            if served != column:
                out.add(column)

        waiting = list(begun)
        while waiting and not clock.expired():
            missing = self.cover.missing(fixed)
            column = max(waiting, key=lambda column: len(missing.intersection(column.classes)))
            waiting.remove(column)
            fix(column)
        while not clock.expired():
            found = self.cover.fractional(self._without(out, latency_us), clock, fixed)
            if found.uncovered > _COVERED and self.grow(latency_us, found, clock, out, self.cover.missing(fixed)):
                found = self.cover.fractional(self._without(out, latency_us), clock, fixed)
            share, wanted = max(found.used, key=lambda used: used[0], default=(0.0, None))
            if wanted is None or share < _COVERED:
                break
            fix(wanted)
        return fixed

    def _part(self, column: ClassSet, missing: AbstractSet[int]) -> ClassSet:
        """Return what of a class set is missing; nothing if that is only what every device of the group serves."""
        pinned = self.instance.groups[self.cover.group_of[column.option]].pinned
        part = tuple(c for c in column.classes if c in missing or c in pinned)
        return ClassSet(column.option, part if missing & set(part) else ())

    def _without(self, out: Container[ClassSet], latency_us: int) -> list[ClassSet]:
        return [column for column in self.columns(latency_us) if column not in out]

    def grow(
        self,
        latency_us: int,
        found: FractionalCover,
        clock: Clock,
        out: Container[ClassSet] = (),
        among: AbstractSet[int] | None = None,
    ) -> int:
        """Grow class sets at the prices of a cover; return how many are new and worth more than a device.

        Args:
            latency_us: Time [us].
            found: Cover, whose prices count.
            clock: Time for it.
            out: Class sets that could not be in the cover.
            among: Classes of which there is to be one set; all classes, and sets of all options, unless given.
        """
        worth = [0.0] * len(self.conflicts)
        for column in self._without(out, latency_us):
            g = self.cover.group_of[column.option]
            value = float(self.cover.class_prices(g, found.row_prices)[list(column.classes)].sum())
            for o, group in enumerate(self.cover.group_of):
                if group == g:
                    worth[o] = max(worth[o], value)
        return self._grow(latency_us, found.row_prices, worth, _GROWN, clock, among)

    def _grow(
        self,
        latency_us: int,
        row_prices: Floats,
        worth: list[float],
        count: int,
        clock: Clock,
        among: AbstractSet[int] | None = None,
    ) -> int:
        new: list[ClassSet] = []
        # Time may be up for some: first where a device brings least, and most of them are left.
        by_need = sorted(range(len(worth)), key=lambda o: (worth[o], -self.cover.counts[self.cover.group_of[o]]))
        for o in by_need:
            conflicts = self.conflicts[o]
            prices = self.cover.class_prices(conflicts.option.group, row_prices)
            able = np.flatnonzero((conflicts.single_us <= latency_us) & (prices > _COVERED))
            if not len(able) or clock.expired() or (new and among is not None):
                continue
            growth = Growth(conflicts, latency_us, among)
            # Where much is paid, a set is begun more often.
            share = prices[able] / prices[able].sum()
            for seed in self._rng.choice(able, min(count, len(able)), replace=False, p=share).tolist():
                classes = growth.grown(seed, prices, clock)
                if classes and prices[list(classes)].sum() > worth[o] + _WORTH:
                    new.append(ClassSet(o, classes))
        return self._add(new, clock)

    def _add(self, columns: Sequence[ClassSet], clock: Clock) -> int:
        new = [column for column in columns if column not in self._columns]
        for column in new:
            self._columns[column] = self.conflicts[column.option].latency_us(column.classes, clock)
        return len(new)

    def _first_prices(self, latency_us: int) -> Floats:
        """Return prices before there are any: a class that few devices can serve is dear, (rows,)."""
        able = np.zeros((len(self.cover.counts), self.instance.num_classes), dtype=bool)
        for conflicts in self.conflicts:
            able[conflicts.option.group] |= conflicts.single_us <= latency_us
        prices = [
            1.0 / max(1.0, sum(self.cover.counts[g] for g in row.rule.groups if able[g, row.class_index]))
            for row in self.cover.rows
        ]
        return np.array(prices)

    def _share_conflicts(self) -> None:
        for o, factors in enumerate(self._factors):
            for other, factor in enumerate(factors):
                if factor > 0 and other != o:
                    self.conflicts[o].take_over(self.conflicts[other], factor)
