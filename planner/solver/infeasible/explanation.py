"""Why nothing fits: which demands cannot be met together, and the smallest changes that would do.

What contradicts is found by leaving demands out, one after the other: what can be left out while
there is still no plan has nothing to do with it; what remains is to blame together. The changes
are those of `changes`.
"""

from collections.abc import Iterator
from typing import Any

from planner.schema import Goal, Precision
from planner.solver.exact.warm_start import WarmStart
from planner.solver.infeasible.repair import (
    FeasibilityOracle,
    droppable_demands,
    mib,
    smallest_repairs,
    with_goal_changes,
)
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance, PlacedSubModel
from planner.solver.submodels import knapsack

# The smallest sub-model for one class, by class, embed dim and precision.
SmallestSubModels = dict[tuple[int, int, Precision], tuple[int, ...] | None]


def explain_infeasible(instance: Instance, clock: Clock, experience: WarmStart, advice: bool = True) -> str:
    """Say why there is no plan, and, as advice, the smallest changes that work."""
    first = FeasibilityOracle(clock.part(clock.left() / 2), experience)
    reason = _reason(instance, first)
    if not advice:
        return f"No plan: {reason}"
    asked = FeasibilityOracle(clock, first.experience)
    return f"No plan: {reason} {_advice(list(smallest_repairs(instance, asked)), asked)}"


def explain_too_slow(
    instance: Instance,
    bound_us: int,
    best: tuple[PlacedSubModel, ...] | None,
    clock: Clock,
    experience: WarmStart,
    advice: bool = True,
) -> str:
    """Say that no plan is within the latency limit, and, as advice, what is."""
    limit = f"{instance.goal.max_latency_ms:.10g} ms"
    reason = f"No plan within {limit}: no plan takes less than {bound_us / 1000:.3f} ms."
    if not advice:
        return reason
    changes = [] if best is None else [f"--max-latency-ms {instance.fleet_latency_us(best) / 1000:.10g}"]
    asked = FeasibilityOracle(clock, experience)
    others = smallest_repairs(instance, asked)
    changes += [change for change in others if best is None or not change.startswith("--max-latency-ms")]
    return f"{reason} {_advice(changes, asked)}"


def _advice(changes: list[str], asked: FeasibilityOracle) -> str:
    if not changes and asked.clock.expired():
        return "No time was left to look for a change that works: raise --time-limit."
    if not changes:
        return "No smaller change than a different fleet was found."
    # Where not all answers could be had, a smaller change may work too.
    claim = "Smallest change" if asked.sure and not asked.clock.expired() else "A change"
    return f"{claim} that works: {', or '.join(changes)}."


def _reason(instance: Instance, asked: FeasibilityOracle) -> str:
    demands = dict(droppable_demands(instance.goal))
    guilty = dict(demands)
    left_out: list[dict[str, Any]] = []
    for name, changes in demands.items():
        if asked.has_plan(with_goal_changes(instance, **_together(instance.goal, [*left_out, changes]))) is False:
            left_out.append(changes)
            del guilty[name]
    if asked.clock.expired():
        return "the demands cannot all be met."
    names = [name for name in guilty if name]
    if not names:
        return _memory(instance, asked.clock)
    if "" in guilty:
        names.append("the retention floors")
    if len(names) == 1:
        return f"{names[0]} cannot be met by this fleet."
    # Without an answer for each, one of them may be innocent.
    verdict = "contradict each other on this fleet" if asked.sure else "cannot all be met by this fleet"
    return f"{', '.join(names[:-1])} and {names[-1]} {verdict}."


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
    built: SmallestSubModels = {}
    nearest = [(*min(_missing(instance, c, built, clock)), c) for c in range(instance.num_classes)]
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


def _missing(instance: Instance, c: int, built: SmallestSubModels, clock: Clock) -> Iterator[tuple[int, int, int]]:
    for o, option in enumerate(instance.options):
        # What is smallest is the same on all devices.
        key = (c, option.embed_dim, option.at.precision)
        if key not in built:
            built[key] = knapsack.smallest(instance, option, (c,), clock).kept
        kept = built[key]
        if kept is not None:
            needed = instance.memory_bytes(option, kept)
            yield needed - option.device.memory_budget_bytes, needed, o
    yield NEVER, NEVER, 0
