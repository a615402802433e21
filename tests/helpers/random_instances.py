"""Seeded random profiles, fleets and goals, from pencil-and-paper size to that of the digits ViT."""

import itertools
from fractions import Fraction

import numpy as np

from planner.schema import Fleet, Goal, Profile
from tests.helpers import brute_force
from tests.helpers.common import Json

_COEFFICIENTS = ("fixed_us", "attention_us", "head_us", "mlp_us", "channel_us")


def random_profile(
    seed: int,
    num_classes: int = 4,
    depth: int = 2,
    num_heads: int = 2,
    num_groups: int = 2,
    widths: tuple[int, ...] = (8,),
    kinds: tuple[str, ...] = (),
    penalties: bool = False,
) -> Profile:
    """Return a profile whose classes share needs in clusters: lognormal base, cluster factor, noise.

    With `penalties`, precisions below float32 cost some retention, and so may be a choice.
    """
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
        return {"embed_dim": embed_dim} | {name: round(float(rng.uniform(1, 60)), 2) for name in _COEFFICIENTS}

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
            "precision_retention": {
                precision: np.round(rng.uniform(lowest, 1.0, num_classes), 3).tolist()
                for precision, lowest in (("float16", 0.95), ("int8", 0.8))
            }
            if penalties
            else {},
        }
    )


def random_fleet(
    profile: Profile,
    seed: int,
    num_devices: int = 3,
    tightness: float = 0.6,
    varied: bool = False,
    meshed: bool = False,
    choices: bool = False,
) -> Fleet:
    """Return a fleet of unequal devices whose budgets hold about `tightness` of the whole model.

    With `varied`, some devices have smaller precisions, and there are links beside the default one.
    With `meshed`, devices hang behind each other, links are shared, and the last two may be one
    entry with a count. With `choices`, the precision is a choice on most devices, and powers differ.
    """
    rng = np.random.default_rng(seed + 10_000)
    full = profile.widths[0]
    channels = [profile.hidden_dim] * profile.depth
    whole = full.fixed_params + sum(full.head_params) * profile.num_heads
    whole += sum(c * p for c, p in zip(channels, full.channel_params, strict=True))
    kinds = list(profile.latency)
    devices: list[dict[str, object]] = []
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
    fleet = {
        "name": f"random-{seed}",
        "aggregator": "d0",
        "devices": devices,
        "links": links,
        "default_link": default_link,
    }
    if choices:
        _choose(fleet, np.random.default_rng(seed + 20_000), profile)
    if meshed:
        _mesh(fleet, np.random.default_rng(seed + 30_000))
    return Fleet.model_validate(fleet)


def with_storage(profile: Profile, fleet: Fleet, seed: int) -> tuple[Profile, Fleet]:
    """Return a fleet where most devices run C and have a storage budget, and a profile for it.

    Tokens, heads and images are small, so that the arena of the C engine depends on the hidden channels, too.
    """
    rng = np.random.default_rng(seed + 50_000)
    profile = timed_in_c(profile.replace(num_tokens=2, head_dim=1, input_bytes=6))
    full, num_heads, num_channels = profile.widths[0], profile.num_heads, profile.hidden_dim
    whole = full.fixed_params + sum(full.head_params) * num_heads + sum(full.channel_params) * num_channels
    devices = []
    for device in fleet.model_dump(mode="json")["devices"]:
        if rng.random() < 0.7:
            # The arena without channels to that with all of them, at the full width.
            arena = 4 * (2 * full.embed_dim + 2 * (full.embed_dim + int(rng.integers(0, num_channels + 8))))
            overhead, weights = int(rng.integers(0, 500)), 4 * whole * rng.uniform(0.05, 0.6)
            device |= {
                "engine": "c",
                "memory_budget": (device["runtime_overhead"] or 0) + arena,
                "storage_budget": overhead + 100 + int(weights),
                "storage_overhead": overhead,
                "precision": _without_float16(device["precision"]),
            }
        devices.append(device)
    return profile, fleet.replace(devices=devices)


def timed_in_c(profile: Profile) -> Profile:
    """Return a profile with times in C, too: float32 takes twice as long as in ONNX Runtime, int8 three times.

    Heads and channels of the last block take as long as there.
    """
    latency = {}
    for kind, rows in profile.latency.items():
        in_c = [
            {**row.model_dump(), "engine": "c", "precision": precision}
            | {name: factor * getattr(row, name) for name in _COEFFICIENTS}
            | {"last_head_us": row.head_us, "last_channel_us": row.channel_us}
            for row in rows
            for precision, factor in (("float32", 2), ("int8", 3))
        ]
        latency[kind] = [*rows, *in_c]
    return profile.replace(latency=latency)


def _without_float16(precision: str | list[str]) -> str | list[str]:
    """Return a precision or a choice of those that the C engine has."""
    if isinstance(precision, str):
        return "int8" if precision == "float16" else precision
    return [p for p in precision if p != "float16"] or "int8"


