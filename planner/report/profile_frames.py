"""A profile as pandas tables: costs, importance by class, the price of pruning, latency."""

import numpy as np
import pandas as pd

from planner.rules import cost
from planner.rules.accuracy import predict_accuracy
from planner.rules.anchor_head import anchor_head
from planner.rules.memory import onnxruntime_memory
from planner.rules.retention import unit_importance
from planner.schema import LatencyRow, Profile, SubModel, Width

# Shares of the MACs that the rows of `pruning_frame` keep.
_LEFT = (0.9, 0.75, 0.5, 0.25)
# (block, whether it is a head, index of the head or of the channel group in its block)
_Unit = tuple[int, bool, int]


def costs_frame(profile: Profile) -> pd.DataFrame:
    """Return the MACs and float32 bytes of the whole model's parts: a row for the fixed part, then for each half-block.

    Columns: block (-1: fixed), part (fixed, heads, channels), units, macs, macs_share, weight_bytes, bytes_share.
    """
    width = _widest(profile)
    rows: list[dict[str, object]] = [
        {"block": -1, "part": "fixed", "units": 0, "macs": width.fixed_macs, "params": width.fixed_params}
    ]
    for l in range(profile.depth):
        halves = (
            ("heads", profile.num_heads, width.head_macs[l], width.head_params[l]),
            ("channels", profile.hidden_dim, width.channel_macs[l], width.channel_params[l]),
        )
        for part, units, macs, params in halves:
            rows.append({"block": l, "part": part, "units": units, "macs": units * macs, "params": units * params})
    frame: pd.DataFrame = pd.DataFrame(rows)
    frame["weight_bytes"] = frame.pop("params") * 4
    frame["macs_share"] = frame["macs"] / frame["macs"].sum()
    frame["bytes_share"] = frame["weight_bytes"] / frame["weight_bytes"].sum()
    return frame


def widths_frame(profile: Profile) -> pd.DataFrame:
    """Return a row for each embed dim that can be planned, with every head and channel kept.

    Columns: params, macs, activation_bytes, least_retention, mean_retention (over classes).
    """
    heads, channels = _all_kept(profile)
    rows = [
        {
            "embed_dim": width.embed_dim,
            "params": cost.params(width, heads, channels),
            "macs": cost.macs(width, heads, channels),
            "activation_bytes": float(onnxruntime_memory(width, "float32").activations.peak(heads, channels)),
            "least_retention": min(width.embed_retention),
            "mean_retention": float(np.mean(width.embed_retention)),
        }
        for width in profile.widths
    ]
    frame: pd.DataFrame = pd.DataFrame(rows).set_index("embed_dim")
    return frame


def importance_frame(profile: Profile) -> pd.DataFrame:
    """Return the share of each class's importance in each block: rows are classes, columns (block, part)."""
    columns = {}
    for l in range(profile.depth):
        columns[(l, "heads")] = [sum(blocks[l]) for blocks in profile.importance.heads]
        columns[(l, "channels")] = [sum(blocks[l]) for blocks in profile.importance.channel_groups]
    frame: pd.DataFrame = pd.DataFrame(columns, index=pd.Index(profile.classes, name="class"))
    return frame


def heads_frame(profile: Profile) -> pd.DataFrame:
    """Return a row for each head: its mean share of a class's importance, and the class that needs it most.

    Columns: mean_share, neediest (class), neediest_share.
    """
    shares = np.array(profile.importance.heads).reshape(len(profile.classes), profile.depth, profile.num_heads)
    rows = [
        {
            "block": l,
            "head": h,
            "mean_share": float(shares[:, l, h].mean()),
            "neediest": profile.classes[int(shares[:, l, h].argmax())],
            "neediest_share": float(shares[:, l, h].max()),
        }
        for l in range(profile.depth)
        for h in range(profile.num_heads)
    ]
    columns = ["block", "head", "mean_share", "neediest", "neediest_share"]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=columns).set_index(["block", "head"])
    return frame


def pruning_frame(profile: Profile) -> pd.DataFrame:
    """Return what pruning would cost one sub-model of all classes at full width.

    Pruned first are the heads and channel groups with the least importance for their MACs, to the class that needs
    them most; never the anchor head.

    Columns: macs, weight_bytes, heads, channels, least_retention, mean_retention, accuracy (predicted, of this
    sub-model alone; missing where the profile has no prediction). The index is the share of MACs left.
    """
    width = _widest(profile)
    units, anchor = _units(profile), (profile.depth - 1, True, anchor_head(profile))
    importance = unit_importance(profile)  # (C, U)
    unit_macs = np.array(
        [
            width.head_macs[l] if is_head else width.channel_macs[l] * profile.group_sizes[l][i]
            for l, is_head, i in units
        ]
    )
    # Stable: the order of equal units must not depend on the machine.
    order = np.argsort(importance.max(axis=0) / unit_macs, kind="stable")
    order = order[[units[u] != anchor for u in order]]
    whole_macs = width.fixed_macs + unit_macs.sum()
    rows = []
    for left in _LEFT:
        num_pruned = int(np.searchsorted(np.cumsum(unit_macs[order]), (1 - left) * whole_macs)) + 1
        pruned = {units[u] for u in order[:num_pruned]}
        retention = importance[:, [unit not in pruned for unit in units]].sum(axis=1)  # (C,)
        sub_model = _without(pruned, profile, width)
        num_heads, num_channels = cost.kept_counts(profile, sub_model.kept_heads, sub_model.kept_channel_groups)
        predicted = predict_accuracy([sub_model], profile)
        rows.append(
            {
                "left": left,
                "macs": cost.macs(width, num_heads, num_channels),
                "weight_bytes": 4 * cost.params(width, num_heads, num_channels),
                "heads": sum(num_heads),
                "channels": sum(num_channels),
                "least_retention": float(retention.min()),
                "mean_retention": float(retention.mean()),
                "accuracy": None if predicted is None else predicted.accuracy,
            }
        )
    frame: pd.DataFrame = pd.DataFrame(rows).set_index("left")
    return frame


def latency_frame(profile: Profile) -> pd.DataFrame:
    """Return a row for each measured kind, embed dim, precision and engine: coefficients [us] and held-out error."""
    names = list(LatencyRow.model_fields)
    rows = [[kind, *(getattr(row, name) for name in names)] for kind, table in profile.latency.items() for row in table]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=["kind", *names])
    return frame


def _units(profile: Profile) -> list[_Unit]:
    heads = [(l, True, h) for l in range(profile.depth) for h in range(profile.num_heads)]
    return heads + [(l, False, g) for l in range(profile.depth) for g in range(len(profile.channel_groups[l]))]


def _without(pruned: set[_Unit], profile: Profile, width: Width) -> SubModel:
    """Return the sub-model of all classes that keeps every other unit."""
    kept = [unit for unit in _units(profile) if unit not in pruned]
    heads, groups = (
        tuple(tuple(i for block, head, i in kept if block == l and head == is_head) for l in range(profile.depth))
        for is_head in (True, False)
    )
    return SubModel(classes=profile.classes, embed_dim=width.embed_dim, kept_heads=heads, kept_channel_groups=groups)


def _widest(profile: Profile) -> Width:
    return max(profile.widths, key=lambda width: width.embed_dim)


def _all_kept(profile: Profile) -> tuple[list[int], list[int]]:
    return [profile.num_heads] * profile.depth, [sum(sizes) for sizes in profile.group_sizes]
