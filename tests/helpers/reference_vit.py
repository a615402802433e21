"""Twins of other libraries' ViTs: random tensors under their names, and their forward pass in plain torch.

Nothing here is of `planner`: neither names nor layouts nor arithmetic.

Legend: B images, N tokens, E embed dim.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

E, HEADS, HEAD_DIM, HIDDEN, BLOCKS, CLASSES, EPS = 12, 4, 3, 7, 2, 5, 1e-6
State = dict[str, Tensor]
# An MLP of normalised tokens (B, N, E), by the tensors of its block.
MlpForward = Callable[[State, Tensor], Tensor]


def linear(w: State, name: str, x: Tensor) -> Tensor:
    """Apply a layer, which may lack its bias."""
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def norm(w: State, name: str, x: Tensor) -> Tensor:
    """Apply a norm over the last dimension: of layers with a bias a layer norm, else an RMS norm."""
    weight = w[f"{name}.weight"]
    if f"{name}.bias" in w:
        return F.layer_norm(x, weight.shape, weight, w[f"{name}.bias"], EPS)
    return F.rms_norm(x, weight.shape, weight, EPS)


def plain_mlp(w: State, x: Tensor) -> Tensor:
    """timm's Mlp."""
    return linear(w, "mlp.fc2", F.gelu(linear(w, "mlp.fc1", x)))


def packed(activation: Callable[[Tensor], Tensor], gate: int, fc1: str = "fc1", fc2: str = "fc2") -> MlpForward:
    """timm's GluMlp, SwiGLUPacked with the gate first, and DINOv2's SwiGLUFFN, w12 and w3."""

    def forward(w: State, x: Tensor) -> Tensor:
        halves = linear(w, f"mlp.{fc1}", x).chunk(2, dim=-1)
        return linear(w, f"mlp.{fc2}", activation(halves[gate]) * halves[1 - gate])

    return forward


def apart(gate: str, value: str, output: str) -> MlpForward:
    """timm's SwiGLU (fc1_g, fc1_x, fc2), DINOv3's (w1, w2, w3), LLaMA's (gate_proj, up_proj, down_proj)."""
    return lambda w, x: linear(w, f"mlp.{output}", F.silu(linear(w, f"mlp.{gate}", x)) * linear(w, f"mlp.{value}", x))


@dataclass(frozen=True)
class Twin:
    """ViT of another library: sizes of its MLP's layers, outputs and inputs, and what else is special about it."""

    mlp: MlpForward = plain_mlp
    layers: Sequence[tuple[str, int, int]] = (("fc1", HIDDEN, E), ("fc2", E, HIDDEN))
    qk_norm: str = ""  # ends of the norms' tensors: "weight bias", "weight"
    image: tuple[int, int] = (6, 6)
    patch: tuple[int, int] = (2, 2)
    num_registers: int = 0
    prefix_has_positions: bool = True
    biasless: Sequence[str] = ()

    def state(self, seed: int = 0) -> State:
        """Return random tensors under timm's names."""
        rows, columns = (side // of_patch for side, of_patch in zip(self.image, self.patch, strict=True))
        num_prefix = (1 + self.num_registers) * self.prefix_has_positions
        shapes: dict[str, tuple[int, ...]] = {
            "cls_token": (1, 1, E),
            "pos_embed": (1, num_prefix + rows * columns, E),
            "patch_embed.proj.weight": (E, 3, *self.patch),
            "patch_embed.proj.bias": (E,),
        }
        if self.num_registers:
            shapes["reg_token"] = (1, self.num_registers, E)
        inner = HEADS * HEAD_DIM
        for l in range(BLOCKS):
            block = f"blocks.{l}"
            attention = [("attn.qkv", 3 * inner, E), ("attn.proj", E, inner)]
            for layer, outputs, inputs in [*attention, *((f"mlp.{name}", o, i) for name, o, i in self.layers)]:
                shapes |= {f"{block}.{layer}.weight": (outputs, inputs), f"{block}.{layer}.bias": (outputs,)}
            shapes |= {f"{block}.norm{i}.{end}": (E,) for i in (1, 2) for end in ("weight", "bias")}
            shapes |= {f"{block}.attn.{p}_norm.{end}": (HEAD_DIM,) for p in "qk" for end in self.qk_norm.split()}
        shapes |= {"norm.weight": (E,), "norm.bias": (E,), "head.weight": (CLASSES, E), "head.bias": (CLASSES,)}
        generator = torch.Generator().manual_seed(seed)
        return {
            name: ("norm" in name and name.endswith("weight")) + 0.4 * torch.randn(shape, generator=generator)
            for name, shape in shapes.items()
            if not any(name.endswith(f"{layer}.bias") for layer in self.biasless)
        }

    def images(self, count: int = 3) -> Tensor:
        """Return random images."""
        return torch.randn(count, 3, *self.image, generator=torch.Generator().manual_seed(1))

    def logits(self, state: State, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of tensors as `state` makes them."""
        B = len(images)
        x = F.conv2d(
            images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=self.patch
        ).flatten(2)
        prefix = [state[name].expand(B, -1, -1) for name in ("cls_token", "reg_token") if name in state]
        x, positions = x.transpose(1, 2), state["pos_embed"]
        if self.prefix_has_positions:
            x = torch.cat([*prefix, x], dim=1) + positions
        else:
            x = torch.cat([*prefix, x + positions], dim=1)
        for l in range(BLOCKS):
            block = {n.removeprefix(f"blocks.{l}."): t for n, t in state.items() if n.startswith(f"blocks.{l}.")}
            x = x + self._attention(block, norm(block, "norm1", x))
            x = x + self.mlp(block, norm(block, "norm2", x))
        return linear(state, "head", norm(state, "norm", x)[:, 0])

    def _attention(self, w: State, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        q, k, v = linear(w, "attn.qkv", x).view(B, N, 3, HEADS, HEAD_DIM).permute(2, 0, 3, 1, 4)  # (B, heads, N, dim)
        if self.qk_norm:
            q, k = norm(w, "attn.q_norm", q), norm(w, "attn.k_norm", k)
        scores = (q @ k.transpose(-2, -1) * HEAD_DIM**-0.5).softmax(-1)
        return linear(w, "attn.proj", (scores @ v).transpose(1, 2).reshape(B, N, -1))


PACKED_LAYERS = (("fc1", 2 * HIDDEN, E), ("fc2", E, HIDDEN))


def apart_layers(gate: str, value: str, output: str) -> Sequence[tuple[str, int, int]]:
    """Return sizes of the layers of a gated MLP whose gates and values are apart."""
    return (gate, HIDDEN, E), (value, HIDDEN, E), (output, E, HIDDEN)
