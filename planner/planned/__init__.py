"""The planner in Python: what `import planner` gives beside what is read and described."""

from planner.planned.ask import diff, load_plan, next_best, pareto, solve, what_if
from planner.planned.plan import Planned

__all__ = ["Planned", "diff", "load_plan", "next_best", "pareto", "solve", "what_if"]
