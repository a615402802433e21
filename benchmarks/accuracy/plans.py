"""What is planned: each row of the tables as a plan, or the reason why there is none.

The yardsticks prune as little as the latency limit allows, without floors. Ours is solved exactly: the class subsets
of the highest floors that some plan within the limit holds, and for them the most retention. Floors rise with the
number of classes as digits' recovery probes found it; flat ones would let one sub-model of all classes stand for four.
"""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmarks.accuracy import ablations, fleets
from benchmarks.accuracy.ablations import Subsets
from benchmarks.accuracy.bench import Bench
from benchmarks.accuracy.settings import BY_COUNT, LIMIT, MAIN_FLEET, SEEDS, SWEEP, Budget
from benchmarks.accuracy.store import code_of, key_of
from planner.errors import InfeasibleError, TimeLimitError
from planner.executor.bundle import planned_shape
from planner.library import load_plan
from planner.network.vit import Shape
from planner.schema import Assignment, Fleet, Goal, Plan, Profile, sha256_of, write_document
from planner.schema.base import read_text, write_text
from planner.solver import solve

WHOLE, PRUNED, DEVIT, ED_VIT, OURS = "whole", "pruned", "devit", "ed-vit", "ours"
ROWS = (PRUNED, DEVIT, ED_VIT, OURS)
YARDSTICKS = {DEVIT: "random-equal", ED_VIT: "greedy"}
# What each row's sub-models are trained by.
RECIPE_OF = {DEVIT: "devit", ED_VIT: "ed-vit", ablations.NO_TEACHER: ablations.NO_TEACHER}
RECIPE_OF |= {ablations.NO_OTHER: ablations.NO_OTHER, **ablations.OTHER_RECIPES}
# Rows with plans of their own, and those whose plans differ from seed to seed.
PLANNED_APART = (*YARDSTICKS, ablations.ALIKE, ablations.ONE_DEVICE, ablations.RANDOM_GROUPS)
DRAWN = (*YARDSTICKS, ablations.RANDOM_GROUPS)

_CODE = ("planner/solver/*.py", "planner/rules/cost.py", "planner/rules/floors.py", "benchmarks/accuracy/plans.py")


@dataclass(frozen=True)
class Case:
    """One cell: which row, on which fleet, at which share of the whole model's latency."""

    row: str
    fleet: str = MAIN_FLEET
    limit: Fraction = LIMIT
    seed: int = 0

    @property
    def recipe(self) -> str:
        """What its sub-models are trained by."""
        return RECIPE_OF.get(self.row, "default")


@dataclass(frozen=True)
class Planned:
    """A case and its plan, as a file; or why there is none."""

    path: Path | None = None
    plan: Plan | None = field(default=None, compare=False)
    reason: str = ""


def all_cases() -> list[Case]:
    """Return every case, the most important first."""
    main = [Case(row, seed=seed) for seed in SEEDS for row in ROWS]
    sweep = [Case(row, limit=limit) for limit in SWEEP for row in ROWS if row != PRUNED]
    others = [[Case(row, fleet, seed=seed) for fleet in fleets.FLEETS for row in ROWS] for seed in SEEDS]
    without = [[Case(name, seed=seed) for name in ablations.ABLATIONS] for seed in SEEDS]
    later = [case for part in (without[1], without[2], others[1], others[2]) for case in part]
    return list(dict.fromkeys([*main, *sweep, *without[0], *others[0], *later]))


def small_cases() -> list[Case]:
    """Return the few cases of a trial run."""
    return [*(Case(row, limit=limit) for limit in (LIMIT, SWEEP[0]) for row in ROWS), Case(ablations.NO_TEACHER)]


def planned(bench: Bench, case: Case) -> Planned:
    """Return a case's plan, made now unless it is known."""
    case_of_plan = _planned_as(case)
    fleet = bench.fleet(case_of_plan.fleet)
    content = bench.profile.model_dump(mode="json", exclude={"provenance"})
    said = [case_of_plan.row, str(case.limit), case_of_plan.seed, bench.budget.levels, bench.budget.level_seconds]
    path = bench.folder / "plans" / f"{key_of(content, sha256_of(fleet), said, code_of(_CODE))}.json"
    failed = path.with_suffix(".txt")
    if not path.exists() and not failed.exists():
        try:
            write_document(path, _plan(bench, case_of_plan, fleet))
        except (InfeasibleError, TimeLimitError) as error:
            write_text(failed, str(error))
    if failed.exists():
        return Planned(reason=read_text(failed))
    return Planned(path, load_plan(path))


def _planned_as(case: Case) -> Case:
    """Return the case whose plan it has: what differs in its training alone is planned the same."""
    row = case.row if case.row in PLANNED_APART else OURS
    fleet = "equal-1" if case.row == PRUNED else case.fleet
    return Case(row, fleet, case.limit, case.seed if row in DRAWN else 0)


def _plan(bench: Bench, case: Case, fleet: Fleet) -> Plan:
    limit_us = int(case.limit * bench.whole_us)
    if case.row in YARDSTICKS:
        return by_yardstick(bench.profile, fleet, YARDSTICKS[case.row], limit_us, case.seed)
    if case.row == ablations.ALIKE:
        return most_retained(ablations.classes_alike(bench.profile), fleet, limit_us, bench.budget)
    if case.row == OURS:
        return most_retained(bench.profile, fleet, limit_us, bench.budget)
    ours = planned(bench, replace(case, row=OURS)).plan
    if ours is None:
        raise InfeasibleError("No plan of ours to change.")
    if case.row == ablations.ONE_DEVICE:
        return ablations.on_one_device(ours)
    drawn = ablations.random_subsets(ours, case.seed)
    return _filled(bench.profile, fleet, limit_us, bench.budget, drawn)


