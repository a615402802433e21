"""Inputs of a recipe, and the steps that recipes share."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from planner.network.distillation_data import DistillationData, extract_features
from planner.network.fusion import Fusion, fresh_fusion
from planner.network.fusion_fit import FusionFit
from planner.network.losses import Loss
from planner.network.surgery import Selection
from planner.network.training import Schedule, TrainFunction, TrainingTask
from planner.network.vit import VisionTransformer

DEFAULT_EPOCHS = 10

# A fusion of frozen features is small: it learns for so many times as many epochs as a sub-model, and at least so many.
_FUSION_EPOCH_FACTOR = 2
_MIN_FUSION_EPOCHS = 20
# A fusion of a hundred classes learns little from more; with a budget, as many more as sub-models see.
_MIN_FUSION_IMAGES = 16384


@dataclass(frozen=True)
class SubModelPart:
    """One device's sub-model, as cut, the classes that it answers for, and what it keeps of the whole model."""

    device: str
    sub_model: VisionTransformer
    classes: tuple[int, ...]
    selection: Selection


@dataclass(frozen=True)
class RecoveryTask:
    """Sub-models whose accuracy is to be recovered, with the teacher, the data and the budget."""

    parts: tuple[SubModelPart, ...]
    # Model from which the sub-models were cut; the teacher may be another.
    whole: VisionTransformer
    teacher: VisionTransformer
    data: DistillationData
    # Decides when to stop: nothing is learned from it.
    validation: DistillationData
    # Hidden units of the fusion.
    hidden: int
    # The budget: each sub-model sees so many times as many images as there are in the data.
    epochs: float
    seed: int
    # Fine-tune the teacher for the classes of each sub-model before.
    subset_teachers: bool = False

    @property
    def num_classes(self) -> int:
        """Classes of the whole model."""
        return self.teacher.shape.num_classes

    @property
    def sub_models(self) -> list[VisionTransformer]:
        """The sub-models in the order of the devices."""
        return [part.sub_model for part in self.parts]

    @property
    def embed_dims(self) -> list[int]:
        """Embed dims of the sub-models, in the order of the devices."""
        return [part.sub_model.shape.embed_dim for part in self.parts]


class Recipe(Protocol):
    """An algorithm that recovers the accuracy of sub-models and fuses them; `train` does its trainings."""

    def __call__(self, task: RecoveryTask, train: TrainFunction) -> Fusion:
        """Train the sub-models in place and return their fusion."""


def split_epochs(epochs: float, share: float, least: float = 0.0) -> tuple[float, float]:
    """Return a share of the epochs, or at least so many, and the rest; whole numbers where there are at least two."""
    first = share * epochs if epochs < 2 else max(1, round(share * epochs))
    first = min(epochs, max(first, least))
    return first, epochs - first


def fusion_schedule(epochs: float, learning_rate: float, rate_search: bool = False) -> Schedule:
    """Return the schedule of a fusion of frozen sub-models that were trained for this many epochs."""
    num_epochs = max(_MIN_FUSION_EPOCHS, math.ceil(_FUSION_EPOCH_FACTOR * epochs))
    return Schedule(num_epochs, learning_rate=learning_rate, rate_search=rate_search)


def train_fusion(
    task: RecoveryTask, train: TrainFunction, loss: Loss, schedule: Schedule, closed_form: bool = False
) -> Fusion:
    """Train a fresh fusion on the features of the sub-models as they are, frozen; it may begin in closed form."""
    seen = _drawn(task.data, _MIN_FUSION_IMAGES + int(task.epochs * len(task.data)), task.seed)
    data, validation = (extract_features(task.sub_models, samples) for samples in (seen, task.validation))
    fusion = fresh_fusion(data.features.flatten(0, 1), task.embed_dims, task.hidden, task.num_classes, task.seed)
    preparation = FusionFit(data, task.seed) if closed_form else None
    train([TrainingTask("fusion", fusion, loss, data, validation, schedule, task.seed, preparation)])
    return fusion


def _drawn(data: DistillationData, max_images: int, seed: int) -> DistillationData:
    """Return the data of at most so many images, drawn at random."""
    if len(data) <= max_images:
        return data
    drawn = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:max_images]
    return data.take(drawn.sort().values)
