"""Pareto fronts of latency, and the gains of purchases and upgrades; each point is a solved scenario."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from planner.errors import InfeasibleError, InputError, setting
from planner.library import load_kinds
from planner.rules.check import gap_of, status_of
from planner.schema import Fleet
from planner.whatif.change_request import Scenario, add_scenario
from planner.whatif.changes import DEFAULT_LINK, Change, Scale, SetGoal, apply_changes
from planner.whatif.expand import expand
from planner.whatif.rows import ScenarioRow, frame_of
from planner.whatif.run import OnRow, Today, ignore_progress, solve_all, solve_scenario
from planner.workers import Executor

Against = Literal["accuracy", "memory", "energy"]

DEFAULT_POINTS = 8
# Accuracy drops at the ends of a front.
_DROP_RANGE = 0.005, 0.2
# Precision of the least memory with a plan, as a share of all budgets.
_MEMORY_STEP = 1 / 128
# Longer than the latency of any plan.
_NO_LIMIT_MS = 1e9
_COLUMNS = ["against", "limit", "value", "latency_us", "bound_us", "gap", "status"]


def pareto(
    today: Today,
    against: Against,
    points: int = DEFAULT_POINTS,
    workers: Executor | None = None,
    on_row: OnRow = ignore_progress,
) -> pd.DataFrame:
    """Return the Pareto front of latency against another quantity, a row for each point.

    Columns: against; limit (the largest accuracy drop; the factor on all memory budgets; the energy limit [mJ]); value
    (predicted fused accuracy; bytes that all devices grant together; energy [mJ]); latency_us; bound_us, for any plan
    within the limit, whatever its floors; gap, status.

    Args:
        today: The fleet, its profile and goal; the goal's objective is taken to be latency.
        against: accuracy (drops from half a point to twenty), memory (from the least with a plan to the
            granted), or energy (from the least possible to that of the fastest plan).
        points: Number of limits to try.
        workers: Executor of the solves; this process unless given.
        on_row: Callback as points are solved.

    Raises:
        InputError: If the profile or the fleet does not say what is needed.
        InfeasibleError: If today's fleet has no plan.
    """
    if points < 2:
        raise InputError(f"{setting('points')} must be at least 2, got {points}.")
    limits = {"accuracy": _drops, "memory": _factors, "energy": _energies}[against](today, points)
    made = [Scenario(f"{against} {limit!r}", (*_changes(against, limit), *_for_latency(today))) for limit in limits]
    rows = solve_all(today, expand([tuple(made)], today.case), workers, on_row)[1:]
    found = [
        (against, limit, value, row.latency_us, *_certificate(row))
        for limit, row in zip(limits, rows, strict=True)
        if row.latency_us is not None and (value := _value(today, against, limit, row)) is not None
    ]
    frame = pd.DataFrame(found, columns=_COLUMNS)
    # Accuracy should be high, the others low.
    cost = -frame["value"] if against == "accuracy" else frame["value"]
    kept = [not _dominated(i, list(zip(frame["latency_us"], cost, strict=True))) for i in range(len(frame))]
    table: pd.DataFrame = frame[kept].reset_index(drop=True)
    return table


def next_best(
    today: Today, kinds: Sequence[str] | None = None, workers: Executor | None = None, on_row: OnRow = ignore_progress
) -> pd.DataFrame:
    """Return the gain of each purchase or upgrade, each of them solved, with the best first.

    The candidates are one more device of each kind, each device's memory and its storage, if it has a budget for it,
    doubled, and the bandwidth of each one's links doubled (and with it that of the whole medium).

    Columns: those of `frame_of`, and gain_us (latency saved; NaN where today's fleet has no plan, or the changed one).

    Raises:
        InputError: If a kind is not known.
    """
    unique = {one.key: one for one in reversed(expand([tuple(_candidates(today.fleet, kinds))], today.case))}
    rows = solve_all(today, list(unique.values())[::-1], workers, on_row)[1:]
    frame = frame_of(sorted(rows, key=_sort_key))
    frame["gain_us"] = -frame["change_us"]
    return frame


def _sort_key(row: ScenarioRow) -> tuple[float, str]:
    return math.inf if row.latency_us is None else row.latency_us, row.scenario


def _candidates(fleet: Fleet, kinds: Sequence[str] | None) -> Iterable[Scenario]:
    own = {device.kind for device in fleet.devices if device.kind is not None}
    for kind in sorted({*load_kinds(), *own}) if kinds is None else kinds:
        yield add_scenario(kind, 1, setting("kinds", kind))
    for device in fleet.devices:
        yield Scenario(f"{device.name}.memory x2", (Scale("memory", 2, device.name),))
        if device.storage_budget is not None:
            yield Scenario(f"{device.name}.storage x2", (Scale("storage", 2, device.name),))
    for device in fleet.devices:
        names = {device.name, *fleet.member_names[device.name]}
        if fleet.aggregator in names:
            continue
        linked = any(names.intersection(link.between) for link in fleet.links)
        name = device.name if linked else DEFAULT_LINK
        yield Scenario(f"{name}.bandwidth x2", (Scale("bandwidth", 2, name),))


def _changes(against: Against, limit: float) -> tuple[Change, ...]:
    if against == "memory":
        return (Scale("memory", limit),)
    return (SetGoal((({"accuracy": "max_accuracy_drop", "energy": "max_energy_mj"}[against], limit),)),)


def _value(today: Today, against: Against, limit: float, row: ScenarioRow) -> float | None:
    if against == "accuracy":
        return row.predicted_accuracy
    if against == "energy":
        return row.energy_mj
    # The budgets, not the memory in use: a plan fills spare memory for the sake of accuracy.
    return sum(member.memory_budget for member in apply_changes(today.case, _changes(against, limit)).fleet.members)


def _certificate(row: ScenarioRow) -> tuple[int | None, float | None, str]:
    """Return bound [us], gap and status of a row among all plans for its goal; a plan's own are for its floors."""
    if row.goal_bound_us is None:
        return row.bound_us, row.gap, row.status
    assert row.latency_us is not None
    values = row.latency_us, row.goal_bound_us
    return row.goal_bound_us, gap_of(*values), status_of(*values)


def _for_latency(today: Today) -> tuple[Change, ...]:
    return () if today.goal.objective == "latency" else (SetGoal((("objective", "latency"),)),)


def _dominated(i: int, points: Sequence[tuple[float, float]]) -> bool:
    """Return whether another point is as good in both values and better in one; of equal points the first stays."""
    x, y = points[i]
    return any(a <= x and b <= y and ((a, b) != (x, y) or j < i) for j, (a, b) in enumerate(points) if j != i)


def _drops(today: Today, points: int) -> list[float]:
    if today.profile.accuracy_model is None:
        raise InputError(f"profile {today.profile.model!r} has no accuracy model: no accuracy to set latency against.")
    # Evenly spread by their logarithm: what is lost doubles and doubles while the latency falls by less and less.
    return [round(float(drop), 4) for drop in np.geomspace(*_DROP_RANGE, points)]


def _factors(today: Today, points: int) -> list[float]:
    """Return factors from the least that has a plan, found by bisection, to 1."""
    _solved(today, *_for_latency(today))
    feasible, infeasible = 1.0, 0.0
    while feasible - infeasible > _MEMORY_STEP:
        middle = (feasible + infeasible) / 2
        row = solve_scenario(today, Scenario("", (Scale("memory", middle), *_for_latency(today))))
        feasible, infeasible = (feasible, middle) if row.latency_us is None else (middle, infeasible)
    return _steps(feasible, 1.0, points)


def _energies(today: Today, points: int) -> list[float]:
    limit = today.goal.max_latency_ms or _NO_LIMIT_MS
    fastest = _solved(today, SetGoal((("objective", "latency"),)))
    least = _solved(today, SetGoal((("max_latency_ms", limit), ("objective", "energy"))))
    assert least.energy_mj is not None
    if fastest.energy_mj is None:
        raise InputError("active_power_w must be known of every device that is used, to set latency against energy.")
    ends = [math.ceil(energy * 1e4 + 0.01) / 1e4 for energy in (least.energy_mj, fastest.energy_mj)]
    return [math.ceil(energy * 1e4 - 0.01) / 1e4 for energy in _steps(ends[0], ends[1], points)]


def _solved(today: Today, *changes: Change) -> ScenarioRow:
    row = solve_scenario(today, Scenario("", changes))
    if row.latency_us is None:
        raise InfeasibleError(row.reason or "No plan.")
    return row


def _steps(first: float, last: float, points: int) -> list[float]:
    if first >= last:
        return [last]
    return [first + (last - first) * i / (points - 1) for i in range(points - 1)] + [last]
