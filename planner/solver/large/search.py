"""A good plan and a bound for fleets with more classes than can be listed subset by subset.

1. A bound, from what each class needs by itself (`bounds`, `blocks`).
2. A target above it. How many classes can each group of devices really serve within the target,
   beginning at which class? That is found by building their sub-models (`prices`), and says in
   which order the groups should take the classes; they do (`fill`).
3. Above a target that worked and one that did not, the next is between.
4. Classes move and are swapped (`polish`), until nothing helps or time is up.

The gap is what the bound cannot see (that classes on one device need more than the hardest of
them) and what the plan leaves to be found.
"""

from collections.abc import Iterator

from planner.arrays import Ints
from planner.solver.exact.master import ObjectiveFunction
from planner.solver.large.class_bounds import ClassBounds, rounded_up
from planner.solver.large.construct import construct, served
from planner.solver.large.interval_dp import IntervalDP
from planner.solver.large.loads import FleetData, Loads
from planner.solver.large.local_search import close_devices, local_search
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, NEVER, Instance, PlacedSubModel, Progress, SearchResult
from planner.solver.problem.placement import is_plan
from planner.solver.submodels.cache import SubModelCache

# Targets rise by these steps until one works, and then are halved to this share.
_FIRST_STEP, _GROWTH, _FINE = 0.004, 1.7, 0.003
# The first plan's target, in bounds.
_ROOMY = 1.3
# The longest that a bound takes that is only shown [s].
_LATENCY_BOUND_S = 2.0
# The share of the time that targets may take.
_SHARE_OF_TARGETS = 0.6


def search_large(
    instance: Instance,
    clock: Clock,
    progress: Progress,
    judge: ObjectiveFunction,
    earlier: tuple[PlacedSubModel, ...] = (),
    enough: int = 0,
    give_up: int = NEVER,
    most: Ints | None = None,
) -> SearchResult:
    """Find a good plan and a bound; see the module, and `exact.search` for the arguments."""
    most_devices = NEVER if most is None else int(most[DEVICES])
    bounds = ClassBounds(instance, most_devices)
    blocks = IntervalDP(instance, bounds, most_devices)
    slowest_us = blocks.slowest_us(clock)
    if slowest_us is None:
        return SearchResult(None, None)
    attempts = _Attempts(instance, bounds, blocks, judge, clock, most_devices)
    attempts.warm_up(earlier)
    bound = _bound(instance, bounds, judge, slowest_us, attempts.value)
    if bound is None:
        return SearchResult(None, None)
    progress(None, bound)
    if bound >= give_up:
        return SearchResult(attempts.best, bound)
    for _ in attempts.improvements(slowest_us, enough):
        progress(attempts.value if attempts.best else None, bound)
        if attempts.value <= max(enough, bound) or clock.expired():
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
    instance: Instance, bounds: ClassBounds, judge: ObjectiveFunction, slowest_us: int, value: int
) -> int | None:
    """Return a bound on the objective; None if no plan can be within the latency limit."""
    if judge.objective == "latency":
        return slowest_us + bounds.fusion_us(value)
    fewest = min(option.embed_dim for option in instance.options)
    within_us = min(judge.limit_us - instance.fusion_us(fewest), bounds.longest_us)
    least = bounds.relaxed(within_us, judge.objective) if within_us >= slowest_us else None
    return None if least is None else rounded_up(least)


