"""Architecture of a ViT, read off the shapes of its tensors."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from planner.errors import InputError, setting
from planner.network.naming_schemes import Scheme, in_file
from planner.schema.architecture import Pooling, QkNorm, Stem

# Of the ViTs of embed dim 192, 384, 768 and 1024.
_USUAL_HEAD_DIM = 64


class TensorShapes:
    """Shapes of a checkpoint's tensors by our names; messages have the file's."""

    def __init__(self, source: Path, tensors: Mapping[str, Tensor], names: Scheme) -> None:
        self.source, self._tensors, self._names = source, tensors, names

    def has(self, ours: str) -> bool:
        """Return whether there is such a tensor."""
        return ours in self._tensors

    def of(self, ours: str, ndim: int) -> tuple[int, ...]:
        """Return a tensor's shape.

        Raises:
            InputError: If it is missing, or has another number of dimensions.
        """
        if ours not in self._tensors:
            missing = [part for part in in_file(self._names, ours) if part not in self._tensors]
            raise InputError(f"{self.source}: tensor {(missing or [ours])[0]!r} is missing.")
        shape = tuple(self._tensors[ours].shape)
        if len(shape) != ndim or 0 in shape:
            raise InputError(f"{self.source}: tensor {self.name(ours)} must have {ndim} dimensions, got shape {shape}.")
        return shape

    def name(self, ours: str) -> str:
        """Return a tensor's name in the file, quoted; of one that is made of three, all of them."""
        return " with ".join(map(repr, in_file(self._names, ours)))


