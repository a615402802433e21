"""Making a plan for many classes better: classes move between two devices, or are swapped.

A device is judged by what it has left: the eighth power of its latency, as a share of the
slowest's, and (less) of how full its memory is. So the slowest devices count most; but room made
anywhere counts, since it may take a class from the slowest later. Changes are looked for between
two devices at a time, where a class lacks little in the other's sub-model, and only the most
promising are built. The slowest device's sub-model is also built exactly, which takes off the
last percent.
"""

from collections.abc import Iterator

import numpy as np

from planner.solver.large.construct import place_rest
from planner.solver.large.loads import Loads
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER
from planner.solver.submodels import knapsack

# Changes that are built for each pair of devices.
_MOVES, _SWAPS = 4, 14
_POWER, _WEIGHT_OF_MEMORY = 8, 0.1
# How often the slowest device is one of the pair.
_SHARE_OF_SLOWEST = 0.5
# How often the other is any device, and how many else are near.
_SHARE_OF_ANY, _NEIGHBOURS = 0.3, 6
# Without any improvement in so many pairs for each device, the search ends.
_PATIENCE = 60
# About what a round takes [s], where work is counted.
_ROUND_S = 1e-3
# The longest that one exact sub-model may take [s].
_EXACT_S = 2.0

# The new classes of the devices that a change is about.
Exchange = tuple[tuple[int, tuple[int, ...]], ...]


def local_search(loads: Loads, devices: list[int], clock: Clock, enough_us: int = 0) -> Iterator[None]:
    """Change the plan while that makes it better, and yield whenever its slowest device became faster."""
    rng = np.random.default_rng(0)
    exact: set[tuple[int, tuple[int, ...]]] = set()
    idle, slowest_us = 0, int(loads.latency_us.max())
    while len(devices) > 1 and idle < _PATIENCE * len(devices) and not clock.expired():
        clock.spend(_ROUND_S)
        slowest = devices[int(np.argmax(loads.latency_us[devices]))]
        if loads.latency_us[slowest] <= enough_us:
            return
        one = slowest if rng.random() < _SHARE_OF_SLOWEST else devices[rng.integers(len(devices))]
        other = _partner(loads, devices, one, rng)
        change = None if one == other else _best(loads, _changes(loads, one, other))
        idle += 1
        if change is not None:
            _apply(loads, change)
            idle = 0
        elif one == slowest and _exactly(loads, slowest, exact, clock):
            idle = 0
        if loads.latency_us.max() < slowest_us:
            slowest_us = int(loads.latency_us.max())
            yield


def _partner(loads: Loads, devices: list[int], one: int, rng: np.random.Generator) -> int:
    """Return a device to exchange with: most often one whose classes are about as hard."""
    if rng.random() < _SHARE_OF_ANY:
        return devices[int(rng.integers(len(devices)))]
    hardness = loads.world.hardness()
    mean = np.array([hardness[list(loads.classes[d])].mean() if loads.classes[d] else 0.0 for d in devices])
    near = np.argsort(np.abs(mean - mean[devices.index(one)]), kind="stable")
    return devices[int(near[min(len(near) - 1, int(rng.geometric(1 / _NEIGHBOURS)))])]


def _apply(loads: Loads, change: Exchange) -> None:
    # First what is given away, then what is taken.
    for device, classes in change:
        loads.set(device, tuple(c for c in loads.classes[device] if c in classes))
    for device, classes in change:
        loads.set(device, classes)


def _best(loads: Loads, changes: list[Exchange]) -> Exchange | None:
    """Return the change after which its devices are best off, if they are better off than now."""
    if not changes:
        return None
    slowest_us = float(loads.latency_us.max())

    def burden(latency_us: float, fullness: float) -> float:
        return (latency_us / slowest_us) ** _POWER + _WEIGHT_OF_MEMORY * fullness**_POWER

    costs = iter(loads.costs([part for change in changes for part in change]))
    now = sum(burden(loads.latency_us[d], loads.fullness[d]) for d, _ in changes[0])
    best, least = None, now * (1 - 1e-9)
    for change in changes:
        total = sum(burden(*next(costs)) for _ in change)
        if total < least:
            best, least = change, total
    return best


