"""What a goal demands of who serves what: pins, classes together or apart, devices left out, survivors.

Survival: when any k devices but the aggregator's fusion are lost, every class is still served.
A lost device takes those with it that are reached over it (its dependants). So for every set R
of at most k relays, each class needs k + 1 - |R| devices that do not depend on R; with R empty,
it is k + 1 devices. (The devices' budgets hold as before: what is left runs what it ran.)
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from planner.errors import InputError
from planner.schema import Fleet, Goal, Profile, nearest


@dataclass(frozen=True)
class Demands:
    """A goal's demands, by the names of single devices and of classes."""

    pinned: Mapping[str, frozenset[str]]  # device -> classes it must serve
    forbidden: Mapping[str, frozenset[str]]  # device -> classes it must not serve
    together: tuple[frozenset[str], ...]
    apart: tuple[frozenset[str], ...]
    left_out: frozenset[str]
    survive: int

    def broken_by(self, served: Mapping[str, Iterable[str]], relays: Mapping[str, frozenset[str]]) -> Iterator[str]:
        """Yield every demand that is not met, in words.

        Args:
            served: The classes that each used device serves.
            relays: For each device, those that it is reached over.
        """
        classes = {device: frozenset(names) for device, names in served.items()}
        for device in sorted(self.left_out & classes.keys()):
            yield f"device {device!r} must be left out, but it serves {len(classes[device])} classes"
        for device, pinned in self.pinned.items():
            for name in sorted(pinned - classes.get(device, frozenset())):
                yield f"class {name!r} must be served by {device!r}, but it is not"
        for device, names in classes.items():
            for name in sorted(names & self.forbidden.get(device, frozenset())):
                yield f"class {name!r} must not be served by {device!r}, but it is"
            for group in self.together:
                if names & group and not group <= names:
                    yield f"{device}: must serve all of {sorted(group)} or none, got {sorted(names & group)}"
            for group in self.apart:
                if len(names & group) > 1:
                    yield f"{device}: must serve at most one of {sorted(group)}, got {sorted(names & group)}"
        yield from self._lost(classes, relays)

    def _lost(self, classes: Mapping[str, frozenset[str]], relays: Mapping[str, frozenset[str]]) -> Iterator[str]:
        if not self.survive:
            return
        for lost in relay_sets(relays, self.survive):
            least = self.survive + 1 - len(lost)
            left = [device for device in classes if not dependent(device, relays, lost)]
            for name in sorted({name for names in classes.values() for name in names}):
                have = sum(name in classes[device] for device in left)
                if have < least:
                    without = f" when {', '.join(lost)} is lost" if lost else ""
                    yield f"class {name!r} must be on {least} devices{without} to survive, got {have}"


def relay_sets(relays: Mapping[str, frozenset[str]], survive: int) -> Iterator[tuple[str, ...]]:
    """Yield every set of at most this many relays, the empty one first."""
    known = sorted(frozenset().union(*relays.values()))
    for size in range(survive + 1):
        yield from combinations(known, size)


def dependent(device: str, relays: Mapping[str, frozenset[str]], lost: Iterable[str]) -> bool:
    """Say whether a device is lost with these."""
    return any(name == device or name in relays[device] for name in lost)


def demands_of(profile: Profile, fleet: Fleet, goal: Goal) -> Demands:
    """Return what a goal demands, its names resolved.

    Raises:
        InputError: If a class or a device is not known.
    """
    members = fleet.member_names

    def devices(names: Iterable[str], key: str) -> Iterator[str]:
        for name in names:
            if name not in members:
                raise InputError(f"{key}: {name!r} is not a device of the fleet{nearest(name, members) or '.'}")
            yield from members[name]

    def known(names: Iterable[str], key: str) -> frozenset[str]:
        for name in names:
            if name not in profile.classes:
                raise InputError(
                    f"{key}: {name!r} is not a class of the profile{nearest(name, profile.classes) or '.'}"
                )
        return frozenset(names)

    def by_device(placements: Mapping[str, tuple[str, ...]], key: str) -> dict[str, frozenset[str]]:
        known(placements, key)
        found: dict[str, set[str]] = {}
        for name, names in placements.items():
            for device in devices(names, key):
                found.setdefault(device, set()).add(name)
        return {device: frozenset(classes) for device, classes in found.items()}

    return Demands(
        pinned=by_device(goal.pin, "pin"),
        forbidden=by_device(goal.forbid, "forbid"),
        together=_joined([known(names, "together") for names in goal.together]),
        apart=tuple(known(names, "apart") for names in goal.apart),
        left_out=frozenset(devices(goal.leave_out, "leave_out")),
        survive=goal.survive,
    )


def _joined(groups: Iterable[frozenset[str]]) -> tuple[frozenset[str], ...]:
    """Merge groups that share a class: what goes with both goes with all."""
    merged: list[frozenset[str]] = []
    for group in groups:
        overlapping = [other for other in merged if other & group]
        merged = [other for other in merged if not other & group]
        merged.append(group.union(*overlapping))
    return tuple(merged)
