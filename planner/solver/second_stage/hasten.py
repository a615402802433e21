"""Faster plans of the same goal: the latency is lowered by bisection for as long as the accuracy holds.

At each latency, the sub-models that are too slow for it are refilled, and what all devices have time for is searched
for the highest predicted accuracy.
"""

from collections.abc import Callable, Sequence

from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import PlacedSubModel
from planner.solver.second_stage.accuracy_search import AccuracySearch

_MAX_STEPS, _PRECISION = 8, 0.01


def hastened(
    instance: Instance,
    placed: Sequence[PlacedSubModel],
    others: Sequence[Sequence[PlacedSubModel]],
    keeps: Callable[[Sequence[PlacedSubModel]], bool],
    bound_us: int,
    clock: Clock,
) -> tuple[PlacedSubModel, ...]:
    """Return the fastest placement that is found and keeps a condition; the given one if no other does.

    Args:
        instance: Problem, with floors below those of the placement.
        placed: A placement that keeps the condition.
        others: Other placements to begin with, which may not keep it.
        keeps: Condition that only more accuracy can meet.
        bound_us: Latency below which nothing is looked for [us].
        clock: Time for it.
    """
    best, low = tuple(placed), bound_us
    high = instance.fleet_latency_us(best)
    for _ in range(_MAX_STEPS):
        if clock.expired() or high - low <= _PRECISION * high:
            break
        middle = (low + high) // 2
        found = _first_that_keeps(instance, (best, *others), middle, keeps, clock)
        if found is None:
            low = middle
        else:
            best, high = found, instance.fleet_latency_us(found)
    return best


def _first_that_keeps(
    instance: Instance,
    starts: Sequence[Sequence[PlacedSubModel]],
    latency_us: int,
    keeps: Callable[[Sequence[PlacedSubModel]], bool],
    clock: Clock,
) -> tuple[PlacedSubModel, ...] | None:
    for start in starts:
        search = AccuracySearch(instance, start, latency_us)
        if search.shrink(clock):
            search.run(clock)
            if keeps(search.placed):
                return tuple(search.placed)
    return None
