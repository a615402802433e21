"""Staying near an earlier plan: of plans as good as the best, the one of the columns at hand that moves least.

Moves are what must be sent: first the classes new to a device, then the devices whose sub-model changes at all. It is
a lexicographic second objective, the first one held as a constraint.

Variables
    x_di   device d gets column i                            binary

Constraints: (1) and (3) of `problem.covering`, where no resource is used more than by the best plan; each device gets
at most one column. Columns are those that are no worse than the best plan: the largest class subsets, the device's
earlier subset, and the intersections of both.

Objective: least sum_di x_di (2 |classes new to d| + [sub-model of d changes]).
"""

from collections.abc import Sequence

import numpy as np
from ortools.sat.python import cp_model

from planner.arrays import Ints
from planner.solver.exact.assignment import relaxing_solver
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.covering import cover_rows, resource_rows
from planner.solver.problem.instance import EMBED_DIMS, NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import ByDevice, by_device, is_valid, move_cost
from planner.solver.problem.subsets import mask_of

_MAX_ROUNDS = 50


def stay_near(
    instance: Instance,
    best: Sequence[PlacedSubModel],
    earlier: ByDevice,
    subset_costs: SubsetCosts,
    objective: ObjectiveFunction,
    clock: Clock,
) -> dict[str, PlacedSubModel]:
    """Return the sub-model of each device in the plan nearest to the earlier one that is as good as the best.

    Args:
        instance: Problem.
        best: Placement with the best objective.
        earlier: Placement to stay near.
        subset_costs: Bounds of class subsets; they are raised where needed.
        objective: Objective function that decided the best.
        clock: Time for it; out of time, the best placement is kept.
    """
    max_use = instance.used(p.option for p in best)
    bottleneck_us = instance.slowest_us(best)
    if objective.name == "energy" and objective.limit_us < NEVER:
        bottleneck_us = objective.limit_us - instance.fusion_us(int(max_use[EMBED_DIMS]))
    limits = np.array([bottleneck_us - instance.path_us(option, max_use) for option in instance.options])
    energy = instance.energy(best) if objective.name == "energy" else instance.max_energy
    options = {option: o for o, option in enumerate(instance.options)}
    for p in [*best, *(p for p in earlier.values() if is_valid(instance, p))]:
        subset_costs.add(Column(options[p.option], mask_of(p.classes)), p.kept)
    fallback = by_device(instance, best, earlier)
    try:
        for _ in range(_MAX_ROUNDS):
            columns = _least_moves(subset_costs, earlier, limits, max_use, energy, clock)
            if columns is None:
                return fallback
            unbuilt = [i for i in columns.values() if subset_costs.upper_bound[i.option, i.mask] > limits[i.option]]
            if energy is not None:
                unbuilt = [
                    i
                    for i in columns.values()
                    if subset_costs.upper_bound[i.option, i.mask] > subset_costs.lower_bound[i.option, i.mask]
                ]
            if not unbuilt:
                return {
                    name: _sub_model(subset_costs, i, earlier.get(name), int(limits[i.option]), energy is None)
                    for name, i in columns.items()
                }
            for i in unbuilt:
                subset_costs.solve(i, clock)
            if clock.expired():
                break
    except TimeoutError:
        pass
    return fallback


def _cost(instance: Instance, i: Column, before: PlacedSubModel | None) -> int:
    """Return the cost of moves if a device gets a column: another embed dim or precision is a change, too."""
    switched = before is not None and before.classes == i.classes and before.option is not instance.options[i.option]
    return move_cost(i.classes, None, before) + switched


def _sub_model(
    subset_costs: SubsetCosts, i: Column, before: PlacedSubModel | None, limit_us: int, may_stay: bool
) -> PlacedSubModel:
    """Return the earlier sub-model where it will do, else the best one known."""
    instance = subset_costs.instance
    option = instance.options[i.option]
    same = before is not None and before.option is option and before.classes == i.classes
    if before is not None and same and may_stay and _in_time(instance, before, limit_us):
        return before
    return PlacedSubModel(option, i.classes, subset_costs.kept[i])


def _in_time(instance: Instance, p: PlacedSubModel, limit_us: int) -> bool:
    return is_valid(instance, p) and instance.compute_us(p.option, p.kept) <= limit_us


def _least_moves(
    subset_costs: SubsetCosts, earlier: ByDevice, limits: Ints, max_use: Ints, energy: int | None, clock: Clock
) -> dict[str, Column] | None:
    """Return the column of each device; None if there is no such choice at these lower bounds."""
    instance = subset_costs.instance
    model = cp_model.CpModel()
    by_option: dict[int, list[int]] = {}
    for i in subset_costs.largest_within(limits, clock):
        by_option.setdefault(i.option, []).append(i.mask)
    x: list[tuple[cp_model.IntVar, str, Column]] = []
    for o, option in enumerate(instance.options):
        group = instance.groups[option.group]
        for name in group.names:
            before = earlier.get(name)
            old = 0 if before is None else mask_of(before.classes)
            masks = {m for mask in by_option.get(o, []) for m in (mask, mask & old)} | {old}
            masks |= {i.mask for i in subset_costs.kept if i.option == o}
            fast = [m for m in sorted(masks) if m and subset_costs.lower_bound[o, m] <= limits[o]]
            x += [(model.new_bool_var(""), name, Column(o, m)) for m in fast]
    for row in cover_rows(instance.survival_rules, instance.num_classes):
        serving = [v for v, _, i in x if i.mask >> row.class_index & 1 and row.counts(instance.options[i.option].group)]
        model.add(sum(serving) >= row.min_devices)
    for group in instance.groups:
        for name in group.names:
            used = sum(v for v, other, _ in x if other == name)
            model.add(used == 1 if group.pinned else used <= 1)
    for resource_row in resource_rows(max_use):
        model.add(sum(resource_row.use(instance.options[i.option]) * v for v, _, i in x) <= resource_row.max_use)
    if energy is not None:
        costs = [
            instance.options[i.option].energy_per_us * int(subset_costs.lower_bound[i.option, i.mask]) for *_, i in x
        ]
        model.add(sum(c * v for c, (v, *_) in zip(costs, x, strict=True)) <= energy)
    model.minimize(sum(_cost(instance, i, earlier.get(name)) * v for v, name, i in x))
    solver = relaxing_solver()
    if clock.solve(solver, model, max_s=clock.left() / 2) != cp_model.OPTIMAL:
        return None
    return {name: i for v, name, i in x if solver.boolean_value(v)}
