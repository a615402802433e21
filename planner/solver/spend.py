"""The second objective: at the least latency, the most retention.

A device that is not the bottleneck has time to spare, and an idle one may have all of it. What
finishes in time and costs nothing is taken: more units for the classes a device serves, more
classes while the floors hold, a sub-model for an idle device. Fused accuracy gains from every
feature that comes for free. Then, since nothing is kept that no class needs, the least energy.

The classes are chosen among the candidates at hand (the largest subsets that can finish in
time, each filled greedily), the units of each device by an integer program. The first objective
is never touched: its proof stands.
"""

import time
from collections.abc import Iterable, Sequence

import numpy as np

from planner.solver import submodel
from planner.solver.assign import Candidate, richest_cover
from planner.solver.exact import Knowledge
from planner.solver.instance import IMPORTANCE_SCALE, Instance, Ints, Option, Placed

# Rounds in which a greedy filling gives more weight to the classes that fell short.
_ROUNDS = 4


def spend(
    instance: Instance, placed: Sequence[Placed], knowledge: Knowledge | None, deadline: float
) -> tuple[Placed, ...]:
    """Return a placement of the same latency, chosen to retain as much as the candidates at hand allow.

    Args:
        placed: A plan.
        knowledge: What the search learned of class subsets, where there are few enough to list.
        deadline: When to leave the rest as it is, in the time of `time.monotonic` [s].
    """
    bottleneck_us = max(instance.latency_us(p.option, p.kept) for p in placed)
    if knowledge is not None and not instance.goal.leave_idle:
        placed = _more_classes(instance, placed, knowledge, bottleneck_us, deadline)
    return tuple(p if time.monotonic() > deadline else _fill(instance, p, bottleneck_us) for p in placed)


def _fill(instance: Instance, p: Placed, latency_us: int) -> Placed:
    compute_us = latency_us - p.option.path_us
    return Placed(p.option, p.classes, submodel.fill(instance, p.option, p.classes, compute_us, p.kept))


def _more_classes(
    instance: Instance, placed: Sequence[Placed], knowledge: Knowledge, latency_us: int, deadline: float
) -> Sequence[Placed]:
    """Choose class subsets anew: the richest that finish in time."""
    options = {option: o for o, option in enumerate(instance.options)}
    pool = {Candidate(options[p.option], sum(1 << c for c in p.classes)): p.kept for p in placed}
    try:
        largest = knowledge.within(latency_us, deadline)
    except TimeoutError:
        return placed
    for candidate in largest:
        if time.monotonic() > deadline:
            break
        for mask in _itself_or_smaller(candidate.mask):
            smaller = Candidate(candidate.option, mask)
            kept = _greedy(instance, instance.options[smaller.option], smaller.classes, latency_us)
            if kept is not None:
                pool.setdefault(smaller, kept)
                break
    candidates = sorted(pool)
    retention = [_retention_ppm(instance, i, pool[i]) for i in candidates]
    chosen = richest_cover(instance, candidates, retention, _most_embed_dims(instance, placed))
    if chosen is None:
        return placed
    return [Placed(instance.options[i.option], i.classes, pool[i]) for i in chosen]


def _itself_or_smaller(mask: int) -> Iterable[int]:
    yield mask
    for c in range(mask.bit_length()):
        if mask >> c & 1 and mask != 1 << c:
            yield mask & ~(1 << c)


def _most_embed_dims(instance: Instance, placed: Sequence[Placed]) -> int:
    """The most embed dims that the fusion can take in the time that it takes now."""
    used = sum(p.option.embed_dim for p in placed)
    fusion_us = instance.fusion_us(used)
    smallest = min(option.embed_dim for option in instance.options)
    most = sum(map(len, instance.groups)) * max(option.embed_dim for option in instance.options)
    while instance.fusion_us(used + smallest) <= fusion_us and used < most:
        used += smallest
    return used


def _retention_ppm(instance: Instance, candidate: Candidate, kept: Sequence[int]) -> dict[int, int]:
    shares = instance.options[candidate.option].at.width.embed_retention
    have = instance.units.importance[:, list(kept)].sum(axis=1)
    return {c: int(shares[c] * have[c] * 10**6 / IMPORTANCE_SCALE) for c in candidate.classes}


def _greedy(instance: Instance, option: Option, classes: Sequence[int], latency_us: int) -> tuple[int, ...] | None:
    """Return a sub-model that is full and meets the floors, taking the units of most value per time."""
    importance = instance.units.importance[list(classes)]
    need = option.need[list(classes), len(classes) - 1]
    weight = np.ones(len(classes))
    for _ in range(_ROUNDS):
        density = (weight @ importance) / np.maximum(1, option.unit_ticks)
        order = np.argsort(-density, kind="stable")
        kept = order[: _most_that_fit(instance, option, order, latency_us)]
        have = importance[:, kept].sum(axis=1)
        if (have >= need).all():
            return tuple(sorted(kept.tolist()))
        weight[have < need] *= 2
    return None


def _most_that_fit(instance: Instance, option: Option, order: Ints, latency_us: int) -> int:
    fits, fails = 0, len(order) + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        kept = order[:middle].tolist()
        if instance.fits(option, kept) and instance.latency_us(option, kept) <= latency_us:
            fits = middle
        else:
            fails = middle
    return fits
