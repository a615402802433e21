"""Solve with given floors: the best plan for the objective, and then the most accuracy from what is left over."""

from collections.abc import Iterator, Sequence

from planner.solver.infeasible.no_plan import no_plan_error
from planner.solver.optimise import SearchOutcome, optimise
from planner.solver.options import SolveOptions
from planner.solver.plan import Solution
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import ByDevice, by_device, placement_of_plan
from planner.solver.second_stage.stay_near import stay_near
from planner.solver.second_stage.use_slack import use_slack


def solve_at_floors(instance: Instance, clock: Clock, options: SolveOptions) -> Solution:
    """Optimise, explain if there is no plan, stay near the earlier plan, use what slack is left.

    Args:
        instance: Problem, with its floors.
        clock: Time for it.
        options: Budget, start and reports.

    Raises:
        InfeasibleError: If no plan exists; the message says why and what would help.
        TimeLimitError: If no plan was found in time, though one may exist.
    """
    outcome, solutions = search_at_floors(instance, clock, options)
    if outcome.placed is None or breaks_limit(instance, outcome):
        raise no_plan_error(instance, outcome, clock, options)
    return next(solutions)


def search_at_floors(
    instance: Instance, clock: Clock, options: SolveOptions, stretches: Sequence[float] = (0.0,)
) -> tuple[SearchOutcome, Iterator[Solution]]:
    """Return what a search found, and the plan if there is one, perhaps beyond the latency limit.

    The plan is finished when it is asked for, once for each stretch.

    Args:
        instance: Problem, with its floors.
        clock: Time for it.
        options: Budget, start and reports.
        stretches: Shares by which the latency may rise when the plan is finished, each for a plan of its own.
    """
    earlier = {} if options.start is None else placement_of_plan(instance, options.start)
    outcome = optimise(instance, clock, options.progress, tuple(earlier.values()), options.warm_start)
    return outcome, _finished(instance, outcome, earlier, clock, options, stretches)


def _finished(
    instance: Instance,
    outcome: SearchOutcome,
    earlier: ByDevice,
    clock: Clock,
    options: SolveOptions,
    stretches: Sequence[float],
) -> Iterator[Solution]:
    """Yield the finished plan of a search for each stretch; nothing where there is no plan."""
    if outcome.placed is None or outcome.bound is None:
        return
    placement: ByDevice = by_device(outcome.instance, outcome.placed, earlier)
    stays: list[PlacedSubModel] = []
    # Plans at raised floors are not compared with an earlier plan: their options are others.
    if earlier and outcome.subset_costs is not None and outcome.instance is instance:
        objective = ObjectiveFunction(instance, instance.goal.objective)
        placement = stay_near(instance, outcome.placed, earlier, outcome.subset_costs, objective, clock)
        stays = [p for name, p in placement.items() if earlier.get(name) == p]
    rest = clock.rest()
    warm_start = options.warm_start if outcome.subset_costs is None else outcome.subset_costs.warm_start()
    for stretch in stretches:
        richer = use_slack(outcome.instance, list(placement.values()), rest, stays, stretch)
        by_name = _renamed(outcome, placement, richer, earlier)
        yield Solution(outcome.instance, by_name, outcome.bound, warm_start, method=outcome.method)


def breaks_limit(instance: Instance, outcome: SearchOutcome) -> bool:
    """Return whether the plan that was found takes longer than the goal allows."""
    limit_us = instance.goal.max_latency_us
    return limit_us is not None and outcome.placed is not None and instance.fleet_latency_us(outcome.placed) > limit_us


def _renamed(
    outcome: SearchOutcome, placement: ByDevice, richer: Sequence[PlacedSubModel], earlier: ByDevice
) -> ByDevice:
    """Return the richer sub-models on the same devices, if options are unchanged, else on the nearest."""
    same = len(richer) == len(placement) and all(
        a.option is b.option for a, b in zip(richer, placement.values(), strict=True)
    )
    return dict(zip(placement, richer, strict=True)) if same else by_device(outcome.instance, richer, earlier)
