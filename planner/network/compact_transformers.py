"""Compact Transformers as their authors write them: CCT, with a tokenizer of convolutions; CVT and ViT-Lite, without.

Names say what neither tensors nor shapes do: the stream is normalised between the halves of a block, and behind each
convolution of a tokenizer come a ReLU and a max pooling of 3x3 values. Strides follow from the kernels, as the authors
have it, unless the image's size says otherwise. A tokenizer ends in its last convolution: the projection that ours has
behind it is the identity.

Source:
    Hassani et al., arXiv 2104.05704.
"""

import math
from typing import Any

import torch
from torch import Tensor

from planner.errors import InputError
from planner.network.read_architecture import TensorShapes

# Tensor that only they have.
COMPACT_MARKER = "classifier.blocks.0.pre_norm.weight"
LAYER_NORM_EPS = 1e-5

_STEM, _PROJECTION, _POSITIONS = "patch_embed.stem", "patch_embed.proj", "pos_embed"
_STRIDES = (1, 2)


def implied_architecture(shapes: TensorShapes, image_size: tuple[int, int] | None) -> dict[str, Any]:
    """Return the fields of a card's architecture that follow from the names.

    Args:
        shapes: Shapes of the tensors by our names.
        image_size: Height and width of the image [pixels], if they are known; else strides are those of the kernels.

    Raises:
        InputError: If there are no positions, from whose number the image's size is read, or a shape is wrong.
    """
    if not shapes.has(_POSITIONS):
        raise InputError(
            f"{shapes.source}: must have positions (classifier.positional_emb), got a Compact Transformer without: add "
            "zeros (1, tokens, width) of that name."
        )
    fields: dict[str, Any] = {"norm_between_halves": True}
    depth = 0
    while shapes.has(f"{_STEM}.{depth}.weight"):
        depth += 1
    if depth:
        usual = max(1, shapes.of(f"{_STEM}.0.weight", 4)[3] // 2 - 1)
        num_tokens = shapes.of(_POSITIONS, 3)[1] - shapes.has("cls_token")
        fields |= {"stem_max_pool": True, "stem_stride": _stride(usual, depth, num_tokens, image_size)}
    return fields


def _stride(usual: int, depth: int, num_tokens: int, image_size: tuple[int, int] | None) -> int:
    """Return the stride of the convolutions that leaves so many tokens of an image; the usual one where none does."""
    if image_size is not None:
        for stride in (usual, *_STRIDES):
            if math.prod(side // (2 * stride) ** depth for side in image_size) == num_tokens:
                return stride
    return usual


def with_projection(tensors: dict[str, Tensor]) -> list[str]:
    """Add the biases that a tokenizer's convolutions lack, and the projection behind them; return what was done."""
    if f"{_PROJECTION}.weight" in tensors:
        return []
    depth = 0
    while (weight := tensors.get(f"{_STEM}.{depth}.weight")) is not None and weight.ndim == 4:
        tensors.setdefault(f"{_STEM}.{depth}.bias", torch.zeros(len(weight)))
        depth += 1
    if not depth:
        return []
    width = len(tensors[f"{_STEM}.{depth - 1}.weight"])
    tensors[f"{_PROJECTION}.weight"] = torch.eye(width)[:, :, None, None]
    tensors[f"{_PROJECTION}.bias"] = torch.zeros(width)
    return ["Its tokenizer's convolutions have no biases: they are zero; the projection behind them is the identity."]
