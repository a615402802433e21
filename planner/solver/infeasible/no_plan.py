"""Error for a search that ended without a plan: infeasible, too slow, or out of time."""

from planner.errors import InfeasibleError, PlannerError, TimeLimitError, setting
from planner.solver.infeasible.explanation import explain_infeasible, explain_too_slow
from planner.solver.optimise import SearchOutcome
from planner.solver.options import SolveOptions
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance


def no_plan_error(instance: Instance, outcome: SearchOutcome, clock: Clock, options: SolveOptions) -> PlannerError:
    """Return the error that says why there is no plan."""
    limit_us = instance.goal.max_latency_us
    known = options.warm_start if outcome.subset_costs is None else outcome.subset_costs.warm_start()
    if outcome.bound is None:
        return InfeasibleError(explain_infeasible(instance, clock.rest(), known, options.advice))
    by_latency = instance.goal.objective in ("latency", "accuracy")
    if limit_us is not None and by_latency and outcome.bound > limit_us:
        best = outcome.placed
        return InfeasibleError(
            explain_too_slow(instance, int(outcome.bound), best, clock.rest(), known, options.advice)
        )
    more_time = setting("time_limit_s")
    if outcome.placed is None:
        return TimeLimitError(f"No plan found within {clock.seconds:g} s (not proven impossible). Raise {more_time}.")
    return TimeLimitError(
        f"No plan within {instance.goal.max_latency_ms:g} ms was found; the best takes "
        f"{instance.fleet_latency_us(outcome.placed) / 1000:.3f} ms, and none takes less than "
        f"{outcome.bound / 1000:.3f} ms. Raise {more_time} or {setting('max_latency_ms')}."
    )
