"""Staying near an earlier plan: among plans as good as the best, the one that moves least.

What moves is what must be sent: first, the classes that a device gets and did not serve before;
then the devices whose sub-model changes at all.

Variables
    x_di   device d gets candidate i                         binary

Constraints: (1) of `assign`, each device gets at most one, and no more of any resource is used
than the best plan uses. Candidates are what is then no worse than the best plan: the largest
class subsets, the device's earlier subset, and what the two share.

Objective: least sum_di x_di (2 |classes new to d| + [sub-model of d changes]).
"""

from collections.abc import Sequence

import numpy as np
from ortools.sat.python import cp_model

from planner.arrays import Ints
from planner.solver.exact.assignment import Column, mask_of, relaxing_solver
from planner.solver.exact.master import ObjectiveFunction
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import EMBED_DIMS, NEVER, Instance, PlacedSubModel
from planner.solver.problem.placement import ByDevice, by_device, is_allowed, move_cost

_MOST_ROUNDS = 50


def stay_near(
    instance: Instance,
    best: Sequence[PlacedSubModel],
    earlier: ByDevice,
    knowledge: SubsetCosts,
    judge: ObjectiveFunction,
    clock: Clock,
) -> dict[str, PlacedSubModel]:
    """Return what each device runs in the plan nearest to the earlier one that is as good as the best."""
    most = instance.used(p.option for p in best)
    slowest_us = instance.slowest_us(best)
    if judge.objective == "energy" and judge.limit_us < NEVER:
        slowest_us = judge.limit_us - instance.fusion_us(int(most[EMBED_DIMS]))
    limits = np.array([slowest_us - instance.path_us(option, most) for option in instance.options])
    energy = instance.energy(best) if judge.objective == "energy" else instance.max_energy
    options = {option: o for o, option in enumerate(instance.options)}
    for p in [*best, *(p for p in earlier.values() if is_allowed(instance, p))]:
        knowledge.add(Column(options[p.option], mask_of(p.classes)), p.kept)
    fallback = by_device(instance, best, earlier)
    try:
        for _ in range(_MOST_ROUNDS):
            picks = _least_moves(knowledge, earlier, limits, most, energy, clock)
            if picks is None:
                return fallback
            unbuilt = [i for i in picks.values() if knowledge.high[i.option, i.mask] > limits[i.option]]
            if energy is not None:
                unbuilt = [
                    i for i in picks.values() if knowledge.high[i.option, i.mask] > knowledge.low[i.option, i.mask]
                ]
            if not unbuilt:
                return {
                    name: _sub_model(knowledge, i, earlier.get(name), int(limits[i.option]), energy is None)
                    for name, i in picks.items()
                }
            for i in unbuilt:
                knowledge.examine(i, clock)
            if clock.expired():
                break
    except TimeoutError:
        pass
    return fallback


def _cost(instance: Instance, i: Column, before: PlacedSubModel | None) -> int:
    """Return what it costs that a device gets a candidate: another width or precision is a change, too."""
    switched = before is not None and before.classes == i.classes and before.option is not instance.options[i.option]
    return move_cost(i.classes, None, before) + switched


def _sub_model(
    knowledge: SubsetCosts, i: Column, before: PlacedSubModel | None, limit_us: int, may_stay: bool
) -> PlacedSubModel:
    """Return the earlier sub-model where it will do, else the best one known."""
    instance = knowledge.instance
    option = instance.options[i.option]
    same = before is not None and before.option is option and before.classes == i.classes
    if before is not None and same and may_stay and _in_time(instance, before, limit_us):
        return before
    return PlacedSubModel(option, i.classes, knowledge.kept[i])


def _in_time(instance: Instance, p: PlacedSubModel, limit_us: int) -> bool:
    return is_allowed(instance, p) and instance.compute_us(p.option, p.kept) <= limit_us


def _least_moves(
    knowledge: SubsetCosts, earlier: ByDevice, limits: Ints, most: Ints, energy: int | None, clock: Clock
) -> dict[str, Column] | None:
    """Return what each device gets; None if there is no such choice, as far as is known."""
    instance = knowledge.instance
    model = cp_model.CpModel()
    by_option: dict[int, list[int]] = {}
    for i in knowledge.within(limits, clock):
        by_option.setdefault(i.option, []).append(i.mask)
    x: list[tuple[cp_model.IntVar, str, Column]] = []
    for o, option in enumerate(instance.options):
        group = instance.groups[option.group]
        for name in group.names:
            before = earlier.get(name)
            old = 0 if before is None else mask_of(before.classes)
            masks = {m for mask in by_option.get(o, []) for m in (mask, mask & old)} | {old}
            masks |= {i.mask for i in knowledge.kept if i.option == o}
            fast = [m for m in sorted(masks) if m and knowledge.low[o, m] <= limits[o]]
            x += [(model.new_bool_var(""), name, Column(o, m)) for m in fast]
    for rule in instance.survivors:
        for c in range(instance.num_classes):
            serving = [v for v, _, i in x if i.mask >> c & 1 and instance.options[i.option].group in rule.groups]
            model.add(sum(serving) >= rule.least)
    for group in instance.groups:
        for name in group.names:
            used = sum(v for v, other, _ in x if other == name)
            model.add(used == 1 if group.must else used <= 1)
    for r, most_r in enumerate(most.tolist()):
        model.add(sum(int(instance.options[i.option].use[r]) * v for v, _, i in x) <= most_r)
    if energy is not None:
        costs = [instance.options[i.option].energy_per_us * int(knowledge.low[i.option, i.mask]) for *_, i in x]
        model.add(sum(c * v for c, (v, *_) in zip(costs, x, strict=True)) <= energy)
    model.minimize(sum(_cost(instance, i, earlier.get(name)) * v for v, name, i in x))
    solver = relaxing_solver()
    if clock.solve(solver, model, most_s=clock.left() / 2) != cp_model.OPTIMAL:
        return None
    return {name: i for v, name, i in x if solver.boolean_value(v)}
