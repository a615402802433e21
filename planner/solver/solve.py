"""A profile, a fleet and a goal become a plan."""

import math
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from planner.errors import InfeasibleError, InputError, PlannerError, TimeLimitError
from planner.rules.accuracy import predicted_accuracy
from planner.rules.check import check, gap_of, status_of
from planner.rules.cost import kept_counts, retention, transfers_us
from planner.schema import Assignment, Fleet, FusionCost, Goal, Plan, Profile, SolverRun, sha256_of
from planner.solver import baselines
from planner.solver.exact.master import ObjectiveFunction
from planner.solver.exact.warm_start import NO_WARM_START, WarmStart
from planner.solver.infeasible import explanation
from planner.solver.large import search
from planner.solver.optimise import PPM, SearchOutcome, no_progress, optimise
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock, interruptible
from planner.solver.problem.instance import Instance, PlacedSubModel, Progress
from planner.solver.problem.placement import ByDevice, by_device, placement_of_plan
from planner.solver.second_stage.stay_near import stay_near
from planner.solver.second_stage.use_slack import use_slack
from planner.version import __version__

DEFAULT_TIME_LIMIT_S = 30.0

_YARDSTICKS = {
    "random-equal": baselines.random_equal,
    "greedy": baselines.greedy,
    "memory-proportional": baselines.memory_proportional,
}


def solve(
    profile: Profile,
    fleet: Fleet,
    goal: Goal | None = None,
    *,
    seed: int = 0,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    deterministic: bool = False,
    start: Plan | None = None,
    experience: WarmStart = NO_WARM_START,
    progress: Progress | None = None,
    advice: bool = True,
) -> Plan:
    """Return the best plan for the goal's objective, with a bound on how much better any other could be.

    Every plan has passed `planner.rules.check`, which recomputes it from the profile and the fleet.
    Ctrl-C ends the search like the time limit: with the best plan so far.

    Args:
        profile: What was measured of the model.
        fleet: The devices and their links.
        goal: What the plan must hold, and its objective; least latency at an accuracy drop of 2 points unless given.
        seed: For the yardsticks' random subsets; the exact method draws nothing.
        time_limit_s: After this long the best plan so far is returned, with its gap.
        deterministic: Count work instead of seconds, so that the same plan comes out on every machine.
        start: An earlier plan, of this fleet or one like it: it speeds the search up, and of plans
            equally good, the one nearest to it is returned.
        experience: What `solve_and_learn` learned, of this fleet or one like it: it speeds the search up.
        progress: Called with the best objective so far, if there is one, and its bound.
        advice: Where there is no plan, look for the smallest changes that would do: it may take as long as a search.

    Raises:
        InputError: If the profile, the fleet and the goal do not go together.
        InfeasibleError: If no plan exists; the message says why and what would help.
        TimeLimitError: If no plan was found in time, though one may exist.
    """
    return solve_and_learn(
        profile,
        fleet,
        goal,
        seed=seed,
        time_limit_s=time_limit_s,
        deterministic=deterministic,
        start=start,
        experience=experience,
        progress=progress,
        advice=advice,
    )[0]


def solve_and_learn(
    profile: Profile,
    fleet: Fleet,
    goal: Goal | None = None,
    *,
    seed: int = 0,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    deterministic: bool = False,
    start: Plan | None = None,
    experience: WarmStart = NO_WARM_START,
    progress: Progress | None = None,
    advice: bool = True,
) -> tuple[Plan, WarmStart]:
    """Do as `solve`, and return what was learned on the way as well, for solves of fleets like this one.

    It can be pickled, is under a megabyte for a dozen devices, and no solve changes it. Where there
    are more classes than the exact method takes, nothing is learned.
    """
    began = time.monotonic()
    goal = goal or Goal()
    instance = build_instance(profile, fleet, goal)
    clock = Clock(time_limit_s, deterministic)
    if goal.method == "exact":
        earlier = {} if start is None else placement_of_plan(instance, start)
        search = _Exact(instance, clock, earlier, experience, progress or no_progress, advice)
        instance, chosen, bound = interruptible(search.plan, clock)
        experience = search.experience
    else:
        chosen, bound = _by_yardstick(instance, seed)
    plan = _plan(instance, chosen, bound, seed, time.monotonic() - began)
    problems = check(plan, profile, fleet)
    if problems:
        raise PlannerError(f"The solver made a plan that fails its check, which is a bug: {problems[0]}.")
    return plan, experience


