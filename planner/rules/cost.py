"""Costs of a sub-model on a device: MACs, bytes, microseconds, joules.

Arithmetic is exact (rationals) and rounded once, at the end: demand up, supply down. Thus everybody who computes the
latency of a plan gets the same microsecond.

Convention: 1 MAC is one multiply-accumulate (2 FLOPs); norms count 5 per element, as fvcore
counts layer norms. Not counted: softmax, activations, products with gates, additions.

Legend: L blocks, h_l kept heads and c_l kept hidden channels of block l, w a width entry.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from planner.errors import InputError
from planner.library import load_kinds
from planner.rules.c_memory import c_weight_bytes
from planner.rules.compute_time import TimeModel, macs_per_second, time_source
from planner.rules.engine import engine_of
from planner.rules.links import Router, Transfer, media_us_per_byte, medium_loads, rational
from planner.rules.memory import MemoryModel, c_profile_sizes, memory_model
from planner.schema import BYTES_PER_PARAM, Device, DeviceKind, Engine, Fleet, Precision, Profile, Width, did_you_mean
from planner.schema.fleet import DEFAULT_RUNTIME_OVERHEAD_BYTES, DEFAULT_STORAGE_OVERHEAD_BYTES

# What a device grants.
BudgetName = Literal["memory", "storage"]
# Indices of the kept units of each block.
KeptIndices = Sequence[Sequence[int]]


@dataclass(frozen=True)
class WidthCost:
    """Costs of sub-models of one embed dim and precision on one device."""

    width: Width
    precision: Precision
    max_retention: tuple[float, ...]  # (C,) retention of each class when no unit is removed
    time: TimeModel
    memory: MemoryModel
    send: Transfer
    returned: Transfer


@dataclass(frozen=True)
class DeviceCost:
    """Costs of one device, from its own keys, its kind, its links and the profile."""

    name: str
    engine: Engine
    memory_budget_bytes: int
    runtime_overhead_bytes: int
    # None: weights take memory, and code is not counted.
    storage_budget_bytes: int | None
    storage_overhead_bytes: int
    active_power_w: float | None
    widths: tuple[WidthCost, ...]

    def at(self, embed_dim: int, precision: Precision | None = None) -> WidthCost | None:
        """Return the costs at an embed dim and precision, if the device can be timed there.

        Without a precision, the device must have a single one.
        """
        for w in self.widths:
            only = precision is None and all(other.precision == w.precision for other in self.widths)
            if w.width.embed_dim == embed_dim and (w.precision == precision or only):
                return w
        return None

    @property
    def relays(self) -> frozenset[str]:
        """Devices that messages to and from this one pass, at any width."""
        return frozenset().union(*(w.send.relays | w.returned.relays for w in self.widths))

    def memory_bytes(self, at: WidthCost, heads: Sequence[int], channels: Sequence[int]) -> int:
        """Return the RAM of activations and runtime [bytes], and of weights that are not in flash, rounded up."""
        weights = at.memory.weights.total(heads, channels) if self.storage_budget_bytes is None else 0
        return weights + math.ceil(at.memory.activations.peak(heads, channels)) + self.runtime_overhead_bytes

    def storage_bytes(self, at: WidthCost, heads: Sequence[int], channels: Sequence[int]) -> int | None:
        """Return the flash of weights and code [bytes]; None where the device has no budget for it."""
        if self.storage_budget_bytes is None:
            return None
        return at.memory.weights.total(heads, channels) + self.storage_overhead_bytes

    def budget_use(
        self, at: WidthCost, heads: Sequence[int], channels: Sequence[int]
    ) -> dict[BudgetName, tuple[int, int]]:
        """Return what a sub-model uses of each budget that the device has, and the budget [bytes]."""
        use: dict[BudgetName, tuple[int, int]] = {
            "memory": (self.memory_bytes(at, heads, channels), self.memory_budget_bytes)
        }
        storage = self.storage_bytes(at, heads, channels)
        if storage is not None and self.storage_budget_bytes is not None:
            use["storage"] = storage, self.storage_budget_bytes
        return use

    def energy_mj(self, compute_us: int) -> float | None:
        """Return the energy [mJ] of one image, if the device's power is known."""
        return None if self.active_power_w is None else self.active_power_w * compute_us / 1000


def params(width: Width, heads: Sequence[int], channels: Sequence[int]) -> int:
    """Return the parameters of a sub-model, head layer included."""
    return width.fixed_params + _per_block(width.head_params, heads, width.channel_params, channels)


