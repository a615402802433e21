"""profile.json: measurements of a model.

Legend: C classes, L blocks, H heads of a block, G_l channel groups of block l.
"""

import math
from functools import cached_property

from pydantic import Field, model_validator

from planner.schema.architecture import QkNorm, Stem, StemKernel, StemStride
from planner.schema.base import Document, Forgotten, Frozen
from planner.schema.fleet import MAX_DEVICES, Engine, Precision
from planner.schema.quantities import (
    MAX_CLASSES,
    Coefficient,
    Count,
    Depth,
    Dim,
    FittedBytes,
    FusionHidden,
    Index,
    Macs,
    MeasuredUs,
    NumBytes,
    NumEpochs,
    Params,
    Positive,
    Ratio,
    Share,
    Tokens,
)
from planner.schema.text import Name, Text, check_names_differ

# Importance is measured, so its sum may be off by rounding, but not by the share of a missing unit.
_SUM_TOLERANCE = 1e-3


class Width(Frozen):
    """Costs of a model at one embed dim, for one image: MACs [MAC], parameters, and activations [bytes]."""

    embed_dim: Dim
    """Width of a token, that is, of the residual stream."""
    fixed_macs: Macs
    """MACs that do not grow with heads and channels, the head layer included [MAC]."""
    head_macs: tuple[Macs, ...]
    """MACs of one head in each block (L,) [MAC]."""
    channel_macs: tuple[Macs, ...]
    """MACs of one hidden channel in each block (L,) [MAC]."""
    fixed_params: Params
    """Parameters that do not grow with heads and channels."""
    head_params: tuple[Params, ...]
    """Parameters of one head in each block (L,)."""
    channel_params: tuple[Params, ...]
    """Parameters of one hidden channel in each block (L,)."""
    fixed_activation_bytes: FittedBytes
    """Peak activations that do not grow with heads and channels [bytes]."""
    head_activation_bytes: FittedBytes
    """Peak activations for each head of the block with the largest peak [bytes]."""
    channel_activation_bytes: FittedBytes
    """Peak activations for each hidden channel of the block with the largest peak [bytes]."""
    # These are left out where they are 0, so that the hashes of older profiles stay.
    head_padding_bytes: NumBytes = Field(0, exclude_if=lambda padding: padding == 0)
    """Memory that packing adds to the weights of each kept head [bytes]; 0 where the fixed activations count it."""
    channel_padding_bytes: NumBytes = Field(0, exclude_if=lambda padding: padding == 0)
    """Memory that packing adds to the weights of each kept hidden channel [bytes]; 0 as for heads."""
    embed_retention: tuple[Coefficient, ...]
    """Retention of each class at this width when no unit is removed, 0..1 (C,)."""


class PatchEmbedding(Frozen):
    """Sizes of the patch embedding, on which the memory of the C engine depends."""

    channels: tuple[Dim, ...] = Field(min_length=1)
    """Channels of the image and behind each convolution of the stem."""
    image_size: tuple[Dim, Dim]
    """Height and width of the image [pixels]."""
    patch_size: tuple[Dim, Dim]
    """Height and width of what is projected of each patch: all of it, or what a stem leaves of it."""
    norm_before_blocks: bool = False
    """True if a norm comes before the first block."""
    # Left out where they are as in most stems, so that the hashes of other profiles stay.
    stem_kernel: StemKernel = Field(3, exclude_if=lambda kernel: kernel == 3)
    """Side of the kernels of the stem's convolutions."""
    stem_stride: StemStride = Field(2, exclude_if=lambda stride: stride == 2)
    """Stride of the stem's convolutions."""
    stem_max_pool: bool = Field(False, exclude_if=lambda pools: not pools)
    """True if a max pooling that halves the sides follows each convolution of the stem."""

    @property
    def stem(self) -> Stem:
        """Convolutions before the patches."""
        return Stem(self.channels, self.stem_kernel, self.stem_stride, self.stem_max_pool)


