"""Loads: the classes of each device while a plan for many classes is being made.

Classes that the demands keep together move as one atom.
"""

from collections.abc import Sequence

import numpy as np

from planner.arrays import Bools, Floats, Ints
from planner.solver.large.class_bounds import ClassBounds
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER, Instance
from planner.solver.problem.option import PlacedSubModel
from planner.solver.submodels.cache import SubModelCache


class FleetData:
    """Constants while classes move: devices, atoms, and which atoms each device may have."""

    def __init__(self, instance: Instance, bounds: ClassBounds) -> None:
        self.instance = instance
        self.groups = [g for g, group in enumerate(instance.groups) for _ in group.names]
        self.names = [name for group in instance.groups for name in group.names]
        joined = [tuple(sorted(classes)) for classes in instance.together]
        alone = set(range(instance.num_classes)).difference(*joined)
        self.atoms: list[tuple[int, ...]] = sorted([*joined, *((c,) for c in alone)])
        self.atom_of = {c: a for a, atom in enumerate(self.atoms) for c in atom}
        self.copies = max(rule.min_devices for rule in instance.survival_rules)
        self.importance: Floats = instance.units.importance / IMPORTANCE_SCALE
        self._single_us = bounds.single_us
        # Losing a device loses those reached over it: copies must not share any of these.
        relayed = [instance.options[self._option_of(g)].device.relays for g in self.groups]
        self.lost_with = [
            frozenset({name, *relays}) if self.copies > 1 else frozenset({name})
            for name, relays in zip(self.names, relayed, strict=True)
        ]
        self.pinned = [tuple(sorted(instance.groups[g].pinned)) for g in self.groups]

    def _option_of(self, group: int) -> int:
        return next(o for o, option in enumerate(self.instance.options) if option.group == group)

    def fast_enough(self, group: int, num_classes: int, latency_us: int) -> Bools:
        """Return which classes a device may be fast enough for, of `num_classes` in all, (C,)."""
        instance = self.instance
        fast = np.zeros(instance.num_classes, dtype=bool)
        if num_classes > instance.num_classes:
            return fast
        for option, single_us in zip(instance.options, self._single_us, strict=True):
            if option.group == group:
                fast |= single_us[:, num_classes - 1] + option.alone_us <= latency_us
        fast[sorted(instance.groups[group].forbidden)] = False
        return fast

    def may_join(self, atom: int, classes: tuple[int, ...]) -> bool:
        """Return whether an atom may be on a device beside these classes."""
        # Asked for thousands of classes at a time.
        return not self.instance.apart or self.instance.keeps_apart({*classes, *self.atoms[atom]})

    def need(self, group: int, num_classes: int) -> Floats:
        """Return the importance each class needs on a group's first option, (C,)."""
        need: Floats = self.instance.options[self._option_of(group)].need[:, num_classes - 1] / IMPORTANCE_SCALE
        return need

    def hardness(self) -> Floats:
        """Return the need of each class on any device, (C,)."""
        need: Ints = self.instance.options[0].need
        return need[:, min(need.shape[1] - 1, 3)] / IMPORTANCE_SCALE


