"""What ours is without one of its parts: plans made or changed accordingly, and the default recipe told otherwise.

A recipe is a story told to a `Train`; here somebody stands between who swaps the objectives on the way.

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
from planner.network.distillation_losses import log_own_and_other, own_and_other_labels, soft_loss
from planner.network.fusion import Fusion
from planner.network.joint_model import JointLoss, JointModel
from planner.network.losses import TEMPERATURE, DistillationLoss, FusionLoss, Loss, OwnOrOtherLoss, device_dropout
from planner.network.recipes import RECIPES, Recipe, RecoveryTask
from planner.network.training import TrainFunction, TrainingTask
from planner.network.vit import VisionTransformer
from planner.schema import Plan, Profile

ALIKE = "importance alike for all classes"
NO_TEACHER = "no teacher: labels alone"
NO_OTHER = "no other: own classes alone"
ONE_DEVICE = "each class on one device"
RANDOM_GROUPS = "random class subsets"
# The same plan by another recipe of the library.
OTHER_RECIPES = {f"the default recipe: {name} instead": name for name in ("devit", "ed-vit")}
# For each device, the classes it serves.
Subsets: TypeAlias = Mapping[str, Sequence[str]]

ABLATIONS = (ALIKE, NO_TEACHER, NO_OTHER, ONE_DEVICE, RANDOM_GROUPS, *OTHER_RECIPES)


def classes_alike(profile: Profile) -> Profile:
    """Return the profile with the mean importance over the classes in the place of each class's own."""
    count = len(profile.classes)
    heads, groups = (
        np.mean(np.array(values), axis=0).tolist()
        for values in (profile.importance.heads, profile.importance.channel_groups)
    )
    widths = []
    for width in profile.widths:
        mean = float(np.mean(width.embed_retention))
        widths.append(width.model_dump() | {"embed_retention": [mean] * count})
    importance = {"heads": [heads] * count, "channel_groups": [groups] * count}
    return Profile.model_validate(profile.model_dump() | {"importance": importance, "widths": widths})


def on_one_device(plan: Plan) -> Plan:
    """Return the plan with each class where its retention is highest alone; the sub-models stay as they are.

    A device that would be left without a class takes the one that loses least by it, of those that leave another
    behind.
    """
    kept = {a.device: dict(a.retention) for a in plan.assignments}
    names = sorted({name for of in kept.values() for name in of})
    home = {name: max(kept, key=lambda device: kept[device].get(name, -1.0)) for name in names}
    for device in kept:
        if device in home.values():
            continue
        spare = [n for n in kept[device] if list(home.values()).count(home[n]) > 1]
        if spare:
            home[min(spare, key=lambda n: kept[home[n]][n] - kept[device][n])] = device
    assignments = []
    for a in plan.assignments:
        own = tuple(name for name in a.classes if home[name] == a.device)
        if own:
            assignments.append(
                a.model_dump() | {"classes": own, "retention": {name: a.retention[name] for name in own}}
            )
    return Plan.model_validate(plan.model_dump() | {"assignments": assignments})


def random_subsets(plan: Plan, seed: int) -> Subsets:
    """Return class subsets of the same sizes as a plan's, drawn at random; each class is on as many devices."""
    names = sorted({name for a in plan.assignments for name in a.classes})
    drawn = np.random.default_rng(seed).permutation(len(names)).tolist()
    other = {name: names[i] for name, i in zip(names, drawn, strict=True)}
    return {a.device: tuple(other[name] for name in a.classes) for a in plan.assignments}


def recipe_of(name: str) -> Recipe:
    """Return a recipe of the library, or one of the ablations'."""
    swaps: dict[str, Callable[[Loss], Loss]] = {NO_TEACHER: without_teacher, NO_OTHER: without_other}
    if name not in swaps:
        return RECIPES[name]

    def swapped(job: RecoveryTask, train: TrainFunction) -> Fusion:
        def train_others(trainings: Sequence[TrainingTask]) -> None:
            train([replace(t, objective=swaps[name](t.objective)) for t in trainings])

        return RECIPES["default"](job, train_others)

    return swapped


