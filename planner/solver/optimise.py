"""Each objective as one search, or a few.

Latency and energy are searched for as they are; so is the fewest devices, and then the least
latency with that many. The best lowest retention is found by halving: is there a plan within the
latency limit if every floor is raised to r?
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Ints
from planner.rules.cost import retention
from planner.solver.exact import benders
from planner.solver.exact.master import ObjectiveFunction
from planner.solver.exact.subset_costs import ComputeTime, SubsetCosts
from planner.solver.exact.warm_start import NO_WARM_START, WarmStart
from planner.solver.large import search
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, NEVER, Instance, PlacedSubModel, Progress, SearchResult
from planner.solver.submodels import knapsack

# Retention is stated in parts per million.
PPM = 10**6


@dataclass(frozen=True)
class SearchOutcome:
    """What a search came to: the best plan and the bound on its objective, and what was learned on the way.

    The bound is in microseconds, units of energy, devices, or (for accuracy) parts per million of
    retention; where no plan was found within the latency limit for accuracy, it is the latency's.
    """

    instance: Instance
    placed: tuple[PlacedSubModel, ...] | None
    bound: int | None
    knowledge: SubsetCosts | None


class InstanceSearch:
    """One instance's searches, which share what they learn."""

    def __init__(self, instance: Instance, clock: Clock, experience: WarmStart = NO_WARM_START) -> None:
        self.instance, self._clock, self._experience = instance, clock, experience
        small = instance.num_classes <= benders.MAX_EXACT_CLASSES and instance.options
        self.knowledge = SubsetCosts(instance, ComputeTime(instance), experience) if small else None

    @property
    def experience(self) -> WarmStart:
        """What is known by now, for other searches to begin with."""
        return self._experience if self.knowledge is None else self.knowledge.experience()

    def run(
        self,
        judge: ObjectiveFunction,
        progress: Progress,
        earlier: tuple[PlacedSubModel, ...] = (),
        enough: int = 0,
        give_up: int = NEVER,
        most: Ints | None = None,
    ) -> SearchResult:
        """Search for what the judge likes best; see `exact.search`."""
        if not self.instance.options:
            return SearchResult(None, None)
        if self.knowledge is None:
            return search.search_large(self.instance, self._clock, progress, judge, earlier, enough, give_up, most)
        found = benders.search_exact(self.knowledge, self._clock, progress, judge, earlier, enough, give_up, most)
        if found.placed is not None or found.bound is None or found.bound >= give_up:
            return found
        # Out of time on the way to the best plan: any plan is better than none.
        grace = self._clock.grace()
        some = search.search_large(self.instance, grace, progress, judge, earlier, NEVER - 1, give_up, most)
        if some.placed is None or some.bound is None:
            return found
        return SearchResult(some.placed, max(found.bound, some.bound))


def optimise(
    instance: Instance,
    clock: Clock,
    progress: Progress,
    earlier: tuple[PlacedSubModel, ...] = (),
    experience: WarmStart = NO_WARM_START,
) -> SearchOutcome:
    """Return the best plan for the instance's objective, with its bound.

    Args:
        instance: What to plan.
        clock: When to stop.
        progress: Called with the best objective so far and the bound, in the units of the plan's file.
        earlier: Sub-models to begin with, of an earlier plan.
        experience: What is known already.
    """
    objective = instance.goal.objective
    if objective == "accuracy":
        return _most_accurate(instance, clock, progress, earlier, experience)
    scale = 1000 * instance.energy_scale if objective == "energy" else 1
    search = InstanceSearch(instance, clock, experience)
    if instance.max_energy is not None and objective != "energy":
        # A plan within the energy limit is easier found by looking for little energy.
        frugal = search.run(ObjectiveFunction(instance, "energy"), no_progress, earlier, enough=instance.max_energy)
        earlier = frugal.placed or earlier

    def scaled(best: float | None, bound: float) -> None:
        progress(None if best is None else best / scale, bound / scale)

    found = search.run(ObjectiveFunction(instance, objective), scaled, earlier)
    placed = found.placed
    if objective == "devices" and placed is not None and not clock.expired():
        most = np.full(instance.num_resources, NEVER)
        most[DEVICES] = len(placed)
        faster = search.run(ObjectiveFunction(instance), no_progress, placed, most=most)
        placed = faster.placed or placed
    return SearchOutcome(instance, placed, found.bound, search.knowledge)


def _most_accurate(
    instance: Instance, clock: Clock, progress: Progress, earlier: tuple[PlacedSubModel, ...], experience: WarmStart
) -> SearchOutcome:
    """Raise the floors until no plan is within the latency limit."""
    limit_us = instance.goal.max_latency_us
    assert limit_us is not None

    def within_limit(
        raised: Instance, known: WarmStart, begin: tuple[PlacedSubModel, ...] = ()
    ) -> tuple[SearchResult, InstanceSearch]:
        search = InstanceSearch(raised, clock, known)
        found = search.run(ObjectiveFunction(raised), no_progress, begin, enough=limit_us, give_up=limit_us + 1)
        if found.placed is not None and raised.fleet_latency_us(found.placed) > limit_us:
            found = SearchResult(None, found.bound)
        return found, search

    found, search = within_limit(instance, experience, earlier)
    if found.placed is None:
        return SearchOutcome(instance, None, found.bound, search.knowledge)
    best, low, high = found.placed, 0, PPM
    while True:
        best = _levelled(instance, best, limit_us, clock)
        low = max(low, _lowest_ppm(instance, best))
        progress(low / PPM, high / PPM)
        if low >= high or clock.expired():
            break
        # The last step is the hardest to prove: it is taken when nothing else is left.
        middle = (low + high + 1) // 2
        raised = build_instance(instance.profile, instance.fleet, instance.goal, middle / PPM)
        found, search = within_limit(raised, search.experience)
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
    knowledge = InstanceSearch(reached, clock, search.experience).knowledge
    return SearchOutcome(reached, _onto(reached, instance, best), max(low, high), knowledge)


def no_progress(best: float | None, bound: float) -> None:
    """Report nothing."""


def _onto(instance: Instance, other: Instance, placed: Sequence[PlacedSubModel]) -> tuple[PlacedSubModel, ...]:
    """Return a plan of an instance that differs in its floors only as one of this instance."""
    return tuple(PlacedSubModel(instance.options[other.options.index(p.option)], p.classes, p.kept) for p in placed)


def _lowest_ppm(instance: Instance, placed: Sequence[PlacedSubModel]) -> int:
    """Return the least retention of any class on any device, to the nearest part per million."""
    return min(_retention_ppm(instance, p) for p in placed)


def _retention_ppm(instance: Instance, p: PlacedSubModel) -> int:
    units, profile, at = instance.units, instance.profile, p.option.at
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
        # What a device is given, another may have to go without: left to the search.
        return tuple(placed)
    used = instance.used(p.option for p in placed)
    slowest_us = limit_us - instance.fusion_us(int(used[EMBED_DIMS]))
    current = list(placed)
    done: set[int] = set()
    while len(done) < len(current) and not clock.expired():
        lowest = [_retention_ppm(instance, p) for p in current]
        i = min(range(len(current)), key=lowest.__getitem__)
        if i in done:
            break
        p = current[i]
        compute_us = slowest_us - instance.path_us(p.option, used)
        better = PlacedSubModel(
            p.option, p.classes, knapsack.most_even(instance, p.option, p.classes, compute_us, p.kept, clock)
        )
        if _retention_ppm(instance, better) > lowest[i]:
            current[i] = better
        done.add(i)
    return tuple(current)
