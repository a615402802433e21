"""Costs of the sub-models and messages of a small instance: the arithmetic of the oracle in brute_force.py.

It follows docs/mathematics.md, shares no code with the planner, and reads the profile and the
fleet as plain data (the JSON of their files).

Legend: U units (heads and channel groups), 2^U subsets of them, C classes, L blocks.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tests.helpers.common import Json

BYTES = {"float32": 4, "float16": 2, "int8": 1}


Ints = NDArray[np.int64]


def exact(number: float) -> Fraction:
    """Return the number as a fraction of its decimal notation."""
    return Fraction(str(number))


def ceil_div(numbers: Ints, divisor: Fraction) -> Ints:
    """Return numbers / divisor, rounded up."""
    return -(-numbers * divisor.denominator // divisor.numerator)


def named(fleet: Json) -> dict[str, list[str]]:
    """Return the single devices that each name stands for: `pi` of count 2 for pi-1 and pi-2."""
    found: dict[str, list[str]] = {}
    for device in fleet["devices"]:
        name, count = device["name"], device["count"]
        singles = [name] if count == 1 else [f"{name}-{i}" for i in range(1, count + 1)]
        found |= {single: [single] for single in singles} | {name: singles}
    return found


def members(fleet: Json) -> dict[str, Json]:
    """Return every single device by its name, in order."""
    return {single: device for device in fleet["devices"] for single in named(fleet)[device["name"]]}


# --- messages


@dataclass(frozen=True)
class Route:
    """The path of a message between the aggregator and a device."""

    num_bytes: int
    alone_us: Fraction
    media: frozenset[tuple[object, Fraction]]  # shared: their name or place in the file, and the time of a byte [us]
    relays: frozenset[str]


def route(fleet: Json, device: str, num_bytes: int) -> Route:
    """Return the fastest simple path for a message alone, by trying each; the default link where there is none."""
    if device == fleet["aggregator"]:
        return Route(0, Fraction(0), frozenset(), frozenset())
    found = [
        Route(num_bytes, _alone_us([link for _, link in hops], num_bytes), _media(hops), frozenset(between))
        for between, hops in _paths(fleet, device)
    ]
    if not found:
        hop = (-1, fleet["default_link"])
        return Route(num_bytes, _alone_us([hop[1]], num_bytes), _media([hop]), frozenset())
    best = min(found, key=lambda r: r.alone_us)
    assert {r for r in found if r.alone_us == best.alone_us} == {best}, (
        "two fastest routes: the instance says not which"
    )
    return best


def travel_us(routes: Sequence[Route]) -> list[int]:
    """Return the time of each of these messages, each ending with the last one that shares a medium with it."""
    times = []
    for i, mine in enumerate(routes):
        others = [other for j, other in enumerate(routes) if j != i]
        waits = sum(other.num_bytes * us for other in others for _, us in mine.media & other.media)
        times.append(math.ceil(mine.alone_us + waits))
    return times


def _paths(fleet: Json, device: str) -> Iterator[tuple[tuple[str, ...], tuple[tuple[int, Json], ...]]]:
    """Yield (devices between, numbered links) of every simple path from the aggregator."""
    stands_for = named(fleet)
    joined = [
        (number, link, [stands_for[end] for end in link["between"]]) for number, link in enumerate(fleet["links"])
    ]
    others = [name for name in members(fleet) if name not in (device, fleet["aggregator"])]
    for length in range(len(others) + 1):
        for between in itertools.permutations(others, length):
            hops = [
                [(n, link) for n, link, (s, t) in joined if (a in s and b in t) or (b in s and a in t)]
                for a, b in itertools.pairwise([fleet["aggregator"], *between, device])
            ]
            yield from ((between, path) for path in itertools.product(*hops))


def _alone_us(links: Sequence[Json], num_bytes: int) -> Fraction:
    bandwidth_mbps = min(exact(link["bandwidth_mbps"]) for link in links)
    return sum(1000 * exact(link["latency_ms"]) for link in links) + 8 * num_bytes / bandwidth_mbps


def _media(hops: Sequence[tuple[int, Json]]) -> frozenset[tuple[object, Fraction]]:
    """Return the media of links: one for each shared link, and one for all links that share a name."""
    return frozenset(
        (number if link["shared"] is True else link["shared"], 8 / exact(link["bandwidth_mbps"]))
        for number, link in hops
        if link["shared"]
    )


# --- sub-models


@dataclass(frozen=True)
class Form:
    """Every sub-model that fits on a device, at one width and precision."""

    embed_dim: int
    kept: NDArray[np.float64]  # (S, C) retention
    weights: NDArray[np.float64]  # (S, U) what it retains of each unit, in the mean of classes; 0 where it is not kept
    compute_us: Ints  # (S,)


def forms(profile: Json, device: Json) -> Iterator[Form]:
    """Yield everything that fits on a device, for each width with known times and each precision."""
    precisions = [device["precision"]] if isinstance(device["precision"], str) else device["precision"]
    whole = np.ones(len(profile["classes"]))
    for width in profile["widths"]:
        for precision in precisions:
            if (compute_us := _compute_us(profile, width, device, precision)) is None:
                continue
            fits = _fits(profile, width, device, precision)
            chosen = _chosen(len(list(_units(profile))))
            fits &= keeps_anchor(profile, chosen)
            shares = np.array(width["embed_retention"]) * profile["precision_retention"].get(precision, whole)
            kept = chosen.astype(float) @ importance_of_units(profile) * shares
            yield Form(width["embed_dim"], kept[fits], chosen[fits] * shares.mean(), compute_us[fits])


def keeps_anchor(profile: Json, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which sets of units (S, U), in the order of blocks, hold the anchor head, (S,)."""
    last = [heads[-1] for heads in profile["importance"]["heads"]]
    # Summed over classes without rounding.
    totals = [sum(Fraction(of_class[head]) for of_class in last) for head in range(profile["num_heads"])]
    if not totals:
        return np.ones(len(chosen), dtype=bool)
    position = list(_units(profile)).index((profile["depth"] - 1, True, totals.index(max(totals)), 1))
    kept: NDArray[np.bool_] = chosen[:, position]
    return kept


