"""DeViT's recipe, DEKD (arXiv 2309.05015), as far as it is known.

1. Each sub-model is distilled on its own classes alone, by hard labels and by how tokens relate in the middle block;
   from mixed images, with a moving average of its weights. Its teacher may be fine-tuned for its classes before.
2. Sub-models and fusion are trained jointly, the fusion's hidden units matching the teacher's token.

Two thirds of the budget go to step 1, as in the paper's 100 and 50 epochs; teachers' fine-tuning is beside it.

Not as in the paper: the average reaches over a share of the steps, where the paper's reaches over a number of them that
few budgets have; the fusion is ours, with a GELU between its layers, and a layer from its hidden units to the teacher's
width serves the training only.
"""

import torch
from torch import nn

from planner.errors import InputError, setting
from planner.network.distillation_data import extract_features, taught_by
from planner.network.fusion import Fusion, fresh_fusion
from planner.network.joint_model import MatchedJointModel, TokenMatchingLoss
from planner.network.losses import RelationMatchingLoss
from planner.network.mixing import MixedData
from planner.network.recipes.class_samples import equivalent_epochs, own_samples
from planner.network.recipes.recovery_task import RecoveryTask, SubModelPart, split_epochs
from planner.network.recipes.subset_teachers import subset_teachers
from planner.network.training import Schedule, TrainFunction, TrainingTask
from planner.network.vit import VisionTransformer

_LEARNING_RATE = 1e-3
# Share of the budget that goes to step 1.
_DISTILLATION_SHARE = 2 / 3
# A moving average with a decay of 0.99996 reaches over 2 % of the steps of 300 epochs of ImageNet.
_AVERAGE_SHARE = 0.02


def devit(task: RecoveryTask, train: TrainFunction) -> Fusion:
    """Distil each sub-model on its own classes, then train all with the fusion.

    Raises:
        InputError: If the teacher sees images in more or fewer tokens: relations are between tokens.
    """
    _check_teacher(task)
    epochs, joint_epochs = split_epochs(task.epochs, _DISTILLATION_SHARE)
    taught = enumerate(zip(task.parts, subset_teachers(task, train), strict=True))
    train([_distillation_task(task, part, teacher, epochs, task.seed + i) for i, (part, teacher) in taught])
    joint = _fresh_joint_model(task)
    schedule = Schedule(joint_epochs, learning_rate=_LEARNING_RATE)
    train([TrainingTask("together", joint, TokenMatchingLoss(), task.data, task.validation, schedule, task.seed)])
    return joint.fusion


def _check_teacher(task: RecoveryTask) -> None:
    for part in task.parts:
        expected, got = part.sub_model.shape.num_tokens, task.teacher.shape.num_tokens
        if expected != got:
            raise InputError(
                f"recipe devit: the teacher must have {expected} tokens, as {part.device} has, got {got}; "
                f"name another {setting('teacher')} or {setting('recipe')}."
            )


def _distillation_task(
    task: RecoveryTask, part: SubModelPart, teacher: VisionTransformer, epochs: float, seed: int
) -> TrainingTask:
    data, validation = (own_samples(d, part.classes) for d in (task.data, task.validation))
    if teacher is not task.teacher:
        validation = taught_by(validation, teacher)
    loss = RelationMatchingLoss(part.classes, teacher)
    schedule = Schedule(
        equivalent_epochs(epochs, task.data, data), learning_rate=_LEARNING_RATE, average_share=_AVERAGE_SHARE
    )
    return TrainingTask(part.device, part.sub_model, loss, MixedData(data), validation, schedule, seed)


def _fresh_joint_model(task: RecoveryTask) -> MatchedJointModel:
    """Return the sub-models with a fresh fusion, which standardises their features as they are by now."""
    samples = task.validation if len(task.validation) else task.data
    features = extract_features(task.sub_models, samples).features.flatten(0, 1)
    fusion = fresh_fusion(features, task.embed_dims, task.hidden, task.num_classes, task.seed)
    joint = MatchedJointModel(task.sub_models, fusion, task.teacher.shape.embed_dim)
    with torch.no_grad():
        joint.match.weight.normal_(0, task.hidden**-0.5, generator=torch.Generator().manual_seed(task.seed + 1))
        nn.init.zeros_(joint.match.bias)
    return joint
