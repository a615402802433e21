"""The second objective: where the first is settled, the most retention.

A device that is not the bottleneck has time to spare, and an idle one may have all of it. What
finishes in time and costs nothing is taken: more units for the classes a device serves, more
classes while the floors hold, a sub-model for an idle device. Fused accuracy gains from every
feature that comes for free. Then, since nothing is kept that no class needs, the least energy.

The classes are chosen among the candidates at hand (the largest subsets that can finish in
time, each filled greedily), the units of each device by an integer program. The first objective
is never touched: its proof stands. Where energy has a say, nothing is free, and nothing is spent.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from planner.arrays import Ints
from planner.solver.exact.assignment import Column, classes_of, mask_of, richest_cover
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import DEVICES, EMBED_DIMS, IMPORTANCE_SCALE, Instance, Option, PlacedSubModel
from planner.solver.submodels import knapsack

# Rounds in which a greedy filling gives more weight to the classes that fell short.
_ROUNDS = 4
# Class subsets that are filled at once.
_AT_ONCE = 256


def use_slack(
    instance: Instance,
    placed: Sequence[PlacedSubModel],
    knowledge: SubsetCosts | None,
    clock: Clock,
    stays: Sequence[PlacedSubModel] = (),
) -> tuple[PlacedSubModel, ...]:
    """Return a placement as good as this one, chosen to retain as much as the candidates at hand allow.

    Args:
        placed: A plan.
        knowledge: What the search learned of class subsets, where there are few enough to list.
        clock: When it ends, the rest is left as it is.
        stays: Sub-models of the plan that are to be left as they are.
    """
    goal = instance.goal
    if goal.objective == "energy" or goal.max_energy_mj is not None:
        return tuple(placed)
    slowest_us = instance.slowest_us(placed)
    if goal.objective == "accuracy" and goal.max_latency_us is not None:
        slowest_us += max(0, goal.max_latency_us - instance.fleet_latency_us(placed))
    if knowledge is not None and not goal.leave_idle and goal.objective != "devices" and not stays:
        placed = _more_classes(instance, placed, knowledge, slowest_us, clock)
    used = instance.used(p.option for p in placed)
    return tuple(
        p if clock.expired() or p in stays else _fill(instance, p, slowest_us - instance.path_us(p.option, used), clock)
        for p in placed
    )


def _fill(instance: Instance, p: PlacedSubModel, compute_us: int, clock: Clock) -> PlacedSubModel:
    return PlacedSubModel(
        p.option, p.classes, knapsack.richest(instance, p.option, p.classes, compute_us, p.kept, clock)
    )


def _more_classes(
    instance: Instance, placed: Sequence[PlacedSubModel], knowledge: SubsetCosts, slowest_us: int, clock: Clock
) -> Sequence[PlacedSubModel]:
    """Choose class subsets anew: the richest that finish in time."""
    options = {option: o for o, option in enumerate(instance.options)}
    pool = {Column(options[p.option], mask_of(p.classes)): p.kept for p in placed}
    most = _most(instance, placed)
    limits = np.array([slowest_us - instance.path_us(option, most) for option in instance.options])
    try:
        largest = knowledge.within(limits, clock)
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
    chosen = richest_cover(instance, candidates, retention, most, clock)
    if chosen is None:
        return placed
    return [PlacedSubModel(instance.options[i.option], i.classes, pool[i]) for i in chosen]


def _most(instance: Instance, placed: Sequence[PlacedSubModel]) -> Ints:
    """What may be used of each resource without anything getting slower."""
    most = instance.used(p.option for p in placed)
    fusion_us = instance.fusion_us(int(most[EMBED_DIMS]))
    smallest = min(option.embed_dim for option in instance.options)
    largest = max(option.embed_dim for option in instance.options)
    num_devices = sum(len(group.names) for group in instance.groups)
    while (
        instance.fusion_us(int(most[EMBED_DIMS]) + smallest) <= fusion_us and most[EMBED_DIMS] < num_devices * largest
    ):
        most[EMBED_DIMS] += smallest
    most[DEVICES] = num_devices
    return most


def _retention_ppm(instance: Instance, candidate: Column, kept: Sequence[int]) -> dict[int, int]:
    shares = instance.options[candidate.option].at.share
    have = instance.units.importance[:, list(kept)].sum(axis=1)
    return {c: int(shares[c] * have[c] * 10**6 / IMPORTANCE_SCALE) for c in candidate.classes}


def _greedy(instance: Instance, option: Option, masks: Iterable[int], compute_us: int) -> dict[int, tuple[int, ...]]:
    """Return the full sub-models of most value per time, for those class subsets whose floors they meet."""
    found: dict[int, tuple[int, ...]] = {}
    allowed = [mask for mask in masks if instance.allows(option.group, classes_of(mask))]
    for at in range(0, len(allowed), _AT_ONCE):
        some = allowed[at : at + _AT_ONCE]
        for mask, kept in zip(some, _filled(instance, option, some, compute_us), strict=True):
            if kept is not None:
                found[mask] = kept
    return found


def _filled(
    instance: Instance, option: Option, masks: Sequence[int], compute_us: int
) -> Iterator[tuple[int, ...] | None]:
    """Yield a sub-model for each class subset, or None where none that meets the floors was found."""
    importance = instance.units.importance
    member = np.array(
        [[mask >> c & 1 for c in range(instance.num_classes)] for mask in masks], dtype=np.int64
    )  # (B, C)
    need = option.need[:, member.sum(axis=1) - 1].T * member  # (B, C)
    weight = member.astype(np.float64)
    kept = np.zeros((len(masks), len(instance.units)), dtype=bool)
    done = np.zeros(len(masks), dtype=bool)
    for _ in range(_ROUNDS):
        left = np.flatnonzero(~done)
        order = np.argsort(-(weight[left] @ importance) / np.maximum(1, option.unit_ticks), axis=1, kind="stable")
        taken = np.arange(order.shape[1]) < _most_that_fit(instance, option, order, compute_us)[:, None]
        tried = np.zeros(order.shape, dtype=bool)
        np.put_along_axis(tried, order, taken, axis=1)
        short = tried @ importance.T < need[left]
        done[left] = ~short.any(axis=1)
        kept[left] = tried
        weight[left] *= np.where(short, 2, 1)
    for row, is_done in zip(kept, done, strict=True):
        yield tuple(np.flatnonzero(row).tolist()) if is_done else None


def _most_that_fit(instance: Instance, option: Option, order: Ints, compute_us: int) -> Ints:
    """Return how many of the units, taken in these orders (B, U), fit into the time and the memory, (B,)."""
    units = instance.units
    half = units.block * 2 + units.is_head
    in_half = np.eye(2 * units.depth, dtype=np.int64)[half]  # (U, H)
    switches = np.where(np.arange(2 * units.depth) % 2 == 1, option.attention_ticks, option.mlp_ticks)
    activations = units.size * np.where(units.is_head, option.head_grains, option.channel_grains)
    opened = np.cumsum(in_half[order], axis=1) > 0  # (B, U, H)
    ticks = option.fixed_ticks + np.cumsum(option.unit_ticks[order], axis=1) + opened @ switches
    peaks = np.cumsum((in_half * activations[:, None])[order], axis=1).max(axis=2)
    grains = np.cumsum(option.unit_grains[order], axis=1) + peaks
    fits: Ints = ((ticks <= compute_us * option.ticks_per_us) & (grains <= option.free_grains)).sum(axis=1)
    return fits
