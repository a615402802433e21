"""The problem in integers: what the models in this package are built from.

Sets: classes c (as bits of a subset), units u (heads, then channel groups, block by block),
device groups g (devices that differ in name only), options o (a device group at a width).

All numbers are integers, demand rounded up and supply down: time in ticks (a whole number of
ticks to the microsecond, chosen so that usual decimals are exact; finer ones are rounded up to a
millionth of a microsecond), memory in grains (likewise for bytes), importance in parts per
billion. (At parts per million, the rounding of a few hundred units would outlaw the unpruned
model at a floor of 1.)
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from planner import cost
from planner.cost import DeviceCost, WidthCost
from planner.errors import InputError
from planner.floor import RETENTION_TOLERANCE, Floor, floor_of
from planner.schema import Fleet, Goal, Profile

IMPORTANCE_SCALE = 10**9
# Longer than any sub-model takes, larger than any: what cannot be.
NEVER = 2**50
# Finer than this and the solver's sums would leave 64 bits.
_MAX_TICKS = 10**6
_LARGEST_SUM = 10**17

Ints = NDArray[np.int64]


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

    @property
    def path_us(self) -> int:
        """Sending the input and returning the features [us]."""
        return self.at.send_us + self.at.return_us

    @property
    def embed_dim(self) -> int:
        return self.at.width.embed_dim


@dataclass(frozen=True, eq=False)
class Instance:
    """A profile, a fleet and a goal, made ready for solving."""

    profile: Profile
    fleet: Fleet
    goal: Goal
    floor: Floor
    units: Units
    groups: tuple[tuple[str, ...], ...]  # names of the devices of each group
    options: tuple[Option, ...]
    aggregator_rate: Fraction

    @property
    def num_classes(self) -> int:
        return len(self.profile.classes)

    def fusion_us(self, embed_dims: int) -> int:
        """Return the fusion's time [us] for the embed dims of all used devices together."""
        return cost.fusion_us(self.profile, self.aggregator_rate, embed_dims)

    def latency_us(self, option: Option, kept: Sequence[int]) -> int:
        """Return the latency [us] of a sub-model on a device, by the formulas of `cost`."""
        return option.path_us + option.at.time.compute_us(*self._counts(kept))

    def fleet_latency_us(self, placed: Sequence["Placed"]) -> int:
        """Return the latency [us] of the fleet: the slowest device, then the fusion."""
        slowest_us = max(self.latency_us(p.option, p.kept) for p in placed)
        return slowest_us + self.fusion_us(sum(p.option.embed_dim for p in placed))

    def memory_bytes(self, option: Option, kept: Sequence[int]) -> int:
        """Return the memory [bytes] of a sub-model on a device, by the formulas of `cost`."""
        return option.device.memory_bytes(option.at.width, *self._counts(kept))

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
class Placed:
    """A sub-model that exists: an option, its classes and the kept units."""

    option: Option
    classes: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """The best placement so far (None: none yet) and a bound on every other (None: none exists)."""

    placed: tuple[Placed, ...] | None
    bound_us: int | None


# Called with the best latency so far, if there is one, and the bound [us].
Progress = Callable[[int | None, int], None]


def build(profile: Profile, fleet: Fleet, goal: Goal) -> Instance:
    """Make an instance.

    Raises:
        InputError: If the profile, the fleet and the goal do not go together.
    """
    floor = floor_of(profile, goal)
    units = _units(profile)
    groups: dict[DeviceCost, list[str]] = {}
    for device in cost.device_costs(profile, fleet):
        groups.setdefault(dataclasses.replace(device, name=""), []).append(device.name)
    options = [
        _option(g, at, dataclasses.replace(device, name=names[0]), len(names), profile, units, floor)
        for g, (device, names) in enumerate(groups.items())
        for at in device.widths
    ]
    return Instance(
        profile=profile,
        fleet=fleet,
        goal=goal,
        floor=floor,
        units=units,
        groups=tuple(tuple(names) for names in groups.values()),
        options=tuple(options),
        aggregator_rate=cost.aggregator_rate(fleet),
    )


