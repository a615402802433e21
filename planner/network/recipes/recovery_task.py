"""Inputs of a recipe, and the steps that recipes share."""

from dataclasses import dataclass
from typing import Protocol

from planner.network.distillation_data import DistillationData, extract_features
from planner.network.fusion import Fusion, fresh_fusion
from planner.network.losses import Loss
from planner.network.training import Schedule, TrainFunction, TrainingTask
from planner.network.vit import VisionTransformer

DEFAULT_EPOCHS = 20

# A fusion of frozen features is small: it learns for so many times as many epochs as a sub-model.
FUSION_EPOCH_FACTOR = 2


@dataclass(frozen=True)
class SubModelPart:
    """One device's sub-model, as cut, the classes that it answers for and the embed dims that it keeps, as indices."""

    device: str
    sub_model: VisionTransformer
    classes: tuple[int, ...]
    embed_dims: tuple[int, ...]


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
    epochs: int
    seed: int

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


def train_fusion(task: RecoveryTask, train: TrainFunction, loss: Loss, schedule: Schedule) -> Fusion:
    """Train a fresh fusion on the features of the sub-models as they are, frozen."""
    data, validation = (extract_features(task.sub_models, samples) for samples in (task.data, task.validation))
    fusion = fresh_fusion(data.features.flatten(0, 1), task.embed_dims, task.hidden, task.num_classes, task.seed)
    train([TrainingTask("fusion", fusion, loss, data, validation, schedule, task.seed)])
    return fusion
