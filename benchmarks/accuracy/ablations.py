"""Ablations: plans without one part of the method, and the default recipe with other losses.

A recipe hands its trainings to a `TrainFunction`; one that swaps the losses stands in between.

Legend: B images, C classes, D devices.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.network.distillation_data import Batch
from planner.network.distillation_losses import log_own_and_other, own_and_other_labels, soft_target_loss
from planner.network.feature_matching import FeatureMatchingLoss, MatchedStudent, MatchFit
from planner.network.fusion import Fusion
from planner.network.joint_model import JointLoss, JointModel, features_of
from planner.network.losses import TEMPERATURE, DistillationLoss, FusionLoss, Loss, OwnOrOtherLoss, device_dropout
from planner.network.recipes import RECIPES, Recipe, RecoveryTask
from planner.network.recipes.default import Reconstruction
from planner.network.training import TrainFunction, TrainingTask
from planner.network.vit import VisionTransformer
from planner.schema import Plan, Profile

SAME_IMPORTANCE = "importance alike for all classes"
NO_TEACHER = "no teacher: labels alone"
NO_OTHER = "no other: own classes alone"
NO_MATCHING = "no matching of features"
ONE_DEVICE = "each class on one device"
RANDOM_SUBSETS = "random class subsets"
# The same plan by another recipe of the library.
OTHER_RECIPES = {f"the default recipe: {name} instead": name for name in ("devit", "ed-vit")}
# For each device, the classes it serves.
Subsets: TypeAlias = Mapping[str, Sequence[str]]

ABLATIONS = (SAME_IMPORTANCE, NO_TEACHER, NO_OTHER, NO_MATCHING, ONE_DEVICE, RANDOM_SUBSETS, *OTHER_RECIPES)


def with_mean_importance(profile: Profile) -> Profile:
    """Return the profile with each class's importance replaced by the mean over classes."""
    count = len(profile.classes)
    heads, channel_groups = (
        np.mean(np.array(values), axis=0).tolist()
        for values in (profile.importance.heads, profile.importance.channel_groups)
    )
    widths = []
    for width in profile.widths:
        mean = float(np.mean(width.embed_retention))
        widths.append(width.model_dump() | {"embed_retention": [mean] * count})
    importance = {"heads": [heads] * count, "channel_groups": [channel_groups] * count}
    return Profile.model_validate(profile.model_dump() | {"importance": importance, "widths": widths})


def on_one_device(plan: Plan) -> Plan:
    """Return the plan with each class only on the device of its highest retention; the sub-models stay unchanged.

    A device that would be left without a class takes over the one that loses the least retention, from a device that
    keeps another.
    """
    retention = {a.device: dict(a.retention) for a in plan.assignments}
    names = sorted({name for by_class in retention.values() for name in by_class})
    home = {name: max(retention, key=lambda device: retention[device].get(name, -1.0)) for name in names}
    for device in retention:
        if device in home.values():
            continue
        movable = [n for n in retention[device] if list(home.values()).count(home[n]) > 1]
        if movable:
            home[min(movable, key=lambda n: retention[home[n]][n] - retention[device][n])] = device
    assignments = []
    for a in plan.assignments:
        own = tuple(name for name in a.classes if home[name] == a.device)
        if own:
            assignments.append(
                a.model_dump() | {"classes": own, "retention": {name: a.retention[name] for name in own}}
            )
    return Plan.model_validate(plan.model_dump() | {"assignments": assignments})


def random_subsets(plan: Plan, seed: int) -> Subsets:
    """Return random class subsets of the same sizes and overlaps as a plan's: its classes, permuted."""
    names = sorted({name for a in plan.assignments for name in a.classes})
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    permuted = {name: names[i] for name, i in zip(names, order, strict=True)}
    return {a.device: tuple(permuted[name] for name in a.classes) for a in plan.assignments}


def recipe_of(name: str) -> Recipe:
    """Return a recipe by its name: one of the library, or of the ablations."""
    swaps: dict[str, Callable[[Loss], Loss]] = {
        NO_TEACHER: without_teacher,
        NO_OTHER: without_other,
        NO_MATCHING: lambda loss: loss,
    }
    if name not in swaps:
        return RECIPES[name]

    def swapped(task: RecoveryTask, train: TrainFunction) -> Fusion:
        def train_others(tasks: Sequence[TrainingTask]) -> None:
            unmatched = [without_matching(t) for t in tasks]
            train([replace(t, loss=swaps[name](t.loss)) for t in unmatched])

        return RECIPES["default"](task, train_others)

    return swapped


