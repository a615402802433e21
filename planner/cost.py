"""What a sub-model costs on a device: MACs, bytes, microseconds, joules.

Arithmetic is exact (rationals) and rounded once, at the end: demand up, supply down. Thus two
people who compute a plan's latency get the same microsecond.

Convention: 1 MAC is one multiply-accumulate (2 FLOPs); layer norms count 5 per element, as
fvcore counts them. Not counted: softmax, GELU, additions.

Legend: L blocks, h_l kept heads and c_l kept hidden channels of block l, w a width entry.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import networkx as nx

from planner.errors import InputError
from planner.schema import BYTES_PER_PARAM, Device, DeviceKind, Fleet, Profile, Width, nearest
from planner.schema.fleet import DEFAULT_RUNTIME_OVERHEAD_BYTES
from planner.schema.profile import LatencyRow
from planner.shipped import load_kinds

# Indices of what is kept, for each block.
Blocks = Sequence[Sequence[int]]


@dataclass(frozen=True)
class TimeModel:
    """Compute time [us] at one width: fixed + sum_l [h_l>0] attention + head h_l + [c_l>0] mlp + channel c_l.

    Per block where it is a tuple. `estimated`: from a declared MAC rate instead of a measurement.
    """

    fixed: Fraction
    attention: Fraction
    head: tuple[Fraction, ...]
    mlp: Fraction
    channel: tuple[Fraction, ...]
    estimated: bool

    def compute_us(self, heads: Sequence[int], channels: Sequence[int]) -> int:
        """Return the compute time [us] of h_l heads and c_l channels, rounded up."""
        total = self.fixed
        for l, (h, c) in enumerate(zip(heads, channels, strict=True)):
            total += (h > 0) * self.attention + self.head[l] * h
            total += (c > 0) * self.mlp + self.channel[l] * c
        return math.ceil(total)


@dataclass(frozen=True)
class WidthCost:
    """What one width of the model costs on one device; `send_us` does not depend on the width."""

    width: Width
    time: TimeModel
    send_us: int
    return_us: int


@dataclass(frozen=True)
class DeviceCost:
    """One device with everything that its kind, its links and the profile say about it."""

    name: str
    memory_budget_bytes: int
    runtime_overhead_bytes: int
    bytes_per_param: int
    active_power_w: float | None
    widths: tuple[WidthCost, ...]

    def at(self, embed_dim: int) -> WidthCost | None:
        """The costs at one embed dim, if the device can be timed there."""
        return next((w for w in self.widths if w.width.embed_dim == embed_dim), None)

    def memory_bytes(self, width: Width, heads: Sequence[int], channels: Sequence[int]) -> int:
        """Return weights + peak activations + runtime overhead [bytes], rounded up."""
        weights = params(width, heads, channels) * self.bytes_per_param
        return math.ceil(weights + activation_bytes(width, heads, channels)) + self.runtime_overhead_bytes

    def energy_mj(self, compute_us: int) -> float | None:
        """Return the energy [mJ] of one image, where the device's power is known."""
        return None if self.active_power_w is None else self.active_power_w * compute_us / 1000


def rational(number: float) -> Fraction:
    """Return the number that the user wrote: 0.1 is a tenth, not its nearest binary fraction."""
    return Fraction(repr(float(number)))


def params(width: Width, heads: Sequence[int], channels: Sequence[int]) -> int:
    """Return the parameters of a sub-model, head layer included."""
    return width.fixed_params + _per_block(width.head_params, heads, width.channel_params, channels)


def macs(width: Width, heads: Sequence[int], channels: Sequence[int]) -> int:
    """Return the MACs of a sub-model for one image."""
    return width.fixed_macs + _per_block(width.head_macs, heads, width.channel_macs, channels)


def activation_bytes(width: Width, heads: Sequence[int], channels: Sequence[int]) -> Fraction:
    """Return the peak activations [bytes]: the largest half-block's, beside what is always there."""
    per_head = rational(width.head_activation_bytes)
    per_channel = rational(width.channel_activation_bytes)
    peaks = (max(per_head * h, per_channel * c) for h, c in zip(heads, channels, strict=True))
    return rational(width.fixed_activation_bytes) + max(peaks, default=Fraction(0))


def retention(profile: Profile, class_name: str, embed_dim: int, heads: Blocks, groups: Blocks) -> float:
    """Return the share of a class's importance that is kept, 0..1.

    Args:
        profile: Importance of every unit for every class.
        class_name: One of the profile's classes.
        embed_dim: One of the profile's widths.
        heads: Kept heads of each block, as indices.
        groups: Kept channel groups of each block, as indices.
    """
    c = profile.classes.index(class_name)
    width = profile.width(embed_dim)
    if width is None:
        raise InputError(f"embed_dim must be a width of the profile, got {embed_dim}.")
    importance = profile.importance
    kept = [importance.heads[c][l][h] for l, block in enumerate(heads) for h in block]
    kept += [importance.channel_groups[c][l][g] for l, block in enumerate(groups) for g in block]
    return width.embed_retention[c] * math.fsum(kept)


def kept_counts(profile: Profile, heads: Blocks, groups: Blocks) -> tuple[list[int], list[int]]:
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
    rate = _macs_per_second(device, load_kinds().get(device.kind or ""))
    if rate is None:
        raise InputError(
            f"device {device.name!r}: the aggregator must have a MAC rate for the fusion, and neither it "
            f"nor its kind {device.kind!r} states one; give it macs_per_second."
        )
    return rate


