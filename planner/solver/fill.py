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

from planner.solver.clock import Clock
from planner.solver.instance import NEVER, Ints, Placed
from planner.solver.loads import Fleetwide, Workshop
from planner.solver.prices import Floats

# With more than this share of the classes left over, the target was too tight.
_LEFT_OVER = 0.1
# Ranks at which a device is tried.
_RANKS = 200
# Devices that a left-over class is tried on.
_TRIED = 16


class Loads:
    """The classes that each device serves, with the sub-models for them."""

    def __init__(self, world: Fleetwide, workshop: Workshop, extra_us: Sequence[int]) -> None:
        self.world, self.workshop = world, workshop
        self.classes: list[tuple[int, ...]] = [()] * len(world.groups)
        self.latency_us = np.zeros(len(world.groups), dtype=np.int64)
        self.kept = np.zeros((len(world.groups), len(world.instance.units)), dtype=np.float64)
        # What each device waits for others on shared media, if all devices in play are used.
        self.extra_us = extra_us
        self.left = np.full(len(world.atoms), world.copies)
        self._on: list[set[str]] = [set() for _ in world.atoms]

    def set(self, device: int, classes: tuple[int, ...]) -> None:
        """Give a device these classes in place of those it has."""
        world = self.world
        for sign, atoms in ((1, self.atoms(self.classes[device])), (-1, self.atoms(classes))):
            for a in atoms:
                self.left[a] += sign
                if sign > 0:
                    self._on[a] -= world.lost_with[device]
                else:
                    self._on[a] |= world.lost_with[device]
        group = world.groups[device]
        self.classes[device] = classes
        serving = self.workshop.serving([(group, classes)])[0]
        self.latency_us[device] = serving.latency_us + (self.extra_us[device] if classes else 0)
        self.kept[device] = self.workshop.kept(serving) if classes and serving.latency_us < NEVER else 0.0

    def atoms(self, classes: tuple[int, ...]) -> list[int]:
        """Return the atoms that these classes are made of."""
        return sorted({self.world.atom_of[c] for c in classes})

    def with_atom(self, device: int, atom: int) -> tuple[int, ...]:
        """Return the classes of a device with one atom more."""
        return tuple(sorted({*self.classes[device], *self.world.atoms[atom]}))

    def without(self, device: int, atom: int) -> tuple[int, ...]:
        """Return the classes of a device with one atom less."""
        return tuple(c for c in self.classes[device] if c not in self.world.atoms[atom])

    def may_take(self, device: int, atom: int, without: tuple[int, ...] = ()) -> bool:
        """Say whether the demands let a device take an atom more, once it has given some classes away."""
        world = self.world
        rest = tuple(c for c in self.classes[device] if c not in without)
        if world.atoms[atom][0] in rest or not world.may_join(atom, rest):
            return False
        return not self._on[atom] & world.lost_with[device] and not world.instance.groups[
            world.groups[device]
        ].never.intersection(world.atoms[atom])

    def suits(self, atoms: Sequence[int], atom: int) -> bool:
        """Say whether an atom may be on a device together with these."""
        return self.world.may_join(atom, tuple(c for a in atoms for c in self.world.atoms[a]))

    def guess(self, device: int, atoms: Sequence[int], target_us: int) -> int:
        """Return how many of these atoms, the hardest first, the device may be fast enough for."""
        world, own = self.world, len(self.classes[device])
        sizes = np.cumsum([len(world.atoms[a]) for a in atoms])
        hardest = world.atoms[atoms[0]][0]
        fits, fails = 0, len(atoms) + 1
        while fails - fits > 1:
            middle = (fits + fails) // 2
            total = own + int(sizes[middle - 1])
            fast = world.fast_enough(world.groups[device], total, target_us - self.extra_us[device])
            fits, fails = (middle, fails) if fast[hardest] else (fits, middle)
        return fits

    def lacks(self, device: int, num_classes: int) -> Floats:
        """Return what each class lacks of its floor in a device's sub-model, as a share of the floor, (C,)."""
        need = self.world.need(self.world.groups[device], min(num_classes, self.world.instance.num_classes))
        have: Floats = self.world.importance @ self.kept[device]
        lacking: Floats = np.maximum(0.0, need - have) / np.maximum(need, 1e-9)
        return lacking

    def latencies(self, wanted: Sequence[tuple[int, tuple[int, ...]]]) -> list[int]:
        """Return the latency [us] that each (device, classes) would have."""
        keys = [(self.world.groups[device], classes) for device, classes in wanted]
        servings = self.workshop.serving(keys)
        return [
            s.latency_us + (self.extra_us[device] if classes else 0)
            for s, (device, classes) in zip(servings, wanted, strict=True)
        ]

    def placed(self) -> tuple[Placed, ...]:
        """Return the plan."""
        pairs = zip(self.world.groups, self.classes, strict=True)
        return tuple(self.workshop.placed(group, classes) for group, classes in pairs if classes)

    def copy(self) -> "Loads":
        """Return a copy that can be changed."""
        other = Loads(self.world, self.workshop, self.extra_us)
        other.take_over(self)
        return other

    def take_over(self, other: "Loads") -> None:
        """Become a copy of another."""
        self.classes, self.latency_us, self.kept = list(other.classes), other.latency_us.copy(), other.kept.copy()
        self.left, self._on = other.left.copy(), [set(names) for names in other._on]


def fill(
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
        clock: When it ends, the rest is placed without care.
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
    return place_rest(loads, devices)


def served(
    workshop: Workshop, order: Ints, at_most: Ints, target_us: int, extra_us: Sequence[int], clock: Clock
) -> Ints:
    """Return how many classes a device serves in time when it begins at class c, by building it, (C, groups).

    Every so many ranks are tried, and what lies between takes the lesser of its neighbours.

    Args:
        workshop: Builds the sub-models.
        order: The classes, the hardest first.
        at_most: How many a bound allows, (C, groups).
        target_us: The time [us].
        extra_us: What each group waits for others [us].
        clock: When it ends, what was not tried is taken as the bound has it.
    """
    num_classes = len(order)
    starts = np.unique(np.linspace(0, num_classes - 1, min(num_classes, _RANKS)).round().astype(int))
    count = np.minimum(at_most[order[starts]], (num_classes - starts)[:, None])  # (starts, groups)
    fits, fails = np.zeros_like(count), count + 1
    while (
        open_ := np.argwhere((fails - fits > np.maximum(1, fails // 32)) & (count > 0))
    ).size and not clock.expired():
        keys = [(int(g), tuple(sorted(order[starts[i] : starts[i] + count[i, g]].tolist()))) for i, g in open_.tolist()]
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


def place_rest(loads: Loads, devices: Sequence[int]) -> bool:
    """Place the classes that are left over, the hardest first, where the device stays fastest; say whether all were."""
    world, hardness = loads.world, loads.world.hardness()
    rest = [a for a in np.flatnonzero(loads.left > 0).tolist() for _ in range(int(loads.left[a]))]
    if not rest:
        return True
    lacks = {device: loads.lacks(device, len(loads.classes[device]) + 1) for device in devices}
    for a in sorted(rest, key=lambda a: -hardness[world.atoms[a][0]]):
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
