"""Plan, prune and fuse Vision Transformers over fleets of edge devices.

    import planner

    fleet = planner.load_fleet("devices.json")
    plan = planner.solve("digits-vit", fleet, planner.Goal(max_accuracy_drop=0.05))
    plan.to_frame()                                   # a row for each device
    planner.what_if(plan, drop_each=True)             # a row for the loss of each device

Files:      load_fleet, load_profile, load_plan
Planning:   solve
Analysis:   what_if, pareto, next_best, diff
Data:       Fleet, Device, Link, Goal, Plan, Profile
Errors:     PlannerError, InputError, InfeasibleError, TimeLimitError

Names are imported when they are first used, so that `import planner` by itself takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from planner.version import __version__

if TYPE_CHECKING:
    from planner.api import diff, load_plan, next_best, pareto, solve, what_if
    from planner.errors import InfeasibleError, InputError, PlannerError, TimeLimitError
    from planner.library import load_fleet, load_profile
    from planner.schema import Device, Fleet, Goal, Link, Plan, Profile

_NAMES_BY_MODULE = {
    "errors": ("InfeasibleError", "InputError", "PlannerError", "TimeLimitError"),
    "api": ("diff", "load_plan", "next_best", "pareto", "solve", "what_if"),
    "schema": ("Device", "Fleet", "Goal", "Link", "Plan", "Profile"),
    "library": ("load_fleet", "load_profile"),
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = [
    "Device",
    "Fleet",
    "Goal",
    "InfeasibleError",
    "InputError",
    "Link",
    "Plan",
    "PlannerError",
    "Profile",
    "TimeLimitError",
    "__version__",
    "diff",
    "load_fleet",
    "load_plan",
    "load_profile",
    "next_best",
    "pareto",
    "solve",
    "what_if",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'planner' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"planner.{_MODULE_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
