"""The planning problem in whole numbers, from which all models of the solver are built.

Sets: classes c (bits of a subset), units u (heads, then channel groups, block by block), device groups g (devices
that differ in name only), options o (a device group at one embed dim and precision), resources r (shared by used
devices: embed dims of the fusion, bytes on a medium).

Demand is rounded up and supply down. Time is in ticks: as many to the microsecond as make usual decimals exact, at
most a million. Memory is in grains, likewise for bytes. Importance is in parts per billion.

Kept units always hold the anchor head. Its importance counts for the floors, its costs are fixed ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from planner.arrays import Bools, Floats, Ints
from planner.rules import cost
from planner.rules.cost import BudgetName
from planner.schema import Fleet, Goal, Profile
from planner.solver.problem.option import Option, PlacedSubModel

# At parts per million, rounding of a few hundred units would outlaw the unpruned model at a floor of 1.
IMPORTANCE_SCALE = 10**9
# Larger than any time, memory or energy of a plan.
NEVER = 2**50
# Positions of the resources of `Instance`.
DEVICES, EMBED_DIMS, MEDIA = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Units:
    """Heads and channel groups of a model, block by block: what can be kept or removed."""

    block: Ints  # (U,)
    is_head: Bools  # (U,)
    index: Ints  # (U,) head or group number within its block
    size: Ints  # (U,) 1 for a head, hidden channels for a group
    importance: Ints  # (C, U) in parts per billion
    depth: int
    # Positions of the units that every sub-model keeps, the anchor head: options hold their cost as fixed.
    always_kept: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.block)

    @cached_property
    def shares(self) -> Floats:
        """Importance as shares of the whole model's, (C, U)."""
        shares: Floats = self.importance / IMPORTANCE_SCALE
        return shares

    def positions(self, chosen: Iterable[tuple[bool, int, int]]) -> tuple[int, ...]:
        """Return the positions of units given as (is it a head, block, index), as far as they exist."""
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


@dataclass(frozen=True)
class DeviceGroup:
    """Devices that differ in name only, and the demands on each of them."""

    names: tuple[str, ...]
    pinned: frozenset[int]  # classes that each of them must serve
    forbidden: frozenset[int]  # classes that none of them may serve


@dataclass(frozen=True)
class SurvivalRule:
    """Least number of devices of some groups that must serve each class."""

    min_devices: int
    groups: frozenset[int]


