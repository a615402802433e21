"""The best plan for up to a dozen classes, with a proof.

t(o, S), the least compute time of a sub-model for class subset S on option o, is a small but
hard problem, and there are 2^C of them for each option. Few matter. So each starts with a cheap
bound, and only those that the assignment wants to use are looked at more closely:

1. With the bounds in the place of t, find the best assignment. It is a bound on the objective,
   since it believes every promise.
2. Where it uses a sub-model that nobody has built yet, build it: first a bound by linear
   programming, then the exact one. What is learned of S is a bound for every
   superset of S too, since more classes never need less.
3. When every sub-model of the assignment of step 1 is as good as promised, that assignment is a
   plan, and its objective is its own bound: optimal. Until then, go back to 1.

Bounds only rise, and in the end are exact, so this ends; stopped early, it has a bound and
usually a plan. Step 1 is told in `promise`.
"""

from planner.arrays import Ints
from planner.solver.exact.assignment import Column, mask_of
from planner.solver.exact.master import MasterProblem, ObjectiveFunction, OptimisticAssignment
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance, PlacedSubModel, Progress, SearchResult
from planner.solver.problem.placement import is_allowed, is_plan

MAX_EXACT_CLASSES = 12


def search_exact(
    knowledge: SubsetCosts,
    clock: Clock,
    progress: Progress,
    judge: ObjectiveFunction | None = None,
    earlier: tuple[PlacedSubModel, ...] = (),
    enough: int = 0,
    give_up: int = NEVER,
    most: Ints | None = None,
) -> SearchResult:
    """Find the best assignment and prove it, or come as far as the clock allows.

    Args:
        knowledge: Of an instance with at most `MOST_CLASSES` classes; what is learned is added to it.
        clock: When to stop.
        progress: Called with the best objective so far and the bound.
        judge: What the assignment is judged by; its latency unless given.
        earlier: Sub-models to begin with, of an earlier plan; together they may be a plan.
        enough: Stop at any plan that is this good.
        give_up: Stop when no plan can be this good.
        most: The most that may be used of each resource, (R,).
    """
    judge = judge or ObjectiveFunction(knowledge.instance)
    promises = MasterProblem(knowledge, judge, most)
    best: tuple[PlacedSubModel, ...] | None = None
    value, bound = NEVER, 0
    for p in earlier:
        if is_allowed(knowledge.instance, p):
            knowledge.add(Column(knowledge.instance.options.index(p.option), mask_of(p.classes)), p.kept)
    if earlier and is_plan(knowledge.instance, earlier) and _within(knowledge.instance, earlier, most):
        value = judge.value_of(earlier)
        best = earlier if value < NEVER else None
    try:
        while True:
            promise = promises.best(clock, value)
            if promise is None and best is None:
                return SearchResult(None, None)
            if promise is None:
                progress(value, value)
                return SearchResult(best, value)
            bound = max(bound, promise.value)
            for pick, needed_us in _unbuilt(knowledge, promise):
                knowledge.examine(pick, clock, needed_us)
                if best is not None and knowledge.low[pick.option, pick.mask] > needed_us:
                    # The promise is broken, whatever the others hold; a first plan would want them all.
                    break
            if all(pick in knowledge.kept for pick in promise.picks):
                placed = best_sub_models(knowledge, promise.picks)
                if judge.value_of(placed) < value:
                    best, value = placed, judge.value_of(placed)
            progress(value if best else None, bound)
            if value <= bound:
                return SearchResult(best, value)
            if value <= enough or bound >= give_up or clock.expired():
                return SearchResult(best, bound)
    except TimeoutError:
        return SearchResult(best, bound)


def _within(instance: Instance, placed: tuple[PlacedSubModel, ...], most: Ints | None) -> bool:
    return most is None or bool((instance.used(p.option for p in placed) <= most).all())


def _unbuilt(knowledge: SubsetCosts, promise: OptimisticAssignment) -> list[tuple[Column, int]]:
    """Return the picks whose sub-models are not known to be as good as the promise needs, and what it needs [us]."""
    needed = zip(promise.picks, promise.needed_us, strict=True)
    return [(i, needed_us) for i, needed_us in needed if knowledge.high[i.option, i.mask] > needed_us]


def best_sub_models(knowledge: SubsetCosts, picks: list[Column]) -> tuple[PlacedSubModel, ...]:
    """Return the best sub-models built so far of some candidates."""
    options = knowledge.instance.options
    return tuple(PlacedSubModel(options[p.option], p.classes, knowledge.kept[p]) for p in picks)
