"""Smallest changes of each kind that make a plan possible.

Every change is verified: with it, a plan was found; with a little less, it was proven that none exists (or, where that
could not be known in time, it is not called the smallest). The size of a change is found by bisection.
"""

import math
from collections.abc import Callable, Iterable, Iterator

from planner.errors import InputError, setting
from planner.rules.cost import BudgetName
from planner.solver.infeasible.changed_fleet import goal_for_single_devices, with_larger_budget, with_one_more
from planner.solver.infeasible.demand_list import droppable_demands
from planner.solver.infeasible.oracle import FeasibilityOracle, with_goal_changes
from planner.solver.problem.build import build_instance
from planner.solver.problem.instance import Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.search import SearchRequest
from planner.solver.search import InstanceSearch
from planner.units import format_bytes

# Bisection stops when a change is known to this share of itself.
_PRECISION = 0.005
# More than this is tried for no budget.
_MAX_EXTRA_BYTES = 2**40
# Demands whose removal is a repair of its own; others are relaxed by a number.
_REMOVABLE = ("pin", "forbid", "together", "apart", "leave_out")


def smallest_repairs(instance: Instance, oracle: FeasibilityOracle) -> Iterator[str]:
    """Yield each kind of single change that makes a plan possible, the smallest of its kind, as messages mention it."""
    for change in (
        _more_memory,
        _more_storage,
        _lower_floor,
        _one_device_more,
        _fewer_survivors,
        _more_latency,
        _more_energy,
    ):
        text = None if oracle.clock.expired() else change(instance, oracle)
        if text is not None:
            yield text
    for demand in droppable_demands(instance.goal):
        if demand.key not in _REMOVABLE or oracle.clock.expired():
            continue
        if oracle.has_plan(with_goal_changes(instance, **demand.changes)):
            yield f"no {demand.text}"


def _least(works: Callable[[int], bool | None], max_change: int) -> int | None:
    """Return the least number up to `max_change` that works, to a share of itself; None if `max_change` fails."""
    if not works(max_change):
        return None
    low, high = 0, max_change
    while high - low > max(1, _PRECISION * high):
        # A wide range is halved on its logarithm: the answer may be a KiB or a GiB.
        middle = (low + high) // 2 if high < 4 * max(low, 64) else math.isqrt(max(low, 64) * high)
        low, high = (low, middle) if works(middle) else (middle, high)
    return high


def _more_memory(instance: Instance, oracle: FeasibilityOracle) -> str | None:
    return _larger_budget(instance, oracle, "memory", [group.names[0] for group in instance.groups])


def _more_storage(instance: Instance, oracle: FeasibilityOracle) -> str | None:
    stored = {member.name for member in instance.fleet.members if member.storage_budget is not None}
    names = [group.names[0] for group in instance.groups if group.names[0] in stored]
    return _larger_budget(instance, oracle, "storage", names)


def _larger_budget(
    instance: Instance, oracle: FeasibilityOracle, budget: BudgetName, names: Iterable[str]
) -> str | None:
    """Return the least enlargement of a budget on one of some devices."""
    least, on = None, ""
    for name in names:

        def works(extra: int, name: str = name) -> bool | None:
            roomier = with_larger_budget(instance.fleet, name, budget, extra)
            goal = goal_for_single_devices(instance)
            return oracle.has_plan(build_instance(instance.profile, roomier, goal, instance.retention_floor))

        # Another device is better only if it needs less.
        found = _least(works, _MAX_EXTRA_BYTES if least is None else least - 1)
        if oracle.clock.expired():
            return None
        if found is not None:
            least, on = found, name
    if least is None:
        return None
    # Where weights are in flash, it must be said which budget is meant.
    of_which = f" of {budget}" if instance.fleet.has_storage else ""
    return f"+{format_bytes(least, rounding='up')}{of_which} on {on}"


def _lower_floor(instance: Instance, oracle: FeasibilityOracle) -> str | None:
    if instance.goal.min_retention is None:
        # By which drop floors would be lower enough is known to whoever set them.
        return None
    ppm = math.ceil(10**6 * instance.goal.min_retention)

    def works(less: int) -> bool | None:
        return oracle.has_plan(with_goal_changes(instance, min_retention=(ppm - less) / 10**6))

    less = _least(works, ppm)
    return None if less is None or less >= ppm else setting("min_retention", f"{(ppm - less) / 10**6:g}")


def _one_device_more(instance: Instance, oracle: FeasibilityOracle) -> str | None:
    kinds: dict[str, str] = {}
    for member in sorted(instance.fleet.members, key=lambda m: m.memory_budget):
        label = member.kind or member.name
        if label in kinds:
            continue
        kinds[label] = member.name
        try:
            fleet, goal = with_one_more(instance.fleet, member.name), goal_for_single_devices(instance)
            more = build_instance(instance.profile, fleet, goal, instance.retention_floor)
        except InputError:
            # Nothing links the aggregator to its twin, for one.
            continue
        if oracle.has_plan(more):
            like = f"like {member.name!r}"
            return f"one device more {like}" + (f" ({member.kind})" if member.kind else "")
    return None


def _fewer_survivors(instance: Instance, oracle: FeasibilityOracle) -> str | None:
    for k in range(instance.goal.survive - 1, -1, -1):
        if oracle.has_plan(with_goal_changes(instance, survive=k)):
            return setting("survive", k)
    return None


def _more_latency(instance: Instance, oracle: FeasibilityOracle) -> str | None:
    if instance.goal.max_latency_ms is None:
        return None
    free = with_goal_changes(instance, max_latency_ms=None)
    found = InstanceSearch(free, oracle.clock, oracle.warm_start).run(SearchRequest(ObjectiveFunction(free)))
    if found.placed is None:
        return None
    return setting("max_latency_ms", f"{free.fleet_latency_us(found.placed) / 1000:.10g}")


def _more_energy(instance: Instance, oracle: FeasibilityOracle) -> str | None:
    if instance.goal.max_energy_mj is None:
        return None
    # A limit beyond any plan's: with no limit at all, energies would not be looked at.
    free = with_goal_changes(instance, max_energy_mj=1e12)
    search = InstanceSearch(free, oracle.clock, oracle.warm_start)
    found = search.run(SearchRequest(ObjectiveFunction(free, "energy")))
    if found.placed is None:
        return None
    return setting("max_energy_mj", f"{math.ceil(1000 * free.energy(found.placed) / free.energy_scale) / 10**6:.10g}")