def _choose(fleet: Json, rng: np.random.Generator, profile: Profile) -> None:
    """Give devices powers and, where the profile knows their cost, several precisions."""
    for device in fleet["devices"]:
        device["active_power_w"] = round(float(rng.uniform(1, 9)), 1)
        number = int(rng.integers(1, 4)) if profile.precision_retention else 1
        device["precision"] = [str(p) for p in rng.permutation(["float32", "float16", "int8"])[:number]]


def _mesh(fleet: Json, rng: np.random.Generator) -> None:
    """Hang most devices behind earlier ones, the others on the default link; share some links."""
    air_mbps = round(float(rng.lognormal(2.5, 1)), 3)

    def speed() -> Json:
        shared = (False, True, "air")[rng.choice(3, p=(0.4, 0.35, 0.25))]
        return {
            "bandwidth_mbps": air_mbps if shared == "air" else round(float(rng.lognormal(2.5, 1)), 3),
            "latency_ms": round(float(rng.uniform(0.001, 0.1)), 3),
            "shared": shared,
        }

    names = [device["name"] for device in fleet["devices"]]
    pairs = [(names[i - 1 if rng.random() < 0.6 else 0], names[i]) for i in range(1, len(names)) if rng.random() < 0.9]
    extra = [pair for pair in itertools.combinations(names, 2) if pair not in pairs and rng.random() < 0.1]
    fleet["links"] = [{"between": pair} | speed() for pair in pairs + extra]
    fleet["default_link"] = speed()
    if len(names) > 2 and rng.random() < 0.4:
        # The last two become one entry, with one link to both: with two links, either could relay.
        last = fleet["devices"].pop()
        fleet["devices"][-1] = last | {"count": 2}
        links = [link for link in fleet["links"] if names[-2] not in link["between"]]
        behind = [link for link in links if names[-1] in link["between"]]
        fleet["links"] = [link for link in links if link not in behind[1:]]


def random_goal(profile: Profile, fleet: Fleet, seed: int) -> Goal:
    """Return a goal of any objective and several demands, with a retention floor; about half of them can be met.

    The objective is the accuracy only if the profile predicts it. Its limits lie where they bind: about the lowest
    latency and energy that the other demands allow, and some of them exactly there.
    """
    rng = np.random.default_rng(seed + 40_000)
    names, classes = list(fleet.member_names), list(profile.classes)
    goal: Json = {"objective": str(rng.choice(["latency", "accuracy", "energy", "devices"]))}
    if goal["objective"] == "accuracy" and profile.accuracy_model is None:
        goal["objective"] = "latency"
    goal["min_retention"] = (0.5, 0.35, 0.2 + seed % 5 / 10)[rng.integers(3)]
    goal["leave_idle"] = bool(rng.random() < 0.5)
    goal |= _random_demands(rng, names, classes)

    def lowest(objective: str) -> Fraction | float | None:
        other_goal = Goal.model_validate(
            goal | {"objective": objective, "max_latency_ms": goal.get("max_latency_ms", 1e6)}
        )
        found = brute_force.best(*(data.model_dump(mode="json") for data in (profile, fleet, other_goal)))
        return None if found is None else found.value

    def near(number: Fraction | float | None) -> float:
        return float((number or 1000) * Fraction(1 if rng.random() < 0.3 else round(rng.uniform(0.8, 1.6), 2)) / 1000)

    if goal["objective"] in ("accuracy", "energy") or rng.random() < 0.35:
        goal["max_latency_ms"] = near(lowest("latency"))
    if rng.random() < 0.3:
        goal["max_energy_mj"] = near(1000 * (lowest("energy") or 1))
    return Goal.model_validate(goal)


def _random_demands(rng: np.random.Generator, names: list[str], classes: list[str]) -> Json:
    """Return some demands on who serves what."""
    goal: Json = {}

    def some(of: list[str], min_count: int, max_count: int) -> list[str]:
        return [str(name) for name in rng.permutation(of)[: int(rng.integers(min_count, max_count + 1))]]

    if rng.random() < 0.35:
        goal["survive"] = int(rng.choice([1, 1, 1, 2]))
    if rng.random() < 0.25:
        goal["pin"] = {name: some(names, 1, 2) for name in some(classes, 1, 2)}
    if rng.random() < 0.25:
        goal["forbid"] = {name: some(names, 1, 1) for name in some(classes, 1, 2)}
    if len(classes) > 2 and rng.random() < 0.25:
        goal["together"] = [some(classes, 2, 3) for _ in range(rng.integers(1, 3))]
    if rng.random() < 0.2 and len(classes) > 1:
        goal["apart"] = [some(classes, 2, 2)]
    if len(names) > 1 and rng.random() < 0.2:
        goal["leave_out"] = some(names, 1, 1)
    return goal