def sent_bytes(
    profile: Profile,
    width: Width,
    heads: Sequence[int],
    channels: Sequence[int],
    precision: Precision,
    engine: Engine,
) -> int:
    """Return the bytes of a sub-model's weights as a device receives them, head layer included where it has one.

    It may be less than what is planned with, which counts packing, and in C the halves that a block lacks.

    Args:
        profile: Its profile.
        width: One of the profile's widths.
        heads: Kept heads of each block (L,).
        channels: Kept hidden channels of each block (L,).
        precision: Precision of the weights.
        engine: Engine of the device.

    Raises:
        InputError: If the engine does not have the precision.
    """
    if engine == "c":
        return c_weight_bytes(c_profile_sizes(profile, width.embed_dim), heads, channels, precision)
    return params(width, heads, channels) * BYTES_PER_PARAM[precision]


def macs(width: Width, heads: Sequence[int], channels: Sequence[int]) -> int:
    """Return the MACs of a sub-model for one image."""
    return width.fixed_macs + _per_block(width.head_macs, heads, width.channel_macs, channels)


def retention(
    profile: Profile,
    class_name: str,
    embed_dim: int,
    heads: KeptIndices,
    groups: KeptIndices,
    precision: Precision | None = None,
) -> float:
    """Return the share of a class's importance that is kept, 0..1.

    Args:
        profile: The profile with the importance of every unit for every class.
        class_name: One of the profile's classes.
        embed_dim: One of the profile's widths.
        heads: Kept heads of each block, as indices.
        groups: Kept channel groups of each block, as indices.
        precision: Precision of the weights; it matters where the profile has its `precision_retention`.
    """
    c = profile.classes.index(class_name)
    width = profile.width(embed_dim)
    if width is None:
        raise InputError(f"embed_dim must be a width of the profile, got {embed_dim}.")
    importance = profile.importance
    kept = [importance.heads[c][l][h] for l, block in enumerate(heads) for h in block]
    kept += [importance.channel_groups[c][l][g] for l, block in enumerate(groups) for g in block]
    return _max_retention(profile, width, precision)[c] * math.fsum(kept)


def _max_retention(profile: Profile, width: Width, precision: Precision | None) -> tuple[float, ...]:
    """Return the retention of each class at a width and precision when no unit is removed, (C,)."""
    if precision not in profile.precision_retention:
        return width.embed_retention
    both = zip(width.embed_retention, profile.precision_retention[precision], strict=True)
    return tuple(a * b for a, b in both)


def transfers_us(fleet: Fleet, used: Sequence[WidthCost]) -> list[tuple[int, int]]:
    """Return the time [us] to send the input to each used device, and to return its features."""
    us_per_byte = media_us_per_byte(fleet)
    sends = medium_loads([at.send for at in used], len(us_per_byte))
    returns = medium_loads([at.returned for at in used], len(us_per_byte))
    return [(at.send.time_us(sends, us_per_byte), at.returned.time_us(returns, us_per_byte)) for at in used]


def energy_uj(power_w: float, compute_us: int) -> Fraction:
    """Return the energy [uJ] of one image, exact."""
    return rational(power_w) * compute_us


def kept_counts(profile: Profile, heads: KeptIndices, groups: KeptIndices) -> tuple[list[int], list[int]]:
    """Return the number of kept heads and of kept hidden channels of each block."""
    sizes = profile.group_sizes
    return [len(b) for b in heads], [sum(sizes[l][g] for g in b) for l, b in enumerate(groups)]


def fusion_us(profile: Profile, macs_per_second: Fraction, embed_dims: int) -> int:
    """Return the fusion's time [us] on the aggregator, for the embed dims of all used devices together."""
    hidden = profile.fusion_hidden
    return math.ceil(10**6 * Fraction(hidden * (embed_dims + len(profile.classes))) / macs_per_second)


def aggregator_rate(fleet: Fleet) -> Fraction:
    """Return the MAC rate [MAC/s] at which the aggregator fuses.

    Raises:
        InputError: If neither the device nor its kind states one.
    """
    device = next(m for m in fleet.members if m.name == fleet.aggregator)
    rate = macs_per_second(device, load_kinds().get(device.kind or ""))
    if rate is None:
        raise InputError(
            f"device {device.name!r}: the aggregator must have a MAC rate for the fusion, and neither it "
            f"nor its kind {device.kind!r} states one; give it macs_per_second."
        )
    return rate


