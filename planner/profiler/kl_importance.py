"""Importance as ED-ViT defines it: the KL divergence of the model's prediction when one unit is removed.

For each image and unit, KL(prediction of the whole model || prediction without the unit). Units are removed one at a
time, so each unit and image costs a forward pass, or the part of it after the unit: a baseline, for a few images of
each class. Passes for heads and channels start at the cached input of their block, many units at once; the output of
an MLP without a channel follows by subtraction, so only the later blocks are run. An embed dim is really cut.

Limit: a block's only head or channel is removed without the bias of its half.

Source:
    ED-ViT, arXiv 2410.11650.

Legend: B images, U units at once, N tokens, E embed dim, H heads, c hidden channels, C classes.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from planner.network.data import Samples
from planner.network.surgery import cut
from planner.network.vit import Block, Shape, VisionTransformer
from planner.profiler.importance_sums import UnitValues

KL_IMAGES_PER_CLASS = 8

# Memory of a pass over several units [bytes]: a size that suits a core's caches, though more than they hold.
_MAX_PASS_BYTES = 2**26
_MAX_BATCH_IMAGES = 8


def sample_images(samples: Samples, seed: int) -> Tensor:
    """Return the indices of a few random images of each class, in ascending order."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(samples), generator=generator)
    drawn = [shuffled[samples.labels[shuffled] == c][:KL_IMAGES_PER_CLASS] for c in samples.labels.unique()]
    return torch.cat(drawn).sort().values


def kl_batch_size(shape: Shape) -> int:
    """Return how many images form a batch: few, since a batch takes a pass for each unit."""
    return max(1, min(_MAX_BATCH_IMAGES, _max_rows(shape) // 64))


def kl_divergences(model: VisionTransformer, images: Tensor) -> UnitValues:
    """Return each unit's KL divergence [nat] for each image."""
    shape = model.shape
    blocks = [cast(Block, block) for block in model.blocks]
    with torch.inference_mode():
        x = model.embed(images)  # (B, N, E)
        inputs = [x]
        for block in blocks:
            inputs.append(block(inputs[-1]))
        reference = _log_probabilities(model, inputs[-1])  # (B, C)
        heads, channels = [], []
        for l, block in enumerate(blocks):
            later, rows = blocks[l + 1 :], _max_rows(shape)
            heads.append(_output_divergences(_without_heads(block, inputs[l], rows), reference, model, later))
            channels.append(_output_divergences(_without_channels(block, inputs[l], rows), reference, model, later))
        dims = [_dim_divergence(model, e, images, reference) for e in range(shape.embed_dim)]
    # Cloned outside: inference tensors cannot be added to the sums.
    return UnitValues(*(torch.stack(of_units, 1).clone() for of_units in (heads, channels, dims)))


def _max_rows(shape: Shape) -> int:
    """Return how many images, counted once per unit, pass through a block at once."""
    per_token = 8 * shape.embed_dim + 2 * shape.rows_per_channel * max(shape.hidden_dim)
    return max(1, _MAX_PASS_BYTES // (4 * shape.num_tokens * per_token))


def _without_heads(block: Block, x: Tensor, rows: int) -> Iterator[Tensor]:
    """Yield the block's output (U, B, N, E) without each of its heads."""
    assert block.attn is not None
    B, H = len(x), block.attn.num_heads
    for units in torch.arange(H).split(max(1, rows // B)):
        gate = 1 - F.one_hot(units, H).float().repeat_interleave(B, dim=0)  # (U * B, H)
        out = block(x.repeat(len(units), 1, 1), (gate, torch.ones(1, 1)))
        yield out.unflatten(0, (len(units), B))


def _without_channels(block: Block, x: Tensor, rows: int) -> Iterator[Tensor]:
    """Yield the block's output (U, B, N, E) without each of its channels."""
    assert block.mlp is not None
    attention, mlp = block.halves
    assert attention is not None
    assert mlp is not None
    x = block.between(attention(x))
    hidden = block.mlp.inner(mlp.normed(x))  # (B, N, c)
    x = x + block.mlp.fc2(hidden)
    columns = block.mlp.fc2.weight.T  # (c, E)
    for units in torch.arange(hidden.shape[-1]).split(max(1, rows // len(x))):
        written = hidden[..., units].permute(2, 0, 1)[..., None] * columns[units, None, None]  # (U, B, N, E)
        yield x - written


def _output_divergences(
    outputs: Iterator[Tensor], reference: Tensor, model: VisionTransformer, later: Sequence[Block]
) -> Tensor:
    """Return the divergence (B, units) of the predictions from these outputs of a block, each (U, B, N, E)."""
    parts = []
    for x in outputs:
        units = x.shape[:2]
        x = x.flatten(0, 1)  # (U * B, N, E)
        for block in later:
            x = block(x)
        parts.append(_kl(reference, _log_probabilities(model, x).unflatten(0, units)))
    return torch.cat(parts).T


def _dim_divergence(model: VisionTransformer, dim: int, images: Tensor, reference: Tensor) -> Tensor:
    """Return the divergence (B,) of the predictions of a network that is cut to lack one embed dim."""
    shape = model.shape
    heads, channels = ([list(range(size)) for size in sizes] for sizes in (shape.num_heads, shape.hidden_dim))
    narrow = cut(model, heads, channels, [e for e in range(shape.embed_dim) if e != dim])
    return _kl(reference, narrow(images).double().log_softmax(-1))


def _log_probabilities(model: VisionTransformer, x: Tensor) -> Tensor:
    """Return the log probabilities (B, C) that follow from the last block's output (B, N, E)."""
    return model.classify(model.pool(x)).double().log_softmax(-1)


def _kl(reference: Tensor, log_p: Tensor) -> Tensor:
    # Rounding may leave it slightly negative.
    return (reference.exp() * (reference - log_p)).sum(-1).clamp_min(0)
