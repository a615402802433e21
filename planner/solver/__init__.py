"""Profile + fleet + goal -> plan, with a proof (ortools; no torch)."""

from planner.solver.exact.warm_start import WarmStart
from planner.solver.problem.instance import Progress
from planner.solver.solve import DEFAULT_TIME_LIMIT_S, solve, solve_and_learn

__all__ = ["DEFAULT_TIME_LIMIT_S", "Progress", "WarmStart", "solve", "solve_and_learn"]
