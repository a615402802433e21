"""The smallest changes of each kind that make a plan possible.

Every change is verified: with it, a plan was found; with a little less, it was proven that none
exists (or, where that could not be known in time, it is not called the smallest).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from planner.errors import InputError
from planner.schema import Fleet, Goal
from planner.schema.fleet import LARGEST_BYTES
from planner.solver.exact.master import ObjectiveFunction
from planner.solver.exact.warm_start import WarmStart
from planner.solver.optimise import InstanceSearch, no_progress
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance

# Halving stops when a change is known to this share of itself.
_FINE = 0.005


class FeasibilityOracle:
    """Whether there are plans, asked again and again; `sure` until an answer could not be had.

    What one answer taught serves the next.
    """

    def __init__(self, clock: Clock, experience: WarmStart) -> None:
        self.clock, self.experience, self.sure = clock, experience, True

    def has_plan(self, instance: Instance) -> bool | None:
        """Say whether there is any plan; None if time ran out before that was known."""
        search = InstanceSearch(instance, self.clock, self.experience)
        found = search.run(ObjectiveFunction(instance, "devices"), no_progress, enough=NEVER - 1)
        self.experience = search.experience
        if found.placed is not None:
            return True
        if found.bound is None:
            return False
        self.sure = False
        return None


def with_goal_changes(instance: Instance, **changes: Any) -> Instance:
    goal = Goal.model_validate(instance.goal.model_dump() | {"objective": "latency"} | changes)
    return build_instance(instance.profile, instance.fleet, goal)


def droppable_demands(goal: Goal) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each demand in the user's words, and the change to the goal that drops it; the floors last, as ""."""
    for key in ("pin", "forbid"):
        placements: dict[str, tuple[str, ...]] = getattr(goal, key)
        for name, devices in placements.items():
            for device in devices:
                rest = {**placements, name: tuple(d for d in devices if d != device)}
                yield f"--{key} {name}={device}", {key: {k: v for k, v in rest.items() if v}}
    for key in ("together", "apart"):
        groups: tuple[tuple[str, ...], ...] = getattr(goal, key)
        for group in groups:
            yield f"--{key} {','.join(group)}", {key: tuple(g for g in groups if g != group)}
    for device in goal.leave_out:
        yield f"--leave-out {device}", {"leave_out": tuple(d for d in goal.leave_out if d != device)}
    if goal.survive:
        yield f"--survive {goal.survive}", {"survive": 0}
    if goal.max_latency_ms is not None:
        yield f"--max-latency-ms {goal.max_latency_ms:.10g}", {"max_latency_ms": None}
    if goal.max_energy_mj is not None:
        yield f"--max-energy-mj {goal.max_energy_mj:.10g}", {"max_energy_mj": None}
    yield "", {"min_retention": 0.0, "max_accuracy_drop": None}


def smallest_repairs(instance: Instance, asked: FeasibilityOracle) -> Iterator[str]:
    """Yield every kind of single change that makes a plan possible, each the smallest of its kind."""
    goal = instance.goal
    for change in (_more_memory, _larger_drop, _one_device_more, _fewer_survivors, _later, _more_energy):
        text = None if asked.clock.expired() else change(instance, asked)
        if text is not None:
            yield text
    for name, changes in droppable_demands(goal):
        dropped = name.startswith(("--pin", "--forbid", "--together", "--apart", "--leave-out"))
        if dropped and not asked.clock.expired() and asked.has_plan(with_goal_changes(instance, **changes)):
            yield f"no {name}"


def _least(works: Callable[[int], bool | None], most: int, fine: float = _FINE) -> int | None:
    """Return the least number up to `most` that works, to a share of itself; None if `most` does not work."""
    if not works(most):
        return None
    low, high = 0, most
    while high - low > max(1, fine * high):
        # A wide range is halved on its logarithm: an answer may be a KiB or a GiB.
        middle = (low + high) // 2 if high < 4 * max(low, 64) else math.isqrt(max(low, 64) * high)
        low, high = (low, middle) if works(middle) else (middle, high)
    return high


def _more_memory(instance: Instance, asked: FeasibilityOracle) -> str | None:
    most = 2**40
    least, on = None, ""
    for group in instance.groups:
        name = group.names[0]

        def works(extra: int, name: str = name) -> bool | None:
            roomier = with_more_memory(instance.fleet, name, extra)
            return asked.has_plan(build_instance(instance.profile, roomier, _one_by_one_too(instance)))

        # Another device is better only if it needs less.
        found = _least(works, most if least is None else least - 1)
        if asked.clock.expired():
            return None
        if found is not None:
            least, on = found, name
    return None if least is None else f"+{mib(least, up=True)} on {on}"


