"""Explanation of infeasibility: a minimal conflict among the demands, and the smallest repairs.

The conflict is found by a deletion filter: demands are left out one after the other, and what can be left out while
there is still no plan is not part of it; what remains contradicts together. The repairs are those of `repair`.

Source: Chinneck and Dravnieks, Locating minimal infeasible constraint sets in linear programs,
doi:10.1287/ijoc.3.2.157.
"""

from collections.abc import Iterator
from typing import Any

from planner.errors import setting
from planner.schema import Precision
from planner.solver.exact.warm_start import WarmStart
from planner.solver.infeasible.demand_list import droppable_demands, without
from planner.solver.infeasible.oracle import FeasibilityOracle, with_goal_changes
from planner.solver.infeasible.repair import smallest_repairs
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.option import PlacedSubModel
from planner.solver.submodels import knapsack
from planner.units import format_bytes

# Smallest sub-model for one class, by class, embed dim and precision.
SmallestSubModels = dict[tuple[int, int, Precision], tuple[int, ...] | None]


def explain_infeasible(instance: Instance, clock: Clock, warm_start: WarmStart, advice: bool = True) -> str:
    """Return why there is no plan, and, as advice, the smallest changes that work."""
    first = FeasibilityOracle(clock.part(clock.left() / 2), warm_start)
    reason = _reason(instance, first)
    if not advice:
        return f"No plan: {reason}"
    oracle = FeasibilityOracle(clock, first.warm_start)
    return f"No plan: {reason} {_advice(list(smallest_repairs(instance, oracle)), oracle)}"


def explain_too_slow(
    instance: Instance,
    bound_us: int,
    best: tuple[PlacedSubModel, ...] | None,
    clock: Clock,
    warm_start: WarmStart,
    advice: bool = True,
) -> str:
    """Return that no plan is within the latency limit, and, as advice, what is."""
    limit = f"{instance.goal.max_latency_ms:.10g} ms"
    reason = f"No plan within {limit}: no plan takes less than {bound_us / 1000:.3f} ms."
    if not advice:
        return reason
    longer = "max_latency_ms"
    changes = [] if best is None else [setting(longer, f"{instance.fleet_latency_us(best) / 1000:.10g}")]
    oracle = FeasibilityOracle(clock, warm_start)
    others = smallest_repairs(instance, oracle)
    changes += [change for change in others if best is None or not change.startswith(f"`{longer}=")]
    return f"{reason} {_advice(changes, oracle)}"


def _advice(changes: list[str], oracle: FeasibilityOracle) -> str:
    if not changes and oracle.clock.expired():
        return f"No time was left to look for a change that works: raise {setting('time_limit_s')}."
    if not changes:
        return "No smaller change than a different fleet was found."
    # Where not all answers could be had, a smaller change may work too.
    claim = "Smallest change" if oracle.sure and not oracle.clock.expired() else "A change"
    return f"{claim} that works: {', or '.join(changes)}."


def _reason(instance: Instance, oracle: FeasibilityOracle) -> str:
    conflict = list(droppable_demands(instance.goal))
    dropped: list[dict[str, Any]] = []
    for demand in list(conflict):
        if oracle.has_plan(with_goal_changes(instance, **without(instance.goal, [*dropped, demand.changes]))) is False:
            dropped.append(demand.changes)
            conflict.remove(demand)
    if oracle.clock.expired():
        return "the demands cannot all be met."
    if all(demand.key == "floors" for demand in conflict):
        return _memory(instance, oracle.clock)
    names = [demand.text for demand in conflict]
    if len(names) == 1:
        return f"{names[0]} cannot be met by this fleet."
    # Without an answer for each, one of them may be innocent.
    verdict = "contradict each other on this fleet" if oracle.sure else "cannot all be met by this fleet"
    return f"{', '.join(names[:-1])} and {names[-1]} {verdict}."


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
                f"class {names[c]!r} needs at least {format_bytes(needed, rounding='up')} on any device; "
                "the largest budget is "
                f"{format_bytes(largest.memory_budget, rounding='down')} ({largest.name})."
            )
        budget = format_bytes(needed - missing, rounding="down")
        return (
            f"class {names[c]!r} fits on no device; the nearest is {name}, where it needs at least "
            f"{format_bytes(needed, rounding='up')} and has {budget}."
        )
    if missing >= NEVER:
        return f"the {len(devices)} devices together cannot hold all {len(names)} classes."
    return (
        f"each class fits on some device, but the {len(devices)} devices together cannot hold all {len(names)} of them."
    )


def _missing(instance: Instance, c: int, built: SmallestSubModels, clock: Clock) -> Iterator[tuple[int, int, int]]:
    for o, option in enumerate(instance.options):
        # The smallest is the same on all devices.
        key = (c, option.embed_dim, option.width_cost.precision)
        if key not in built:
            built[key] = knapsack.smallest(instance, option, (c,), clock).kept
        kept = built[key]
        if kept is not None:
            needed = instance.memory_bytes(option, kept)
            yield needed - option.device.memory_budget_bytes, needed, o
    yield NEVER, NEVER, 0
