"""Matching of features: a student also learns to tell the teacher's features, by a linear layer of the training alone.

A teacher that is sure of its training images says little by its probabilities, and more by its features.

Legend: B images, F the student's features, E the teacher's embed dim.

Source:
    Hints: Romero et al., arXiv 1412.6550.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from planner.network.data import Images
from planner.network.distillation_data import Batch, DistillationData
from planner.network.evaluation import apply_in_batches
from planner.network.head_fit import best_ridge
from planner.network.joint_model import JointModel
from planner.network.least_squares import RidgeRegression
from planner.network.losses import Loss, LossOfFeatures
from planner.network.vit import VisionTransformer

# Enough for a layer of some hundred inputs.
_MAX_FIT_IMAGES = 1024
# Less is rounding.
_MIN_STD = 1e-4


class MatchedStudent(nn.Module):
    """Student with a linear layer from its features to the teacher's, which are standardised."""

    mean: Tensor
    std: Tensor

    def __init__(self, student: VisionTransformer | JointModel, num_features: int, teacher_features: Tensor) -> None:
        """Add a layer that says nothing as yet.

        Args:
            student: Network that learns.
            num_features: F.
            teacher_features: Features of training images, (..., E).
        """
        super().__init__()
        self.student = student
        self.match = nn.Linear(num_features, teacher_features.shape[-1])
        nn.init.zeros_(self.match.weight)
        nn.init.zeros_(self.match.bias)
        flat = teacher_features.flatten(0, -2)
        self.register_buffer("mean", flat.mean(0))
        self.register_buffer("std", flat.std(0).clamp(min=_MIN_STD))

    def forward(self, images: Tensor) -> Tensor:
        """Return the student's logits."""
        logits: Tensor = self.student(images)
        return logits

    def standardised(self, teacher_features: Tensor) -> Tensor:
        """Return the teacher's features (B, E) with mean 0 and deviation 1."""
        return (teacher_features - self.mean) / self.std


@dataclass(frozen=True, eq=False)
class MatchFit:
    """Preparation of a matched student: its layer is fitted by ridge regression to images as they are, unmoved."""

    images: Images  # (B, ch, H, W)
    teacher_features: Tensor  # (B, E)

    @classmethod
    def of(cls, data: DistillationData) -> "MatchFit":
        """Return the fit to some of the images."""
        few = data.take(torch.linspace(0, len(data) - 1, min(len(data), _MAX_FIT_IMAGES)).long())
        return cls(few.images, few.teacher_features[0].clone())

    @property
    def num_images(self) -> int:
        """Number of images that are looked at."""
        return len(self.images)

    @property
    def max_images(self) -> int:
        """Number of images that are looked at where there are more."""
        return _MAX_FIT_IMAGES

    @torch.no_grad()
    def __call__(self, module: nn.Module) -> None:
        """Fit the layer in place."""
        assert isinstance(module, MatchedStudent)
        module.student.eval()
        features = apply_in_batches(module.student.features, self.images)
        targets = module.standardised(self.teacher_features)
        regression = RidgeRegression(module.match)
        regression.add(features, targets, torch.ones(len(features)))
        regression.solve(best_ridge(features, targets - module.match(features)))


class FeatureMatchingLoss(Loss):
    """Loss of a student, and the mean squared error of the teacher's standardised features."""

    def __init__(self, loss: LossOfFeatures, weight: float) -> None:
        """Initialise the loss.

        Args:
            loss: Loss of the student.
            weight: Weight of the features' error beside it.
        """
        super().__init__()
        self.loss, self.weight = loss, weight

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, MatchedStudent)
        loss, features = self.loss.with_features(module.student, batch, generator)
        error = module.match(features) - module.standardised(batch.teacher_features)
        value: Tensor = loss + self.weight * error.square().mean()
        return value
