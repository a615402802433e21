"""Row of a scenario: the numbers of its plan, without the plan itself."""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import pandas as pd

from planner.rules.diff import plan_diff
from planner.schema import Plan, Profile

Status = Literal["optimal", "feasible", "impossible", "unknown"]

# What spreadsheets begin to compute at.
_FORMULA = re.compile(r"[=@\t\r]|[+-](?! )")
# Columns that are left out if the objective of every row is latency.
_OBJECTIVE = ("objective", "objective_value", "objective_bound")
# Columns of words, None where there is none.
_WORDS = ["bottleneck", "reason", "objective"]


@dataclass(frozen=True)
class ScenarioRow:
    """Numbers of a scenario's plan; None if there is no plan, or it has no such number.

    Moved classes and bytes are counted from today's plan.
    """

    scenario: str
    status: Status
    latency_us: int | None = None
    change_us: int | None = None  # against today's latency
    bound_us: int | None = None  # at the plan's floors
    gap: float | None = None
    bottleneck: str | None = None
    devices_used: int | None = None
    memory_bytes: int | None = None  # of all used devices together
    energy_mj: float | None = None
    lowest_retention: float | None = None
    predicted_accuracy: float | None = None
    goal_bound_us: int | None = None  # at any floors, where the goal is an accuracy drop
    classes_moved: int | None = None
    bytes_to_send: int | None = None
    reason: str | None = None  # why there is no plan
    seconds: float = 0.0
    out_of_time: bool = False  # the time limit ended the search: another run may move and retain otherwise
    objective: str | None = None  # if it is not latency
    objective_value: float | None = None
    objective_bound: float | None = None


def row_of(scenario: str, plan: Plan, today: Plan | None, profile: Profile, seconds: float) -> ScenarioRow:
    """Return the row of a plan; its changes are relative to today's plan, if there is one."""
    moves = None if today is None else plan_diff(today, plan, profile)
    return ScenarioRow(
        scenario=scenario,
        status=plan.status,
        latency_us=plan.latency_us,
        change_us=None if today is None else plan.latency_us - today.latency_us,
        bound_us=plan.bound_us,
        gap=plan.gap,
        bottleneck=plan.bottleneck.device,
        devices_used=len(plan.assignments),
        memory_bytes=sum(a.memory_bytes for a in plan.assignments),
        energy_mj=None if plan.energy_mj is None else round(plan.energy_mj, 6),
        lowest_retention=plan.lowest_retention,
        predicted_accuracy=None if plan.predicted_accuracy is None else plan.predicted_accuracy.accuracy,
        goal_bound_us=plan.goal_bound_us,
        classes_moved=None if moves is None else moves.classes,
        bytes_to_send=None if moves is None else moves.bytes_to_send,
        seconds=round(seconds, 3),
        objective=None if plan.goal.objective == "latency" else plan.goal.objective,
        objective_value=plan.objective_value,
        objective_bound=plan.objective_bound,
    )


def with_scenario(row: ScenarioRow, scenario: str) -> ScenarioRow:
    """Return a row under the name of another scenario with the same fleet and goal."""
    return replace(row, scenario=scenario)


def records(rows: Sequence[ScenarioRow]) -> list[dict[str, Any]]:
    """Return rows as dicts by column; columns of other objectives only if some row has one."""
    latency_only = all(getattr(row, key) is None for row in rows for key in _OBJECTIVE)
    left_out = _OBJECTIVE if latency_only else ()
    return [{key: value for key, value in asdict(row).items() if key not in left_out} for row in rows]


def frame_of(rows: Sequence[ScenarioRow]) -> pd.DataFrame:
    """Return a table of rows, indexed by the names of the scenarios; missing numbers are NaN.

    Columns: those of `ScenarioRow`; objective, objective_value and objective_bound only if some is not latency.
    """
    data = records(rows) or [asdict(ScenarioRow("", "unknown"))]
    frame = pd.DataFrame(data).head(len(rows))
    for key in frame.columns.difference(["scenario", "status", *_WORDS]):
        frame[key] = pd.to_numeric(frame[key])
    for key in frame.columns.intersection(_WORDS):
        frame[key] = frame[key].astype(object).where(frame[key].notna(), None)
    table: pd.DataFrame = frame.set_index("scenario")
    return table


def rows_to_json(rows: Sequence[ScenarioRow]) -> str:
    """Return rows as JSON: a list of objects, one on each line."""
    lines = [json.dumps(record, ensure_ascii=False) for record in records(rows)]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def rows_to_csv(rows: Sequence[ScenarioRow]) -> str:
    """Return rows as CSV with a header; missing values are empty."""
    data = records(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(data[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: _guarded(value) for key, value in record.items()} for record in data])
    return text.getvalue()


def frame_to_csv(frame: pd.DataFrame, index: bool) -> str:
    """Return a table as CSV with a header, whose index holds names if it is written."""
    text = frame.rename(index=_guarded).map(_guarded).to_csv(index=index, lineterminator="\n")
    return str(text)


def _guarded(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula; the planner's own "+ esp32-s3" is none."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def to_line(row: ScenarioRow) -> dict[str, Any]:
    """Return a row as data for JSON, which `from_line` reads."""
    return asdict(row)


def from_line(data: Any) -> ScenarioRow | None:
    """Return the row that `to_line` wrote; None for anything else."""
    known = {f.name for f in fields(ScenarioRow)}
    if not isinstance(data, dict) or set(data) != known:
        return None
    return ScenarioRow(**data) if isinstance(data["seconds"], float) and math.isfinite(data["seconds"]) else None
