"""Class subsets as small as the demands allow: each class on no more devices than it must be.

A sub-model is recovered for its own classes first, so devices that all serve everything learn the same and add little
to each other: on the digits ViT, four small boards lost 5.2 points with all classes on each, and 3.0 with a quarter of
them on each. Which classes a device serves changes neither its time nor its memory.
"""

from collections.abc import Sequence

import numpy as np

from planner.solver.problem.instance import Instance
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.retained import FleetUnits


def specialised(
    instance: Instance, placed: Sequence[PlacedSubModel], stays: Sequence[PlacedSubModel] = ()
) -> tuple[PlacedSubModel, ...]:
    """Return the sub-models with classes dealt out evenly, each to a device that serves it already.

    Where demands do not allow that, nothing is changed.

    Args:
        instance: Problem.
        placed: Placement of a plan.
        stays: Sub-models of it that are left as they are.
    """
    rows = FleetUnits.of(instance, placed).rows
    chosen = [set(p.classes if p in stays else instance.groups[p.option.group].pinned) for p in placed]
    num_serving = [sum(c in p.classes for p in placed) for c in range(instance.num_classes)]
    # Those with the least choice first.
    for c in sorted(range(instance.num_classes), key=num_serving.__getitem__):
        for rule in instance.survival_rules:
            having = [d for d, p in enumerate(placed) if p.option.group in rule.groups and c in p.classes]
            missing = rule.min_devices - sum(c in chosen[d] for d in having)
            free = sorted((d for d in having if c not in chosen[d]), key=lambda d: (len(chosen[d]), -rows[d, c]))
            for d in free[: max(0, missing)]:
                chosen[d].add(c)
    for d, p in enumerate(placed):
        if not chosen[d]:
            # Of a device that has many.
            fullest = max(range(len(placed)), key=lambda e: len(chosen[e] & set(p.classes)))
            shared = sorted(chosen[fullest] & set(p.classes))
            c = shared[int(np.argmax(rows[d, shared]))] if shared else p.classes[0]
            chosen[d].add(c)
            may_lose = len(chosen[fullest]) > 1 and placed[fullest] not in stays
            if shared and may_lose and _is_spare(instance, placed, chosen, fullest, c):
                chosen[fullest].remove(c)
    if not all(instance.allows(p.option.group, classes) for p, classes in zip(placed, chosen, strict=True)):
        return tuple(placed)
    return tuple(
        PlacedSubModel(p.option, tuple(sorted(classes)), p.kept) for p, classes in zip(placed, chosen, strict=True)
    )


def _is_spare(
    instance: Instance, placed: Sequence[PlacedSubModel], chosen: Sequence[set[int]], device: int, c: int
) -> bool:
    """Return whether a class is served often enough without a device."""
    if c in instance.groups[placed[device].option.group].pinned:
        return False
    return all(
        sum(c in chosen[d] for d, p in enumerate(placed) if d != device and p.option.group in rule.groups)
        >= rule.min_devices
        for rule in instance.survival_rules
    )
