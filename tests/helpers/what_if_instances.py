"""Small fleets for what-if, solved in hundredths of a second and by brute force.

Plans are for a retention floor, at which the best one is proven, unless a test is about accuracy.
"""

import json
from pathlib import Path
from typing import Any

from planner.errors import InfeasibleError
from planner.schema import Fleet, Goal, GoalFile, Plan, Profile, to_json
from planner.solver import SolveOptions, solve
from planner.whatif import ChangeRequest, ScenarioRow, Today, axes_of, expand, solve_all, today_of
from tests.helpers.accuracy import predictable
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import best_of


def instance(seed: int, num_devices: int = 3, tightness: float = 0.6) -> tuple[Profile, Fleet]:
    """Return 4 classes on a few devices, each with its own way to the aggregator, and a random accuracy model."""
    profile = predictable(random_profile(seed), seed)
    return profile, random_fleet(profile, seed, num_devices, tightness)


def plan_of(profile: Profile, fleet: Fleet, goal: Goal | None = None) -> Plan | None:
    """Return the plan of an independent solve; None where there is none."""
    try:
        return solve(profile, fleet, goal or floored(), SolveOptions(advice=False))
    except InfeasibleError:
        return None


def rows_of(profile: Profile, fleet: Fleet, cross: bool = False, **flags: Any) -> list[ScenarioRow]:
    """Return today's row and those of the given flags."""
    return rows_after(today_of(profile, fleet, floored()), cross, **flags)


def rows_after(today: Today, cross: bool = False, **flags: Any) -> list[ScenarioRow]:
    """Return today's row and those of the given flags."""
    return solve_all(today, expand(axes_of(ChangeRequest(**flags), today.fleet), today.case, cross))


def feasible(count: int, **arguments: Any) -> list[int]:
    """Return the first seeds whose instances have a plan, by brute force."""
    seeds = (seed for seed in range(200) if best_of(*instance(seed, **arguments), floored()) is not None)
    return [seed for seed, _ in zip(seeds, range(count), strict=False)]


def timeless(rows: list[ScenarioRow]) -> list[ScenarioRow]:
    """Return rows with their seconds set to zero."""
    return [ScenarioRow(**(vars(row) | {"seconds": 0.0})) for row in rows]


def by_hand(fleet: Fleet, change: Any) -> Fleet:
    """Return a fleet whose file's data was changed by a function."""
    data = fleet.model_dump(mode="json")
    change(data)
    return Fleet.model_validate_json(json.dumps(data))


def files(folder: Path, profile: Profile, fleet: Fleet) -> list[str]:
    """Write profile, fleet and the goal with a retention floor, and return the flags that name them."""
    goal = GoalFile.model_validate(floored().model_dump())
    names = {"devices": fleet, "goal": goal, "profile": profile}
    for name, document in names.items():
        (folder / f"{name}.json").write_text(to_json(document))
    return [part for name in names for part in (f"--{name}", str(folder / f"{name}.json"))]
