"""Peak memory of a sub-model in ONNX Runtime, beyond its weights: a closed form.

For models of ViT-Tiny's size and up it was never below the measured peak (docs/memory.md). It holds for the files of
`planner.network.export` in a session of `planner.runtime.device.session`: one image, float32, one thread. There a
tensor lives from the operator that makes it to the last one that reads it, weights are held once, and the peak is

    weights + image + padding + ARENA x (maximum of bytes in tensors alive at once)

Alive at once, beside the residual stream x (N E):
    attention  qkv before and after its bias is added: 6 N hd for each head; or Q, K, V and the scores, 3 N hd + N N
    stem       a convolution's input and output, or its output before and after its activation, if there is a stem
    MLP        rows of fc1 before and after the next operator: 2 N for each channel, 4 N where it has a gate and a value
    any half   its input's norm, or its output before and after the residual sum: at most 3 N E with x

The profile's formula has one term per head and one per channel, of the half that needs more; everything that does not
grow with them is in the fixed term. The padding of weights adds up over all kept heads and channels.

Two constants were measured, on ONNX Runtime 1.31 (docs/memory.md states their errors): the ratio of the memory that
the arena touches to the tensors alive at once, and the padding of weights that its kernels pack.

The memory of a session for the nodes of a block (140 KiB here, whatever the block's size) is not counted: it belongs
to the runtime's overhead, which a device states, since other runtimes hold less. ONNX Runtime's default overhead has
room for hundreds of blocks.

Limits: a network without any head is counted as if it had one, and missing halves as if they existed: too much, never
too little. Below a few MiB the arena's factor and missing halves weigh more, up to a quarter too much and more; below
one MiB, two runs of the same process differ by a tenth. For int8 the same coefficients were up to 14 % too low: a plan
counts one byte for every parameter, but embeddings, norms and biases stay float32.

Legend: N tokens, E embed dim, h heads, hd head dim, c hidden channels, L blocks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planner.network.vit import Shape

# The arena touches up to this multiple of the tensors alive at once: its chunks are split, freed and not merged again.
ARENA = 2
# Largest buffer in which the patch embedding gathers pixels.
CONVOLUTION_BYTES = 64 * 1024
# Kernels pack the columns of a weight matrix in groups of this many.
PACKED_COLUMNS = 16

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class ActivationMemory:
    """Coefficients [bytes] of the peak.

    It is fixed + max_l max(per_head h_l, per_channel c_l) + sum_l (head_padding h_l + channel_padding c_l).
    """

    fixed: int
    per_head: int
    per_channel: int
    head_padding: int = 0
    channel_padding: int = 0

    def peak(self, heads: Sequence[int], channels: Sequence[int]) -> int:
        """Return the peak [bytes] of a network with these numbers of heads and channels of each block."""
        largest = max(self.per_head * max(heads), self.per_channel * max(channels))
        return self.fixed + largest + self.head_padding * sum(heads) + self.channel_padding * sum(channels)


def activation_memory(whole: Shape) -> ActivationMemory:
    """Return the memory of sub-models of this embed dim beyond weights and the runtime's overhead, for one image.

    Args:
        whole: Shape of the model with all its heads and channels, at the sub-models' embed dim.
    """
    head, channel = _head_bytes(whole), _channel_bytes(whole)
    image = whole.in_channels * math.prod(whole.image_sides) * _FLOAT_BYTES
    stream = max(_stream_bytes(whole), _stem_bytes(whole))
    tensors = max(math.ceil(ARENA * stream), _tokens_bytes(whole) + min(image, CONVOLUTION_BYTES))
    # The columns of proj and fc2 are embed dims, their rows are units.
    row_padding = -whole.embed_dim % PACKED_COLUMNS * _FLOAT_BYTES
    return ActivationMemory(
        fixed=image + tensors + _padding_bytes(whole),
        per_head=math.ceil(ARENA * head),
        per_channel=math.ceil(ARENA * channel),
        head_padding=whole.head_dim * row_padding,
        channel_padding=row_padding,
    )


def _tokens_bytes(shape: Shape) -> int:
    return shape.num_tokens * shape.embed_dim * _FLOAT_BYTES


def _head_bytes(shape: Shape) -> int:
    """Return the bytes alive for each head: around the bias of qkv, or around the scores, whichever are more."""
    N, hd = shape.num_tokens, shape.head_dim
    return max(6 * N * hd, 3 * N * hd + N * N) * _FLOAT_BYTES


def _channel_bytes(shape: Shape) -> int:
    """Return the bytes alive for each hidden channel: its rows of fc1 before and after the bias or the GELU."""
    return 2 * shape.rows_per_channel * shape.num_tokens * _FLOAT_BYTES


def _stem_bytes(shape: Shape) -> int:
    """Return the bytes alive in the stem: a convolution's input and output, or that before and after its activation."""
    largest, before = 0, shape.in_channels * math.prod(shape.image_sides)
    for stage in shape.stem.stages(shape.image_sides):
        after = stage.outputs * math.prod(stage.sides)
        largest = max(largest, before + after, 2 * after)
        before = stage.outputs * math.prod(stage.sides_left)
    return largest * _FLOAT_BYTES


def _stream_bytes(shape: Shape) -> int:
    """Return the bytes alive in residual stream, norms and a half's outputs, beyond those counted for units.

    Every network is counted with a head, whose bytes are free for the stream wherever attention is not computed.
    """
    tokens, head = _tokens_bytes(shape), _head_bytes(shape)
    qkv = 3 * shape.num_tokens * shape.head_dim * _FLOAT_BYTES
    return max(
        tokens,
        # At the residual sum: x, the half's output, their sum.
        3 * tokens - head,
        # At the first product of each half: x, its norm, and qkv of one head; or channels of the same size.
        2 * tokens + qkv - head,
        2 * tokens - head // 2,
    )


def _padding_bytes(shape: Shape) -> int:
    """Return an upper bound on the bytes that packing adds to the weights into the units of all blocks."""
    max_padding = PACKED_COLUMNS - 1
    # The columns of qkv and fc1 are units, of which pruning may leave any number.
    columns = max_padding * (shape.head_dim % PACKED_COLUMNS > 0) + max_padding
    return shape.depth * columns * shape.embed_dim * _FLOAT_BYTES