def read_architecture(
    shapes: TensorShapes,
    num_heads: int | None,
    image_size: tuple[int, int] | None,
    norm_after_pooling: bool,
    pooling: Pooling | None,
    implied: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the fields of a card's architecture that shapes show, beside those that are implied.

    Args:
        shapes: Shapes of the tensors.
        num_heads: Heads of each block, if they are known.
        image_size: Height and width of the image [pixels], if they are known; else it is a square.
        norm_after_pooling: Whether the last norm is applied to the mean of the patches.
        pooling: What the head layer reads, if it is known; else the class token where there is one.
        implied: Fields that follow from the names of the tensors.

    Raises:
        InputError: If a tensor is missing or of a shape that our network cannot have.
    """
    embed_dim, _, *projected = shapes.of("patch_embed.proj.weight", 4)
    stem = _stem(shapes, implied)
    patch = (projected[0] * stem.reduction, projected[1] * stem.reduction)
    shapes.of("blocks.0.norm1.weight", 1)
    depth = 0
    while shapes.has(f"blocks.{depth}.norm1.weight"):
        depth += 1
    inner_dim = shapes.of("blocks.0.attn.qkv.weight", 2)[0] // 3
    num_heads = _checked_heads(shapes, num_heads, inner_dim)
    class_token, distilled = shapes.has("cls_token"), shapes.has("dist_token")
    if distilled and not shapes.has("head_dist.weight"):
        raise InputError(
            f"{shapes.source}: has a distillation token, but no head layer for it "
            f"({shapes.name('head_dist.weight')}): a model with two tokens and one head layer cannot be run."
        )
    registers = shapes.of("reg_token", 3)[1] if shapes.has("reg_token") else 0
    # A norm of the one token that is read is the same before and behind its choice.
    norm_after_pooling = norm_after_pooling and pooling != "class_token"
    if shapes.has("attention_pool.weight"):
        pooling = "sequence"
    elif norm_after_pooling or not class_token:
        pooling = "mean"
    sides = _image_sides(shapes, class_token + distilled + registers, patch, image_size)
    return {
        **implied,
        "image_size": _short(sides),
        "patch_size": _short(patch),
        "in_channels": stem.channels[0],
        "stem_channels": stem.channels[1:],
        "stem_kernel": stem.kernel,
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": num_heads,
        "head_dim": inner_dim // num_heads,
        **_mlp(shapes),
        "qk_norm": _qk_norm(shapes),
        "distilled": distilled,
        "class_token": class_token,
        "register_tokens": registers,
        "pooling": pooling or "class_token",
        "norm_after_pooling": norm_after_pooling,
        "norm_before_blocks": shapes.has("norm_pre.weight"),
    }


def _stem(shapes: TensorShapes, implied: Mapping[str, Any]) -> Stem:
    """Return the convolutions before the patches, whose strides and pooling are implied."""
    weights: list[tuple[int, ...]] = []
    while shapes.has(name := f"patch_embed.stem.{len(weights)}.weight"):
        weights.append(shapes.of(name, 4))
    if not weights:
        return Stem((shapes.of("patch_embed.proj.weight", 4)[1],))
    channels = (weights[0][1], *(outputs for outputs, *_ in weights))
    return Stem(channels, weights[0][3], implied.get("stem_stride", 2), implied.get("stem_max_pool", False))


def _mlp(shapes: TensorShapes) -> dict[str, int | bool]:
    """Return the hidden channels of the MLPs, which are gated where fc1 has two rows for each column of fc2."""
    rows, columns = shapes.of("blocks.0.mlp.fc1.weight", 2)[0], shapes.of("blocks.0.mlp.fc2.weight", 2)[1]
    is_gated = rows == 2 * columns
    return {"hidden_dim": columns if is_gated else rows, "gated_mlp": is_gated}


def _qk_norm(shapes: TensorShapes) -> QkNorm | None:
    """Return the norm of queries and keys, an RMS norm where it has no bias."""
    if not shapes.has("blocks.0.attn.q_norm.weight"):
        return None
    return "layer_norm" if shapes.has("blocks.0.attn.q_norm.bias") else "rms_norm"


def _short(sides: tuple[int, int]) -> int | tuple[int, int]:
    """Return the one side of a square, or both."""
    return sides[0] if sides[0] == sides[1] else sides


def with_patches(source: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors whose patch embedding is a convolution, made of a linear layer over flattened patches if need be.

    Columns of a linear layer are taken for channel, row and column of a patch, in this order.

    Args:
        source: The checkpoint, for error messages.
        tensors: Its tensors by our names.

    Raises:
        InputError: If no square patch of 1 or 3 channels has so many pixels.
    """
    weight = tensors.get("patch_embed.proj.weight")
    if weight is None or weight.ndim != 2:
        return tensors
    columns = weight.shape[1]
    for in_channels in (3, 1):
        side = math.isqrt(columns // in_channels)
        if side > 0 and in_channels * side**2 == columns:
            return tensors | {"patch_embed.proj.weight": weight.reshape(-1, in_channels, side, side)}
    raise InputError(f"{source}: a linear patch embedding must have 3 or 1 times a square of columns, got {columns}.")


def _image_sides(
    shapes: TensorShapes, num_prefix: int, patch: tuple[int, int], image_size: tuple[int, int] | None
) -> tuple[int, int]:
    """Return height and width of the image [pixels], whose patches must be as many as there are positions."""
    num_tokens = shapes.of("pos_embed", 3)[1]
    num_patches = num_tokens - num_prefix
    side = math.isqrt(max(0, num_patches))
    if image_size is not None:
        expected = math.prod(pixels // of_patch for pixels, of_patch in zip(image_size, patch, strict=True))
        if expected != num_patches:
            raise InputError(
                f"{shapes.source}: tensor {shapes.name('pos_embed')} must have {num_prefix} + {expected} tokens for "
                f"images of {_x(image_size)} and patches of {_x(patch)} pixels, got {num_tokens}."
            )
        return image_size
    if side == 0 or side**2 != num_patches:
        raise InputError(
            f"{shapes.source}: tensor {shapes.name('pos_embed')} must have {num_prefix} + a square of tokens, "
            f"got {num_tokens}; if images are no squares, give their height and width as "
            f"{setting('image_size', _x(_rectangle(num_patches, patch)))}, or whatever it is."
        )
    return side * patch[0], side * patch[1]


def _rectangle(num_patches: int, patch: tuple[int, int]) -> tuple[int, int]:
    """Return the sides of the image of so many patches that is nearest to a square of patches."""
    count = max(1, num_patches)
    rows = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    return rows * patch[0], count // rows * patch[1]


def _x(sides: tuple[int, int]) -> str:
    return f"{sides[0]}x{sides[1]}"


def _checked_heads(shapes: TensorShapes, num_heads: int | None, inner_dim: int) -> int:
    """Return the number of heads, which norms of queries show, or which must have been given."""
    source = shapes.source
    if shapes.has("blocks.0.attn.q_norm.weight"):
        head_dim = shapes.of("blocks.0.attn.q_norm.weight", 1)[0]
        shown, rest = divmod(inner_dim, head_dim)
        if rest or num_heads not in (None, shown):
            raise InputError(
                f"{source}: {setting('num_heads')} must be the width of the queries, {inner_dim}, divided by that of "
                f"their norm, {head_dim}, got {'none that does' if rest else num_heads}."
            )
        return shown
    if num_heads is None:
        usual = inner_dim // _USUAL_HEAD_DIM
        hint = (
            f"; with the usual head dim of {_USUAL_HEAD_DIM} it would be {setting('num_heads', usual)}"
            if inner_dim % _USUAL_HEAD_DIM == 0
            else ""
        )
        raise InputError(
            f"{source}: the number of heads does not show in the weights: give it as {setting('num_heads')}{hint}."
        )
    if num_heads < 1 or inner_dim % num_heads:
        raise InputError(
            f"{source}: {setting('num_heads')} must divide {inner_dim}, the width of the queries, got {num_heads}."
        )
    return num_heads
