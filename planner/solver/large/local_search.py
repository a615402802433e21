"""Local search on a plan for many classes: classes move between two devices, or are swapped.

The burden of a device is the eighth power of its latency, as a share of the slowest's, and (less) that of how full its
memory is. So the slowest devices count most; but room made anywhere counts, since it may take a class from the slowest
later. Moves and swaps are looked for between two devices at a time, where a class falls little short in the other's
sub-model, and only the most promising are built. The slowest device's sub-model is also built exactly, which takes off
the last percent.
"""

from collections.abc import Iterator

import numpy as np

from planner.solver.large.construct import place_rest
from planner.solver.large.loads import Loads
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER

# Changes that are built for each pair of devices.
_MOVES, _SWAPS = 4, 14
_POWER, _WEIGHT_OF_MEMORY = 8, 0.1
# Probability that the slowest device is one of the pair.
_SHARE_OF_SLOWEST = 0.5
# Probability that the other is drawn from all devices, and the mean rank of it among the nearest otherwise.
_SHARE_OF_ANY, _NEIGHBOURS = 0.3, 6
# Pairs for each device without any improvement, after which the search ends.
_PATIENCE = 60
# Rough time of a round [s], where work is counted.
_ROUND_S = 1e-3
# Time limit of one exact sub-model [s].
_EXACT_S = 2.0

# New classes of the devices that take part in an exchange.
Exchange = tuple[tuple[int, tuple[int, ...]], ...]


def local_search(loads: Loads, devices: list[int], clock: Clock, enough_us: int = 0) -> Iterator[None]:
    """Exchange classes while that makes the plan better, and yield whenever its slowest device became faster."""
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
        exchange = None if one == other else _best(loads, _exchanges(loads, one, other))
        idle += 1
        if exchange is not None:
            _apply(loads, exchange)
            idle = 0
        elif one == slowest and _exactly(loads, slowest, exact):
            idle = 0
        if loads.latency_us.max() < slowest_us:
            slowest_us = int(loads.latency_us.max())
            yield


def _partner(loads: Loads, devices: list[int], one: int, rng: np.random.Generator) -> int:
    """Return a device to exchange with, most often one whose classes are about as hard."""
    if rng.random() < _SHARE_OF_ANY:
        return devices[int(rng.integers(len(devices)))]
    hardness = loads.fleet.hardness()
    mean = np.array([hardness[list(loads.classes[d])].mean() if loads.classes[d] else 0.0 for d in devices])
    near = np.argsort(np.abs(mean - mean[devices.index(one)]), kind="stable")
    return devices[int(near[min(len(near) - 1, int(rng.geometric(1 / _NEIGHBOURS)))])]


def _apply(loads: Loads, exchange: Exchange) -> None:
    # Classes are given away before they are taken: a class may be on one device only.
    for device, classes in exchange:
        loads.set(device, tuple(c for c in loads.classes[device] if c in classes))
    for device, classes in exchange:
        loads.set(device, classes)


def _best(loads: Loads, exchanges: list[Exchange]) -> Exchange | None:
    """Return the exchange with the least burden afterwards, if that is less than now."""
    if not exchanges:
        return None
    slowest_us = float(loads.latency_us.max())

    def burden(latency_us: float, fullness: float) -> float:
        return (latency_us / slowest_us) ** _POWER + _WEIGHT_OF_MEMORY * fullness**_POWER

    costs = iter(loads.costs([part for exchange in exchanges for part in exchange]))
    now = sum(burden(loads.latency_us[d], loads.fullness[d]) for d, _ in exchanges[0])
    best, least = None, now * (1 - 1e-9)
    for exchange in exchanges:
        total = sum(burden(*next(costs)) for _ in exchange)
        if total < least:
            best, least = exchange, total
    return best


