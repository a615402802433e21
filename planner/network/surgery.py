"""Structured pruning: a smaller network cut out of a larger one, real smaller tensors, equal to masking.

Removing a head or a channel removes its rows and columns; the output is what it would be with
the unit's output set to zero. A block that loses all of its heads (channels) loses that half
altogether, bias included; a norm of the stream between them stays. Removing embed dims narrows the residual stream;
norms then look at the dims that are left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from planner.network.half_blocks import Attention, Mlp
from planner.network.vit import VisionTransformer

# Indices of the kept heads, or hidden channels, of each block.
KeptUnits = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Selection:
    """Kept parts of the whole model, as indices: heads and channels of each block, and embed dims."""

    heads: tuple[tuple[int, ...], ...]
    channels: tuple[tuple[int, ...], ...]
    embed_dims: tuple[int, ...]

    @classmethod
    def of(cls, heads: KeptUnits, channels: KeptUnits, embed_dims: Sequence[int]) -> "Selection":
        """Return the selection of these units, each block's and the embed dims rising."""
        rising = tuple(tuple(sorted(block)) for block in heads), tuple(tuple(sorted(block)) for block in channels)
        return cls(*rising, tuple(sorted(embed_dims)))

    def cut(self, model: VisionTransformer) -> VisionTransformer:
        """Return a new network with only these parts of the model; see `cut`."""
        return cut(model, self.heads, self.channels, self.embed_dims)


def cut(
    model: VisionTransformer, heads: KeptUnits, channels: KeptUnits, embed_dims: Sequence[int] | None = None
) -> VisionTransformer:
    """Return a new network with only these heads, hidden channels and embed dims of the model.

    Args:
        model: The network to cut from; it is left as it is.
        heads: Kept heads of each block, as indices.
        channels: Kept hidden channels of each block, as indices.
        embed_dims: Kept embed dims, as indices; all unless given.

    Raises:
        ValueError: If an index is out of range or named twice, or a block is missing.
    """
    shape = model.shape
    dims = list(range(shape.embed_dim)) if embed_dims is None else sorted(embed_dims)
    _check(heads, shape.num_heads, "heads")
    _check(channels, shape.hidden_dim, "channels")
    _check([dims], [shape.embed_dim], "embed_dims")
    if not dims:
        raise ValueError("embed_dims: at least one must be kept, got none")
    kept_heads = [sorted(block) for block in heads]
    kept_channels = [sorted(block) for block in channels]
    # On meta: no numbers are drawn only to be overwritten, and dtype and device are the source's.
    with torch.device("meta"):
        small = VisionTransformer(
            replace(
                shape,
                embed_dim=len(dims),
                num_heads=tuple(len(block) for block in kept_heads),
                hidden_dim=tuple(len(block) for block in kept_channels),
            )
        )
    source = model.state_dict()
    state = {}
    for name, target in small.state_dict().items():
        block = int(name.split(".")[1]) if name.startswith("blocks.") else 0
        rows, columns = _kept(name, dims, kept_heads[block], kept_channels[block], model)
        state[name] = _take(source[name], rows, columns).reshape(target.shape).clone()
    small.load_state_dict(state, assign=True)
    return small.train(model.training)


def _kept(
    name: str, dims: list[int], heads: list[int], channels: list[int], model: VisionTransformer
) -> tuple[list[int] | None, list[int] | None]:
    """Return which rows (axis 0) and columns (axis 1) of a parameter are kept; None: all."""
    of_heads = [head * model.shape.head_dim + i for head in heads for i in range(model.shape.head_dim)]
    layer = name.rpartition(".")[0]
    if layer.startswith("patch_embed.stem"):
        return None, None
    if name in ("cls_token", "dist_token", "reg_token", "pos_embed"):
        return None, dims
    if layer.endswith(("attn.q_norm", "attn.k_norm")):
        return None, None
    if layer.endswith("attn.proj"):
        return dims, of_heads
    if layer.endswith("mlp.fc2"):
        return dims, channels
    if layer.endswith(("attn.qkv", "mlp.fc1")):
        half = model.get_submodule(layer.rpartition(".")[0])
        assert isinstance(half, Attention | Mlp)
        return half.input_rows(heads if isinstance(half, Attention) else channels), dims
    if layer in ("head", "head_dist", "attention_pool"):
        return None, dims
    # Norms and the patch embedding: one row for each embed dim.
    return dims, None


def _take(tensor: Tensor, rows: list[int] | None, columns: list[int] | None) -> Tensor:
    if tensor.ndim == 3:  # (1, N, E): tokens
        return tensor[:, :, columns] if columns is not None else tensor
    if rows is not None:
        tensor = tensor[torch.tensor(rows, dtype=torch.long)]
    if columns is not None and tensor.ndim == 2:
        tensor = tensor[:, torch.tensor(columns, dtype=torch.long)]
    return tensor


def _check(kept: KeptUnits, limits: Sequence[int], what: str) -> None:
    if len(kept) != len(limits):
        raise ValueError(f"{what}: must have {len(limits)} blocks, got {len(kept)}")
    for l, (block, limit) in enumerate(zip(kept, limits, strict=True)):
        if len(set(block)) < len(block) or any(not 0 <= i < limit for i in block):
            raise ValueError(f"{what}[{l}]: must be distinct and within 0..{limit - 1}, got {list(block)}")
