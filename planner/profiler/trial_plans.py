"""Trial plans: small plans that are cut, recovered and fused, to learn what accuracy survives which pruning.

Each device has a class subset, an embed dim and the share of importance that its heads and channels keep. Units are
taken by importance per MAC: of its own classes, of all, or first those that no other device keeps. The plan is
recovered by the default recipe as `execute` does it, from all training images and for as many epochs, and its errors
are counted on the calibration images, which the whole model was not trained on. The test part is never read.

Legend: B images, D devices, C classes, U units (heads and channel groups).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planner.arrays import Bools
from planner.network.distillation_data import DistillationData
from planner.network.evaluation import apply_in_batches
from planner.network.recipes import RECIPES, RecoveryTask, SubModelPart
from planner.network.surgery import Selection
from planner.network.training import train_inline
from planner.network.vit import VisionTransformer
from planner.profiler.calibration import Calibration
from planner.profiler.trial_designs import TrialDevice
from planner.rules.anchor_head import anchor_head
from planner.rules.cost import macs
from planner.rules.retention import unit_importance
from planner.schema import Frozen, Profile

# Worth of a unit that a device before keeps, where units that none keeps come first.
_WORTH_OF_SPARE = 0.2


class TrialPlan(Frozen):
    """Executed trial plan: its devices, the units that each keeps, and its errors on the calibration images."""

    devices: tuple[TrialDevice, ...]
    kept_units: tuple[tuple[int, ...], ...]  # by device: all heads, then all channel groups
    errors: tuple[int, ...]  # (C,), misclassified images of each class
    # Images that only the whole model gets right, and that only the plan gets right.
    num_lost: int
    num_gained: int

    def kept(self, num_units: int) -> Bools:
        """Return the units that each device keeps, (D, U)."""
        kept = np.zeros((len(self.devices), num_units), dtype=bool)
        for d, units in enumerate(self.kept_units):
            kept[d, list(units)] = True
        return kept


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
    kept_units, parts = kept_by_devices(profile, devices), []
    for d, (device, kept) in enumerate(zip(devices, kept_units, strict=True)):
        dims = profile.kept_embed_dims(device.embed_dim)
        assert dims is not None
        selection = Selection.of(*heads_and_channels(profile, kept), dims)
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
        kept_units=tuple(tuple(np.flatnonzero(kept).tolist()) for kept in kept_units),
        errors=tuple(torch.bincount(labels[~is_right], minlength=len(profile.classes)).tolist()),
        num_lost=int((whole_is_right & ~is_right).sum()),
        num_gained=int((~whole_is_right & is_right).sum()),
    )


def kept_by_devices(profile: Profile, devices: Sequence[TrialDevice]) -> list[Bools]:
    """Return the units that each device of a trial plan keeps, (U,) each."""
    kept_units: list[Bools] = []
    for device in devices:
        important = device.classes if device.choice == "own" else range(len(profile.classes))
        spare = np.logical_or.reduce(kept_units) if device.choice == "lacking" and kept_units else None
        kept_units.append(cheapest_cut(profile, important, device.share, spare))
    return kept_units


def relative_macs(profile: Profile, devices: Sequence[TrialDevice]) -> float:
    """Return the MACs of all sub-models of a trial plan together, as a multiple of the whole model's."""
    everything = np.ones(unit_importance(profile).shape[1], dtype=bool)
    sub_models = zip(devices, kept_by_devices(profile, devices), strict=True)
    total = sum(_macs(profile, device.embed_dim, kept) for device, kept in sub_models)
    return total / _macs(profile, profile.widths[0].embed_dim, everything)


def _macs(profile: Profile, embed_dim: int, kept: Bools) -> int:
    width = profile.width(embed_dim)
    assert width is not None
    heads, channels = (list(map(len, blocks)) for blocks in heads_and_channels(profile, kept))
    return macs(width, heads, channels)


def cheapest_cut(profile: Profile, classes: Sequence[int], share: float, spare: Bools | None = None) -> Bools:
    """Return the units that keep a share of each class's importance for few MACs, (U,).

    A greedy covering heuristic: units are taken by importance per MAC, where importance counts only up to the share
    that a class still lacks. The first is the anchor head, which every sub-model keeps.

    Args:
        profile: Costs and importance of the units.
        classes: Classes whose importance counts.
        share: Share that is to be kept of each.
        spare: Units that are worth a fraction only, since another device keeps them, (U,).
    """
    width, H = profile.widths[0], profile.num_heads
    head_macs = [width.head_macs[l] for l in range(profile.depth) for _ in range(H)]
    group_macs = [width.channel_macs[l] * size for l, sizes in enumerate(profile.group_sizes) for size in sizes]
    unit_macs = np.array(head_macs + group_macs)
    worth = np.ones(len(unit_macs)) if spare is None else np.where(spare, _WORTH_OF_SPARE, 1.0)
    own = unit_importance(profile)[list(classes)]
    free = np.ones(len(unit_macs), dtype=bool)
    if (anchor := anchor_head(profile)) is not None:
        free[(profile.depth - 1) * H + anchor] = False
    kept = own[:, ~free].sum(axis=1)
    while kept.min() < share - 1e-9 and free.any():
        lacking = np.maximum(0, share - kept)
        gain = np.where(free, np.minimum(own, lacking[:, None]).sum(0) * worth / unit_macs, -1.0)
        u = int(gain.argmax())
        free[u] = False
        kept += own[:, u]
    return ~free


def heads_and_channels(profile: Profile, kept: Bools) -> tuple[list[list[int]], list[list[int]]]:
    """Return the heads and the hidden channels of each block among kept units (U,)."""
    of_heads = kept[: profile.depth * profile.num_heads].reshape(profile.depth, profile.num_heads)
    of_groups = iter(kept[of_heads.size :].tolist())
    heads = [np.flatnonzero(block).tolist() for block in of_heads]
    channels = [[c for group in block if next(of_groups) for c in group] for block in profile.channel_groups]
    return heads, channels
