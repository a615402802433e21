"""The default recipe: apart first, then together, from labels and from the teacher's soft answers.

Each sub-model learns its own classes and "other", and what the teacher thinks of all classes, for half of the budget:
these trainings are independent of each other. A fusion is trained on the features that they find. Then all of them
are trained as one network: the fused answer goes on to shape the features, while every sub-model keeps its own lesson.
Wherever a fusion learns, devices are left out at random, so that a lost one costs little.

Of ED-ViT (arXiv 2410.11650): class-wise sub-models with "other", and the fusion. Of DeViT (arXiv 2309.05015): the
teacher, and joint training. Of neither: soft answers for all classes (arXiv 1503.02531), devices left out.
"""

from planner.network.fusion import Fusion
from planner.network.joint_model import JointLoss, JointModel
from planner.network.losses import DistillationLoss, FusionLoss
from planner.network.recipes.job import FUSION_EPOCHS, RecoveryTask, SubModelPart, fuse_frozen
from planner.network.training import Schedule, TrainFunction, TrainingTask

LEARNING_RATE = 2e-3
# What is trained already is trained more gently.
LEARNING_RATE_TOGETHER = 1e-3
# The share of the budget that goes to the sub-models apart.
APART = 1 / 2
# What all sub-models' own lessons weigh together, beside the fused answer's one: with 0.3 instead, CIFAR-10 lost 0.3
# points, as much as a seed does.
OWN_WEIGHT = 1.0


def default(job: RecoveryTask, train: TrainFunction) -> Fusion:
    """Distil each sub-model, fuse their features, then train all together."""
    apart = max(1, round(APART * job.epochs))
    train([_distillation(job, i, part, apart) for i, part in enumerate(job.parts)])
    fusing = Schedule(FUSION_EPOCHS * apart, learning_rate=LEARNING_RATE)
    fusion = fuse_frozen(job, train, FusionLoss(), fusing)
    if job.epochs > apart:
        train([_together(job, fusion, job.epochs - apart)])
    return fusion


def _distillation(job: RecoveryTask, i: int, part: SubModelPart, epochs: int) -> TrainingTask:
    objective = DistillationLoss(part.own, job.num_classes)
    schedule = Schedule(epochs, learning_rate=LEARNING_RATE)
    return TrainingTask(part.device, part.sub_model, objective, job.lessons, job.held, schedule, job.seed + i)


def _together(job: RecoveryTask, fusion: Fusion, epochs: int) -> TrainingTask:
    objective = JointLoss([part.own for part in job.parts], job.num_classes, OWN_WEIGHT)
    schedule = Schedule(epochs, learning_rate=LEARNING_RATE_TOGETHER)
    joint = JointModel(job.sub_models, fusion)
    return TrainingTask("together", joint, objective, job.lessons, job.held, schedule, job.seed)
