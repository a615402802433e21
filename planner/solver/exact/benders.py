"""Best plan for few classes, with a proof, by logic-based Benders decomposition.

t(o, S), the least compute time of a sub-model for class subset S on option o, is a small but hard problem, and there
are 2^C of them for each option. Few matter. So each starts with a cheap lower bound, and only those that the
assignment wants to use are solved:

1. The master problem (`master`) finds the best assignment with lower bounds in the place of t. Its value is a bound on
   the objective.
2. The subproblem of each column that the assignment uses and that nobody has built yet is solved (`sub_model_costs`):
   first by linear relaxation, then exactly. The bound that results is a cut, valid for every superset of S too, since
   more classes never need less (a strengthened Benders cut). So before it is added, classes are left out of S for as
   long as the others alone cost as much.
3. When every sub-model of the master's assignment is as fast as the master assumed, that assignment is a plan, and its
   objective is its own bound: optimal. Until then, return to step 1.

Bounds only rise, and in the end are exact, so this terminates; stopped early, it has a bound and usually a plan.

Source: Hooker and Ottosson, Logic-based Benders decomposition, doi:10.1007/s10107-003-0375-9.
"""

from planner.solver.exact.master import MasterProblem, OptimisticAssignment
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.instance import NEVER
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import is_plan, is_valid
from planner.solver.problem.search import SearchRequest, SearchResult
from planner.solver.problem.subsets import mask_of


def search_exact(subset_costs: SubsetCosts, request: SearchRequest, clock: Clock) -> SearchResult:
    """Find the best assignment and prove it, or come as far as the clock allows.

    Args:
        subset_costs: Bounds of an instance's class subsets; the search raises them.
        request: Objective, start and end.
        clock: Time for it.
    """
    objective = request.objective
    master = MasterProblem(subset_costs, objective, request.max_use)
    value, best = _begin(subset_costs, request)
    bound = 0
    try:
        while True:
            assignment = master.best_optimistic_assignment(clock, value)
            if assignment is None and best is None:
                return SearchResult(None, None)
            if assignment is None:
                request.progress(value, value)
                return SearchResult(best, value)
            bound = max(bound, assignment.value)
            below = value if objective.name == "latency" else NEVER
            _solve_subproblems(subset_costs, assignment, below, clock, prune=best is not None)
            if all(column in subset_costs.kept for column in assignment.columns):
                placed = best_sub_models(subset_costs, assignment.columns)
                if objective.value_of(placed) < value:
                    best, value = placed, objective.value_of(placed)
            request.progress(value if best else None, bound)
            if value <= bound:
                return SearchResult(best, value)
            if value <= request.enough or bound >= request.give_up or clock.expired():
                return SearchResult(best, bound)
    except TimeoutError:
        return SearchResult(best, bound)


def _begin(subset_costs: SubsetCosts, request: SearchRequest) -> tuple[int, tuple[PlacedSubModel, ...] | None]:
    """Add the sub-models of an earlier plan; return its value and itself where it is still a plan."""
    instance, earlier = subset_costs.instance, request.earlier
    for p in earlier:
        if is_valid(instance, p):
            subset_costs.add(Column(instance.options.index(p.option), mask_of(p.classes)), p.kept)
    if not earlier or not is_plan(instance, earlier):
        return NEVER, None
    if request.max_use is not None and (instance.used(p.option for p in earlier) > request.max_use).any():
        return NEVER, None
    value = request.objective.value_of(earlier)
    return value, earlier if value < NEVER else None


def _solve_subproblems(
    subset_costs: SubsetCosts, assignment: OptimisticAssignment, below: int, clock: Clock, prune: bool
) -> None:
    """Solve the columns of an assignment that are not known to be as fast as it assumes.

    Args:
        subset_costs: Bounds, which are raised.
        assignment: Assignment at the bounds so far.
        below: Latency [us] of the best plan so far; slower ones are all alike.
        clock: Time for it.
        prune: Whether one column that is too slow is enough.
    """
    limits = zip(assignment.columns, assignment.max_compute_us, strict=True)
    unsolved = [(column, us) for column, us in limits if subset_costs.upper_bound[column.option, column.mask] > us]
    for column, max_us in unsolved:
        too_slow_us = min(NEVER, max_us + below - assignment.value)
        subset_costs.solve(column, clock, max_us, too_slow_us)
        # One column that is too slow refutes the assignment, whatever the others are; a first plan needs them all.
        cost = int(subset_costs.lower_bound[column.option, column.mask])
        if cost > max_us:
            subset_costs.generalise(column, min(cost, too_slow_us), clock)
            if prune:
                break


def best_sub_models(subset_costs: SubsetCosts, columns: list[Column]) -> tuple[PlacedSubModel, ...]:
    """Return the best sub-models built so far of some columns."""
    options = subset_costs.instance.options
    return tuple(PlacedSubModel(options[c.option], c.classes, subset_costs.kept[c]) for c in columns)
