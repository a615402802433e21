"""What a recipe is given, what it hands over to be trained, and the parts that recipes share."""

from dataclasses import dataclass
from typing import Protocol

from planner.network.distillation_data import DistillationData, find_features
from planner.network.fusion import Fusion, fresh_fusion
from planner.network.losses import Loss
from planner.network.training import Schedule, TrainFunction, TrainingTask
from planner.network.vit import VisionTransformer

# The budget, unless another is given.
EPOCHS = 20

# A fusion of frozen features is small: it learns for so many times as many epochs as a sub-model.
FUSION_EPOCHS = 2


@dataclass(frozen=True)
class SubModelPart:
    """One device's sub-model, as cut, and the classes that it answers for, as indices."""

    device: str
    sub_model: VisionTransformer
    own: tuple[int, ...]


@dataclass(frozen=True)
class RecoveryTask:
    """What is to be recovered, and by what means."""

    parts: tuple[SubModelPart, ...]
    teacher: VisionTransformer
    lessons: DistillationData
    # Of images that are not learned from: when to stop is decided on these.
    held: DistillationData
    # Hidden units of the fusion.
    hidden: int
    # The budget: each sub-model sees so many times as many images as there are lessons.
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


class Recipe(Protocol):
    """How sub-models get their accuracy back, and a fusion is made: a story told to who trains."""

    def __call__(self, job: RecoveryTask, train: TrainFunction) -> Fusion:
        """Train a job's sub-models in place and return their fusion."""


def fuse_frozen(job: RecoveryTask, train: TrainFunction, objective: Loss, schedule: Schedule) -> Fusion:
    """Train a fresh fusion on the features of the sub-models as they are."""
    known, held = (find_features(job.sub_models, lessons) for lessons in (job.lessons, job.held))
    dims = [model.shape.embed_dim for model in job.sub_models]
    fusion = fresh_fusion(known.features.flatten(0, 1), dims, job.hidden, job.num_classes, job.seed)
    train([TrainingTask("fusion", fusion, objective, known, held, schedule, job.seed)])
    return fusion
