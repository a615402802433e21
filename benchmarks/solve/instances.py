"""Instances: of real models, and random ones with fixed seeds.

Real are the demo, a DINOv2-small of 101 classes on four Pis, and a ViT trained on CIFAR-100 on ten invented boards,
whose profile is made by `python -m benchmarks.truth --subjects cifar100` where the model is. Random are profiles of a
ViT-Base with C classes, and fleets of D devices of K kinds.

Realistic are MACs and parameters (the closed form of a ViT-Base at 224 px), and the distribution of the importance,
which resembles that of the shipped digits profile: heads are similar (lognormal, sd 0.5), a few channel groups matter
most (sd 1.6), either half has about half of the importance, and classes differ by cluster (sd 0.25) and individually
(sd 0.25). Where classes are in strong clusters, these are 0.8 and 0.4, a cluster for every ten classes: devices then
gain from classes alike. Invented are the devices. Their speeds vary by a factor of 8, their budgets hold 25 to 60 % of
the whole model; the fastest kinds have the smallest, so that memory is binding somewhere, the others any. Where so
little memory could not hold all classes together, all budgets are raised by one factor. Roomy twins of some instances
have so much memory that the baselines find plans too.

    python -m benchmarks.solve.describe    # prints statistics of the instances

Legend: C classes, U units, K kinds, L blocks, N tokens, E embed dim.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from planner.arrays import Floats
from planner.library import load_fleet, load_profile
from planner.schema import Fleet, Goal, Profile

ROOT = Path(__file__).parent.parent.parent

DEPTH, EMBED_DIM, NUM_TOKENS, HIDDEN_DIM, PATCH_VALUES = 12, 768, 197, 3072, 16 * 16 * 3
INPUT_BYTES, FEATURE_BYTES = 224 * 224 * 3, 4
NORM_MACS_PER_ELEMENT = 5
RUNTIME_OVERHEAD_BYTES = 80 * 1024**2
# Retention floor of all classes.
MIN_RETENTION = 0.7
# The fleet's memory suffices for more classes than there are, since subsets do not divide evenly.
MEMORY_SLACK = 1.4
_CLASS_COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)


@dataclass(frozen=True)
class Size:
    """Size of an instance, and of a real one where it is."""

    name: str
    num_classes: int = 10
    num_devices: int = 4
    num_kinds: int = 3
    num_heads: int = 12
    num_groups: int = 16
    # Share of the whole model that the devices' memory holds; the fastest have the smallest.
    min_memory: float = 0.25
    max_memory: float = 0.6
    # Standard deviations of the logarithm of importance, by cluster and by class.
    cluster_sd: float = 0.25
    class_sd: float = 0.25
    min_retention: float = MIN_RETENTION
    # Of the first ten seeds, the one whose classes correlate most like those of digits (0.89 and 0.88).
    seed: int = 9
    # Name or file of a real model's profile and file of its fleet; files are named from the root of the repository.
    profile: str = ""
    fleet: str = ""

    @property
    def is_there(self) -> bool:
        """Return whether the profile exists: some are made of models that are not part of the repository."""
        return not self.profile.endswith(".json") or (ROOT / self.profile).exists()

    @property
    def num_units(self) -> int:
        """Number of heads and channel groups."""
        return DEPTH * (self.num_heads + self.num_groups)


def _twins(num_classes: int, num_devices: int, num_kinds: int, min_memory: float = 0.6) -> tuple[Size, Size]:
    """Return a size and its roomy twin."""
    size = Size(f"{num_classes}x{num_devices}", num_classes, num_devices, num_kinds)
    return size, replace(size, name=f"{size.name} roomy", min_memory=min_memory, max_memory=1.0)


def _real(name: str, num_classes: int, num_devices: int, profile: str, fleet: str) -> tuple[Size, ...]:
    """Return a real model on a fleet, at three floors."""
    size = Size(name, num_classes, num_devices, profile=profile, fleet=fleet)
    return tuple(replace(size, name=f"{name} at {floor:g}", min_retention=floor) for floor in (0.4, 0.6, 0.9))


DIGITS = Size("digits", 10, 6, 4, profile="digits-vit", fleet="examples/devices.json")


def _clustered(size: Size) -> tuple[Size, ...]:
    """Return a size whose classes are in strong clusters, at two floors."""
    strong = replace(size, cluster_sd=0.8, class_sd=0.4)
    return tuple(
        replace(strong, name=f"{size.name} clusters at {floor:g}", min_retention=floor) for floor in (0.6, 0.75)
    )


SIZES: dict[str, tuple[Size, ...]] = {
    "S": (DIGITS, Size("10x4", 10, 4, 3), *_twins(10, 10, 4), Size("12x8", 12, 8, 4)),
    "M": (
        Size("100x10", 100, 10, 4),
        *_twins(100, 50, 5),
        *_clustered(Size("100x10", 100, 10, 4)),
        *_clustered(Size("100x50", 100, 50, 5)),
    ),
    "R": (
        *_real("DINOv2-small", 101, 4, "dinov2-small-caltech101", "examples/photos/four-pis.json"),
        *_real("CIFAR-100", 100, 10, "build/truth/cifar100-profile.json", "benchmarks/solve/ten-boards.json"),
    ),
    "L": _twins(1000, 100, 5, min_memory=1.0),
    "XL": _twins(1000, 1000, 20),
    # For testing the benchmark itself.
    "tiny": (Size("4x3", 4, 3, 2, num_heads=2, num_groups=2),),
}


def goal(size: Size) -> Goal:
    """Return the goal of a size."""
    return Goal(min_retention=size.min_retention)


def instance(size: Size) -> tuple[Profile, Fleet]:
    """Return the profile and the fleet of a size."""
    if size.profile:
        name = str(ROOT / size.profile) if size.profile.endswith(".json") else size.profile
        return load_profile(name), load_fleet(ROOT / size.fleet)
    model = SyntheticModel(size)
    return model.profile(), fleet(model)


class SyntheticModel:
    """Synthetic network: costs of its units, and their importance for each class."""

    def __init__(self, size: Size) -> None:
        self.size = size
        rng = np.random.default_rng([size.seed, size.num_classes])
        self.importance = _importance(size, rng)  # (C, L, heads then groups)
        head_dim = EMBED_DIM // size.num_heads
        N, E = NUM_TOKENS, EMBED_DIM
        self.head_macs = 4 * N * E * head_dim + 2 * N * N * head_dim
        self.head_params = 3 * (E + 1) * head_dim + head_dim * E
        self.channel_macs, self.channel_params = 2 * N * E, 2 * E + 1
        halves = 2 * DEPTH
        ends_macs = (N - 1) * PATCH_VALUES * E + NORM_MACS_PER_ELEMENT * E + E * size.num_classes
        self.fixed_macs = ends_macs + halves * NORM_MACS_PER_ELEMENT * N * E
        ends_params = (PATCH_VALUES + 1) * E + E + N * E + 2 * E + (E + 1) * size.num_classes
        self.fixed_params = ends_params + halves * 3 * E
        # float32: the residual stream and two copies; Q, K, V and the attention of a head; a channel and its GELU.
        self.fixed_activations = 4 * 3 * N * E
        self.head_activations, self.channel_activations = 4 * (3 * N * head_dim + N * N), 4 * 2 * N

    def profile(self) -> Profile:
        """Return the network as a profile."""
        size = self.size
        group_size = HIDDEN_DIM // size.num_groups
        groups = np.arange(HIDDEN_DIM).reshape(size.num_groups, group_size).tolist()
        return Profile.model_validate(
            {
                "model": f"vit-base-{size.num_classes}",
                "weights_sha256": "0" * 64,
                "classes": [str(c) for c in range(size.num_classes)],
                "num_tokens": NUM_TOKENS,
                "depth": DEPTH,
                "num_heads": size.num_heads,
                "head_dim": EMBED_DIM // size.num_heads,
                "hidden_dim": HIDDEN_DIM,
                "input_bytes": INPUT_BYTES,
                "feature_bytes_per_embed_dim": FEATURE_BYTES,
                "channel_groups": [groups] * DEPTH,
                "widths": [
                    {
                        "embed_dim": EMBED_DIM,
                        "fixed_macs": self.fixed_macs,
                        "head_macs": [self.head_macs] * DEPTH,
                        "channel_macs": [self.channel_macs] * DEPTH,
                        "fixed_params": self.fixed_params,
                        "head_params": [self.head_params] * DEPTH,
                        "channel_params": [self.channel_params] * DEPTH,
                        "fixed_activation_bytes": self.fixed_activations,
                        "head_activation_bytes": self.head_activations,
                        "channel_activation_bytes": self.channel_activations,
                        "embed_retention": [1.0] * size.num_classes,
                    }
                ],
                "importance": {
                    "heads": self.importance[:, :, : size.num_heads].tolist(),
                    "channel_groups": self.importance[:, :, size.num_heads :].tolist(),
                },
            }
        )

    @cached_property
    def unit_bytes(self) -> Floats:
        """Weights of each unit [bytes], (U,)."""
        group = self.channel_params * HIDDEN_DIM // self.size.num_groups
        return np.tile([4.0 * self.head_params] * self.size.num_heads + [4.0 * group] * self.size.num_groups, DEPTH)

    @property
    def fixed_bytes(self) -> float:
        """Memory that no pruning saves, and the activations of a whole block [bytes]."""
        peak = max(self.head_activations * self.size.num_heads, self.channel_activations * HIDDEN_DIM)
        return 4.0 * self.fixed_params + self.fixed_activations + peak

    @property
    def whole_bytes(self) -> float:
        """Memory of the unpruned model in float32 [bytes]."""
        return self.fixed_bytes + float(self.unit_bytes.sum())

    @cached_property
    def _greedy_bytes(self) -> dict[int, float]:
        """Bytes of the units in a greedy sub-model for n random classes, as the mean of three draws."""
        shares = self.importance.reshape(self.size.num_classes, -1)
        rng = np.random.default_rng(self.size.seed)
        mean_bytes: dict[int, float] = {}
        for n in (n for n in _CLASS_COUNTS if n <= self.size.num_classes):
            drawn = [rng.choice(self.size.num_classes, n, replace=False) for _ in range(3)]
            covers = [_greedy_cover_bytes(shares[classes], self.unit_bytes) for classes in drawn]
            mean_bytes[n] = float(np.mean(covers))
        return mean_bytes

    def classes_within(self, unit_bytes: float) -> int:
        """Return approximately how many classes a sub-model with these bytes of units can serve."""
        if unit_bytes >= self.unit_bytes.sum():
            return self.size.num_classes
        return max((n for n, need in self._greedy_bytes.items() if need <= unit_bytes), default=0)


def _importance(size: Size, rng: np.random.Generator) -> Floats:
    """Draw each unit's share of each class's importance."""
    # With a generator of their own, units are the same for any number of classes.
    units = np.random.default_rng(size.seed)
    heads = units.lognormal(0, 0.5, (DEPTH, size.num_heads))
    groups = units.lognormal(0, 1.6, (DEPTH, size.num_groups))
    base = np.concatenate([heads / heads.sum(), groups / groups.sum()], axis=1)
    clusters = rng.integers(0, max(2, size.num_classes // 10), size.num_classes)
    cluster_factors = rng.lognormal(0, size.cluster_sd, (clusters.max() + 1, *base.shape))
    of_class = rng.lognormal(0, size.class_sd, (size.num_classes, *base.shape))
    shares: Floats = base * cluster_factors[clusters] * of_class
    return np.asarray((shares / shares.sum(axis=(1, 2), keepdims=True)).round(9), dtype=np.float64)


def _greedy_cover_bytes(shares: Floats, unit_bytes: Floats) -> float:
    """Return the bytes of a greedy cover: units by missing importance per byte, until all floors are met."""
    missing, free, total = np.full(len(shares), MIN_RETENTION), np.ones(len(unit_bytes), dtype=bool), 0.0
    while missing.max() > 1e-9 and free.any():
        gain = np.minimum(shares, missing[:, None]).sum(axis=0) / unit_bytes * free
        best = int(gain.argmax())
        free[best] = False
        missing = np.maximum(0.0, missing - shares[:, best])
        total += float(unit_bytes[best])
    return total


@dataclass(frozen=True)
class DeviceKind:
    """Kind of devices; the first device of the first kind is the gateway."""

    count: int
    macs_per_second: float
    free_bytes: float  # for units
    bandwidth_mbps: float
    latency_ms: float


def device_kinds(model: SyntheticModel) -> list[DeviceKind]:
    """Draw the device kinds of a fleet."""
    size = model.size
    K = min(size.num_kinds, size.num_devices)
    rng = np.random.default_rng([size.seed, K])
    order, fast = rng.permutation(K), math.ceil(K / 4)
    speeds = (32e9 / 8 ** np.linspace(0, 1, K) if K > 1 else np.array([1e10]))[order]
    ends = size.min_memory, size.max_memory
    rising = np.linspace(*ends, K) if K > 1 else np.array([sum(ends) / 2])
    shares = np.concatenate([rising[:fast], rng.permutation(rising[fast:])])[order]
    mbps = np.exp(rng.uniform(np.log(50), np.log(1000), K))
    latencies_ms = np.exp(rng.uniform(np.log(0.2), np.log(2), K))
    counts = 1 + rng.multinomial(size.num_devices - K, [1 / K] * K)

    def free_bytes(factor: float) -> Floats:
        return np.asarray(np.minimum(factor * shares, 1) * model.whole_bytes - model.fixed_bytes)

    def classes_held(factor: float) -> int:
        per_device = [model.classes_within(free) for free in free_bytes(factor)]
        return int(np.dot(counts, per_device))

    factor = 1.0
    while classes_held(factor) < MEMORY_SLACK * size.num_classes:
        factor *= 1.05
    drawn = zip(counts, speeds, free_bytes(factor), mbps, latencies_ms, strict=True)
    return [
        DeviceKind(int(count), float(f"{speed:.1e}"), float(free), float(round(bandwidth)), round(float(latency), 2))
        for count, speed, free, bandwidth, latency in drawn
    ]


def fleet(model: SyntheticModel) -> Fleet:
    """Return the fleet: all devices but the gateway are linked to it, each kind by a link of its own."""
    devices: list[dict[str, object]] = []
    links: list[dict[str, object]] = []
    for k, kind in enumerate(device_kinds(model)):
        fields: dict[str, object] = {
            "macs_per_second": kind.macs_per_second,
            "memory_budget": RUNTIME_OVERHEAD_BYTES + math.ceil(model.fixed_bytes + kind.free_bytes),
            "runtime_overhead": RUNTIME_OVERHEAD_BYTES,
        }
        if k == 0:
            devices.append({"name": "gateway"} | fields)
        if count := kind.count - (k == 0):
            name = f"kind{k}"
            devices.append({"name": name, "count": count} | fields)
            speed = {"bandwidth_mbps": kind.bandwidth_mbps, "latency_ms": kind.latency_ms}
            links.append({"between": ["gateway", name], **speed})
    return Fleet.model_validate({"name": model.size.name, "aggregator": "gateway", "devices": devices, "links": links})
