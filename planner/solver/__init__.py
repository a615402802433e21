"""Profile + fleet + goal -> plan, with a proof (ortools; no torch)."""

from planner.solver.instance import Progress
from planner.solver.solve import DEFAULT_TIME_LIMIT_S, solve

__all__ = ["DEFAULT_TIME_LIMIT_S", "Progress", "solve"]