class Importance(Frozen):
    """Importance of each unit for each class."""

    heads: tuple[tuple[tuple[Coefficient, ...], ...], ...]
    """Importance of each head (C, L, H)."""
    channel_groups: tuple[tuple[tuple[Coefficient, ...], ...], ...]
    """Importance of each channel group (C, L, G_l)."""


class LatencyRow(Frozen):
    """Coefficients [us] of the latency model at one embed dim and precision in one engine, and its held-out error."""

    embed_dim: Dim
    """Embed dim: one of the profile's widths."""
    precision: Precision = "float32"
    """Precision of the weights that were timed."""
    # It is left out where it is the default, so that the hashes of older profiles stay.
    engine: Engine = Field("onnxruntime", exclude_if=lambda engine: engine == "onnxruntime")
    """Engine that was timed; `onnxruntime` also where torch stood in for it."""
    fixed_us: MeasuredUs
    """Time of a sub-model without any head or hidden channel [us]."""
    attention_us: MeasuredUs
    """Time for each block that keeps a head [us]."""
    head_us: MeasuredUs
    """Time for each kept head [us]."""
    mlp_us: MeasuredUs
    """Time for each block that keeps a hidden channel [us]."""
    channel_us: MeasuredUs
    """Time for each kept hidden channel [us]."""
    # These are left out where they are not given, so that the hashes of older profiles stay.
    last_head_us: MeasuredUs | None = Field(None, exclude_if=lambda us: us is None)
    """Time for each kept head of the last block, where the engine computes no more than is read [us]; as of others."""
    last_channel_us: MeasuredUs | None = Field(None, exclude_if=lambda us: us is None)
    """Time for each kept hidden channel of the last block, likewise [us]."""
    mape: Ratio | None = None
    """Mean absolute error on networks that were held out, as a share."""
    p95_error: Ratio | None = None
    """95th percentile of that error, as a share."""
    source: Text = "measured"
    """Origin of the coefficients."""


class AccuracyModel(Frozen):
    """Model of the accuracy that a plan loses, fitted to trial plans; docs/mathematics.md has its formula."""

    log_scale: Coefficient
    """a: logarithm of a mean class's loss at odds of 1, before it is bounded."""
    steepness: Positive
    """s: exponent by which the loss falls with the odds of the retention."""
    norm_order: Positive
    """q: order of the norm that joins the odds on all devices; the larger, the less the others add to the best."""
    union_weight: Ratio = Field(0.0, exclude_if=lambda weight: weight == 0)
    """t: weight of what no device keeps beside what each device lacks."""
    class_offset: tuple[Coefficient, ...]
    """o: logarithm of the loss of each class relative to the mean class (C,)."""
    class_share: tuple[Coefficient, ...]
    """Share of each class among the calibration images (C,)."""
    whole_error: float = Field(ge=0, lt=1)
    """Error of the whole model on the calibration images, as a share."""
    retention_exponent: Positive
    """k: exponent of the retention in its odds."""
    epochs: NumEpochs
    """Epochs of retraining of the trial plans, for which predictions hold; 0: recovery in closed form alone."""
    scores: tuple[Coefficient, ...] = Field(min_length=1)
    """Errors of predictions for trial plans that the model was not fitted to, relative to the predicted loss."""
    num_images: Count = Field(0, exclude_if=lambda number: number == 0)
    """Number of calibration images; 0 if it is not known, so that their chance is not in the interval."""
    gained: Share = Field(0.0, exclude_if=lambda share: share == 0)
    """Share of the calibration images that a trial plan gets right and the whole model does not, in the mean."""
    min_retention: Share
    """Smallest mean retention, of each class where it is highest, of any trial plan."""
    max_devices: int = Field(ge=1, le=MAX_DEVICES)
    """Largest number of devices of any trial plan."""


