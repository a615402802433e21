"""A good plan and a bound for fleets with more classes than can be listed subset by subset.

1. Bound: from the needs of each class by itself (`class_bounds`, `interval_dp`).
2. Construction: a target above the bound. The number of classes that each group of devices can really serve within the
   target, beginning at each class, is found by building sub-models (`submodels.lagrangian`), gives the order in which
   the groups should take the classes, and they do (`construct`).
3. Bisection of the target between one that worked and one that did not.
4. Local search: classes move and are swapped (`local_search`), until nothing helps or time is up.

The gap is what the bound cannot see (that classes on one device need more than the hardest of them) and what the plan
leaves to be found.
"""

from collections.abc import Iterator

from planner.solver.large.class_bounds import ClassBounds, rounded_up
from planner.solver.large.construct import construct, num_served
from planner.solver.large.interval_dp import IntervalDP
from planner.solver.large.loads import FleetData, Loads
from planner.solver.large.local_search import close_devices, local_search
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import is_plan
from planner.solver.problem.search import SearchRequest, SearchResult
from planner.solver.submodels.cache import SubModelCache

# Targets rise by these steps until one works, and then are bisected to this share.
_FIRST_STEP, _GROWTH, _PRECISION = 0.004, 1.7, 0.003
# Target of the first plan, in bounds.
_ROOMY = 1.3
# Time limit of a bound that is only shown [s].
_LATENCY_BOUND_S = 2.0
# Share of the time that targets may take.
_SHARE_OF_TARGETS = 0.6


def search_large(instance: Instance, request: SearchRequest, clock: Clock) -> SearchResult:
    """Find a good plan and a bound.

    Args:
        instance: Problem.
        request: Objective, start and end.
        clock: Time for it.
    """
    objective = request.objective
    max_devices = NEVER if request.max_use is None else int(request.max_use[DEVICES])
    bounds = ClassBounds(instance, max_devices)
    intervals = IntervalDP(instance, bounds, max_devices)
    slowest_us = intervals.slowest_us(clock)
    if slowest_us is None:
        return SearchResult(None, None)
    attempts = _Attempts(instance, bounds, intervals, objective, clock, max_devices)
    attempts.warm_up(request.earlier)
    bound = _bound(instance, bounds, objective, slowest_us, attempts.value)
    if bound is None:
        return SearchResult(None, None)
    request.progress(None, bound)
    if bound >= request.give_up:
        return SearchResult(attempts.best, bound)
    for _ in attempts.improvements(slowest_us, request.enough):
        request.progress(attempts.value if attempts.best else None, bound)
        if attempts.value <= max(request.enough, bound) or clock.expired():
            break
    return SearchResult(attempts.best, bound)


def latency_bound_us(instance: Instance) -> int | None:
    """Return a bound on the latency [us] of any plan, from single classes; None if there is none."""
    if not instance.options:
        return None
    bounds = ClassBounds(instance)
    slowest_us = bounds.slowest_us(Clock(_LATENCY_BOUND_S))
    return None if slowest_us is None else slowest_us + bounds.fusion_us(NEVER)


def _bound(
    instance: Instance, bounds: ClassBounds, objective: ObjectiveFunction, slowest_us: int, value: int
) -> int | None:
    """Return a bound on the objective; None if no plan can be within the latency limit."""
    if objective.name == "latency":
        return slowest_us + bounds.fusion_us(value)
    fewest = min(option.embed_dim for option in instance.options)
    within_us = min(objective.limit_us - instance.fusion_us(fewest), bounds.longest_us)
    least = bounds.relaxed(within_us, objective.name) if within_us >= slowest_us else None
    return None if least is None else rounded_up(least)


class _Attempts:
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
        self._clock, self._max_devices = clock, max_devices
        self._fleet, self._cache = FleetData(instance, bounds), SubModelCache(instance, clock)
        self.best: tuple[PlacedSubModel, ...] | None = None
        self.value = NEVER
        self._loads: Loads | None = None

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
        if earlier and construct(loads, [], [], self._devices(), 0, self._clock, at_any_cost=True):
            self._keep(loads)

    def improvements(self, slowest_us: int, enough: int) -> Iterator[None]:
        """Yield whenever a better plan may have been found."""
        self._first(slowest_us)
        yield
        yield from self._by_targets(slowest_us)
        if self._loads is not None and self._objective.name == "latency":
            yield from self._improved(self._loads, enough)

    def _first(self, slowest_us: int) -> None:
        """Make a plan from the bound's own counts, with whatever does not fit placed at any cost."""
        for target in (round(_ROOMY * slowest_us), self._bounds.longest_us):
            if self.best is None:
                self._attempt(target, at_any_cost=True)

    def _by_targets(self, slowest_us: int) -> Iterator[None]:
        clock = self._clock.part(self._clock.left() * _SHARE_OF_TARGETS)
        if self._objective.name != "latency":
            # Less time for each means more devices, and smaller floors on each.
            target = min(self._objective.limit_us, self._bounds.longest_us)
            while target >= slowest_us and not clock.expired():
                self._attempt(target)
                yield
                target = target * 2 // 3 if self._objective.name == "energy" else -1
            return
        failed, step = slowest_us - 1, _FIRST_STEP
        target = round(slowest_us * (1 + step))
        # Targets slower than a plan at hand are of no interest.
        while not self._attempt(target) and target < min(self._bounds.longest_us, self.value) and not clock.expired():
            failed, step = target, step * _GROWTH
            target = round(slowest_us * (1 + step))
            yield
        while target - failed > max(1, _PRECISION * target) and not clock.expired():
            yield
            middle = (failed + target) // 2
            failed, target = (failed, middle) if self._attempt(middle) else (middle, target)
        yield

    def _improved(self, loads: Loads, enough: int) -> Iterator[None]:
        copy = loads.copy()
        fusion_us = self._instance.fusion_us(self._embed_dims(copy))
        for _ in local_search(copy, self._devices(), self._clock, enough - fusion_us):
            self._keep(copy)
            yield
        self._keep(copy)
        yield

    def _attempt(self, target_us: int, at_any_cost: bool = False) -> bool:
        """Try to make a plan whose slowest device is within the target; return whether it was made."""
        loads = self._empty()
        by_group = {g: loads.extra_us[d] for d, g in enumerate(loads.fleet.groups)}
        extra_us = [by_group[g] for g in range(len(self._instance.groups))]
        order, counts = self._intervals.order, self._bounds.served(target_us)
        if not at_any_cost:
            counts = num_served(self._cache, order, counts, target_us, extra_us, self._clock)
        sequence = self._intervals.sequence(counts, target_us)
        if sequence is None and not at_any_cost:
            return False
        devices = self._devices()
        if not construct(loads, order.tolist(), sequence or [], devices, target_us, self._clock, at_any_cost):
            return False
        if self._objective.name != "latency" or self._objective.with_energy:
            close_devices(loads, devices, target_us, self._objective.with_energy, self._clock)
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
        instance, fleet = self._instance, self._fleet
        first = {option.group: option for option in reversed(instance.options)}
        used = instance.used(first[g] for g in fleet.groups)
        waits = {g: instance.path_us(option, used) - option.alone_us for g, option in first.items()}
        return Loads(fleet, self._cache, [waits[g] for g in fleet.groups])

    def _embed_dims(self, loads: Loads) -> int:
        return int(self._instance.used(p.option for p in loads.placed())[EMBED_DIMS])
