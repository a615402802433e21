"""The default recipe: reconstruct and distil each sub-model, train a fusion, then train all of them jointly.

1. Each sub-model is reconstructed in closed form on images of its own classes and as many others. From there it learns
   its own classes and "other", the teacher's soft targets for all classes, and the teacher's features, for half of the
   budget, or two epochs if that is more. These trainings are independent of each other.
2. A fusion is trained on the features of the frozen sub-models.
3. Sub-models and fusion are trained as one network: the fused logits shape the features, which together match the
   teacher's, while each sub-model keeps its own classes and soft targets.

Where the teacher is fine-tuned for the classes of each device before, its outputs are the targets of these in step 1,
the whole model's those of the others.

Without a budget the reconstruction and the fusion are all. Wherever a fusion learns, devices are left out at random, so
that a lost one costs little.

Of ED-ViT (arXiv 2410.11650): class-wise sub-models with "other", and the fusion. Of DeViT (arXiv 2309.05015): the
teacher, and joint training. Of neither: the reconstruction, soft targets for all classes (arXiv 1503.02531), features
that sub-models match one by one (arXiv 1412.6550), devices left out.
"""

from dataclasses import dataclass

import torch
from torch import nn

from planner.network import counts
from planner.network.data import Images
from planner.network.distillation_data import DistillationData
from planner.network.feature_matching import FeatureMatchingLoss, MatchedStudent, MatchFit
from planner.network.fusion import Fusion
from planner.network.joint_model import JointLoss, JointModel
from planner.network.losses import DistillationLoss, FusionLoss, Loss
from planner.network.recipes.class_samples import own_and_foreign_samples
from planner.network.recipes.recovery_task import (
    RecoveryTask,
    SubModelPart,
    fusion_schedule,
    split_epochs,
    train_fusion,
)
from planner.network.recipes.subset_teachers import subset_teachers, taught_own_classes
from planner.network.reconstruction import reconstruct
from planner.network.surgery import Selection
from planner.network.training import Schedule, TrainFunction, TrainingTask
from planner.network.vit import Shape, VisionTransformer

# What was trained apart is harmed by the rate at which it was: Fashion-MNIST gained nothing together at 2e-3.
_LEARNING_RATE, _JOINT_LEARNING_RATE = 2e-3, 5e-4
# Share of the budget that goes to step 1, and the epochs before which there is nothing else: after a single one, a
# pretrained ViT-Small's sub-models lost together what another would have gained apart.
_DISTILLATION_SHARE, _LEAST_DISTILLATION_EPOCHS = 1 / 2, 2
# Weight of all sub-models' losses together, beside that of the fused logits: with 0.3 instead, CIFAR-10 lost 0.3
# points, as much as a seed does.
_OWN_WEIGHT = 1.0
# Weight of the error of the teacher's features.
_MATCHING_WEIGHT = 1.0
# Images of a reconstruction. More than the fewer ones only as long as they take the whole model no more MACs than this,
# about a minute of one core, and fewer where the streams of both networks would take more memory than this [bytes].
_FEW_IMAGES, _MAX_IMAGES, _MAX_MACS, _MAX_STREAM_BYTES = 1024, 4096, 3e12, 2**30


def default(task: RecoveryTask, train: TrainFunction) -> Fusion:
    """Reconstruct and distil each sub-model, fuse their features, then train all together."""
    epochs, joint_epochs = split_epochs(task.epochs, _DISTILLATION_SHARE, _LEAST_DISTILLATION_EPOCHS)
    taught = enumerate(zip(task.parts, subset_teachers(task, train), strict=True))
    train([_distillation_task(task, part, teacher, epochs, task.seed + i) for i, (part, teacher) in taught])
    schedule = fusion_schedule(epochs, _LEARNING_RATE, rate_search=True)
    fusion = train_fusion(task, train, FusionLoss(), schedule, closed_form=True)
    if joint_epochs:
        train([_joint_task(task, fusion, joint_epochs)])
    return fusion


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Preparation of a sub-model: reconstruction in closed form."""

    whole: VisionTransformer
    selection: Selection
    images: Images
    # Of the sub-model's features, where they are to be matched.
    match: MatchFit | None

    @property
    def num_images(self) -> int:
        """Number of images that are looked at."""
        return len(self.images)

    @property
    def max_images(self) -> int:
        """Number of images that are looked at where there are more."""
        return max_reconstruction_images(self.whole.shape)

    def __call__(self, module: nn.Module) -> None:
        """Reconstruct a sub-model in place; where its features are to be matched, fit that, too."""
        sub_model = module.student if isinstance(module, MatchedStudent) else module
        assert isinstance(sub_model, VisionTransformer)
        reconstruct(sub_model, self.whole, self.selection, self.images)
        if self.match is not None:
            self.match(module)


def max_reconstruction_images(whole: Shape) -> int:
    """Return the number of images that a reconstruction looks at where there are more."""
    affordable = min(_MAX_IMAGES, max(_FEW_IMAGES, int(_MAX_MACS / counts.exact(whole).macs)))
    bytes_per_image = 2 * 4 * whole.num_tokens * whole.embed_dim
    return max(1, min(affordable, _MAX_STREAM_BYTES // bytes_per_image))


def _reconstruction(
    task: RecoveryTask, part: SubModelPart, data: DistillationData, matches: bool, seed: int
) -> Reconstruction:
    samples = own_and_foreign_samples(data, part.classes, seed)
    generator = torch.Generator().manual_seed(seed)
    most = max_reconstruction_images(task.whole.shape)
    chosen = torch.randperm(len(samples), generator=generator)[:most].sort().values
    seen = samples.take(chosen)
    return Reconstruction(task.whole, part.selection, seen.images, MatchFit.of(seen) if matches else None)


def _distillation_task(
    task: RecoveryTask, part: SubModelPart, teacher: VisionTransformer, epochs: float, seed: int
) -> TrainingTask:
    data, validation = task.data, task.validation
    if teacher is not task.teacher:
        data, validation = (taught_own_classes(d, part.classes, teacher) for d in (data, validation))
    distillation = DistillationLoss(part.classes, task.num_classes)
    student: nn.Module = part.sub_model
    loss: Loss = distillation
    if epochs:
        student = MatchedStudent(part.sub_model, part.sub_model.shape.embed_dim, data.teacher_features)
        loss = FeatureMatchingLoss(distillation, _MATCHING_WEIGHT)
    return TrainingTask(
        part.device,
        student,
        loss,
        data,
        validation,
        Schedule(epochs, learning_rate=_LEARNING_RATE, rate_search=True),
        seed,
        _reconstruction(task, part, data, epochs > 0, seed),
    )


def _joint_task(task: RecoveryTask, fusion: Fusion, epochs: float) -> TrainingTask:
    joint = JointModel(task.sub_models, fusion)
    student = MatchedStudent(joint, sum(task.embed_dims), task.data.teacher_features)
    loss = JointLoss([part.classes for part in task.parts], task.num_classes, _OWN_WEIGHT)
    matching = FeatureMatchingLoss(loss, _MATCHING_WEIGHT)
    schedule = Schedule(epochs, learning_rate=_JOINT_LEARNING_RATE, rate_search=True)
    preparation = MatchFit.of(task.data)
    return TrainingTask("together", student, matching, task.data, task.validation, schedule, task.seed, preparation)
