"""What accuracy survives which pruning: small plans that are really cut, retrained and fused.

Each probe splits the classes into subsets of n, cuts every sub-model to a share r of what its
classes need (the way a planner would: the units that give most importance for their MACs first),
retrains, fuses, and counts the errors of each class on images held out from the training part.
The test part is never looked at.

Over the probes, the error rate of class c is modelled as

    log e(c, n, r) = a + b log n + d_c - s r,       b >= 0, s > 0, d_c shrunk towards 0

and solved for the retention at which it is the whole model's error plus the allowed drop. That
is the floor; its part that depends on n is `by_count`, its part that depends on c `class_need`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from planner.network import recover
from planner.network.data import Samples
from planner.network.evaluate import batched
from planner.network.recover import FUSE, RETRAIN, Lessons
from planner.network.surgery import cut
from planner.network.vit import VisionTransformer
from planner.schema import Frozen, Profile, Recovery

DROPS = (0.01, 0.02, 0.05, 0.1, 0.2)

_SHARES = (0.25, 0.35, 0.5, 0.7)
# A probe that gets more than this share wrong has lost its way: it says nothing about small drops.
_COLLAPSED = 0.5
# How much a class must differ before it is believed to: in the units of the log error.
_SHRINKAGE = 4.0
_DECIMALS = 4


class Probe(Frozen):
    """One small plan: what each class kept, and the errors of its fused answers on held-out images."""

    num_classes: int
    retention: tuple[float, ...]  # (C,)
    errors: tuple[int, ...]  # (C,)


@dataclass(frozen=True)
class Setting:
    """What all probes share: the whole model, what it teaches, and the images held out."""

    profile: Profile
    whole: VisionTransformer
    lessons: Lessons
    held: Samples
    seed: int


def designs(num_classes: int) -> list[tuple[int, float]]:
    """Return the (classes per sub-model, share kept) of each probe."""
    counts = sorted({2, max(2, num_classes // 2), num_classes} & set(range(1, num_classes + 1)))
    return [(n, share) for n in counts for share in _SHARES]


def run_probe(setting: Setting, num_classes: int, share: float, on_epoch: Callable[[], None]) -> Probe:
    """Cut, retrain and fuse one small plan."""
    total = len(setting.profile.classes)
    rng = np.random.default_rng(setting.seed)
    subsets = np.array_split(rng.permutation(total), math.ceil(total / num_classes))
    retention = np.zeros(total)
    sub_models = []
    for i, subset in enumerate(subsets):
        heads, channels, kept = cheapest_cut(setting.profile, subset.tolist(), share)
        retention[subset] = kept
        sub_model = cut(setting.whole, heads, channels)
        recover.retrain(sub_model, subset.tolist(), setting.lessons, RETRAIN, setting.seed + i, on_epoch=on_epoch)
        sub_models.append(sub_model)
    hidden = setting.profile.fusion_hidden
    fusion = recover.train_fusion(sub_models, setting.lessons, hidden, FUSE, setting.seed)
    logits = batched(fusion, recover.features(sub_models, setting.held.images))
    wrong = logits.argmax(1) != setting.held.labels
    errors = [int(wrong[setting.held.labels == c].sum()) for c in range(total)]
    return Probe(num_classes=len(subsets[0]), retention=tuple(retention.tolist()), errors=tuple(errors))


def epochs_of(total_classes: int, num_classes: int) -> int:
    """Return how many epochs a probe trains, all of its sub-models together."""
    return math.ceil(total_classes / num_classes) * RETRAIN.epochs


def num_epochs(total_classes: int) -> int:
    """Return how many epochs all probes train together."""
    return sum(epochs_of(total_classes, n) for n, _ in designs(total_classes))


def cheapest_cut(
    profile: Profile, classes: Sequence[int], share: float
) -> tuple[list[list[int]], list[list[int]], NDArray[np.float64]]:
    """Return the heads and channels that keep a share of each class's importance for few MACs.

    Units are taken by importance per MAC, the classes that have least so far counting most.

    Returns:
        Heads and channels of each block, and the retention of each class.
    """
    width, importance = profile.widths[0], profile.importance
    units = [(l, h, -1) for l in range(profile.depth) for h in range(profile.num_heads)]
    units += [(l, -1, g) for l, sizes in enumerate(profile.group_sizes) for g in range(len(sizes))]
    value = np.array(
        [
            [importance.heads[c][l][h] if h >= 0 else importance.channel_groups[c][l][g] for l, h, g in units]
            for c in classes
        ]
    )
    macs = [width.head_macs[l] if h >= 0 else width.channel_macs[l] * profile.group_sizes[l][g] for l, h, g in units]
    kept = np.zeros(len(classes))
    heads: list[list[int]] = [[] for _ in range(profile.depth)]
    channels: list[list[int]] = [[] for _ in range(profile.depth)]
    free = np.ones(len(units), dtype=bool)
    while kept.min() < share - 1e-9 and free.any():
        lacking = np.maximum(0, share - kept)
        gain = np.where(free, np.minimum(value, lacking[:, None]).sum(0) / macs, -1.0)
        u = int(gain.argmax())
        free[u] = False
        kept += value[:, u]
        l, h, g = units[u]
        if h >= 0:
            heads[l].append(h)
        else:
            channels[l].extend(profile.channel_groups[l][g])
    return heads, channels, kept


def calibrate(probes: Sequence[Probe], whole_errors: Sequence[int], held_by_class: Sequence[int]) -> list[Recovery]:
    """Turn probes into floors, a row for each drop.

    Args:
        probes: What was measured.
        whole_errors: Errors of the whole model on the held-out images of each class.
        held_by_class: How many of those images there are.
    """
    num_classes = len(held_by_class)
    held = np.array(held_by_class, dtype=float)
    rows, logs = [], []
    for probe in probes:
        if sum(probe.errors) > _COLLAPSED * held.sum():
            continue
        rate = (np.array(probe.errors) + 0.5) / (held + 1)
        for c in range(num_classes):
            rows.append([1, math.log(probe.num_classes), -probe.retention[c], *np.eye(num_classes)[c]])
            logs.append(math.log(rate[c]))
    for c in range(num_classes):
        rows.append([0, 0, 0, *(_SHRINKAGE * np.eye(num_classes)[c])])
        logs.append(0.0)
    low = [-np.inf, 0.0, 0.1, *[-np.inf] * num_classes]
    a, b, s, *needs = lsq_linear(np.array(rows), np.array(logs), (low, np.inf)).x.tolist()
    whole_rate = (sum(whole_errors) + 0.5) / (held.sum() + 1)
    recovery = []
    for drop in DROPS:
        allowed = math.log(whole_rate + drop)
        by_count = [min(1.0, max(0.0, (a + b * math.log(n) - allowed) / s)) for n in range(1, num_classes + 1)]
        typical = max(by_count[num_classes // 2], 0.05)
        class_need = [max(0.5, 1 + need / s / typical) for need in needs]
        recovery.append(
            Recovery(
                max_accuracy_drop=drop,
                by_count=tuple(round(floor, _DECIMALS) for floor in by_count),
                class_need=tuple(round(need, _DECIMALS) for need in class_need),
            )
        )
    return recovery
