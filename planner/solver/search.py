"""Searches of one instance: exact for few classes, else by the large method."""

from dataclasses import replace

from planner.solver.exact.benders import MAX_EXACT_CLASSES, search_exact
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.warm_start import NO_WARM_START, WarmStart
from planner.solver.large.search import search_large
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.search import SearchRequest, SearchResult


class InstanceSearch:
    """Searches of one instance, which share the bounds that they prove."""

    def __init__(self, instance: Instance, clock: Clock, warm_start: WarmStart = NO_WARM_START) -> None:
        self.instance, self._clock, self._warm_start = instance, clock, warm_start
        small = instance.num_classes <= MAX_EXACT_CLASSES and instance.options
        self.subset_costs = SubsetCosts(instance, warm_start) if small else None

    @property
    def warm_start(self) -> WarmStart:
        """Proofs and sub-models by now, for other searches to begin with."""
        return self._warm_start if self.subset_costs is None else self.subset_costs.warm_start()

    def run(self, request: SearchRequest) -> SearchResult:
        """Return the best placement for a request, and a bound."""
        if not self.instance.options:
            return SearchResult(None, None)
        if self.subset_costs is None:
            return search_large(self.instance, request, self._clock)
        result = search_exact(self.subset_costs, request, self._clock)
        if result.placed is not None or result.bound is None or result.bound >= request.give_up:
            return result
        # Out of time before any plan: one that the large method finds quickly is better than none.
        any_plan = search_large(self.instance, replace(request, enough=NEVER - 1), self._clock.grace())
        if any_plan.placed is None or any_plan.bound is None:
            return result
        return SearchResult(any_plan.placed, max(result.bound, any_plan.bound))
