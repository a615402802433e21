"""Why nothing fits, and the smallest change that would make it fit.

Memory is what makes a fleet impossible (and a latency limit, where there is one). The smallest
addition to one device's budget is itself a small planning problem: what that device lacks is
the cost, the other devices cost nothing within their budgets. It is solved by the same search.
"""

import dataclasses
import math
import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from planner.schema import Fleet, Goal, Profile
from planner.schema.fleet import LARGEST_BYTES
from planner.solver import exact, many, submodel
from planner.solver.exact import Knowledge, Latency
from planner.solver.instance import NEVER, Instance, Option, build
from planner.solver.submodel import Answer, LinearBound


def why_not(instance: Instance, seconds: float) -> str:
    """Say why the fleet cannot hold the model, and the smallest changes that work."""
    deadline = time.monotonic() + seconds
    reason = _reason(instance, time.monotonic() + seconds / 3)
    return f"No plan: {reason} {_advice(_changes(instance, deadline), deadline)}"


def too_slow(instance: Instance, bound_us: int, best_us: int | None, seconds: float) -> str:
    """Say that no plan is within the latency limit, and what is."""
    deadline = time.monotonic() + seconds
    limit_us = instance.goal.max_latency_us
    assert limit_us is not None
    changes = [] if best_us is None else [f"--max-latency-ms {best_us / 1000:.10g}"]
    changes += _larger_drop(instance, deadline, enough_us=limit_us)
    limit = f"{instance.goal.max_latency_ms:.10g} ms"
    return f"No plan within {limit}: no plan takes less than {bound_us / 1000:.3f} ms. {_advice(changes, deadline)}"


def _advice(changes: list[str], deadline: float) -> str:
    if not changes and time.monotonic() > deadline:
        return "No time was left to look for a change that works: raise --time-limit."
    if not changes:
        return "No smaller change than a different fleet was found."
    # Out of time, some devices or drops were not looked at: one of them may need less.
    claim = "Smallest change" if time.monotonic() <= deadline else "A change"
    return f"{claim} that works: {', or '.join(changes)}."


def _reason(instance: Instance, deadline: float) -> str:
    names, devices = instance.profile.classes, instance.fleet.members
    # For each class, the option that is nearest to holding it: (missing bytes, needed bytes, option).
    nearest = [(*min(_missing(instance, c, deadline)), c) for c in range(instance.num_classes)]
    missing, needed, o, c = max(nearest)
    if missing >= NEVER and time.monotonic() < deadline:
        return f"class {names[c]!r} does not reach its floor on any device, even if nothing is pruned."
    if 0 < missing < NEVER:
        name = instance.groups[instance.options[o].group][0]
        largest = max(devices, key=lambda device: device.memory_budget)
        if name == largest.name:
            return (
                f"class {names[c]!r} needs at least {mib(needed, up=True)} on any device; the largest budget is "
                f"{mib(largest.memory_budget)} ({largest.name})."
            )
        budget = mib(needed - missing)
        return (
            f"class {names[c]!r} fits on no device; the nearest is {name}, where it needs at least "
            f"{mib(needed, up=True)} and has {budget}."
        )
    if missing >= NEVER:
        return f"the {len(devices)} devices together cannot hold all {len(names)} classes."
    return (
        f"each class fits on some device, but the {len(devices)} devices together cannot hold all {len(names)} of them."
    )


def _missing(instance: Instance, c: int, deadline: float) -> Iterator[tuple[int, int, int]]:
    for o, option in enumerate(instance.options):
        kept = submodel.smallest(instance, option, (c,), deadline - time.monotonic()).kept
        if kept is not None:
            needed = instance.memory_bytes(option, kept)
            yield needed - option.device.memory_budget_bytes, needed, o
    yield NEVER, NEVER, 0


def _changes(instance: Instance, deadline: float) -> list[str]:
    additions = []
    if instance.num_classes <= exact.MOST_CLASSES:
        for names in instance.groups:
            left = deadline - time.monotonic()
            missing = smallest_addition(instance, names[0], left) if left > 0 else None
            if missing is not None:
                additions.append((missing, names[0]))
    changes = []
    if additions:
        missing, name = min(additions)
        changes.append(f"+{mib(missing, up=True)} on {name}")
    return changes + _larger_drop(instance, deadline)


def smallest_addition(instance: Instance, name: str, seconds: float) -> int | None:
    """Return the fewest bytes more on this one device that make the fleet feasible; None if not proven in time."""
    fleet = with_more_memory(instance.fleet, name, 2**40)
    # The fusion has a time, not a size: on an endlessly fast aggregator it does not count.
    roomy = dataclasses.replace(build(instance.profile, fleet, instance.goal), aggregator_rate=Fraction(10**30))
    budget = next(m.memory_budget for m in instance.fleet.members if m.name == name)
    knowledge = Knowledge(roomy, _Missing(roomy, name, budget))
    found = exact.search(knowledge, time.monotonic() + seconds, lambda best, bound: None)
    if found.placed is None:
        return None
    used = (p for p in found.placed if _is_on(roomy, p.option, name))
    missing = max((roomy.memory_bytes(p.option, p.kept) - budget for p in used), default=0)
    proven = found.bound_us is not None and missing + roomy.fusion_us(0) <= found.bound_us
    return missing if proven else None


