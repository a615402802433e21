"""ED-ViT's recipe (arXiv 2410.11650), as far as it is known: apart, from labels alone, then a tower on frozen features.

Each sub-model learns its own classes and "other", of which it sees as many images as of its own (the extra output
and the sample of foreign images as in EC-SNN, IJCAI 2024, by the same authors). The tower, an MLP, then learns all
classes from the features side by side.
"""

from planner.network.fusion import Fusion
from planner.network.losses import LabelLoss, OwnOrOtherLoss
from planner.network.recipes.class_samples import equivalent_epochs, own_and_foreign_samples
from planner.network.recipes.job import FUSION_EPOCHS, RecoveryTask, SubModelPart, fuse_frozen
from planner.network.training import Schedule, TrainFunction, TrainingTask

LEARNING_RATE = 1e-3


def ed_vit(job: RecoveryTask, train: TrainFunction) -> Fusion:
    """Retrain each sub-model on labels, freeze all, train the tower."""
    train([_retraining(job, i, part) for i, part in enumerate(job.parts)])
    return fuse_frozen(job, train, LabelLoss(), Schedule(FUSION_EPOCHS * job.epochs, learning_rate=LEARNING_RATE))


def _retraining(job: RecoveryTask, i: int, part: SubModelPart) -> TrainingTask:
    lessons, held = (own_and_foreign_samples(known, part.own, job.seed + i) for known in (job.lessons, job.held))
    schedule = Schedule(equivalent_epochs(job.epochs, job.lessons, lessons), learning_rate=LEARNING_RATE)
    objective = OwnOrOtherLoss(part.own, job.num_classes)
    return TrainingTask(part.device, part.sub_model, objective, lessons, held, schedule, job.seed + i)