def _changes(loads: Loads, one: int, other: int) -> list[Exchange]:
    """Return the moves and swaps between two devices that promise most."""
    mine, theirs = _movable(loads, one), _movable(loads, other)
    first = [loads.world.atoms[a][0] for a in mine], [loads.world.atoms[b][0] for b in theirs]
    n, m = len(loads.classes[one]), len(loads.classes[other])
    changes: list[Exchange] = []
    for source, target, atoms, classes, count in ((one, other, mine, first[0], m), (other, one, theirs, first[1], n)):
        lacks = loads.lacks(target, count + 1)[classes] if classes else np.zeros(0)
        for i in np.argsort(lacks, kind="stable")[:_MOVES].tolist():
            if _may_change(loads, source, atoms[i], target):
                changes.append(((source, loads.without(source, atoms[i])), (target, loads.with_atom(target, atoms[i]))))
    if mine and theirs:
        hardness = loads.world.hardness()
        there, here = loads.lacks(other, m)[first[0]], loads.lacks(one, n)[first[1]]
        # Towards the busier device goes the easier class.
        lean = 1.0 if loads.latency_us[one] >= loads.latency_us[other] else -1.0
        gain = lean * (hardness[first[0]][:, None] - hardness[first[1]][None, :])
        score = there[:, None] + here[None, :] - 0.3 * gain
        order = np.argsort(score, axis=None, kind="stable")[:_SWAPS]
        for i, j in zip(*np.unravel_index(order, score.shape), strict=True):
            if _may_swap(loads, one, mine[i], other, theirs[j]):
                given, taken = set(loads.world.atoms[mine[i]]), set(loads.world.atoms[theirs[j]])
                changes.append(
                    (
                        (one, tuple(sorted({*loads.classes[one]} - given | taken))),
                        (other, tuple(sorted({*loads.classes[other]} - taken | given))),
                    )
                )
    return changes


def _movable(loads: Loads, device: int) -> list[int]:
    """Return the atoms of a device that are not pinned to it."""
    pinned = set(loads.world.pinned[device])
    return [a for a in loads.atoms(loads.classes[device]) if not pinned.intersection(loads.world.atoms[a])]


def _may_change(loads: Loads, source: int, atom: int, target: int, away: tuple[int, ...] = ()) -> bool:
    """Say whether the target may take an atom of the source, when it gives some classes away."""
    loads.forget(source, atom)
    possible = loads.may_take(target, atom, away)
    loads.remember(source, atom)
    return possible


def _may_swap(loads: Loads, one: int, mine: int, other: int, theirs: int) -> bool:
    atoms = loads.world.atoms
    return _may_change(loads, one, mine, other, atoms[theirs]) and _may_change(loads, other, theirs, one, atoms[mine])


def _exactly(loads: Loads, device: int, done: set[tuple[int, tuple[int, ...]]], clock: Clock) -> bool:
    """Build a device's cheapest sub-model; say whether it became faster."""
    world, workshop = loads.world, loads.workshop
    group, classes = world.groups[device], loads.classes[device]
    if (group, classes) in done or not classes:
        return False
    done.add((group, classes))
    before = int(loads.latency_us[device])
    option = workshop.known[group, classes].option
    if option < 0 or before >= NEVER:
        return False
    answer = knapsack.cheapest(world.instance, world.instance.options[option], classes, clock, _EXACT_S)
    if answer.kept is not None:
        workshop.improve(group, classes, option, answer.kept)
        loads.set(device, classes)
    return int(loads.latency_us[device]) < before


def close_devices(loads: Loads, devices: list[int], target_us: int, by_energy: bool, clock: Clock) -> None:
    """Do without devices whose classes others can take in time: for the energy, or for fewer devices."""
    world = loads.world

    def energy(of: Loads) -> int:
        return world.instance.energy(of.placed())

    for device in sorted(devices, key=lambda device: len(loads.classes[device])):
        if not loads.classes[device] or world.pinned[device] or clock.expired():
            continue
        others = [d for d in devices if d != device and loads.classes[d]]
        without = loads.copy()
        without.set(device, ())
        placed = bool(others) and place_rest(without, others, clock) and int(without.latency_us.max()) <= target_us
        if placed and (not by_energy or energy(without) < energy(loads)):
            loads.take_over(without)
