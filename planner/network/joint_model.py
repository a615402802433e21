"""Sub-models and their fusion as one network, so that features are learned for the fusion.

Legend: B images, D devices, F embed dims of all devices together, H hidden units of the fusion, C classes, P pooled
tokens, E embed dim.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.network.distillation_data import Batch
from planner.network.distillation_losses import distillation_loss, soft_target_loss
from planner.network.fusion import Fusion
from planner.network.losses import TEMPERATURE, Loss, LossOfFeatures, device_dropout, own_mask
from planner.network.side_by_side import values_side_by_side
from planner.network.vit import VisionTransformer


class JointModel(nn.Module):
    """All sub-models of a plan, in the order of the devices, and the fusion of their features."""

    def __init__(self, sub_models: Sequence[VisionTransformer], fusion: Fusion) -> None:
        super().__init__()
        self.sub_models = nn.ModuleList(sub_models)
        self.fusion = fusion

    def pooled(self, images: Tensor) -> list[Tensor]:
        """Return the pooled tokens (B, P, E) of each sub-model."""
        return values_side_by_side([partial(_pooled, model, images) for model in self.sub_models])

    def features(self, images: Tensor) -> Tensor:
        """Return all sub-models' features side by side, standardised, (B, F)."""
        return self.fusion.standardised(features_of(self.pooled(images)))

    def forward(self, images: Tensor) -> Tensor:
        """Return fused logits (B, C) of images (B, channels, H, W)."""
        logits: Tensor = self.fusion(features_of(self.pooled(images)))
        return logits


def _pooled(model: nn.Module, images: Tensor) -> Tensor:
    assert isinstance(model, VisionTransformer)
    return model.pooled(images)


def features_of(pooled: Sequence[Tensor]) -> Tensor:
    """Return all sub-models' features side by side (B, F), of the pooled tokens of each, (B, P, E)."""
    return torch.cat([tokens.mean(1) for tokens in pooled], 1)


class MatchedJointModel(JointModel):
    """Joint model with a linear layer from the fusion's hidden units to the teacher's width, for the training only."""

    def __init__(self, sub_models: Sequence[VisionTransformer], fusion: Fusion, teacher_dim: int) -> None:
        super().__init__(sub_models, fusion)
        self.match = nn.Linear(fusion.fc1.out_features, teacher_dim)


class JointLoss(LossOfFeatures):
    """Knowledge distillation of the fused logits, beside that of each sub-model.

    Devices are dropped at random, so that the fusion learns to do without any one.
    """

    own: Tensor

    def __init__(self, own: Sequence[Sequence[int]], num_classes: int, own_weight: float) -> None:
        """Initialise the loss.

        Args:
            own: Own classes of each sub-model, as indices.
            num_classes: Classes of the whole model.
            own_weight: Weight of all sub-models' losses together; that of the fused logits has weight 1.
        """
        super().__init__()
        self.register_buffer("own", torch.stack([own_mask(classes, num_classes) for classes in own]))
        self.own_weight = own_weight

    def with_features(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        assert isinstance(module, JointModel)
        pooled = module.pooled(batch.inputs)
        features = features_of(pooled)
        fused = module.fusion(features, device_dropout(module.fusion, batch, generator))
        soft = soft_target_loss(fused, batch.teacher_logits, TEMPERATURE)
        loss = 0.5 * F.cross_entropy(fused, batch.labels) + 0.5 * soft
        for model, own, tokens in zip(module.sub_models, self.own, pooled, strict=True):
            assert isinstance(model, VisionTransformer)
            logits = model.classify(tokens)
            own_loss = distillation_loss(logits, batch.teacher_logits, batch.labels, own, TEMPERATURE)
            loss = loss + self.own_weight / len(pooled) * own_loss
        return loss, module.fusion.standardised(features)


class TokenMatchingLoss(Loss):
    """DEKD's second stage: the teacher's token, the labels, and the teacher's most likely class.

    Source:
        DeViT, arXiv 2309.05015.
    """

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, MatchedJointModel)
        hidden = module.fusion.hidden(features_of(module.pooled(batch.inputs)))  # (B, H)
        logits = module.fusion.classify(hidden)
        teacher_labels = batch.teacher_logits.argmax(1)
        labels = 0.5 * F.cross_entropy(logits, batch.labels) + 0.5 * F.cross_entropy(logits, teacher_labels)
        return F.mse_loss(module.match(hidden), batch.teacher_features) + labels
