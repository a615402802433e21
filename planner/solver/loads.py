"""Which classes each device serves, while a plan for many classes is being made.

What classes cost on a device only depends on the device's group, and is asked for again and
again: answers are kept. Classes that the demands keep together move as one atom.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from planner.solver.bounds import Bounds
from planner.solver.clock import Clock
from planner.solver.instance import IMPORTANCE_SCALE, NEVER, Instance, Ints, Placed
from planner.solver.prices import Bools, Builder, Floats

# About what building one sub-model takes [s], where work is counted.
_BUILD_S = 5e-4


@dataclass(frozen=True)
class Serving:
    """The best sub-model known for some classes on a group: latency [us] alone on its path, option, kept units."""

    latency_us: int
    option: int
    kept: bytes  # packed bits


_NOTHING = Serving(0, -1, b"")


class Workshop:
    """Builds sub-models for groups and class subsets, and remembers them."""

    def __init__(self, instance: Instance, clock: Clock) -> None:
        self.instance, self._clock = instance, clock
        self._builders = [Builder(instance, option) for option in instance.options]
        self.known: dict[tuple[int, tuple[int, ...]], Serving] = {}

    def serving(self, wanted: Sequence[tuple[int, tuple[int, ...]]]) -> list[Serving]:
        """Return the best sub-model for each (group, classes)."""
        new = sorted({key for key in wanted if key[1] and key not in self.known})
        self._clock.spend(_BUILD_S * len(new))
        for o, option in enumerate(self.instance.options):
            keys = [key for key in new if key[0] == option.group]
            if not keys:
                continue
            built = self._builders[o].build([classes for _, classes in keys])
            packed = np.packbits(built.kept, axis=1)
            for key, compute_us, kept in zip(keys, built.compute_us.tolist(), packed, strict=True):
                latency_us = NEVER if compute_us >= NEVER else option.alone_us + compute_us
                if key not in self.known or latency_us < self.known[key].latency_us:
                    self.known[key] = Serving(latency_us, o, kept.tobytes())
        return [self.known[key] if key[1] else _NOTHING for key in wanted]

    def improve(self, group: int, classes: tuple[int, ...], option: int, kept: Iterable[int]) -> None:
        """Remember a sub-model that was built elsewhere, if it is better than what is known."""
        at, units = self.instance.options[option], list(kept)
        latency_us = at.alone_us + self.instance.compute_us(at, units)
        if latency_us < self.known.get((group, classes), Serving(NEVER, -1, b"")).latency_us:
            chosen = np.zeros(len(self.instance.units), dtype=bool)
            chosen[units] = True
            self.known[group, classes] = Serving(latency_us, option, np.packbits(chosen).tobytes())

    def kept(self, serving: Serving) -> Bools:
        """Return the kept units of a sub-model, (U,)."""
        bits = np.unpackbits(np.frombuffer(serving.kept, dtype=np.uint8), count=len(self.instance.units))
        return bits.astype(bool)

    def placed(self, group: int, classes: tuple[int, ...]) -> Placed:
        """Return a known sub-model as a part of a plan."""
        serving = self.known[group, classes]
        units = np.flatnonzero(self.kept(serving)).tolist()
        return Placed(self.instance.options[serving.option], classes, tuple(units))


class Fleetwide:
    """What does not change while classes move: devices, atoms, and what can be where."""

    def __init__(self, instance: Instance, bounds: Bounds) -> None:
        self.instance = instance
        self.groups = [g for g, group in enumerate(instance.groups) for _ in group.names]
        self.names = [name for group in instance.groups for name in group.names]
        joined = [tuple(sorted(classes)) for classes in instance.together]
        alone = set(range(instance.num_classes)).difference(*joined)
        self.atoms: list[tuple[int, ...]] = sorted([*joined, *((c,) for c in alone)])
        self.atom_of = {c: a for a, atom in enumerate(self.atoms) for c in atom}
        self.copies = max(rule.least for rule in instance.survivors)
        self.importance: Floats = instance.units.importance / IMPORTANCE_SCALE
        self._solo = bounds.solo
        # Losing a device loses those reached over it: copies must not share any of these.
        relayed = [instance.options[self._option_of(g)].device.relays for g in self.groups]
        self.lost_with = [
            frozenset({name, *relays}) if self.copies > 1 else frozenset({name})
            for name, relays in zip(self.names, relayed, strict=True)
        ]
        self.pinned = [tuple(sorted(instance.groups[g].must)) for g in self.groups]
        # The classes of which a device may serve only one.
        self._apart = instance.apart

    def _option_of(self, group: int) -> int:
        return next(o for o, option in enumerate(self.instance.options) if option.group == group)

    def fast_enough(self, group: int, num_classes: int, latency_us: int) -> Bools:
        """Return the classes that a device may be fast enough for beside so many in all, (C,)."""
        instance = self.instance
        fast = np.zeros(instance.num_classes, dtype=bool)
        if num_classes > instance.num_classes:
            return fast
        for option, solo in zip(instance.options, self._solo, strict=True):
            if option.group == group:
                fast |= solo[:, num_classes - 1] + option.alone_us <= latency_us
        fast[sorted(instance.groups[group].never)] = False
        return fast

    def may_join(self, atom: int, classes: tuple[int, ...]) -> bool:
        """Say whether an atom may be on a device beside these classes."""
        both = {*classes, *self.atoms[atom]}
        return all(len(group & both) <= 1 for group in self._apart)

    def need(self, group: int, num_classes: int) -> Floats:
        """Return the importance each class needs on a group's first option, (C,)."""
        need: Floats = self.instance.options[self._option_of(group)].need[:, num_classes - 1] / IMPORTANCE_SCALE
        return need

    def hardness(self) -> Floats:
        """Return how much each class needs, whatever the device, (C,)."""
        need: Ints = self.instance.options[0].need
        return need[:, min(need.shape[1] - 1, 3)] / IMPORTANCE_SCALE
