"""What can be changed about a fleet and its goal: each change is data, with a name, and applied by one function.

However a scenario's changes were given, they are made in the order of `RANKS`: devices leave, devices join, then
their numbers change, then the goal.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from planner.errors import InputError
from planner.library import load_kinds
from planner.rules.links import rational
from planner.schema import Device, Fleet, Goal, GoalChanges, Link, LinkSpeed, Quantity, SettingChange, nearest
from planner.whatif.case import Case, GoneError, ImpossibleError, apart, join, lose, with_media_named

# Of a device, and of the links that join it.
DEVICE_KEYS = tuple(key for key in Device.model_fields if key != "name")
LINK_KEYS = ("bandwidth_mbps", "latency_ms")
DEFAULT_LINK = "default_link"
AGGREGATOR = "aggregator"


@dataclass(frozen=True)
class Drop:
    """Devices are lost, and with them what is reached over them only."""

    names: tuple[str, ...]

    def apply(self, case: Case) -> Case:
        """Return the case after it."""
        return lose(case, self.names)


@dataclass(frozen=True)
class Add:
    """More devices of a kind, or like one of the fleet.

    They are like today's first device of that kind, links included. A new kind has its card's memory as budget, and
    the default link; where there is none, a link like the slowest of the aggregator's.
    """

    of: str
    count: int = 1

    def apply(self, case: Case) -> Case:
        """Return the case after it."""
        today, cards = with_media_named(case.today), load_kinds()
        case = replace(case, fleet=with_media_named(case.fleet))
        like = [d for d in today.devices if self.of in (d.name, *today.member_names[d.name])]
        base = like[0].name if like else self.of
        like = like or [d for d in today.devices if d.kind == self.of]
        if like:
            return join(case, like[0], self.count, _links_like(case, today, like[0]), base)
        if self.of not in cards:
            known = [*cards, *(d.name for d in today.devices)]
            raise InputError(
                f"must be a device of the fleet, or a kind that is in it or has a card ({', '.join(cards)}), "
                f"got {self.of!r}{nearest(self.of, known) or '.'}"
            )
        made = Device(name=self.of, kind=self.of, memory_budget=cards[self.of].memory)
        return join(case, made, self.count, _slowest_link(today, self.of), base)


@dataclass(frozen=True)
class Describe:
    """New devices and links, described in full."""

    devices: tuple[Device, ...]
    links: tuple[Link, ...]

    def apply(self, case: Case) -> Case:
        """Return the case after it."""
        devices, links = [*case.fleet.devices, *self.devices], [*case.fleet.links, *self.links]
        return _with_fleet(case, devices=devices, links=links)


@dataclass(frozen=True)
class Set:
    """One key of a device or of its links is another; or the default link's; or which device is the aggregator."""

    name: str
    key: str
    value: SettingChange

    def apply(self, case: Case) -> Case:
        """Return the case after it."""
        if (self.name, self.key) == ("", AGGREGATOR):
            return _with_fleet(case, aggregator=self.value)
        if self.key in LINK_KEYS:
            return _with_links(case, self.name, lambda link: link.replace(**{self.key: self.value}))
        keys = LINK_KEYS if self.name == DEFAULT_LINK else (*DEVICE_KEYS, *LINK_KEYS)
        if self.name == DEFAULT_LINK or self.key not in keys:
            raise InputError(
                f"unknown key {self.key!r}{nearest(self.key, keys) or '; known are ' + ', '.join(keys) + '.'}"
            )
        if self.key == "count":
            return self._counted(case)
        return _with_devices(case, self.name, lambda d: {self.key: self.value})

    def _counted(self, case: Case) -> Case:
        """Have as many devices of an entry; those that stay keep their names."""
        members = case.members(self.name)
        entry = next((d for d in case.today.devices if d.name == self.name), None)
        if entry is None:
            raise InputError(f"count must be that of an entry of the file, {self.name!r} is one of several devices.")
        count = entry.replace(count=self.value).count
        if count > len(members):
            return Add(self.name, count - len(members)).apply(case)
        return lose(case, members[count:]) if count < len(members) else case


@dataclass(frozen=True)
class Scale:
    """Memory budgets or links times a factor: all of them, or a device's only (or the default link's)."""

    quantity: Quantity
    factor: float
    name: str | None = None

    def apply(self, case: Case) -> Case:
        """Return the case after it."""
        factor = rational(self.factor)
        if self.quantity == "memory":
            return _with_devices(case, self.name, lambda d: {"memory_budget": math.floor(d.memory_budget * factor)})
        key = {"bandwidth": "bandwidth_mbps", "latency": "latency_ms"}[self.quantity]

        def scaled(link: LinkSpeed) -> LinkSpeed:
            return link.replace(**{key: float(rational(getattr(link, key)) * factor)})

        return _with_links(case, self.name, scaled)


