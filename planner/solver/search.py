"""Searches of one instance: exact for few classes, else by the large method; between, both in turn."""

from dataclasses import replace
from operator import itemgetter

from planner.solver.exact.benders import search_exact
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.warm_start import NO_WARM_START, WarmStart
from planner.solver.large.search import search_large
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.search import SearchRequest, SearchResult

# Up to so many classes the exact method is as quick as any. Up to so many, it begins if there is this much time [s], of
# which it gets a share. Of still more, there are too many subsets.
_QUICK_CLASSES, MAX_EXACT_CLASSES = 12, 16
_LEAST_S, _SHARE = 5.0, 0.7


class InstanceSearch:
    """Searches of one instance, which share the bounds that they prove."""

    def __init__(self, instance: Instance, clock: Clock, warm_start: WarmStart = NO_WARM_START) -> None:
        self.instance, self._clock, self._warm_start = instance, clock, warm_start
        self._is_quick = instance.num_classes <= _QUICK_CLASSES
        by_subsets = self._is_quick or (instance.num_classes <= MAX_EXACT_CLASSES and clock.left() >= _LEAST_S)
        self.subset_costs = SubsetCosts(instance, warm_start) if by_subsets and instance.options else None

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
        clock = self._clock if self._is_quick else self._clock.part(_SHARE * self._clock.left())
        found = search_exact(self.subset_costs, request, clock)
        if _is_settled(found, request):
            return found
        if not self._is_quick and not self._clock.expired():
            return self._better(found, replace(request, earlier=found.placed or request.earlier), self._clock)
        if found.placed is None:
            # Out of time before any plan: one that the large method finds quickly is better than none.
            return self._better(found, replace(request, enough=NEVER - 1), self._clock.grace())
        return found

    def _better(self, found: SearchResult, request: SearchRequest, clock: Clock) -> SearchResult:
        """Return the better of a result and that of the large method, with the higher bound."""
        other = search_large(self.instance, request, clock)
        if other.bound is None or found.bound is None:
            return SearchResult(None, None)
        bound, value_of = max(found.bound, other.bound), request.objective.value_of
        plans = [(value_of(r.placed), r.placed, r.method) for r in (found, other) if r.placed is not None]
        if not plans:
            return SearchResult(None, bound)
        _, placed, method = min(plans, key=itemgetter(0))
        return SearchResult(placed, bound, method)


def _is_settled(found: SearchResult, request: SearchRequest) -> bool:
    """Return whether a request is answered."""
    if found.bound is None or found.bound >= request.give_up:
        return True
    return found.placed is not None and request.objective.value_of(found.placed) <= max(request.enough, found.bound)
