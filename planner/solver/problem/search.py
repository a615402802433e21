"""Requests to and results of a search, whichever method does it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from planner.arrays import Ints
from planner.solver.problem.instance import NEVER
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel

# Methods of search: by all class subsets, or by column generation.
SearchMethod = Literal["exact", "large"]
# Callback with the best objective so far, if there is one, and its bound.
Progress = Callable[[float | None, float], None]


def no_progress(best: float | None, bound: float) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class SearchRequest:
    """Objective of a search, its start, and the conditions under which it may end early."""

    objective: ObjectiveFunction
    progress: Progress = no_progress
    # Sub-models of an earlier plan; together they may still be a plan.
    earlier: tuple[PlacedSubModel, ...] = ()
    # Any plan with an objective this low is good enough.
    enough: int = 0
    # No plan is of interest once it is proven that none is below this.
    give_up: int = NEVER
    # Limit of each resource, (R,).
    max_use: Ints | None = None


@dataclass(frozen=True)
class SearchResult:
    """Best placement so far (None: none yet) and a bound on every other (None: none exists).

    The bound is of the objective: latency [us], energy [units] or devices.
    """

    placed: tuple[PlacedSubModel, ...] | None
    bound: int | None
    method: SearchMethod = "exact"
