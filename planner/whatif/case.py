"""A fleet and a goal on the way from today's to a scenario's, and how devices leave and join it.

Entries of a fleet with a count are taken apart where only some of their devices change; their links
are, too, and a medium that a link shared stays one medium, with a name. What an earlier change took
away or apart keeps its name here, so that later changes and the goal can go on using it.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import networkx as nx

from planner.errors import InputError, PlannerError
from planner.library import load_kinds
from planner.rules.links import hops_of
from planner.schema import Device, Fleet, Goal, Link, Profile, nearest

_LONGEST_NAME = 200


class ImpossibleError(PlannerError):
    """A change that this fleet or goal cannot have: a scenario with it has no plan."""


class GoneError(ImpossibleError):
    """A change to what another change took away."""


@dataclass(frozen=True)
class Case:
    """A changed fleet and goal.

    `left` has, for each name of today's fleet that is no entry and no device any more, the single devices that
    are left of it. `kinds` are those that can be planned with.
    """

    today: Fleet
    fleet: Fleet
    goal: Goal
    kinds: frozenset[str]
    left: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: Profile, fleet: Fleet, goal: Goal) -> "Case":
        """Return today's fleet and goal, before any change."""
        return cls(fleet, fleet, goal, frozenset({*load_kinds(), *profile.latency}))

    def members(self, name: str) -> tuple[str, ...]:
        """Return the single devices that a name stands for.

        Raises:
            GoneError: If they were taken away by another change.
            InputError: If there never was such a name.
        """
        known = self.fleet.member_names
        if name in known:
            return known[name]
        if name not in self.left:
            raise InputError(f"{name!r} is not a device of the fleet{nearest(name, known) or '.'}")
        if not self.left[name]:
            raise GoneError(f"{name!r} is not there any more.")
        return self.left[name]


def with_media_named(fleet: Fleet) -> Fleet:
    """Return the fleet with a name for each medium that one link shares, so that other links can join it."""
    return fleet.replace(links=_media_named(fleet)) if any(link.shared is True for link in fleet.links) else fleet


def apart(case: Case, names: Iterable[str]) -> Case:
    """Take these entries with a count apart into single devices, and their links with them."""
    wanted = set(names)
    several = {d.name for d in case.fleet.devices if d.count > 1 and d.name in wanted}
    return _rebuilt(case, several, set()) if several else case


def lose(case: Case, names: Iterable[str]) -> Case:
    """Return the fleet and goal without some devices, and without what was reached over them only.

    Raises:
        ImpossibleError: If the aggregator is one of them, or all the devices that a class is pinned to.
        GoneError, InputError: If a name is not in the fleet.
    """
    lost = {member for name in names for member in case.members(name)}
    if case.fleet.aggregator in lost:
        raise ImpossibleError(f"{case.fleet.aggregator!r} has the image and joins the features.")
    lost |= cut_off(case.fleet, lost)
    members = case.fleet.member_names
    touched = {d.name for d in case.fleet.devices if lost.intersection(members[d.name])}
    whole = {name for name in touched if lost.issuperset(members[name])}
    case = _rebuilt(case, touched - whole, whole | lost)
    return replace(case, goal=_goal_of_the_rest(case.goal, case.fleet, case.left))


def _rebuilt(case: Case, several: set[str], gone: set[str]) -> Case:
    """Return the case with these entries taken apart, and without these entries and devices."""
    members = case.fleet.member_names
    singles = {name: members[name] for name in several}
    devices = [
        {**entry.model_dump(), "name": name, "count": entry.count if name == entry.name else 1}
        for entry in case.fleet.devices
        for name in singles.get(entry.name, (entry.name,))
        if name not in gone
    ]
    links = [
        {**link, "between": (a, b)}
        for link in _media_named(case.fleet)
        for a in singles.get(link["between"][0], link["between"][:1])
        for b in singles.get(link["between"][1], link["between"][1:])
        if not gone.intersection((a, b))
    ]
    left = {name: tuple(m for m in names if m not in gone) for name, names in {**case.left, **singles}.items()}
    left |= dict.fromkeys(gone, ())
    return replace(case, fleet=case.fleet.replace(devices=devices, links=links), left=left)


def _media_named(fleet: Fleet) -> list[dict[str, Any]]:
    """Return the links as data, with a name for each medium that one of them shares."""
    taken = {link.shared for link in fleet.links}
    free = (name for i in itertools.count(1) if (name := f"link {i}") not in taken)
    return [link.model_dump() | ({"shared": next(free)} if link.shared is True else {}) for link in fleet.links]


def cut_off(fleet: Fleet, lost: Iterable[str]) -> set[str]:
    """Return the devices that cannot be reached once these are lost."""
    if fleet.default_link is not None:
        return set()
    hops = hops_of(fleet)
    before = set(nx.node_connected_component(hops, fleet.aggregator))
    hops.remove_nodes_from(set(lost))
    return before - set(lost) - set(nx.node_connected_component(hops, fleet.aggregator))


def _goal_of_the_rest(goal: Goal, fleet: Fleet, left: Mapping[str, tuple[str, ...]]) -> Goal:
    """Return the goal with the names of what is left."""

    def rest(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(m for name in names for m in ((name,) if name in fleet.member_names else left.get(name, (name,))))

    for name, devices in goal.pin.items():
        if not rest(devices):
            raise ImpossibleError(f"class {name!r} is pinned to {' and '.join(map(repr, devices))}, which is lost.")
    changed: dict[str, Any] = {
        "pin": {name: rest(devices) for name, devices in goal.pin.items()},
        "forbid": {name: kept for name, devices in goal.forbid.items() if (kept := rest(devices))},
        "leave_out": rest(goal.leave_out),
    }
    return goal if all(getattr(goal, key) == value for key, value in changed.items()) else goal.replace(**changed)


def join(case: Case, device: Device, count: int, links: Sequence[tuple[str, Link]], base: str) -> Case:
    """Add equal devices with new names that begin like `base`, each with such links to these other devices."""
    taken = {*case.fleet.member_names, *case.left}
    added: list[str] = []
    for i in range(1, len(taken) + count + 1):
        name = base if i == 1 else f"{base[: _LONGEST_NAME - len(str(i)) - 1]}-{i}"
        if name not in taken and len(added) < count:
            added.append(name)
    devices = [device.model_dump() | {"name": name, "count": 1} for name in added]
    joins = [link.model_dump() | {"between": (other, name)} for name in added for other, link in links]
    fleet = case.fleet.replace(devices=[*case.fleet.devices, *devices], links=[*case.fleet.links, *joins])
    return replace(case, fleet=fleet)
