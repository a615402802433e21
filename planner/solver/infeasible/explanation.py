"""Explanation of infeasibility: a minimal conflict among the demands, and the smallest repairs.

The conflict is found by a deletion filter: demands are left out one after the other, and what can be left out while
there is still no plan is not part of it; what remains contradicts together. The repairs are those of `repair`.

Source: Chinneck and Dravnieks, Locating minimal infeasible constraint sets in linear programs,
doi:10.1287/ijoc.3.2.157.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from planner.errors import setting
from planner.rules.cost import BudgetName
from planner.solver.exact.warm_start import WarmStart
from planner.solver.infeasible.changed_fleet import goal_for_single_devices, with_plenty
from planner.solver.infeasible.demand_list import droppable_demands, without
from planner.solver.infeasible.oracle import FeasibilityOracle, with_goal_changes
from planner.solver.infeasible.repair import smallest_repairs
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import PlacedSubModel
from planner.solver.submodels import knapsack
from planner.units import format_bytes


@dataclass(frozen=True, order=True)
class _Lack:
    """Lack of one class on an option: bytes missing of the budget that is shortest, and bytes that are needed of it."""

    missing: int
    needed: int
    option: int
    budget: BudgetName

    @property
    def granted(self) -> int:
        """Bytes of the budget."""
        return self.needed - self.missing


class _Lacks:
    """Lack of each class on each option that can meet its floor."""

    def __init__(self, instance: Instance, clock: Clock) -> None:
        self._instance, self._clock = instance, clock
        self._built: dict[Hashable, tuple[int, ...] | None] = {}

    def of(self, c: int) -> list[_Lack]:
        """Return the lack of a class on each option, by the smallest sub-model for it of each budget."""
        return [max(lacks) for o in range(len(self._instance.options)) if (lacks := list(self._on(o, c)))]

    def _on(self, o: int, c: int) -> Iterator[_Lack]:
        instance, option = self._instance, self._instance.options[o]
        at, num_budgets = option.width_cost, len(option.free_grains)
        for m in range(num_budgets):
            # Equal on all devices with the same engine and the same budgets.
            key = (c, at.width.embed_dim, at.precision, at.memory, num_budgets, m)
            if key not in self._built:
                self._built[key] = knapsack.smallest(instance, option, (c,), m, self._clock).kept
            kept = self._built[key]
            if kept is not None:
                budget, (needed, granted) = list(instance.budget_use(option, kept).items())[m]
                yield _Lack(needed - granted, needed, o, budget)


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
        return _budgets(instance, oracle)
    names = [demand.text for demand in conflict]
    if len(names) == 1:
        return f"{names[0]} cannot be met by this fleet."
    # Without an answer for each, one of them may be innocent.
    verdict = "contradict each other on this fleet" if oracle.sure else "cannot all be met by this fleet"
    return f"{', '.join(names[:-1])} and {names[-1]} {verdict}."


def _budgets(instance: Instance, oracle: FeasibilityOracle) -> str:
    clock = oracle.clock
    names, num_devices = instance.profile.classes, len(instance.fleet.members)
    if not instance.options:
        return "every device is left out."
    lacks = _Lacks(instance, clock)
    by_class = [lacks.of(c) for c in range(instance.num_classes)]
    if not all(by_class):
        if clock.expired():
            return f"the {num_devices} devices together cannot hold all {len(names)} classes."
        return f"class {names[by_class.index([])]!r} does not reach its floor on any device, even if nothing is pruned."
    # Of the class that lacks most where it lacks least.
    c = max(range(len(names)), key=lambda c: min(by_class[c]))
    if min(by_class[c]).missing > 0:
        return _lacking(instance, names[c], by_class[c])
    for c, name in enumerate(names if instance.fleet.has_storage else ()):
        if all(knapsack.cheapest(instance, option, (c,), clock).bound is None for option in instance.options):
            return f"class {name!r} fits within the memory or within the storage of a device, but nowhere within both."
    return (
        f"each class fits on some device, but the {num_devices} devices together cannot hold all {len(names)} of them"
        f"{_too_small(instance, oracle)}."
    )


def _too_small(instance: Instance, oracle: FeasibilityOracle) -> str:
    """Return which budget is too small on all devices together, where some have two and an answer is known."""
    if not instance.fleet.has_storage:
        return ""
    answers = {budget: oracle.has_plan(_with_plenty(instance, budget)) for budget in get_args(BudgetName)}
    enough = [budget for budget, has_plan in answers.items() if has_plan]
    if len(enough) == 1:
        return f": their {enough[0]} is too small"
    if enough:
        return f": their {enough[0]} or their {enough[1]} is too small"
    return "" if None in answers.values() else ": their memory and their storage are too small"


def _with_plenty(instance: Instance, budget: BudgetName) -> Instance:
    """Return an instance whose devices have as much of a budget as there can be."""
    fleet, goal = with_plenty(instance.fleet, budget), goal_for_single_devices(instance)
    return build_instance(instance.profile, fleet, goal, instance.retention_floor)


def _lacking(instance: Instance, class_name: str, lacks: Sequence[_Lack]) -> str:
    """Return what a class lacks that fits on no device."""
    nearest = min(lacks)
    name = instance.groups[instance.options[nearest.option].group].names[0]
    needed = format_bytes(nearest.needed, rounding="up")
    if instance.fleet.has_storage:
        # Where weights are in flash, it must be said which budget is meant.
        needed += f" of {nearest.budget}"
    granted = format_bytes(nearest.granted, rounding="down")
    if all(lack.budget == nearest.budget and lack.needed >= nearest.needed for lack in lacks) and all(
        lack.granted <= nearest.granted for lack in lacks
    ):
        return f"class {class_name!r} needs at least {needed} on any device; the largest budget is {granted} ({name})."
    return (
        f"class {class_name!r} fits on no device; the nearest is {name}, where it needs at least {needed} "
        f"and has {granted}."
    )
