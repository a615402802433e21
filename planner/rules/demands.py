"""Demands of a goal on who serves what: pins, classes together or apart, devices left out, survival.

This module says what each demand means; `Demands.violations` is the check of a whole plan. The solver builds its
constraints from the same `Demands`.

Survival: if any k devices are lost, apart from the aggregator's fusion, every class is still served. Devices that are
reached over a lost one (its dependants) are lost with it. So for every set R of at most k relays, each class needs
k + 1 - |R| devices that do not depend on R; with R empty, it needs k + 1 devices. (Budgets hold as before, since each
remaining device runs its old sub-model.)
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from planner.errors import InputError
from planner.schema import Fleet, Goal, Profile, did_you_mean


@dataclass(frozen=True)
class Demands:
    """Demands of a goal, by the names of single devices and of classes."""

    pinned: Mapping[str, frozenset[str]]  # device -> classes it must serve
    forbidden: Mapping[str, frozenset[str]]  # device -> classes it must not serve
    together: tuple[frozenset[str], ...]  # a device serves all classes of a set or none
    apart: tuple[frozenset[str], ...]  # a device serves at most one class of a set
    left_out: frozenset[str]
    survive: int

    def violations(self, served: Mapping[str, Iterable[str]], relays: Mapping[str, frozenset[str]]) -> Iterator[str]:
        """Yield a sentence for every demand that is not met.

        Args:
            served: Classes that each used device serves.
            relays: Devices that each device is reached over.
        """
        subsets = {device: frozenset(names) for device, names in served.items()}
        for device in sorted(self.left_out & subsets.keys()):
            yield f"device {device!r} must be left out, but it serves {len(subsets[device])} classes"
        for device, pinned in self.pinned.items():
            for name in sorted(pinned - subsets.get(device, frozenset())):
                yield f"class {name!r} must be served by {device!r}, but it is not"
        for device, subset in subsets.items():
            yield from self._device_violations(device, subset)
        yield from self._survival_violations(subsets, relays)

    def _device_violations(self, device: str, subset: frozenset[str]) -> Iterator[str]:
        """Yield a sentence for every demand that the class subset of a device breaks by itself."""
        for name in sorted(subset & self.forbidden.get(device, frozenset())):
            yield f"class {name!r} must not be served by {device!r}, but it is"
        for joined in self.together:
            if subset & joined and not joined <= subset:
                yield f"{device}: must serve all of {sorted(joined)} or none, got {sorted(subset & joined)}"
        for separated in self.apart:
            if len(subset & separated) > 1:
                yield f"{device}: must serve at most one of {sorted(separated)}, got {sorted(subset & separated)}"

    def _survival_violations(
        self, subsets: Mapping[str, frozenset[str]], relays: Mapping[str, frozenset[str]]
    ) -> Iterator[str]:
        """Yield a sentence for every class that is on too few devices to survive the loss of a set of relays."""
        if not self.survive:
            return
        for lost in relay_sets(relays, self.survive):
            min_devices = self.survive + 1 - len(lost)
            left = [device for device in subsets if not is_dependent(device, relays, lost)]
            for name in sorted(frozenset().union(*subsets.values())):
                num_devices = sum(name in subsets[device] for device in left)
                if num_devices < min_devices:
                    without = f" when {', '.join(lost)} is lost" if lost else ""
                    yield f"class {name!r} must be on {min_devices} devices{without} to survive, got {num_devices}"


def relay_sets(relays: Mapping[str, frozenset[str]], survive: int) -> Iterator[tuple[str, ...]]:
    """Yield every set of at most `survive` relays, the empty one first."""
    known = sorted(frozenset().union(*relays.values()))
    for size in range(survive + 1):
        yield from combinations(known, size)


def is_dependent(device: str, relays: Mapping[str, frozenset[str]], lost: Iterable[str]) -> bool:
    """Return whether a device is lost with these relays."""
    return any(name == device or name in relays[device] for name in lost)


def demands_of(profile: Profile, fleet: Fleet, goal: Goal) -> Demands:
    """Return the demands of a goal, with its names resolved to single devices.

    Raises:
        InputError: If a class or a device is not known.
    """
    members = fleet.member_names

    def devices(names: Iterable[str], key: str) -> Iterator[str]:
        for name in names:
            if name not in members:
                raise InputError(
                    f"{name!r} is not a device of the fleet{did_you_mean(name, members) or '.'}", field=key
                )
            yield from members[name]

    def known(names: Iterable[str], key: str) -> frozenset[str]:
        for name in names:
            if name not in profile.classes:
                raise InputError(
                    f"{name!r} is not a class of the profile{did_you_mean(name, profile.classes) or '.'}", field=key
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
        together=_merged([known(names, "together") for names in goal.together]),
        apart=tuple(known(names, "apart") for names in goal.apart),
        left_out=frozenset(devices(goal.leave_out, "leave_out")),
        survive=goal.survive,
    )


def _merged(sets: Iterable[frozenset[str]]) -> tuple[frozenset[str], ...]:
    """Merge sets that share a class: a device that serves one of them serves both."""
    merged: list[frozenset[str]] = []
    for classes in sets:
        overlapping = [other for other in merged if other & classes]
        merged = [other for other in merged if not other & classes]
        merged.append(classes.union(*overlapping))
    return tuple(merged)
