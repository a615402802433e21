"""Trial plans: small plans that are cut, retrained and fused, to learn what accuracy survives which pruning.

A trial plan is for one to five devices, equal or unequal. Each device has a class subset, an embed dim and the share
of its classes' importance that its heads and channels keep (units are taken as a planner would: by importance per
MAC). The narrower the device, the more units it keeps: a planner has to compensate the loss of a width, so that is
where predictions must be good.

It is cut, retrained and fused by the default recipe, as the executor does, and the errors of each class are counted on
images held out from the training part, jittered copies of them included. The test part is never read.
`planner.profiler.accuracy_model` is fitted to the results.

Legend: K copies, B images, ch channels, H height, W width, D devices, C classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from planner.arrays import Floats
from planner.network.data import Jitter, Samples
from planner.network.distillation_data import DistillationData, apply_to_copies, make_distillation_data
from planner.network.recipes import RECIPES, RecoveryTask, SubModelPart
from planner.network.recipes.recovery_task import DEFAULT_EPOCHS
from planner.network.surgery import Selection
from planner.network.training import Epoch, TrainingTask, train_inline
from planner.network.vit import Shape, VisionTransformer
from planner.rules.accuracy import unit_importance
from planner.rules.anchor_head import anchor_head
from planner.schema import Frozen, Profile

NUM_TRIALS = 16

_DEVICE_COUNTS = (2, 1, 5, 3)
_SHARE_RANGE = (0.27, 1.0)
# Range of the factors by which the shares of unequal devices differ from the plan's.
_UNEQUAL_FACTORS = (0.6, 1.5)
_MAX_SHARE = 1.0
# First guess of the exponent of what a width retains; the fit finds its own.
_GUESSED_EXPONENT = 1.0


class TrialDevice(Frozen):
    """Device of a trial plan: the classes it serves, its embed dim, its share of their importance."""

    classes: tuple[int, ...]
    embed_dim: int
    share: float  # of heads and channels, without the embed dim


class TrialPlan(Frozen):
    """Executed small plan: its devices, their retention of every class, and the errors on held-out images."""

    devices: tuple[TrialDevice, ...]
    unit_retention: tuple[tuple[float, ...], ...]  # (D, C), of heads and channels, without embed dims
    images: tuple[int, ...]  # (C,), number held out
    errors: tuple[float, ...]  # (C,), share of them


@dataclass(frozen=True)
class HoldOut:
    """Images that no trial plan learns from, with their labels, and the moves of each copy of them."""

    samples: Samples  # B
    moves: Tensor  # (K, B, 4)


@dataclass(frozen=True)
class TrialSetting:
    """Teacher and data that the trial plans of a fold share."""

    profile: Profile
    whole: VisionTransformer
    training: DistillationData
    validation: DistillationData
    hold_out: HoldOut
    seed: int


def trial_designs(num_classes: int, rho: Mapping[int, float], seed: int) -> list[tuple[TrialDevice, ...]]:
    """Return the devices of each trial plan, which vary in number, shares, embed dims, and equal or unequal.

    Each property takes all of its values about equally often, independently of the others.

    Args:
        num_classes: Number of the model's classes.
        rho: Share of the embed dims' importance that each width keeps, the full width first.
        seed: For class subsets and unequal shares.
    """
    rng = np.random.default_rng(seed)
    # The full width twice as often as any other: most plans keep it.
    widths = (next(iter(rho)), *rho)
    shares = np.linspace(*_SHARE_RANGE, NUM_TRIALS)[_spread_order(NUM_TRIALS)]
    designs = []
    for i in range(NUM_TRIALS):
        count = min(_DEVICE_COUNTS[i % len(_DEVICE_COUNTS)], num_classes)
        unequal = i // len(_DEVICE_COUNTS) % 2 == 1
        order = rng.permutation(num_classes)
        ends = np.linspace(0, num_classes, count + 1).round().astype(int)[1:-1]
        if unequal:
            ends = np.sort(rng.choice(np.arange(1, num_classes), count - 1, replace=False))
        devices = []
        for d, classes in enumerate(np.split(order, ends)):
            factor = rng.uniform(*_UNEQUAL_FACTORS) if unequal else 1.0
            width = widths[(i + i // len(_DEVICE_COUNTS) + d * unequal) % len(widths)]
            share = round(min(_MAX_SHARE, float(shares[i]) * factor / rho[width] ** _GUESSED_EXPONENT), 4)
            devices.append(TrialDevice(classes=tuple(sorted(classes.tolist())), embed_dim=width, share=share))
        designs.append(tuple(devices))
    return designs


def _spread_order(count: int) -> list[int]:
    """Return 0 to count - 1 in an order in which any few consecutive ones span the range."""
    # Steps of about the golden ratio, coprime to the count so that each number is visited once.
    step = next(s for s in range(int(count * 0.618), count) if math.gcd(s, count) == 1)
    return [i * step % count for i in range(count)]


def run_trial(setting: TrialSetting, devices: Sequence[TrialDevice], on_epoch: Callable[[Epoch], None]) -> TrialPlan:
    """Cut, retrain and fuse one small plan, and count its errors."""
    profile, labels = setting.profile, setting.hold_out.samples.labels
    parts, retention = [], []
    for d, device in enumerate(devices):
        heads, channels, kept = cheapest_cut(profile, device.classes, device.share)
        retention.append(tuple(kept.round(6).tolist()))
        dims = profile.kept_embed_dims(device.embed_dim)
        assert dims is not None
        selection = Selection.of(heads, channels, dims)
        parts.append(SubModelPart(f"device {d + 1}", selection.cut(setting.whole), device.classes, selection))
    task = RecoveryTask(
        tuple(parts),
        setting.whole,
        setting.whole,
        setting.training,
        setting.validation,
        profile.fusion_hidden,
        DEFAULT_EPOCHS,
        setting.seed,
    )
    fusion = RECIPES["default"](task, partial(train_inline, on_epoch=on_epoch))

    def fused_logits(images: Tensor) -> Tensor:
        logits: Tensor = fusion(torch.cat([model.features(images) for model in task.sub_models], 1))
        return logits

    images = torch.bincount(labels, minlength=len(profile.classes))
    return TrialPlan(
        devices=tuple(devices),
        unit_retention=tuple(retention),
        images=tuple(images.tolist()),
        errors=held_out_errors(fused_logits, setting.hold_out, len(profile.classes)),
    )


def held_out_errors(predict: Callable[[Tensor], Tensor], hold_out: HoldOut, num_classes: int) -> tuple[float, ...]:
    """Return the share of each class's images, all copies of them, that is misclassified, (C,)."""
    images, labels = hold_out.samples.images, hold_out.samples.labels
    wrong = torch.stack([apply_to_copies(predict, images, moves).argmax(1) != labels for moves in hold_out.moves])
    share = wrong.double().mean(0)  # (B,)
    # Any number would do for a class without held-out images: its errors are weighted by their count.
    of_classes = (share[labels == c] for c in range(num_classes))
    return tuple(round(float(of.mean()), 6) if len(of) else 0.0 for of in of_classes)


