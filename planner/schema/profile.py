"""profile.json: what was measured of a model.

Legend: C classes, L blocks, H heads of a block, G_l channel groups of block l.
"""

import math
from collections import Counter
from functools import cached_property

from pydantic import Field, model_validator

from planner.schema.base import Document, Frozen
from planner.schema.fleet import Name, Precision

# Importance is measured, not counted: a class may be off by rounding, not by a unit left out.
_SUM_TOLERANCE = 1e-3


class Width(Frozen):
    """MACs [MAC], params and activations [bytes] of a model at one embed dim, for one image."""

    embed_dim: int = Field(ge=1)
    """Width of a token, of the residual stream."""
    fixed_macs: int = Field(ge=0)
    """What does not grow with heads and channels, the head layer included [MAC]."""
    head_macs: tuple[int, ...]
    """For each head of each block (L,) [MAC]."""
    channel_macs: tuple[int, ...]
    """For each hidden channel of each block (L,) [MAC]."""
    fixed_params: int = Field(ge=0)
    """Parameters that are always there."""
    head_params: tuple[int, ...]
    """Parameters of each head of each block (L,)."""
    channel_params: tuple[int, ...]
    """Parameters of each hidden channel of each block (L,)."""
    fixed_activation_bytes: float = Field(ge=0)
    """Peak activations that are always there [bytes]."""
    head_activation_bytes: float = Field(ge=0)
    """For each head of the hungriest block [bytes]."""
    channel_activation_bytes: float = Field(ge=0)
    """For each hidden channel of the hungriest block [bytes]."""
    embed_retention: tuple[float, ...]
    """What each class retains at this width when no unit is removed, 0..1 (C,)."""


class Importance(Frozen):
    """How much each class needs each unit: `heads` (C, L, H), `channel_groups` (C, L, G_l)."""

    heads: tuple[tuple[tuple[float, ...], ...], ...]
    """Of each head (C, L, H)."""
    channel_groups: tuple[tuple[tuple[float, ...], ...], ...]
    """Of each channel group (C, L, G_l)."""


class LatencyRow(Frozen):
    """Coefficients [us] of the block latency model at one embed dim and precision, and its held-out error."""

    embed_dim: int = Field(ge=1)
    """One of the profile's widths."""
    precision: Precision = "float32"
    """Of the weights that were timed."""
    fixed_us: float = Field(ge=0)
    """What is always there [us]."""
    attention_us: float = Field(ge=0)
    """For each block that keeps a head [us]."""
    head_us: float = Field(ge=0)
    """For each kept head [us]."""
    mlp_us: float = Field(ge=0)
    """For each block that keeps a hidden channel [us]."""
    channel_us: float = Field(ge=0)
    """For each kept hidden channel [us]."""
    mape: float | None = Field(None, ge=0)
    """Mean error on networks that were held out, as a share."""
    p95_error: float | None = Field(None, ge=0)
    """The error that 95 % of them stay under, as a share."""
    source: str = "measured"
    """How it was found."""


class Recovery(Frozen):
    """The retention floors at which the fused answer loses at most this much accuracy."""

    max_accuracy_drop: float = Field(ge=0, le=1)
    """Fused accuracy that may be lost, as a share."""
    by_count: tuple[float, ...]
    """The floor for a device that serves 1, 2, ... classes (C,)."""
    class_need: tuple[float, ...]
    """What each class's floor is multiplied by (C,)."""


class FusedAccuracy(Frozen):
    """The model that predicts fused accuracy, fitted to recovery probes; docs/mathematics.md says how it is read."""

    intercept: float
    """a: the error where all else is 1, as a logarithm."""
    log_num_classes: float = Field(ge=0)
    """b: how much more a device errs that serves more classes."""
    log_best_retention: float = Field(ge=0)
    """s: how much less a class errs that some device retains more of."""
    log_other_retention: float = Field(ge=0)
    """t: how much less it errs for what all other devices retain of it."""
    class_offset: tuple[float, ...]
    """o: how much more each class errs than the mean one (C,)."""
    whole_error: float | None = Field(None, ge=0, le=1)
    """Errors of the whole model on images that it was not trained on, as a share."""
    log_error: float = Field(ge=0)
    """Root mean square of ln(predicted / measured errors) over the probes, each predicted from the others."""
    num_probes: int = Field(ge=1)
    """How many probes it was fitted to."""


