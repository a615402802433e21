"""Each objective as one search, or a few.

Latency and energy are searched for as they are; so is the fewest devices, and then the least latency with that many.
The highest accuracy is left to the second stage: here the floors are found that protect each class, by bisection (is
there a plan within the latency limit if every floor is raised?), and a plan to begin with.
"""

from dataclasses import dataclass, replace

import numpy as np

from planner.solver.accuracy_bound import AccuracyBound
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.warm_start import NO_WARM_START, WarmStart
from planner.solver.problem.build import at_floors
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import DEVICES, NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import moved
from planner.solver.problem.search import Progress, SearchMethod, SearchRequest, SearchResult
from planner.solver.search import InstanceSearch

# Share of the highest floors' odds that is kept, and the highest floor of a mean class.
_SHARE_OF_ODDS, _HIGHEST_FLOOR = 0.25, 0.6
# Bisections of the floor of a mean class.
_FLOOR_STEPS = 6


@dataclass(frozen=True)
class SearchOutcome:
    """Best plan for an objective, the bound, and the costs of class subsets as far as they were proven.

    The bound is in microseconds, units of energy, devices, or an accuracy as a share; where no plan was found within
    the latency limit for accuracy, it is the latency's.
    """

    instance: Instance
    placed: tuple[PlacedSubModel, ...] | None
    bound: float | None
    subset_costs: SubsetCosts | None
    method: SearchMethod = "exact"


def optimise(
    instance: Instance,
    clock: Clock,
    progress: Progress,
    earlier: tuple[PlacedSubModel, ...] = (),
    warm_start: WarmStart = NO_WARM_START,
) -> SearchOutcome:
    """Return the best plan for the instance's objective, with its bound.

    Args:
        instance: Problem.
        clock: Time for it.
        progress: Callback with the best objective so far and the bound, in the units of the plan's file.
        earlier: Sub-models of an earlier plan, to begin with.
        warm_start: Proofs and sub-models of earlier searches.
    """
    objective = instance.goal.objective
    if objective == "accuracy":
        return _most_accurate(instance, clock, progress, earlier, warm_start)
    scale = 1000 * instance.energy_scale if objective == "energy" else 1
    search = InstanceSearch(instance, clock, warm_start)
    if instance.max_energy is not None and objective != "energy":
        # A plan within the energy limit is easier found by looking for little energy.
        least_energy = ObjectiveFunction(instance, "energy")
        frugal = search.run(SearchRequest(least_energy, earlier=earlier, enough=instance.max_energy))
        earlier = frugal.placed or earlier

    def scaled(best: float | None, bound: float) -> None:
        progress(None if best is None else best / scale, bound / scale)

    found = search.run(SearchRequest(ObjectiveFunction(instance, objective), scaled, earlier))
    if objective == "devices" and found.placed is not None and not clock.expired():
        max_use = np.full(instance.num_resources, NEVER)
        max_use[DEVICES] = len(found.placed)
        faster = search.run(SearchRequest(ObjectiveFunction(instance), earlier=found.placed, max_use=max_use))
        found = found if faster.placed is None else replace(found, placed=faster.placed, method=faster.method)
    return SearchOutcome(instance, found.placed, found.bound, search.subset_costs, found.method)


def _most_accurate(
    instance: Instance,
    clock: Clock,
    progress: Progress,
    earlier: tuple[PlacedSubModel, ...],
    warm_start: WarmStart,
) -> SearchOutcome:
    """Raise all floors, by bisection, until no plan is within the latency limit, and lower their odds.

    So no class is sacrificed to the others, and there is room for what the second stage makes of it. High floors
    protect nothing; they would leave devices idle that have no time for so much but add to what others retain.
    """
    limit_us = instance.goal.max_latency_us
    assert limit_us is not None
    bound = AccuracyBound(instance).highest_accuracy(limit_us)
    progress(None, bound)
    found, search = _within_limit(instance, limit_us, clock, warm_start, earlier)
    if found.placed is None:
        return SearchOutcome(instance, None, found.bound, search.subset_costs)
    best, method, low, high = found.placed, found.method, 0.0, 1.0
    for _ in range(_FLOOR_STEPS):
        if clock.expired():
            break
        middle = (low + high) / 2
        raised = at_floors(instance, middle)
        found, search = _within_limit(raised, limit_us, clock, search.warm_start)
        if found.placed is None:
            high = middle
            continue
        best, method, low = tuple(moved(instance, found.placed)), found.method, middle
    odds = _SHARE_OF_ODDS * low / (1 - low)
    floor = min(_HIGHEST_FLOOR, odds / (1 + odds))
    reached = at_floors(instance, round(floor, 6))
    subset_costs = InstanceSearch(reached, clock, search.warm_start).subset_costs
    return SearchOutcome(reached, tuple(moved(reached, best)), bound, subset_costs, method)


def _within_limit(
    instance: Instance,
    limit_us: int,
    clock: Clock,
    warm_start: WarmStart,
    earlier: tuple[PlacedSubModel, ...] = (),
) -> tuple[SearchResult, InstanceSearch]:
    """Return any plan within a latency limit, or a bound."""
    search = InstanceSearch(instance, clock, warm_start)
    objective = ObjectiveFunction(instance)
    found = search.run(SearchRequest(objective, earlier=earlier, enough=limit_us, give_up=limit_us + 1))
    if found.placed is not None and instance.fleet_latency_us(found.placed) > limit_us:
        found = SearchResult(None, found.bound)
    return found, search
