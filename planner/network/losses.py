"""What trainings minimise: the mean loss of a batch, of one sub-model, of a fusion, or of all together.

Legend: B images, C classes, D devices, F embed dims of all devices together, E the teacher's embed dim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.network.distillation_data import Batch
from planner.network.distillation_losses import (
    distillation_loss,
    hard_loss,
    log_own_and_other,
    own_and_other_labels,
    relation_loss,
    soft_loss,
)
from planner.network.fusion import Fusion
from planner.network.vit import Block, VisionTransformer

TEMPERATURE = 2.0
# How often a device is left out while a fusion learns, so that a lost one costs less.
DROPPED = 0.1


def own_mask(own: Sequence[int], num_classes: int) -> Tensor:
    """Return which classes are a sub-model's own, (C,) bool."""
    mask = torch.zeros(num_classes, dtype=torch.bool)
    mask[list(own)] = True
    return mask


class Loss(nn.Module):
    """The mean loss of a batch. What it holds beside the trained module is frozen."""

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss, a scalar; whatever is drawn is drawn by the generator."""
        raise NotImplementedError


class OwnOrOtherLoss(Loss):
    """A sub-model's labels: its own classes, and "other"."""

    own: Tensor

    def __init__(self, own: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.register_buffer("own", own_mask(own, num_classes))

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        log_p = log_own_and_other(module(batch.inputs), self.own)
        return F.nll_loss(log_p, own_and_other_labels(batch.labels, self.own))


class DistillationLoss(Loss):
    """A sub-model's labels, and the teacher's soft answers for all classes."""

    own: Tensor

    def __init__(self, own: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.register_buffer("own", own_mask(own, num_classes))

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return distillation_loss(module(batch.inputs), batch.answers, batch.labels, self.own, TEMPERATURE)


class RelationLoss(Loss):
    """DEKD: hard labels of the own classes, and how tokens relate in Q, K and V of the middle block.

    Where a student has no heads in its middle block, the nearest block that has some stands for it.

    Source:
        DeViT, arXiv 2309.05015.
    """

    WEIGHTS = (0.2, 0.1, 0.3)
    SMOOTHING = 0.1
    own: Tensor

    def __init__(self, own: Sequence[int], teacher: VisionTransformer) -> None:
        super().__init__()
        self.register_buffer("own", own_mask(own, teacher.shape.num_classes))
        self.teacher = teacher

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, VisionTransformer)
        at = middle_block(module)
        tokens, learned = prefix_and_qkv(module, batch.inputs, at)
        loss = hard_loss(module.classify(tokens), batch.answers, batch.labels, self.own, self.SMOOTHING)
        if at is None:
            return loss
        with torch.no_grad():
            # As far into the teacher as the student's block is into the student.
            taught = qkv(self.teacher, batch.inputs, at * self.teacher.shape.depth // module.shape.depth)
        for weight, student, teacher in zip(self.WEIGHTS, learned, taught, strict=True):
            loss = loss + weight / module.shape.depth * relation_loss(student, teacher, module.shape.head_dim)
        return loss


def middle_block(model: VisionTransformer) -> int | None:
    """Return the block with heads that is nearest to the middle; None if no block has any."""
    having = [l for l, heads in enumerate(model.shape.num_heads) if heads]
    return min(having, key=lambda l: abs(l - model.shape.depth // 2), default=None)


def prefix_and_qkv(model: VisionTransformer, images: Tensor, at: int | None) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the prefix tokens (B, P, E), and Q, K and V of a block, (B, N, d) each."""
    x = model.embed(images)
    found: Sequence[Tensor] = ()
    for l, block in enumerate(model.blocks):
        if l == at:
            found = _qkv_of(block, x)
        x = block(x)
    return model.norm(x[:, : model.shape.num_prefix_tokens]), found


def qkv(model: VisionTransformer, images: Tensor, at: int) -> Sequence[Tensor]:
    """Return Q, K and V of a block, (B, N, d) each; later blocks are not computed."""
    x = model.embed(images)
    for block in model.blocks[:at]:
        x = block(x)
    return _qkv_of(model.blocks[at], x)


def _qkv_of(block: nn.Module, x: Tensor) -> Sequence[Tensor]:
    assert isinstance(block, Block)
    assert block.attn is not None
    parts: Sequence[Tensor] = block.attn.qkv(block.norm1(x)).chunk(3, dim=-1)
    return parts


class LabelLoss(Loss):
    """A fusion of frozen features: the labels."""

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(module(batch.inputs), batch.labels)


class FusionLoss(Loss):
    """A fusion of frozen features: half the labels, half the teacher's soft answers; devices are dropped at random."""

    def forward(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, Fusion)
        logits = module(batch.inputs, device_dropout(module, batch, generator))
        return 0.5 * F.cross_entropy(logits, batch.labels) + 0.5 * soft_loss(logits, batch.answers, TEMPERATURE)


def device_dropout(fusion: Fusion, batch: Batch, generator: torch.Generator) -> Tensor | None:
    """Return which devices answer, (B, D) of 0 and 1, each left out at random; all, where nothing is trained."""
    if not fusion.training:
        return None
    drawn = torch.rand(len(batch.labels), len(fusion.embed_dims), generator=generator) >= DROPPED
    return drawn.float().to(batch.inputs.device)
