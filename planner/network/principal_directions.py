"""Narrow residual streams along principal directions, in place of single embed dims.

Every layer reads the residual stream x behind a LayerNorm, so its mean over embed dims is lost on all of them, and any
rotation of what is left can be absorbed by the layers: a stream z = R x, with orthonormal rows R (E', E) that are
orthogonal to the vector of ones, serves as well as x as far as x lies in the space of these rows. They are chosen as
the principal directions of normalised streams, those that all norms of the whole model see, so that little is lost.
Coordinates are such that z has a mean of zero, too: it needs no other norm than LayerNorm. One of E' dims is spent
on that.

With a share s of the normalised streams' energy kept, LayerNorm(x) is close to R^T LayerNorm(z) sqrt(s E / E'), gain
and bias aside; both are folded into the next layer. A norm of the stream itself cannot be folded: its gain g becomes
the diagonal of R diag(g) R^T, which is all of it where the gains are alike, and its bias b becomes R b.

Legend: B images, E embed dim of the whole model, E' of the sub-model, b images of a batch, t tokens looked at.

Source:
    Rotations that LayerNorm allows, and principal directions in place of coordinates: SliceGPT, arXiv 2401.15024; here
    one rotation for all blocks.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from planner.network.compute_device import mixed_precision
from planner.network.data import Images
from planner.network.fitted_tokens import FittedTokens, take_tokens
from planner.network.half_blocks import Attention, HalfBlock
from planner.network.surgery import KeptUnits, cut
from planner.network.vit import Block, VisionTransformer

# Enough for the directions of a stream of a few hundred dims at some dozen tokens.
_MAX_IMAGES = 320
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Projection:
    """Orthonormal rows onto which the residual stream is projected, (E', E), and the share of its energy they keep."""

    rows: Tensor
    kept_energy: float


@torch.no_grad()
def principal_projection(whole: VisionTransformer, images: Images, width: int, pooled_weight: float) -> Projection:
    """Return the projection onto the principal directions of the whole model's normalised streams.

    Args:
        whole: The model whose stream is to be narrowed.
        images: Images of which up to 320 are looked at, (B, ch, H, W).
        width: Embed dim of the sub-model, E'.
        pooled_weight: Weight of a token that a head layer reads beside that of any other.
    """
    chosen = torch.linspace(0, len(images) - 1, min(len(images), _MAX_IMAGES)).round().long()
    tokens = FittedTokens(whole.shape, len(chosen), pooled_weight)
    weights = tokens.weights[:, None]
    gram = torch.zeros(whole.shape.embed_dim, whole.shape.embed_dim, dtype=torch.float64)
    for indices in chosen.split(_BATCH):
        x, positions = whole.embed(images[indices]), tokens.of_images(indices)
        gram += _gram(take_tokens(x, positions), weights)
        for block in whole.blocks:
            assert isinstance(block, Block)
            attention, mlp = block.halves
            for step in (attention, block.between, mlp):
                if step is not None:
                    with mixed_precision(whole):
                        x = step(x)
                gram += _gram(take_tokens(x, positions), weights)
    energies, directions = torch.linalg.eigh(gram)  # rising
    # Directions of the largest energies; the vector of ones has none.
    kept = directions.flip(1)[:, : width - 1]  # (E, E' - 1)
    rows: Tensor = _zero_mean_basis(width) @ kept.T
    kept_energy = energies.flip(0)[: width - 1].sum() / energies.sum()
    return Projection(rows.float(), float(kept_energy))


def _gram(x: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of outer products of some tokens (b, t, E) of the stream, each centred and of length 1."""
    centred = x - x.mean(-1, keepdim=True)
    normalised = nn.functional.normalize(centred, dim=-1)
    gram: Tensor = torch.einsum("bne,bnf->ef", (weights * normalised).double(), normalised.double())
    return gram


def _zero_mean_basis(size: int) -> Tensor:
    """Return orthonormal columns (size, size - 1) that are orthogonal to the vector of ones."""
    ones = torch.ones(size, 1, dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(ones, mode="complete").Q[:, 1:]
    return basis


@torch.no_grad()
def cut_along(
    whole: VisionTransformer, heads: KeptUnits, channels: KeptUnits, projection: Projection
) -> VisionTransformer:
    """Return a new network with only these heads and channels of a model, its stream narrowed by a projection.

    Args:
        whole: The network to cut from; it is left as it is.
        heads: Kept heads of each block, as indices.
        channels: Kept hidden channels of each block, as indices.
        projection: Projection of the stream.
    """
    wide, rows = cut(whole, heads, channels), projection.rows
    narrow = VisionTransformer(replace(wide.shape, embed_dim=len(rows)))
    gain = math.sqrt(projection.kept_energy * wide.shape.embed_dim / len(rows))
    embedding_rows = rows
    if wide.shape.norm_before_blocks:
        embedding_rows = _write_norm_before_blocks(wide, narrow, rows, gain)
    narrow.patch_embed.stem.load_state_dict(wide.patch_embed.stem.state_dict())
    _write(wide.patch_embed.proj, narrow.patch_embed.proj, embedding_rows)
    for name in ("cls_token", "dist_token", "reg_token", "pos_embed"):
        if hasattr(wide, name):
            getattr(narrow, name).copy_(getattr(wide, name) @ embedding_rows.T)
    for block, target in zip(wide.blocks, narrow.blocks, strict=True):
        assert isinstance(block, Block)
        assert isinstance(target, Block)
        if block.norm_is_between:
            _write_norm_between_halves(block.norm2, target.norm2, rows, gain)
        for half, target_half in zip(block.halves, target.halves, strict=True):
            if half is not None and target_half is not None:
                _copy_head_norms(half, target_half)
                if half.norm is None:
                    _read_normalised_stream(block.norm2, half.input_layer, target_half.input_layer, rows)
                else:
                    _read(half.norm, half.input_layer, target_half.input_layer, rows, gain)
                _write(half.output_layer, target_half.output_layer, rows)
    for layer, target_layer in zip(wide.last_layers, narrow.last_layers, strict=True):
        _read(wide.norm, layer, target_layer, rows, gain)
    return narrow.train(whole.training)


def _write_norm_before_blocks(wide: VisionTransformer, narrow: VisionTransformer, rows: Tensor, gain: float) -> Tensor:
    """Let the norm before the first block write the stream's projection; return the rows (E', E) of the embeddings.

    The norm's gains g lie before the projection, so embeddings take them: R g (e - mean) is normalised in place of e,
    to a deviation that would be that of R g LayerNorm(e) if all tokens were alike.
    """
    weight = wide.norm_pre.weight
    narrow.norm_pre.weight.fill_(gain * float(weight.square().mean().sqrt()))
    narrow.norm_pre.bias.copy_(rows @ wide.norm_pre.bias)
    embedding_rows = rows * weight
    return embedding_rows - embedding_rows.mean(1, keepdim=True)


def _write_norm_between_halves(norm: nn.LayerNorm, target: nn.LayerNorm, rows: Tensor, gain: float) -> None:
    """Let a norm of the stream write its projection, as far as gains without a rotation can."""
    target.weight.copy_(gain * rows.square() @ norm.weight)
    target.bias.copy_(rows @ norm.bias)


def _copy_head_norms(half: HalfBlock, target: HalfBlock) -> None:
    """Give queries and keys the norms that they had: heads are as wide as before."""
    if isinstance(half.layers, Attention) and isinstance(target.layers, Attention):
        for norm, target_norm in zip(half.layers.head_norms, target.layers.head_norms, strict=True):
            target_norm.load_state_dict(norm.state_dict())


def _write(layer: nn.Linear | nn.Conv2d, target: nn.Linear | nn.Conv2d, rows: Tensor) -> None:
    """Let a layer that writes to the stream write its projection."""
    assert layer.bias is not None
    assert target.bias is not None
    target.weight.copy_(torch.tensordot(rows, layer.weight, dims=1))
    target.bias.copy_(rows @ layer.bias)


def _read(norm: nn.LayerNorm, layer: nn.Linear, target: nn.Linear, rows: Tensor, gain: float) -> None:
    """Let a layer that reads the normalised stream read the narrow one; the norm's gain and bias are folded into it."""
    target.weight.copy_(gain * (layer.weight * norm.weight) @ rows.T)
    target.bias.copy_(layer.bias + layer.weight @ norm.bias)


def _read_normalised_stream(norm: nn.LayerNorm, layer: nn.Linear, target: nn.Linear, rows: Tensor) -> None:
    """Let a layer that reads a stream which a norm wrote read the narrow one.

    What of the norm's bias lies along none of the rows is folded into the layer.
    """
    target.weight.copy_(layer.weight @ rows.T)
    target.bias.copy_(layer.bias + layer.weight @ (norm.bias - rows.T @ (rows @ norm.bias)))