class Profile(Document):
    """What a solver needs to know of a model.

    Shapes: C classes, L blocks, H heads of a block, G_l channel groups of block l.
    """

    model: Name
    """The model's name, as its card has it."""
    weights_sha256: str
    """Of the weights that were measured."""
    classes: tuple[Name, ...] = Field(min_length=1)
    """Names of the classes (C,), in the order of the model's outputs."""
    num_tokens: int = Field(ge=1)
    """Patches, and the class token (a distilled model has one more)."""
    depth: int = Field(ge=1)
    """Blocks, L."""
    num_heads: int = Field(ge=0)
    """Heads of a block, H."""
    head_dim: int = Field(ge=1)
    """Width of a head."""
    hidden_dim: int = Field(ge=0)
    """Hidden channels of a block's MLP."""
    input_bytes: int = Field(ge=0)
    """What is sent to a device for one image [bytes]."""
    feature_bytes_per_embed_dim: int = Field(ge=0)
    """What a device sends back for each embed dim of its width [bytes]."""
    fusion_hidden: int = Field(128, ge=1)
    """Hidden units of the fusion."""
    channel_groups: tuple[tuple[tuple[int, ...], ...], ...]
    """The hidden channels of each group of each block (L, G_l, channels); kept or removed together."""
    widths: tuple[Width, ...] = Field(min_length=1)
    """Costs at each embed dim that a sub-model may have, the full one among them."""
    embed_dim_order: tuple[int, ...] = ()
    """Which embed dims a narrower sub-model keeps: the first of these."""
    importance: Importance
    """What each class needs; heads and groups together sum to 1 for each class."""
    latency: dict[str, tuple[LatencyRow, ...]] = Field(default_factory=dict)
    """Measured coefficients by device kind; a row for each embed dim and precision."""
    recovery: tuple[Recovery, ...] = ()
    """The retention floors, by the accuracy drop that was calibrated."""
    fused_accuracy: FusedAccuracy | None = None
    """What predicts a plan's accuracy; none where nothing was probed."""
    precision_retention: dict[Precision, tuple[float, ...]] = Field(default_factory=dict)
    """The share of its retention that each class keeps at a precision, 0..1; all of it unless given."""
    provenance: dict[str, str] = Field(default_factory=dict)
    """How each part was measured."""

    @cached_property
    def group_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Hidden channels of each channel group, for each block."""
        return tuple(tuple(len(group) for group in block) for block in self.channel_groups)

    def kept_embed_dims(self, embed_dim: int) -> tuple[int, ...] | None:
        """The embed dims that a sub-model of this width keeps, in their order in the model; None if unsaid."""
        if embed_dim == max(w.embed_dim for w in self.widths):
            return tuple(range(embed_dim))
        return tuple(sorted(self.embed_dim_order[:embed_dim])) or None

    def width(self, embed_dim: int) -> Width | None:
        """The entry of one embed dim, if the profile has it."""
        return next((w for w in self.widths if w.embed_dim == embed_dim), None)

    @model_validator(mode="after")
    def _parts_agree(self) -> "Profile":
        twice = [name for name, count in Counter(self.classes).items() if count > 1]
        if twice:
            raise ValueError(f"classes: names must differ, {twice[0]!r} is given twice")
        self._check_groups()
        self._check_widths()
        self._check_importance()
        for precision, shares in self.precision_retention.items():
            where = f"precision_retention[{precision!r}]"
            _positive(shares, len(self.classes), where)
            if max(shares) > 1:
                raise ValueError(f"{where}: must be at most 1, got {max(shares)}")
        for kind, rows in self.latency.items():
            pairs = [(r.embed_dim, r.precision) for r in rows]
            if len(set(pairs)) < len(pairs):
                raise ValueError(f"latency[{kind!r}]: rows must differ in embed_dim or precision, got {pairs}")
        _distinct([r.max_accuracy_drop for r in self.recovery], "recovery")
        for i, row in enumerate(self.recovery):
            _positive(row.by_count, len(self.classes), f"recovery[{i}].by_count")
            _positive(row.class_need, len(self.classes), f"recovery[{i}].class_need")
        if self.fused_accuracy is not None:
            _count(self.fused_accuracy.class_offset, len(self.classes), "fused_accuracy.class_offset", "classes")
        return self

    def _check_groups(self) -> None:
        _count(self.channel_groups, self.depth, "channel_groups", "blocks")
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
        _distinct([w.embed_dim for w in self.widths], "widths")
        full = max(w.embed_dim for w in self.widths)
        if self.embed_dim_order and sorted(self.embed_dim_order) != list(range(full)):
            raise ValueError(f"embed_dim_order: must name each of 0 to {full - 1} once")
        for i, width in enumerate(self.widths):
            for name in ("head_macs", "channel_macs", "head_params", "channel_params"):
                _positive(getattr(width, name), self.depth, f"widths[{i}].{name}")
            where = f"widths[{i}].embed_retention"
            _positive(width.embed_retention, len(self.classes), where)
            if max(width.embed_retention) > 1:
                raise ValueError(f"{where}: must be at most 1, got {max(width.embed_retention)}")

    def _check_importance(self) -> None:
        heads, groups = self.importance.heads, self.importance.channel_groups
        _count(heads, len(self.classes), "importance.heads", "classes")
        _count(groups, len(self.classes), "importance.channel_groups", "classes")
        for c, name in enumerate(self.classes):
            _count(heads[c], self.depth, f"importance.heads[{c}]", "blocks")
            _count(groups[c], self.depth, f"importance.channel_groups[{c}]", "blocks")
            total = 0.0
            for b in range(self.depth):
                _positive(heads[c][b], self.num_heads, f"importance.heads[{c}][{b}]")
                num_groups = len(self.channel_groups[b])
                _positive(groups[c][b], num_groups, f"importance.channel_groups[{c}][{b}]")
                total += math.fsum(heads[c][b]) + math.fsum(groups[c][b])
            if abs(total - 1) > _SUM_TOLERANCE:
                raise ValueError(f"importance of class {name!r} must sum to 1, got {total:.6g}")


def _count(values: tuple[object, ...], expected: int, where: str, what: str) -> None:
    if len(values) != expected:
        raise ValueError(f"{where}: must have one entry for each of {expected} {what}, got {len(values)}")


def _positive(values: tuple[float, ...], expected: int, where: str) -> None:
    if len(values) != expected:
        raise ValueError(f"{where}: must have {expected} numbers, got {len(values)}")
    if values and min(values) < 0:
        raise ValueError(f"{where}: must be >= 0, got {min(values)}")


def _distinct(values: list[float] | list[int], where: str) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{where}: entries must differ, got {values}")
