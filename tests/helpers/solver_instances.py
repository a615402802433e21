"""Instances for the tests of the solver: small ones for brute force, and middling ones."""

from functools import cache
from typing import Any, TypeVar

from planner.errors import InfeasibleError
from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver import solve
from tests.helpers import brute_force
from tests.helpers.brute_force import Best
from tests.helpers.common import Json
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile, with_storage

Document = TypeVar("Document", Fleet, Profile)

# From `STORED` on, some devices have a storage budget.
SMALL, STORED = range(352), 320
# Seeds of `middling`.
CHANGED = range(400, 412)
# Instances as large as the digits ViT: 4 blocks of 4 heads and 32 channel groups.
DIGITS: Json = {"depth": 4, "num_heads": 4, "num_groups": 32}


def changed(data: Document, **changes: Any) -> Document:
    """Return a fleet or a profile with some keys replaced."""
    return type(data).model_validate(data.model_dump(mode="json") | changes)


def with_device(on: Fleet, i: int, **changes: Any) -> Fleet:
    """Return a fleet with some keys of one device replaced."""
    devices = on.model_dump(mode="json")["devices"]
    devices[i] |= changes
    return changed(on, devices=devices)


def roomy(on: Fleet, *devices: int) -> Fleet:
    """Return a fleet where these devices hold any sub-model."""
    for i in devices or range(len(on.devices)):
        on = with_device(on, i, memory_budget=10**9)
    return on


def sharpened(drawn: Profile) -> Profile:
    """Return a profile whose classes need different units: each importance cubed, then normalised."""
    importance = drawn.model_dump(mode="json")["importance"]
    for heads, groups in zip(importance["heads"], importance["channel_groups"], strict=True):
        total = sum(share**3 for block in [*heads, *groups] for share in block)
        for block in [*heads, *groups]:
            block[:] = [round(share**3 / total, 7) for share in block]
    return changed(drawn, importance=importance)


def scattered(drawn: Profile) -> Profile:
    """Return a profile where the importance of class c has moved on by c units, so that no two need the same."""
    importance = drawn.model_dump(mode="json")["importance"]
    for c, (heads, groups) in enumerate(zip(importance["heads"], importance["channel_groups"], strict=True)):
        shares = [share for block in [*heads, *groups] for share in block]
        moved = iter(shares[-c:] + shares[:-c])
        for block in [*heads, *groups]:
            block[:] = [next(moved) for _ in block]
    return changed(drawn, importance=importance)


def heavy_heads(num_heads: int, num_groups: int) -> Profile:
    """Return a profile whose heads take little time and much memory, so that memory has a price."""
    drawn = random_profile(11, num_classes=4, num_heads=num_heads, num_groups=num_groups)
    widths = [w | {"head_params": [900, 900], "head_macs": [200, 200]} for w in drawn.model_dump(mode="json")["widths"]]
    return changed(drawn, widths=widths)


@cache
def small(seed: int) -> tuple[Profile, Fleet, Goal]:
    """Return 2 to 4 classes on 1 to 3 devices, with 8 units; some with a latency table, some with 2 widths."""
    drawn = random_profile(
        seed,
        num_classes=2 + seed % 3,
        widths=(8, 4) if seed % 3 == 0 else (8,),
        kinds=("a",) if seed % 2 else (),
    )
    tightness = (0.15, 0.3, 0.5, 1.0)[seed % 4]
    on = random_fleet(
        drawn, seed, num_devices=(1, 2, 3, 3, 2, 3, 2)[seed % 7], tightness=tightness, varied=seed % 5 < 2
    )
    if seed % 8 < 5:
        # Sharing is worth while: classes differ, boards are slow, messages and fusion quick.
        widths = [width | {"fixed_macs": 0} for width in drawn.model_dump(mode="json")["widths"]]
        drawn = changed(scattered(sharpened(drawn)), widths=widths, fusion_hidden=1)
        for i, device in enumerate(on.devices):
            if i and seed % 2 and seed % 3 == i % 3:
                on = with_device(on, i, macs_per_second=None, kind="a")
            elif device.macs_per_second is not None:
                on = with_device(on, i, macs_per_second=1e6 * (10 + seed % 3 + 2 * i))
        on = changed(on, links=[], default_link={"bandwidth_mbps": 500, "latency_ms": 0.01})
    if seed >= STORED:
        drawn, on = with_storage(drawn, on, seed)
    goals = [floored(), floored(min_retention=0.35), floored(min_retention=0.3 + seed % 7 / 10)]
    return drawn, on, goals[seed % 13 % 3]


def best_of(drawn: Profile, on: Fleet, goal: Goal) -> Best | None:
    """Return what brute force finds."""
    profile_json, fleet_json, goal_json = (data.model_dump(mode="json") for data in (drawn, on, goal))
    return brute_force.best(profile_json, fleet_json, goal_json)


@cache
def small_best(seed: int) -> Best | None:
    """Return what brute force finds for `small`."""
    return best_of(*small(seed))


@cache
def infeasible() -> list[int]:
    """Return the seeds of `small` for which there is no plan."""
    return [seed for seed in SMALL if small_best(seed) is None]


@cache
def middling(seed: int) -> tuple[Profile, Fleet]:
    """Return 5 classes, 12 units and 3 devices of kinds "a" and "b", or with MAC rates."""
    drawn = random_profile(seed, num_classes=5, num_groups=4, kinds=("a", "b"), widths=(8, 4) if seed % 2 else (8,))
    return drawn, random_fleet(drawn, seed, tightness=0.5, varied=True)


@cache
def middling_us(seed: int) -> float:
    """Return the latency of `middling` [us]."""
    return latency_of(*middling(seed))


def latency_of(drawn: Profile, on: Fleet, goal: Goal | None = None) -> float:
    """Return the optimal latency [us] at a retention floor; infinite where no plan exists."""
    try:
        plan = solve(drawn, on, goal or floored())
    except InfeasibleError:
        return float("inf")
    assert plan.status == "optimal"
    return plan.latency_us


def same(a: Plan, b: Plan) -> bool:
    """Return whether two plans differ in nothing but their solving time."""
    data = [plan.model_dump(mode="json") for plan in (a, b)]
    for plan in data:
        del plan["solver"]["seconds"]
    return data[0] == data[1]