def _larger_drop(instance: Instance, asked: FeasibilityOracle) -> str | None:
    goal = instance.goal
    if goal.min_retention is not None:
        ppm = math.ceil(10**6 * goal.min_retention)

        def works(less: int) -> bool | None:
            return asked.has_plan(with_goal_changes(instance, min_retention=(ppm - less) / 10**6))

        less = _least(works, ppm)
        return None if less is None or less >= ppm else f"--min-retention {(ppm - less) / 10**6:g}"
    drops = sorted(row.max_accuracy_drop for row in instance.profile.recovery)
    for drop in (drop for drop in drops if drop > (goal.max_accuracy_drop or 0)):
        if asked.has_plan(with_goal_changes(instance, max_accuracy_drop=drop)):
            return f"--max-accuracy-drop {drop:g}"
    return None


def _one_device_more(instance: Instance, asked: FeasibilityOracle) -> str | None:
    kinds: dict[str, str] = {}
    for member in sorted(instance.fleet.members, key=lambda m: m.memory_budget):
        label = member.kind or member.name
        if label in kinds:
            continue
        kinds[label] = member.name
        try:
            more = build_instance(
                instance.profile, with_one_more(instance.fleet, member.name), _one_by_one_too(instance)
            )
        except InputError:
            # Nothing links the aggregator to its twin, for one.
            continue
        if asked.has_plan(more):
            like = f"like {member.name!r}"
            return f"one device more {like}" + (f" ({member.kind})" if member.kind else "")
    return None


def _fewer_survivors(instance: Instance, asked: FeasibilityOracle) -> str | None:
    for k in range(instance.goal.survive - 1, -1, -1):
        if asked.has_plan(with_goal_changes(instance, survive=k)):
            return f"--survive {k}"
    return None


def _later(instance: Instance, asked: FeasibilityOracle) -> str | None:
    if instance.goal.max_latency_ms is None:
        return None
    free = with_goal_changes(instance, max_latency_ms=None)
    found = InstanceSearch(free, asked.clock, asked.experience).run(ObjectiveFunction(free), no_progress)
    return None if found.placed is None else f"--max-latency-ms {free.fleet_latency_us(found.placed) / 1000:.10g}"


def _more_energy(instance: Instance, asked: FeasibilityOracle) -> str | None:
    if instance.goal.max_energy_mj is None:
        return None
    # A limit beyond any plan's: with no limit at all, energies would not be looked at.
    free = with_goal_changes(instance, max_energy_mj=1e12)
    found = InstanceSearch(free, asked.clock, asked.experience).run(ObjectiveFunction(free, "energy"), no_progress)
    if found.placed is None:
        return None
    return f"--max-energy-mj {math.ceil(free.energy(found.placed) / free.energy_scale) / 1000:.10g}"


def with_more_memory(fleet: Fleet, name: str, extra_bytes: int) -> Fleet:
    """Return the fleet, its devices named one by one, with one of them given more memory."""
    devices = [m.model_dump() for m in fleet.members]
    for device in devices:
        if device["name"] == name:
            device["memory_budget"] = min(LARGEST_BYTES, device["memory_budget"] + extra_bytes)
    return _one_by_one(fleet, devices, {})


def with_one_more(fleet: Fleet, name: str) -> Fleet:
    """Return the fleet, its devices named one by one, with a twin of one of them that has the same links."""
    devices = [m.model_dump() for m in fleet.members]
    known = {device["name"] for device in devices}
    twin = next(f"{name}+{i}" for i in range(1, len(known) + 2) if f"{name}+{i}" not in known)
    devices += [device | {"name": twin} for device in devices if device["name"] == name]
    return _one_by_one(fleet, devices, {name: twin})


def _one_by_one_too(instance: Instance) -> Goal:
    """Return the goal for a fleet whose devices are named one by one."""
    goal, singles = instance.goal, instance.fleet.member_names

    def each(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(single for name in names for single in singles[name])

    changes: dict[str, Any] = {"objective": "latency", "leave_out": each(goal.leave_out)}
    for key in ("pin", "forbid"):
        changes[key] = {c: each(names) for c, names in getattr(goal, key).items()}
    return Goal.model_validate(goal.model_dump() | changes)


def _one_by_one(fleet: Fleet, devices: list[dict[str, Any]], twins: dict[str, str]) -> Fleet:
    """Return the fleet with these devices; a shared link goes on being one medium for all that it leads to."""
    links = []
    for i, link in enumerate(fleet.links):
        shared = f"the medium of links[{i}]" if link.shared is True else link.shared
        ends = [(a, b) for a in fleet.member_names[link.between[0]] for b in fleet.member_names[link.between[1]]]
        ends += [(twins.get(a, a), twins.get(b, b)) for a, b in ends if a in twins or b in twins]
        links += [link.model_dump() | {"between": pair, "shared": shared} for pair in ends if pair[0] != pair[1]]
    return Fleet.model_validate(fleet.model_dump() | {"devices": devices, "links": links})


def mib(num_bytes: int, up: bool = False) -> str:
    """Return a size for people, in KiB below a MiB; demand rounded up, supply down."""
    unit, factor = ("MiB", 2**20) if num_bytes >= 2**20 else ("KiB", 2**10)
    tenths = -(-num_bytes * 10 // factor) if up else num_bytes * 10 // factor
    return f"{tenths / 10:.1f}".removesuffix(".0") + f" {unit}"
