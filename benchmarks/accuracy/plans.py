"""Plans of the tables' rows, or the reasons why there are none.

The baselines prune as little as the latency limit allows, without floors. Ours is the plan of the highest predicted
accuracy within the limit.
"""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmarks.accuracy import ablations, fleets
from benchmarks.accuracy.ablations import Subsets
from benchmarks.accuracy.prepared_subject import PreparedSubject
from benchmarks.accuracy.settings import LIMIT, MAIN_FLEET, SEEDS, SWEEP, Budget
from benchmarks.accuracy.store import code_hash, result_key
from planner.errors import InfeasibleError, TimeLimitError
from planner.executor.bundle import planned_shape
from planner.files import read_text
from planner.library import read_plan
from planner.network.vit import Shape
from planner.schema import Assignment, Fleet, Goal, Plan, Profile, sha256_of, write_document
from planner.schema.base import write_text
from planner.solver import SolveOptions, solve

WHOLE, PRUNED, DEVIT, ED_VIT, OURS = "whole", "pruned", "devit", "ed-vit", "ours"
ROWS = (PRUNED, DEVIT, ED_VIT, OURS)
BASELINES = {DEVIT: "random-equal", ED_VIT: "greedy"}
# Recipe of each row's sub-models, the default one for other rows.
RECIPE_OF = {DEVIT: "devit", ED_VIT: "ed-vit", **ablations.OTHER_RECIPES}
RECIPE_OF |= {name: name for name in (ablations.NO_TEACHER, ablations.NO_OTHER, ablations.NO_MATCHING)}
# Rows with plans of their own, and those whose plans differ from seed to seed.
PLANNED_APART = (*BASELINES, ablations.SAME_IMPORTANCE, ablations.ONE_DEVICE, ablations.RANDOM_SUBSETS)
DRAWN = (*BASELINES, ablations.RANDOM_SUBSETS)

_RULES = tuple(f"planner/rules/{name}.py" for name in ("accuracy", "cost", "floors"))
_CODE = ("planner/solver/**/*.py", *_RULES, "benchmarks/accuracy/plans.py")


@dataclass(frozen=True)
class Case:
    """One cell of the tables: a row, a fleet, a limit as a share of the whole model's latency, and a seed."""

    row: str
    fleet: str = MAIN_FLEET
    limit: Fraction = LIMIT
    seed: int = 0

    @property
    def recipe(self) -> str:
        """Name of the recipe that trains its sub-models."""
        return RECIPE_OF.get(self.row, "default")


@dataclass(frozen=True)
class PlannedCase:
    """Plan of a case and its file, or the reason why there is none."""

    path: Path | None = None
    plan: Plan | None = field(default=None, compare=False)
    reason: str = ""


def all_cases() -> list[Case]:
    """Return every case, the most important first."""
    main = [Case(row, seed=seed) for seed in SEEDS for row in ROWS]
    sweep = [Case(row, limit=limit) for limit in SWEEP for row in ROWS if row != PRUNED]
    others = [[Case(row, fleet, seed=seed) for fleet in fleets.FLEETS for row in ROWS] for seed in SEEDS]
    ablated = [[Case(name, seed=seed) for name in ablations.ABLATIONS] for seed in SEEDS]
    later = [case for part in (ablated[1], ablated[2], others[1], others[2]) for case in part]
    return list(dict.fromkeys([*main, *sweep, *ablated[0], *others[0], *later]))


def small_cases() -> list[Case]:
    """Return the few cases of a small run."""
    return [*map(Case, ROWS), Case(OURS, limit=SWEEP[0]), Case(ablations.NO_TEACHER)]


def plan_case(prepared: PreparedSubject, case: Case) -> PlannedCase:
    """Return a case's plan, from the cache or solved now."""
    case_of_plan = _case_of_plan(case)
    fleet = prepared.fleet(case_of_plan.fleet)
    content = prepared.profile.model_dump(mode="json", exclude={"provenance"})
    options = [case_of_plan.row, str(case.limit), case_of_plan.seed, prepared.budget.solve_seconds]
    path = prepared.folder / "plans" / f"{result_key(content, sha256_of(fleet), options, code_hash(_CODE))}.json"
    failed = path.with_suffix(".txt")
    if not path.exists() and not failed.exists():
        try:
            write_document(path, _plan(prepared, case_of_plan, fleet))
        except (InfeasibleError, TimeLimitError) as error:
            write_text(failed, str(error))
    if failed.exists():
        return PlannedCase(reason=read_text(failed))
    return PlannedCase(path, read_plan(path))


