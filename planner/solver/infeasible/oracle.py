"""Feasibility questions about changed goals and fleets, as explanations and repairs ask them."""

from typing import Any

from planner.schema import Goal
from planner.solver.exact.warm_start import WarmStart
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.search import SearchRequest
from planner.solver.search import InstanceSearch


class FeasibilityOracle:
    """Answers whether there is any plan; `sure` until a question had no answer in time.

    Each search starts from what the searches before it proved.
    """

    def __init__(self, clock: Clock, warm_start: WarmStart) -> None:
        self.clock, self.warm_start, self.sure = clock, warm_start, True

    def has_plan(self, instance: Instance) -> bool | None:
        """Return whether there is any plan; None if time ran out before that was known."""
        search = InstanceSearch(instance, self.clock, self.warm_start)
        found = search.run(SearchRequest(ObjectiveFunction(instance, "devices"), enough=NEVER - 1))
        self.warm_start = search.warm_start
        if found.placed is not None:
            return True
        if found.bound is None:
            return False
        self.sure = False
        return None


def with_goal_changes(instance: Instance, **changes: Any) -> Instance:
    """Return an instance of the same profile, fleet and floors, and a changed goal of least latency."""
    goal = Goal.model_validate(instance.goal.model_dump() | {"objective": "latency"} | changes)
    floor = None if "min_retention" in changes else instance.retention_floor
    return build_instance(instance.profile, instance.fleet, goal, floor)
