"""Each objective as one search, or a few.

Latency and energy are searched for as they are; so is the fewest devices, and then the least latency with that many.
The highest lowest retention is found by bisection: is there a plan within the latency limit if every floor is raised
to r?
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.rules.cost import retention
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.warm_start import NO_WARM_START, WarmStart
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.search import Progress, SearchRequest, SearchResult
from planner.solver.search import InstanceSearch
from planner.solver.submodels import knapsack

# Retention is stated in parts per million.
PPM = 10**6


@dataclass(frozen=True)
class SearchOutcome:
    """Best plan for an objective, the bound, and the costs of class subsets as far as they were proven.

    The bound is in microseconds, units of energy, devices, or (for accuracy) parts per million of
    retention; where no plan was found within the latency limit for accuracy, it is the latency's.
    """

    instance: Instance
    placed: tuple[PlacedSubModel, ...] | None
    bound: int | None
    subset_costs: SubsetCosts | None


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
        return _highest_retention(instance, clock, progress, earlier, warm_start)
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
    placed = found.placed
    if objective == "devices" and placed is not None and not clock.expired():
        max_use = np.full(instance.num_resources, NEVER)
        max_use[DEVICES] = len(placed)
        faster = search.run(SearchRequest(ObjectiveFunction(instance), earlier=placed, max_use=max_use))
        placed = faster.placed or placed
    return SearchOutcome(instance, placed, found.bound, search.subset_costs)


def _highest_retention(
    instance: Instance,
    clock: Clock,
    progress: Progress,
    earlier: tuple[PlacedSubModel, ...],
    warm_start: WarmStart,
) -> SearchOutcome:
    """Raise all floors, by bisection, until no plan is within the latency limit."""
    limit_us = instance.goal.max_latency_us
    assert limit_us is not None
    found, search = _within_limit(instance, limit_us, clock, warm_start, earlier)
    if found.placed is None:
        return SearchOutcome(instance, None, found.bound, search.subset_costs)
    best, low, high = found.placed, 0, PPM
    while True:
        best = _levelled(instance, best, limit_us, clock)
        low = max(low, _lowest_ppm(instance, best))
        progress(low / PPM, high / PPM)
        if low >= high or clock.expired():
            break
        # Rounded up: the last step is the hardest to prove, and is taken when nothing else is left.
        middle = (low + high + 1) // 2
        raised = build_instance(instance.profile, instance.fleet, instance.goal, middle / PPM)
        found, search = _within_limit(raised, limit_us, clock, search.warm_start)
        if found.placed is not None:
            best = _onto(instance, raised, found.placed)
            if _lowest_ppm(instance, best) < middle:
                # So near that only rounding is between them.
                break
        elif found.bound is None or found.bound > limit_us:
            high = middle - 1
        else:
            break
    reached = build_instance(instance.profile, instance.fleet, instance.goal, low / PPM)
    subset_costs = InstanceSearch(reached, clock, search.warm_start).subset_costs
    return SearchOutcome(reached, _onto(reached, instance, best), max(low, high), subset_costs)


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


def _onto(instance: Instance, other: Instance, placed: Sequence[PlacedSubModel]) -> tuple[PlacedSubModel, ...]:
    """Return a plan of an instance that differs in its floors only as one of this instance."""
    return tuple(PlacedSubModel(instance.options[other.options.index(p.option)], p.classes, p.kept) for p in placed)


def _lowest_ppm(instance: Instance, placed: Sequence[PlacedSubModel]) -> int:
    """Return the least retention of any class on any device, to the nearest part per million."""
    return min(_retention_ppm(instance, p) for p in placed)


def _retention_ppm(instance: Instance, p: PlacedSubModel) -> int:
    units, profile, at = instance.units, instance.profile, p.option.width_cost
    heads, groups = units.blocks(p.kept, heads=True), units.blocks(p.kept, heads=False)
    names = [profile.classes[c] for c in p.classes]
    kept = (retention(profile, name, at.width.embed_dim, heads, groups, at.precision) for name in names)
    # Rounded as plans state it, first.
    return min(round(PPM * round(share, 6)) for share in kept)


def _levelled(
    instance: Instance, placed: Sequence[PlacedSubModel], limit_us: int, clock: Clock
) -> tuple[PlacedSubModel, ...]:
    """Raise the lowest retention as far as its own device's time allows, then the next lowest."""
    if instance.max_energy is not None:
        # Energy given to one device may be taken from another: left to the search.
        return tuple(placed)
    used = instance.used(p.option for p in placed)
    bottleneck_us = limit_us - instance.fusion_us(int(used[EMBED_DIMS]))
    current = list(placed)
    done: set[int] = set()
    while len(done) < len(current) and not clock.expired():
        lowest = [_retention_ppm(instance, p) for p in current]
        i = min(range(len(current)), key=lowest.__getitem__)
        if i in done:
            break
        p = current[i]
        compute_us = bottleneck_us - instance.path_us(p.option, used)
        kept = knapsack.most_even(instance, p, compute_us, clock)
        better = PlacedSubModel(p.option, p.classes, kept)
        if _retention_ppm(instance, better) > lowest[i]:
            current[i] = better
        done.add(i)
    return tuple(current)