class Loads:
    """The classes that each device serves, with the sub-models for them."""

    def __init__(self, fleet: FleetData, cache: SubModelCache, extra_us: Sequence[int]) -> None:
        self.fleet, self.cache = fleet, cache
        self.classes: list[tuple[int, ...]] = [()] * len(fleet.groups)
        self.latency_us = np.zeros(len(fleet.groups), dtype=np.int64)
        self.fullness = np.zeros(len(fleet.groups))
        self.kept = np.zeros((len(fleet.groups), len(fleet.instance.units)), dtype=np.float64)
        # Wait of each device for others on shared media [us], if all devices in play are used.
        self.extra_us = extra_us
        self.left = np.full(len(fleet.atoms), fleet.copies)
        self._on: list[set[str]] = [set() for _ in fleet.atoms]

    def set(self, device: int, classes: tuple[int, ...]) -> None:
        """Give a device these classes in place of those it has."""
        fleet = self.fleet
        for sign, atoms in ((1, self.atoms(self.classes[device])), (-1, self.atoms(classes))):
            for a in atoms:
                self.left[a] += sign
                if sign > 0:
                    self._on[a] -= fleet.lost_with[device]
                else:
                    self._on[a] |= fleet.lost_with[device]
        group = fleet.groups[device]
        self.classes[device] = classes
        sub_model = self.cache.sub_models([(group, classes)])[0]
        self.latency_us[device] = sub_model.latency_us + (self.extra_us[device] if classes else 0)
        self.fullness[device] = sub_model.fullness
        self.kept[device] = self.cache.kept(sub_model) if classes and sub_model.latency_us < NEVER else 0.0

    def forget(self, device: int, atom: int) -> None:
        """Treat an atom as if it were not on a device, until `remember`."""
        self._on[atom] -= self.fleet.lost_with[device]

    def remember(self, device: int, atom: int) -> None:
        """Undo `forget`."""
        self._on[atom] |= self.fleet.lost_with[device]

    def atoms(self, classes: tuple[int, ...]) -> list[int]:
        """Return the atoms that these classes are made of."""
        return sorted({self.fleet.atom_of[c] for c in classes})

    def with_atom(self, device: int, atom: int) -> tuple[int, ...]:
        """Return the classes of a device with one atom more."""
        return tuple(sorted({*self.classes[device], *self.fleet.atoms[atom]}))

    def without(self, device: int, atom: int) -> tuple[int, ...]:
        """Return the classes of a device with one atom less."""
        return tuple(c for c in self.classes[device] if c not in self.fleet.atoms[atom])

    def may_take(self, device: int, atom: int, without: tuple[int, ...] = ()) -> bool:
        """Return whether the demands let a device take one more atom, once it has given some classes away."""
        fleet = self.fleet
        rest = tuple(c for c in self.classes[device] if c not in without)
        if fleet.atoms[atom][0] in rest or not fleet.may_join(atom, rest):
            return False
        return not self._on[atom] & fleet.lost_with[device] and not fleet.instance.groups[
            fleet.groups[device]
        ].forbidden.intersection(fleet.atoms[atom])

    def suits(self, atoms: Sequence[int], atom: int) -> bool:
        """Return whether an atom may be on a device together with these."""
        return self.fleet.may_join(atom, tuple(c for a in atoms for c in self.fleet.atoms[a]))

    def guess(self, device: int, atoms: Sequence[int], target_us: int) -> int:
        """Return an upper bound on the number of these atoms, the hardest first, that a device serves in time."""
        fleet, own = self.fleet, len(self.classes[device])
        sizes = np.cumsum([len(fleet.atoms[a]) for a in atoms])
        hardest = fleet.atoms[atoms[0]][0]
        fits, fails = 0, len(atoms) + 1
        while fails - fits > 1:
            middle = (fits + fails) // 2
            total = own + int(sizes[middle - 1])
            fast = fleet.fast_enough(fleet.groups[device], total, target_us - self.extra_us[device])
            fits, fails = (middle, fails) if fast[hardest] else (fits, middle)
        return fits

    def shortfall(self, device: int, num_classes: int) -> Floats:
        """Return the shortfall of each class in a device's sub-model, as a share of its floor, (C,)."""
        need = self.fleet.need(self.fleet.groups[device], min(num_classes, self.fleet.instance.num_classes))
        have: Floats = self.fleet.importance @ self.kept[device]
        lacking: Floats = np.maximum(0.0, need - have) / np.maximum(need, 1e-9)
        return lacking

    def latencies(self, wanted: Sequence[tuple[int, tuple[int, ...]]]) -> list[int]:
        """Return the latency [us] that each (device, classes) would have."""
        return [latency_us for latency_us, _ in self.costs(wanted)]

    def costs(self, wanted: Sequence[tuple[int, tuple[int, ...]]]) -> list[tuple[int, float]]:
        """Return the latency [us] and the fullness that each (device, classes) would have."""
        sub_models = self.cache.sub_models([(self.fleet.groups[device], classes) for device, classes in wanted])
        return [
            (s.latency_us + (self.extra_us[device] if classes else 0), s.fullness)
            for s, (device, classes) in zip(sub_models, wanted, strict=True)
        ]

    def placed(self) -> tuple[PlacedSubModel, ...]:
        """Return the plan."""
        pairs = zip(self.fleet.groups, self.classes, strict=True)
        return tuple(self.cache.placed(group, classes) for group, classes in pairs if classes)

    def copy(self) -> "Loads":
        """Return a copy that can be changed."""
        other = Loads(self.fleet, self.cache, self.extra_us)
        other.take_over(self)
        return other

    def take_over(self, other: "Loads") -> None:
        """Replace all loads by those of another."""
        self.classes, self.latency_us, self.kept = list(other.classes), other.latency_us.copy(), other.kept.copy()
        self.fullness = other.fullness.copy()
        self.left, self._on = other.left.copy(), [set(names) for names in other._on]
