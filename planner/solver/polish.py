"""Making a plan for many classes faster: classes move off the slowest device, or are swapped.

Moves are looked for where they promise most (a device with time to spare, in whose sub-model the
class lacks little), and only the most promising are built. Where no move helps, the slowest
device's sub-model is built exactly, which takes off the last percent.
"""

from collections.abc import Iterator

import numpy as np

from planner.solver import submodel
from planner.solver.clock import Clock
from planner.solver.fill import Loads, place_rest
from planner.solver.instance import NEVER

# Moves, and swaps, that are built each time.
_MOVES, _SWAPS = 48, 96
# The longest that one exact sub-model may take [s].
_EXACT_S = 2.0

# The new classes of the devices that a move changes.
Move = tuple[tuple[int, tuple[int, ...]], ...]


def polish(loads: Loads, devices: list[int], clock: Clock, enough_us: int = 0) -> Iterator[None]:
    """Change the plan while that makes its slowest device faster, and yield after every change."""
    exact: set[tuple[int, tuple[int, ...]]] = set()
    while not clock.expired():
        slowest = devices[int(np.argmax(loads.latency_us[devices]))]
        if loads.latency_us[slowest] <= enough_us:
            return
        move = _best(loads, _moves(loads, devices, slowest)) or _best(loads, _swaps(loads, devices, slowest))
        if move is not None:
            # First what is given away, then what is taken.
            for device, classes in move:
                loads.set(device, tuple(c for c in loads.classes[device] if c in classes))
            for device, classes in move:
                loads.set(device, classes)
        elif not _exactly(loads, slowest, exact, clock):
            return
        yield


def shed(loads: Loads, devices: list[int], target_us: int, by_energy: bool, clock: Clock) -> None:
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
        placed = bool(others) and place_rest(without, others) and int(without.latency_us.max()) <= target_us
        if placed and (not by_energy or energy(without) < energy(loads)):
            loads.take_over(without)


def _best(loads: Loads, moves: Iterator[Move]) -> Move | None:
    """Return the move after which the slowest of its devices is fastest, if that is faster than now."""
    tried = list(moves)
    latencies = iter(loads.latencies([change for move in tried for change in move]))
    now = int(loads.latency_us.max())
    best, best_us = None, now
    for move in tried:
        slowest_us = max(next(latencies) for _ in move)
        if slowest_us < best_us:
            best, best_us = move, slowest_us
    return best


def _moves(loads: Loads, devices: list[int], slowest: int) -> Iterator[Move]:
    """Yield moves of one atom from the slowest device to another, the most promising."""
    world, now = loads.world, int(loads.latency_us[slowest])
    pinned = set(world.pinned[slowest])
    own = [a for a in loads.atoms(loads.classes[slowest]) if not pinned.intersection(world.atoms[a])]
    first = [world.atoms[a][0] for a in own]
    scored = []
    for device in devices:
        count = len(loads.classes[device]) + 1
        if device == slowest or loads.latency_us[device] >= now or not own:
            continue
        fast = world.fast_enough(world.groups[device], count, now - 1 - loads.extra_us[device])[first]
        lacks = loads.lacks(device, count)[first] + loads.latency_us[device] / now
        scored += [
            (float(lacks[i]), device, a) for i, a in enumerate(own) if fast[i] and _may_move(loads, slowest, device, a)
        ]
    for _, device, a in sorted(scored)[:_MOVES]:
        yield ((slowest, loads.without(slowest, a)), (device, loads.with_atom(device, a)))


def _may_move(loads: Loads, source: int, target: int, atom: int) -> bool:
    if loads.world.copies == 1:
        return loads.may_take(target, atom)
    before = loads.classes[source]
    loads.set(source, loads.without(source, atom))
    possible = loads.may_take(target, atom)
    loads.set(source, before)
    return possible


def _swaps(loads: Loads, devices: list[int], slowest: int) -> Iterator[Move]:
    """Yield swaps of an atom of the slowest device for one of another, the most promising."""
    world, now = loads.world, int(loads.latency_us[slowest])
    pinned = set(world.pinned[slowest])
    own = [a for a in loads.atoms(loads.classes[slowest]) if not pinned.intersection(world.atoms[a])]
    mine = [world.atoms[a][0] for a in own]
    hardness = world.hardness()
    here = loads.lacks(slowest, len(loads.classes[slowest]))
    fast_here = world.fast_enough(
        world.groups[slowest], max(1, len(loads.classes[slowest])), now - 1 - loads.extra_us[slowest]
    )
    scored = []
    for device in devices:
        if device == slowest or not loads.classes[device] or loads.latency_us[device] >= now or not own:
            continue
        kept = set(world.pinned[device])
        theirs = [b for b in loads.atoms(loads.classes[device]) if not kept.intersection(world.atoms[b])]
        count = len(loads.classes[device])
        fast = world.fast_enough(world.groups[device], count, now - 1 - loads.extra_us[device])
        there = loads.lacks(device, count)
        for a, c in zip(own, mine, strict=True):
            if not fast[c]:
                continue
            for b in theirs:
                k = world.atoms[b][0]
                if fast_here[k]:
                    gain = hardness[c] - hardness[k]
                    scored.append((float(there[c] + here[k] - gain + loads.latency_us[device] / now), device, a, b))
    for _, device, a, b in sorted(scored)[:_SWAPS]:
        if not (_fits_swap(loads, slowest, a, device, b) and _fits_swap(loads, device, b, slowest, a)):
            continue
        given, taken = set(world.atoms[a]), set(world.atoms[b])
        yield (
            (slowest, tuple(sorted({*loads.classes[slowest]} - given | taken))),
            (device, tuple(sorted({*loads.classes[device]} - taken | given))),
        )


def _fits_swap(loads: Loads, source: int, atom: int, target: int, away: int) -> bool:
    """Say whether the target may take an atom of the source when it gives another away."""
    world = loads.world
    if world.copies == 1:
        rest = tuple(c for c in loads.classes[target] if c not in world.atoms[away])
        never = world.instance.groups[world.groups[target]].never
        return world.may_join(atom, rest) and not never.intersection(world.atoms[atom])
    before = loads.classes[source]
    loads.set(source, loads.without(source, atom))
    possible = loads.may_take(target, atom, world.atoms[away])
    loads.set(source, before)
    return possible


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
    answer = submodel.cheapest(world.instance, world.instance.options[option], classes, clock, _EXACT_S)
    if answer.kept is not None:
        workshop.improve(group, classes, option, answer.kept)
        loads.set(device, classes)
    return int(loads.latency_us[device]) < before
