"""A profile, a fleet and a goal become a plan."""

import time
from collections.abc import Sequence
from importlib.metadata import version

import planner
from planner.check import check, gap_of, status_of
from planner.cost import kept_counts, retention
from planner.errors import InfeasibleError, PlannerError, TimeLimitError
from planner.schema import Assignment, Fleet, FusionCost, Goal, Plan, Profile, SolverRun, sha256_of
from planner.solver import exact, explain, many, spend, yardsticks
from planner.solver.exact import Knowledge, Latency
from planner.solver.instance import Found, Instance, Placed, Progress, build

DEFAULT_TIME_LIMIT_S = 30.0

_LEAST_GRACE_S = 1.0


def solve(
    profile: Profile,
    fleet: Fleet,
    goal: Goal | None = None,
    *,
    seed: int = 0,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    progress: Progress | None = None,
) -> Plan:
    """Return the plan of least latency, with a bound on how much better any other could be.

    Every plan has passed `planner.check`, which recomputes it from the profile and the fleet.

    Args:
        profile: What was measured of the model.
        fleet: The devices and their links.
        goal: What the plan must hold; an accuracy drop of 2 points unless given.
        seed: For the yardsticks' random subsets; the exact method draws nothing.
        time_limit_s: After this long the best plan so far is returned, with its gap.
        progress: Called with the best latency so far, if there is one, and the bound [us].

    Raises:
        InputError: If the profile, the fleet and the goal do not go together.
        InfeasibleError: If no plan exists; the message says why and what would help.
        TimeLimitError: If no plan was found in time, though one may exist.
    """
    started = time.monotonic()
    goal = goal or Goal()
    instance = build(profile, fleet, goal)
    placed, bound_us = _place(instance, seed, time_limit_s, progress or (lambda best, bound: None))
    plan = _plan(instance, placed, bound_us, seed, time.monotonic() - started)
    problems = check(plan, profile, fleet)
    if problems:
        raise PlannerError(f"The solver made a plan that fails its check, which is a bug: {problems[0]}.")
    return plan


def _place(instance: Instance, seed: int, time_limit_s: float, progress: Progress) -> tuple[Sequence[Placed], int]:
    """Return who runs what, and a bound on the latency of any plan [us]."""
    goal = instance.goal
    deadline = time.monotonic() + time_limit_s
    if goal.method != "exact":
        place = yardsticks.greedy if goal.method == "greedy" else yardsticks.random_equal
        return place(instance, seed), many.fleet_bound_us(instance) or 0
    knowledge = None
    if instance.num_classes <= exact.MOST_CLASSES:
        knowledge = Knowledge(instance, Latency(instance))
        found = exact.search(knowledge, deadline, progress)
        if found.placed is None and found.bound_us is not None:
            # Out of time on the way to the best plan: any plan is better than none.
            grace = time.monotonic() + max(_LEAST_GRACE_S, 0.1 * time_limit_s)
            bound_us = max(found.bound_us, many.fleet_bound_us(instance) or 0)
            found = Found(many.first_plan(instance, grace), bound_us)
    else:
        found = many.search(instance, deadline, progress)
    if found.bound_us is None:
        raise InfeasibleError(explain.why_not(instance, time_limit_s))
    limit_us = goal.max_latency_us
    best_us = None if found.placed is None else instance.fleet_latency_us(found.placed)
    if limit_us is not None and found.bound_us > limit_us:
        raise InfeasibleError(explain.too_slow(instance, found.bound_us, best_us, time_limit_s))
    if found.placed is None:
        if time.monotonic() < deadline:
            raise TimeLimitError(
                f"No plan found in {many.NUM_ORDERS} tries (not proven impossible). Allow a larger drop or more memory."
            )
        raise TimeLimitError(f"No plan found within {time_limit_s:g} s (not proven impossible). Raise --time-limit.")
    if limit_us is not None and best_us is not None and best_us > limit_us:
        raise TimeLimitError(
            f"No plan within {goal.max_latency_ms:g} ms was found; the best takes {best_us / 1000:.3f} ms, and "
            f"none takes less than {found.bound_us / 1000:.3f} ms. Raise --time-limit or --max-latency-ms."
        )
    return spend.spend(instance, found.placed, knowledge, deadline), found.bound_us


def _plan(instance: Instance, placed: Sequence[Placed], bound_us: int, seed: int, seconds: float) -> Plan:
    free = [list(names) for names in instance.groups]
    assignments = [
        _assignment(instance, p, free[p.option.group].pop(0))
        for p in sorted(placed, key=lambda p: (p.option.group, p.classes))
    ]
    order = {member.name: i for i, member in enumerate(instance.fleet.members)}
    assignments.sort(key=lambda a: order[a.device])
    fusion_us = instance.fusion_us(sum(a.embed_dim for a in assignments))
    latency_us = max(a.latency_us for a in assignments) + fusion_us
    return Plan.model_validate(
        {
            "status": status_of(latency_us, bound_us),
            "latency_us": latency_us,
            "bound_us": bound_us,
            "gap": gap_of(latency_us, bound_us),
            "goal": instance.goal,
            "profile_sha256": sha256_of(instance.profile),
            "fleet_sha256": sha256_of(instance.fleet),
            "solver": SolverRun(
                version=f"planner {planner.__version__}, ortools {version('ortools')}",
                seconds=round(seconds, 3),
                seed=seed,
            ),
            "assignments": assignments,
            "idle": sorted((name for names in free for name in names), key=order.__getitem__),
            "fusion": FusionCost(device=instance.fleet.aggregator, latency_us=fusion_us),
        }
    )


def _assignment(instance: Instance, p: Placed, device: str) -> Assignment:
    profile, units = instance.profile, instance.units
    heads, groups = units.blocks(p.kept, heads=True), units.blocks(p.kept, heads=False)
    compute_us = p.option.at.time.compute_us(*kept_counts(profile, heads, groups))
    energy = p.option.device.energy_mj(compute_us)
    names = tuple(profile.classes[c] for c in p.classes)
    return Assignment(
        device=device,
        classes=names,
        embed_dim=p.option.embed_dim,
        kept_heads=heads,
        kept_channel_groups=groups,
        send_us=p.option.at.send_us,
        compute_us=compute_us,
        return_us=p.option.at.return_us,
        memory_bytes=instance.memory_bytes(p.option, p.kept),
        energy_mj=None if energy is None else round(energy, 6),
        retention={name: round(retention(profile, name, p.option.embed_dim, heads, groups), 6) for name in names},
        estimated=p.option.at.time.estimated,
    )
