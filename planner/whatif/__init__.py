"""What-if analysis: change a fleet or a goal, solve again, and get a row for each scenario (no torch).

today = today_of(profile, fleet, goal)
scenarios = expand(axes_of(ChangeRequest(drop_each=True), fleet), today.case)
frame_of(solve_all(today, scenarios))
"""

from planner.whatif.case import Case
from planner.whatif.change_request import ChangeRequest, Scenario, axes_of
from planner.whatif.expand import ExpandedScenario, expand
from planner.whatif.fronts import DEFAULT_POINTS, Against, next_best, pareto
from planner.whatif.result_cache import ResultCache
from planner.whatif.rows import ScenarioRow, frame_of, frame_to_csv, rows_to_csv, rows_to_json
from planner.whatif.run import Today, solve_all, solve_scenarios, today_of

__all__ = [
    "DEFAULT_POINTS",
    "Against",
    "Case",
    "ChangeRequest",
    "ExpandedScenario",
    "ResultCache",
    "Scenario",
    "ScenarioRow",
    "Today",
    "axes_of",
    "expand",
    "frame_of",
    "frame_to_csv",
    "next_best",
    "pareto",
    "rows_to_csv",
    "rows_to_json",
    "solve_all",
    "solve_scenarios",
    "today_of",
]
