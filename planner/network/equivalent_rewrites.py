"""Rewrites of a checkpoint's tensors to those of our network, which change no answer but for rounding.

- Layers without biases, or keys without, or a patch embedding without one before a norm: they are zero.
- LayerScale is folded into the layers before it (`layer_scale`).
- Without positions of prefix tokens: they are zero.
- Convolutions of a tokenizer without biases, and without a projection behind them: zero, and the identity.
- A norm behind the mean of the patches (`fc_norm`) is our last norm.
- Gates of a gated MLP come before the values.

Legend: E embed dim, N tokens.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from planner.network.compact_transformers import with_projection
from planner.network.layer_scale import fold_layer_scale
from planner.network.naming_schemes import Scheme

_LAYERS = {
    "attn.qkv": "Queries, keys and values have no bias",
    "attn.proj": "The layers behind attention have no bias",
    "mlp.fc1": "The first layers of the MLPs have no bias",
    "mlp.fc2": "The last layers of the MLPs have no bias",
}
_QUERY_BIAS = re.compile(r"(blocks\.\d+\.attn\.)(q_bias|q_proj\.bias)")


@dataclass(frozen=True)
class Rewritten:
    """Tensors of our network by our names, and what was done to them, in sentences."""

    tensors: dict[str, Tensor]
    norm_after_pooling: bool
    notes: tuple[str, ...]


def with_key_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file in which keys alone have no bias, as in EVA and BEiT, with biases of zero for them.

    Args:
        tensors: The file's tensors; biases of queries and values are apart, their weights together or apart.
    """
    complete = dict(tensors)
    for name, bias in tensors.items():
        found = _QUERY_BIAS.fullmatch(name)
        if found is None:
            continue
        attention = found[1]
        if found[2] == "q_proj.bias":
            complete.setdefault(f"{attention}k_proj.bias", torch.zeros_like(bias))
        elif f"{attention}v_bias" in tensors:
            values = complete.pop(f"{attention}v_bias")
            complete[f"{attention}qkv.bias"] = torch.cat([complete.pop(name), torch.zeros_like(bias), values])
    return complete


def rewrite(
    source: Path,
    tensors: Mapping[str, Tensor],
    names: Scheme,
    image_size: tuple[int, int] | None = None,
    has_gates_last: bool = False,
) -> Rewritten:
    """Return equivalent tensors of our network.

    Args:
        source: The checkpoint, for error messages.
        tensors: Its tensors by our names.
        names: The file's names of our parameters, for error messages.
        image_size: Height and width of the image [pixels], if they are known; else it is a square.
        has_gates_last: True if fc1 of a gated MLP has all values before all gates.

    Raises:
        InputError: If a LayerScale factor does not fit the layer before it.
    """
    complete = dict(tensors)
    notes = _with_biases(complete) + _with_patch_bias(complete) + with_projection(complete)
    rewritten, num_factors = fold_layer_scale(source, complete, names)
    notes += [f"Its {num_factors} LayerScale factors are folded into the layers before them."] if num_factors else []
    norm_after_pooling = "fc_norm.weight" in rewritten and "norm.weight" not in rewritten
    if norm_after_pooling:
        for end in ("weight", "bias"):
            if f"fc_norm.{end}" in rewritten:
                rewritten[f"norm.{end}"] = rewritten.pop(f"fc_norm.{end}")
    notes += _with_positions(rewritten, image_size)
    if has_gates_last:
        for name in rewritten:
            if ".mlp.fc1." in name:
                rewritten[name] = rewritten[name].roll(len(rewritten[name]) // 2, dims=0)
    return Rewritten(rewritten, norm_after_pooling, tuple(notes))


def _with_biases(tensors: dict[str, Tensor]) -> list[str]:
    """Add the biases that a layer lacks in all blocks."""
    notes = []
    for layer, note in _LAYERS.items():
        weights = [name for name in tensors if name.startswith("blocks.") and name.endswith(f"{layer}.weight")]
        biases = [name.removesuffix("weight") + "bias" for name in weights]
        if weights and not any(bias in tensors for bias in biases):
            tensors.update({b: torch.zeros(tensors[w].shape[:1]) for w, b in zip(weights, biases, strict=True)})
            notes.append(f"{note}: it is zero.")
    return notes


def _with_patch_bias(tensors: dict[str, Tensor]) -> list[str]:
    """Add the bias of the patch embedding, which ViTs with a norm before the first block lack."""
    weight = tensors.get("patch_embed.proj.weight")
    if weight is None or "norm_pre.weight" not in tensors or "patch_embed.proj.bias" in tensors:
        return []
    tensors["patch_embed.proj.bias"] = torch.zeros(weight.shape[:1])
    return ["Its patch embedding has no bias: it is zero."]


def _with_positions(tensors: dict[str, Tensor], image_size: tuple[int, int] | None) -> list[str]:
    """Add rows of zeros to the positions (1, N, E) for prefix tokens that have none."""
    positions = tensors.get("pos_embed")
    if positions is None or positions.ndim != 3:
        return []
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors and tensors["reg_token"].ndim == 3 else 0
    single = sum(name in tensors for name in ("cls_token", "dist_token"))
    rows, num_patches = positions.shape[1], _num_patches(tensors, image_size)

    def are_patches(number: int) -> bool:
        return number == num_patches or (num_patches is None and number > 1 and math.isqrt(number) ** 2 == number)

    if are_patches(rows - single - registers):
        return []
    zeros = torch.zeros(1, registers, positions.shape[2])
    if registers and are_patches(rows - single):
        tensors["pos_embed"] = torch.cat([positions[:, :single], zeros, positions[:, single:]], dim=1)
        return ["Its register tokens have no positions: they are zero."]
    if are_patches(rows):
        missing = torch.zeros(1, single + registers, positions.shape[2])
        tensors["pos_embed"] = torch.cat([missing, positions], dim=1)
        return ["Its prefix tokens have no positions: they are zero."]
    return []


def _num_patches(tensors: Mapping[str, Tensor], image_size: tuple[int, int] | None) -> int | None:
    """Return the number of patches of an image of a known size."""
    weight = tensors.get("patch_embed.proj.weight")
    if image_size is None or weight is None or weight.ndim != 4:
        return None
    return math.prod(side // patch for side, patch in zip(image_size, weight.shape[2:], strict=True))
