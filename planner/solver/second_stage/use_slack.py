"""Second objective: where the first is settled, the most retention.

A device that is not the bottleneck has time to spare, and an idle one may have all of it. Whatever finishes in time
and costs nothing is taken: more units for the classes of a device, more classes while the floors hold, a sub-model for
an idle device. Fused accuracy gains from every feature that comes for free. Units that no class needs are not kept,
since they take energy.

The class subsets are chosen among candidates (the largest that can finish in time, each filled greedily by value per
time), the units of each device by an integer program. The first objective is never touched: its proof stands. Where
energy is limited or minimised, no unit is free, and nothing is changed.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from planner.arrays import Ints
from planner.solver.exact.assignment import richest_cover
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, IMPORTANCE_SCALE, Instance
from planner.solver.problem.option import Option, PlacedSubModel
from planner.solver.problem.subsets import classes_of, mask_of
from planner.solver.submodels import knapsack

# Rounds in which a greedy filling doubles the weight of the classes that fell short.
_ROUNDS = 4
# Class subsets that are filled in one batch.
_BATCH = 256


def use_slack(
    instance: Instance,
    placed: Sequence[PlacedSubModel],
    subset_costs: SubsetCosts | None,
    clock: Clock,
    stays: Sequence[PlacedSubModel] = (),
) -> tuple[PlacedSubModel, ...]:
    """Return a placement with the same objective that retains as much as the candidates allow.

    Args:
        instance: Problem.
        placed: Placement of a plan.
        subset_costs: Bounds of class subsets, where there are few enough to list.
        clock: Time for it; out of time, the rest is left as it is.
        stays: Sub-models of the plan that are left as they are.
    """
    goal = instance.goal
    if goal.objective == "energy" or goal.max_energy_mj is not None:
        return tuple(placed)
    bottleneck_us = instance.slowest_us(placed)
    if goal.objective == "accuracy" and goal.max_latency_us is not None:
        bottleneck_us += max(0, goal.max_latency_us - instance.fleet_latency_us(placed))
    if subset_costs is not None and not goal.leave_idle and goal.objective != "devices" and not stays:
        placed = _more_classes(instance, placed, subset_costs, bottleneck_us, clock)
    used = instance.used(p.option for p in placed)
    return tuple(
        p
        if clock.expired() or p in stays
        else _fill(instance, p, bottleneck_us - instance.path_us(p.option, used), clock)
        for p in placed
    )


def _fill(instance: Instance, p: PlacedSubModel, compute_us: int, clock: Clock) -> PlacedSubModel:
    return PlacedSubModel(p.option, p.classes, knapsack.richest(instance, p, compute_us, clock))


def _more_classes(
    instance: Instance, placed: Sequence[PlacedSubModel], subset_costs: SubsetCosts, bottleneck_us: int, clock: Clock
) -> Sequence[PlacedSubModel]:
    """Choose class subsets anew: those of most retention that finish in time."""
    options = {option: o for o, option in enumerate(instance.options)}
    pool = {Column(options[p.option], mask_of(p.classes)): p.kept for p in placed}
    max_use = _free_use(instance, placed)
    limits = np.array([bottleneck_us - instance.path_us(option, max_use) for option in instance.options])
    try:
        largest = subset_costs.largest_within(limits, clock)
    except TimeoutError:
        return placed
    for o, option in enumerate(instance.options):
        if clock.expired():
            break
        whole = [i.mask for i in largest if i.option == o]
        smaller = {mask: [mask & ~(1 << c) for c in classes_of(mask) if mask != 1 << c] for mask in whole}
        found = _greedy(instance, option, whole, int(limits[o]))
        found |= _greedy(
            instance, option, {m for mask in whole if mask not in found for m in smaller[mask]}, int(limits[o])
        )
        for mask in whole:
            best = next((m for m in (mask, *smaller[mask]) if m in found), None)
            if best is not None:
                pool.setdefault(Column(o, best), found[best])
    candidates = sorted(pool)
    retention = [_retention_ppm(instance, i, pool[i]) for i in candidates]
    chosen = richest_cover(instance, candidates, retention, max_use, clock)
    if chosen is None:
        return placed
    return [PlacedSubModel(instance.options[i.option], i.classes, pool[i]) for i in chosen]


def _free_use(instance: Instance, placed: Sequence[PlacedSubModel]) -> Ints:
    """Return the use of each resource at which nothing gets slower, (R,)."""
    max_use = instance.used(p.option for p in placed)
    fusion_us = instance.fusion_us(int(max_use[EMBED_DIMS]))
    smallest = min(option.embed_dim for option in instance.options)
    largest = max(option.embed_dim for option in instance.options)
    num_devices = sum(len(group.names) for group in instance.groups)
    while (
        instance.fusion_us(int(max_use[EMBED_DIMS]) + smallest) <= fusion_us
        and max_use[EMBED_DIMS] < num_devices * largest
    ):
        max_use[EMBED_DIMS] += smallest
    max_use[DEVICES] = num_devices
    return max_use


def _retention_ppm(instance: Instance, column: Column, kept: Sequence[int]) -> dict[int, int]:
    shares = instance.options[column.option].width_cost.max_retention
    have = instance.units.importance[:, list(kept)].sum(axis=1)
    return {c: int(shares[c] * have[c] * 10**6 / IMPORTANCE_SCALE) for c in column.classes}


def _greedy(instance: Instance, option: Option, masks: Iterable[int], compute_us: int) -> dict[int, tuple[int, ...]]:
    """Return greedy sub-models that fill the time, for those class subsets whose floors they meet."""
    found: dict[int, tuple[int, ...]] = {}
    allowed = [mask for mask in masks if instance.allows(option.group, classes_of(mask))]
    for at in range(0, len(allowed), _BATCH):
        some = allowed[at : at + _BATCH]
        for mask, kept in zip(some, _filled(instance, option, some, compute_us), strict=True):
            if kept is not None:
                found[mask] = kept
    return found


def _filled(
    instance: Instance, option: Option, masks: Sequence[int], compute_us: int
) -> Iterator[tuple[int, ...] | None]:
    """Yield a sub-model for each class subset, or None where none that meets the floors was found."""
    importance, always_kept = instance.units.importance, list(instance.units.always_kept)
    member = np.array(
        [[mask >> c & 1 for c in range(instance.num_classes)] for mask in masks], dtype=np.int64
    )  # (B, C)
    need = option.need[:, member.sum(axis=1) - 1].T * member  # (B, C)
    weight = member.astype(np.float64)
    kept = np.zeros((len(masks), len(instance.units)), dtype=bool)
    done = np.zeros(len(masks), dtype=bool)
    for _ in range(_ROUNDS):
        left = np.flatnonzero(~done)
        value = (weight[left] @ importance) / np.maximum(1, option.costs.unit_ticks)
        value[:, always_kept] = np.inf
        order = np.argsort(-value, axis=1, kind="stable")
        num_fitting = _num_fitting(option, order, compute_us)
        taken = np.arange(order.shape[1]) < num_fitting[:, None]
        tried = np.zeros(order.shape, dtype=bool)
        np.put_along_axis(tried, order, taken, axis=1)
        short = tried @ importance.T < need[left]
        done[left] = ~short.any(axis=1) & (num_fitting >= len(always_kept))
        kept[left] = tried
        weight[left] *= np.where(short, 2, 1)
    for row, is_done in zip(kept, done, strict=True):
        yield tuple(np.flatnonzero(row).tolist()) if is_done else None


def _num_fitting(option: Option, order: Ints, compute_us: int) -> Ints:
    """Return how many units of each order (B, U), from its beginning, fit into the time and the memory, (B,)."""
    ticks, grains = option.costs.prefix_costs(order)
    fits: Ints = ((ticks <= compute_us * option.costs.ticks_per_us) & (grains <= option.free_grains)).sum(axis=1)
    return fits
