"""Error for the highest accuracy within a latency, where that is below what the accuracy drop leaves."""

import math
from dataclasses import replace

from planner.errors import InfeasibleError, setting
from planner.solver.floor_levels import DECIMALS, share_of, sufficient_log_odds
from planner.solver.infeasible.no_plan import no_plan_error
from planner.solver.keep_drop import keeps_drop, predicted_loss, predicted_to_lose
from planner.solver.options import SolveOptions
from planner.solver.plan import Solution, plan_of
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance
from planner.solver.solve_at_floors import breaks_limit, search_at_floors
from planner.units import format_points


def drop_not_kept_error(solution: Solution, clock: Clock, options: SolveOptions) -> InfeasibleError:
    """Return the error that says what the most accurate plan loses, and what stands in the way of more accuracy.

    That is what there is no plan for at floors that keep the drop for certain: what makes one possible works.

    Args:
        solution: Most accurate plan within the latency limit, which does not keep the drop of its goal.
        clock: Time for the explanation.
        options: Options of the search.
    """
    instance = solution.instance
    goal, plan = instance.goal, plan_of(solution, 0, 0.0)
    reason = _reason(instance, clock, options)
    return InfeasibleError(
        f"No plan within {goal.max_latency_ms:g} ms is predicted to lose at most "
        f"{format_points(goal.accuracy_drop or 0.0)}: the most accurate one found is {predicted_to_lose(plan)}"
        f"{_kept_drop(solution, predicted_loss(plan))}.{reason}"
    )


def _kept_drop(solution: Solution, loss: float) -> str:
    """Return the drop that the plan keeps, if it keeps the next one in tenths of a point."""
    instance, larger = solution.instance, math.ceil(loss * 1000) / 1000
    goal = instance.goal.replace(max_accuracy_drop=larger)
    at_larger = build_instance(instance.profile, instance.fleet, goal, instance.retention_floor)
    if not keeps_drop(replace(solution, instance=at_larger)):
        return ""
    return f", so {setting('max_accuracy_drop', f'{larger:g}')} has a plan"


def _reason(instance: Instance, clock: Clock, options: SolveOptions) -> str:
    goal = instance.goal
    floor = round(share_of(sufficient_log_odds(instance.profile, goal, 1)), DECIMALS)
    certain = build_instance(instance.profile, instance.fleet, goal.replace(objective="latency"), floor)
    rest = clock.rest()
    outcome, _ = search_at_floors(certain, rest, options)
    if outcome.placed is not None and not breaks_limit(certain, outcome):
        # There is a plan, which the search for accuracy did not find.
        return f" Raise {setting('time_limit_s')}."
    reason = str(no_plan_error(certain, outcome, rest, options)).removeprefix("No plan: ")
    return f" With floors of {floor:.2f}: {reason[:1].lower()}{reason[1:]}"