@dataclass(frozen=True, eq=False)
class Instance:
    """Profile, fleet and goal as indices and whole numbers.

    The resources are, in this order: devices (one each), embed dims, then for each medium the bytes sent over it,
    then for each medium the bytes returned.
    """

    profile: Profile
    fleet: Fleet
    goal: Goal
    floors: Floats  # (C,)
    retention_floor: float | None  # from which they follow, unless the goal gives them
    units: Units
    groups: tuple[DeviceGroup, ...]
    options: tuple[Option, ...]
    aggregator_rate: Fraction
    us_per_byte: tuple[Fraction, ...]  # of each medium
    survival_rules: tuple[SurvivalRule, ...]
    together: tuple[frozenset[int], ...]
    apart: tuple[frozenset[int], ...]
    energy_scale: int  # units of energy to the microjoule
    max_energy: int | None  # in these units

    @property
    def num_classes(self) -> int:
        """Number of classes of the model."""
        return len(self.profile.classes)

    def fusion_us(self, embed_dims: int) -> int:
        """Return the fusion's time [us] for the embed dims of all used devices together."""
        return cost.fusion_us(self.profile, self.aggregator_rate, embed_dims)

    def compute_us(self, option: Option, kept: Sequence[int]) -> int:
        """Return the compute time [us] of a sub-model on a device, by the formulas of `cost`."""
        return option.width_cost.time.compute_us(*self._counts(kept))

    @property
    def num_resources(self) -> int:
        """Number of resources, R."""
        return MEDIA + 2 * len(self.us_per_byte)

    def used(self, options: Iterable[Option]) -> Ints:
        """Return the use of each resource by these used devices together, (R,)."""
        return sum((option.use for option in options), np.zeros(self.num_resources, dtype=np.int64))

    def path_us(self, option: Option, used: Ints) -> int:
        """Return the time [us] of sending and returning, as the last on each medium.

        Args:
            option: A used device.
            used: Least use of each resource by all used devices, this one included, (R,).
        """
        if not self.us_per_byte:
            return option.alone_us
        loads = np.maximum(used, option.use)[MEDIA:].tolist()
        sends, returns = loads[: len(self.us_per_byte)], loads[len(self.us_per_byte) :]
        at = option.width_cost
        return at.send.time_us(sends, self.us_per_byte) + at.returned.time_us(returns, self.us_per_byte)

    def fleet_latency_us(self, placed: Sequence[PlacedSubModel]) -> int:
        """Return the latency [us] of the fleet: the slowest device, then the fusion."""
        used = self.used(p.option for p in placed)
        return self.slowest_us(placed) + self.fusion_us(int(used[EMBED_DIMS]))

    def slowest_us(self, placed: Sequence[PlacedSubModel]) -> int:
        """Return the latency [us] of the slowest device."""
        used = self.used(p.option for p in placed)
        return max(self.path_us(p.option, used) + self.compute_us(p.option, p.kept) for p in placed)

    def energy(self, placed: Sequence[PlacedSubModel]) -> int:
        """Return the energy of one image on all devices, in the instance's units."""
        return sum(p.option.energy_per_us * self.compute_us(p.option, p.kept) for p in placed)

    def allowed(self, group: int, member: Bools) -> Bools:
        """Return which class subsets the demands let a device of a group serve, (B,).

        Args:
            group: Device group.
            member: Membership of classes in each subset, (B, C).
        """
        demands = self.groups[group]
        allowed: Bools = np.asarray(member[:, sorted(demands.pinned)].all(axis=1))
        allowed &= ~member[:, sorted(demands.forbidden)].any(axis=1)
        for classes in map(sorted, self.together):
            allowed &= member[:, classes].all(axis=1) | ~member[:, classes].any(axis=1)
        for classes in map(sorted, self.apart):
            allowed &= member[:, classes].sum(axis=1) <= 1
        return allowed

    def allows(self, group: int, classes: Iterable[int]) -> bool:
        """Return whether the demands let a device of a group serve these classes."""
        member = np.zeros((1, self.num_classes), dtype=bool)
        member[0, list(classes)] = True
        return bool(self.allowed(group, member)[0])

    def keeps_apart(self, classes: Iterable[int]) -> bool:
        """Return whether no two of these classes must be apart, whatever the device."""
        chosen = frozenset(classes)
        return all(len(apart & chosen) <= 1 for apart in self.apart)

    def memory_bytes(self, option: Option, kept: Sequence[int]) -> int:
        """Return the memory [bytes] of a sub-model on a device, by the formulas of `cost`."""
        return option.device.memory_bytes(option.width_cost, *self._counts(kept))

    def storage_bytes(self, option: Option, kept: Sequence[int]) -> int | None:
        """Return the storage [bytes] of a sub-model on a device, by the formulas of `cost`; None without a budget."""
        return option.device.storage_bytes(option.width_cost, *self._counts(kept))

    def budget_use(self, option: Option, kept: Sequence[int]) -> dict[BudgetName, tuple[int, int]]:
        """Return what a sub-model uses of each budget of a device and the budget [bytes], by the formulas of `cost`."""
        return option.device.budget_use(option.width_cost, *self._counts(kept))

    def fullness(self, option: Option, kept: Sequence[int]) -> float:
        """Return the share of a device's fullest budget that a sub-model takes."""
        return max(used / budget for used, budget in self.budget_use(option, kept).values())

    def fits(self, option: Option, kept: Sequence[int]) -> bool:
        """Return whether the sub-model is within the device's budgets."""
        return all(used <= budget for used, budget in self.budget_use(option, kept).values())

    def can_serve(self, option: Option, classes: Sequence[int], kept: Sequence[int]) -> bool:
        """Return whether kept units are a sub-model of these classes that the device holds, demands aside."""
        keeps_anchor = set(self.units.always_kept) <= set(kept)
        return keeps_anchor and self.fits(option, kept) and self.meets_floors(option, classes, kept)

    def meets_floors(self, option: Option, classes: Sequence[int], kept: Sequence[int]) -> bool:
        """Return whether the sub-model keeps each of its classes at or above its floor."""
        have = self.units.importance[np.ix_(classes, kept)].sum(axis=1)
        return bool((have >= option.need[classes, len(classes) - 1]).all())

    def _counts(self, kept: Sequence[int]) -> tuple[list[int], list[int]]:
        heads, channels = [0] * self.units.depth, [0] * self.units.depth
        for u in kept:
            counts = heads if self.units.is_head[u] else channels
            counts[self.units.block[u]] += int(self.units.size[u])
        return heads, channels