def _by_yardstick(instance: Instance, seed: int) -> tuple[ByDevice, int]:
    goal = instance.goal
    unknown = [key for key in ("pin", "forbid", "together", "apart", "survive", "max_energy_mj") if getattr(goal, key)]
    unknown += ["objective"] * (goal.objective != "latency")
    if unknown:
        raise InputError(f"method {goal.method!r} knows nothing of {unknown[0]!r}: use the exact method.")
    if not instance.options:
        raise InfeasibleError("No plan: every device is left out.")
    placed = _YARDSTICKS[goal.method](instance, seed)
    return by_device(instance, placed, {}), search.latency_bound_us(instance) or 0


class _Exact:
    """The exact method: search, explain, stay near, spend what is left over."""

    def __init__(
        self,
        instance: Instance,
        clock: Clock,
        earlier: ByDevice,
        experience: WarmStart,
        progress: Progress,
        advice: bool,
    ) -> None:
        self._instance, self._clock, self._earlier, self._progress = instance, clock, earlier, progress
        self.experience, self._advice = experience, advice

    def plan(self) -> tuple[Instance, ByDevice, int]:
        """Return what each device runs, and the bound of the objective."""
        instance, clock = self._instance, self._clock
        outcome = optimise(instance, clock, self._progress, tuple(self._earlier.values()), self.experience)
        if outcome.placed is None or self._too_slow(outcome.placed):
            self._give_up(outcome)
        assert outcome.placed is not None
        assert outcome.bound is not None
        instance, chosen = outcome.instance, by_device(outcome.instance, outcome.placed, self._earlier)
        stays: list[PlacedSubModel] = []
        # What was raised to other floors is not compared with an earlier plan: its options are others.
        if self._earlier and outcome.knowledge is not None and instance is self._instance:
            judge = ObjectiveFunction(instance, instance.goal.objective)
            chosen = stay_near(instance, outcome.placed, self._earlier, outcome.knowledge, judge, clock)
            stays = [p for name, p in chosen.items() if self._earlier.get(name) == p]
        spare = clock.grace() if clock.expired() else clock
        spent = use_slack(instance, list(chosen.values()), outcome.knowledge, spare, stays)
        if outcome.knowledge is not None:
            self.experience = outcome.knowledge.experience()
        if len(spent) == len(chosen) and all(a.option is b.option for a, b in zip(spent, chosen.values(), strict=True)):
            return instance, dict(zip(chosen, spent, strict=True)), outcome.bound
        return instance, by_device(instance, spent, self._earlier), outcome.bound

    def _too_slow(self, placed: Sequence[PlacedSubModel]) -> bool:
        limit_us = self._instance.goal.max_latency_us
        return limit_us is not None and self._instance.fleet_latency_us(placed) > limit_us

    def _give_up(self, outcome: SearchOutcome) -> None:
        """Raise the error that says why there is no plan."""
        instance, limit_us = self._instance, self._instance.goal.max_latency_us
        known = self.experience if outcome.knowledge is None else outcome.knowledge.experience()
        if outcome.bound is None:
            raise InfeasibleError(explanation.explain_infeasible(instance, self._clock.again(), known, self._advice))
        by_latency = instance.goal.objective in ("latency", "accuracy")
        if limit_us is not None and by_latency and outcome.bound > limit_us:
            again = self._clock.again()
            raise InfeasibleError(
                explanation.explain_too_slow(instance, outcome.bound, outcome.placed, again, known, self._advice)
            )
        if outcome.placed is None:
            raise TimeLimitError(
                f"No plan found within {self._clock.seconds:g} s (not proven impossible). Raise --time-limit."
            )
        raise TimeLimitError(
            f"No plan within {instance.goal.max_latency_ms:g} ms was found; the best takes "
            f"{instance.fleet_latency_us(outcome.placed) / 1000:.3f} ms, and none takes less than "
            f"{outcome.bound / 1000:.3f} ms. Raise --time-limit or --max-latency-ms."
        )


