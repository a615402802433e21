"""Change a fleet or a goal, solve again: a row for each scenario (no torch).

today = today_of(profile, fleet, goal)
scenarios = posed(axes_of(Asked(drop_each=True), fleet), today.case)
frame_of(all_rows(today, scenarios))
"""

from planner.whatif.case import Case
from planner.whatif.flags import Asked, Scenario, axes_of
from planner.whatif.fronts import DEFAULT_POINTS, Against, next_best, pareto
from planner.whatif.kept import Kept
from planner.whatif.rows import Row, frame_of, to_csv, to_json
from planner.whatif.run import Today, all_rows, answers, today_of
from planner.whatif.scenarios import Posed, posed

__all__ = [
    "DEFAULT_POINTS",
    "Against",
    "Asked",
    "Case",
    "Kept",
    "Posed",
    "Row",
    "Scenario",
    "Today",
    "all_rows",
    "answers",
    "axes_of",
    "frame_of",
    "next_best",
    "pareto",
    "posed",
    "to_csv",
    "to_json",
    "today_of",
]
