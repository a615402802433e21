"""Vision Transformer with timm's parameter names, in which every block has its own size.

Each block may keep any number of heads and hidden channels. Without heads it has no attention
half, without channels no MLP half: norm, bias and all.

A distilled model (DeiT) has a distillation token beside the class token and a head layer for each. Register tokens,
which nothing is read from, may come after them. Head layers read pooled tokens: the class token, both tokens of a
distilled model, or the mean of the patches, which may be weighted.

A CCT has a stem with max pooling, blocks that normalise the stream between their halves, and patches that are pooled
with weights. Its tokenizer ends in a projection, which is the identity in the whole model, so that a narrower
sub-model has the whole tokenizer too.

Legend: B images, N tokens (prefix tokens included), P pooled tokens, E embed dim, h heads, c hidden channels,
C classes, L blocks.

Source:
    Register tokens: Darcet et al., arXiv 2309.16588. CCT: Hassani et al., arXiv 2104.05704.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.network.half_blocks import Attention, HalfBlock, Mlp
from planner.schema.architecture import Activation, Pooling, QkNorm, Stem, qk_norm_size
from planner.schema.data import height_and_width

# Per block, multipliers of each head (B, h) and of each hidden channel (B, c).
Gates: TypeAlias = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Shape:
    """Sizes that determine a network's tensors."""

    image_size: int | tuple[int, int]
    patch_size: int | tuple[int, int]
    in_channels: int
    num_classes: int
    embed_dim: int
    head_dim: int
    num_heads: tuple[int, ...]  # (L,)
    hidden_dim: tuple[int, ...]  # (L,)
    distilled: bool = False
    layer_norm_eps: float = 1e-6
    stem_channels: tuple[int, ...] = ()
    class_token: bool = True
    num_registers: int = 0
    pooling: Pooling = "class_token"
    norm_after_pooling: bool = False
    norm_before_blocks: bool = False
    activation: Activation = "gelu"
    gated_mlp: bool = False
    qk_norm: QkNorm | None = None
    norm_between_halves: bool = False
    stem_kernel: int = 3
    stem_stride: int = 2
    stem_max_pool: bool = False

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.num_heads)

    @property
    def rows_per_channel(self) -> int:
        """Rows of fc1 for each hidden channel: its value, in a gated MLP its gate too."""
        return 1 + self.gated_mlp

    @property
    def qk_norm_size(self) -> int:
        """Number of parameters of the norms of queries and keys in a block."""
        return qk_norm_size(self.qk_norm, self.head_dim)

    @property
    def stem(self) -> Stem:
        """Convolutions before the patches."""
        return Stem((self.in_channels, *self.stem_channels), self.stem_kernel, self.stem_stride, self.stem_max_pool)

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches: class token, distillation token and register tokens, where there are."""
        return self.class_token + self.distilled + self.num_registers

    @property
    def num_pooled_tokens(self) -> int:
        """Number of pooled tokens, each of which has a head layer."""
        return 2 if self.distilled else 1

    @property
    def num_normalised_tokens(self) -> int:
        """Number of tokens that the last norm is applied to."""
        if self.pooling == "class_token":
            return self.num_pooled_tokens
        return 1 if self.norm_after_pooling else self.num_tokens - self.num_prefix_tokens

    @property
    def num_tokens(self) -> int:
        """Number of tokens: prefix tokens and patches."""
        return self.num_prefix_tokens + math.prod(self.grid)

    @property
    def image_sides(self) -> tuple[int, int]:
        """Height and width of the image [pixels]."""
        return height_and_width(self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches along height and width."""
        (height, width), (patch_height, patch_width) = self.image_sides, height_and_width(self.patch_size)
        return height // patch_height, width // patch_width

    @property
    def projected_patch(self) -> tuple[int, int]:
        """Height and width of what is projected of each patch: all of it, or what a stem leaves of it."""
        height, width = height_and_width(self.patch_size)
        return height // self.stem.reduction, width // self.stem.reduction


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual; either half may be missing.

    The norm before the MLP may be that of the stream itself, which then stays where the MLP is missing.
    """

    def __init__(self, shape: Shape, num_heads: int, hidden_dim: int) -> None:
        super().__init__()
        E, eps = shape.embed_dim, shape.layer_norm_eps
        if num_heads:
            self.norm1 = nn.LayerNorm(E, eps=eps)
        self.attn = Attention(E, num_heads, shape.head_dim, shape.qk_norm, eps) if num_heads else None
        self.norm_is_between = shape.norm_between_halves
        if hidden_dim or self.norm_is_between:
            self.norm2 = nn.LayerNorm(E, eps=eps)
        self.mlp = Mlp(E, hidden_dim, shape.activation, shape.gated_mlp) if hidden_dim else None

    @property
    def halves(self) -> tuple[HalfBlock | None, HalfBlock | None]:
        """Attention half and MLP half; None where the block lacks one."""
        return (
            None if self.attn is None else HalfBlock(self.norm1, self.attn),
            None if self.mlp is None else HalfBlock(None if self.norm_is_between else self.norm2, self.mlp),
        )

    def between(self, x: Tensor) -> Tensor:
        """Return the stream (B, N, E) between the halves: as attention leaves it, or normalised."""
        between: Tensor = self.norm2(x) if self.norm_is_between else x
        return between

    def forward(
        self, x: Tensor, gates: tuple[Tensor, Tensor] | None = None, stream_gate: Tensor | None = None
    ) -> Tensor:
        (attention, mlp), (head_gate, channel_gate) = self.halves, gates or (None, None)
        if attention is not None:
            x = x + _gated(attention.update(x, head_gate), stream_gate)
        if self.norm_is_between:
            x = _gated(self.between(x), stream_gate)
        if mlp is not None:
            x = x + _gated(mlp.update(x, channel_gate), stream_gate)
        return x


def _gated(x: Tensor, stream_gate: Tensor | None) -> Tensor:
    """Return a residual stream or an update of it (B, N, E), each embed dim times its gate (B, E)."""
    return x if stream_gate is None else x * stream_gate[:, None, :]


class PatchEmbed(nn.Module):
    """Projection of each patch of an image, before which there may be a stem of convolutions.

    Source:
        Early convolutions: Xiao et al., arXiv 2106.14881; here without batch norm.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        stem, size = shape.stem, shape.projected_patch
        self.stem = nn.ModuleList(
            nn.Conv2d(stage.inputs, stage.outputs, stem.kernel, stride=stem.stride, padding=stem.kernel // 2)
            for stage in stem.stages(shape.image_sides)
        )
        self.has_max_pool = stem.max_pool
        self.proj = nn.Conv2d(stem.channels[-1], shape.embed_dim, size, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.stem:
            x = convolution(x)
            x = F.max_pool2d(F.relu(x), 3, stride=2, padding=1) if self.has_max_pool else F.gelu(x)
        patches: Tensor = self.proj(x)
        return patches.flatten(2).transpose(1, 2)  # (B, N - 1, E)


class VisionTransformer(nn.Module):
    """Vision Transformer: the whole model, or a sub-model cut from it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        E = shape.embed_dim
        self.patch_embed = PatchEmbed(shape)
        if shape.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, E))
        if shape.num_registers:
            self.reg_token = nn.Parameter(torch.zeros(1, shape.num_registers, E))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.num_tokens, E))
        if shape.norm_before_blocks:
            self.norm_pre = nn.LayerNorm(E, eps=shape.layer_norm_eps)
        sizes = zip(shape.num_heads, shape.hidden_dim, strict=True)
        self.blocks = nn.ModuleList(Block(shape, h, c) for h, c in sizes)
        self.norm = nn.LayerNorm(E, eps=shape.layer_norm_eps)
        if shape.pooling == "sequence":
            self.attention_pool = nn.Linear(E, 1)
        self.head = nn.Linear(E, shape.num_classes)
        if shape.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, E))
            self.head_dist = nn.Linear(E, shape.num_classes)

    @property
    def last_layers(self) -> list[nn.Linear]:
        """Layers that read what the last norm writes: head layers, and that of weights for pooling."""
        names = ("head", "head_dist", "attention_pool")
        return [getattr(self, name) for name in names if hasattr(self, name)]

    def embed(self, images: Tensor, stream_gate: Tensor | None = None) -> Tensor:
        """Return the tokens (B, N, E) that enter the first block, of images (B, channels, H, W)."""
        x = self.patch_embed(images)
        # shape[0], not len: an export would freeze the batch size.
        x = torch.cat([*(token.expand(x.shape[0], -1, -1) for token in self.prefix_tokens()), x], dim=1)
        x = x + self.pos_embed
        return _gated(self.norm_pre(x) if self.shape.norm_before_blocks else x, stream_gate)

    def prefix_tokens(self) -> list[Tensor]:
        """Return the tokens before the patches in their order, (1, ..., E) each."""
        shape = self.shape
        tokens: list[Tensor] = []
        if shape.class_token:
            tokens.append(self.cls_token)
        if shape.distilled:
            tokens.append(self.dist_token)
        if shape.num_registers:
            tokens.append(self.reg_token)
        return tokens

    def pool(self, x: Tensor) -> Tensor:
        """Return the pooled tokens (B, P, E), behind the last norm, of the stream (B, N, E) after the last block."""
        shape = self.shape
        if shape.pooling == "class_token":
            pooled: Tensor = self.norm(x[:, : shape.num_pooled_tokens])
            return pooled
        x = x[:, shape.num_prefix_tokens :]
        if shape.norm_after_pooling:
            x = x.mean(1, keepdim=True)
        x = self.norm(x)
        if shape.pooling == "sequence":
            shares: Tensor = self.attention_pool(x).softmax(1)  # (B, N, 1)
            return shares.transpose(1, 2) @ x
        return x if shape.norm_after_pooling else x.mean(1, keepdim=True)

    def pooled(self, images: Tensor, gates: Gates | None = None, stream_gate: Tensor | None = None) -> Tensor:
        """Return the pooled tokens of images, (B, P, E)."""
        x = self.embed(images, stream_gate)
        for l, block in enumerate(self.blocks):
            x = block(x, gates[l] if gates is not None else None, stream_gate)
        return self.pool(x)

    def features(self, images: Tensor) -> Tensor:
        """Return the features that the fusion joins, (B, E): the mean of the pooled tokens."""
        tokens = self.pooled(images)
        return tokens.mean(1) if self.shape.distilled else tokens[:, 0]

    def classify(self, pooled: Tensor) -> Tensor:
        """Return logits (B, C) of pooled tokens (B, P, E); those of a distilled model are the mean of both heads'.

        Source:
            DeiT, arXiv 2012.12877, section 4.
        """
        logits: Tensor = self.head(pooled[:, 0])
        return (logits + self.head_dist(pooled[:, 1])) / 2 if self.shape.distilled else logits

    def forward(self, images: Tensor, gates: Gates | None = None, stream_gate: Tensor | None = None) -> Tensor:
        """Return logits (B, C).

        Args:
            images: (B, channels, H, W).
            gates: Multipliers of each head and channel, for each block.
            stream_gate: Multipliers of each embed dim of the residual stream, (B, E).
        """
        return self.classify(self.pooled(images, gates, stream_gate))


def initialise(model: VisionTransformer, generator: torch.Generator) -> None:
    """Draw fresh weights: truncated normal of 0.02 for matrices and tokens, He's for the stem, zero for biases."""
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(p)
        elif name.startswith("patch_embed.stem"):
            nn.init.kaiming_normal_(p, nonlinearity="relu", generator=generator)
        elif p.ndim > 1:
            nn.init.trunc_normal_(p, std=0.02, generator=generator)
