"""Goals with a retention floor, for tests that are not about accuracy."""

from typing import Any

from planner.schema import Goal


def floored(**changes: Any) -> Goal:
    """Return a goal with a retention floor of 0.5 for all classes, unless changed."""
    return Goal.model_validate({"min_retention": 0.5} | changes)