def _units(profile: Json) -> Iterator[tuple[int, bool, int, int]]:
    """Yield (block, is a head, index, size) of every unit."""
    for block, groups in enumerate(profile["channel_groups"]):
        yield from ((block, True, head, 1) for head in range(profile["num_heads"]))
        yield from ((block, False, group, len(channels)) for group, channels in enumerate(groups))


def _chosen(num_units: int) -> NDArray[np.bool_]:
    """Return every subset of the units, (2^U, U)."""
    return (np.arange(2**num_units)[:, None] >> np.arange(num_units) & 1).astype(bool)


def importance_of_units(profile: Json) -> NDArray[np.float64]:
    """Return the importance of each unit, in the order of blocks, for each class, (U, C)."""
    importance = profile["importance"]
    return np.array(
        [
            [part[block][index] for part in importance["heads" if is_head else "channel_groups"]]
            for block, is_head, index, _ in _units(profile)
        ]
    )


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


def _fits(profile: Json, width: Json, device: Json, precision: str) -> NDArray[np.bool_]:
    """Return which subsets of the units are within the device's budgets, (2^U,)."""
    heads, channels = _counts(profile)
    params = (
        width["fixed_params"] + heads @ np.array(width["head_params"]) + channels @ np.array(width["channel_params"])
    )
    weights: Ints = params * BYTES[precision]
    activations = _activation_bytes(profile, width, heads, channels)
    if device.get("engine") == "c":
        weights = _constant_bytes(profile, width, heads, channels, precision)
        activations = _arena_bytes(profile, width, heads, channels)
        # The image and the features.
        activations += profile["input_bytes"] + profile["feature_bytes_per_embed_dim"] * width["embed_dim"]
    memory = activations + device["runtime_overhead"]
    if device.get("storage_budget") is None:
        return np.asarray(memory + weights <= device["memory_budget"])
    stored = weights + device["storage_overhead"] <= device["storage_budget"]
    return np.asarray(stored & (memory <= device["memory_budget"]))


