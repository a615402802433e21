"""Profile + fleet + goal -> plan, with a proof (ortools; no torch)."""

from planner.solver.experience import Experience
from planner.solver.instance import Progress
from planner.solver.solve import DEFAULT_TIME_LIMIT_S, solve, solve_and_learn

__all__ = ["DEFAULT_TIME_LIMIT_S", "Experience", "Progress", "solve", "solve_and_learn"]
