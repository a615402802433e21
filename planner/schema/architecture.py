"""Sizes and kinds of the parts of a ViT, or of a CCT, as a card states them.

Source:
    CCT, and pooling of a sequence of tokens: Hassani et al., arXiv 2104.05704.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from planner.schema.base import Frozen
from planner.schema.data import Sides, height_and_width
from planner.schema.quantities import MAX_PARAMS, Channels, Depth, Dim, Heads, HiddenDim

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "sigmoid"]
Pooling = Literal["class_token", "mean", "sequence"]
QkNorm = Literal["layer_norm", "rms_norm"]
StemKernel = Literal[3, 5, 7]
StemStride = Literal[1, 2]


class StemStage(NamedTuple):
    """Convolution of a stem: its input and output channels, and the sides of its outputs, before and behind pooling."""

    inputs: int
    outputs: int
    sides: tuple[int, int]
    sides_left: tuple[int, int]


class Stem(NamedTuple):
    """Convolutions before the patches, padded by half their kernel, each followed by a GELU.

    With max pooling, a ReLU takes the GELU's place, and a pooling of 3x3 values that halves the sides comes behind it.
    """

    channels: tuple[int, ...]
    """Channels of the image and behind each convolution."""
    kernel: int = 3
    stride: int = 2
    max_pool: bool = False

    @property
    def factor(self) -> int:
        """Number by which each convolution, with its pooling, divides the sides of the image."""
        return self.stride * (1 + self.max_pool)

    @property
    def reduction(self) -> int:
        """Number by which all of them together divide the sides of the image."""
        return int(self.factor ** (len(self.channels) - 1))

    def stages(self, image_sides: tuple[int, int]) -> Iterator[StemStage]:
        """Yield the convolutions on an image of these sides [pixels], from first to last."""
        height, width = image_sides
        for inputs, outputs in pairwise(self.channels):
            sides = height // self.stride, width // self.stride
            height, width = height // self.factor, width // self.factor
            yield StemStage(inputs, outputs, sides, (height, width))


class Architecture(Frozen):
    """Sizes of a ViT. A distilled one has a second token and head layer, as DeiT's do.

    With `stem_channels`, a convolutional stem comes first: each of its convolutions divides the sides of the image, and
    the remainder of each patch is projected. A CCT has one with max pooling that leaves one value of each patch, norms
    between the halves of its blocks, and pooling of the sequence.
    """

    image_size: Sides
    """Side of the image, or its height and width [pixels]."""
    patch_size: Sides
    """Side of a patch, or its height and width [pixels]; they divide those of the image."""
    in_channels: Channels
    """Colour channels of the image: 1 or 3."""
    embed_dim: Dim
    """Width of a token, that is, of the residual stream."""
    depth: Depth
    """Number of blocks."""
    num_heads: Heads
    """Attention heads of each block."""
    head_dim: Dim
    """Width of a head."""
    hidden_dim: HiddenDim
    """Hidden channels of each block's MLP; in a gated one each has a gate and a value."""
    distilled: bool = False
    """True if the model has a distillation token and a head layer for it."""
    layer_norm_eps: float = Field(1e-6, gt=0, le=1)
    """Epsilon of all layer norms."""
    stem_channels: tuple[Dim, ...] = ()
    """Output channels of each convolution of the stem; no stem unless given."""
    class_token: bool = True
    """True if the model has a class token."""
    register_tokens: int = Field(0, ge=0, le=1000)
    """Number of register tokens, which stand between the class token and the patches; nothing is read from them."""
    pooling: Pooling = "class_token"
    """Source of what the head layer reads: the class token (of a distilled model both), the mean of the patches, or
    their mean weighted by a softmax over the sequence, as in CCT."""
    norm_after_pooling: bool = False
    """True if the last norm is applied to the mean of the patches, false if to each patch before the mean is taken."""
    norm_before_blocks: bool = False
    """True if a norm comes before the first block, as in CLIP's ViTs."""
    activation: Activation = "gelu"
    """Activation of the MLPs: GELU, its approximation by tanh or by a sigmoid, ReLU, SiLU, or a sigmoid alone."""
    # Left out where they are as in most ViTs, so that older cards stay as they are.
    gated_mlp: bool = Field(False, exclude_if=lambda is_gated: not is_gated)
    """True if a hidden channel has a gate, which is activated and multiplies its value (SwiGLU, GLU)."""
    qk_norm: QkNorm | None = Field(None, exclude_if=lambda norm: norm is None)
    """Norm of the queries, and of the keys, of each head (qk-norm); none unless given."""
    norm_between_halves: bool = Field(False, exclude_if=lambda is_between: not is_between)
    """True if blocks normalise the stream itself behind attention, in place of what the MLP reads, as in CCT."""
    stem_kernel: StemKernel = Field(3, exclude_if=lambda kernel: kernel == 3)
    """Side of the kernels of the stem's convolutions."""
    stem_stride: StemStride = Field(2, exclude_if=lambda stride: stride == 2)
    """Stride of the stem's convolutions."""
    stem_max_pool: bool = Field(False, exclude_if=lambda pools: not pools)
    """True if a ReLU and a max pooling that halves the sides follow each convolution of the stem, as in CCT; else a
    GELU."""

    @model_validator(mode="after")
    def _head_layer_has_its_token(self) -> "Architecture":
        if self.pooling == "class_token" and not self.class_token:
            raise ValueError("a model without a class token must have pooling 'mean' or 'sequence', got 'class_token'")
        if self.pooling != "class_token" and self.distilled:
            raise ValueError(f"a distilled model must have pooling 'class_token', got {self.pooling!r}")
        if self.norm_after_pooling and self.pooling != "mean":
            raise ValueError(f"norm_after_pooling must go with pooling 'mean', got {self.pooling!r}")
        return self

    @model_validator(mode="after")
    def _patches_fill_the_image(self) -> "Architecture":
        for image_side, patch_side in zip(self.image_sides, self.patch_sides, strict=True):
            if image_side % patch_side:
                patch, image = shown(self.patch_size), shown(self.image_size)
                raise ValueError(f"image_size must be a multiple of patch_size {patch}, got {image}")
        stem = self.stem
        if any(side % stem.reduction for side in self.patch_sides):
            raise ValueError(
                f"patch_size must be a multiple of {stem.reduction}, as each of {len(self.stem_channels)} "
                f"stem_channels divides the image's sides by {stem.factor}, got {shown(self.patch_size)}"
            )
        return self

    @model_validator(mode="after")
    def _fits_into_memory(self) -> "Architecture":
        attention, mlp = self.num_heads * self.head_dim, self.hidden_dim
        num_params = self.depth * self.embed_dim * (4 * attention + (2 + self.gated_mlp) * mlp)
        if num_params > MAX_PARAMS:
            raise ValueError(f"blocks must have at most {MAX_PARAMS:,} parameters together, got {num_params:,}")
        return self

    @property
    def image_sides(self) -> tuple[int, int]:
        """Height and width of the image [pixels]."""
        return height_and_width(self.image_size)

    @property
    def patch_sides(self) -> tuple[int, int]:
        """Height and width of a patch [pixels]."""
        return height_and_width(self.patch_size)

    @property
    def stem(self) -> Stem:
        """Convolutions before the patches."""
        return Stem((self.in_channels, *self.stem_channels), self.stem_kernel, self.stem_stride, self.stem_max_pool)


def qk_norm_size(norm: QkNorm | None, head_dim: int) -> int:
    """Return the number of parameters of both norms in a block: RMS norms have no bias."""
    return 0 if norm is None else (2 if norm == "rms_norm" else 4) * head_dim


def shown(sides: int | tuple[int, int]) -> int | list[int]:
    """Return a size as it is written in a card."""
    return list(sides) if isinstance(sides, tuple) else sides
