"""A profile as pandas tables: where costs are, who needs what, what less would cost."""

import numpy as np
import pandas as pd

from planner.rules import cost
from planner.rules.accuracy import predicted_accuracy, unit_shares
from planner.schema import LatencyRow, Profile, SubModel, Width

# What is left of the MACs, in the rows of `less_frame`: first a tenth less.
_LEFT = (0.9, 0.75, 0.5, 0.25)


def costs_frame(profile: Profile) -> pd.DataFrame:
    """Return where the whole model's MACs and float32 bytes are: a row for what is fixed, then for each half-block.

    Columns: block (-1: fixed), part (fixed, heads, channels), units, macs, macs_share, weight_bytes, bytes_share.
    """
    width = _full(profile)
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
    """Return a row for each embed dim that can be planned, every head and channel kept.

    Columns: params, macs, activation_bytes, least_retention, mean_retention (over classes).
    """
    heads, channels = _all_kept(profile)
    rows = [
        {
            "embed_dim": width.embed_dim,
            "params": cost.params(width, heads, channels),
            "macs": cost.macs(width, heads, channels),
            "activation_bytes": float(cost.activation_bytes(width, heads, channels)),
            "least_retention": min(width.embed_retention),
            "mean_retention": float(np.mean(width.embed_retention)),
        }
        for width in profile.widths
    ]
    frame: pd.DataFrame = pd.DataFrame(rows).set_index("embed_dim")
    return frame


def needs_frame(profile: Profile) -> pd.DataFrame:
    """Return the share of each class's importance in each block: rows are classes, columns (block, part)."""
    columns = {}
    for l in range(profile.depth):
        columns[(l, "heads")] = [sum(blocks[l]) for blocks in profile.importance.heads]
        columns[(l, "channels")] = [sum(blocks[l]) for blocks in profile.importance.channel_groups]
    frame: pd.DataFrame = pd.DataFrame(columns, index=pd.Index(profile.classes, name="class"))
    return frame


def heads_frame(profile: Profile) -> pd.DataFrame:
    """Return a row for each head: its mean share of a class's importance, and who needs it most.

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


def less_frame(profile: Profile) -> pd.DataFrame:
    """Return what fewer MACs would cost one sub-model of all classes at full width.

    The heads and groups go first that matter least for their MACs to the class that needs them most.

    Columns: macs, weight_bytes, heads, channels, least_retention, mean_retention, accuracy (predicted, of this
    sub-model alone; missing where the profile has no prediction). The index is the share of MACs left.
    """
    width = _full(profile)
    heads, groups = ([list(range(n)) for n in counts] for counts in _unit_counts(profile))
    units = [(l, True, h) for l in range(profile.depth) for h in heads[l]]
    units += [(l, False, g) for l in range(profile.depth) for g in groups[l]]
    shares = unit_shares(profile)  # (C, U)
    sizes = profile.group_sizes
    macs = np.array([width.head_macs[l] if head else width.channel_macs[l] * sizes[l][i] for l, head, i in units])
    order = np.argsort(shares.max(axis=0) / macs, kind="stable")
    whole = width.fixed_macs + macs.sum()
    rows = []
    for left in _LEFT:
        count = int(np.searchsorted(np.cumsum(macs[order]), (1 - left) * whole)) + 1
        gone = {units[u] for u in order[:count]}
        kept_heads = tuple(tuple(h for h in heads[l] if (l, True, h) not in gone) for l in range(profile.depth))
        kept_groups = tuple(tuple(g for g in groups[l] if (l, False, g) not in gone) for l in range(profile.depth))
        sub_model = SubModel(
            classes=profile.classes, embed_dim=width.embed_dim, kept_heads=kept_heads, kept_channel_groups=kept_groups
        )
        num_heads, num_channels = cost.kept_counts(profile, kept_heads, kept_groups)
        kept = [u not in gone for u in units]
        predicted = predicted_accuracy([sub_model], profile)
        rows.append(
            {
                "left": left,
                "macs": cost.macs(width, num_heads, num_channels),
                "weight_bytes": 4 * cost.params(width, num_heads, num_channels),
                "heads": sum(num_heads),
                "channels": sum(num_channels),
                "least_retention": float(shares[:, kept].sum(axis=1).min()),
                "mean_retention": float(shares[:, kept].sum(axis=1).mean()),
                "accuracy": None if predicted is None else predicted.accuracy,
            }
        )
    frame: pd.DataFrame = pd.DataFrame(rows).set_index("left")
    return frame


def latency_frame(profile: Profile) -> pd.DataFrame:
    """Return a row for each measured kind, embed dim and precision: coefficients [us] and held-out error."""
    rows = [{"kind": kind, **row.model_dump()} for kind, table in profile.latency.items() for row in table]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=["kind", *LatencyRow.model_fields])
    return frame


def _full(profile: Profile) -> Width:
    return max(profile.widths, key=lambda width: width.embed_dim)


def _unit_counts(profile: Profile) -> tuple[list[int], list[int]]:
    return [profile.num_heads] * profile.depth, [len(block) for block in profile.channel_groups]


def _all_kept(profile: Profile) -> tuple[list[int], list[int]]:
    return [profile.num_heads] * profile.depth, [sum(sizes) for sizes in profile.group_sizes]
