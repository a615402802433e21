"""Data of a plan's plots as pandas tables."""

from typing import Any

import pandas as pd

from planner.rules import cost
from planner.schema import Fleet, Plan, Profile


def times_frame(plan: Plan) -> pd.DataFrame:
    """Return the timeline of one image: a row for each used device, the slowest first.

    The fusion is on the row of its device, which has a row even if it runs no sub-model.

    Columns: send_us, compute_us, return_us, latency_us, fusion_start_us, fusion_us (both missing on the others),
    bottleneck.
    """
    rows = [
        {
            "device": a.device,
            "send_us": a.send_us,
            "compute_us": a.compute_us,
            "return_us": a.return_us,
            "latency_us": a.latency_us,
            "bottleneck": a.device == plan.bottleneck.device,
        }
        for a in sorted(plan.assignments, key=lambda a: -a.latency_us)
    ]
    if plan.fusion.device not in {a.device for a in plan.assignments}:
        nothing = dict.fromkeys(("send_us", "compute_us", "return_us", "latency_us"), 0)
        rows.append({"device": plan.fusion.device, **nothing, "bottleneck": False})
    frame: pd.DataFrame = pd.DataFrame(rows).set_index("device")
    # Fusion begins when the last features have arrived.
    fuses = frame.index == plan.fusion.device
    frame.insert(4, "fusion_start_us", pd.Series(plan.bottleneck.latency_us, frame.index).where(fuses))
    frame.insert(5, "fusion_us", pd.Series(plan.fusion.latency_us, frame.index).where(fuses))
    return frame


def kept_frame(plan: Plan, profile: Profile) -> pd.DataFrame:
    """Return a row for each used device, part (heads, channels) and block, the slowest device first.

    Columns: device, embed_dim, part, block, kept, of, share (kept / of; missing where the model has none).
    """
    rows = []
    for a in sorted(plan.assignments, key=lambda a: -a.latency_us):
        heads, channels = cost.kept_counts(profile, a.kept_heads, a.kept_channel_groups)
        whole_heads, whole_channels = [profile.num_heads] * profile.depth, [sum(s) for s in profile.group_sizes]
        for part, kept, of in (("heads", heads, whole_heads), ("channels", channels, whole_channels)):
            for block in range(profile.depth):
                row = {"device": a.device, "embed_dim": a.embed_dim, "part": part, "block": block}
                rows.append({**row, "kept": kept[block], "of": of[block]})
    frame: pd.DataFrame = pd.DataFrame(rows)
    frame["share"] = (frame["kept"] / frame["of"]).where(frame["of"] > 0)
    return frame


def memory_frame(plan: Plan, fleet: Fleet) -> pd.DataFrame:
    """Return a row for each device, the fullest first and the idle ones last.

    The fullest is where the larger share of either budget is in use. Columns: memory_bytes (missing for an idle one),
    budget_bytes, share (of the budget), storage_bytes, storage_budget_bytes, storage_share (the three missing where the
    device has no budget for it), bottleneck.
    """
    used = {a.device: (a.memory_bytes, a.storage_bytes) for a in plan.assignments}
    rows: list[dict[str, Any]] = []
    for member in fleet.members:
        memory_bytes, storage_bytes = used.get(member.name, (float("nan"), None))
        rows.append(
            {
                "device": member.name,
                "memory_bytes": memory_bytes,
                "budget_bytes": member.memory_budget,
                "share": memory_bytes / member.memory_budget,
                "storage_bytes": storage_bytes,
                "storage_budget_bytes": member.storage_budget,
                "storage_share": _share(storage_bytes, member.storage_budget),
                "bottleneck": member.name == plan.bottleneck.device,
            }
        )
    # Shares are negative here, so that the idle devices come last.
    rows.sort(key=lambda row: -max(row["share"], row["storage_share"] or 0.0) if row["device"] in used else 1)
    frame: pd.DataFrame = pd.DataFrame(rows).set_index("device")
    return frame


def _share(used: int | None, budget: int | None) -> float | None:
    return None if used is None or budget is None else used / budget


def retention_frame(plan: Plan, profile: Profile) -> pd.DataFrame:
    """Return the retention of each class (columns) on each used device (rows, the slowest first).

    Missing where the device does not serve the class.
    """
    slowest_first = sorted(plan.assignments, key=lambda a: -a.latency_us)
    rows = [[a.retention.get(name, float("nan")) for name in profile.classes] for a in slowest_first]
    index = pd.Index([a.device for a in slowest_first], name="device")
    frame: pd.DataFrame = pd.DataFrame(rows, index=index, columns=pd.Index(profile.classes, name="class"))
    return frame