class _Attempts:
    """The plans made so far, and the best of them."""

    def __init__(
        self,
        instance: Instance,
        bounds: ClassBounds,
        blocks: IntervalDP,
        judge: ObjectiveFunction,
        clock: Clock,
        most_devices: int,
    ) -> None:
        self._instance, self._bounds, self._blocks, self._judge = instance, bounds, blocks, judge
        self._clock, self._most_devices = clock, most_devices
        self._world, self._workshop = FleetData(instance, bounds), SubModelCache(instance, clock)
        self.best: tuple[PlacedSubModel, ...] | None = None
        self.value = NEVER
        self._loads: Loads | None = None

    def warm_up(self, earlier: tuple[PlacedSubModel, ...]) -> None:
        """Begin with the sub-models of an earlier plan; together they may be one still."""
        options = {option: o for o, option in enumerate(self._instance.options)}
        for p in earlier:
            if self._instance.fits(p.option, p.kept) and self._instance.meets_floors(p.option, p.classes, p.kept):
                self._workshop.improve(p.option.group, p.classes, options[p.option], p.kept)
        loads = self._empty()
        free = {g: [d for d, h in enumerate(loads.world.groups) if h == g] for g in set(loads.world.groups)}
        for p in earlier:
            if free[p.option.group] and self._instance.allows(p.option.group, p.classes):
                device = free[p.option.group].pop()
                lost = [a for a in loads.atoms(p.classes) if not loads.may_take(device, a)]
                loads.set(device, tuple(c for c in p.classes if loads.world.atom_of[c] not in lost))
        if earlier and construct(loads, [], [], self._devices(), 0, self._clock, at_any_cost=True):
            self._keep(loads)

    def improvements(self, slowest_us: int, enough: int) -> Iterator[None]:
        """Yield whenever a better plan may have been found."""
        self._first(slowest_us)
        yield
        yield from self._by_targets(slowest_us)
        if self._loads is not None and self._judge.objective == "latency":
            yield from self._polished(self._loads, enough)

    def _first(self, slowest_us: int) -> None:
        """Make some plan: from the bound's own counts, with whatever does not fit placed somehow."""
        for target in (round(_ROOMY * slowest_us), self._bounds.longest_us):
            if self.best is None:
                self._attempt(target, at_any_cost=True)

    def _by_targets(self, slowest_us: int) -> Iterator[None]:
        clock = self._clock.part(self._clock.left() * _SHARE_OF_TARGETS)
        if self._judge.objective != "latency":
            # Less time for each means more devices, and smaller floors on each.
            target = min(self._judge.limit_us, self._bounds.longest_us)
            while target >= slowest_us and not clock.expired():
                self._attempt(target)
                yield
                target = target * 2 // 3 if self._judge.objective == "energy" else -1
            return
        failed, step = slowest_us - 1, _FIRST_STEP
        target = round(slowest_us * (1 + step))
        # What is slower than a plan at hand is of no interest.
        while not self._attempt(target) and target < min(self._bounds.longest_us, self.value) and not clock.expired():
            failed, step = target, step * _GROWTH
            target = round(slowest_us * (1 + step))
            yield
        while target - failed > max(1, _FINE * target) and not clock.expired():
            yield
            middle = (failed + target) // 2
            failed, target = (failed, middle) if self._attempt(middle) else (middle, target)
        yield

    def _polished(self, loads: Loads, enough: int) -> Iterator[None]:
        copy = loads.copy()
        fusion_us = self._instance.fusion_us(self._embed_dims(copy))
        for _ in local_search(copy, self._devices(), self._clock, enough - fusion_us):
            self._keep(copy)
            yield
        self._keep(copy)
        yield

    def _attempt(self, target_us: int, at_any_cost: bool = False) -> bool:
        """Try to make a plan whose slowest device is within the target; say whether it was made."""
        loads = self._empty()
        by_group = {g: loads.extra_us[d] for d, g in enumerate(loads.world.groups)}
        extra_us = [by_group[g] for g in range(len(self._instance.groups))]
        order, counts = self._blocks.order, self._bounds.served(target_us)
        if not at_any_cost:
            counts = served(self._workshop, order, counts, target_us, extra_us, self._clock)
        sequence = self._blocks.sequence(counts, target_us)
        if sequence is None and not at_any_cost:
            return False
        devices = self._devices()
        if not construct(loads, order.tolist(), sequence or [], devices, target_us, self._clock, at_any_cost):
            return False
        if self._judge.objective != "latency" or self._judge.with_energy:
            close_devices(loads, devices, target_us, self._judge.with_energy, self._clock)
        self._keep(loads)
        return int(loads.latency_us.max()) <= target_us

    def _keep(self, loads: Loads) -> None:
        if int(loads.latency_us.max()) >= NEVER or sum(map(bool, loads.classes)) > self._most_devices:
            return
        placed = loads.placed()
        if not placed or not is_plan(self._instance, placed):
            return
        value = self._judge.value_of(placed)
        if value < self.value:
            self.best, self.value, self._loads = placed, value, loads.copy()

    def _devices(self) -> list[int]:
        return list(range(len(self._world.groups)))

    def _empty(self) -> Loads:
        """Return loads with nothing on them, where everyone waits as if all were used."""
        instance, world = self._instance, self._world
        first = {option.group: option for option in reversed(instance.options)}
        used = instance.used(first[g] for g in world.groups)
        waits = {g: instance.path_us(option, used) - option.alone_us for g, option in first.items()}
        return Loads(world, self._workshop, [waits[g] for g in world.groups])

    def _embed_dims(self, loads: Loads) -> int:
        return int(self._instance.used(p.option for p in loads.placed())[EMBED_DIMS])
