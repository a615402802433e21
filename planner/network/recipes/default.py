"""The default recipe: distil each sub-model, train a fusion, then train all of them jointly.

1. Each sub-model learns its own classes and "other", and the teacher's soft targets for all classes, for half of the
   budget. These trainings are independent of each other.
2. A fusion is trained on the features of the frozen sub-models.
3. Sub-models and fusion are trained as one network: the fused logits shape the features, while each sub-model keeps
   the loss of step 1.

Wherever a fusion learns, devices are left out at random, so that a lost one costs little.

Of ED-ViT (arXiv 2410.11650): class-wise sub-models with "other", and the fusion. Of DeViT (arXiv 2309.05015): the
teacher, and joint training. Of neither: soft targets for all classes (arXiv 1503.02531), devices left out.
"""

from planner.network.fusion import Fusion
from planner.network.joint_model import JointLoss, JointModel
from planner.network.losses import DistillationLoss, FusionLoss
from planner.network.recipes.recovery_task import FUSION_EPOCH_FACTOR, RecoveryTask, train_fusion
from planner.network.training import Schedule, TrainFunction, TrainingTask

_LEARNING_RATE = 2e-3
# Smaller, since all parts are trained already.
_JOINT_LEARNING_RATE = 1e-3
# Share of the budget that goes to step 1.
_DISTILLATION_SHARE = 1 / 2
# Weight of all sub-models' losses together, beside that of the fused logits: with 0.3 instead, CIFAR-10 lost 0.3
# points, as much as a seed does.
_OWN_WEIGHT = 1.0


def default(task: RecoveryTask, train: TrainFunction) -> Fusion:
    """Distil each sub-model, fuse their features, then train all together."""
    epochs = max(1, round(_DISTILLATION_SHARE * task.epochs))
    train(_distillation_tasks(task, epochs))
    schedule = Schedule(FUSION_EPOCH_FACTOR * epochs, learning_rate=_LEARNING_RATE)
    fusion = train_fusion(task, train, FusionLoss(), schedule)
    if task.epochs > epochs:
        train([_joint_task(task, fusion, task.epochs - epochs)])
    return fusion


def _distillation_tasks(task: RecoveryTask, epochs: int) -> list[TrainingTask]:
    schedule = Schedule(epochs, learning_rate=_LEARNING_RATE)
    return [
        TrainingTask(
            part.device,
            part.sub_model,
            DistillationLoss(part.classes, task.num_classes),
            task.data,
            task.validation,
            schedule,
            task.seed + i,
        )
        for i, part in enumerate(task.parts)
    ]


def _joint_task(task: RecoveryTask, fusion: Fusion, epochs: int) -> TrainingTask:
    joint = JointModel(task.sub_models, fusion)
    loss = JointLoss([part.classes for part in task.parts], task.num_classes, _OWN_WEIGHT)
    schedule = Schedule(epochs, learning_rate=_JOINT_LEARNING_RATE)
    return TrainingTask("together", joint, loss, task.data, task.validation, schedule, task.seed)