def without_teacher(objective: Loss) -> Loss:
    """Return the objective that learns from labels alone."""
    if isinstance(objective, DistillationLoss):
        return OwnOrOtherLoss(_indices(objective.own), len(objective.own))
    if isinstance(objective, FusionLoss):
        return DroppedLabels()
    if isinstance(objective, JointLoss):
        own = [_indices(mask) for mask in objective.own]
        return FusedAndOwnLabels(own, objective.own.shape[1], objective.own_weight)
    raise _unknown(objective)


def without_other(objective: Loss) -> Loss:
    """Return the objective whose sub-models are asked of their own classes' images alone, which is which."""
    if isinstance(objective, DistillationLoss):
        return OwnAlone(objective.own)
    if isinstance(objective, FusionLoss):
        return objective
    if isinstance(objective, JointLoss):
        own = [_indices(mask) for mask in objective.own]
        return FusedAndOwnAlone(own, objective.own.shape[1], objective.own_weight)
    raise _unknown(objective)


class DroppedLabels(Loss):
    """A fusion of frozen features: the labels; devices are dropped at random."""

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, Fusion)
        return F.cross_entropy(module(batch.inputs, device_dropout(module, batch, generator)), batch.labels)


class OwnAlone(Loss):
    """Labels and the teacher's soft answers, among the own classes and for their images."""

    own: Tensor

    def __init__(self, own: Tensor) -> None:
        super().__init__()
        self.register_buffer("own", own)

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return own_alone_loss(module(batch.inputs), batch, self.own)


class _FusedAnd(JointLoss):
    """The fused answer and each sub-model's lesson, both of another kind."""

    def fused_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the fused logits (B, C)."""
        raise NotImplementedError

    def own_loss(self, logits: Tensor, batch: Batch, own: Tensor) -> Tensor:
        """Return the loss of a sub-model's logits (B, C)."""
        raise NotImplementedError

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, JointModel)
        prefixes = module.prefixes(batch.inputs)
        fused = module.fusion(
            torch.cat([p.mean(1) for p in prefixes], 1), device_dropout(module.fusion, batch, generator)
        )
        loss = self.fused_loss(fused, batch)
        for model, own, prefix in zip(module.sub_models, self.own, prefixes, strict=True):
            assert isinstance(model, VisionTransformer)
            loss = loss + self.own_weight / len(prefixes) * self.own_loss(model.classify(prefix), batch, own)
        return loss


class FusedAndOwnLabels(_FusedAnd):
    """Labels alone."""

    def fused_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, batch.labels)

    def own_loss(self, logits: Tensor, batch: Batch, own: Tensor) -> Tensor:
        return F.nll_loss(log_own_and_other(logits, own), own_and_other_labels(batch.labels, own))


class FusedAndOwnAlone(_FusedAnd):
    """The fused answer as ever, sub-models' lessons of their own classes alone."""

    def fused_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return 0.5 * F.cross_entropy(logits, batch.labels) + 0.5 * soft_loss(logits, batch.answers, TEMPERATURE)

    def own_loss(self, logits: Tensor, batch: Batch, own: Tensor) -> Tensor:
        return own_alone_loss(logits, batch, own)


def own_alone_loss(logits: Tensor, batch: Batch, own: Tensor) -> Tensor:
    """Return half cross-entropy, half soft answers, among the own classes (C,) and over their images; 0 without any."""
    mine = own[batch.labels]
    if not mine.any():
        return logits.sum() * 0
    learned, taught = logits[mine][:, own], batch.answers[mine][:, own]
    labels = (own.cumsum(0) - 1)[batch.labels[mine]]
    return 0.5 * F.cross_entropy(learned, labels) + 0.5 * soft_loss(learned, taught, TEMPERATURE)


def _indices(mask: Tensor) -> list[int]:
    found: list[int] = torch.where(mask)[0].tolist()
    return found


def _unknown(objective: Loss) -> TypeError:
    return TypeError(f"the ablation knows no other form of objective {type(objective).__name__}")