def _plan(instance: Instance, chosen: ByDevice, bound: int, seed: int, seconds: float) -> Plan:
    order = [member.name for member in instance.fleet.members]
    names = [name for name in order if name in chosen]
    times = transfers_us(instance.fleet, [chosen[name].option.at for name in names])
    assignments = [_assignment(instance, chosen[name], name, *us) for name, us in zip(names, times, strict=True)]
    fusion_us = instance.fusion_us(sum(a.embed_dim for a in assignments))
    latency_us = max(a.latency_us for a in assignments) + fusion_us
    of_latency = instance.goal.objective == "latency"
    draft = Plan(
        status="feasible",
        latency_us=latency_us,
        bound_us=bound if of_latency else min(latency_us, _latency_bound_us(instance)),
        gap=0.0,
        goal=instance.goal,
        profile_sha256=sha256_of(instance.profile),
        fleet_sha256=sha256_of(instance.fleet),
        solver=SolverRun(
            version=f"planner {__version__}, ortools {version('ortools')}",
            seconds=round(seconds, 3),
            seed=seed,
        ),
        assignments=tuple(assignments),
        idle=tuple(name for name in order if name not in chosen),
        fusion=FusionCost(device=instance.fleet.aggregator, latency_us=fusion_us),
        predicted_accuracy=predicted_accuracy(assignments, instance.profile),
    )
    value, proven = draft.value, bound if of_latency else _stated(instance, bound, draft.value, chosen)
    certificate = {"status": status_of(value, proven), "gap": gap_of(value, proven)}
    if not of_latency:
        certificate |= {"objective_value": value, "objective_bound": proven}
    return Plan.model_validate(draft.model_dump() | certificate)


def _latency_bound_us(instance: Instance) -> int:
    """Return a bound on the latency [us] of any plan for the goal, whose floors may be below the instance's."""
    return search.latency_bound_us(build_instance(instance.profile, instance.fleet, instance.goal)) or 0


def _stated(instance: Instance, bound: int, value: float, chosen: ByDevice) -> float:
    """Return the bound of the objective in the units of the plan's file, as safe as it was proven."""
    objective = instance.goal.objective
    if objective == "accuracy":
        return max(value, bound / PPM)
    if objective == "energy":
        if bound >= instance.energy(list(chosen.values())):
            return value
        return min(value, math.floor(bound * 1000 / instance.energy_scale) / 10**6)
    return bound


def _assignment(instance: Instance, p: PlacedSubModel, device: str, send_us: int, return_us: int) -> Assignment:
    profile, units, at = instance.profile, instance.units, p.option.at
    heads, groups = units.blocks(p.kept, heads=True), units.blocks(p.kept, heads=False)
    compute_us = at.time.compute_us(*kept_counts(profile, heads, groups))
    energy = p.option.device.energy_mj(compute_us)
    names = tuple(profile.classes[c] for c in p.classes)
    kept: Mapping[str, float] = {
        name: round(retention(profile, name, at.width.embed_dim, heads, groups, at.precision), 6) for name in names
    }
    return Assignment(
        device=device,
        classes=names,
        embed_dim=p.option.embed_dim,
        precision=at.precision,
        kept_heads=heads,
        kept_channel_groups=groups,
        send_us=send_us,
        compute_us=compute_us,
        return_us=return_us,
        memory_bytes=instance.memory_bytes(p.option, p.kept),
        energy_mj=None if energy is None else round(energy, 6),
        retention=dict(kept),
        estimated=at.time.estimated,
    )
