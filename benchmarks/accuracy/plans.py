"""What is planned: each row of the tables as a plan, or the reason why there is none.

The yardsticks prune as little as the latency limit allows, without floors. Ours is solved exactly: with the highest
floors that some plan within the limit holds. Floors rise with the number of classes as digits' recovery probes found
it (flat ones would let one sub-model of all classes stand for four), and as they do with no other model's classes.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmarks.accuracy import ablations, fleets
from benchmarks.accuracy.bench import Bench
from benchmarks.accuracy.settings import LIMIT, MAIN_FLEET, SEEDS, SWEEP
from benchmarks.accuracy.store import code_of, kept, key_of
from planner.errors import InfeasibleError, TimeLimitError
from planner.executor.bundle import planned_shape
from planner.network.vit import Shape
from planner.schema import Fleet, Goal, Plan, Profile, sha256_of, write_document
from planner.shipped import load_profile
from planner.solver import solve

WHOLE, PRUNED, DEVIT, ED_VIT, OURS = "whole", "pruned", "devit", "ed-vit", "ours"
ROWS = (PRUNED, DEVIT, ED_VIT, OURS)
YARDSTICKS = {DEVIT: "random-equal", ED_VIT: "greedy"}
# What each row's sub-models are trained by.
RECIPE_OF = {DEVIT: "devit", ED_VIT: "ed-vit", ablations.NO_TEACHER: ablations.NO_TEACHER}
RECIPE_OF |= {ablations.NO_OTHER: ablations.NO_OTHER}

# Floors are tried in so many steps, each solved for so long [s].
_LEVELS = 64
_SECONDS = 6.0
_CODE = ("planner/solver/*.py", "planner/cost.py", "planner/floor.py", "benchmarks/accuracy/plans.py")


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

    case: Case
    path: Path | None = None
    plan: Plan | None = field(default=None, compare=False)
    reason: str = ""


def all_cases() -> list[Case]:
    """Return every case, the most important first."""
    main = [Case(row, seed=seed) for seed in SEEDS for row in ROWS]
    sweep = [Case(row, limit=limit) for limit in SWEEP for row in ROWS]
    others = [[Case(row, fleet, seed=seed) for fleet in fleets.FLEETS for row in ROWS] for seed in SEEDS]
    without = [[Case(name, seed=seed) for name in ablations.ABLATIONS] for seed in SEEDS]
    later = [case for part in (without[1], without[2], others[1], others[2]) for case in part]
    return list(dict.fromkeys([*main, *sweep, *without[0], *others[0], *later]))


def small_cases() -> list[Case]:
    """Return the few cases of a trial run."""
    return [*(Case(row) for row in ROWS), Case(ablations.NO_TEACHER)]


def planned(bench: Bench, case: Case) -> Planned:
    """Return a case's plan, made now unless it is known."""
    folder = bench.folder / "plans"
    # What is not drawn is the same for all seeds.
    drawn = case.seed if case.row in (*YARDSTICKS, ablations.RANDOM_GROUPS) else 0
    fleet = bench.fleet("equal-1" if case.row == PRUNED else case.fleet)
    content = bench.profile.model_dump(mode="json", exclude={"provenance"})
    parts = (content, sha256_of(fleet), str(case.limit), drawn, code_of(_CODE))
    path = folder / f"{key_of(case.row, *parts)}.json"
    made = kept(path.with_suffix(".made"), lambda: _made(bench, case, fleet, drawn, path))
    return Planned(case, reason=made["reason"]) if made["reason"] else Planned(case, path, _read(path))


def _read(path: Path) -> Plan:
    from planner.schema import read_document

    return read_document(path, Plan)


def _made(bench: Bench, case: Case, fleet: Fleet, seed: int, path: Path) -> dict[str, Any]:
    limit_ms = int(case.limit * bench.whole_us) / 1000
    try:
        plan = _plan(bench, case, fleet, limit_ms, seed)
    except (InfeasibleError, TimeLimitError) as error:
        return {"reason": str(error)}
    write_document(path, plan)
    return {"reason": ""}


def _plan(bench: Bench, case: Case, fleet: Fleet, limit_ms: float, seed: int) -> Plan:
    goal = {"max_latency_ms": limit_ms, "leave_out": [fleets.GATEWAY]}
    if case.row in YARDSTICKS:
        goal |= {"method": YARDSTICKS[case.row], "min_retention": 0.0}
        return solve(bench.profile, fleet, Goal.model_validate(goal), seed=seed)
    if case.row == ablations.ALIKE:
        return most_retained(ablations.classes_alike(bench.profile), fleet, goal)
    ours = most_retained(bench.profile, fleet, goal)
    if case.row == ablations.ONE_DEVICE:
        return ablations.on_one_device(ours)
    if case.row == ablations.RANDOM_GROUPS:
        pins = ablations.random_pins(ours, seed)
        boards = [a.device for a in ours.assignments]
        forbidden = {name: [b for b in boards if b not in at] for name, at in pins.items()}
        return most_retained(bench.profile, fleet, goal | {"pin": pins, "forbid": forbidden})
    return ours


def most_retained(profile: Profile, fleet: Fleet, goal: dict[str, Any]) -> Plan:
    """Return the plan of the highest floors that can be held within the goal's latency limit.

    Raises:
        InfeasibleError: If there is none at the lowest.
    """
    raised = with_levels(profile)
    best: Plan | None = None
    low, high = 0, _LEVELS
    error: InfeasibleError | TimeLimitError | None = None
    while low < high:
        level = (low + high + 1) // 2
        wanted = Goal.model_validate(goal | {"max_accuracy_drop": _drop(level)})
        try:
            best, low = solve(raised, fleet, wanted, time_limit_s=_SECONDS), level
        except (InfeasibleError, TimeLimitError) as failed:
            error, high = failed, level - 1
    if best is None:
        assert error is not None
        raise error
    return best


def with_levels(profile: Profile) -> Profile:
    """Return the profile with floors of every level: level i asks for i / `_LEVELS` of all classes on one device."""
    row = load_profile("digits-vit").recovery[1]
    assert len(row.by_count) == len(profile.classes)
    shape = [share / row.by_count[-1] for share in row.by_count]
    rows = [
        {
            "max_accuracy_drop": _drop(level),
            "by_count": [min(1.0, level / _LEVELS * share) for share in shape],
            "class_need": [1.0] * len(profile.classes),
        }
        for level in range(1, _LEVELS + 1)
    ]
    return Profile.model_validate(profile.model_dump() | {"recovery": rows, "fused_accuracy": None})


def _drop(level: int) -> float:
    """Return the accuracy drop that stands for a level: a name, not a promise."""
    return 1 - level / _LEVELS


def shapes_of(bench: Bench, plan: Plan) -> list[Shape]:
    """Return the networks of a plan, in the order of its devices."""
    return [planned_shape(bench.card, bench.profile, a) for a in plan.assignments]