class Profile(Document):
    """Measurements of a model that the solver needs.

    Shapes: C classes, L blocks, H heads of a block, G_l channel groups of block l.
    """

    model: Name
    """Name of the model, as on its card."""
    weights_sha256: Text
    """SHA-256 of the weights that were measured."""
    classes: tuple[Name, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    """Names of the classes (C,), in the order of the outputs of the model."""
    num_tokens: Tokens
    """Number of tokens: patches and the class token; a distilled model has one more."""
    depth: Depth
    """Number of blocks, L."""
    num_heads: Index
    """Number of heads of a block, H."""
    head_dim: Dim
    """Width of a head."""
    hidden_dim: Index
    """Number of hidden channels of the MLP of a block."""
    input_bytes: NumBytes
    """Size of one image as sent to a device [bytes]."""
    feature_bytes_per_embed_dim: int = Field(ge=0, le=1024)
    """Size of the features that a device returns, for each embed dim of its width [bytes]."""
    fusion_hidden: FusionHidden = 128
    """Number of hidden channels of the fusion."""
    embedding: PatchEmbedding | None = Field(None, exclude_if=lambda embedding: embedding is None)
    """Patch embedding; without it, one without a stem behind a single class token is assumed."""
    # Left out where they are as in most ViTs, so that the hashes of other profiles stay.
    gated_mlp: bool = Field(False, exclude_if=lambda is_gated: not is_gated)
    """True if each hidden channel is a pair of a gate and a value."""
    qk_norm: QkNorm | None = Field(None, exclude_if=lambda norm: norm is None)
    """Norm of the queries, and of the keys, of each head; null: none."""
    norm_between_halves: bool = Field(False, exclude_if=lambda is_between: not is_between)
    """True if blocks normalise the stream itself behind attention."""
    has_sequence_pooling: bool = Field(False, exclude_if=lambda has_weights: not has_weights)
    """True if features are a mean of the patches that is weighted by a softmax over the sequence."""
    channel_groups: tuple[tuple[tuple[Index, ...], ...], ...]
    """Hidden channels of each channel group (L, G_l, channels), which are kept or removed together."""
    widths: tuple[Width, ...] = Field(min_length=1)
    """Costs at each embed dim that a sub-model may have, the full one included."""
    embed_dim_order: tuple[Index, ...] = ()
    """Order in which embed dims are kept: a narrower sub-model keeps the first of these."""
    importance: Importance
    """Importance of the units; heads and channel groups together sum to 1 for each class."""
    latency: dict[Name, tuple[LatencyRow, ...]] = Field(default_factory=dict)
    """Latency tables by device kind, with a row for each embed dim, precision and engine."""
    accuracy_model: AccuracyModel | None = None
    """Model that predicts the accuracy of a plan; null if no trial plan was executed."""
    precision_retention: dict[Precision, tuple[Coefficient, ...]] = Field(default_factory=dict)
    """Share of its retention that each class keeps at a precision, 0..1; all of it unless given."""
    provenance: dict[Text, Text] = Field(default_factory=dict)
    """Measurement method of each part."""
    # Older predictions did not begin at the whole model's accuracy.
    recovery: Forgotten = None
    fused_accuracy: Forgotten = None

    @cached_property
    def group_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Number of hidden channels of each channel group, for each block."""
        return tuple(tuple(len(group) for group in block) for block in self.channel_groups)

    def kept_embed_dims(self, embed_dim: int) -> tuple[int, ...] | None:
        """Return the embed dims that a sub-model of this width keeps, in their order in the model, if that is known."""
        if embed_dim == max(w.embed_dim for w in self.widths):
            return tuple(range(embed_dim))
        return tuple(sorted(self.embed_dim_order[:embed_dim])) or None

    def width(self, embed_dim: int) -> Width | None:
        """Return the entry of one embed dim, if the profile has it."""
        return next((w for w in self.widths if w.embed_dim == embed_dim), None)

    @model_validator(mode="after")
    def _parts_agree(self) -> "Profile":
        check_names_differ(self.classes, "classes")
        self._check_groups()
        self._check_widths()
        self._check_importance()
        for precision, shares in self.precision_retention.items():
            where = f"precision_retention[{precision!r}]"
            _check_nonnegative(shares, len(self.classes), where)
            if max(shares) > 1:
                raise ValueError(f"{where}: must be at most 1, got {max(shares)}")
        for kind, rows in self.latency.items():
            keys = [(r.embed_dim, r.precision, r.engine) for r in rows]
            if len(set(keys)) < len(keys):
                raise ValueError(f"latency[{kind!r}]: rows must differ in embed_dim, precision or engine, got {keys}")
        if self.accuracy_model is not None:
            share = self.accuracy_model.class_share
            _check_length(self.accuracy_model.class_offset, len(self.classes), "accuracy_model.class_offset", "classes")
            _check_nonnegative(share, len(self.classes), "accuracy_model.class_share")
            if abs(sum(share) - 1) > _SUM_TOLERANCE:
                raise ValueError(f"accuracy_model.class_share: must sum to 1, got {sum(share):.6g}")
        return self

    def _check_groups(self) -> None:
        _check_length(self.channel_groups, self.depth, "channel_groups", "blocks")
        for i, block in enumerate(self.channel_groups):
            channels = [channel for group in block for channel in group]
            if any(not group for group in block):
                raise ValueError(f"channel_groups[{i}]: a group must hold a channel, got an empty one")
            if len(set(channels)) < len(channels):
                raise ValueError(f"channel_groups[{i}]: a channel must be in one group, got one in two")
            if channels and not 0 <= min(channels) <= max(channels) < self.hidden_dim:
                raise ValueError(
                    f"channel_groups[{i}]: channels must be 0 to {self.hidden_dim - 1}, "
                    f"got {min(channels)} to {max(channels)}"
                )

    def _check_widths(self) -> None:
        _check_distinct([w.embed_dim for w in self.widths], "widths")
        full = max(w.embed_dim for w in self.widths)
        if self.embed_dim_order and sorted(self.embed_dim_order) != list(range(full)):
            raise ValueError(f"embed_dim_order: must name each of 0 to {full - 1} once")
        for i, width in enumerate(self.widths):
            for name in ("head_macs", "channel_macs", "head_params", "channel_params"):
                _check_nonnegative(getattr(width, name), self.depth, f"widths[{i}].{name}")
            where = f"widths[{i}].embed_retention"
            _check_nonnegative(width.embed_retention, len(self.classes), where)
            if max(width.embed_retention) > 1:
                raise ValueError(f"{where}: must be at most 1, got {max(width.embed_retention)}")

    def _check_importance(self) -> None:
        heads, groups = self.importance.heads, self.importance.channel_groups
        _check_length(heads, len(self.classes), "importance.heads", "classes")
        _check_length(groups, len(self.classes), "importance.channel_groups", "classes")
        for c, name in enumerate(self.classes):
            _check_length(heads[c], self.depth, f"importance.heads[{c}]", "blocks")
            _check_length(groups[c], self.depth, f"importance.channel_groups[{c}]", "blocks")
            total = 0.0
            for b in range(self.depth):
                _check_nonnegative(heads[c][b], self.num_heads, f"importance.heads[{c}][{b}]")
                num_groups = len(self.channel_groups[b])
                _check_nonnegative(groups[c][b], num_groups, f"importance.channel_groups[{c}][{b}]")
                total += math.fsum(heads[c][b]) + math.fsum(groups[c][b])
            if abs(total - 1) > _SUM_TOLERANCE:
                raise ValueError(f"importance of class {name!r} must sum to 1, got {total:.6g}")


def _check_length(values: tuple[object, ...], expected: int, where: str, part: str) -> None:
    if len(values) != expected:
        raise ValueError(f"{where}: must have one entry for each of {expected} {part}, got {len(values)}")


def _check_nonnegative(values: tuple[float, ...], expected: int, where: str) -> None:
    if len(values) != expected:
        raise ValueError(f"{where}: must have {expected} numbers, got {len(values)}")
    if values and min(values) < 0:
        raise ValueError(f"{where}: must be >= 0, got {min(values)}")


def _check_distinct(values: list[float] | list[int], where: str) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{where}: entries must differ, got {values}")
