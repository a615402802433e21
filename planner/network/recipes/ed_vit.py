"""ED-ViT's recipe (arXiv 2410.11650), as far as it is known: class-wise retraining, then a tower on frozen features.

1. Each sub-model is retrained from labels alone on its own classes and "other", of which it sees as many images as of
   its own (the extra output and the sample of foreign images as in EC-SNN, IJCAI 2024, by the same authors).
2. The tower, an MLP, learns all classes from the features of the frozen sub-models, side by side.
"""

from planner.network.fusion import Fusion
from planner.network.losses import CrossEntropyLoss, OwnOrOtherLoss
from planner.network.recipes.class_samples import equivalent_epochs, own_and_foreign_samples
from planner.network.recipes.recovery_task import RecoveryTask, SubModelPart, fusion_schedule, train_fusion
from planner.network.training import Schedule, TrainFunction, TrainingTask

_LEARNING_RATE = 1e-3


def ed_vit(task: RecoveryTask, train: TrainFunction) -> Fusion:
    """Retrain each sub-model on labels, freeze all, train the tower."""
    train([_retraining_task(task, part, task.seed + i) for i, part in enumerate(task.parts)])
    return train_fusion(task, train, CrossEntropyLoss(), fusion_schedule(task.epochs, _LEARNING_RATE))


def _retraining_task(task: RecoveryTask, part: SubModelPart, seed: int) -> TrainingTask:
    data, validation = (own_and_foreign_samples(d, part.classes, seed) for d in (task.data, task.validation))
    loss = OwnOrOtherLoss(part.classes, task.num_classes)
    schedule = Schedule(equivalent_epochs(task.epochs, task.data, data), learning_rate=_LEARNING_RATE)
    return TrainingTask(part.device, part.sub_model, loss, data, validation, schedule, seed)
