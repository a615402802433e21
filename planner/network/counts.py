"""Closed form of a network's MACs and parameters, from its shape alone.

The convention is that of `planner.rules.cost`: 1 MAC is one multiply-accumulate, a norm counts
5 per element (as fvcore counts layer norms), softmax, activations, pooling, products with gates and
additions count nothing. So counted, ViT-Tiny at 224 pixels has 1.258 GMACs.
"""

import math
from dataclasses import dataclass

from planner.network.vit import Shape

NORM_MACS_PER_ELEMENT = 5


@dataclass(frozen=True)
class Counts:
    """MACs for one image, and parameters."""

    macs: int
    params: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.macs + other.macs, self.params + other.params)

    def __mul__(self, times: int) -> "Counts":
        return Counts(self.macs * times, self.params * times)


def per_head(shape: Shape) -> Counts:
    """Return the counts of one head: its Q, K, V and output projections, norms of Q and K, and its attention."""
    N, E, hd = shape.num_tokens, shape.embed_dim, shape.head_dim
    return Counts(macs=4 * N * E * hd + 2 * N * N * hd + _qk_norm_macs(shape), params=3 * (E + 1) * hd + hd * E)


def _qk_norm_macs(shape: Shape) -> int:
    """Return the MACs of the norms of one head's queries and keys."""
    return 0 if shape.qk_norm is None else 2 * NORM_MACS_PER_ELEMENT * shape.num_tokens * shape.head_dim


def per_channel(shape: Shape) -> Counts:
    """Return the counts of one hidden channel: a row of fc1, of a gated MLP two, and a column of fc2."""
    rows = shape.rows_per_channel
    return Counts(macs=(rows + 1) * shape.num_tokens * shape.embed_dim, params=(rows + 1) * shape.embed_dim + rows)


def per_mlp_half(shape: Shape) -> Counts:
    """Return the counts of a block's MLP half without channels: norm and output bias."""
    E = shape.embed_dim
    return Counts(macs=NORM_MACS_PER_ELEMENT * shape.num_tokens * E, params=3 * E)


def per_attention_half(shape: Shape) -> Counts:
    """Return the counts of a block's attention half without heads: norm, output bias, norms that heads share."""
    return per_mlp_half(shape) + Counts(macs=0, params=shape.qk_norm_size)


def fixed(shape: Shape) -> Counts:
    """Return the counts that every sub-model of this width has: embeddings, all halves, final norm, head layer.

    A block that lost a half has less: a plan counts it all the same (a safe over-estimate).
    """
    N, E, C = shape.num_tokens, shape.embed_dim, shape.num_classes
    prefix, heads = shape.num_prefix_tokens, shape.num_pooled_tokens
    stem, patch = _stem(shape), math.prod(shape.projected_patch) * shape.stem.channels[-1]
    before = shape.norm_before_blocks
    ends = stem + Counts(
        # The final norm is applied to what is pooled; each pooled token has a head layer.
        macs=(N - prefix) * patch * E
        + (shape.num_normalised_tokens + before * N) * NORM_MACS_PER_ELEMENT * E
        + heads * E * C,
        params=(patch + 1) * E + prefix * E + N * E + 2 * E * (1 + before) + heads * (E + 1) * C,
    )
    return ends + _sequence_pooling(shape) + (per_attention_half(shape) + per_mlp_half(shape)) * shape.depth


def _stem(shape: Shape) -> Counts:
    """Return the counts of the stem's convolutions, none of which depends on the embed dim."""
    total, kernel = Counts(0, 0), shape.stem.kernel**2
    for stage in shape.stem.stages(shape.image_sides):
        weights = kernel * stage.inputs * stage.outputs
        total += Counts(macs=math.prod(stage.sides) * weights, params=weights + stage.outputs)
    return total


def _sequence_pooling(shape: Shape) -> Counts:
    """Return the counts of pooling with weights: each patch's weight, and the weighted sum."""
    if shape.pooling != "sequence":
        return Counts(0, 0)
    num_patches = shape.num_tokens - shape.num_prefix_tokens
    return Counts(macs=2 * num_patches * shape.embed_dim, params=shape.embed_dim + 1)


def norm_macs(shape: Shape) -> int:
    """Return the MACs of a network's norms, missing halves left out."""
    per_norm = NORM_MACS_PER_ELEMENT * shape.embed_dim
    mlp_norms = [channels > 0 or shape.norm_between_halves for channels in shape.hidden_dim]
    norms = sum(heads > 0 for heads in shape.num_heads) + sum(mlp_norms) + shape.norm_before_blocks
    of_stream = per_norm * (norms * shape.num_tokens + shape.num_normalised_tokens)
    return of_stream + _qk_norm_macs(shape) * sum(shape.num_heads)


def of_missing_halves(shape: Shape) -> Counts:
    """Return the counts of the attention and MLP halves that a network lacks, which a plan counts all the same."""
    attention = per_attention_half(shape) * sum(h == 0 for h in shape.num_heads)
    # A norm of the stream stays where its MLP is missing.
    mlp = Counts(macs=0, params=shape.embed_dim) if shape.norm_between_halves else per_mlp_half(shape)
    return attention + mlp * sum(c == 0 for c in shape.hidden_dim)


def exact(shape: Shape) -> Counts:
    """Return the counts of a network just as it is, missing halves left out."""
    total = fixed(shape) + per_head(shape) * sum(shape.num_heads) + per_channel(shape) * sum(shape.hidden_dim)
    return total + of_missing_halves(shape) * -1
