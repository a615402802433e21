"""Trial plans: small plans that are cut, recovered and fused, to learn what accuracy survives which pruning.

Each device has a class subset, an embed dim and the share of its classes' importance that its heads and channels keep
(units are taken as a planner would: by importance per MAC). The plan is recovered by the default recipe as `execute`
does it, from all training images and for as many epochs, and its errors are counted on the calibration images, which
the whole model was not trained on. The test part is never read.

Legend: B images, D devices, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planner.arrays import Floats
from planner.network.distillation_data import DistillationData
from planner.network.evaluation import apply_in_batches
from planner.network.recipes import RECIPES, RecoveryTask, SubModelPart
from planner.network.surgery import Selection
from planner.network.training import train_inline
from planner.network.vit import VisionTransformer
from planner.profiler.calibration import Calibration
from planner.profiler.trial_designs import TrialDevice
from planner.rules.accuracy import unit_importance
from planner.rules.anchor_head import anchor_head
from planner.schema import Frozen, Profile


class TrialPlan(Frozen):
    """Executed trial plan: its devices, their retention of every class, and its errors on the calibration images."""

    devices: tuple[TrialDevice, ...]
    unit_retention: tuple[tuple[float, ...], ...]  # (D, C), of heads and channels, without embed dims
    errors: tuple[int, ...]  # (C,), misclassified images of each class
    # Images that only the whole model gets right, and that only the plan gets right.
    num_lost: int
    num_gained: int


@dataclass(frozen=True)
class TrialSetting:
    """Models and data that all trial plans share."""

    profile: Profile
    whole: VisionTransformer
    training: DistillationData
    validation: DistillationData
    calibration: Calibration
    epochs: float
    seed: int


def run_trial(setting: TrialSetting, devices: Sequence[TrialDevice]) -> TrialPlan:
    """Cut, recover and fuse one small plan, and count its errors."""
    torch.set_num_threads(1)
    profile, labels = setting.profile, setting.calibration.samples.labels
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
        setting.epochs,
        setting.seed,
    )
    fusion = RECIPES["default"](task, train_inline)

    def fused_logits(images: Tensor) -> Tensor:
        logits: Tensor = fusion(torch.cat([model.features(images) for model in task.sub_models], 1))
        return logits

    whole_is_right = setting.calibration.whole_is_right
    is_right = apply_in_batches(fused_logits, setting.calibration.samples.images).argmax(1) == labels
    return TrialPlan(
        devices=tuple(devices),
        unit_retention=tuple(retention),
        errors=tuple(torch.bincount(labels[~is_right], minlength=len(profile.classes)).tolist()),
        num_lost=int((whole_is_right & ~is_right).sum()),
        num_gained=int((~whole_is_right & is_right).sum()),
    )


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
