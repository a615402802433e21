"""A plan made on paper for plots: the pencil fleet, where `far` is reached over `near`, which is idle.

gateway: class a, computes 5 ms. far: a and b, 2 + 3 + 1.5 = 6.5 ms. Then 0.5 ms of fusion on the gateway: 7 ms.
"""

from typing import Any

from planner.schema import Fleet, Plan, Profile, sha256_of
from tests.helpers.pencil import fleet, profile


def drawn_plan(**changes: Any) -> Plan:
    """Return the plan with some keys replaced."""
    gateway = {
        "device": "gateway",
        "classes": ["a"],
        "embed_dim": 8,
        "kept_heads": [[0], [0, 1]],
        "kept_channel_groups": [[0], [0, 1]],
        "send_us": 0,
        "compute_us": 5000,
        "return_us": 0,
        "memory_bytes": 1500,
        "energy_mj": None,
        "retention": {"a": 0.7},
        "estimated": True,
    }
    far = gateway | {
        "device": "far",
        "classes": ["a", "b"],
        "embed_dim": 4,
        "kept_heads": [[], [1]],
        "kept_channel_groups": [[1], []],
        "send_us": 2000,
        "compute_us": 3000,
        "return_us": 1500,
        "memory_bytes": 1200,
        "retention": {"a": 0.6, "b": 0.5},
        "estimated": False,
    }
    data = {
        "status": "feasible",
        "latency_us": 7000,
        "bound_us": 6300,
        "gap": 0.1,
        "goal": {"min_retention": 0.5},
        "profile_sha256": sha256_of(profile()),
        "fleet_sha256": sha256_of(fleet()),
        "solver": {"version": "paper", "seconds": 0.0, "seed": 0},
        "assignments": [gateway, far],
        "idle": ["near"],
        "fusion": {"device": "gateway", "latency_us": 500},
    }
    return Plan.model_validate(data | changes)


def drawn() -> tuple[Plan, Profile, Fleet]:
    """Return the plan, its profile and its fleet."""
    return drawn_plan(), profile(), fleet()


def many(num_devices: int, num_used: int) -> tuple[Plan, Profile, Fleet]:
    """Return a plan that uses the first devices of many: pi-1 computes 1 ms, pi-2 computes 2 ms and so on."""
    device = {"kind": "board", "memory_budget": 2000, "runtime_overhead": 1000}
    devices = [device | {"name": f"pi-{i}"} for i in range(1, num_devices + 1)]
    pis = fleet(aggregator="pi-1", devices=devices, links=[], default_link={"bandwidth_mbps": 8, "latency_ms": 1})
    first = drawn_plan().model_dump(mode="json")["assignments"][0]
    used = [first | {"device": f"pi-{i}", "compute_us": 1000 * i} for i in range(1, num_used + 1)]
    idle = [f"pi-{i}" for i in range(num_used + 1, num_devices + 1)]
    fusion = {"device": "pi-1", "latency_us": 500}
    plan = drawn_plan(assignments=used, idle=idle, fusion=fusion, latency_us=1000 * num_used + 500)
    return plan, profile(), pis
