"""Seeded random profiles and fleets, from pencil-and-paper size to the digits ViT's."""

import itertools

import numpy as np

from planner.schema import Fleet, Profile


def random_profile(
    seed: int,
    num_classes: int = 4,
    depth: int = 2,
    num_heads: int = 2,
    num_groups: int = 2,
    widths: tuple[int, ...] = (8,),
    kinds: tuple[str, ...] = (),
) -> Profile:
    """Return a profile whose classes share needs in clusters: lognormal base, cluster factor, noise."""
    rng = np.random.default_rng(seed)
    num_units = depth * (num_heads + num_groups)
    cluster = rng.integers(0, max(2, num_classes // 3), num_classes)
    base = rng.lognormal(0, 1, num_units)
    factors = rng.lognormal(0, 0.7, (cluster.max() + 1, num_units))
    shares = base * factors[cluster] * rng.lognormal(0, 0.4, (num_classes, num_units))
    shares = np.round(shares / shares.sum(axis=1, keepdims=True), 7)
    shares[:, -1] += 1 - shares.sum(axis=1)
    shares = shares.reshape(num_classes, depth, num_heads + num_groups)
    group_size = int(rng.integers(1, 5))
    sizes = [[group_size] * num_groups for _ in range(depth)]
    channels = [np.split(rng.permutation(group_size * num_groups), num_groups) for _ in sizes]
    full = widths[0]

    def width(embed_dim: int) -> dict[str, object]:
        return {
            "embed_dim": embed_dim,
            "fixed_macs": int(rng.integers(0, 500)) * embed_dim,
            "head_macs": [int(rng.integers(50, 200)) * embed_dim] * depth,
            "channel_macs": [int(rng.integers(5, 40)) * embed_dim] * depth,
            "fixed_params": int(rng.integers(0, 50)) * embed_dim,
            "head_params": [int(rng.integers(5, 30)) * embed_dim] * depth,
            "channel_params": [int(rng.integers(1, 8)) * embed_dim] * depth,
            "fixed_activation_bytes": int(rng.integers(0, 200)),
            "head_activation_bytes": int(rng.integers(0, 100)),
            "channel_activation_bytes": int(rng.integers(0, 30)),
            "embed_retention": [1.0] * num_classes
            if embed_dim == full
            else np.round(rng.uniform(0.7, 1.0, num_classes), 3).tolist(),
        }

    def row(embed_dim: int) -> dict[str, object]:
        names = ("fixed_us", "attention_us", "head_us", "mlp_us", "channel_us")
        return {"embed_dim": embed_dim} | {name: round(float(rng.uniform(1, 60)), 2) for name in names}

    return Profile.model_validate(
        {
            "model": f"random-{seed}",
            "weights_sha256": "0" * 64,
            "classes": [str(c) for c in range(num_classes)],
            "num_tokens": 5,
            "depth": depth,
            "num_heads": num_heads,
            "head_dim": 4,
            "hidden_dim": group_size * num_groups,
            "input_bytes": int(rng.integers(10, 500)),
            "feature_bytes_per_embed_dim": 4,
            "fusion_hidden": int(rng.integers(1, 16)),
            "channel_groups": [[sorted(map(int, g)) for g in block] for block in channels],
            "widths": [width(e) for e in widths],
            "importance": {
                "heads": shares[:, :, :num_heads].tolist(),
                "channel_groups": shares[:, :, num_heads:].tolist(),
            },
            "latency": {kind: [row(e) for e in widths] for kind in kinds},
            "recovery": [
                {
                    "max_accuracy_drop": drop,
                    "by_count": [round(min(1.0, base + 0.06 * n), 3) for n in range(num_classes)],
                    "class_need": np.round(rng.uniform(0.85, 1.15, num_classes), 3).tolist(),
                }
                for drop, base in ((0.02, 0.4), (0.05, 0.25))
            ],
        }
    )


def random_fleet(
    profile: Profile, seed: int, num_devices: int = 3, tightness: float = 0.6, varied: bool = False
) -> Fleet:
    """Return a fleet of unequal devices whose budgets hold about `tightness` of the whole model.

    With `varied`, some devices have smaller precisions, and there are links beside the default one.
    """
    rng = np.random.default_rng(seed + 10_000)
    full = profile.widths[0]
    channels = [profile.hidden_dim] * profile.depth
    whole = full.fixed_params + sum(full.head_params) * profile.num_heads
    whole += sum(c * p for c, p in zip(channels, full.channel_params, strict=True))
    kinds = list(profile.latency)
    devices = []
    for i in range(num_devices):
        overhead = int(rng.integers(0, 500))
        device: dict[str, object] = {
            "name": f"d{i}",
            "memory_budget": overhead + 200 + int(4 * whole * rng.uniform(0.2, 2 * tightness)),
            "runtime_overhead": overhead,
            "active_power_w": 2.0,
        }
        if i and devices and rng.random() < 0.3:
            device = {**devices[-1], "name": f"d{i}"}
        elif i and kinds and rng.random() < 0.5:
            device["kind"] = str(rng.choice(kinds))
        else:
            device["macs_per_second"] = float(rng.integers(10, 200)) * 1e6
        devices.append(device)
    default_link = {"bandwidth_mbps": float(rng.integers(1, 100)), "latency_ms": round(float(rng.uniform(0, 1)), 2)}
    links = []
    if varied:
        for device in devices:
            device["precision"] = str(rng.choice(["float32", "float16", "int8"]))
        ends = [(a["name"], b["name"]) for a, b in itertools.combinations(devices, 2)]
        links = [
            {
                "between": pair,
                "bandwidth_mbps": round(float(rng.lognormal(2, 1.5)), 3),
                "latency_ms": round(float(rng.uniform(0, 0.5)), 3),
            }
            for pair in ends
            if rng.random() < 0.6
        ]
    return Fleet.model_validate(
        {
            "name": f"random-{seed}",
            "aggregator": "d0",
            "devices": devices,
            "links": links,
            "default_link": default_link,
        }
    )