def num_epochs(designs: Sequence[Sequence[TrialDevice]]) -> int:
    """Return how many epochs trial plans train at most, all of their trainings together."""
    return sum(_num_recipe_epochs(len(devices), DEFAULT_EPOCHS) for devices in designs)


@lru_cache
def _num_recipe_epochs(num_devices: int, epochs: int) -> int:
    """Return the epochs of the default recipe, counted in a dry run with tiny models."""
    counted = 0

    def count(tasks: Sequence[TrainingTask]) -> None:
        nonlocal counted
        # The start is reported like an epoch.
        counted += sum(1 + task.schedule.num_epochs for task in tasks)

    tiny = VisionTransformer(Shape(1, 1, 1, 1, embed_dim=1, head_dim=1, num_heads=(), hidden_dim=()))
    two_images = Samples(torch.zeros(2, 1, 1, 1), torch.zeros(2, dtype=torch.long))
    data = make_distillation_data(tiny, two_images, Jitter(0.0, 0.0), seed=0)
    parts = (SubModelPart("", tiny, (0,), Selection((), (), (0,))),) * num_devices
    RECIPES["default"](RecoveryTask(parts, tiny, tiny, data, data, 1, epochs, seed=0), count)
    return counted


def cheapest_cut(
    profile: Profile, classes: Sequence[int], share: float
) -> tuple[list[list[int]], list[list[int]], Floats]:
    """Return the heads and channels that keep a share of each class's importance for few MACs.

    A greedy covering heuristic: units are taken by importance per MAC, where importance counts only up to the share
    that a class still lacks. The first is the anchor head, which every sub-model keeps.

    Returns:
        Heads and channels of each block, and their retention of every class of the profile (C,).
    """
    width = profile.widths[0]
    units = [(l, h, -1) for l in range(profile.depth) for h in range(profile.num_heads)]
    units += [(l, -1, g) for l, sizes in enumerate(profile.group_sizes) for g in range(len(sizes))]
    importance = unit_importance(profile)
    own = importance[list(classes)]
    macs = [width.head_macs[l] if h >= 0 else width.channel_macs[l] * profile.group_sizes[l][g] for l, h, g in units]
    anchor = anchor_head(profile)
    free = np.array([(l, h) != (profile.depth - 1, anchor) for l, h, _ in units], dtype=bool)
    kept = own[:, ~free].sum(axis=1)
    while kept.min() < share - 1e-9 and free.any():
        lacking = np.maximum(0, share - kept)
        gain = np.where(free, np.minimum(own, lacking[:, None]).sum(0) / macs, -1.0)
        u = int(gain.argmax())
        free[u] = False
        kept += own[:, u]
    heads: list[list[int]] = [[] for _ in range(profile.depth)]
    channels: list[list[int]] = [[] for _ in range(profile.depth)]
    for (l, h, g), is_free in zip(units, free.tolist(), strict=True):
        if is_free:
            continue
        if h >= 0:
            heads[l].append(h)
        else:
            channels[l].extend(profile.channel_groups[l][g])
    return heads, channels, importance[:, ~free].sum(axis=1)
