"""Rewrites of a checkpoint's tensors to those of our network, which change no answer but for rounding.

- Without biases of queries, keys and values, or of the patch embedding before a norm: they are zero.
- LayerScale is folded into the layers before it (`layer_scale`).
- Without positions of prefix tokens: they are zero.
- A norm behind the mean of the patches (`fc_norm`) is our last norm.

Legend: E embed dim, N tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from planner.network.layer_scale import fold_layer_scale
from planner.network.naming_schemes import Scheme


@dataclass(frozen=True)
class Rewritten:
    """Tensors of our network by our names, and what was done to them, in sentences."""

    tensors: dict[str, Tensor]
    norm_after_pooling: bool
    notes: tuple[str, ...]


def rewrite(source: Path, tensors: Mapping[str, Tensor], names: Scheme) -> Rewritten:
    """Return equivalent tensors of our network.

    Args:
        source: The checkpoint, for error messages.
        tensors: Its tensors by our names.
        names: The file's names of our parameters, for error messages.

    Raises:
        InputError: If a LayerScale factor does not fit the layer before it.
    """
    rewritten, num_factors = fold_layer_scale(source, tensors, names)
    notes = [f"Its {num_factors} LayerScale factors are folded into the layers before them."] if num_factors else []
    norm_after_pooling = "fc_norm.weight" in rewritten and "norm.weight" not in rewritten
    if norm_after_pooling:
        for end in ("weight", "bias"):
            if f"fc_norm.{end}" in rewritten:
                rewritten[f"norm.{end}"] = rewritten.pop(f"fc_norm.{end}")
    notes += _with_qkv_biases(rewritten) + _with_patch_bias(rewritten) + _with_positions(rewritten)
    return Rewritten(rewritten, norm_after_pooling, tuple(notes))


def _with_qkv_biases(tensors: dict[str, Tensor]) -> list[str]:
    weights = [name for name in tensors if name.endswith("attn.qkv.weight")]
    biases = [name.removesuffix("weight") + "bias" for name in weights]
    if not weights or any(bias in tensors for bias in biases):
        return []
    for weight, bias in zip(weights, biases, strict=True):
        tensors[bias] = torch.zeros(tensors[weight].shape[:1])
    return ["Queries, keys and values have no bias: it is zero."]


def _with_patch_bias(tensors: dict[str, Tensor]) -> list[str]:
    """Add the bias of the patch embedding, which ViTs with a norm before the first block lack."""
    weight = tensors.get("patch_embed.proj.weight")
    if weight is None or "norm_pre.weight" not in tensors or "patch_embed.proj.bias" in tensors:
        return []
    tensors["patch_embed.proj.bias"] = torch.zeros(weight.shape[:1])
    return ["Its patch embedding has no bias: it is zero."]


def _with_positions(tensors: dict[str, Tensor]) -> list[str]:
    """Add rows of zeros to the positions (1, N, E) for prefix tokens that have none."""
    positions = tensors.get("pos_embed")
    if positions is None or positions.ndim != 3:
        return []
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors and tensors["reg_token"].ndim == 3 else 0
    single = sum(name in tensors for name in ("cls_token", "dist_token"))
    rows = positions.shape[1]
    if _is_square(rows - single - registers):
        return []
    zeros = torch.zeros(1, registers, positions.shape[2])
    if registers and _is_square(rows - single):
        tensors["pos_embed"] = torch.cat([positions[:, :single], zeros, positions[:, single:]], dim=1)
        return ["Its register tokens have no positions: they are zero."]
    if _is_square(rows):
        missing = torch.zeros(1, single + registers, positions.shape[2])
        tensors["pos_embed"] = torch.cat([missing, positions], dim=1)
        return ["Its prefix tokens have no positions: they are zero."]
    return []


def _is_square(number: int) -> bool:
    return number > 1 and math.isqrt(number) ** 2 == number
