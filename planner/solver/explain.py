"""Why nothing fits: which demands cannot be met together, and the smallest changes that would do.

What contradicts is found by leaving demands out, one after the other: what can be left out while
there is still no plan has nothing to do with it; what remains is to blame together. Every
change is verified: with it, a plan was found; with a little less, it was proven that none exists.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from planner.errors import InputError
from planner.schema import Fleet, Goal
from planner.schema.fleet import LARGEST_BYTES
from planner.solver import submodel
from planner.solver.build import build
from planner.solver.clock import Clock
from planner.solver.instance import NEVER, Instance, Placed
from planner.solver.objectives import Search, quietly
from planner.solver.promise import Judge

# Halving stops when a change is known to this share of itself.
_FINE = 0.005


def why_not(instance: Instance, clock: Clock) -> str:
    """Say why there is no plan, and the smallest changes that work."""
    reason = _reason(instance, clock.part(clock.left() / 2))
    return f"No plan: {reason} {_advice(list(_changes(instance, clock)), clock)}"


def too_slow(instance: Instance, bound_us: int, best: tuple[Placed, ...] | None, clock: Clock) -> str:
    """Say that no plan is within the latency limit, and what is."""
    changes = [] if best is None else [f"--max-latency-ms {instance.fleet_latency_us(best) / 1000:.10g}"]
    others = _changes(instance, clock)
    changes += [change for change in others if best is None or not change.startswith("--max-latency-ms")]
    limit = f"{instance.goal.max_latency_ms:.10g} ms"
    return f"No plan within {limit}: no plan takes less than {bound_us / 1000:.3f} ms. {_advice(changes, clock)}"


def _advice(changes: list[str], clock: Clock) -> str:
    if not changes and clock.expired():
        return "No time was left to look for a change that works: raise --time-limit."
    if not changes:
        return "No smaller change than a different fleet was found."
    # Out of time, some devices or drops were not looked at: one of them may need less.
    claim = "Smallest change" if not clock.expired() else "A change"
    return f"{claim} that works: {', or '.join(changes)}."


def has_plan(instance: Instance, clock: Clock) -> bool | None:
    """Say whether there is any plan; None if time ran out before that was known."""
    search = Search(instance, clock)
    found = search.run(Judge(instance, "devices"), quietly, enough=NEVER - 1)
    if found.placed is not None:
        return True
    return False if found.bound is None else None


def _changed(instance: Instance, **changes: Any) -> Instance:
    goal = Goal.model_validate(instance.goal.model_dump() | {"objective": "latency"} | changes)
    return build(instance.profile, instance.fleet, goal)


# --- the reason ---


def _reason(instance: Instance, clock: Clock) -> str:
    demands = dict(_demands(instance.goal))
    guilty = dict(demands.items())
    left_out: dict[str, Any] = {}
    for name, changes in demands.items():
        if has_plan(_changed(instance, **_together(instance.goal, [*left_out.values(), changes])), clock) is False:
            left_out[name] = changes
            del guilty[name]
    if clock.expired():
        return "the demands cannot all be met."
    names = [name for name in guilty if name]
    floors = "" in guilty
    if not names:
        return _memory(instance, clock)
    if floors:
        names.append("the retention floors")
    if len(names) == 1:
        return f"{names[0]} cannot be met by this fleet."
    return f"{', '.join(names[:-1])} and {names[-1]} contradict each other on this fleet."


def _demands(goal: Goal) -> Iterator[tuple[str, dict[str, Any]]]:
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


def _together(goal: Goal, dropped: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the changes to a goal that drop several demands at once."""
    changes: dict[str, Any] = {}
    for one in dropped:
        for key, value in one.items():
            before = changes.get(key, getattr(goal, key))
            if isinstance(before, dict):
                changes[key] = {
                    k: kept for k, v in before.items() if (kept := tuple(d for d in v if d in value.get(k, ())))
                }
            elif isinstance(before, tuple):
                changes[key] = tuple(item for item in before if item in value)
            else:
                changes[key] = value
    return changes


