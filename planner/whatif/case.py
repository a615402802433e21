"""Fleet and goal between today's and a scenario's, and the removal and addition of devices.

An entry of the fleet with a count is split where only some of its devices change. Its links are split, too, and a
medium that a link shared stays one medium, with a name. Names of removed or split entries stay known, so that later
changes and the goal can go on using them.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import networkx as nx

from planner.errors import InputError, PlannerError
from planner.library import load_kinds
from planner.rules.links import hop_graph
from planner.schema import Device, Fleet, Goal, Link, Profile, did_you_mean

_MAX_NAME_LENGTH = 200


class ImpossibleError(PlannerError):
    """A change is not possible for this fleet or goal: a scenario with it has no plan."""


class RemovedError(ImpossibleError):
    """A change is about a device that another change removed."""


@dataclass(frozen=True)
class Case:
    """Fleet and goal at one stage of a scenario.

    `remaining` has the remaining single devices of each name of today's fleet that is no entry and no device any more.
    `kinds` are the device kinds that can be planned with.
    """

    today: Fleet
    fleet: Fleet
    goal: Goal
    kinds: frozenset[str]
    remaining: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: Profile, fleet: Fleet, goal: Goal) -> "Case":
        """Return today's fleet and goal, before any change."""
        return cls(fleet, fleet, goal, frozenset({*load_kinds(), *profile.latency}))

    def members(self, name: str) -> tuple[str, ...]:
        """Return the single devices that a name stands for.

        Raises:
            RemovedError: If they were removed by another change.
            InputError: If there never was such a name.
        """
        known = self.fleet.member_names
        if name in known:
            return known[name]
        if name not in self.remaining:
            raise InputError(f"{name!r} is not a device of the fleet{did_you_mean(name, known) or '.'}")
        if not self.remaining[name]:
            raise RemovedError(f"{name!r} is not there any more.")
        return self.remaining[name]


def with_named_media(fleet: Fleet) -> Fleet:
    """Return the fleet with a name for each medium that one link shares, so that other links can join it."""
    return fleet.replace(links=_media_named(fleet)) if any(link.shared is True for link in fleet.links) else fleet


def split_entries(case: Case, names: Iterable[str]) -> Case:
    """Split these entries with a count into single devices, and their links with them."""
    wanted = set(names)
    split = {d.name for d in case.fleet.devices if d.count > 1 and d.name in wanted}
    return _rebuilt(case, split, set()) if split else case


def remove_devices(case: Case, names: Iterable[str]) -> Case:
    """Return the fleet and goal without some devices, and without those that were reached over them only.

    Raises:
        ImpossibleError: If the aggregator is one of them, or all the devices that a class is pinned to.
        RemovedError, InputError: If a name is not in the fleet.
    """
    lost = {member for name in names for member in case.members(name)}
    if case.fleet.aggregator in lost:
        raise ImpossibleError(f"{case.fleet.aggregator!r} has the image and joins the features.")
    lost |= unreachable_devices(case.fleet, lost)
    members = case.fleet.member_names
    touched = {d.name for d in case.fleet.devices if lost.intersection(members[d.name])}
    whole = {name for name in touched if lost.issuperset(members[name])}
    case = _rebuilt(case, touched - whole, whole | lost)
    return replace(case, goal=_restricted_goal(case.goal, case.fleet, case.remaining))


def _rebuilt(case: Case, split: set[str], removed: set[str]) -> Case:
    """Return the case with some entries split, and without the removed entries and devices."""
    members = case.fleet.member_names
    singles = {name: members[name] for name in split}
    devices = [
        {**entry.model_dump(), "name": name, "count": entry.count if name == entry.name else 1}
        for entry in case.fleet.devices
        for name in singles.get(entry.name, (entry.name,))
        if name not in removed
    ]
    links = [
        {**link, "between": (a, b)}
        for link in _media_named(case.fleet)
        for a in singles.get(link["between"][0], link["between"][:1])
        for b in singles.get(link["between"][1], link["between"][1:])
        if not removed.intersection((a, b))
    ]
    earlier = {**case.remaining, **singles}
    remaining = {name: tuple(m for m in names if m not in removed) for name, names in earlier.items()}
    remaining |= dict.fromkeys(removed, ())
    return replace(case, fleet=case.fleet.replace(devices=devices, links=links), remaining=remaining)


def _media_named(fleet: Fleet) -> list[dict[str, Any]]:
    """Return the links as data, with a name for each medium that one of them shares."""
    taken = {link.shared for link in fleet.links}
    free = (name for i in itertools.count(1) if (name := f"link {i}") not in taken)
    return [link.model_dump() | ({"shared": next(free)} if link.shared is True else {}) for link in fleet.links]


def unreachable_devices(fleet: Fleet, lost: Iterable[str]) -> set[str]:
    """Return the devices that cannot be reached any more once these are lost."""
    if fleet.default_link is not None:
        return set()
    hops = hop_graph(fleet)
    before = set(nx.node_connected_component(hops, fleet.aggregator))
    hops.remove_nodes_from(set(lost))
    return before - set(lost) - set(nx.node_connected_component(hops, fleet.aggregator))


def _restricted_goal(goal: Goal, fleet: Fleet, remaining: Mapping[str, tuple[str, ...]]) -> Goal:
    """Return the goal with its demands on removed devices left out."""

    def rest(names: Iterable[str]) -> tuple[str, ...]:
        known = {name: (name,) for name in fleet.member_names}
        return tuple(m for name in names for m in known.get(name, remaining.get(name, (name,))))

    for name, devices in goal.pin.items():
        if not rest(devices):
            raise ImpossibleError(f"class {name!r} is pinned to {' and '.join(map(repr, devices))}, which is lost.")
    changed: dict[str, Any] = {
        "pin": {name: rest(devices) for name, devices in goal.pin.items()},
        "forbid": {name: kept for name, devices in goal.forbid.items() if (kept := rest(devices))},
        "leave_out": rest(goal.leave_out),
    }
    return goal if all(getattr(goal, key) == value for key, value in changed.items()) else goal.replace(**changed)


def add_devices(case: Case, device: Device, count: int, links: Sequence[tuple[str, Link]], base: str) -> Case:
    """Add equal devices, named after `base`, each with a copy of these links to these other devices."""
    taken = {*case.fleet.member_names, *case.remaining}
    added: list[str] = []
    for i in range(1, len(taken) + count + 1):
        name = base if i == 1 else f"{base[: _MAX_NAME_LENGTH - len(str(i)) - 1]}-{i}"
        if name not in taken and len(added) < count:
            added.append(name)
    devices = [device.model_dump() | {"name": name, "count": 1} for name in added]
    joins = [link.model_dump() | {"between": (other, name)} for name in added for other, link in links]
    fleet = case.fleet.replace(devices=[*case.fleet.devices, *devices], links=[*case.fleet.links, *joins])
    return replace(case, fleet=fleet)
