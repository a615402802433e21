"""Teachers of class subsets: the whole model, fine-tuned for the classes of each device.

Source:
    DeViT, arXiv 2309.05015, which fine-tunes the large ViT on each part of the data.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor

from planner.network.distillation_data import DistillationData, taught_by
from planner.network.lazy_logits import LazyLogits
from planner.network.losses import OwnClassesLoss
from planner.network.recipes.class_samples import own_samples
from planner.network.recipes.recovery_task import RecoveryTask
from planner.network.training import Schedule, TrainFunction, TrainingTask
from planner.network.vit import VisionTransformer

# Each sees the images of its own classes so many times.
TEACHER_EPOCHS = 5
_LEARNING_RATE = 1e-4


def subset_teachers(task: RecoveryTask, train: TrainFunction) -> list[VisionTransformer]:
    """Return a teacher of each sub-model: the task's, or copies of it that are fine-tuned for its own classes."""
    if not task.subset_teachers:
        return [task.teacher for _ in task.parts]
    teachers = [copy.deepcopy(task.teacher).requires_grad_() for _ in task.parts]
    train(
        [
            TrainingTask(
                f"teacher of {part.device}",
                teacher,
                OwnClassesLoss(part.classes, task.num_classes),
                own_samples(task.data, part.classes),
                own_samples(task.validation, part.classes),
                Schedule(TEACHER_EPOCHS, learning_rate=_LEARNING_RATE, rate_search=True),
                task.seed + i,
            )
            for i, (part, teacher) in enumerate(zip(task.parts, teachers, strict=True))
        ]
    )
    return [teacher.requires_grad_(False) for teacher in teachers]


def taught_own_classes(data: DistillationData, own: tuple[int, ...], teacher: VisionTransformer) -> DistillationData:
    """Return data whose samples of the own classes have another teacher's outputs, the others those they had."""
    indices = torch.where(torch.isin(data.labels, torch.tensor(own)))[0]
    taught = taught_by(data.take(indices), teacher)
    features = data.teacher_features.clone()
    features[:, indices] = taught.teacher_features
    return replace(data, teacher_logits=_joined(data, taught, indices), teacher_features=features)


def _joined(data: DistillationData, taught: DistillationData, indices: Tensor) -> Tensor | LazyLogits:
    """Return the logits of data, but those of some of its images as they are taught anew."""
    known, new = data.teacher_logits, taught.teacher_logits
    if isinstance(known, LazyLogits) and isinstance(new, LazyLogits):
        return known.taught_by(new, indices)
    assert isinstance(known, Tensor)
    assert isinstance(new, Tensor)
    logits = known.clone()
    logits[:, indices] = new
    return logits
