"""From a profile, a fleet and a goal to a checked plan."""

import time

from planner.errors import InfeasibleError, InputError, PlannerError, setting
from planner.rules.check import check
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver.baselines import BASELINES
from planner.solver.drop_not_kept import drop_not_kept_error
from planner.solver.exact.warm_start import WarmStart
from planner.solver.keep_drop import keeps_drop, predicted_to_lose, solve_for_drop
from planner.solver.large.search import latency_bound_us
from planner.solver.options import DEFAULT_OPTIONS, SolveOptions
from planner.solver.plan import Solution, plan_of
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock, interruptible
from planner.solver.problem.instance import Instance
from planner.solver.problem.placement import by_device
from planner.solver.solve_at_floors import solve_at_floors


def solve(profile: Profile, fleet: Fleet, goal: Goal | None = None, options: SolveOptions = DEFAULT_OPTIONS) -> Plan:
    """Return the best plan for the goal's objective, with a bound on how much better any other could be.

    Every plan has passed `rules.check`, which recomputes it from the profile and the fleet.
    Ctrl-C ends the search like the time limit: with the best plan so far.

    Args:
        profile: Measurements of the model.
        fleet: Devices and links.
        goal: Objective, limits and demands; least latency at an accuracy drop of 2 points unless given.
        options: Budget, start and reports.

    Raises:
        InputError: If the profile, the fleet and the goal do not go together.
        InfeasibleError: If no plan exists; the message says why and what would help.
        TimeLimitError: If no plan was found in time, though one may exist.
    """
    return solve_and_learn(profile, fleet, goal, options)[0]


def solve_and_learn(
    profile: Profile, fleet: Fleet, goal: Goal | None = None, options: SolveOptions = DEFAULT_OPTIONS
) -> tuple[Plan, WarmStart]:
    """Return the same as `solve`, and a warm start for solves of fleets like this one.

    A warm start can be pickled, is under a megabyte for a dozen devices, and no solve changes it. Where there are
    more classes than the exact method takes, it is the one that was given.
    """
    began = time.monotonic()
    goal = goal or Goal()
    clock = Clock(options.time_limit_s, options.deterministic, options.began_s)
    instance = build_instance(profile, fleet, goal)
    if goal.method != "exact":
        solution = interruptible(lambda: _solve_by_baseline(instance, options, clock), clock)
    else:
        search = solve_for_drop if goal.accuracy_drop is not None and goal.objective != "accuracy" else solve_at_floors
        solution = interruptible(lambda: search(instance, clock, options), clock)
        if goal.objective == "accuracy" and goal.accuracy_drop is not None and not keeps_drop(solution):
            raise drop_not_kept_error(solution, clock, options)
    plan = plan_of(solution, options.seed, time.monotonic() - began)
    problems = check(plan, profile, fleet)
    if problems:
        raise PlannerError(f"The solver made a plan that fails its check, which is a bug: {problems[0]}.")
    return plan, solution.warm_start


def _solve_by_baseline(instance: Instance, options: SolveOptions, clock: Clock) -> Solution:
    goal = instance.goal
    unknown = [key for key in ("pin", "forbid", "together", "apart", "survive", "max_energy_mj") if getattr(goal, key)]
    unknown += ["objective"] * (goal.objective != "latency")
    if unknown:
        raise InputError(f"method {goal.method!r} knows nothing of {unknown[0]!r}: use the exact method.")
    if not instance.options:
        raise InfeasibleError("No plan: every device is left out.")
    placed = BASELINES[goal.method](instance, options.seed, clock)
    bound = latency_bound_us(instance) or 0
    solution = Solution(instance, by_device(instance, placed, {}), bound, options.warm_start, method=goal.method)
    if goal.accuracy_drop is not None and not keeps_drop(solution):
        raise InfeasibleError(
            f"No plan by {goal.method}: the one it makes is {predicted_to_lose(plan_of(solution, 0, 0.0))}. "
            f"Use {setting('method', 'exact')}."
        )
    return solution