def device_costs(profile: Profile, fleet: Fleet) -> tuple[DeviceCost, ...]:
    """Return every device of the fleet with its costs, in the fleet's order.

    Raises:
        InputError: If a kind is unknown, or a device cannot be reached from the aggregator.
    """
    kinds = load_kinds()
    path_us = _path_times(fleet)
    costs = []
    for device in fleet.members:
        card = kinds.get(device.kind or "")
        rows = {} if device.macs_per_second else {r.embed_dim: r for r in profile.latency.get(device.kind or "", ())}
        rate = _macs_per_second(device, card)
        known = sorted({*profile.latency, *kinds})
        if (rate is None and not rows) or (device.kind is not None and device.kind not in known):
            raise InputError(
                f"device {device.name!r}: kind must be one of {', '.join(known)}, or the device must have "
                f"its own macs_per_second, got kind {device.kind!r}{nearest(device.kind or '', known) or '.'}"
            )
        overhead = device.runtime_overhead
        if overhead is None:
            overhead = card.runtime_overhead if card else DEFAULT_RUNTIME_OVERHEAD_BYTES
        widths = []
        for width in profile.widths:
            time = _time_model(width, rows.get(width.embed_dim), rate)
            if time is not None:
                returned = profile.feature_bytes_per_embed_dim * width.embed_dim
                send_us = path_us(device.name, profile.input_bytes)
                widths.append(WidthCost(width, time, send_us, path_us(device.name, returned)))
        costs.append(
            DeviceCost(
                name=device.name,
                memory_budget_bytes=device.memory_budget,
                runtime_overhead_bytes=overhead,
                bytes_per_param=BYTES_PER_PARAM[device.precision],
                active_power_w=device.active_power_w or (card.active_power_w if card else None),
                widths=tuple(widths),
            )
        )
    return tuple(costs)


def _per_block(
    per_head: Sequence[int], heads: Sequence[int], per_channel: Sequence[int], channels: Sequence[int]
) -> int:
    blocks = zip(per_head, heads, per_channel, channels, strict=True)
    return sum(a * h + b * c for a, h, b, c in blocks)


def _macs_per_second(device: Device, card: DeviceKind | None) -> Fraction | None:
    own = device.macs_per_second or (card.macs_per_second if card else None)
    return None if own is None else rational(own)


def _time_model(width: Width, row: LatencyRow | None, rate: Fraction | None) -> TimeModel | None:
    if row is not None:
        depth = len(width.head_macs)
        return TimeModel(
            fixed=rational(row.fixed_us),
            attention=rational(row.attention_us),
            head=(rational(row.head_us),) * depth,
            mlp=rational(row.mlp_us),
            channel=(rational(row.channel_us),) * depth,
            estimated=False,
        )
    if rate is None:
        return None
    us_per_mac = 10**6 / rate
    return TimeModel(
        fixed=width.fixed_macs * us_per_mac,
        attention=Fraction(0),
        head=tuple(m * us_per_mac for m in width.head_macs),
        mlp=Fraction(0),
        channel=tuple(m * us_per_mac for m in width.channel_macs),
        estimated=True,
    )


def _path_times(fleet: Fleet) -> Callable[[str, int], int]:
    """Return a function (device, bytes) -> time [us] from the aggregator, over the fastest path.

    Of several paths the best depends on the message: for each least bandwidth that a path may
    have, the one of least latency is tried (a bottleneck shortest path).
    """
    hops = nx.MultiGraph()
    hops.add_nodes_from(member.name for member in fleet.members)
    for link in fleet.links:
        for a in fleet.member_names[link.between[0]]:
            for b in fleet.member_names[link.between[1]]:
                hops.add_edge(a, b, latency=rational(link.latency_ms), bandwidth=rational(link.bandwidth_mbps))
    # (bandwidth, {device: latency}) for each bandwidth that some link has, the widest first.
    levels = []
    for bandwidth in sorted({b for *_, b in hops.edges(data="bandwidth")}, reverse=True):
        wide = nx.MultiGraph()
        wide.add_node(fleet.aggregator)
        wide.add_edges_from(e for e in hops.edges(data=True) if e[2]["bandwidth"] >= bandwidth)
        levels.append((bandwidth, nx.single_source_dijkstra_path_length(wide, fleet.aggregator, weight="latency")))
    reached = nx.node_connected_component(hops, fleet.aggregator)
    default = fleet.default_link
    for member in fleet.members:
        if member.name not in reached and default is None:
            raise InputError(
                f"device {member.name!r}: must be reachable from the aggregator {fleet.aggregator!r}, "
                "got no path of links; add a link or a default_link."
            )

    def time_us(device: str, message_bytes: int) -> int:
        if device == fleet.aggregator:
            return 0
        bits = 8 * message_bytes
        if device not in reached:
            assert default is not None
            return math.ceil(1000 * rational(default.latency_ms) + bits / rational(default.bandwidth_mbps))
        times: list[Fraction] = [1000 * ms[device] + bits / mbps for mbps, ms in levels if device in ms]
        return math.ceil(min(times))

    return time_us