def _memory(instance: Instance, clock: Clock) -> str:
    names, devices = instance.profile.classes, instance.fleet.members
    if not instance.options:
        return "every device is left out."
    # For each class, the option that is nearest to holding it: (missing bytes, needed bytes, option).
    nearest = [(*min(_missing(instance, c, clock)), c) for c in range(instance.num_classes)]
    missing, needed, o, c = max(nearest)
    if missing >= NEVER and not clock.expired():
        return f"class {names[c]!r} does not reach its floor on any device, even if nothing is pruned."
    if 0 < missing < NEVER:
        name = instance.groups[instance.options[o].group].names[0]
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


def _missing(instance: Instance, c: int, clock: Clock) -> Iterator[tuple[int, int, int]]:
    for o, option in enumerate(instance.options):
        kept = submodel.smallest(instance, option, (c,), clock).kept
        if kept is not None:
            needed = instance.memory_bytes(option, kept)
            yield needed - option.device.memory_budget_bytes, needed, o
    yield NEVER, NEVER, 0


# --- the changes ---


def _changes(instance: Instance, clock: Clock) -> Iterator[str]:
    """Yield every kind of single change that makes a plan possible, each the smallest of its kind."""
    goal = instance.goal
    for change in (_more_memory, _larger_drop, _one_device_more, _fewer_survivors, _later, _more_energy):
        text = None if clock.expired() else change(instance, clock)
        if text is not None:
            yield text
    for name, changes in _demands(goal):
        dropped = name.startswith(("--pin", "--forbid", "--together", "--apart", "--leave-out"))
        if dropped and not clock.expired() and has_plan(_changed(instance, **changes), clock):
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


def _more_memory(instance: Instance, clock: Clock) -> str | None:
    most = 2**40
    least, on = None, ""
    for group in instance.groups:
        name = group.names[0]

        def works(extra: int, name: str = name) -> bool | None:
            roomier = with_more_memory(instance.fleet, name, extra)
            return has_plan(build(instance.profile, roomier, _one_by_one_too(instance)), clock)

        # Another device is better only if it needs less.
        found = _least(works, most if least is None else least - 1)
        if clock.expired():
            return None
        if found is not None:
            least, on = found, name
    return None if least is None else f"+{mib(least, up=True)} on {on}"


def _larger_drop(instance: Instance, clock: Clock) -> str | None:
    goal = instance.goal
    if goal.min_retention is not None:
        ppm = math.ceil(10**6 * goal.min_retention)

        def works(less: int) -> bool | None:
            return has_plan(_changed(instance, min_retention=(ppm - less) / 10**6), clock)

        less = _least(works, ppm)
        return None if less is None or less >= ppm else f"--min-retention {(ppm - less) / 10**6:g}"
    drops = sorted(row.max_accuracy_drop for row in instance.profile.recovery)
    for drop in (drop for drop in drops if drop > (goal.max_accuracy_drop or 0)):
        if has_plan(_changed(instance, max_accuracy_drop=drop), clock):
            return f"--max-accuracy-drop {drop:g}"
    return None


def _one_device_more(instance: Instance, clock: Clock) -> str | None:
    kinds: dict[str, str] = {}
    for member in sorted(instance.fleet.members, key=lambda m: m.memory_budget):
        label = member.kind or member.name
        if label in kinds:
            continue
        kinds[label] = member.name
        try:
            more = build(instance.profile, with_one_more(instance.fleet, member.name), _one_by_one_too(instance))
        except InputError:
            # Nothing links the aggregator to its twin, for one.
            continue
        if has_plan(more, clock):
            like = f"like {member.name!r}"
            return f"one device more {like}" + (f" ({member.kind})" if member.kind else "")
    return None


def _fewer_survivors(instance: Instance, clock: Clock) -> str | None:
    for k in range(instance.goal.survive - 1, -1, -1):
        if has_plan(_changed(instance, survive=k), clock):
            return f"--survive {k}"
    return None


def _later(instance: Instance, clock: Clock) -> str | None:
    if instance.goal.max_latency_ms is None:
        return None
    free = _changed(instance, max_latency_ms=None)
    found = Search(free, clock).run(Judge(free), quietly)
    return None if found.placed is None else f"--max-latency-ms {free.fleet_latency_us(found.placed) / 1000:.10g}"


def _more_energy(instance: Instance, clock: Clock) -> str | None:
    if instance.goal.max_energy_mj is None:
        return None
    # A limit beyond any plan's: with no limit at all, energies would not be looked at.
    free = _changed(instance, max_energy_mj=1e12)
    found = Search(free, clock).run(Judge(free, "energy"), quietly)
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
