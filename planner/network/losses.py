"""Losses that trainings minimise: of one sub-model, or of a fusion of frozen features.

Legend: B images, C classes, D devices, N tokens, P pooled tokens, E embed dim, d dims of all heads together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.network.distillation_data import Batch
from planner.network.distillation_losses import (
    distillation_loss,
    hard_distillation_loss,
    log_own_and_other,
    own_and_other_labels,
    relation_matching_loss,
    soft_target_loss,
)
from planner.network.fusion import Fusion
from planner.network.vit import Block, VisionTransformer

TEMPERATURE = 2.0
# Probability that a device is left out while a fusion learns, so that a lost one costs less.
DEVICE_DROPOUT = 0.1


def own_mask(own: Sequence[int], num_classes: int) -> Tensor:
    """Return the mask of a sub-model's own classes, (C,) bool."""
    mask = torch.zeros(num_classes, dtype=torch.bool)
    mask[list(own)] = True
    return mask


class Loss(nn.Module):
    """Mean loss of a batch. Parameters of its own, such as a teacher's, are frozen."""

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss, a scalar; whatever is drawn is drawn by the generator."""
        raise NotImplementedError


class LossOfFeatures(Loss):
    """Loss of a network that makes its logits of features, which others can look at, too."""

    def with_features(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the loss and the features (B, F)."""
        raise NotImplementedError

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return self.with_features(module, batch, generator)[0]


class SubModelLoss(Loss):
    """Loss of a sub-model, which has classes of its own."""

    own: Tensor

    def __init__(self, own: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.register_buffer("own", own_mask(own, num_classes))


class OwnOrOtherLoss(SubModelLoss):
    """Cross-entropy of a sub-model with its own classes and "other"."""

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        log_p = log_own_and_other(module(batch.inputs), self.own)
        return F.nll_loss(log_p, own_and_other_labels(batch.labels, self.own))


class OwnClassesLoss(SubModelLoss):
    """Cross-entropy with labels among the own classes alone."""

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        logits = module(batch.inputs)
        return F.cross_entropy(logits[:, self.own], batch.label_shares(logits.shape[1])[:, self.own])


class DistillationLoss(SubModelLoss, LossOfFeatures):
    """Knowledge distillation of a sub-model: own-or-other labels, and the teacher's soft targets for all classes.

    Source:
        Hinton et al., arXiv 1503.02531.
    """

    def with_features(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        assert isinstance(module, VisionTransformer)
        pooled = module.pooled(batch.inputs)
        logits = module.classify(pooled)
        loss = distillation_loss(logits, batch.teacher_logits, batch.labels, self.own, TEMPERATURE)
        return loss, pooled.mean(1)


class RelationMatchingLoss(SubModelLoss):
    """DEKD's first stage: hard labels of the own classes, and the relations of tokens in Q, K, V of the middle block.

    Where a student has no heads in its middle block, the nearest block that has some stands for it.

    Source:
        DeViT, arXiv 2309.05015.
    """

    WEIGHTS = (0.2, 0.1, 0.3)
    SMOOTHING = 0.1

    def __init__(self, own: Sequence[int], teacher: VisionTransformer) -> None:
        super().__init__(own, teacher.shape.num_classes)
        self.teacher = teacher

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, VisionTransformer)
        middle, depth = middle_block(module), module.shape.depth
        pooled, student_qkv = pooled_and_qkv(module, batch.inputs, middle)
        logits = module.classify(pooled)
        # As far into the teacher as the student's block is into the student.
        at = None if middle is None else middle * self.teacher.shape.depth // depth
        teacher_logits, teacher_qkv = self._taught(batch, at)
        label_shares = batch.label_shares(logits.shape[1])
        loss = hard_distillation_loss(logits, teacher_logits, label_shares, self.own, self.SMOOTHING)
        if middle is None:
            return loss
        for weight, student, teacher in zip(self.WEIGHTS, student_qkv, teacher_qkv, strict=True):
            loss = loss + weight / depth * relation_matching_loss(student, teacher, module.shape.head_dim)
        return loss

    @torch.no_grad()
    def _taught(self, batch: Batch, at: int | None) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the teacher's logits, and Q, K and V of a block of it; of mixtures they are computed here."""
        if batch.mixed is not None:
            pooled, qkv = pooled_and_qkv(self.teacher, batch.inputs, at)
            return self.teacher.classify(pooled), qkv
        return batch.teacher_logits, () if at is None else block_qkv(self.teacher, batch.inputs, at)


def middle_block(model: VisionTransformer) -> int | None:
    """Return the index of the block with heads that is nearest to the middle; None if no block has any."""
    with_heads = [l for l, heads in enumerate(model.shape.num_heads) if heads]
    return min(with_heads, key=lambda l: abs(l - model.shape.depth // 2), default=None)


def pooled_and_qkv(model: VisionTransformer, images: Tensor, at: int | None) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the pooled tokens (B, P, E), and Q, K and V of a block, (B, N, d) each."""
    x = model.embed(images)
    qkv: Sequence[Tensor] = ()
    for l, block in enumerate(model.blocks):
        if l == at:
            qkv = _qkv(block, x)
        x = block(x)
    return model.pool(x), qkv


def block_qkv(model: VisionTransformer, images: Tensor, at: int) -> Sequence[Tensor]:
    """Return Q, K and V of a block, (B, N, d) each; later blocks are not computed."""
    x = model.embed(images)
    for block in model.blocks[:at]:
        x = block(x)
    return _qkv(model.blocks[at], x)


def _qkv(block: nn.Module, x: Tensor) -> Sequence[Tensor]:
    assert isinstance(block, Block)
    assert block.attn is not None
    return block.attn.queries_keys_values(block.norm1(x))


class CrossEntropyLoss(Loss):
    """Cross-entropy with the labels of all classes."""

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(module(batch.inputs), batch.labels)


class FusionLoss(Loss):
    """Knowledge distillation of a fusion of frozen features: labels and soft targets, with device dropout."""

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, Fusion)
        logits = module(batch.inputs, device_dropout(module, batch, generator))
        soft = soft_target_loss(logits, batch.teacher_logits, TEMPERATURE)
        return 0.5 * F.cross_entropy(logits, batch.labels) + 0.5 * soft


def device_dropout(fusion: Fusion, batch: Batch, generator: torch.Generator) -> Tensor | None:
    """Return a mask of the devices that answer, (B, D) of 0 and 1, drawn at random; None, for all, in eval mode."""
    if not fusion.training:
        return None
    return draw_present(len(batch.labels), len(fusion.embed_dims), generator).to(batch.inputs.device)


def draw_present(num_samples: int, num_devices: int, generator: torch.Generator) -> Tensor:
    """Return which devices answer for each sample (B, D), 0 or 1, where each is left out at random."""
    return (torch.rand(num_samples, num_devices, generator=generator) >= DEVICE_DROPOUT).float()
