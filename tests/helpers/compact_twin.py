"""Twins of Compact Transformers: random tensors under their authors' names, and their forward pass in plain torch.

Nothing here is of `planner`: neither names nor layouts nor arithmetic.

Legend: B images, N tokens, E embed dim.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.helpers.reference_vit import State, linear

E, HEADS, HIDDEN, BLOCKS, CLASSES, PLANES = 12, 4, 7, 2, 5, 6


@dataclass(frozen=True)
class CompactTwin:
    """CCT of some convolutions, or without any, a CVT or a ViT-Lite of square patches with the kernel's side."""

    image: tuple[int, int] = (8, 8)
    num_convolutions: int = 1
    kernel: int = 3
    stride: int = 1
    has_class_token: bool = False

    def state(self, seed: int = 0) -> State:
        """Return random tensors."""
        widths = (3, *(PLANES,) * (self.num_convolutions - 1), E)
        square = (self.kernel, self.kernel)
        shapes: dict[str, tuple[int, ...]] = {
            f"tokenizer.conv_layers.{i}.0.weight": (outputs, inputs, *square)
            for i, (inputs, outputs) in enumerate(pairwise(widths))
        }
        if not self.num_convolutions:
            shapes |= {"tokenizer.conv_layers.0.0.weight": (E, 3, *square), "tokenizer.conv_layers.0.0.bias": (E,)}
        ends = {"classifier.norm": (E,), "classifier.fc": (CLASSES, E)}
        if self.has_class_token:
            shapes["classifier.class_emb"] = (1, 1, E)
        else:
            ends["classifier.attention_pool"] = (1, E)
        shapes["classifier.positional_emb"] = (1, self.num_tokens, E)
        for l in range(BLOCKS):
            block = f"classifier.blocks.{l}"
            shapes[f"{block}.self_attn.qkv.weight"] = (3 * E, E)
            ends |= {
                f"{block}.self_attn.proj": (E, E),
                f"{block}.linear1": (HIDDEN, E),
                f"{block}.linear2": (E, HIDDEN),
            }
            ends |= {f"{block}.pre_norm": (E,), f"{block}.norm1": (E,)}
        shapes |= {f"{name}.weight": size for name, size in ends.items()}
        shapes |= {f"{name}.bias": size[:1] for name, size in ends.items()}
        generator = torch.Generator().manual_seed(seed)
        return {
            name: ("norm" in name and name.endswith("weight")) + 0.4 * torch.randn(size, generator=generator)
            for name, size in shapes.items()
        }

    @property
    def num_tokens(self) -> int:
        """Number of tokens that the positions are for."""
        divisor = (2 * self.stride) ** self.num_convolutions if self.num_convolutions else self.kernel
        return (self.image[0] // divisor) * (self.image[1] // divisor) + self.has_class_token

    def images(self, count: int = 3) -> Tensor:
        """Return random images."""
        return torch.randn(count, 3, *self.image, generator=torch.Generator().manual_seed(1))

    def logits(self, w: State, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of tensors as `state` makes them."""
        x = self._tokenized(w, images)
        if self.has_class_token:
            x = torch.cat([w["classifier.class_emb"].expand(len(x), -1, -1), x], dim=1)
        x = x + w["classifier.positional_emb"]
        for l in range(BLOCKS):
            block = f"classifier.blocks.{l}"
            x = x + self._attention(w, f"{block}.self_attn", _norm(w, f"{block}.pre_norm", x))
            x = _norm(w, f"{block}.norm1", x)
            x = x + linear(w, f"{block}.linear2", F.gelu(linear(w, f"{block}.linear1", x)))
        x = _norm(w, "classifier.norm", x)
        if self.has_class_token:
            return linear(w, "classifier.fc", x[:, 0])
        scores = F.softmax(linear(w, "classifier.attention_pool", x), dim=1)
        return linear(w, "classifier.fc", torch.matmul(scores.transpose(-1, -2), x).squeeze(-2))

    def _tokenized(self, w: State, x: Tensor) -> Tensor:
        if not self.num_convolutions:
            name = "tokenizer.conv_layers.0.0"
            return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], self.kernel).flatten(2, 3).transpose(-2, -1)
        for i in range(self.num_convolutions):
            weight = w[f"tokenizer.conv_layers.{i}.0.weight"]
            x = F.max_pool2d(F.relu(F.conv2d(x, weight, None, self.stride, self.kernel // 2)), 3, 2, 1)
        return x.flatten(2, 3).transpose(-2, -1)

    def _attention(self, w: State, name: str, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q, k, v = linear(w, f"{name}.qkv", x).reshape(B, N, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)
        scores = ((q @ k.transpose(-2, -1)) * (C // HEADS) ** -0.5).softmax(dim=-1)
        return linear(w, f"{name}.proj", (scores @ v).transpose(1, 2).reshape(B, N, C))


def _norm(w: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, (E,), w[f"{name}.weight"], w[f"{name}.bias"])