def by_yardstick(profile: Profile, fleet: Fleet, method: str, limit_us: int, seed: int) -> Plan:
    """Return a yardstick's plan at the embed width that makes its pruning most even.

    The solver's yardsticks prune heads and channels alone; both papers also narrow the embed dim. So each width is
    taken for the only one, and the plan is chosen whose most pruned structure keeps the largest share.

    Raises:
        InfeasibleError: If nothing fits, or only a network without any head or channel does.
    """
    goal = {"method": method, "min_retention": 0.0, "max_latency_ms": limit_us / 1000, "leave_out": [fleets.GATEWAY]}
    full = max(w.embed_dim for w in profile.widths)
    best, most, error = None, 0.0, InfeasibleError("No plan: within the limit only empty networks fit.")
    for width in profile.widths:
        only = profile.model_dump() | {"widths": [width.model_dump()], "embed_dim_order": ()}
        try:
            plan = solve(Profile.model_validate(only), fleet, Goal.model_validate(goal), seed=seed)
        except InfeasibleError as failed:
            error = failed
            continue
        even = min(width.embed_dim / full, *(kept_share(profile, a) for a in plan.assignments))
        if even > most:
            best, most = plan, even
    if best is None:
        raise error
    return best


def kept_share(profile: Profile, a: Assignment) -> float:
    """Return the share of all heads or of all channel groups that a sub-model keeps, whichever is less."""
    heads = sum(map(len, a.kept_heads)) / (profile.depth * profile.num_heads)
    return min(heads, sum(map(len, a.kept_channel_groups)) / sum(map(len, profile.channel_groups)))


def most_retained(profile: Profile, fleet: Fleet, limit_us: int, budget: Budget) -> Plan:
    """Return the plan of the highest floors that can be held in time, its sub-models then filled up to the limit.

    Args:
        profile: What floors of all levels are put into.
        fleet: The devices.
        limit_us: The latency limit [us].
        budget: How finely levels are tried, and how long each is solved for.

    Raises:
        InfeasibleError: If there is none at the lowest.
    """
    raised, best = with_levels(profile, budget.levels), None
    low, high, least_us = 0, budget.levels, 0
    while low < high:
        level = (low + high + 1) // 2
        # No limit in the goal: the least latency says as much, and nobody asks why a limit cannot be held.
        goal = {"max_accuracy_drop": _drop(level, budget.levels), "leave_out": [fleets.GATEWAY]}
        try:
            plan = solve(raised, fleet, Goal.model_validate(goal), time_limit_s=budget.level_seconds, start=best)
        except (InfeasibleError, TimeLimitError):
            high = level - 1
            continue
        if plan.latency_us <= limit_us:
            best, low = plan, level
        else:
            high, least_us = level - 1, plan.latency_us
    if best is None:
        raise InfeasibleError(f"No plan within {limit_us} us: at the lowest floors the best takes {least_us} us.")
    filled = _filled(profile, fleet, limit_us, budget, {a.device: a.classes for a in best.assignments})
    # In too short a time a fuller one may not be found.
    return max(filled, best, key=lambda plan: plan.lowest_retention)


def _filled(profile: Profile, fleet: Fleet, limit_us: int, budget: Budget, subsets: Subsets) -> Plan:
    """Return a plan of these class subsets, the lowest retention as high as the latency limit allows."""
    goal = {
        "objective": "accuracy",
        "min_retention": 0.0,
        "max_latency_ms": limit_us / 1000,
        "leave_out": [fleets.GATEWAY],
        **_held(subsets),
    }
    return solve(profile, fleet, Goal.model_validate(goal), time_limit_s=budget.level_seconds)


def _held(subsets: Subsets) -> dict[str, Any]:
    """Return the keys of a goal that leave each class on the devices that have it, and on no others."""
    names = sorted({name for classes in subsets.values() for name in classes})
    at = {name: [device for device, classes in subsets.items() if name in classes] for name in names}
    return {"pin": at, "forbid": {name: [d for d in subsets if d not in homes] for name, homes in at.items()}}


def with_levels(profile: Profile, levels: int) -> Profile:
    """Return the profile with floors of every level: level i asks for i / levels of a class that is alone."""
    rows = [
        {
            "max_accuracy_drop": _drop(level, levels),
            "by_count": [min(1.0, level / levels * share / BY_COUNT[0]) for share in BY_COUNT],
            "class_need": [1.0] * len(profile.classes),
        }
        for level in range(1, levels + 1)
    ]
    return Profile.model_validate(profile.model_dump() | {"recovery": rows, "fused_accuracy": None})


def _drop(level: int, levels: int) -> float:
    """Return the accuracy drop that stands for a level: a name, not a promise."""
    return 1 - level / levels


def shapes_of(bench: Bench, plan: Plan) -> list[Shape]:
    """Return the networks of a plan, in the order of its devices."""
    return [planned_shape(bench.card, bench.profile, a) for a in plan.assignments]
