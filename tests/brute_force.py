"""The least latency of a small fleet by trying everything: an oracle that shares no code with the planner.

It follows design.md, section 5, and reads the profile and the fleet as plain data (the JSON of
their files). Sub-models: every subset of the units, for every device, width and class subset.
Plans: every choice of one class subset and width, or idleness, for every device.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEVER = 2**60
BYTES = {"float32": 4, "float16": 2, "int8": 1}
# `check` forgives one part per million, which is less than importance can be measured to.
FORGIVEN = 5e-7

Json = dict[str, Any]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Best:
    """A best plan: its latency [us], and for each device (class subset as a bit mask, embed dim) or None."""

    latency_us: int
    picks: tuple[tuple[int, int] | None, ...]


def least_latency(profile: Json, fleet: Json, floors: Sequence[Sequence[float]]) -> Best | None:
    """Return the plan of least latency, or None where no plan holds.

    Args:
        profile: As in profile.json; at most about 10 units.
        fleet: As in devices.json; devices without `count`, each with its own `runtime_overhead`.
        floors: The least retention of class c beside n - 1 others, `floors[c][n - 1]`.
    """
    devices, classes = fleet["devices"], len(profile["classes"])
    # For each device: [(mask, embed dim, latency)], idleness first.
    choices = []
    for device in devices:
        rows = [(0, 0, 0)]
        for width in profile["widths"]:
            if (compute_us := _compute_us(profile, width, device)) is None:
                continue
            travel_us = sum(
                _path_us(fleet, device["name"], size)
                for size in (profile["input_bytes"], profile["feature_bytes_per_embed_dim"] * width["embed_dim"])
            )
            fits = _memory_bytes(profile, width, device) <= device["memory_budget"]
            have = _have(profile) * np.array(width["embed_retention"])
            for mask in range(1, 2**classes):
                members = [c for c in range(classes) if mask >> c & 1]
                need = np.array([floors[c][len(members) - 1] for c in members])
                good = fits & (have[:, members] >= need - FORGIVEN).all(axis=1)
                if good.any():
                    rows.append((mask, width["embed_dim"], travel_us + int(compute_us[good].min())))
        choices.append(rows)
    return _best_assignment(profile, fleet, choices)


def floors_by_drop(profile: Json, max_accuracy_drop: float) -> list[list[float]]:
    """Return `floors` of the strictest recovery row that allows this drop."""
    rows = [row for row in profile["recovery"] if row["max_accuracy_drop"] <= max_accuracy_drop]
    row = max(rows, key=lambda row: row["max_accuracy_drop"])
    return [[min(1.0, least * need) for least in row["by_count"]] for need in row["class_need"]]


def _best_assignment(profile: Json, fleet: Json, choices: list[list[tuple[int, int, int]]]) -> Best | None:
    """Try every combination; arrays with one axis for each device."""
    grids = [np.array(rows, dtype=np.int64) for rows in choices]
    axes = [np.ix_(*(grid[:, column] for grid in grids)) for column in range(3)]
    masks, dims, times = axes[0][0], axes[1][0], axes[2][0]
    for mask, dim, time in zip(axes[0][1:], axes[1][1:], axes[2][1:], strict=True):
        masks, dims, times = masks | mask, dims + dim, np.maximum(times, time)
    rate = next(d["macs_per_second"] for d in fleet["devices"] if d["name"] == fleet["aggregator"])
    num_classes = len(profile["classes"])
    macs = profile["fusion_hidden"] * (dims + num_classes)
    totals = np.where(masks == 2**num_classes - 1, times + _ceil_div(macs * 10**6, _exact(rate)), NEVER)
    best = np.unravel_index(np.argmin(totals), totals.shape)
    if totals[best] >= NEVER:
        return None
    picks = [tuple(rows[i][:2]) if rows[i][0] else None for rows, i in zip(choices, best, strict=True)]
    return Best(int(totals[best]), tuple(picks))


def _units(profile: Json) -> Iterator[tuple[int, bool, int, int]]:
    """Yield (block, is it a head, index, size) of every unit."""
    for block, groups in enumerate(profile["channel_groups"]):
        yield from ((block, True, head, 1) for head in range(profile["num_heads"]))
        yield from ((block, False, group, len(channels)) for group, channels in enumerate(groups))


def _chosen(num_units: int) -> NDArray[np.bool_]:
    """Return every subset of the units, (2^U, U)."""
    return (np.arange(2**num_units)[:, None] >> np.arange(num_units) & 1).astype(bool)


def _have(profile: Json) -> NDArray[np.float64]:
    """Return the importance that each subset of the units keeps of each class, (2^U, C)."""
    importance = profile["importance"]
    shares = [
        [part[block][index] for part in importance["heads" if is_head else "channel_groups"]]
        for block, is_head, index, _ in _units(profile)
    ]
    return _chosen(len(shares)) @ np.array(shares)


def _counts(profile: Json) -> tuple[Ints, Ints]:
    """Return h_l and c_l of each subset of the units, (2^U, L) each."""
    units = list(_units(profile))
    chosen = _chosen(len(units)).astype(np.int64)
    counts = []
    for heads in (True, False):
        sizes = np.zeros((len(units), profile["depth"]), dtype=np.int64)
        for u, (block, is_head, _, size) in enumerate(units):
            sizes[u, block] = size * (is_head == heads)
        counts.append(chosen @ sizes)
    return counts[0], counts[1]


def _memory_bytes(profile: Json, width: Json, device: Json) -> Ints:
    heads, channels = _counts(profile)
    params = (
        width["fixed_params"] + heads @ np.array(width["head_params"]) + channels @ np.array(width["channel_params"])
    )
    # Activations are whole bytes in the random profiles.
    peaks = np.maximum(int(width["head_activation_bytes"]) * heads, int(width["channel_activation_bytes"]) * channels)
    activations = int(width["fixed_activation_bytes"]) + peaks.max(axis=1)
    return params * BYTES[device["precision"]] + activations + device["runtime_overhead"]


def _compute_us(profile: Json, width: Json, device: Json) -> Ints | None:
    heads, channels = _counts(profile)
    if device["macs_per_second"] is not None:
        macs = width["fixed_macs"] + heads @ np.array(width["head_macs"]) + channels @ np.array(width["channel_macs"])
        return _ceil_div(macs * 10**6, _exact(device["macs_per_second"]))
    rows = [row for row in profile["latency"][device["kind"]] if row["embed_dim"] == width["embed_dim"]]
    if not rows:
        return None
    # The tables have two decimals: in hundredths of a microsecond they are whole.
    fixed, attention, head, mlp, channel = (
        round(100 * rows[0][f"{name}_us"]) for name in ("fixed", "attention", "head", "mlp", "channel")
    )
    hundredths = fixed + attention * (heads > 0).sum(axis=1) + head * heads.sum(axis=1)
    hundredths += mlp * (channels > 0).sum(axis=1) + channel * channels.sum(axis=1)
    return -(-hundredths // 100)


def _path_us(fleet: Json, device: str, message_bytes: int) -> int:
    """Return the time over the best of all simple paths, each tried."""
    if device == fleet["aggregator"]:
        return 0
    others = [d["name"] for d in fleet["devices"] if d["name"] not in (device, fleet["aggregator"])]
    times = []
    for length in range(len(others) + 1):
        for between in itertools.permutations(others, length):
            stops = [fleet["aggregator"], *between, device]
            hops = [
                [link for link in fleet["links"] if {a, b} == set(link["between"])]
                for a, b in itertools.pairwise(stops)
            ]
            times += [_hops_us(path, message_bytes) for path in itertools.product(*hops)]
    return min(times) if times else _hops_us([fleet["default_link"]], message_bytes)


def _hops_us(hops: Sequence[Json], message_bytes: int) -> int:
    latency_ms = sum(_exact(hop["latency_ms"]) for hop in hops)
    return math.ceil(1000 * latency_ms + 8 * message_bytes / min(_exact(hop["bandwidth_mbps"]) for hop in hops))


def _exact(number: float) -> Fraction:
    return Fraction(str(number))


def _ceil_div(numbers: Ints, divisor: Fraction) -> Ints:
    return -(-numbers * divisor.denominator // divisor.numerator)
