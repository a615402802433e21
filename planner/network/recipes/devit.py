"""DeViT's recipe, DEKD (arXiv 2309.05015), as far as it is known.

Each sub-model is distilled on its own classes alone, by hard labels and by how tokens relate in the middle block; then
sub-models and fusion train jointly, the fusion's hidden units matching the teacher's token. Two thirds of the budget
go to the first, as in the paper's 100 and 50 epochs.

Not as in the paper: one teacher for all, by default the whole model, where the paper fine-tunes one for each class
subset; no mixup, cutmix or moving average of weights; the fusion is ours, with a GELU between its layers, and a layer
from its hidden units to the teacher's width serves the training only.
"""

import torch
from torch import nn

from planner.errors import InputError
from planner.network.distillation_data import find_features
from planner.network.fusion import Fusion, fresh_fusion
from planner.network.joint_model import MatchedJointModel, TokenMatchingLoss
from planner.network.losses import RelationLoss
from planner.network.recipes.class_samples import equivalent_epochs, own_samples
from planner.network.recipes.job import RecoveryTask, SubModelPart
from planner.network.training import Schedule, TrainFunction, TrainingTask

LEARNING_RATE = 1e-3
APART = 2 / 3


def devit(job: RecoveryTask, train: TrainFunction) -> Fusion:
    """Distil each sub-model on its own classes, then train all with the fusion.

    Raises:
        InputError: If the teacher sees images in more or fewer tokens: relations are between tokens.
    """
    for part in job.parts:
        ours, theirs = part.sub_model.shape.num_tokens, job.teacher.shape.num_tokens
        if ours != theirs:
            raise InputError(
                f"recipe devit: the teacher must have {ours} tokens, as {part.device} has, got {theirs}; "
                "name another --teacher or --recipe."
            )
    apart = max(1, round(APART * job.epochs))
    train([_distillation(job, i, part, apart) for i, part in enumerate(job.parts)])
    dims = [model.shape.embed_dim for model in job.sub_models]
    found = find_features(job.sub_models, job.held if len(job.held) else job.lessons).features.flatten(0, 1)
    fusion = fresh_fusion(found, dims, job.hidden, job.num_classes, job.seed)
    joint = MatchedJointModel(job.sub_models, fusion, job.teacher.shape.embed_dim)
    with torch.no_grad():
        joint.match.weight.normal_(0, job.hidden**-0.5, generator=torch.Generator().manual_seed(job.seed + 1))
        nn.init.zeros_(joint.match.bias)
    schedule = Schedule(max(1, job.epochs - apart), learning_rate=LEARNING_RATE)
    train([TrainingTask("together", joint, TokenMatchingLoss(), job.lessons, job.held, schedule, job.seed)])
    return fusion


def _distillation(job: RecoveryTask, i: int, part: SubModelPart, epochs: int) -> TrainingTask:
    lessons, held = (own_samples(known, part.own) for known in (job.lessons, job.held))
    schedule = Schedule(equivalent_epochs(epochs, job.lessons, lessons), learning_rate=LEARNING_RATE)
    objective = RelationLoss(part.own, job.teacher)
    return TrainingTask(part.device, part.sub_model, objective, lessons, held, schedule, job.seed + i)
