"""Direct solution of the whole problem as one model, by CP-SAT or HiGHS: a reference for the planner's solver.

It shares no code with the planner's solver, and its solutions become plans that must pass `planner.rules.check`. It is
for the plain problem: minimal latency, one width and precision for each device, no shared media, no demands besides the
floors. The mathematics is in `formulation`.
"""

import time
from dataclasses import dataclass
from importlib.metadata import version

from benchmarks.solve.formulation import Formulation
from benchmarks.solve.linear import Backend, Solution, cp_sat, highs
from planner.errors import TimeLimitError
from planner.rules import cost
from planner.rules.check import check, gap_of, status_of
from planner.rules.links import media_us_per_byte
from planner.schema import Assignment, Fleet, Goal, Plan, Profile, sha256_of

TIME_LIMIT_S = 60.0
MAX_NONZEROS = 30_000_000


@dataclass(frozen=True)
class DirectResult:
    """Result of a direct model; it has a plan only if that passed its check.

    `status` is optimal, feasible, infeasible, unknown, too large, or wrong (the solver's solution violates a rule by
    more than rounding; `note` names it).
    """

    status: str
    plan: Plan | None
    bound_us: int
    seconds: float
    build_seconds: float
    nonzeros: int
    note: str = ""

    @property
    def objective_us(self) -> int | None:
        """Latency of the plan, or None without one."""
        return None if self.plan is None else self.plan.latency_us


def solve_by_cp_sat(
    profile: Profile,
    fleet: Fleet,
    goal: Goal,
    *,
    time_limit_s: float = TIME_LIMIT_S,
    num_workers: int = 8,
) -> DirectResult:
    """Solve the direct model with CP-SAT; the time limit is for solving alone."""
    return _solve(profile, fleet, goal, cp_sat, time_limit_s, num_workers)


def solve_by_highs(profile: Profile, fleet: Fleet, goal: Goal, *, time_limit_s: float = TIME_LIMIT_S) -> DirectResult:
    """Solve the direct model with HiGHS; the time limit is for solving alone."""
    return _solve(profile, fleet, goal, highs, time_limit_s, 1)


def min_latency_us(profile: Profile, fleet: Fleet, goal: Goal, *, time_limit_s: float = TIME_LIMIT_S) -> int | None:
    """Return the minimal latency of any plan, or None if there is none: an oracle that asks both solvers.

    Each solver was seen to be wrong in about one of a thousand of these models, then claiming that nothing better
    exists; a checked plan is the better proof.

    Raises:
        TimeLimitError: If neither solver finishes within its time limit.
    """
    outcomes = [
        solve_by_cp_sat(profile, fleet, goal, time_limit_s=time_limit_s),
        solve_by_highs(profile, fleet, goal, time_limit_s=time_limit_s),
    ]
    if not any(outcome.status in ("optimal", "infeasible") for outcome in outcomes):
        raise TimeLimitError(f"Neither solver finished within {time_limit_s:g} s.")
    return min((o.objective_us for o in outcomes if o.objective_us is not None), default=None)


def _solve(
    profile: Profile, fleet: Fleet, goal: Goal, backend: Backend, time_limit_s: float, num_workers: int
) -> DirectResult:
    started = time.monotonic()
    _check_is_plain(fleet, goal)
    formulation = Formulation(profile, fleet, goal)
    nonzeros = formulation.nonzeros
    if nonzeros > MAX_NONZEROS:
        note = f"too large ({nonzeros / 1e6:.0f} million nonzeros)"
        return DirectResult("too large", None, 0, time.monotonic() - started, 0.0, nonzeros, note)
    model = formulation.build()
    build_seconds = time.monotonic() - started
    solution = backend(model, time_limit_s, num_workers)
    seconds = time.monotonic() - started

    def outcome(status: str, plan: Plan | None = None, note: str = "") -> DirectResult:
        return DirectResult(status, plan, solution.bound, seconds, build_seconds, nonzeros, note)

    if solution.infeasible:
        return outcome("infeasible")
    if solution.values is None:
        return outcome("unknown")
    plan = _plan(formulation, solution, seconds)
    problems = check(plan, profile, fleet)
    return outcome("wrong", None, problems[0]) if problems else outcome(plan.status, plan)


def _check_is_plain(fleet: Fleet, goal: Goal) -> None:
    # Floors are part of the plain problem; the use of slack and the method do not change the minimal latency.
    allowed = {"min_retention", "leave_idle", "method"}
    if goal.model_dump(exclude=allowed) != Goal().model_dump(exclude=allowed):
        raise ValueError(f"goal must be plain, with no more than floors, got {goal}")
    if media_us_per_byte(fleet):
        raise ValueError(f"links must not be shared, got {len(media_us_per_byte(fleet))} that are")


def _plan(f: Formulation, solution: Solution, seconds: float) -> Plan:
    """Return the solution as a plan, with its costs computed by `planner.rules.cost`."""
    assert solution.values is not None
    values, profile = solution.values, f.profile
    used = [d for d, x in enumerate(f.x) if any(values[v] for v in x)]
    times = cost.transfers_us(f.fleet, [f.devices[d].widths[0] for d in used])
    assignments = []
    for d, (send_us, return_us) in zip(used, times, strict=True):
        device, at = f.devices[d], f.devices[d].widths[0]
        classes = [c for v, c in zip(f.x[d], profile.classes, strict=True) if values[v]]
        kept = [unit for v, unit in zip(f.y[d], f.units, strict=True) if values[v]]
        heads, groups = (
            tuple(tuple(i for l, *rest, i in kept if [l, *rest] == [block, half]) for block in range(profile.depth))
            for half in (True, False)
        )
        counts = cost.kept_counts(profile, heads, groups)
        compute_us = at.time.compute_us(*counts)
        dim = at.width.embed_dim
        assignments.append(
            Assignment(
                device=device.name,
                classes=tuple(classes),
                embed_dim=dim,
                kept_heads=heads,
                kept_channel_groups=groups,
                send_us=send_us,
                compute_us=compute_us,
                return_us=return_us,
                memory_bytes=device.memory_bytes(at, *counts),
                energy_mj=device.energy_mj(compute_us),
                retention={c: cost.retention(profile, c, dim, heads, groups, at.precision) for c in classes},
                estimated=at.time.estimated,
            )
        )
    dims = sum(f.devices[d].widths[0].width.embed_dim for d in used)
    fusion_us = cost.fusion_us(profile, cost.aggregator_rate(f.fleet), dims)
    latency_us = max(a.latency_us for a in assignments) + fusion_us
    bound_us = min(solution.bound, latency_us)
    names = {f.devices[d].name for d in used}
    return Plan.model_validate(
        {
            "status": status_of(latency_us, bound_us),
            "latency_us": latency_us,
            "bound_us": bound_us,
            "gap": gap_of(latency_us, bound_us),
            "goal": f.goal,
            "profile_sha256": sha256_of(profile),
            "fleet_sha256": sha256_of(f.fleet),
            "solver": {"version": f"ortools {version('ortools')}", "seconds": round(seconds, 3), "seed": 0},
            "assignments": assignments,
            "idle": [member.name for member in f.fleet.members if member.name not in names],
            "fusion": {"device": f.fleet.aggregator, "latency_us": fusion_us},
        }
    )