def _arena_bytes(profile: Json, width: Json, heads: Ints, channels: Ints) -> Ints:
    """Return the arena of the generated C code, buffer by buffer."""
    N, E, D = profile["num_tokens"], width["embed_dim"], profile["head_dim"]
    T = min(N, 4 if N < 64 else 16)
    # Norms of all tokens; keys and values of one head; queries and scores of some tokens.
    attention = N * E + 2 * N * D + T * D + T * N
    mlp = T * E + T * channels.max(axis=1)
    embedding = T * math.ceil(profile["input_bytes"] / (N - 1))
    floats: Ints = N * E + np.maximum(mlp, np.maximum(np.where(heads.any(axis=1), attention, 0), embedding))
    return 4 * floats


def _constant_bytes(profile: Json, width: Json, heads: Ints, channels: Ints, precision: str) -> Ints:
    """Return the constants of the generated C code, array by array; structs that say where they are at the end."""
    N, E, D, L = profile["num_tokens"], width["embed_dim"], profile["head_dim"], profile["depth"]
    patch = math.ceil(profile["input_bytes"] / (N - 1))
    num_colours = 3 if patch % 3 == 0 else 1

    def matrix(num_inputs: int | Ints, num_outputs: int | Ints) -> int | Ints:
        """Return the bytes of a matrix; in int8, of its scales, too."""
        return 4 * num_inputs * num_outputs if precision == "float32" else (num_inputs + 4) * num_outputs

    total = matrix(patch, E) + 4 * (N * E) + 4 * 2 * E + 4 * 2 * num_colours + 132 + 104 * L
    for l in range(L):
        h, c = heads[:, l], channels[:, l]
        total = total + matrix(E, 3 * D * h) + 4 * (3 * D * h) + matrix(D * h, E) + 4 * E + 4 * 2 * E
        total = total + matrix(E, c) + 4 * c + matrix(c, E) + 4 * E + 4 * 2 * E
    return np.asarray(total)


def _activation_bytes(profile: Json, width: Json, heads: Ints, channels: Ints) -> Ints:
    """Return the activations of ONNX Runtime, as the profile states them."""
    # In quarters of a byte the activations of the instances are whole.
    head, channel, fixed = (round(4 * width[f"{name}_activation_bytes"]) for name in ("head", "channel", "fixed"))
    peaks = np.maximum(head * heads, channel * channels)
    activations: Ints = -(-(fixed + peaks.max(axis=1)) // 4)
    return activations


def _compute_us(profile: Json, width: Json, device: Json, precision: str) -> Ints | None:
    heads, channels = _counts(profile)
    if device["macs_per_second"] is not None:
        macs = width["fixed_macs"] + heads @ np.array(width["head_macs"]) + channels @ np.array(width["channel_macs"])
        return ceil_div(macs * 10**6, exact(device["macs_per_second"]))
    # The instances' tables of ONNX Runtime are of float32, which stands for all precisions.
    timed = ("c", precision) if device.get("engine") == "c" else ("onnxruntime", "float32")
    rows = [
        row
        for row in profile["latency"][device["kind"]]
        if row["embed_dim"] == width["embed_dim"] and (row.get("engine", "onnxruntime"), row["precision"]) == timed
    ]
    if not rows:
        return None
    # The tables have two decimals: in hundredths of a microsecond they are whole.
    fixed, attention, head, mlp, channel = (
        round(100 * rows[0][f"{name}_us"]) for name in ("fixed", "attention", "head", "mlp", "channel")
    )
    last = [rows[0].get(f"last_{name}_us") for name in ("head", "channel")]
    last_head, last_channel = (
        each if us is None else round(100 * us) for each, us in zip((head, channel), last, strict=True)
    )
    hundredths = fixed + attention * (heads > 0).sum(axis=1) + mlp * (channels > 0).sum(axis=1)
    hundredths += head * heads[:, :-1].sum(axis=1) + last_head * heads[:, -1]
    hundredths += channel * channels[:, :-1].sum(axis=1) + last_channel * channels[:, -1]
    times: Ints = -(-hundredths // 100)
    return times
