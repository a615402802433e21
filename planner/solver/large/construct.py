"""A first plan for many classes, from the blocks of `blocks`.

What a sub-model takes is little more than what its hardest class takes alone, at the floor for
their number. So classes equally hard belong together: one hard class among many easy ones makes
all of them dear. `blocks` says in which order the groups of devices follow each other from the
hardest classes to the easiest; each device takes the hardest class that is left and then the
next hardest, as many as it has time for. Classes that nobody had room for go where they do the
least harm: the plan is then slower than the target, but a plan.
"""

from collections.abc import Sequence

import numpy as np

from planner.arrays import Ints
from planner.solver.large.loads import Loads
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER
from planner.solver.submodels.cache import SubModelCache

# With more than this share of the classes left over, the target was too tight.
_LEFT_OVER = 0.1
# No device is tried with so many times more classes than the mean.
_TIMES_MEAN = 8
# Ranks at which a device is tried.
_RANKS = 200
# Devices that a left-over class is tried on.
_TRIED = 16


def construct(
    loads: Loads,
    order: Sequence[int],
    sequence: Sequence[int],
    devices: Sequence[int],
    target_us: int,
    clock: Clock,
    at_any_cost: bool = False,
) -> bool:
    """Place all classes on these devices, within the target where that can be done; say whether all found a place.

    Args:
        loads: Nothing placed yet; it is filled.
        order: The classes, the hardest first.
        sequence: The groups of the devices that take them, in this order; see `blocks`.
        devices: Those that may be used.
        target_us: What the slowest device is to take at most [us].
        clock: When it ends, so does this.
        at_any_cost: Go on even if many classes are left over.
    """
    world = loads.world
    for device in devices:
        if world.pinned[device] and not loads.classes[device]:
            loads.set(device, _closed(loads, world.pinned[device]))
    atoms = list(dict.fromkeys(world.atom_of[c] for c in order))
    free = {g: [d for d in devices if world.groups[d] == g] for g in set(sequence)}
    for g in sequence:
        if free[g] and not clock.expired():
            _take(loads, free[g].pop(0), atoms, target_us)
    for device in [d for rest in free.values() for d in rest]:
        _take(loads, device, atoms, target_us)
    if (loads.left > 0).sum() > max(3, _LEFT_OVER * len(loads.left)) and not at_any_cost:
        return False
    return place_rest(loads, devices, clock)


def served(
    workshop: SubModelCache, order: Ints, at_most: Ints, target_us: int, extra_us: Sequence[int], clock: Clock
) -> Ints:
    """Return how many classes a device serves in time when it begins at class c, by building it, (C, groups).

    Every so many ranks are tried, and what lies between takes the lesser of its neighbours.

    Args:
        workshop: Builds the sub-models.
        order: The classes, the hardest first.
        at_most: How many a bound allows, (C, groups).
        target_us: The time [us].
        extra_us: What each group waits for others [us].
        clock: When it ends, what was not tried counts as none.
    """
    num_classes = len(order)
    starts = np.unique(np.linspace(0, num_classes - 1, min(num_classes, _RANKS)).round().astype(int))
    num_devices = sum(len(group.names) for group in workshop.instance.groups)
    useful = 8 + _TIMES_MEAN * num_classes // num_devices
    count = np.minimum(at_most[order[starts]], np.minimum(useful, num_classes - starts)[:, None])  # (starts, groups)
    fits, fails = np.zeros_like(count), count + 1
    while (
        open_ := np.argwhere((fails - fits > np.maximum(1, fails // 32)) & (count > 0))
    ).size and not clock.expired():
        keys = [(g, tuple(sorted(order[starts[i] : starts[i] + count[i, g]].tolist()))) for i, g in open_.tolist()]
        for (i, g), serving in zip(open_.tolist(), workshop.serving(keys), strict=True):
            if serving.latency_us + extra_us[g] <= target_us:
                fits[i, g] = count[i, g]
            else:
                fails[i, g] = count[i, g]
        # A little less is most often enough.
        lower = np.maximum(fits, fails - 1 - fails // 16)
        count = np.where(fits > 0, (fits + fails) // 2, lower)
    found = np.zeros_like(at_most)
    after = np.searchsorted(starts, np.arange(num_classes))
    before = np.maximum(after - (starts[after] != np.arange(num_classes)), 0)
    found[order] = np.minimum(fits[before], fits[after])
    return found


def _closed(loads: Loads, classes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted({c for a in loads.atoms(classes) for c in loads.world.atoms[a]}))


def _take(loads: Loads, device: int, atoms: Sequence[int], target_us: int) -> None:
    """Give a device as many atoms as it has time for, in order."""
    possible: list[int] = []
    for a in atoms:
        if loads.left[a] > 0 and loads.may_take(device, a) and loads.suits(possible, a):
            possible.append(a)
    if not possible:
        return
    fits, fails, count = 0, len(possible) + 1, loads.guess(device, possible, target_us)
    while fails - fits > 1:
        count = min(fails - 1, max(fits + 1, count))
        taken = {c for a in possible[:count] for c in loads.world.atoms[a]}
        wanted = tuple(sorted({*loads.classes[device], *taken}))
        if loads.latencies([(device, wanted)])[0] <= target_us:
            fits, count = count, count + 1
        else:
            fails, count = count, count - 1
    if fits:
        taken = {c for a in possible[:fits] for c in loads.world.atoms[a]}
        loads.set(device, tuple(sorted({*loads.classes[device], *taken})))


def place_rest(loads: Loads, devices: Sequence[int], clock: Clock) -> bool:
    """Place the classes that are left over, the hardest first, where the device stays fastest; say whether all were."""
    world, hardness = loads.world, loads.world.hardness()
    rest = [a for a in np.flatnonzero(loads.left > 0).tolist() for _ in range(int(loads.left[a]))]
    if not rest:
        return True
    lacks = {device: loads.lacks(device, len(loads.classes[device]) + 1) for device in devices}
    for a in sorted(rest, key=lambda a: -hardness[world.atoms[a][0]]):
        if clock.expired():
            return False
        possible = [device for device in devices if loads.may_take(device, a)]
        mean = max(1.0, float(loads.latency_us[list(devices)].mean()))
        harm = [loads.latency_us[d] / mean + lacks[d][world.atoms[a][0]] for d in possible]
        nearest = [possible[i] for i in np.argsort(harm, kind="stable")[:_TRIED]]
        for some in (nearest, possible):
            wanted = [(device, loads.with_atom(device, a)) for device in some]
            latencies = loads.latencies(wanted)
            if wanted and min(latencies) < NEVER:
                break
        else:
            return False
        device, classes = wanted[int(np.argmin(latencies))]
        loads.set(device, classes)
        lacks[device] = loads.lacks(device, len(classes) + 1)
    return True
