"""Reading what the planner says when nothing fits, and doing it: for the tests of the explanations."""

import re
from functools import lru_cache
from typing import Any

import pytest

from planner.errors import InfeasibleError
from planner.schema import Fleet, Goal, Profile
from planner.solver import solve
from planner.solver.infeasible.repair import with_more_memory, with_one_more
from tests.helpers.solver_instances import best_of, latency_of, small

UNITS = {"KiB": 2**10, "MiB": 2**20}
FLOORS = "the retention floors"


def demands(goal: Goal) -> list[str]:
    """Return each demand of a goal in the user's words."""
    said = [
        f"--{key} {name}={device}"
        for key in ("pin", "forbid")
        for name, devices in getattr(goal, key).items()
        for device in devices
    ]
    said += [f"--{key} {','.join(group)}" for key in ("together", "apart") for group in getattr(goal, key)]
    said += [f"--leave-out {device}" for device in goal.leave_out]
    said += [f"--survive {goal.survive}"] * (goal.survive > 0)
    for key in ("max_latency_ms", "max_energy_mj"):
        if (limit := getattr(goal, key)) is not None:
            said.append(f"--{key.replace('_', '-')} {limit:.10g}")
    return [*said, FLOORS]


def without(goal: Goal, *said: str) -> Goal:
    """Return a goal without some of its demands; its objective is the least latency, so that any may go."""
    data: dict[str, Any] = goal.model_dump() | {"objective": "latency"}
    for demand in said:
        key, _, value = demand.removeprefix("--").partition(" ")
        key = key.replace("-", "_")
        if demand == FLOORS:
            data |= {"min_retention": 0.0, "max_accuracy_drop": None}
        elif key in ("pin", "forbid"):
            name, _, device = value.rpartition("=")
            rest = tuple(d for d in data[key][name] if d != device)
            data[key] = {k: v for k, v in (data[key] | {name: rest}).items() if v}
        elif key in ("together", "apart"):
            data[key] = tuple(group for group in data[key] if ",".join(group) != value)
        elif key == "leave_out":
            data[key] = tuple(device for device in data[key] if device != value)
        else:
            data[key] = 0 if key == "survive" else None
    return Goal.model_validate(data)


def blamed(message: str) -> list[str] | None:
    """Return the demands that a message says cannot be met; None if it says something else."""
    found = re.match(r"No plan: (.*) (?:cannot be met by this fleet|contradict each other on this fleet)\.", message)
    if found is None:
        return None
    # Commas are within groups of classes as well, but followed by no blank.
    return re.split(r", | and (?=--|the )", found[1])


def changes(message: str) -> list[str]:
    """Return the changes that a message says would work."""
    found = re.search(r"(?:Smallest|A) change that works: (.*)\.\Z", message)
    return found[1].split(", or ") if found else []


def done(on: Fleet, goal: Goal, change: str, share: float = 1.0) -> tuple[Fleet, Goal]:
    """Return fleet and goal with a change made, or only a share of it; sizes are then taken before rounding up."""
    goal = without(goal)  # whether there is a plan does not depend on what is best
    if found := re.fullmatch(r"\+([\d.]+) (KiB|MiB) on (.+)", change):
        size = float(found[1]) - (0.1 if share < 1 else 0)
        return with_more_memory(on, found[3], int(share * size * UNITS[found[2]])), one_by_one(goal, on)
    if found := re.fullmatch(r"one device more like '(.+?)'(?: \(.+\))?", change):
        return with_one_more(on, found[1]), one_by_one(goal, on)
    if change.startswith("no "):
        return on, without(goal, change.removeprefix("no "))
    key, _, text = change.removeprefix("--").partition(" ")
    key, value = key.replace("-", "_"), float(text)
    if key == "min_retention":
        assert goal.min_retention is not None
        value = goal.min_retention - share * (goal.min_retention - value)
    elif key == "survive":
        return on, Goal.model_validate(goal.model_dump() | {"survive": int(value) + (share < 1)})
    elif key in ("max_latency_ms", "max_energy_mj"):
        value *= share
    else:
        assert key == "max_accuracy_drop"
        # A little less is the next smaller drop that was calibrated, if there is one.
        value -= 1e-6 * (share < 1)
    return on, Goal.model_validate(goal.model_dump() | {key: value})


def one_by_one(goal: Goal, on: Fleet) -> Goal:
    """Return a goal for the same fleet with its devices named one by one."""

    def single(devices: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(member for name in devices for member in on.member_names[name])

    placements = {
        key: {name: single(devices) for name, devices in getattr(goal, key).items()} for key in ("pin", "forbid")
    }
    return Goal.model_validate(goal.model_dump() | placements | {"leave_out": single(goal.leave_out)})


def said(of: Profile, on: Fleet, goal: Goal) -> str:
    """Return what the planner says of an instance that has no plan."""
    with pytest.raises(InfeasibleError, match=r"\ANo plan") as caught:
        solve(of, on, goal)
    message = str(caught.value)
    assert message.endswith(".")
    return message


def verify(of: Profile, on: Fleet, goal: Goal, message: str | None = None) -> list[str]:
    """Return the kinds of all changes that the planner names, each of which was found true by brute force."""
    message = message or said(of, on, goal)

    def has_plan(changed_fleet: Fleet, changed_goal: Goal) -> bool:
        # With twins there are two fastest routes, of which brute force cannot choose.
        if len(changed_fleet.members) > len(on.members):
            return latency_of(of, changed_fleet, changed_goal) < float("inf")
        return best_of(of, changed_fleet, changed_goal) is not None

    guilty = blamed(message)
    if guilty is not None:
        assert set(guilty) <= set(demands(goal)), message
        innocent = [demand for demand in demands(goal) if demand not in guilty]
        assert not has_plan(on, without(goal, *innocent)), message
        assert all(has_plan(on, without(goal, *innocent, demand)) for demand in guilty), message
    named = changes(message)
    for change in named:
        assert has_plan(*done(on, goal, change)), f"{change}: {message}"
        if not change.startswith(("no ", "one ")):
            assert not has_plan(*done(on, goal, change, share=0.98)), f"less than {change}: {message}"
    for demand in demands(goal)[:-1]:
        limit = demand.partition(" ")[0]
        change = limit if limit in ("--survive", "--max-latency-ms", "--max-energy-mj") else f"no {demand}"
        if not any(n.startswith(change) for n in named):
            assert not has_plan(on, without(goal, demand)), f"no word of {change}: {message}"
    return [change.split(" ")[1 if change.startswith("no ") else 0] for change in named]


@lru_cache
def said_of_small(seed: int) -> str:
    """Return what the planner says of `small`."""
    return said(*small(seed))