def _units(profile: Profile) -> Units:
    importance = profile.importance
    rows: list[tuple[int, bool, int, int]] = []
    columns: list[list[float]] = []
    for l, sizes in enumerate(profile.group_sizes):
        for h in range(profile.num_heads):
            rows.append((l, True, h, 1))
            columns.append([heads[l][h] for heads in importance.heads])
        for g, size in enumerate(sizes):
            rows.append((l, False, g, size))
            columns.append([groups[l][g] for groups in importance.channel_groups])
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    shares = np.array(columns, dtype=np.float64).reshape(-1, len(profile.classes))
    return Units(
        block=table[:, 0],
        is_head=table[:, 1].astype(bool),
        index=table[:, 2],
        size=table[:, 3],
        importance=np.rint(shares.T * IMPORTANCE_SCALE).astype(np.int64),
        depth=profile.depth,
    )


def _option(
    group: int, at: WidthCost, device: DeviceCost, count: int, profile: Profile, units: Units, floor: Floor
) -> Option:
    time, width = at.time, at.width
    ticks = _common_scale([time.fixed, time.attention, time.mlp, *time.head, *time.channel])
    unit_ticks = [
        _scaled_up((time.head if is_head else time.channel)[l] * size, ticks) for l, is_head, size in _rows(units)
    ]
    per_head = cost.rational(width.head_activation_bytes)
    per_channel = cost.rational(width.channel_activation_bytes)
    fixed = cost.rational(width.fixed_activation_bytes)
    grains = _common_scale([per_head, per_channel, fixed])
    unit_grains = [
        (width.head_params if is_head else width.channel_params)[l] * size * device.bytes_per_param * grains
        for l, is_head, size in _rows(units)
    ]
    switches = profile.depth * (time.attention + time.mlp)
    around = time.fixed + switches + at.send_us + at.return_us
    _refuse_if_too_large(sum(unit_ticks) + _scaled_up(around, ticks), device)
    always = width.fixed_params * device.bytes_per_param + fixed
    _refuse_if_too_large(sum(unit_grains) + _scaled_up(always, grains), device)
    available = device.memory_budget_bytes - device.runtime_overhead_bytes
    free = available - always
    return Option(
        group=group,
        at=at,
        device=device,
        count=count,
        ticks_per_us=ticks,
        unit_ticks=np.array(unit_ticks, dtype=np.int64),
        fixed_ticks=_scaled_up(time.fixed, ticks),
        attention_ticks=_scaled_up(time.attention, ticks),
        mlp_ticks=_scaled_up(time.mlp, ticks),
        grains_per_byte=grains,
        unit_grains=np.array(unit_grains, dtype=np.int64),
        head_grains=_scaled_up(per_head, grains),
        channel_grains=_scaled_up(per_channel, grains),
        # Clamped: beyond what all units need, more or less means the same.
        free_grains=max(-_LARGEST_SUM, min(math.floor(free * grains), _LARGEST_SUM)),
        need=_needs(profile, width.embed_retention, floor),
    )


def _refuse_if_too_large(total: int, device: DeviceCost) -> None:
    if total > _LARGEST_SUM:
        raise InputError(
            f"device {device.name!r}: the whole model's time and memory there must be below {_LARGEST_SUM:.0e} "
            "of the solver's units to be planned with; look for a number that is absurdly large or small."
        )


def _rows(units: Units) -> Iterable[tuple[int, bool, int]]:
    return zip(units.block.tolist(), units.is_head.tolist(), units.size.tolist(), strict=True)


def _needs(profile: Profile, embed_retention: Sequence[float], floor: Floor) -> Ints:
    """Return the importance each class needs, (C, C); more than there is where a width cannot reach it."""
    num_classes = len(profile.classes)
    needs = np.zeros((num_classes, num_classes), dtype=np.int64)
    for c in range(num_classes):
        for n in range(1, num_classes + 1):
            # Half of the tolerance of the check: what is accepted here is accepted there.
            least = floor.of(c, n) - RETENTION_TOLERANCE / 2
            if least > 0:
                share = least / embed_retention[c] if embed_retention[c] > 0 else 2.0
                needs[c, n - 1] = math.ceil(min(share, 2.0) * IMPORTANCE_SCALE)
    return needs


def _common_scale(numbers: Sequence[Fraction]) -> int:
    return min(_MAX_TICKS, math.lcm(*(number.denominator for number in numbers)))


def _scaled_up(number: Fraction, scale: int) -> int:
    return math.ceil(number * scale)