def with_more_memory(fleet: Fleet, name: str, extra_bytes: int) -> Fleet:
    """Return the fleet, its devices named one by one, with one of them given more memory."""
    devices = [m.model_dump() for m in fleet.members]
    for device in devices:
        if device["name"] == name:
            device["memory_budget"] = min(LARGEST_BYTES, device["memory_budget"] + extra_bytes)
    links = [
        link.model_dump() | {"between": (a, b)}
        for link in fleet.links
        for a in fleet.member_names[link.between[0]]
        for b in fleet.member_names[link.between[1]]
        if a != b
    ]
    return Fleet.model_validate(fleet.model_dump() | {"devices": devices, "links": links})


class _Missing:
    """The cost of an impossible fleet: what one device lacks [bytes]; the others must do with what they have."""

    def __init__(self, instance: Instance, name: str, budget_bytes: int) -> None:
        self._instance, self._name, self._budget = instance, name, budget_bytes
        self._relaxations = [submodel.Relaxation(instance, option, of_memory=True) for option in instance.options]

    def bound(self, option: int, classes: tuple[int, ...]) -> LinearBound | None:
        """See `exact.Cost`."""
        bound = self._relaxations[option].bound(classes)
        if bound is None:
            return None
        at = self._instance.options[option]
        missing = [self._missing(option, _bytes_of(at, int(g))) for g in bound.by_count]
        return LinearBound(bound.binding, np.array(missing))

    def least(self, option: int, classes: tuple[int, ...], seconds: float) -> Answer:
        """See `exact.Cost`."""
        at = self._instance.options[option]
        answer = submodel.smallest(self._instance, at, classes, seconds)
        if answer.bound is None:
            return answer
        missing = self._missing(option, _bytes_of(at, answer.bound))
        if missing >= NEVER:
            return Answer(None, None)
        return Answer(
            missing, answer.kept if answer.kept is not None and self.of(option, answer.kept) < NEVER else None
        )

    def of(self, option: int, kept: tuple[int, ...]) -> int:
        """See `exact.Cost`."""
        return self._missing(option, self._instance.memory_bytes(self._instance.options[option], kept))

    def _missing(self, option: int, needed_bytes: int) -> int:
        at = self._instance.options[option]
        if _is_on(self._instance, at, self._name):
            return max(0, needed_bytes - self._budget)
        return 0 if needed_bytes <= at.device.memory_budget_bytes else NEVER


def _bytes_of(option: Option, grains: int) -> int:
    """Return the memory [bytes], rounded up, of a sub-model of so many grains beyond what is always there."""
    return option.device.memory_budget_bytes - (option.free_grains - grains) // option.grains_per_byte


def _is_on(instance: Instance, option: Option, name: str) -> bool:
    return name in instance.groups[option.group]


def _larger_drop(instance: Instance, deadline: float, enough_us: int = NEVER) -> list[str]:
    """Return the flag that lowers the floors just enough, if one does."""
    goal, profile = instance.goal, instance.profile
    for row in sorted(profile.recovery, key=lambda row: row.max_accuracy_drop):
        if goal.min_retention is not None or row.max_accuracy_drop <= (goal.max_accuracy_drop or 0):
            continue
        relaxed = goal.model_dump() | {"max_accuracy_drop": row.max_accuracy_drop}
        if _works(profile, instance.fleet, Goal.model_validate(relaxed), deadline, enough_us):
            return [f"--max-accuracy-drop {row.max_accuracy_drop:g}"]
    if goal.min_retention is None:
        return []
    low, high = 0, math.ceil(1000 * goal.min_retention)
    while high - low > 1:
        middle = (low + high) // 2
        relaxed = goal.model_dump() | {"min_retention": middle / 1000}
        works = _works(profile, instance.fleet, Goal.model_validate(relaxed), deadline, enough_us)
        low, high = (middle, high) if works else (low, middle)
    return [f"--min-retention {low / 1000:g}"] if low else []


def _works(profile: Profile, fleet: Fleet, goal: Goal, deadline: float, enough_us: int) -> bool:
    """Say whether some plan of this goal was found, within a latency."""
    instance = build(profile, fleet, goal)
    if instance.num_classes <= exact.MOST_CLASSES:
        knowledge = Knowledge(instance, Latency(instance))
        found = exact.search(knowledge, deadline, lambda best, bound: None, enough_us)
    else:
        found = many.search(instance, deadline, lambda best, bound: None)
    if found.placed is None:
        return False
    return instance.fleet_latency_us(found.placed) <= enough_us


def mib(num_bytes: int, up: bool = False) -> str:
    """Return a size for people, in KiB below a MiB; demand rounded up, supply down."""
    unit, factor = ("MiB", 2**20) if num_bytes >= 2**20 else ("KiB", 2**10)
    tenths = -(-num_bytes * 10 // factor) if up else num_bytes * 10 // factor
    return f"{tenths / 10:.1f}".removesuffix(".0") + f" {unit}"
