"""Construction of a first plan for many classes, from the intervals of `interval_dp`.

The time of a sub-model is little more than that of its hardest class alone, at the floor for their number. So classes
equally hard belong together: one hard class among many easy ones makes all of them dear. `interval_dp` gives the order
in which the groups of devices follow each other from the hardest classes to the easiest; each device takes the hardest
class that is left and then the next hardest, as many as it has time for. Classes that are left over go where they do
the least harm: the plan is then slower than the target, but a plan.
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
# No device is tried with more classes than so many times the mean.
_MAX_TIMES_MEAN = 8
# Ranks at which a device is tried.
_NUM_RANKS = 200
# Devices on which a left-over class is tried.
_NUM_TRIED = 16


def construct(
    loads: Loads,
    order: Sequence[int],
    sequence: Sequence[int],
    devices: Sequence[int],
    target_us: int,
    clock: Clock,
    at_any_cost: bool = False,
) -> bool:
    """Place all classes on these devices, within the target if possible; return whether all were placed.

    Args:
        loads: Loads of classes pinned in advance, or empty; they are filled.
        order: Classes, the hardest first.
        sequence: Groups of the devices that take them, in this order; see `interval_dp`.
        devices: Devices that may be used.
        target_us: Latency of the slowest device to stay within [us].
        clock: Time for it.
        at_any_cost: Go on even if many classes are left over.
    """
    fleet = loads.fleet
    for device in devices:
        if fleet.pinned[device] and not loads.classes[device]:
            loads.set(device, _closed(loads, fleet.pinned[device]))
    atoms = list(dict.fromkeys(fleet.atom_of[c] for c in order))
    free = {g: [d for d in devices if fleet.groups[d] == g] for g in set(sequence)}
    for g in sequence:
        if free[g] and not clock.expired():
            _take(loads, free[g].pop(0), atoms, target_us, clock)
    for device in [d for rest in free.values() for d in rest]:
        if clock.expired():
            break
        _take(loads, device, atoms, target_us, clock)
    if (loads.left > 0).sum() > max(3, _LEFT_OVER * len(loads.left)) and not at_any_cost:
        return False
    return place_rest(loads, devices, clock)


def num_served(
    cache: SubModelCache, order: Ints, max_served: Ints, target_us: int, extra_us: Sequence[int], clock: Clock
) -> Ints:
    """Return the number of classes that a device serves in time from class c on, by building sub-models, (C, groups).

    Some ranks are tried, and those between take the lesser number of their neighbours.

    Args:
        cache: Sub-models.
        order: Classes, the hardest first.
        max_served: Bound on the number, (C, groups).
        target_us: Time limit [us].
        extra_us: Wait of each group for others [us].
        clock: Time for it; out of time, ranks that were not tried count as none.
    """
    num_classes = len(order)
    starts = np.unique(np.linspace(0, num_classes - 1, min(num_classes, _NUM_RANKS)).round().astype(int))
    num_devices = sum(len(group.names) for group in cache.instance.groups)
    useful = 8 + _MAX_TIMES_MEAN * num_classes // num_devices
    count = np.minimum(max_served[order[starts]], np.minimum(useful, num_classes - starts)[:, None])  # (starts, groups)
    fits, fails = np.zeros_like(count), count + 1
    while (
        open_ := np.argwhere((fails - fits > np.maximum(1, fails // 32)) & (count > 0))
    ).size and not clock.expired():
        keys = [(g, tuple(sorted(order[starts[i] : starts[i] + count[i, g]].tolist()))) for i, g in open_.tolist()]
        for (i, g), sub_model in zip(open_.tolist(), cache.sub_models(keys), strict=True):
            if sub_model.latency_us + extra_us[g] <= target_us:
                fits[i, g] = count[i, g]
            else:
                fails[i, g] = count[i, g]
        # A little less is most often enough.
        lower = np.maximum(fits, fails - 1 - fails // 16)
        count = np.where(fits > 0, (fits + fails) // 2, lower)
    found = np.zeros_like(max_served)
    after = np.searchsorted(starts, np.arange(num_classes))
    before = np.maximum(after - (starts[after] != np.arange(num_classes)), 0)
    found[order] = np.minimum(fits[before], fits[after])
    return found


def _closed(loads: Loads, classes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted({c for a in loads.atoms(classes) for c in loads.fleet.atoms[a]}))


def _take(loads: Loads, device: int, atoms: Sequence[int], target_us: int, clock: Clock) -> None:
    """Give a device as many atoms as it has time for, in order."""
    possible: list[int] = []
    for a in atoms:
        if loads.left[a] > 0 and loads.may_take(device, a) and loads.suits(possible, a):
            possible.append(a)
    if not possible:
        return
    # About as many as the class alone would allow, then by doubled steps away from the guess, then between.
    fits, fails, count, step = 0, len(possible) + 1, loads.guess(device, possible, target_us), 1
    while fails - fits > 1 and not clock.expired():
        count = min(fails - 1, max(fits + 1, count))
        taken = {c for a in possible[:count] for c in loads.fleet.atoms[a]}
        wanted = tuple(sorted({*loads.classes[device], *taken}))
        if loads.latencies([(device, wanted)])[0] <= target_us:
            fits, count = count, count + step
        else:
            fails, count = count, count - step
        step *= 2
        if fits and fails <= len(possible):
            count = (fits + fails) // 2
    if fits:
        taken = {c for a in possible[:fits] for c in loads.fleet.atoms[a]}
        loads.set(device, tuple(sorted({*loads.classes[device], *taken})))


def place_rest(loads: Loads, devices: Sequence[int], clock: Clock) -> bool:
    """Place left-over classes, the hardest first, where the device stays fastest; return whether all were placed."""
    fleet, hardness = loads.fleet, loads.fleet.hardness()
    rest = [a for a in np.flatnonzero(loads.left > 0).tolist() for _ in range(int(loads.left[a]))]
    if not rest:
        return True
    shortfalls = {device: loads.shortfall(device, len(loads.classes[device]) + 1) for device in devices}
    for a in sorted(rest, key=lambda a: -hardness[fleet.atoms[a][0]]):
        if clock.expired():
            return False
        possible = [device for device in devices if loads.may_take(device, a)]
        mean = max(1.0, float(loads.latency_us[list(devices)].mean()))
        harm = [loads.latency_us[d] / mean + shortfalls[d][fleet.atoms[a][0]] for d in possible]
        nearest = [possible[i] for i in np.argsort(harm, kind="stable")[:_NUM_TRIED]]
        for some in (nearest, possible):
            wanted = [(device, loads.with_atom(device, a)) for device in some]
            latencies = loads.latencies(wanted)
            if wanted and min(latencies) < NEVER:
                break
        else:
            return False
        device, classes = wanted[int(np.argmin(latencies))]
        loads.set(device, classes)
        shortfalls[device] = loads.shortfall(device, len(classes) + 1)
    return True
