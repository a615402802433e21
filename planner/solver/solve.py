"""From a profile, a fleet and a goal to a checked plan."""

import time
from collections.abc import Sequence

from planner.errors import InfeasibleError, InputError, PlannerError
from planner.rules.check import check
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver.baselines import BASELINES
from planner.solver.exact.warm_start import WarmStart
from planner.solver.infeasible.no_plan import no_plan_error
from planner.solver.large.search import latency_bound_us
from planner.solver.optimise import SearchOutcome, optimise
from planner.solver.options import DEFAULT_OPTIONS, SolveOptions
from planner.solver.plan import Solution, plan_of
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock, interruptible
from planner.solver.problem.instance import Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import ByDevice, by_device, placement_of_plan
from planner.solver.second_stage.stay_near import stay_near
from planner.solver.second_stage.use_slack import use_slack


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
    instance = build_instance(profile, fleet, goal)
    if goal.method == "exact":
        clock = Clock(options.time_limit_s, options.deterministic)
        solution = interruptible(lambda: _solve_exactly(instance, clock, options), clock)
    else:
        solution = _solve_by_baseline(instance, options)
    plan = plan_of(solution, options.seed, time.monotonic() - began)
    problems = check(plan, profile, fleet)
    if problems:
        raise PlannerError(f"The solver made a plan that fails its check, which is a bug: {problems[0]}.")
    return plan, solution.warm_start


def _solve_by_baseline(instance: Instance, options: SolveOptions) -> Solution:
    goal = instance.goal
    unknown = [key for key in ("pin", "forbid", "together", "apart", "survive", "max_energy_mj") if getattr(goal, key)]
    unknown += ["objective"] * (goal.objective != "latency")
    if unknown:
        raise InputError(f"method {goal.method!r} knows nothing of {unknown[0]!r}: use the exact method.")
    if not instance.options:
        raise InfeasibleError("No plan: every device is left out.")
    placed = BASELINES[goal.method](instance, options.seed)
    bound = latency_bound_us(instance) or 0
    return Solution(instance, by_device(instance, placed, {}), bound, options.warm_start)


def _solve_exactly(instance: Instance, clock: Clock, options: SolveOptions) -> Solution:
    """Optimise, explain if there is no plan, stay near the earlier plan, use what slack is left."""
    earlier = {} if options.start is None else placement_of_plan(instance, options.start)
    outcome = optimise(instance, clock, options.progress, tuple(earlier.values()), options.warm_start)
    if outcome.placed is None or outcome.bound is None or _breaks_limit(instance, outcome.placed):
        raise no_plan_error(instance, outcome, clock, options)
    placement = by_device(outcome.instance, outcome.placed, earlier)
    stays: list[PlacedSubModel] = []
    # Plans at raised floors are not compared with an earlier plan: their options are others.
    if earlier and outcome.subset_costs is not None and outcome.instance is instance:
        objective = ObjectiveFunction(instance, instance.goal.objective)
        placement = stay_near(instance, outcome.placed, earlier, outcome.subset_costs, objective, clock)
        stays = [p for name, p in placement.items() if earlier.get(name) == p]
    grace = clock.grace() if clock.expired() else clock
    richer = use_slack(outcome.instance, list(placement.values()), outcome.subset_costs, grace, stays)
    warm_start = options.warm_start if outcome.subset_costs is None else outcome.subset_costs.warm_start()
    return Solution(outcome.instance, _renamed(outcome, placement, richer, earlier), outcome.bound, warm_start)


def _breaks_limit(instance: Instance, placed: Sequence[PlacedSubModel]) -> bool:
    limit_us = instance.goal.max_latency_us
    return limit_us is not None and instance.fleet_latency_us(placed) > limit_us


def _renamed(
    outcome: SearchOutcome, placement: ByDevice, richer: Sequence[PlacedSubModel], earlier: ByDevice
) -> ByDevice:
    """Return the richer sub-models on the same devices, if options are unchanged, else on the nearest."""
    same = len(richer) == len(placement) and all(
        a.option is b.option for a, b in zip(richer, placement.values(), strict=True)
    )
    return dict(zip(placement, richer, strict=True)) if same else by_device(outcome.instance, richer, earlier)
