"""Layer-wise reconstruction after the cut: output layers refitted in closed form, half-block after half-block.

A sub-model's residual stream s should follow the whole model's, f, in the embed dims that it keeps. In order of depth,
the output layer of each half-block (proj, fc2) is refitted by ridge regression so that s after the half is nearest to
f after the same half of the whole model. What a removal broke early is thus made up for by all that follows. At last
the head layer is refitted so that logits follow the whole model's. No step size and no epochs: sums over some images.

Legend: B images, N tokens, P prefix tokens, E embed dim of the sub-model, b images of a batch.

Source:
    Reconstruction of a layer's output after pruning: He et al., arXiv 1707.06168; ThiNet, arXiv 1707.06342.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from planner.network.data import Images
from planner.network.least_squares import RidgeRegression
from planner.network.vit import Attention, Block, Mlp, VisionTransformer

RIDGE = 1e-3
# Weight of a prefix token, of which the features are made, beside that of a patch.
PREFIX_WEIGHT = 4.0
_BATCH = 64

# Norm and layers of a half-block; None where the sub-model lacks it.
_Half: TypeAlias = tuple[nn.LayerNorm, Attention | Mlp] | None


@torch.no_grad()
def reconstruct(
    sub_model: VisionTransformer,
    whole: VisionTransformer,
    embed_dims: Sequence[int],
    images: Images,
    ridge: float = RIDGE,
    prefix_weight: float = PREFIX_WEIGHT,
) -> None:
    """Refit a sub-model's output layers in place, so that its stream and its logits follow the whole model's.

    Args:
        sub_model: Sub-model as cut.
        whole: Model from which it was cut.
        embed_dims: Embed dims that it keeps, as indices in the whole model, in its own order.
        images: Images that it should be right about, (B, ch, H, W).
        ridge: Penalty on changes, as a share of the inputs' mean variance.
        prefix_weight: Weight of a prefix token beside that of a patch.
    """
    dims = torch.tensor(list(embed_dims))
    batches = torch.arange(len(images)).split(_BATCH)
    small = [sub_model.embed(images[indices]) for indices in batches]  # (b, N, E) each
    large = [whole.embed(images[indices]) for indices in batches]
    weights = torch.ones(whole.shape.num_tokens)
    weights[: whole.shape.num_prefix_tokens] = prefix_weight
    for block, whole_block in zip(sub_model.blocks, whole.blocks, strict=True):
        for half in (_attention_half, _mlp_half):
            large = [_after(half(whole_block), x) for x in large]
            own = half(block)
            if own is not None:
                _refit(own, small, [x[..., dims] for x in large], weights, ridge)
            small = [_after(own, x) for x in small]
    _refit_heads(sub_model, whole, small, large, ridge)


def _attention_half(block: nn.Module) -> _Half:
    assert isinstance(block, Block)
    return None if block.attn is None else (block.norm1, block.attn)


def _mlp_half(block: nn.Module) -> _Half:
    assert isinstance(block, Block)
    return None if block.mlp is None else (block.norm2, block.mlp)


def _after(half: _Half, x: Tensor) -> Tensor:
    """Return the stream after a half-block, (b, N, E)."""
    if half is None:
        return x
    norm, layers = half
    after: Tensor = x + layers(norm(x))
    return after


def _refit(
    half: tuple[nn.LayerNorm, Attention | Mlp],
    streams: Sequence[Tensor],
    targets: Sequence[Tensor],
    weights: Tensor,
    ridge: float,
) -> None:
    """Refit the output layer of a half-block, so that the streams (b, N, E) after it are nearest to the targets."""
    norm, layers = half
    output = layers.proj if isinstance(layers, Attention) else layers.fc2
    regression = RidgeRegression(output)
    for x, target in zip(streams, targets, strict=True):
        inputs = layers.inner(norm(x))  # (b, N, n)
        residuals = target - x - output(inputs)
        regression.add(inputs.flatten(0, 1), residuals.flatten(0, 1), weights.repeat(len(x)))
    regression.solve(ridge)


def _refit_heads(
    sub_model: VisionTransformer,
    whole: VisionTransformer,
    streams: Sequence[Tensor],
    whole_streams: Sequence[Tensor],
    ridge: float,
) -> None:
    """Refit each head layer so that its logits follow those of the whole model's."""
    heads = [(sub_model.head, whole.head)]
    if sub_model.shape.distilled:
        heads.append((sub_model.head_dist, whole.head_dist))
    for token, (head, whole_head) in enumerate(heads):
        regression = RidgeRegression(head)
        for x, target in zip(streams, whole_streams, strict=True):
            inputs = sub_model.norm(x[:, token])
            residuals = whole_head(whole.norm(target[:, token])) - head(inputs)
            regression.add(inputs, residuals, torch.ones(len(inputs)))
        regression.solve(ridge)
