"""A plain Vision Transformer with timm's parameter names, whose every block has its own size.

Each block may keep any number of heads and hidden channels. Without heads it has no attention
half, without channels no MLP half: norm, bias and all.

Legend: B images, N tokens (class token included), E embed dim, h heads, hd head dim, c hidden
channels, C classes, L blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYER_NORM_EPS = 1e-6

# Per block, multipliers of each head (B, h) and of each hidden channel (B, c).
Gates: TypeAlias = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Shape:
    """Everything that determines a network's tensors."""

    image_size: int
    patch_size: int
    in_channels: int
    num_classes: int
    embed_dim: int
    head_dim: int
    num_heads: tuple[int, ...]  # (L,)
    hidden_dim: tuple[int, ...]  # (L,)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.num_heads)

    @property
    def num_tokens(self) -> int:
        """Patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


class Attention(nn.Module):
    """Multi-head self-attention with any number of heads."""

    def __init__(self, embed_dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.qkv = nn.Linear(embed_dim, 3 * num_heads * head_dim)
        self.proj = nn.Linear(num_heads * head_dim, embed_dim)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        B, N, _ = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, h, N, hd) each
        x = F.scaled_dot_product_attention(q, k, v)  # (B, h, N, hd)
        if gate is not None:
            x = x * gate[:, :, None, None]
        projected: Tensor = self.proj(x.transpose(1, 2).reshape(B, N, -1))  # (B, N, E)
        return projected


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        x = F.gelu(self.fc1(x))  # (B, N, c)
        if gate is not None:
            x = x * gate[:, None, :]
        projected: Tensor = self.fc2(x)  # (B, N, E)
        return projected


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual; either half may be missing."""

    def __init__(self, embed_dim: int, num_heads: int, head_dim: int, hidden_dim: int) -> None:
        super().__init__()
        if num_heads:
            self.norm1 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(embed_dim, num_heads, head_dim) if num_heads else None
        if hidden_dim:
            self.norm2 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(embed_dim, hidden_dim) if hidden_dim else None

    def forward(self, x: Tensor, gates: tuple[Tensor, Tensor] | None = None) -> Tensor:
        head_gate, channel_gate = gates or (None, None)
        if self.attn is not None:
            x = x + self.attn(self.norm1(x), head_gate)
        if self.mlp is not None:
            x = x + self.mlp(self.norm2(x), channel_gate)
        return x


class PatchEmbed(nn.Module):
    """Cut the image into patches and project each."""

    def __init__(self, in_channels: int, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.proj(x)
        return patches.flatten(2).transpose(1, 2)  # (B, N - 1, E)


class VisionTransformer(nn.Module):
    """The whole model, or a sub-model cut from it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        E = shape.embed_dim
        self.patch_embed = PatchEmbed(shape.in_channels, shape.patch_size, E)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, E))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.num_tokens, E))
        sizes = zip(shape.num_heads, shape.hidden_dim, strict=True)
        self.blocks = nn.ModuleList(Block(E, h, shape.head_dim, c) for h, c in sizes)
        self.norm = nn.LayerNorm(E, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(E, shape.num_classes)

    def features(self, images: Tensor, gates: Gates | None = None) -> Tensor:
        """Return the class token behind the last norm, (B, E), of images (B, channels, H, W)."""
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed  # (B, N, E)
        for l, block in enumerate(self.blocks):
            x = block(x, gates[l] if gates is not None else None)
        token: Tensor = self.norm(x[:, 0])
        return token

    def forward(self, images: Tensor, gates: Gates | None = None) -> Tensor:
        """Return logits (B, C)."""
        logits: Tensor = self.head(self.features(images, gates))
        return logits


def initialise(model: VisionTransformer, generator: torch.Generator) -> None:
    """Draw fresh weights: truncated normal of 0.02 for matrices and tokens, zero for biases."""
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(p)
        elif p.ndim > 1:
            nn.init.trunc_normal_(p, std=0.02, generator=generator)
