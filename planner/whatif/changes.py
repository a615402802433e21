"""Changes of a fleet and its goal: each is data, with a method that applies it to a case.

The changes of a scenario are applied in the order of `APPLY_ORDER`, whatever order they were given in: devices leave,
devices join, then their numbers change, then the goal.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from planner.errors import InputError
from planner.library import load_kinds
from planner.rules.links import rational
from planner.schema import Device, Fleet, Goal, GoalChanges, Link, LinkSpeed, Quantity, SettingChange, did_you_mean
from planner.whatif.case import (
    Case,
    ImpossibleError,
    RemovedError,
    add_devices,
    remove_devices,
    split_entries,
    with_named_media,
)

# The keys of a device and of its links that can be set.
DEVICE_KEYS = tuple(key for key in Device.model_fields if key != "name")
LINK_KEYS = ("bandwidth_mbps", "latency_ms")
DEFAULT_LINK = "default_link"
AGGREGATOR = "aggregator"


@dataclass(frozen=True)
class Drop:
    """Loss of devices, and of those that are reached over them only."""

    names: tuple[str, ...]

    def apply(self, case: Case) -> Case:
        """Return the case after the change."""
        return remove_devices(case, self.names)


@dataclass(frozen=True)
class Add:
    """Addition of devices of a kind, or like one of the fleet.

    They are copies of today's first device of that kind, links included. A new kind has its card's memory and storage
    as budgets, and the default link; if there is none, a link like the slowest of the aggregator's.
    """

    of: str
    count: int = 1

    def apply(self, case: Case) -> Case:
        """Return the case after the change."""
        today, cards = with_named_media(case.today), load_kinds()
        case = replace(case, fleet=with_named_media(case.fleet))
        like = [d for d in today.devices if self.of in (d.name, *today.member_names[d.name])]
        base = like[0].name if like else self.of
        like = like or [d for d in today.devices if d.kind == self.of]
        if like:
            return add_devices(case, like[0], self.count, _links_like(case, today, like[0]), base)
        if self.of not in cards:
            known = [*cards, *(d.name for d in today.devices)]
            raise InputError(
                f"must be a device of the fleet, or a kind that is in it or has a card ({', '.join(cards)}), "
                f"got {self.of!r}{did_you_mean(self.of, known) or '.'}"
            )
        card = cards[self.of]
        made = Device(name=self.of, kind=self.of, memory_budget=card.memory, storage_budget=card.storage)
        return add_devices(case, made, self.count, _slowest_link(today, self.of), base)


@dataclass(frozen=True)
class Insert:
    """Addition of devices and links with all their keys."""

    devices: tuple[Device, ...]
    links: tuple[Link, ...]

    def apply(self, case: Case) -> Case:
        """Return the case after the change."""
        devices, links = [*case.fleet.devices, *self.devices], [*case.fleet.links, *self.links]
        return _with_fleet(case, devices=devices, links=links)


@dataclass(frozen=True)
class SetKey:
    """New value for a key of a device, of its links, or of the default link; or another aggregator."""

    name: str
    key: str
    value: SettingChange

    def apply(self, case: Case) -> Case:
        """Return the case after the change."""
        if (self.name, self.key) == ("", AGGREGATOR):
            return _with_fleet(case, aggregator=self.value)
        if self.key in LINK_KEYS:
            return _with_links(case, self.name, lambda link: link.replace(**{self.key: self.value}))
        keys = LINK_KEYS if self.name == DEFAULT_LINK else (*DEVICE_KEYS, *LINK_KEYS)
        if self.name == DEFAULT_LINK or self.key not in keys:
            raise InputError(
                f"unknown key {self.key!r}{did_you_mean(self.key, keys) or '; known are ' + ', '.join(keys) + '.'}"
            )
        if self.key == "count":
            return self._with_count(case)
        return _with_devices(case, self.name, lambda d: {self.key: self.value})

    def _with_count(self, case: Case) -> Case:
        """Return the case with another count of an entry; the devices that stay keep their names."""
        members = case.members(self.name)
        entry = next((d for d in case.today.devices if d.name == self.name), None)
        if entry is None:
            raise InputError(f"count must be that of an entry of the file, {self.name!r} is one of several devices.")
        count = entry.replace(count=self.value).count
        if count > len(members):
            return Add(self.name, count - len(members)).apply(case)
        return remove_devices(case, members[count:]) if count < len(members) else case


@dataclass(frozen=True)
class Scale:
    """Factor on budgets or links: on all of them, or on those of one device (or of the default link)."""

    quantity: Quantity
    factor: float
    name: str | None = None

    def apply(self, case: Case) -> Case:
        """Return the case after the change."""
        if self.quantity in ("memory", "storage"):
            return self._with_budgets(case, f"{self.quantity}_budget")
        key = {"bandwidth": "bandwidth_mbps", "latency": "latency_ms"}[self.quantity]

        def scaled(link: LinkSpeed) -> LinkSpeed:
            return link.replace(**{key: float(rational(getattr(link, key)) * rational(self.factor))})

        return _with_links(case, self.name, scaled)

    def _with_budgets(self, case: Case, key: str) -> Case:
        """Return the case with scaled budgets of the devices that have one."""
        wanted = None if self.name is None else case.members(self.name)
        named = [member for member in case.fleet.members if wanted is None or member.name in wanted]
        if all(getattr(member, key) is None for member in named):
            raise InputError(f"{key} must be given to be scaled, {self.name or case.fleet.name!r} has none.")

        def scaled(device: Device) -> dict[str, Any]:
            budget: int | None = getattr(device, key)
            return {} if budget is None else {key: math.floor(budget * rational(self.factor))}

        return _with_devices(case, self.name, scaled)


@dataclass(frozen=True)
class SetGoal:
    """New values for keys of the goal."""

    keys: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, changes: GoalChanges) -> "SetGoal":
        """Return the change of the goal that a scenario file asks for."""
        return cls(tuple((key, getattr(changes, key)) for key in sorted(changes.model_fields_set)))

    @property
    def all_keys(self) -> dict[str, Any]:
        """New values of the keys that are set or follow: one kind of floor replaces the other."""
        keys = dict(self.keys)
        if keys.get("min_retention") is not None:
            return {"max_accuracy_drop": None} | keys
        if keys.get("max_accuracy_drop") is not None:
            return {"min_retention": None} | keys
        return keys

    def apply(self, case: Case) -> Case:
        """Return the case after the change."""
        keys = self.all_keys
        # A value that no goal may have is a mistake; values that do not go together make the scenario impossible.
        GoalChanges().replace(**keys)
        try:
            goal: Goal = case.goal.replace(**keys)
        except InputError as error:
            raise ImpossibleError(str(error).removeprefix("Goal: ")) from None
        return replace(case, goal=goal)


Change = Drop | Add | Insert | SetKey | Scale | SetGoal

APPLY_ORDER: dict[type[Change], int] = {Drop: 0, Add: 1, Insert: 2, SetKey: 3, Scale: 4, SetGoal: 5}


def apply_changes(case: Case, changes: Iterable[Change]) -> Case:
    """Return the case after these changes, applied in the order of `APPLY_ORDER`.

    Raises:
        InputError: If a change is a mistake: an unknown name or key, or a value that is not allowed.
        ImpossibleError: If a change is not possible for the fleet or the goal.
    """
    ordered = sorted(changes, key=lambda change: APPLY_ORDER[type(change)])
    goal = {key: value for change in ordered if isinstance(change, SetGoal) for key, value in change.all_keys.items()}
    # All at once, since a goal may be valid only with all of its changes.
    ordered = [change for change in ordered if not isinstance(change, SetGoal)] + [SetGoal(tuple(goal.items()))]
    for change in ordered:
        try:
            case = change.apply(case)
        except InputError as error:
            raise InputError(_without_class(error)) from None
    for device in case.fleet.devices:
        if device.kind not in (None, *case.kinds) and device not in case.today.devices:
            known = sorted(case.kinds)
            raise InputError(
                f"device {device.name!r}: kind must be one of {', '.join(known)}, got {device.kind!r}"
                f"{did_you_mean(device.kind or '', known) or '.'}"
            )
    return case


def _without_class(error: InputError) -> str:
    """Return the message of an error without the class of the object, as it would read for a file."""
    text = str(error)
    for name in ("Fleet", "Device", "Link", "LinkSpeed", "Goal", "GoalChanges"):
        text = text.removeprefix(f"{name}: ")
    return text


def _with_fleet(case: Case, **changes: Any) -> Case:
    return replace(case, fleet=case.fleet.replace(**changes))


def _links_like(case: Case, today: Fleet, like: Device) -> list[tuple[str, Link]]:
    """Return the links of a device of today, with their other ends, as far as these are still there."""
    members = today.member_names[like.name]
    if today.aggregator in members:
        return _slowest_link(today, like.name)
    end = like.name if any(like.name in link.between for link in today.links) else members[0]
    found = []
    for link in today.links:
        if end not in link.between:
            continue
        other = next(name for name in link.between if name != end)
        if other in case.fleet.member_names:
            found.append((other, link))
            continue
        with suppress(RemovedError):
            found += [(member, link) for member in case.members(other)]
    return found


def _slowest_link(today: Fleet, name: str) -> list[tuple[str, Link]]:
    """Return a copy of the slowest link of the aggregator; none if there is a default link."""
    if today.default_link is not None:
        return []
    links = [link for link in today.links if any(today.aggregator in today.member_names[end] for end in link.between)]
    if not links:
        raise InputError(f"{name!r} must be reached from {today.aggregator!r}, which has no link: give a default_link.")
    return [(today.aggregator, min(links, key=lambda link: (link.bandwidth_mbps, -link.latency_ms)))]


def _with_devices(case: Case, name: str | None, changes: Callable[[Device], dict[str, Any]]) -> Case:
    """Return the case with all devices changed, or those that a name stands for."""
    wanted = {d.name for d in case.fleet.devices}
    if name is not None:
        case, wanted = _entries_of(case, name)
    devices = [d.model_dump(mode="json") | (changes(d) if d.name in wanted else {}) for d in case.fleet.devices]
    return _with_fleet(case, devices=devices)


def _entries_of(case: Case, name: str) -> tuple[Case, set[str]]:
    """Return the entries that a name stands for, in a case where its entry is split if it is one of several devices."""
    case.members(name)
    case = split_entries(
        case, [d.name for d in case.fleet.devices if d.name != name and name in case.fleet.member_names[d.name]]
    )
    if name in {d.name for d in case.fleet.devices}:
        return case, {name}
    return case, set(case.members(name))


def _with_links(case: Case, name: str | None, change: Callable[[Any], LinkSpeed]) -> Case:
    """Return the case with all links changed, or those of a device; a change of a shared medium holds for all of it."""
    default = case.fleet.default_link
    if name == DEFAULT_LINK and default is None:
        raise InputError(f"{DEFAULT_LINK!r} must be in the fleet to be changed, got none.")
    if name in (None, DEFAULT_LINK) and default is not None:
        case = _with_fleet(case, default_link=change(default))
    if name == DEFAULT_LINK:
        return case
    if name is None:
        return _with_fleet(case, links=[change(link) for link in case.fleet.links])
    case, ends = _entries_of(case, name)
    # A link to a whole entry joins each of its devices.
    ends |= {member for end in ends for member in case.fleet.member_names[end]}
    joined = [bool(ends.intersection(link.between)) for link in case.fleet.links]
    if not any(joined):
        raise InputError(f"{name!r} has no link of its own, only the default link: set {DEFAULT_LINK!r} instead.")
    # All links of a medium have one bandwidth.
    media = {link.shared for link, joins in zip(case.fleet.links, joined, strict=True) if joins} - {True, False}
    links = [
        change(link) if joins or link.shared in media else link
        for link, joins in zip(case.fleet.links, joined, strict=True)
    ]
    return _with_fleet(case, links=links)
