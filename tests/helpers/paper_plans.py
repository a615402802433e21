"""Plans made on paper, for the check; no solver was involved.

Every sub-model is the whole model at embed dim 8, in memory 110 params x 4 + 37 + 1000 = 1477 bytes:
on the gateway 1690 MACs / 3 = 563.33 us; on a board 10.5 + 2 x (2 + 2 x 1.25 + 3 + 3 x 0.5) = 28.5 us.
The fusion of n sub-models takes 10 x (8 n + 2) / 3 us: 34, 60, 87 for n = 1, 2, 3.
"""

import re
from typing import Any

from planner.rules.check import check
from planner.schema import Fleet, Plan, Profile, sha256_of
from tests.helpers.common import Json
from tests.helpers.pencil import fleet, fleet_data, profile

COMPUTE_US = {"gateway": 564, "near": 29, "far": 29}
# Over the links of the pencil fleet: 1 ms and 8 Mbit/s, and behind that 2 ms and 4 Mbit/s.
TRAVEL_US = {"gateway": (0, 0), "near": (1100, 1032), "far": (3200, 3064)}
FUSION_US = {1: 34, 2: 60, 3: 87}
POWERS_W = {"gateway": 2.0, "near": 2.5, "far": 1.0}


def powered(**changes: Any) -> Fleet:
    """Return the pencil fleet with the powers of above."""
    devices = [d | {"active_power_w": POWERS_W[d["name"]]} for d in fleet_data()["devices"]]
    return fleet(**({"devices": devices} | changes))


def paper(
    served: dict[str, str],
    goal: Json | None = None,
    on: Fleet | None = None,
    of: Profile | None = None,
    travel_us: dict[str, tuple[int, int]] = TRAVEL_US,
    **changes: Any,
) -> list[str]:
    """Return the check's complaints about a plan in which these devices serve these classes.

    Unless changed, it claims no proof: its bound is 0 and its gap 1. A goal that says nothing of accuracy has a
    retention floor of 0. Keys of single assignments are changed by `device__key`.
    """
    on, of = on or powered(), of or profile()
    changed = {tuple(key.split("__")): value for key, value in changes.items() if "__" in key}
    names = [member.name for member in on.members]
    assignments: list[Json] = [
        {
            "device": name,
            "classes": list(classes),
            "embed_dim": 8,
            "kept_heads": [[0, 1], [0, 1]],
            "kept_channel_groups": [[0, 1], [0, 1]],
            "send_us": travel_us[name][0],
            "compute_us": COMPUTE_US[name],
            "return_us": travel_us[name][1],
            "memory_bytes": 1477,
            "energy_mj": POWERS_W[name] * COMPUTE_US[name] / 1000,
            "retention": dict.fromkeys(classes, 1.0),
            "estimated": name == "gateway",
        }
        | {key: value for (device, key), value in changed.items() if device == name}
        for name, classes in served.items()
    ]
    slowest_us = max(a["send_us"] + a["compute_us"] + a["return_us"] for a in assignments)
    data = {
        "status": "feasible",
        "latency_us": slowest_us + FUSION_US[len(served)],
        "bound_us": 0,
        "gap": 1.0,
        "goal": {"min_retention": 0.0} | (goal or {}),
        "profile_sha256": sha256_of(of),
        "fleet_sha256": sha256_of(on),
        "solver": {"version": "paper", "seconds": 0.0, "seed": 0},
        "assignments": assignments,
        "idle": [name for name in names if name not in served],
        "fusion": {"device": "gateway", "latency_us": FUSION_US[len(served)]},
    } | {key: value for key, value in changes.items() if "__" not in key}
    return check(Plan.model_validate(data), of, on)


def complains(violations: list[str], *patterns: str) -> None:
    """Assert that the check reports exactly these violations."""
    assert len(violations) == len(patterns), violations
    for complaint, pattern in zip(violations, patterns, strict=True):
        assert re.fullmatch(pattern, complaint), complaint


def lossy() -> Profile:
    """Return the profile with int8 at 0.8 of the retention of a and 0.5 of that of b."""
    return profile(precision_retention={"int8": [0.8, 0.5]})


def precise(*precisions: str) -> Fleet:
    """Return the fleet where `near` has these precisions."""
    gateway, near, far = powered().model_dump(mode="json")["devices"]
    return powered(devices=[gateway, near | {"precision": precisions}, far])


INT8: Json = {"near__precision": "int8", "near__memory_bytes": 110 + 37 + 1000}