def _case_of_plan(case: Case) -> Case:
    """Return the case whose plan this one shares: cases that differ only in training have the same plan."""
    row = case.row if case.row in PLANNED_APART else OURS
    fleet = "equal-1" if case.row == PRUNED else case.fleet
    return Case(row, fleet, case.limit, case.seed if row in DRAWN else 0)


def _plan(prepared: PreparedSubject, case: Case, fleet: Fleet) -> Plan:
    """Solve a case."""
    limit_us = int(case.limit * prepared.whole_us)
    if case.row in BASELINES:
        return baseline_plan(prepared.profile, fleet, BASELINES[case.row], limit_us, case.seed)
    if case.row == ablations.SAME_IMPORTANCE:
        return accurate_plan(ablations.with_mean_importance(prepared.profile), fleet, limit_us, prepared.budget)
    if case.row == OURS:
        return accurate_plan(prepared.profile, fleet, limit_us, prepared.budget)
    ours = plan_case(prepared, replace(case, row=OURS)).plan
    if ours is None:
        raise InfeasibleError("No plan of ours to change.")
    if case.row == ablations.ONE_DEVICE:
        return ablations.on_one_device(ours)
    subsets = ablations.random_subsets(ours, case.seed)
    return accurate_plan(prepared.profile, fleet, limit_us, prepared.budget, subsets)


def baseline_plan(profile: Profile, fleet: Fleet, method: str, limit_us: int, seed: int) -> Plan:
    """Return a baseline's plan at the embed width that makes its pruning most uniform.

    The solver's baselines prune only heads and channels; both papers also narrow the embed dim. So the profile is
    restricted to each width in turn, and the plan is taken whose most pruned structure keeps the largest share.

    Raises:
        InfeasibleError: If nothing fits, or only a network without any head or channel does.
    """
    goal = {"method": method, "min_retention": 0.0, "max_latency_ms": limit_us / 1000, "leave_out": [fleets.GATEWAY]}
    full = max(w.embed_dim for w in profile.widths)
    best, best_share, error = None, 0.0, InfeasibleError("No plan: within the limit only empty networks fit.")
    for width in profile.widths:
        restricted = profile.model_dump() | {"widths": [width.model_dump()], "embed_dim_order": ()}
        try:
            plan = solve(Profile.model_validate(restricted), fleet, Goal.model_validate(goal), SolveOptions(seed=seed))
        except InfeasibleError as failed:
            error = failed
            continue
        min_share = min(width.embed_dim / full, *(kept_share(profile, a) for a in plan.assignments))
        if min_share > best_share:
            best, best_share = plan, min_share
    if best is None:
        raise error
    return best


def kept_share(profile: Profile, a: Assignment) -> float:
    """Return the share of heads or of channel groups that a sub-model keeps, whichever is smaller."""
    heads = sum(map(len, a.kept_heads)) / (profile.depth * profile.num_heads)
    return min(heads, sum(map(len, a.kept_channel_groups)) / sum(map(len, profile.channel_groups)))


def accurate_plan(
    profile: Profile, fleet: Fleet, limit_us: int, budget: Budget, subsets: Subsets | None = None
) -> Plan:
    """Return the plan of the highest predicted accuracy within the latency limit.

    Args:
        profile: A profile with an accuracy model.
        fleet: The devices.
        limit_us: The latency limit [us].
        budget: Time limit of the solver.
        subsets: Class subset of each device; any unless given.

    Raises:
        InfeasibleError: If there is no plan within the limit.
    """
    goal = {"objective": "accuracy", "max_latency_ms": limit_us / 1000, "leave_out": [fleets.GATEWAY]}
    demands = {} if subsets is None else _pinned_subsets(subsets)
    options = SolveOptions(time_limit_s=budget.solve_seconds)
    return solve(profile, fleet, Goal.model_validate(goal | demands), options)


def _pinned_subsets(subsets: Subsets) -> dict[str, Any]:
    """Return the keys of a goal that keep each class on its devices, and on no others."""
    names = sorted({name for classes in subsets.values() for name in classes})
    pinned = {name: [device for device, classes in subsets.items() if name in classes] for name in names}
    forbidden = {name: [d for d in subsets if d not in devices] for name, devices in pinned.items()}
    return {"pin": pinned, "forbid": forbidden}


def shapes_of(prepared: PreparedSubject, plan: Plan) -> list[Shape]:
    """Return the networks of a plan, in the order of its devices."""
    return [planned_shape(prepared.card, prepared.profile, a) for a in plan.assignments]