def without_matching(task: TrainingTask) -> TrainingTask:
    """Return the training without the match of features, if it has one."""
    if not isinstance(task.loss, FeatureMatchingLoss):
        return task
    assert isinstance(task.module, MatchedStudent)
    preparation = task.preparation
    if isinstance(preparation, MatchFit):
        preparation = None
    elif isinstance(preparation, Reconstruction):
        preparation = replace(preparation, match=None)
    return replace(task, module=task.module.student, loss=task.loss.loss, preparation=preparation)


def without_teacher(loss: Loss) -> Loss:
    """Return the loss from labels alone."""
    if isinstance(loss, DistillationLoss):
        return OwnOrOtherLoss(_indices(loss.own), len(loss.own))
    if isinstance(loss, FusionLoss):
        return LabelFusionLoss()
    if isinstance(loss, JointLoss):
        own = [_indices(mask) for mask in loss.own]
        return JointLabelLoss(own, loss.own.shape[1], loss.own_weight)
    raise _unknown(loss)


def without_other(loss: Loss) -> Loss:
    """Return the loss whose sub-models learn to tell their own classes apart, from these classes' images alone."""
    if isinstance(loss, DistillationLoss):
        return OwnClassesLoss(loss.own)
    if isinstance(loss, FusionLoss):
        return loss
    if isinstance(loss, JointLoss):
        own = [_indices(mask) for mask in loss.own]
        return JointOwnClassesLoss(own, loss.own.shape[1], loss.own_weight)
    raise _unknown(loss)


class LabelFusionLoss(Loss):
    """Loss of a fusion of frozen features: labels alone, with random device dropout."""

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, Fusion)
        return F.cross_entropy(module(batch.inputs, device_dropout(module, batch, generator)), batch.labels)


class OwnClassesLoss(Loss):
    """Labels and the teacher's soft targets, among the own classes and for their images."""

    own: Tensor

    def __init__(self, own: Tensor) -> None:
        super().__init__()
        self.register_buffer("own", own)

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return own_classes_loss(module(batch.inputs), batch, self.own)


class _ChangedJointLoss(JointLoss):
    """Joint loss with other losses of the fused logits and of each sub-model."""

    def fused_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the fused logits (B, C)."""
        raise NotImplementedError

    def own_loss(self, logits: Tensor, batch: Batch, own: Tensor) -> Tensor:
        """Return the loss of a sub-model's logits (B, C)."""
        raise NotImplementedError

    def with_features(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        assert isinstance(module, JointModel)
        pooled = module.pooled(batch.inputs)
        features = features_of(pooled)
        fused = module.fusion(features, device_dropout(module.fusion, batch, generator))
        loss = self.fused_loss(fused, batch)
        for model, own, tokens in zip(module.sub_models, self.own, pooled, strict=True):
            assert isinstance(model, VisionTransformer)
            loss = loss + self.own_weight / len(pooled) * self.own_loss(model.classify(tokens), batch, own)
        return loss, features


class JointLabelLoss(_ChangedJointLoss):
    """Labels alone."""

    def fused_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, batch.labels)

    def own_loss(self, logits: Tensor, batch: Batch, own: Tensor) -> Tensor:
        return F.nll_loss(log_own_and_other(logits, own), own_and_other_labels(batch.labels, own))


class JointOwnClassesLoss(_ChangedJointLoss):
    """The usual loss of the fused logits, and sub-models that learn from their own classes alone."""

    def fused_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        soft = soft_target_loss(logits, batch.teacher_logits, TEMPERATURE)
        return 0.5 * F.cross_entropy(logits, batch.labels) + 0.5 * soft

    def own_loss(self, logits: Tensor, batch: Batch, own: Tensor) -> Tensor:
        return own_classes_loss(logits, batch, own)


def own_classes_loss(logits: Tensor, batch: Batch, own: Tensor) -> Tensor:
    """Return half cross-entropy, half soft targets, among the own classes (C,) and over their images; 0 without any."""
    mine = own[batch.labels]
    if not mine.any():
        return logits.sum() * 0
    learned, taught = logits[mine][:, own], batch.teacher_logits[mine][:, own]
    labels = (own.cumsum(0) - 1)[batch.labels[mine]]
    return 0.5 * F.cross_entropy(learned, labels) + 0.5 * soft_target_loss(learned, taught, TEMPERATURE)


def _indices(mask: Tensor) -> list[int]:
    indices: list[int] = torch.where(mask)[0].tolist()
    return indices


def _unknown(loss: Loss) -> TypeError:
    return TypeError(f"the ablation knows no other form of loss {type(loss).__name__}")
