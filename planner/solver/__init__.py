"""Profile, fleet and goal to a plan, with a proof (ortools; no torch)."""

from planner.solver.exact.warm_start import WarmStart
from planner.solver.options import DEFAULT_TIME_LIMIT_S, SolveOptions
from planner.solver.problem.search import Progress
from planner.solver.solve import solve, solve_and_learn

__all__ = ["DEFAULT_TIME_LIMIT_S", "Progress", "SolveOptions", "WarmStart", "solve", "solve_and_learn"]