def _exchanges(loads: Loads, one: int, other: int) -> list[Exchange]:
    """Return the most promising moves and swaps between two devices."""
    mine, theirs = _movable(loads, one), _movable(loads, other)
    first = [loads.fleet.atoms[a][0] for a in mine], [loads.fleet.atoms[b][0] for b in theirs]
    n, m = len(loads.classes[one]), len(loads.classes[other])
    exchanges: list[Exchange] = []
    for source, target, atoms, classes, count in ((one, other, mine, first[0], m), (other, one, theirs, first[1], n)):
        shortfalls = loads.shortfall(target, count + 1)[classes] if classes else np.zeros(0)
        for i in np.argsort(shortfalls, kind="stable")[:_MOVES].tolist():
            if _may_move(loads, source, atoms[i], target):
                exchanges.append(
                    ((source, loads.without(source, atoms[i])), (target, loads.with_atom(target, atoms[i])))
                )
    if mine and theirs:
        hardness = loads.fleet.hardness()
        there, here = loads.shortfall(other, m)[first[0]], loads.shortfall(one, n)[first[1]]
        # Towards the busier device goes the easier class.
        lean = 1.0 if loads.latency_us[one] >= loads.latency_us[other] else -1.0
        gain = lean * (hardness[first[0]][:, None] - hardness[first[1]][None, :])
        score = there[:, None] + here[None, :] - 0.3 * gain
        order = np.argsort(score, axis=None, kind="stable")[:_SWAPS]
        for i, j in zip(*np.unravel_index(order, score.shape), strict=True):
            if _may_swap(loads, one, mine[i], other, theirs[j]):
                given, taken = set(loads.fleet.atoms[mine[i]]), set(loads.fleet.atoms[theirs[j]])
                exchanges.append(
                    (
                        (one, tuple(sorted({*loads.classes[one]} - given | taken))),
                        (other, tuple(sorted({*loads.classes[other]} - taken | given))),
                    )
                )
    return exchanges


def _movable(loads: Loads, device: int) -> list[int]:
    """Return the atoms of a device that are not pinned to it."""
    pinned = set(loads.fleet.pinned[device])
    return [a for a in loads.atoms(loads.classes[device]) if not pinned.intersection(loads.fleet.atoms[a])]


def _may_move(loads: Loads, source: int, atom: int, target: int, away: tuple[int, ...] = ()) -> bool:
    """Return whether the target may take an atom of the source, when it gives some classes away."""
    loads.forget(source, atom)
    possible = loads.may_take(target, atom, away)
    loads.remember(source, atom)
    return possible


def _may_swap(loads: Loads, one: int, mine: int, other: int, theirs: int) -> bool:
    atoms = loads.fleet.atoms
    return _may_move(loads, one, mine, other, atoms[theirs]) and _may_move(loads, other, theirs, one, atoms[mine])


def _exactly(loads: Loads, device: int, done: set[tuple[int, tuple[int, ...]]]) -> bool:
    """Build a device's cheapest sub-model exactly; return whether it became faster."""
    fleet, cache = loads.fleet, loads.cache
    group, classes = fleet.groups[device], loads.classes[device]
    if (group, classes) in done or not classes:
        return False
    done.add((group, classes))
    before = int(loads.latency_us[device])
    if before >= NEVER:
        return False
    cache.polish(cache.known[group, classes].option, classes, _EXACT_S)
    loads.set(device, classes)
    return int(loads.latency_us[device]) < before


def close_devices(loads: Loads, devices: list[int], target_us: int, by_energy: bool, clock: Clock) -> None:
    """Idle devices whose classes others can take in time, for less energy or fewer devices."""
    fleet = loads.fleet

    def energy(of: Loads) -> int:
        return fleet.instance.energy(of.placed())

    for device in sorted(devices, key=lambda device: len(loads.classes[device])):
        if not loads.classes[device] or fleet.pinned[device] or clock.expired():
            continue
        others = [d for d in devices if d != device and loads.classes[d]]
        without = loads.copy()
        without.set(device, ())
        placed = bool(others) and place_rest(without, others, clock) and int(without.latency_us.max()) <= target_us
        if placed and (not by_energy or energy(without) < energy(loads)):
            loads.take_over(without)
