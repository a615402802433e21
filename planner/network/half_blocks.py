"""Halves of a block: attention and MLP, with any number of units.

The input layer of a half has parts of equal size, one below the other, each of which has some rows for every unit:
queries, keys and values of heads; of a gated MLP gates and values of hidden channels, so that a channel is a pair.

Legend: B images, N tokens, E embed dim, h heads, hd head dim, c hidden channels.

Source:
    Gated MLPs (SwiGLU, GEGLU, GLU): Shazeer, arXiv 2002.05202. Norms of queries and keys: Dehghani et al., arXiv
    2302.05442.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planner.schema.architecture import Activation, QkNorm


def _quick_gelu(x: Tensor) -> Tensor:
    """Return x times the sigmoid of 1.702 x, an approximation of GELU that CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
}
_HEAD_NORMS: Mapping[QkNorm, type[nn.LayerNorm] | type[nn.RMSNorm]] = {
    "layer_norm": nn.LayerNorm,
    "rms_norm": nn.RMSNorm,
}


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the values that queries attend to, (B, h, N, hd), of queries, keys and values of this shape."""
    if q.is_cpu and torch.is_autocast_enabled("cpu"):
        # In bfloat16 the backward pass of torch's own kernel takes ten times as long as these products.
        weights: Tensor = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)  # (B, h, N, N)
        values: Tensor = weights.to(v.dtype) @ v
        return values
    return F.scaled_dot_product_attention(q, k, v)


def input_rows(units: Sequence[int], num_units: int, rows_per_unit: int, num_parts: int) -> list[int]:
    """Return the rows of an input layer that belong to some of its units, part by part."""
    firsts = [(part * num_units + unit) * rows_per_unit for part in range(num_parts) for unit in units]
    return [first + i for first in firsts for i in range(rows_per_unit)]


class Attention(nn.Module):
    """Multi-head self-attention with any number of heads; norms of queries and keys are the same for all of them."""

    def __init__(
        self, embed_dim: int, num_heads: int, head_dim: int, qk_norm: QkNorm | None = None, norm_eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.qkv = nn.Linear(embed_dim, 3 * num_heads * head_dim)
        self.proj = nn.Linear(num_heads * head_dim, embed_dim)
        self.has_qk_norm = qk_norm is not None
        if qk_norm is not None:
            self.q_norm, self.k_norm = (_HEAD_NORMS[qk_norm](head_dim, eps=norm_eps) for _ in range(2))

    @property
    def head_norms(self) -> tuple[nn.Module, ...]:
        """Norm of queries and norm of keys, where there are."""
        return (self.q_norm, self.k_norm) if self.has_qk_norm else ()

    def input_rows(self, heads: Sequence[int]) -> list[int]:
        """Return the rows of qkv that belong to some heads."""
        return input_rows(heads, self.num_heads, self.head_dim, num_parts=3)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of all heads side by side, as attention takes them, (B, N, h hd) each."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.has_qk_norm:
            q, k = self._normalised(self.q_norm, q), self._normalised(self.k_norm, k)
        return q, k, v

    def _normalised(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Return queries or keys (B, N, h hd), normalised head by head."""
        of_heads: Tensor = norm(x.unflatten(-1, (self.num_heads, self.head_dim)))
        return of_heads.flatten(-2)

    def inner(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Return what the heads read, before the output projection, (B, N, h hd)."""
        B, N, _ = x.shape
        qkv = self.queries_keys_values(x)  # (B, N, h hd) each
        q, k, v = (part.reshape(B, N, self.num_heads, self.head_dim).transpose(1, 2) for part in qkv)  # (B, h, N, hd)
        x = attend(q, k, v)
        if gate is not None:
            x = x * gate[:, :, None, None]
        return x.transpose(1, 2).reshape(B, N, -1)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        projected: Tensor = self.proj(self.inner(x, gate))  # (B, N, E)
        return projected


class Mlp(nn.Module):
    """Two linear layers with an activation between; in a gated one, activated gates multiply values."""

    def __init__(self, embed_dim: int, hidden_dim: int, activation: Activation, is_gated: bool = False) -> None:
        super().__init__()
        self.activation, self.is_gated = ACTIVATIONS[activation], is_gated
        self.fc1 = nn.Linear(embed_dim, (1 + is_gated) * hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def input_rows(self, channels: Sequence[int]) -> list[int]:
        """Return the rows of fc1 that belong to some hidden channels."""
        return input_rows(channels, self.fc2.in_features, rows_per_unit=1, num_parts=1 + self.is_gated)

    def inner(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Return the hidden channels that fc2 reads, (B, N, c)."""
        x = self.fc1(x)
        if self.is_gated:
            own_gates, values = x.chunk(2, dim=-1)  # (B, N, c) each
            x = self.activation(own_gates) * values
        else:
            x = self.activation(x)
        return x if gate is None else x * gate[:, None, :]

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        projected: Tensor = self.fc2(self.inner(x, gate))  # (B, N, E)
        return projected


class HalfBlock(NamedTuple):
    """Attention or MLP of a block, with the norm before it; None where the stream itself was normalised."""

    norm: nn.LayerNorm | None
    layers: Attention | Mlp

    @property
    def input_layer(self) -> nn.Linear:
        """Layer that reads the normalised stream."""
        return self.layers.qkv if isinstance(self.layers, Attention) else self.layers.fc1

    @property
    def output_layer(self) -> nn.Linear:
        """Layer that writes to the stream."""
        return self.layers.proj if isinstance(self.layers, Attention) else self.layers.fc2

    def normed(self, x: Tensor) -> Tensor:
        """Return what the input layer reads of the stream, (B, N, E)."""
        read: Tensor = x if self.norm is None else self.norm(x)
        return read

    def update(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Return what is added to the stream, (B, N, E)."""
        added: Tensor = self.layers(self.normed(x), gate)
        return added

    def __call__(self, x: Tensor) -> Tensor:
        """Return the stream after the half-block, (B, N, E)."""
        return x + self.update(x)
