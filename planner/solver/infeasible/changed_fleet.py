"""Fleets with one change: a larger budget of a device, or a twin of it."""

from typing import Any

from planner.rules.cost import BudgetName
from planner.schema import Fleet, Goal
from planner.schema.quantities import MAX_BYTES
from planner.solver.problem.instance import Instance


def with_larger_budget(fleet: Fleet, name: str, budget: BudgetName, extra_bytes: int) -> Fleet:
    """Return the fleet with single devices, one of them with more of a budget that it has."""
    devices, key = [m.model_dump() for m in fleet.members], f"{budget}_budget"
    for device in devices:
        if device["name"] == name:
            device[key] = min(MAX_BYTES, device[key] + extra_bytes)
    return _of_single_devices(fleet, devices, {})


def with_plenty(fleet: Fleet, budget: BudgetName) -> Fleet:
    """Return the fleet with single devices that have as much of a budget as there can be, where they have it."""
    devices, key = [m.model_dump() for m in fleet.members], f"{budget}_budget"
    for device in devices:
        if device.get(key) is not None:
            device[key] = MAX_BYTES
    return _of_single_devices(fleet, devices, {})


def with_one_more(fleet: Fleet, name: str) -> Fleet:
    """Return the fleet with single devices, and a twin of one of them that has the same links."""
    devices = [m.model_dump() for m in fleet.members]
    known = {device["name"] for device in devices}
    twin = next(f"{name}+{i}" for i in range(1, len(known) + 2) if f"{name}+{i}" not in known)
    devices += [device | {"name": twin} for device in devices if device["name"] == name]
    return _of_single_devices(fleet, devices, {name: twin})


def goal_for_single_devices(instance: Instance) -> Goal:
    """Return the goal for a fleet of single devices: names of counted entries become those of their devices."""
    goal, singles = instance.goal, instance.fleet.member_names

    def each(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(single for name in names for single in singles[name])

    changes: dict[str, Any] = {"objective": "latency", "leave_out": each(goal.leave_out)}
    for key in ("pin", "forbid"):
        changes[key] = {c: each(names) for c, names in getattr(goal, key).items()}
    return Goal.model_validate(goal.model_dump() | changes)


def _of_single_devices(fleet: Fleet, devices: list[dict[str, Any]], twins: dict[str, str]) -> Fleet:
    """Return the fleet with these devices; a shared link stays one medium for all that it leads to."""
    links = []
    for i, link in enumerate(fleet.links):
        shared = f"the medium of links[{i}]" if link.shared is True else link.shared
        ends = [(a, b) for a in fleet.member_names[link.between[0]] for b in fleet.member_names[link.between[1]]]
        ends += [(twins.get(a, a), twins.get(b, b)) for a, b in ends if a in twins or b in twins]
        links += [link.model_dump() | {"between": pair, "shared": shared} for pair in ends if pair[0] != pair[1]]
    return Fleet.model_validate(fleet.model_dump() | {"devices": devices, "links": links})
