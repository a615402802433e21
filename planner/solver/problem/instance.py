"""The problem in integers: what the models in this package are built from.

Sets: classes c (as bits of a subset), units u (heads, then channel groups, block by block),
device groups g (devices that differ in name only), options o (a device group at a width and a
precision), resources r (what used devices share: embed dims of the fusion, bytes on a medium).

All numbers are integers, demand rounded up and supply down: time in ticks (a whole number of
ticks to the microsecond, chosen so that usual decimals are exact; finer ones are rounded up to a
millionth of a microsecond), memory in grains (likewise for bytes), importance in parts per
billion. (At parts per million, the rounding of a few hundred units would outlaw the unpruned
model at a floor of 1.)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from planner.arrays import Ints
from planner.rules import cost
from planner.rules.cost import DeviceCost, WidthCost
from planner.rules.floors import Floors
from planner.schema import Fleet, Goal, Profile

IMPORTANCE_SCALE = 10**9
# Longer than any sub-model takes, larger than any: what cannot be.
NEVER = 2**50
# Where the resources of `Instance` begin.
DEVICES, EMBED_DIMS, MEDIA = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Units:
    """The heads and channel groups of a model, block by block: what can be kept or removed."""

    block: Ints  # (U,)
    is_head: NDArray[np.bool_]  # (U,)
    index: Ints  # (U,) head or group number within its block
    size: Ints  # (U,) 1 for a head, hidden channels for a group
    importance: Ints  # (C, U) in parts per billion
    depth: int

    def __len__(self) -> int:
        return len(self.block)

    def positions(self, chosen: Iterable[tuple[bool, int, int]]) -> tuple[int, ...]:
        """Return the units that are these (is it a head, block, index), as far as they exist."""
        wanted = set(chosen)
        rows = zip(self.is_head.tolist(), self.block.tolist(), self.index.tolist(), strict=True)
        return tuple(u for u, row in enumerate(rows) if row in wanted)

    def blocks(self, kept: Iterable[int], heads: bool) -> tuple[tuple[int, ...], ...]:
        """Return the kept heads (or channel groups) of each block, as indices."""
        chosen: list[list[int]] = [[] for _ in range(self.depth)]
        for u in kept:
            if self.is_head[u] == heads:
                chosen[self.block[u]].append(int(self.index[u]))
        return tuple(tuple(sorted(block)) for block in chosen)


@dataclass(frozen=True, eq=False)
class Option:
    """A device group at one width, with what the sub-model problem needs to know about it."""

    group: int
    at: WidthCost
    device: DeviceCost
    count: int
    ticks_per_us: int
    unit_ticks: Ints  # (U,)
    fixed_ticks: int
    attention_ticks: int
    mlp_ticks: int
    grains_per_byte: int
    unit_grains: Ints  # (U,) weights
    head_grains: int  # activations of each head of the largest block
    channel_grains: int
    free_grains: int  # what the budget leaves for kept units and their activations
    need: Ints  # (C, C): importance that class c needs beside n - 1 others, [c, n - 1]
    alone_us: int  # sending the input and returning the features over free paths
    use: Ints  # (R,): how much of each resource a used device takes
    energy_per_us: int  # in the instance's units of energy

    @property
    def embed_dim(self) -> int:
        return self.at.width.embed_dim


@dataclass(frozen=True)
class DeviceGroup:
    """Devices that differ in name only, and what is demanded of each."""

    names: tuple[str, ...]
    must: frozenset[int]  # classes that each of them must serve
    never: frozenset[int]  # classes that none of them may serve


@dataclass(frozen=True)
class SurvivalRule:
    """A rule: each class must be on at least so many devices of these groups."""

    least: int
    groups: frozenset[int]


@dataclass(frozen=True, eq=False)
class Instance:
    """A profile, a fleet and a goal, made ready for solving.

    The resources are, in this order: devices (one each), embed dims, then for each medium the
    bytes sent over it, then for each medium the bytes returned.
    """

    profile: Profile
    fleet: Fleet
    goal: Goal
    floor: Floors
    units: Units
    groups: tuple[DeviceGroup, ...]
    options: tuple[Option, ...]
    aggregator_rate: Fraction
    us_per_byte: tuple[Fraction, ...]  # of each medium
    survivors: tuple[SurvivalRule, ...]
    together: tuple[frozenset[int], ...]
    apart: tuple[frozenset[int], ...]
    energy_scale: int  # units of energy to the microjoule
    max_energy: int | None  # in these units

    @property
    def num_classes(self) -> int:
        return len(self.profile.classes)

    def fusion_us(self, embed_dims: int) -> int:
        """Return the fusion's time [us] for the embed dims of all used devices together."""
        return cost.fusion_us(self.profile, self.aggregator_rate, embed_dims)

    def compute_us(self, option: Option, kept: Sequence[int]) -> int:
        """Return the compute time [us] of a sub-model on a device, by the formulas of `cost`."""
        return option.at.time.compute_us(*self._counts(kept))

    @property
    def num_resources(self) -> int:
        return MEDIA + 2 * len(self.us_per_byte)

    def used(self, options: Iterable[Option]) -> Ints:
        """Return how much of each resource these used devices take together, (R,)."""
        return sum((option.use for option in options), np.zeros(self.num_resources, dtype=np.int64))

    def path_us(self, option: Option, used: Ints) -> int:
        """Return the time [us] of sending and returning, as the last on each medium.

        Args:
            option: A used device.
            used: At least so much of each resource is taken by all used devices, this one included.
        """
        if not self.us_per_byte:
            return option.alone_us
        loads = np.maximum(used, option.use)[MEDIA:].tolist()
        sends, returns = loads[: len(self.us_per_byte)], loads[len(self.us_per_byte) :]
        at = option.at
        return at.send.time_us(sends, self.us_per_byte) + at.returned.time_us(returns, self.us_per_byte)

    def fleet_latency_us(self, placed: Sequence["PlacedSubModel"]) -> int:
        """Return the latency [us] of the fleet: the slowest device, then the fusion."""
        used = self.used(p.option for p in placed)
        return self.slowest_us(placed) + self.fusion_us(int(used[EMBED_DIMS]))

    def slowest_us(self, placed: Sequence["PlacedSubModel"]) -> int:
        """Return the latency [us] of the slowest device."""
        used = self.used(p.option for p in placed)
        return max(self.path_us(p.option, used) + self.compute_us(p.option, p.kept) for p in placed)

    def energy(self, placed: Sequence["PlacedSubModel"]) -> int:
        """Return the energy of one image on all devices, in the instance's units."""
        return sum(p.option.energy_per_us * self.compute_us(p.option, p.kept) for p in placed)

    def allows(self, group: int, classes: Iterable[int]) -> bool:
        """Say whether the demands let a device of this group serve these classes."""
        chosen, at = frozenset(classes), self.groups[group]
        return (
            at.must <= chosen
            and not at.never & chosen
            and all(classes <= chosen or not classes & chosen for classes in self.together)
            and all(len(classes & chosen) <= 1 for classes in self.apart)
        )

    def memory_bytes(self, option: Option, kept: Sequence[int]) -> int:
        """Return the memory [bytes] of a sub-model on a device, by the formulas of `cost`."""
        return option.device.memory_bytes(option.at, *self._counts(kept))

    def fits(self, option: Option, kept: Sequence[int]) -> bool:
        """Say whether the sub-model is within the device's memory budget."""
        return self.memory_bytes(option, kept) <= option.device.memory_budget_bytes

    def meets_floors(self, option: Option, classes: Sequence[int], kept: Sequence[int]) -> bool:
        """Say whether the sub-model keeps enough of each of its classes."""
        have = self.units.importance[np.ix_(classes, kept)].sum(axis=1)
        return bool((have >= option.need[classes, len(classes) - 1]).all())

    def _counts(self, kept: Sequence[int]) -> tuple[list[int], list[int]]:
        heads, channels = [0] * self.units.depth, [0] * self.units.depth
        for u in kept:
            counts = heads if self.units.is_head[u] else channels
            counts[self.units.block[u]] += int(self.units.size[u])
        return heads, channels


@dataclass(frozen=True)
class PlacedSubModel:
    """A sub-model that exists: an option, its classes and the kept units."""

    option: Option
    classes: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True)
class SearchResult:
    """The best placement so far (None: none yet) and a bound on every other (None: none exists).

    The bound is of what was searched for: latency [us], energy [units] or devices.
    """

    placed: tuple[PlacedSubModel, ...] | None
    bound: int | None


# Called with the best objective so far, if there is one, and its bound.
Progress = Callable[[float | None, float], None]
