"""Importance as ED-ViT defines it: how far the model's answer moves when one unit is taken out.

For each image and unit, KL(the whole model's answer || the answer without the unit). Units are taken out one at a
time, so this costs a forward pass, or what of it comes behind the unit, for each unit and image: a yardstick, for
a few images of each class. Heads and channels of a block start from its kept input, many at once; a channel
without which the MLP's output is known by subtraction costs the blocks behind it alone. An embed dim is really cut.

Limit: a block's only head or channel is taken out without the half's bias.

Source:
    ED-ViT, arXiv 2410.11650.

Legend: B images, U units at once, N tokens, P prefix tokens, E embed dim, H heads, c hidden channels, C classes.
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

# What a pass over several units may take [bytes]: what a core's caches like, more than what they hold.
_BUDGET = 2**26
_MOST_IMAGES = 8


def sample(samples: Samples, seed: int) -> Tensor:
    """Return the indices of a few images of each class, drawn at random, in their order."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(samples), generator=generator)
    drawn = [shuffled[samples.labels[shuffled] == c][:KL_IMAGES_PER_CLASS] for c in samples.labels.unique()]
    return torch.cat(drawn).sort().values


def kl_batch_size(shape: Shape) -> int:
    """Return how many images go together: few, since a batch takes a pass for each unit."""
    return max(1, min(_MOST_IMAGES, _rows(shape) // 64))


def divergences(model: VisionTransformer, images: Tensor) -> UnitValues:
    """Return each unit's KL divergence [nat] for each image."""
    shape = model.shape
    blocks = [cast(Block, block) for block in model.blocks]
    with torch.inference_mode():
        x = model.embed(images)  # (B, N, E)
        inputs = [x]
        for block in blocks:
            inputs.append(block(inputs[-1]))
        whole = _log_answer(model, inputs[-1])  # (B, C)
        heads, channels = [], []
        for l, block in enumerate(blocks):
            behind = blocks[l + 1 :]
            heads.append(_joined(_without_heads(block, inputs[l], _rows(shape)), whole, model, behind))
            channels.append(_joined(_without_channels(block, inputs[l], _rows(shape)), whole, model, behind))
        dims = [_without_dim(model, e, images, whole) for e in range(shape.embed_dim)]
    # Cloned outside: what is made in inference mode cannot be added to anything else.
    return UnitValues(*(torch.stack(of_units, 1).clone() for of_units in (heads, channels, dims)))


def _rows(shape: Shape) -> int:
    """Return how many images, counted for each unit, go through a block at once."""
    per_token = 8 * shape.embed_dim + 2 * max(shape.hidden_dim)
    return max(1, _BUDGET // (4 * shape.num_tokens * per_token))


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
    assert block.attn is not None
    assert block.mlp is not None
    x = x + block.attn(block.norm1(x))
    hidden = F.gelu(block.mlp.fc1(block.norm2(x)))  # (B, N, c)
    x = x + block.mlp.fc2(hidden)
    columns = block.mlp.fc2.weight.T  # (c, E)
    for units in torch.arange(hidden.shape[-1]).split(max(1, rows // len(x))):
        written = hidden[..., units].permute(2, 0, 1)[..., None] * columns[units, None, None]  # (U, B, N, E)
        yield x - written


def _joined(outputs: Iterator[Tensor], whole: Tensor, model: VisionTransformer, behind: Sequence[Block]) -> Tensor:
    """Return the divergence (B, units) of answers that go on from these outputs of a block, each (U, B, N, E)."""
    parts = []
    for x in outputs:
        units = x.shape[:2]
        x = x.flatten(0, 1)  # (U * B, N, E)
        for block in behind:
            x = block(x)
        parts.append(_kl(whole, _log_answer(model, x).unflatten(0, units)))
    return torch.cat(parts).T


def _without_dim(model: VisionTransformer, dim: int, images: Tensor, whole: Tensor) -> Tensor:
    shape = model.shape
    heads, channels = ([list(range(size)) for size in sizes] for sizes in (shape.num_heads, shape.hidden_dim))
    narrow = cut(model, heads, channels, [e for e in range(shape.embed_dim) if e != dim])
    return _kl(whole, narrow(images).double().log_softmax(-1))


def _log_answer(model: VisionTransformer, x: Tensor) -> Tensor:
    """Return the log probabilities (B, C) of what leaves the last block, (B, N, E)."""
    tokens = model.norm(x[:, : model.shape.num_prefix_tokens])  # (B, P, E)
    return model.classify(tokens).double().log_softmax(-1)


def _kl(whole: Tensor, without: Tensor) -> Tensor:
    return (whole.exp() * (whole - without)).sum(-1).clamp_min(0)
