"""A good plan and a bound for fleets with more classes than can be listed subset by subset.

1. Bound: from the needs of each class by itself (`class_bounds`, `interval_dp`).
2. A first plan: all classes on one device, or placed at any cost; for little energy or few devices, plans for falling
   targets (`attempts`, `construct`).
3. Where latency is the objective and the gap is open, the time between bound and plan is narrowed from both sides
   (`narrow`): by dividing the classes among whole devices, or a proof that they cannot be divided (`backtracking`);
   where that stays open, by covering them with class sets that can be served within a time (`column_generation`), or
   a proof by prices that they cannot (`price_bound`).
4. Local search again, until the gap is closed or time is up (`local_search`).

The gap is what the relaxations of sub-models cannot see, and what stays open in the time.
"""

from collections.abc import Iterator

from planner.solver.large.attempts import Attempts
from planner.solver.large.backtracking import Backtracking
from planner.solver.large.class_bounds import ClassBounds, rounded_up
from planner.solver.large.column_generation import ColumnGeneration
from planner.solver.large.interval_dp import IntervalDP
from planner.solver.large.narrow import Narrowing
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import DEVICES, NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.search import SearchRequest, SearchResult

# Time limit of a bound that is only shown [s].
_LATENCY_BOUND_S = 2.0
# Share of the time that the first bound may take.
_SHARE_OF_BOUND = 0.25
# Shares of the time left that a pass of the narrowing and a local search may take.
_SHARE_OF_NARROWING, _SHARE_OF_SEARCH = 0.6, 0.5
# Shares of the time of a pass that one of its steps may take, pass by pass.
_SHARES = (0.2, 0.4, 1.0)


def search_large(instance: Instance, request: SearchRequest, clock: Clock) -> SearchResult:
    """Find a good plan and a bound.

    Args:
        instance: Problem.
        request: Objective, start and end.
        clock: Time for it.
    """
    max_devices = NEVER if request.max_use is None else int(request.max_use[DEVICES])
    bounds = ClassBounds(instance, max_devices)
    intervals = IntervalDP(instance, bounds, max_devices)
    slowest_us = _slowest_us(bounds, intervals, clock.part(_SHARE_OF_BOUND * clock.left()))
    if slowest_us is None:
        return SearchResult(None, None)
    attempts = Attempts(instance, bounds, intervals, request.objective, clock, max_devices)
    attempts.warm_up(request.earlier)
    bound = _bound(instance, bounds, request.objective, slowest_us, attempts.value)
    if bound is None:
        return SearchResult(None, None)
    request.progress(None, bound)
    if bound >= request.give_up:
        return SearchResult(attempts.best, bound, "large")
    for proven_us in _steps(ColumnGeneration(instance, bounds.single_us, max_devices), attempts, request, slowest_us):
        if proven_us > slowest_us:
            bound = max(bound, proven_us + bounds.fusion_us(attempts.value))
        request.progress(attempts.value if attempts.best else None, bound)
        if attempts.value <= max(request.enough, bound) or bound >= request.give_up or clock.expired():
            break
    return SearchResult(attempts.best, bound, "large")


def _steps(generation: ColumnGeneration, attempts: Attempts, request: SearchRequest, slowest_us: int) -> Iterator[int]:
    """Yield a bound on the slowest device [us] after each step; plans are kept by the attempts."""
    clock = attempts.clock
    attempts.first(slowest_us)
    yield slowest_us
    if request.objective.name != "latency" or request.objective.with_energy:
        for _ in attempts.constructed(slowest_us):
            yield slowest_us
    if request.objective.name != "latency":
        return
    backtracking = Backtracking(generation.cover, generation.conflicts)
    narrowing = Narrowing(backtracking, generation, attempts, slowest_us)
    for share in _SHARES:
        for slowest_us in narrowing.steps(clock.part(_SHARE_OF_NARROWING * clock.left()), share):
            yield slowest_us
        for _ in attempts.improved(request.enough, clock.part(_SHARE_OF_SEARCH * clock.left())):
            yield slowest_us


def latency_bound_us(instance: Instance) -> int | None:
    """Return a bound on the latency [us] of any plan, from single classes; None if there is none."""
    if not instance.options:
        return None
    bounds = ClassBounds(instance)
    slowest_us = bounds.slowest_us(Clock(_LATENCY_BOUND_S))
    return None if slowest_us is None else slowest_us + bounds.fusion_us(NEVER)


def _slowest_us(bounds: ClassBounds, intervals: IntervalDP, clock: Clock) -> int | None:
    """Return a bound on the slowest device's latency [us], the higher of two; None if a class can be on no device."""
    by_intervals = intervals.slowest_us(clock)
    if by_intervals is None or not intervals.exact:
        return by_intervals
    return bounds.slowest_us(clock, by_intervals)


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
