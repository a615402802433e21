"""What accuracy survives which pruning: small plans that are really cut, retrained and fused.

A probe is a plan for one to five devices, equal or unequal, each with its class subset, its embed
dim and the share of what its classes need that its heads and channels keep (units taken the way a
planner would: those that give most importance for their MACs first). The narrower, the more units:
a planner has to make up for what a width loses, so that is where it must be predicted well.

It is cut, retrained and fused, and the errors of each class are counted on images held out from
the training part, jittered copies of them included. The test part is never looked at.
`planner.profiler.calibrate` makes of them what a profile holds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planner.network import recover
from planner.network.evaluate import batched
from planner.network.recover import FUSE, RETRAIN, Lessons
from planner.network.surgery import cut
from planner.network.vit import VisionTransformer
from planner.predict import unit_shares
from planner.schema import Frozen, Profile

NUM_PROBES = 16

_DEVICES = (2, 1, 5, 3)
_SHARES = (0.22, 1.0)
# Unequal devices keep between the first and the second of these times the probe's share.
_UNEQUAL = (0.6, 1.5)
_MOST_KEPT = 1.0
# What a width is first taken to retain: this power of the embed dims' importance that it keeps.
_GUESSED_EXPONENT = 0.4


class ProbedDevice(Frozen):
    """One device of a probe: the classes it serves, its embed dim, its share of their importance."""

    classes: tuple[int, ...]
    embed_dim: int
    share: float  # of heads and channels alone


class Probe(Frozen):
    """One small plan, what the kept heads and channels retain of every class, and what came of it."""

    devices: tuple[ProbedDevice, ...]
    unit_retention: tuple[tuple[float, ...], ...]  # (D, C): of heads and channels alone
    images: tuple[int, ...]  # (C,) held out
    errors: tuple[float, ...]  # (C,) share of them


@dataclass(frozen=True)
class Setting:
    """What all probes share: the whole model, what it teaches, and the images held out (K copies of B)."""

    profile: Profile
    whole: VisionTransformer
    lessons: Lessons
    held_images: Tensor  # (K, B, ch, H, W)
    held_labels: Tensor  # (B,)
    seed: int


def designs(num_classes: int, rho: Mapping[int, float], seed: int) -> list[tuple[ProbedDevice, ...]]:
    """Return the devices of each probe: they span device counts, shares kept, embed dims, equal and unequal.

    Each property takes all of its values about equally often, in an order of its own.

    Args:
        num_classes: Of the model.
        rho: The share of the embed dims' importance that each embed dim keeps, the full width first.
        seed: For class subsets and unequal shares.
    """
    rng = np.random.default_rng(seed)
    # The full width twice as often as each other: most plans keep it.
    choices = (next(iter(rho)), *rho)
    shares = np.linspace(*_SHARES, NUM_PROBES)[_spread(NUM_PROBES)]
    probes = []
    for i in range(NUM_PROBES):
        count = min(_DEVICES[i % len(_DEVICES)], num_classes)
        unequal = i // len(_DEVICES) % 2 == 1
        order = rng.permutation(num_classes)
        ends = np.linspace(0, num_classes, count + 1).round().astype(int)[1:-1]
        if unequal:
            ends = np.sort(rng.choice(np.arange(1, num_classes), count - 1, replace=False))
        devices = []
        for d, classes in enumerate(np.split(order, ends)):
            times = rng.uniform(*_UNEQUAL) if unequal else 1.0
            width = choices[(i + i // len(_DEVICES) + d * unequal) % len(choices)]
            share = round(min(_MOST_KEPT, float(shares[i]) * times / rho[width] ** _GUESSED_EXPONENT), 4)
            devices.append(ProbedDevice(classes=tuple(sorted(classes.tolist())), embed_dim=width, share=share))
        probes.append(tuple(devices))
    return probes


def _spread(count: int) -> list[int]:
    """Return 0 to count - 1 so that any few in a row span the range."""
    step = next(s for s in range(int(count * 0.618), count) if math.gcd(s, count) == 1)
    return [i * step % count for i in range(count)]


def run_probe(setting: Setting, devices: Sequence[ProbedDevice], on_epoch: Callable[[], None]) -> Probe:
    """Cut, retrain and fuse one small plan."""
    profile, seed = setting.profile, setting.seed
    sub_models, retention = [], []
    for d, device in enumerate(devices):
        heads, channels, kept = cheapest_cut(profile, device.classes, device.share)
        retention.append(tuple(kept.round(6).tolist()))
        sub_model = cut(setting.whole, heads, channels, profile.kept_embed_dims(device.embed_dim))
        recover.retrain(sub_model, device.classes, setting.lessons, RETRAIN, seed + d, on_epoch=on_epoch)
        sub_models.append(sub_model)
    fusion = recover.train_fusion(sub_models, setting.lessons, profile.fusion_hidden, FUSE, seed)
    errors = held_errors(lambda images: fusion(recover.features(sub_models, images)), setting)
    held = torch.bincount(setting.held_labels, minlength=len(profile.classes))
    return Probe(devices=tuple(devices), unit_retention=tuple(retention), images=tuple(held.tolist()), errors=errors)


def held_errors(answer: Callable[[Tensor], Tensor], setting: Setting) -> tuple[float, ...]:
    """Return the share of each class's held-out images, all copies of them, that is answered wrongly, (C,)."""
    labels = setting.held_labels
    wrong = torch.stack([batched(answer, images).argmax(1) != labels for images in setting.held_images])
    share = wrong.double().mean(0)  # (B,)
    # A class without held-out images has no errors among them: it counts nothing where errors are counted.
    of_classes = (share[labels == c] for c in range(len(setting.profile.classes)))
    return tuple(round(float(of.mean()), 6) if len(of) else 0.0 for of in of_classes)


def num_epochs(probes: Sequence[Sequence[ProbedDevice]]) -> int:
    """Return how many epochs probes train, all of their sub-models together."""
    return sum(len(devices) for devices in probes) * RETRAIN.epochs


def cheapest_cut(
    profile: Profile, classes: Sequence[int], share: float
) -> tuple[list[list[int]], list[list[int]], NDArray[np.float64]]:
    """Return the heads and channels that keep a share of each class's importance for few MACs.

    Units are taken by importance per MAC, the classes that have least so far counting most.

    Returns:
        Heads and channels of each block, and what they retain of every class of the profile (C,).
    """
    width = profile.widths[0]
    units = [(l, h, -1) for l in range(profile.depth) for h in range(profile.num_heads)]
    units += [(l, -1, g) for l, sizes in enumerate(profile.group_sizes) for g in range(len(sizes))]
    value = unit_shares(profile)
    own = value[list(classes)]
    macs = [width.head_macs[l] if h >= 0 else width.channel_macs[l] * profile.group_sizes[l][g] for l, h, g in units]
    kept = np.zeros(len(own))
    free = np.ones(len(units), dtype=bool)
    while kept.min() < share - 1e-9 and free.any():
        lacking = np.maximum(0, share - kept)
        gain = np.where(free, np.minimum(own, lacking[:, None]).sum(0) / macs, -1.0)
        u = int(gain.argmax())
        free[u] = False
        kept += own[:, u]
    heads: list[list[int]] = [[] for _ in range(profile.depth)]
    channels: list[list[int]] = [[] for _ in range(profile.depth)]
    for (l, h, g), left in zip(units, free.tolist(), strict=True):
        if left:
            continue
        if h >= 0:
            heads[l].append(h)
        else:
            channels[l].extend(profile.channel_groups[l][g])
    return heads, channels, value[:, ~free].sum(axis=1)
