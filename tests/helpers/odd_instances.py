"""Small instances with odd structure: what generators of plausible fleets and models do not make.

Equal devices with unequal links, classes that are the same, units of no importance or no cost, one class, budgets and
floors at the very edge, kinds with a rate of their own.
"""

from typing import Any

import numpy as np

from planner.schema import Fleet, Goal, Profile
from planner.solver.problem.build import build_instance
from tests.helpers.common import Json
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_goal, random_profile


def odd(seed: int) -> tuple[Profile, Fleet, Goal]:
    """Return 1 to 4 classes on 1 to 4 devices, 8 units, each with some of the oddities."""
    rng = np.random.default_rng(seed + 70_000)
    profile = _odd_profile(rng, seed)
    fleet = random_fleet(
        profile,
        seed,
        num_devices=int(rng.integers(1, 5)),
        tightness=float(rng.choice([0.4, 0.8, 1.6])),
        varied=bool(rng.random() < 0.3),
    )
    fleet = _odd_fleet(rng, profile, fleet)
    goal = random_goal(profile, fleet, seed)
    floor = float(rng.choice([0.0, 1.0, _edge_floor(rng, profile), goal.min_retention or 0.5]))
    return profile, fleet, Goal.model_validate(goal.model_dump() | {"min_retention": floor})


def _odd_profile(rng: np.random.Generator, seed: int) -> Profile:
    num_classes = int(rng.integers(1, 5))
    drawn = random_profile(
        seed,
        num_classes=num_classes,
        widths=(8, 4) if rng.random() < 0.3 else (8,),
        kinds=("a",) if rng.random() < 0.6 else (),
    )
    data: Json = drawn.model_dump(mode="json")
    if rng.random() < 0.4:
        _remove_importance(rng, data["importance"])
    if num_classes > 1 and rng.random() < 0.4:
        # Two classes are the same.
        one, other = rng.choice(num_classes, 2, replace=False).tolist()
        for rows in data["importance"].values():
            rows[other] = [list(block) for block in rows[one]]
        for width in data["widths"]:
            width["embed_retention"][other] = width["embed_retention"][one]
    if rng.random() < 0.3:
        for width in data["widths"]:
            block, of = int(rng.integers(0, 2)), str(rng.choice(["head", "channel"]))
            width[f"{of}_macs"][block] = 0
            width[f"{of}_params"][block] *= int(rng.integers(0, 2))
    for rows in data["latency"].values():
        for row in rows:
            row |= {key: 0.0 for key in ("attention_us", "mlp_us", "fixed_us", "head_us") if rng.random() < 0.2}
    return Profile.model_validate(data)


def _remove_importance(rng: np.random.Generator, importance: Json) -> None:
    """Let some units matter to some classes only, or to nobody."""
    for heads, groups in zip(importance["heads"], importance["channel_groups"], strict=True):
        blocks = [*heads, *groups]
        kept = [[share * bool(rng.random() < 0.7) for share in block] for block in blocks]
        total = sum(map(sum, kept))
        for block, shares in zip(blocks, kept, strict=True):
            block[:] = [share / total for share in shares] if total > 0 else block


def _odd_fleet(rng: np.random.Generator, profile: Profile, fleet: Fleet) -> Fleet:
    data: Json = fleet.model_dump(mode="json")
    devices: list[dict[str, Any]] = data["devices"]
    if len(devices) > 2 and rng.random() < 0.5:
        # The same but for their links.
        devices[2] = devices[1] | {"name": devices[2]["name"], "count": devices[2]["count"]}
        link = {"bandwidth_mbps": float(rng.integers(1, 9)), "latency_ms": 0.05, "shared": False}
        if not any(set(old["between"]) == {"d0", devices[2]["name"]} for old in data["links"]):
            data["links"].append({"between": ["d0", devices[2]["name"]]} | link)
    if profile.latency and rng.random() < 0.5:
        # A kind, and a rate beside it.
        devices[0] |= {"kind": "a", "macs_per_second": 1e8}
    fleet = Fleet.model_validate(data)
    if rng.random() < 0.5:
        # A budget that some sub-model fills to the byte, or misses by one.
        instance = build_instance(profile, fleet, floored())
        option = instance.options[int(rng.integers(len(instance.options)))]
        chosen = np.flatnonzero(rng.random(len(instance.units)) < 0.6).tolist()
        kept = sorted({*chosen, *instance.units.always_kept})
        name = option.device.name
        for device in devices:
            if name in (device["name"], f"{device['name']}-1"):
                device["memory_budget"] = instance.memory_bytes(option, kept) - int(rng.integers(0, 2))
        fleet = Fleet.model_validate(data)
    return fleet


def _edge_floor(rng: np.random.Generator, profile: Profile) -> float:
    """Return a floor that some set of units meets exactly for some class."""
    c = int(rng.integers(len(profile.classes)))
    importance = profile.importance
    shares = [s for block in (*importance.heads[c], *importance.channel_groups[c]) for s in block]
    return float(min(1.0, round(sum(share for share in shares if rng.random() < 0.6), 9)))
