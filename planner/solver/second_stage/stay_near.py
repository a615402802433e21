"""Staying near an earlier plan: of plans as good as the best, the one that moves least.

Moves are what must be sent: first the classes new to a device, then the devices whose sub-model changes at all. It is
a lexicographic second objective, the first one held as a constraint.

Variables
    x_di   device d gets column i                            binary

Constraints: (1) and (3) of `problem.covering`, where media are used no more than by the best plan and the fusion takes
no longer; each device gets
at most one column. Columns are those that are no worse than the best plan and to which no class of the device's earlier
subset could be added: to keep a class where it is moves nothing.

Objective: least sum_di x_di (2 |classes new to d| + [sub-model of d changes]).
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from ortools.sat.python import cp_model

from planner.arrays import Ints
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.problem.assignment import relaxing_solver
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.covering import cover_rows, resource_rows
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import ByDevice, by_device, is_valid, move_cost
from planner.solver.problem.subsets import classes_of, mask_of

_MAX_ROUNDS = 200
# With more columns than this, one round takes too long.
_MAX_COLUMNS = 20_000


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
    max_use = _max_use(instance, best, objective)
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
            columns = _least_moves(subset_costs, earlier, fallback, limits, max_use, energy, clock)
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
                _build(subset_costs, i, int(limits[i.option]), clock, exactly=energy is not None)
            if clock.expired():
                break
    except TimeoutError:
        pass
    return fallback


def _max_use(instance: Instance, best: Sequence[PlacedSubModel], objective: ObjectiveFunction) -> Ints:
    """Return the most that a plan as good as the best may use of each resource, (R,)."""
    max_use = instance.used(p.option for p in best)
    if objective.name in ("latency", "accuracy"):
        # Embed dims that make the fusion no slower are free.
        all_dims = sum(
            len(group.names) * max((o.embed_dim for o in instance.options if o.group == g), default=0)
            for g, group in enumerate(instance.groups)
        )
        fusion_us = instance.fusion_us(int(max_use[EMBED_DIMS]))
        max_use[EMBED_DIMS] = bisect_right(range(all_dims + 1), fusion_us, key=instance.fusion_us) - 1
        if not instance.goal.leave_idle:
            max_use[DEVICES] = NEVER
    return max_use


def _build(subset_costs: SubsetCosts, i: Column, limit_us: int, clock: Clock, exactly: bool) -> None:
    """Build a column's sub-model within a time, or prove that neither it nor others like it have one."""
    if exactly:
        subset_costs.solve(i, clock)
        return
    subset_costs.solve(i, clock, limit_us, limit_us + 1)
    if subset_costs.lower_bound[i.option, i.mask] > limit_us:
        subset_costs.generalise(i, limit_us + 1, clock)


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


def _candidates(subset_costs: SubsetCosts, o: int, old: int, limit_us: int, most_new: int, largest: bool) -> list[int]:
    """Return the class subsets that a device with an earlier subset may get.

    Args:
        subset_costs: Bounds of class subsets.
        o: Option of the device.
        old: Its earlier classes.
        limit_us: Most compute time [us].
        most_new: Most classes that may be new to it.
        largest: Leave out those to which one of the earlier classes could be added.
    """
    masks, fast = subset_costs.masks, subset_costs.lower_bound[o] <= limit_us
    chosen = fast & (masks > 0) & (subset_costs.sizes[masks & ~old] <= most_new)
    for c in classes_of(old) if largest else ():
        chosen &= (masks >> c & 1 > 0) | ~fast[masks | 1 << c]
    return [int(mask) for mask in np.flatnonzero(chosen)]


def _least_moves(
    subset_costs: SubsetCosts,
    earlier: ByDevice,
    known: ByDevice,
    limits: Ints,
    max_use: Ints,
    energy: int | None,
    clock: Clock,
) -> dict[str, Column] | None:
    """Return the column of each device; None if no choice at these lower bounds moves less than a known placement."""
    instance = subset_costs.instance
    model = cp_model.CpModel()
    subset_costs.largest_within(limits, clock)
    options = {option: o for o, option in enumerate(instance.options)}
    most = sum(_cost(instance, Column(options[p.option], mask_of(p.classes)), earlier.get(n)) for n, p in known.items())
    x: list[tuple[cp_model.IntVar, str, Column]] = []
    for o, option in enumerate(instance.options):
        for name in instance.groups[option.group].names:
            before = earlier.get(name)
            old = 0 if before is None else mask_of(before.classes)
            masks = _candidates(subset_costs, o, old, int(limits[o]), most // 2, largest=energy is None)
            x += [(model.new_bool_var(""), name, Column(o, mask)) for mask in masks]
            if len(x) > _MAX_COLUMNS:
                return None
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