@dataclass(frozen=True)
class Ask:
    """Keys of the goal are another."""

    keys: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, changes: GoalChanges) -> "Ask":
        """Return what a scenario's file changes about the goal."""
        return cls(tuple((key, getattr(changes, key)) for key in sorted(changes.model_fields_set)))

    @property
    def whole(self) -> dict[str, Any]:
        """The keys with what they imply: one kind of floor replaces the other."""
        keys = dict(self.keys)
        if keys.get("min_retention") is not None:
            return {"max_accuracy_drop": None} | keys
        if keys.get("max_accuracy_drop") is not None:
            return {"min_retention": None} | keys
        return keys

    def apply(self, case: Case) -> Case:
        """Return the case after it."""
        keys = self.whole
        # What is wrong with a value is a mistake; what is wrong with all of them together makes a scenario impossible.
        GoalChanges().replace(**keys)
        try:
            goal: Goal = case.goal.replace(**keys)
        except InputError as error:
            raise ImpossibleError(str(error).removeprefix("Goal: ")) from None
        return replace(case, goal=goal)


Change = Drop | Add | Describe | Set | Scale | Ask

RANKS: dict[type[Change], int] = {Drop: 0, Add: 1, Describe: 2, Set: 3, Scale: 4, Ask: 5}


def applied(case: Case, changes: Iterable[Change]) -> Case:
    """Return the case after these changes, in the order in which changes are made.

    Raises:
        InputError: If a change is a mistake: a name or key that is not there, a value that cannot be.
        ImpossibleError: If the fleet or the goal cannot have one of them.
    """
    made = sorted(changes, key=lambda change: RANKS[type(change)])
    asked = {key: value for change in made if isinstance(change, Ask) for key, value in change.whole.items()}
    # A goal may be whole only with all of them.
    made = [change for change in made if not isinstance(change, Ask)] + [Ask(tuple(asked.items()))]
    for change in made:
        try:
            case = change.apply(case)
        except InputError as error:
            raise InputError(_said(error)) from None
    for device in case.fleet.devices:
        if device.kind not in (None, *case.kinds) and device not in case.today.devices:
            known = sorted(case.kinds)
            raise InputError(
                f"device {device.name!r}: kind must be one of {', '.join(known)}, got {device.kind!r}"
                f"{nearest(device.kind or '', known) or '.'}"
            )
    return case


def _said(error: InputError) -> str:
    """Return what is wrong with a changed fleet as its file would be told."""
    text = str(error)
    for name in ("Fleet", "Device", "Link", "LinkSpeed", "Goal", "GoalChanges"):
        text = text.removeprefix(f"{name}: ")
    return text


def _with_fleet(case: Case, **changes: Any) -> Case:
    return replace(case, fleet=case.fleet.replace(**changes))


def _links_like(case: Case, today: Fleet, like: Device) -> list[tuple[str, Link]]:
    """Return the links that today's device has, with their other ends, as far as these are still there."""
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
        with suppress(GoneError):
            found += [(member, link) for member in case.members(other)]
    return found


def _slowest_link(today: Fleet, name: str) -> list[tuple[str, Link]]:
    """Return no link where there is a default link, else one like the slowest of the aggregator's."""
    if today.default_link is not None:
        return []
    links = [link for link in today.links if any(today.aggregator in today.member_names[end] for end in link.between)]
    if not links:
        raise InputError(f"{name!r} must be reached from {today.aggregator!r}, which has no link: give a default_link.")
    return [(today.aggregator, min(links, key=lambda link: (link.bandwidth_mbps, -link.latency_ms)))]


def _with_devices(case: Case, name: str | None, changes: Callable[[Device], dict[str, Any]]) -> Case:
    """Change all devices, or those that a name stands for."""
    wanted = {d.name for d in case.fleet.devices}
    if name is not None:
        case, wanted = _taken(case, name)
    devices = [d.model_dump(mode="json") | (changes(d) if d.name in wanted else {}) for d in case.fleet.devices]
    return _with_fleet(case, devices=devices)


def _taken(case: Case, name: str) -> tuple[Case, set[str]]:
    """Return the entries that a name stands for, taken apart where it is one device of several."""
    case.members(name)
    case = apart(
        case, [d.name for d in case.fleet.devices if d.name != name and name in case.fleet.member_names[d.name]]
    )
    if name in {d.name for d in case.fleet.devices}:
        return case, {name}
    return case, set(case.members(name))


def _with_links(case: Case, name: str | None, change: Callable[[Any], LinkSpeed]) -> Case:
    """Change all links, or those that join a device; the whole medium where they share one."""
    default = case.fleet.default_link
    if name == DEFAULT_LINK and default is None:
        raise InputError(f"{DEFAULT_LINK!r} must be in the fleet to be changed, got none.")
    if name in (None, DEFAULT_LINK) and default is not None:
        case = _with_fleet(case, default_link=change(default))
    if name == DEFAULT_LINK:
        return case
    if name is None:
        return _with_fleet(case, links=[change(link) for link in case.fleet.links])
    case, ends = _taken(case, name)
    # A link to a whole entry joins each of its devices.
    ends |= {member for end in ends for member in case.fleet.member_names[end]}
    joined = [bool(ends.intersection(link.between)) for link in case.fleet.links]
    if not any(joined):
        raise InputError(f"{name!r} has no link of its own, only the default link: set {DEFAULT_LINK!r} instead.")
    # Who changes the bandwidth of a medium changes it for all.
    media = {link.shared for link, joins in zip(case.fleet.links, joined, strict=True) if joins} - {True, False}
    links = [
        change(link) if joins or link.shared in media else link
        for link, joins in zip(case.fleet.links, joined, strict=True)
    ]
    return _with_fleet(case, links=links)
