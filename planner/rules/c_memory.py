"""Memory of a sub-model in the C engine: the arena that its code works in, and the constants of its model.c.

The generator of model.c takes the arena from here, so that what is planned is what the code has. In floats:

    arena     = N E + max(attention, T (E + r c), embedding, pooling)
    attention = N E + 2 N D + T (N + D)    normed tokens; keys and values of one head; its queries and scores; 0 without
                                           any head
    embedding = T P, P values of a patch; with a stem also the maps before and behind a convolution (`embedding_floats`)
    pooling   = N                          scores of the tokens; 0 where pooling has no weights

The tokens (N E) are there from first to last. The tile T is what is computed together at least: where the arena has
room for more tokens, an MLP or the embedding takes more at a time.

Weights are exact but for the alignment of arrays. In int8 every matrix has a byte for each weight and a scale for each
output; tokens, biases, norms and scales are float32. The head layer is not on the device.

Legend: N tokens, E embed dim, D head dim, c hidden channels of the largest block, r rows of fc1 for each (2 in a gated
MLP), P values of a patch, T tile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from planner.errors import InputError
from planner.schema import Precision
from planner.schema.architecture import Stem

# Measured for a Cortex-M7 at -O2: kernels.c, vit.c and what they need of the C library. With other cores that have an
# FPU it is within 0.4 KiB of this; software for floats takes 5 KiB more.
C_CODE_BYTES = 12288
# Of one call of the engine, at most 0.8 KiB as measured; interrupts are not counted.
C_STACK_BYTES = 1024

_FLOAT_BYTES = 4
_MAX_BYTES = 2**31
# Tokens whose queries are in memory at once: more for the vectors of larger processors, where they are little of it.
_TILE, _LARGE_TILE, _MANY_TOKENS = 4, 16, 64
# Structs of 32-bit words that say where the arrays are.
_MODEL_BYTES, _STEM_BYTES, _BLOCK_BYTES, _LINEAR_BYTES, _NORM_BYTES = 132, 20, 104, 20, 8


@dataclass(frozen=True)
class CSizes:
    """Sizes of a network in the C engine, but for its heads and channels.

    Attributes:
        num_tokens: Tokens, prefix tokens included.
        embed_dim: Width of a token.
        head_dim: Width of a head.
        stem: Convolutions before the patches.
        image_sides: Height and width of the image [pixels].
        patch_sides: Height and width of what is projected of each patch: all of it, or what a stem leaves of it.
        norm_before_blocks: True if a norm comes before the first block.
        rows_per_channel: Rows of fc1 for each hidden channel.
        qk_norm_size: Parameters of the norms of queries and keys in a block; 0 without.
        norm_between_halves: True if blocks normalise the stream between their halves.
        has_sequence_pooling: True if pooling has weights.
    """

    num_tokens: int
    embed_dim: int
    head_dim: int
    stem: Stem
    image_sides: tuple[int, int]
    patch_sides: tuple[int, int]
    norm_before_blocks: bool = False
    rows_per_channel: int = 1
    qk_norm_size: int = 0
    norm_between_halves: bool = False
    has_sequence_pooling: bool = False

    @property
    def tile(self) -> int:
        """Number of tokens that are computed together at least."""
        return min(self.num_tokens, _TILE if self.num_tokens < _MANY_TOKENS else _LARGE_TILE)

    @property
    def patch_values(self) -> int:
        """Number of values that a patch's token is projected from."""
        return self.stem.channels[-1] * math.prod(self.patch_sides)

    @property
    def embedding_floats(self) -> int:
        """Number of floats that the embedding needs beside the tokens.

        A convolution needs its input, its output and some windows; the projection its input and some patches. The image
        itself is read where it lies.
        """
        (height, width), largest, before = self.image_sides, 0, 0
        for stage in self.stem.stages(self.image_sides):
            windows = min(self.tile, math.prod(stage.sides)) * self.stem.kernel**2 * stage.inputs
            largest = max(largest, before + math.prod(stage.sides) * stage.outputs + windows)
            height, width = stage.sides_left
            before = height * width * stage.outputs
        num_patches = (height // self.patch_sides[0]) * (width // self.patch_sides[1])
        return max(largest, before + min(self.tile, num_patches) * self.patch_values)


class CActivations(NamedTuple):
    """Bytes of the arena: fixed + max(least, per_channel c), c hidden channels of the largest block."""

    fixed: int
    least: int
    per_channel: int


class CWeights(NamedTuple):
    """Bytes of constants: of a network that has all its halves, for each missing half, each head and each channel."""

    fixed: int
    per_attention_half: int
    per_mlp_half: int
    per_head: int
    per_channel: int


def c_activations(sizes: CSizes, has_heads: bool = True) -> CActivations:
    """Return the arena of sub-models of these sizes.

    Args:
        sizes: Sizes of the network.
        has_heads: False for a sub-model without any head, which computes no attention.
    """
    N, E, D, T = sizes.num_tokens, sizes.embed_dim, sizes.head_dim, sizes.tile
    attention = N * E + 2 * N * D + T * (N + D) if has_heads else 0
    pooling = N if sizes.has_sequence_pooling else 0
    least = max(attention, sizes.embedding_floats, pooling) - T * E
    return CActivations(
        fixed=(N + T) * E * _FLOAT_BYTES,
        least=max(0, least) * _FLOAT_BYTES,
        per_channel=T * sizes.rows_per_channel * _FLOAT_BYTES,
    )


def c_arena_bytes(sizes: CSizes, heads: Sequence[int], channels: Sequence[int]) -> int:
    """Return the arena [bytes] of a sub-model with these numbers of heads and hidden channels of each block.

    Raises:
        InputError: If it is too large to be addressed.
    """
    fixed, least, per_channel = c_activations(sizes, has_heads=any(heads))
    size = fixed + max(least, per_channel * max(channels, default=0))
    if size >= _MAX_BYTES:
        raise InputError(f"The C engine needs an arena below {_MAX_BYTES} bytes, got {size}: plan a smaller sub-model.")
    return size


def c_weights(sizes: CSizes, num_blocks: int, precision: Precision) -> CWeights:
    """Return the constants of model.c for sub-models of these sizes.

    Raises:
        InputError: If the engine does not have the precision.
    """
    E, D = sizes.embed_dim, sizes.head_dim
    norms = 1 + sizes.norm_before_blocks
    matrix, scale = _matrix_bytes(precision)
    stem_bytes = sum(
        stage.outputs * (sizes.stem.kernel**2 * stage.inputs * matrix + scale + _FLOAT_BYTES)
        for stage in sizes.stem.stages(sizes.image_sides)
    )
    output_bias, norm = E * (_FLOAT_BYTES + scale), 2 * E * _FLOAT_BYTES
    mlp_half = output_bias + norm
    attention_half = mlp_half + sizes.qk_norm_size * _FLOAT_BYTES
    rows = sizes.rows_per_channel
    ends = (
        stem_bytes
        + E * (sizes.patch_values * matrix + scale)
        + (sizes.num_tokens * E + norms * 2 * E + 2 * sizes.stem.channels[0]) * _FLOAT_BYTES
        + sizes.has_sequence_pooling * (E * matrix + scale + _FLOAT_BYTES)
    )
    return CWeights(
        fixed=ends + num_blocks * (attention_half + mlp_half) + c_struct_bytes(sizes, num_blocks),
        per_attention_half=attention_half,
        # A norm of the stream stays where its MLP is missing.
        per_mlp_half=output_bias if sizes.norm_between_halves else mlp_half,
        per_head=4 * D * E * matrix + 3 * D * (scale + _FLOAT_BYTES),
        per_channel=(rows + 1) * E * matrix + rows * (scale + _FLOAT_BYTES),
    )


def c_struct_bytes(sizes: CSizes, num_blocks: int) -> int:
    """Return the bytes of the structs that say where a sub-model's arrays are."""
    convolutions = len(sizes.stem.channels) - 1
    layers = (convolutions + sizes.has_sequence_pooling) * _LINEAR_BYTES + (convolutions > 0) * _STEM_BYTES
    norms = sizes.norm_before_blocks + (2 * num_blocks if sizes.qk_norm_size else 0)
    return _MODEL_BYTES + num_blocks * _BLOCK_BYTES + layers + norms * _NORM_BYTES


def c_weight_bytes(sizes: CSizes, heads: Sequence[int], channels: Sequence[int], precision: Precision) -> int:
    """Return the constants of model.c [bytes] for a sub-model with these numbers of heads and channels of each block.

    Raises:
        InputError: If the engine does not have the precision.
    """
    weights = c_weights(sizes, len(heads), precision)
    missing = weights.per_attention_half * heads.count(0) + weights.per_mlp_half * channels.count(0)
    return weights.fixed - missing + weights.per_head * sum(heads) + weights.per_channel * sum(channels)


def _matrix_bytes(precision: Precision) -> tuple[int, int]:
    """Return the bytes of each weight of a matrix, and of the scale of each of its outputs."""
    if precision == "float32":
        return _FLOAT_BYTES, 0
    if precision == "int8":
        return 1, _FLOAT_BYTES
    raise InputError(f"The C engine has weights of float32 and int8, got precision {precision!r}.")
