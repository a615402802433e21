"""Reading and following the advice of messages when no plan exists."""

import re
from functools import cache
from typing import Any

import pytest

from planner.errors import InfeasibleError
from planner.rules.cost import BudgetName
from planner.schema import Fleet, Goal, Profile
from planner.solver import solve
from planner.solver.infeasible.changed_fleet import with_larger_budget, with_one_more
from tests.helpers.solver_instances import best_of, latency_of, small

UNITS = {"byte": 1, "bytes": 1, "KiB": 2**10, "MiB": 2**20}
FLOORS = "the retention floors"


def demands(goal: Goal) -> list[str]:
    """Return each demand of a goal as messages mention it."""
    found = [
        f"`{key}={name}={device}`"
        for key in ("pin", "forbid")
        for name, devices in getattr(goal, key).items()
        for device in devices
    ]
    found += [f"`{key}={','.join(classes)}`" for key in ("together", "apart") for classes in getattr(goal, key)]
    found += [f"`leave_out={device}`" for device in goal.leave_out]
    found += [f"`survive={goal.survive}`"] * (goal.survive > 0)
    for key in ("max_latency_ms", "max_energy_mj"):
        if (limit := getattr(goal, key)) is not None:
            found.append(f"`{key}={limit:.10g}`")
    return [*found, FLOORS]


def setting_of(text: str) -> tuple[str, str]:
    """Return the key and the value of a setting in backticks."""
    key, _, value = text.strip("`").partition("=")
    return key, value


def num_bytes_of(number: str, unit: str) -> float:
    """Return a size as messages write it [bytes]."""
    return float(number.replace(",", "")) * UNITS[unit]


def without(goal: Goal, *dropped: str) -> Goal:
    """Return a goal without some of its demands, whose objective is the latency so that any demand may go."""
    data: dict[str, Any] = goal.model_dump() | {"objective": "latency"}
    for demand in dropped:
        key, value = setting_of(demand)
        if demand == FLOORS:
            data |= {"min_retention": 0.0}
        elif key in ("pin", "forbid"):
            name, _, device = value.rpartition("=")
            rest = tuple(d for d in data[key][name] if d != device)
            data[key] = {k: v for k, v in (data[key] | {name: rest}).items() if v}
        elif key in ("together", "apart"):
            data[key] = tuple(classes for classes in data[key] if ",".join(classes) != value)
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
    # Commas are between the classes of a setting as well, but followed by no blank.
    return re.split(r", | and (?=`|the )", found[1])


def changes(message: str) -> list[str]:
    """Return the changes that a message says would work."""
    found = re.search(r"(?:Smallest|A) change that works: (.*)\.\Z", message)
    return found[1].split(", or ") if found else []


def done(on: Fleet, goal: Goal, change: str, share: float = 1.0) -> tuple[Fleet, Goal]:
    """Return fleet and goal with a change made, or with a share of it; sizes are those before rounding up."""
    goal = without(goal)  # whether there is a plan does not depend on what is best
    if found := re.fullmatch(r"\+([\d.,]+) (bytes?|KiB|MiB)(?: of (memory|storage))? on (.+)", change):
        size = num_bytes_of(found[1], found[2])
        if share < 1:
            # Sizes are rounded up, to tenths of their unit.
            size = int(share * (size - UNITS[found[2]] / 10))
        budget: BudgetName = "storage" if found[3] == "storage" else "memory"
        return with_larger_budget(on, found[4], budget, int(size)), one_by_one(goal, on)
    if found := re.fullmatch(r"one device more like '(.+?)'(?: \(.+\))?", change):
        return with_one_more(on, found[1]), one_by_one(goal, on)
    if change.startswith("no "):
        return on, without(goal, change.removeprefix("no "))
    key, text = setting_of(change)
    value = float(text)
    if key == "min_retention":
        assert goal.min_retention is not None
        value = goal.min_retention - share * (goal.min_retention - value)
    elif key == "survive":
        return on, Goal.model_validate(goal.model_dump() | {"survive": int(value) + (share < 1)})
    elif key in ("max_latency_ms", "max_energy_mj"):
        value *= share
    else:
        raise AssertionError(change)
    return on, Goal.model_validate(goal.model_dump() | {key: value})


def one_by_one(goal: Goal, on: Fleet) -> Goal:
    """Return a goal for the same fleet with its devices named one by one."""

    def single(devices: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(member for name in devices for member in on.member_names[name])

    placements = {
        key: {name: single(devices) for name, devices in getattr(goal, key).items()} for key in ("pin", "forbid")
    }
    return Goal.model_validate(goal.model_dump() | placements | {"leave_out": single(goal.leave_out)})


def message_of(of: Profile, on: Fleet, goal: Goal) -> str:
    """Return the planner's message about an instance without a plan."""
    with pytest.raises(InfeasibleError, match=r"\ANo plan") as caught:
        solve(of, on, goal)
    message = str(caught.value)
    assert message.endswith(".")
    return message


def verify(of: Profile, on: Fleet, goal: Goal, message: str | None = None) -> list[str]:
    """Return the categories of all changes that the message names, each of which brute force confirmed."""
    message = message or message_of(of, on, goal)

    def has_plan(changed_fleet: Fleet, changed_goal: Goal) -> bool:
        # With twins there are two fastest routes, of which brute force cannot choose.
        if len(changed_fleet.members) > len(on.members):
            return latency_of(of, changed_fleet, changed_goal) < float("inf")
        return best_of(of, changed_fleet, changed_goal) is not None

    named_demands = blamed(message)
    if named_demands is not None:
        assert set(named_demands) <= set(demands(goal)), message
        others = [demand for demand in demands(goal) if demand not in named_demands]
        assert not has_plan(on, without(goal, *others)), message
        assert all(has_plan(on, without(goal, *others, demand)) for demand in named_demands), message
    named = changes(message)
    for change in named:
        assert has_plan(*done(on, goal, change)), f"{change}: {message}"
        if not change.startswith(("no ", "one ")):
            assert not has_plan(*done(on, goal, change, share=0.98)), f"less than {change}: {message}"
    for demand in demands(goal)[:-1]:
        key = setting_of(demand)[0]
        change = f"`{key}=" if key in ("survive", "max_latency_ms", "max_energy_mj") else f"no {demand}"
        if not any(n.startswith(change) for n in named):
            assert not has_plan(on, without(goal, demand)), f"no word of {change}: {message}"
    return [category_of(change) for change in named]


def category_of(change: str) -> str:
    """Return the category of a change: the key of its setting, "memory", "storage" or "device"."""
    if change.startswith("+"):
        return "storage" if " of storage " in change else "memory"
    return "device" if change.startswith("one ") else setting_of(change.removeprefix("no "))[0]


@cache
def message_of_small(seed: int) -> str:
    """Return the planner's message about `small`."""
    return message_of(*small(seed))
