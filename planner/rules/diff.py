"""Difference of two plans: the classes that devices gain and lose, and the bytes to send."""

from dataclasses import dataclass

import pandas as pd

from planner.rules import cost
from planner.schema import Assignment, Plan, Profile

_COLUMNS = ["device", "gains", "loses", "bytes_to_send"]


@dataclass(frozen=True)
class PlanDiff:
    """Totals of the difference of two plans."""

    classes: int  # that a device gains, counted on each device
    bytes_to_send: int
    devices: int  # with another sub-model, or idle now


def diff_frame(earlier: Plan, plan: Plan, profile: Profile) -> pd.DataFrame:
    """Return a row for each device whose sub-model changes: classes gained and lost, bytes to send.

    Columns: gains, loses, bytes_to_send (the new sub-model's weights; 0 where the device becomes idle).
    """
    before = {a.device: a for a in earlier.assignments}
    after = {a.device: a for a in plan.assignments}
    rows = []
    for device in dict.fromkeys([*after, *before]):
        old, new = before.get(device), after.get(device)
        if old is not None and new is not None and _same(old, new):
            continue
        has, had = (() if a is None else a.classes for a in (new, old))
        gains, loses = tuple(c for c in has if c not in had), tuple(c for c in had if c not in has)
        rows.append((device, gains, loses, 0 if new is None else _weights_bytes(new, profile)))
    frame: pd.DataFrame = pd.DataFrame(rows, columns=_COLUMNS).set_index("device")
    return frame


def plan_diff(earlier: Plan, plan: Plan, profile: Profile) -> PlanDiff:
    """Return the totals of the difference of two plans."""
    frame = diff_frame(earlier, plan, profile)
    classes = sum(len(gains) for gains in frame["gains"])
    return PlanDiff(classes, int(frame["bytes_to_send"].sum()), len(frame))


def _weights_bytes(a: Assignment, profile: Profile) -> int:
    heads, channels = cost.kept_counts(profile, a.kept_heads, a.kept_channel_groups)
    width = profile.width(a.embed_dim)
    assert width is not None
    return cost.sent_bytes(profile, width, heads, channels, a.precision or "float32", a.engine or "onnxruntime")


def _same(a: Assignment, b: Assignment) -> bool:
    keys = ("classes", "embed_dim", "kept_heads", "kept_channel_groups", "precision", "engine")
    return all(getattr(a, key) == getattr(b, key) for key in keys)