def device_costs(profile: Profile, fleet: Fleet) -> tuple[DeviceCost, ...]:
    """Return the costs of every device, in the order of the fleet.

    Raises:
        InputError: If a kind is unknown, or a device cannot be reached from the aggregator.
    """
    by_name = {name: costs for costs, names in equal_devices(profile, fleet).items() for name in names}
    return tuple(replace(by_name[member.name], name=member.name) for member in fleet.members)


def equal_devices(profile: Profile, fleet: Fleet) -> dict[DeviceCost, tuple[str, ...]]:
    """Return the names of the devices that have the same costs, by these, which bear the name of none.

    A fleet may have thousands of devices of a few makes.

    Raises:
        InputError: If a kind is unknown, or a device cannot be reached from the aggregator.
    """
    kinds, router, members = load_kinds(), Router(fleet), {member.name: member for member in fleet.members}
    found: dict[DeviceCost, list[str]] = {}
    for entry in fleet.devices:
        by_ways: dict[Hashable, list[str]] = {}
        for name in fleet.member_names[entry.name]:
            by_ways.setdefault(router.ways(name) if entry.count > 1 else None, []).append(name)
        for names in by_ways.values():
            costs = _device_cost(profile, members[names[0]], kinds, router)
            found.setdefault(replace(costs, name=""), []).extend(names)
    return {costs: tuple(names) for costs, names in found.items()}


def _device_cost(profile: Profile, device: Device, kinds: Mapping[str, DeviceKind], router: Router) -> DeviceCost:
    card = kinds.get(device.kind or "")
    engine = engine_of(device)
    _check_precisions(profile, device, engine)
    source = time_source(profile, device, card, engine)
    known = sorted({*profile.latency, *kinds})
    if (source.rate is None and not source.rows) or (device.kind is not None and device.kind not in known):
        raise InputError(
            f"device {device.name!r}: kind must be one of {', '.join(known)}, or the device must have "
            f"its own macs_per_second, got kind {device.kind!r}{did_you_mean(device.kind or '', known) or '.'}"
        )
    _check_storage(device, engine)
    send = router.transfer(device.name, profile.input_bytes)
    widths = []
    for width in profile.widths:
        returned = router.transfer(device.name, profile.feature_bytes_per_embed_dim * width.embed_dim)
        for p in device.precisions:
            time = source.at(width, p)
            if time is not None:
                memory = memory_model(profile, width, p, engine)
                widths.append(WidthCost(width, p, _max_retention(profile, width, p), time, memory, send, returned))
    return DeviceCost(
        name=device.name,
        engine=engine,
        memory_budget_bytes=device.memory_budget,
        runtime_overhead_bytes=_first(
            device.runtime_overhead, card.runtime_overhead if card else None, DEFAULT_RUNTIME_OVERHEAD_BYTES
        ),
        storage_budget_bytes=device.storage_budget,
        storage_overhead_bytes=0
        if device.storage_budget is None
        else _first(device.storage_overhead, card.storage_overhead if card else None, DEFAULT_STORAGE_OVERHEAD_BYTES),
        active_power_w=device.active_power_w or (card.active_power_w if card else None),
        widths=tuple(widths),
    )


def _first(own: int | None, of_kind: int | None, default: int) -> int:
    """Return the first number that is given."""
    return next(number for number in (own, of_kind, default) if number is not None)


def _check_storage(device: Device, engine: Engine) -> None:
    """Refuse a storage budget where weights are copied into memory."""
    if device.storage_budget is not None and engine != "c":
        raise InputError(
            f"device {device.name!r}: storage_budget must be that of a device with engine 'c', which reads weights "
            f"where they are stored, got engine {engine!r}, which copies them into memory; leave it out."
        )


def _check_precisions(profile: Profile, device: Device, engine: Engine) -> None:
    """Refuse what the engine does not have, and a choice among precisions whose retention the profile does not have."""
    choices = device.precisions
    if engine == "c" and "float16" in choices:
        raise InputError(
            f"device {device.name!r}: precision must be float32 or int8 with engine 'c', which has no other, "
            "got 'float16'."
        )
    unknown = [p for p in choices if len(choices) > 1 and p != "float32" and p not in profile.precision_retention]
    if unknown:
        raise InputError(
            f"device {device.name!r}: precision can be a choice only where the profile says what each costs "
            f"(precision_retention), got no {unknown[0]!r} in profile {profile.model!r}; give the device one."
        )


def _per_block(
    per_head: Sequence[int], heads: Sequence[int], per_channel: Sequence[int], channels: Sequence[int]
) -> int:
    blocks = zip(per_head, heads, per_channel, channels, strict=True)
    return sum(a * h + b * c for a, h, b, c in blocks)
