"""What accuracy survives which pruning: small plans that are really cut, retrained and fused.

A probe is a plan for one to five devices, equal or unequal, each with its class subset, its embed
dim and the share of what its classes need that its heads and channels keep (units taken the way a
planner would: those that give most importance for their MACs first). The narrower, the more units:
a planner has to make up for what a width loses, so that is where it must be predicted well.

It is cut, retrained and fused by the default recipe, as the executor does, and the errors of each
class are counted on images held out from the training part, jittered copies of them included. The
test part is never looked at. `planner.profiler.accuracy_model` makes of them what a profile holds.

Legend: K copies, B images, ch channels, H height, W width, D devices, C classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planner.network.data import Jitter, Samples
from planner.network.distillation_data import DistillationData, distillation_data, over_images
from planner.network.recipes import RECIPES, RecoveryTask, SubModelPart
from planner.network.recipes.job import EPOCHS
from planner.network.surgery import cut
from planner.network.training import Epoch, TrainingTask, train_here
from planner.network.vit import Shape, VisionTransformer
from planner.rules.accuracy import unit_shares
from planner.schema import Frozen, Profile

NUM_PROBES = 16

_DEVICES = (2, 1, 5, 3)
_SHARES = (0.22, 1.0)
# Unequal devices keep between the first and the second of these times the probe's share.
_UNEQUAL = (0.6, 1.5)
_MOST_KEPT = 1.0
# What a width is first taken to retain: this power of the embed dims' importance that it keeps.
_GUESSED_EXPONENT = 0.4


class TrialDevice(Frozen):
    """One device of a probe: the classes it serves, its embed dim, its share of their importance."""

    classes: tuple[int, ...]
    embed_dim: int
    share: float  # of heads and channels alone


class TrialPlan(Frozen):
    """One small plan, what the kept heads and channels retain of every class, and what came of it."""

    devices: tuple[TrialDevice, ...]
    unit_retention: tuple[tuple[float, ...], ...]  # (D, C): of heads and channels alone
    images: tuple[int, ...]  # (C,) held out
    errors: tuple[float, ...]  # (C,) share of them


@dataclass(frozen=True)
class HoldOut:
    """Images that no probe learns from, how each copy of them is moved, and their labels."""

    samples: Samples  # B
    moves: Tensor  # (K, B, 4)


@dataclass(frozen=True)
class TrialSetting:
    """What all probes share: the whole model, what it teaches, when to stop, and who judges."""

    profile: Profile
    whole: VisionTransformer
    lessons: DistillationData
    held: DistillationData
    judges: HoldOut
    seed: int


def trial_designs(num_classes: int, rho: Mapping[int, float], seed: int) -> list[tuple[TrialDevice, ...]]:
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
            devices.append(TrialDevice(classes=tuple(sorted(classes.tolist())), embed_dim=width, share=share))
        probes.append(tuple(devices))
    return probes


def _spread(count: int) -> list[int]:
    """Return 0 to count - 1 so that any few in a row span the range."""
    step = next(s for s in range(int(count * 0.618), count) if math.gcd(s, count) == 1)
    return [i * step % count for i in range(count)]


def run_trial(setting: TrialSetting, devices: Sequence[TrialDevice], on_epoch: Callable[[Epoch], None]) -> TrialPlan:
    """Cut, retrain and fuse one small plan."""
    profile, judged = setting.profile, setting.judges.samples.labels
    parts, retention = [], []
    for d, device in enumerate(devices):
        heads, channels, kept = cheapest_cut(profile, device.classes, device.share)
        retention.append(tuple(kept.round(6).tolist()))
        sub_model = cut(setting.whole, heads, channels, profile.kept_embed_dims(device.embed_dim))
        parts.append(SubModelPart(f"device {d + 1}", sub_model, device.classes))
    hidden = profile.fusion_hidden
    job = RecoveryTask(tuple(parts), setting.whole, setting.lessons, setting.held, hidden, EPOCHS, setting.seed)
    fusion = RECIPES["default"](job, partial(train_here, on_epoch=on_epoch))

    def answer(images: Tensor) -> Tensor:
        logits: Tensor = fusion(torch.cat([model.features(images) for model in job.sub_models], 1))
        return logits

    images = torch.bincount(judged, minlength=len(profile.classes))
    return TrialPlan(
        devices=tuple(devices),
        unit_retention=tuple(retention),
        images=tuple(images.tolist()),
        errors=held_out_errors(answer, setting.judges, len(profile.classes)),
    )


def held_out_errors(answer: Callable[[Tensor], Tensor], judges: HoldOut, num_classes: int) -> tuple[float, ...]:
    """Return the share of each class's images, all copies of them, that is answered wrongly, (C,)."""
    images, labels = judges.samples.images, judges.samples.labels
    wrong = torch.stack([over_images(answer, images, moves).argmax(1) != labels for moves in judges.moves])
    share = wrong.double().mean(0)  # (B,)
    # A class without held-out images has no errors among them: it counts nothing where errors are counted.
    of_classes = (share[labels == c] for c in range(num_classes))
    return tuple(round(float(of.mean()), 6) if len(of) else 0.0 for of in of_classes)


def num_epochs(probes: Sequence[Sequence[TrialDevice]]) -> int:
    """Return how many epochs probes train at most, all of their trainings together."""
    return sum(_epochs_of(len(devices), EPOCHS) for devices in probes)


@lru_cache
def _epochs_of(num_devices: int, epochs: int) -> int:
    """Tell the recipe's story about next to nothing, and count."""
    counted = 0

    def count(trainings: Sequence[TrainingTask]) -> None:
        nonlocal counted
        counted += sum(training.schedule.epochs for training in trainings)

    tiny = VisionTransformer(Shape(1, 1, 1, 1, embed_dim=1, head_dim=1, num_heads=(), hidden_dim=()))
    two = Samples(torch.zeros(2, 1, 1, 1), torch.zeros(2, dtype=torch.long))
    lessons = distillation_data(tiny, two, Jitter(0.0, 0.0), seed=0)
    parts = (SubModelPart("", tiny, (0,)),) * num_devices
    RECIPES["default"](RecoveryTask(parts, tiny, lessons, lessons, 1, epochs, seed=0), count)
    return counted


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
