"""A profile and a fleet small enough for pencil and paper, as the data of their files.

2 classes, 2 blocks of 2 heads and 3 hidden channels: groups of 2 + 1 channels in block 0 and of
1 + 2 in block 1. Widths 8 and 4; the latency table of kind "board" knows only width 8.
"""

from typing import Any

from planner.schema import Fleet, Profile
from tests.helpers.common import Json

MIB = 1024**2

# z_c = exp(-3 + o_c) (odds of near^2 + odds of far^2 + ...)^(-1/2) with odds r / (1 - r); loss_c = 0.97 z / (0.97 + z).
ACCURACY_MODEL: Json = {
    "log_scale": -3.0,
    "steepness": 1.0,
    "norm_order": 2.0,
    "retention_exponent": 1.0,
    "class_offset": [0.2, -0.2],
    "class_share": [0.5, 0.5],
    "whole_error": 0.03,
    "epochs": 10.0,
    "scores": [-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.5],
    "min_retention": 0.2,
    "max_devices": 3,
}


def profile_data() -> Json:
    """Return the profile."""
    return {
        "model": "pencil",
        "weights_sha256": "0" * 64,
        "classes": ["a", "b"],
        "num_tokens": 5,
        "depth": 2,
        "num_heads": 2,
        "head_dim": 4,
        "hidden_dim": 3,
        "input_bytes": 100,
        "feature_bytes_per_embed_dim": 4,
        "fusion_hidden": 10,
        "channel_groups": [[[0, 1], [2]], [[0], [1, 2]]],
        "widths": [
            {
                "embed_dim": 8,
                "fixed_macs": 1000,
                "head_macs": [100, 200],
                "channel_macs": [10, 20],
                "fixed_params": 50,
                "head_params": [7, 11],
                "channel_params": [3, 5],
                "fixed_activation_bytes": 20,
                "head_activation_bytes": 8.5,
                "channel_activation_bytes": 4.25,
                "embed_retention": [1.0, 1.0],
            },
            {
                "embed_dim": 4,
                "fixed_macs": 500,
                "head_macs": [50, 100],
                "channel_macs": [5, 10],
                "fixed_params": 25,
                "head_params": [4, 6],
                "channel_params": [2, 3],
                "fixed_activation_bytes": 10,
                "head_activation_bytes": 4,
                "channel_activation_bytes": 2,
                "embed_retention": [0.9, 0.5],
            },
        ],
        "importance": {
            "heads": [[[0.3, 0.1], [0.1, 0.1]], [[0.05, 0.05], [0.1, 0.3]]],
            "channel_groups": [[[0.1, 0.1], [0.1, 0.1]], [[0.2, 0.1], [0.1, 0.1]]],
        },
        "latency": {
            "board": [
                {
                    "embed_dim": 8,
                    "fixed_us": 10.5,
                    "attention_us": 2,
                    "head_us": 1.25,
                    "mlp_us": 3,
                    "channel_us": 0.5,
                }
            ]
        },
    }


def fleet_data() -> Json:
    """Return a gateway and two boards behind it, one hop after the other."""
    return {
        "name": "bench",
        "aggregator": "gateway",
        "devices": [
            {"name": "gateway", "macs_per_second": 3e6, "memory_budget": 2000, "runtime_overhead": 1000},
            {"name": "near", "kind": "board", "memory_budget": 2000, "runtime_overhead": 1000, "active_power_w": 2.5},
            {"name": "far", "kind": "board", "memory_budget": 2000, "runtime_overhead": 1000},
        ],
        "links": [
            {"between": ["gateway", "near"], "bandwidth_mbps": 8, "latency_ms": 1},
            {"between": ["near", "far"], "bandwidth_mbps": 4, "latency_ms": 2},
        ],
    }


def profile(**changes: Any) -> Profile:
    """Return the profile with some keys replaced."""
    return Profile.model_validate(profile_data() | changes)


def fleet(**changes: Any) -> Fleet:
    """Return the fleet with some keys replaced."""
    return Fleet.model_validate(fleet_data() | changes)


def tight_fleet(**changes: Any) -> Fleet:
    """Return the pencil fleet with so little memory that one device cannot serve both classes."""
    data = fleet_data()
    data["devices"][0]["memory_budget"] = data["devices"][1]["memory_budget"] = 1330
    return Fleet.model_validate(data | changes)
