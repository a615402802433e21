"""Attempts to make a plan for many classes, and the best plan so far."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from planner.solver.large.class_bounds import ClassBounds
from planner.solver.large.construct import construct, num_served
from planner.solver.large.interval_dp import IntervalDP
from planner.solver.large.loads import FleetData, Loads
from planner.solver.large.local_search import close_devices, local_search
from planner.solver.large.set_cover import ClassSet
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import EMBED_DIMS, NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import is_plan
from planner.solver.submodels.cache import SubModelCache
from planner.solver.submodels.relaxation import RelaxedSubModel
from planner.solver.submodels.rounding import rounded

# Target of the first plan, in bounds.
_ROOMY = 1.3
# Share of the time that targets may take.
_SHARE_OF_TARGETS = 0.15
# Time limit of the sub-model of one device that is too slow [s].
_POLISH_S = 1.0
# Classes of a class set that is polished before some of it are given up.
_MAX_POLISHED = 64

# Function (classes) -> their relaxed sub-model on an option, if there is one.
RelaxedOf = Callable[[Sequence[int]], RelaxedSubModel | None]


class Attempts:
    """Attempts to make a plan, and the best of them."""

    def __init__(
        self,
        instance: Instance,
        bounds: ClassBounds,
        intervals: IntervalDP,
        objective: ObjectiveFunction,
        clock: Clock,
        max_devices: int,
    ) -> None:
        self._instance, self._bounds, self._intervals, self._objective = instance, bounds, intervals, objective
        self.clock, self._max_devices = clock, max_devices
        self._fleet, self._cache = FleetData(instance, bounds), SubModelCache(instance, clock)
        self.best: tuple[PlacedSubModel, ...] | None = None
        self.value = NEVER
        self._loads: Loads | None = None
        self._waits = self._longest_waits()

    def warm_up(self, earlier: tuple[PlacedSubModel, ...]) -> None:
        """Begin with the sub-models of an earlier plan; together they may still be one."""
        options = {option: o for o, option in enumerate(self._instance.options)}
        for p in earlier:
            if self._instance.can_serve(p.option, p.classes, p.kept):
                self._cache.improve(p.option.group, p.classes, options[p.option], p.kept)
        loads = self._empty()
        free = {g: [d for d, h in enumerate(loads.fleet.groups) if h == g] for g in set(loads.fleet.groups)}
        for p in earlier:
            if free[p.option.group] and self._instance.allows(p.option.group, p.classes):
                device = free[p.option.group].pop()
                lost = [a for a in loads.atoms(p.classes) if not loads.may_take(device, a)]
                loads.set(device, tuple(c for c in p.classes if loads.fleet.atom_of[c] not in lost))
        if earlier and construct(loads, [], [], self._devices(), 0, self.clock, at_any_cost=True):
            self._keep(loads)

    @property
    def slowest_us(self) -> int:
        """Latency [us] of the slowest device of the best plan, or of any device where there is none."""
        return self._bounds.longest_us if self._loads is None else int(self._loads.latency_us.max())

    def cover(self, chosen: Sequence[ClassSet], target_us: int) -> bool:
        """Make a plan of class sets, whatever they leave over, and return whether it is within the target."""
        loads = self._empty()
        free = {g: [d for d, h in enumerate(loads.fleet.groups) if h == g] for g in set(loads.fleet.groups)}
        for column in sorted(chosen, key=lambda column: -len(column.classes)):
            device = free[self._instance.options[column.option].group].pop(0)
            # What enough devices serve already is left out.
            wanted = [a for a in loads.atoms(column.classes) if loads.left[a] > 0 and loads.may_take(device, a)]
            classes = {c for a in wanted for c in loads.fleet.atoms[a]} | set(loads.fleet.pinned[device])
            served = tuple(sorted(classes))
            if set(served) <= set(column.classes):
                self._cache.reuse(self._instance.options[column.option].group, served, column.classes)
            loads.set(device, served)
            small = len(served) <= _MAX_POLISHED
            if loads.latency_us[device] > target_us and small and not self.clock.expired():
                self._cache.polish(column.option, served, _POLISH_S)
                loads.set(device, served)
        if not construct(loads, [], [], self._devices(), target_us, self.clock, at_any_cost=True):
            return False
        self._keep(loads)
        return int(loads.latency_us.max()) <= target_us

    def servable(self, column: ClassSet, relaxed_of: RelaxedOf, target_us: int) -> ClassSet:
        """Return the part of a class set that a device can really serve in time, whole units being kept.

        Classes whose floors are dearest in the relaxed sub-model are given up until one is built in time; or, if those
        are fewer, the ones that a rounded sub-model misses.

        Args:
            column: Class set that the relaxation allows.
            relaxed_of: Function (classes) -> their relaxed sub-model, if there is one.
            target_us: Latency to stay within [us].
        """
        instance, option = self._instance, self._instance.options[column.option]
        group, within_us = instance.groups[option.group], target_us - self._waits[option.group]
        left, by_rounding, count = column, ClassSet(column.option, ()), 1
        while self._built_us(left, polish=left is column) > within_us:
            relaxed = relaxed_of(left.classes)
            if relaxed is None or self.clock.expired():
                return by_rounding
            if left is column:
                by_rounding = self._by_rounding(column, relaxed, within_us - option.alone_us)
            dear = sorted(relaxed.prices.keys() - group.pinned, key=lambda c: -relaxed.prices[c])
            given_up = {self._fleet.atom_of[c] for c in dear[:count]}
            left = ClassSet(column.option, tuple(c for c in left.classes if self._fleet.atom_of[c] not in given_up))
            if not given_up or len(left.classes) <= len(by_rounding.classes):
                return by_rounding
            count = count if len(left.classes) <= _MAX_POLISHED else 2 * count
        return left

    def _by_rounding(self, column: ClassSet, relaxed: RelaxedSubModel, within_us: int) -> ClassSet:
        """Return what of a class set a rounded sub-model serves within a compute time, and keep that."""
        instance, option, classes = self._instance, self._instance.options[column.option], np.array(column.classes)
        dear = list(relaxed.prices)
        worth = np.array([relaxed.prices[c] for c in dear]) @ instance.units.shares[dear]
        kept = rounded(option, relaxed, worth, within_us)
        missed = instance.units.importance[classes] @ kept < option.need[classes, len(classes) - 1]
        given_up = {self._fleet.atom_of[c] for c in classes[missed].tolist()}
        served = tuple(c for c in column.classes if self._fleet.atom_of[c] not in given_up)
        keeps_anchor = bool(kept[list(instance.units.always_kept)].all())
        if not keeps_anchor or not served or not instance.groups[option.group].pinned <= set(served):
            return ClassSet(column.option, ())
        self._cache.improve(option.group, served, column.option, np.flatnonzero(kept).tolist())
        return ClassSet(column.option, served)

    def _built_us(self, column: ClassSet, polish: bool) -> int:
        """Return the latency [us] of the best sub-model that is found for a class set in short time; 0 for none."""
        if not column.classes:
            return 0
        key = self._instance.options[column.option].group, column.classes
        self._cache.sub_models([key])
        if polish and len(column.classes) <= _MAX_POLISHED:
            self._cache.polish(column.option, column.classes, _POLISH_S)
        return self._cache.known[key].latency_us

    def improved(self, enough: int, clock: Clock) -> Iterator[None]:
        """Search locally from the best plan, and yield whenever a better one was found."""
        if self._loads is None:
            return
        copy = self._loads.copy()
        fusion_us = self._instance.fusion_us(self._embed_dims(copy))
        for _ in local_search(copy, self._devices(), clock, enough - fusion_us):
            self._keep(copy)
            yield
        self._keep(copy)
        yield

    def first(self, slowest_us: int) -> None:
        """Make a plan of all classes on one device, or else with whatever does not fit placed at any cost."""
        everything = tuple(range(self._instance.num_classes))
        for o in range(len(self._instance.options)):
            self.cover([ClassSet(o, everything)], NEVER)
        for target in (round(_ROOMY * slowest_us), self._bounds.longest_us):
            if self.best is None:
                self._attempt(target, at_any_cost=True)

    def constructed(self, slowest_us: int) -> Iterator[None]:
        """Construct plans of less energy or fewer devices for falling targets, and yield after each."""
        clock = self.clock.part(self.clock.left() * _SHARE_OF_TARGETS)
        # Less time for each means more devices, and smaller floors on each.
        target = min(self._objective.limit_us, self._bounds.longest_us)
        while target >= max(1, slowest_us) and not clock.expired():
            self._attempt(target)
            yield
            target = -1 if self._objective.name == "devices" else target * 2 // 3

    def _attempt(self, target_us: int, at_any_cost: bool = False) -> bool:
        """Try to make a plan whose slowest device is within the target; return whether it was made."""
        loads = self._empty()
        by_group = {g: loads.extra_us[d] for d, g in enumerate(loads.fleet.groups)}
        extra_us = [by_group[g] for g in range(len(self._instance.groups))]
        order, counts = self._intervals.order, self._bounds.served(target_us)
        if not at_any_cost:
            counts = num_served(self._cache, order, counts, target_us, extra_us, self.clock)
        sequence = self._intervals.sequence(counts, target_us)
        if sequence is None and not at_any_cost:
            return False
        devices = self._devices()
        if not construct(loads, order.tolist(), sequence or [], devices, target_us, self.clock, at_any_cost):
            return False
        if self._objective.name != "latency" or self._objective.with_energy:
            close_devices(loads, devices, target_us, self._objective.with_energy, self.clock)
        self._keep(loads)
        return int(loads.latency_us.max()) <= target_us

    def _keep(self, loads: Loads) -> None:
        if int(loads.latency_us.max()) >= NEVER or sum(map(bool, loads.classes)) > self._max_devices:
            return
        placed = loads.placed()
        if not placed or not is_plan(self._instance, placed):
            return
        value = self._objective.value_of(placed)
        if value < self.value:
            self.best, self.value, self._loads = placed, value, loads.copy()

    def _devices(self) -> list[int]:
        return list(range(len(self._fleet.groups)))

    def _empty(self) -> Loads:
        """Return empty loads, where every device waits as if all were used."""
        return Loads(self._fleet, self._cache, [self._waits[g] for g in self._fleet.groups])

    def _longest_waits(self) -> dict[int, int]:
        """Return how long a device of each group waits for others [us] if all are used."""
        instance = self._instance
        first = {option.group: option for option in reversed(instance.options)}
        used = instance.used(first[g] for g in self._fleet.groups)
        return {g: instance.path_us(option, used) - option.alone_us for g, option in first.items()}

    def _embed_dims(self, loads: Loads) -> int:
        return int(self._instance.used(p.option for p in loads.placed())[EMBED_DIMS])
