"""Demands of a goal, each with the change that drops it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from planner.errors import setting
from planner.schema import Goal


@dataclass(frozen=True)
class DroppableDemand:
    """One demand as a message mentions it, and the keys of the goal without it."""

    text: str
    key: str
    changes: dict[str, Any]


def droppable_demands(goal: Goal) -> Iterator[DroppableDemand]:
    """Yield each demand of a goal; the retention floors last."""
    for key in ("pin", "forbid"):
        placements: dict[str, tuple[str, ...]] = getattr(goal, key)
        for name, devices in placements.items():
            for device in devices:
                rest = {**placements, name: tuple(d for d in devices if d != device)}
                dropped = {key: {k: v for k, v in rest.items() if v}}
                yield DroppableDemand(setting(key, f"{name}={device}"), key, dropped)
    for key in ("together", "apart"):
        groups: tuple[tuple[str, ...], ...] = getattr(goal, key)
        for group in groups:
            dropped_group = {key: tuple(g for g in groups if g != group)}
            yield DroppableDemand(setting(key, ",".join(group)), key, dropped_group)
    for device in goal.leave_out:
        others = tuple(d for d in goal.leave_out if d != device)
        yield DroppableDemand(setting("leave_out", device), "leave_out", {"leave_out": others})
    if goal.survive:
        yield DroppableDemand(setting("survive", goal.survive), "survive", {"survive": 0})
    for key, limit in (("max_latency_ms", goal.max_latency_ms), ("max_energy_mj", goal.max_energy_mj)):
        if limit is not None:
            yield DroppableDemand(setting(key, f"{limit:.10g}"), key, {key: None})
    floors = {"min_retention": 0.0, "max_accuracy_drop": None}
    yield DroppableDemand("the retention floors", "floors", floors)


def without(goal: Goal, dropped: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the changes to a goal that drop several demands at once.

    Args:
        goal: Goal with all demands.
        dropped: Changes of each dropped demand.
    """
    changes: dict[str, Any] = {}
    for one in dropped:
        for key, value in one.items():
            before = changes.get(key, getattr(goal, key))
            if isinstance(before, dict):
                changes[key] = {
                    k: kept for k, v in before.items() if (kept := tuple(d for d in v if d in value.get(k, ())))
                }
            elif isinstance(before, tuple):
                changes[key] = tuple(item for item in before if item in value)
            else:
                changes[key] = value
    return changes
