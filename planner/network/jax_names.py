"""Google's ViTs as .npz files of JAX arrays, as timm's tensors: other names, and axes in another order.

Legend: E embed dim, h heads, hd head dim, p patch side, i input channels.

Source:
    The checkpoints of "An image is worth 16x16 words", arXiv 2010.11929 (google-research/vision_transformer).
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from planner.errors import InputError

MARKER = "Transformer/encoder_norm/scale"

_NAMES = {
    "cls": "cls_token",
    "embedding": "patch_embed.proj",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "Transformer/encoder_norm": "norm",
    "head": "head",
}
_IN_BLOCK = {
    "LayerNorm_0": "norm1",
    "LayerNorm_2": "norm2",
    "MlpBlock_3/Dense_0": "mlp.fc1",
    "MlpBlock_3/Dense_1": "mlp.fc2",
    "MultiHeadDotProductAttention_1/query": "attn.q",
    "MultiHeadDotProductAttention_1/key": "attn.k",
    "MultiHeadDotProductAttention_1/value": "attn.v",
    "MultiHeadDotProductAttention_1/out": "attn.proj",
}
_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(.+)")
_ENDS = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def from_jax(path: Path, arrays: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Return the tensors under timm's names, queries, keys and values apart, and the number of heads.

    Raises:
        InputError: If an array belongs to no part of a plain ViT.
    """
    tensors, num_heads = {}, 0
    for name, array in arrays.items():
        ours = _ours(name)
        if ours is None:
            raise InputError(f"{path}: array {name!r} belongs to no part of a plain ViT.")
        if ".attn." in ours and "proj" not in ours:
            num_heads = array.shape[-2]
        tensors[ours] = _reordered(ours, array).contiguous()
    return tensors, num_heads


def _ours(name: str) -> str | None:
    if name in _NAMES:
        return _NAMES[name]
    module, _, end = name.rpartition("/")
    block = _BLOCK.fullmatch(module)
    layer = _NAMES.get(module) if block is None else _IN_BLOCK.get(block[2])
    if layer is None or end not in _ENDS:
        return None
    return f"{layer}.{_ENDS[end]}" if block is None else f"blocks.{block[1]}.{layer}.{_ENDS[end]}"


def _reordered(ours: str, array: Tensor) -> Tensor:
    """Return an array with its axes in torch's order."""
    if ours == "patch_embed.proj.weight":
        return array.permute(3, 2, 0, 1)  # of (p, p, i, E)
    if ours.endswith("attn.proj.weight"):
        return array.flatten(0, 1).T  # of (h, hd, E)
    if ".attn." in ours and ours.endswith("weight"):
        return array.flatten(1).T  # of (E, h, hd)
    if ".attn." in ours and ours.endswith(("q.bias", "k.bias", "v.bias")):
        return array.flatten()  # of (h, hd)
    return array.T if array.ndim == 2 else array
