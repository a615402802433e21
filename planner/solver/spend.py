"""The second objective: where the first is settled, the most retention.

A device that is not the bottleneck has time to spare, and an idle one may have all of it. What
finishes in time and costs nothing is taken: more units for the classes a device serves, more
classes while the floors hold, a sub-model for an idle device. Fused accuracy gains from every
feature that comes for free. Then, since nothing is kept that no class needs, the least energy.

The classes are chosen among the candidates at hand (the largest subsets that can finish in
time, each filled greedily), the units of each device by an integer program. The first objective
is never touched: its proof stands. Where energy has a say, nothing is free, and nothing is spent.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from planner.solver import submodel
from planner.solver.assign import Candidate, mask_of, richest_cover
from planner.solver.clock import Clock
from planner.solver.instance import DEVICES, EMBED_DIMS, IMPORTANCE_SCALE, Instance, Ints, Option, Placed
from planner.solver.knowledge import Knowledge

# Rounds in which a greedy filling gives more weight to the classes that fell short.
_ROUNDS = 4


def spend(
    instance: Instance,
    placed: Sequence[Placed],
    knowledge: Knowledge | None,
    clock: Clock,
    stays: Sequence[Placed] = (),
) -> tuple[Placed, ...]:
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


def _fill(instance: Instance, p: Placed, compute_us: int, clock: Clock) -> Placed:
    return Placed(p.option, p.classes, submodel.fill(instance, p.option, p.classes, compute_us, p.kept, clock))


def _more_classes(
    instance: Instance, placed: Sequence[Placed], knowledge: Knowledge, slowest_us: int, clock: Clock
) -> Sequence[Placed]:
    """Choose class subsets anew: the richest that finish in time."""
    options = {option: o for o, option in enumerate(instance.options)}
    pool = {Candidate(options[p.option], mask_of(p.classes)): p.kept for p in placed}
    most = _most(instance, placed)
    limits = np.array([slowest_us - instance.path_us(option, most) for option in instance.options])
    try:
        largest = knowledge.within(limits, clock)
    except TimeoutError:
        return placed
    for candidate in largest:
        if clock.expired():
            break
        option, limit_us = instance.options[candidate.option], int(limits[candidate.option])
        for mask in _itself_or_smaller(candidate.mask):
            smaller = Candidate(candidate.option, mask)
            if not instance.allows(option.group, smaller.classes):
                continue
            kept = greedy(instance, option, smaller.classes, limit_us)
            if kept is not None:
                pool.setdefault(smaller, kept)
                break
    candidates = sorted(pool)
    retention = [_retention_ppm(instance, i, pool[i]) for i in candidates]
    chosen = richest_cover(instance, candidates, retention, most, clock)
    if chosen is None:
        return placed
    return [Placed(instance.options[i.option], i.classes, pool[i]) for i in chosen]


def _itself_or_smaller(mask: int) -> Iterable[int]:
    yield mask
    for c in range(mask.bit_length()):
        if mask >> c & 1 and mask != 1 << c:
            yield mask & ~(1 << c)


def _most(instance: Instance, placed: Sequence[Placed]) -> Ints:
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


def _retention_ppm(instance: Instance, candidate: Candidate, kept: Sequence[int]) -> dict[int, int]:
    shares = instance.options[candidate.option].at.share
    have = instance.units.importance[:, list(kept)].sum(axis=1)
    return {c: int(shares[c] * have[c] * 10**6 / IMPORTANCE_SCALE) for c in candidate.classes}


def greedy(instance: Instance, option: Option, classes: Sequence[int], compute_us: int) -> tuple[int, ...] | None:
    """Return a sub-model that is full and meets the floors, taking the units of most value per time."""
    importance = instance.units.importance[list(classes)]
    need = option.need[list(classes), len(classes) - 1]
    weight = np.ones(len(classes))
    for _ in range(_ROUNDS):
        density = (weight @ importance) / np.maximum(1, option.unit_ticks)
        order = np.argsort(-density, kind="stable")
        kept = order[: _most_that_fit(instance, option, order, compute_us)]
        have = importance[:, kept].sum(axis=1)
        if (have >= need).all():
            return tuple(sorted(kept.tolist()))
        weight[have < need] *= 2
    return None


def _most_that_fit(instance: Instance, option: Option, order: Ints, compute_us: int) -> int:
    fits, fails = 0, len(order) + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        kept = order[:middle].tolist()
        if instance.fits(option, kept) and instance.compute_us(option, kept) <= compute_us:
            fits = middle
        else:
            fails = middle
    return fits
