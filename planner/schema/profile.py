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
    fixed_macs: int = Field(ge=0)
    head_macs: tuple[int, ...]
    channel_macs: tuple[int, ...]
    fixed_params: int = Field(ge=0)
    head_params: tuple[int, ...]
    channel_params: tuple[int, ...]
    fixed_activation_bytes: float = Field(ge=0)
    head_activation_bytes: float = Field(ge=0)
    channel_activation_bytes: float = Field(ge=0)
    embed_retention: tuple[float, ...]


class Importance(Frozen):
    """How much each class needs each unit: `heads` (C, L, H), `channel_groups` (C, L, G_l)."""

    heads: tuple[tuple[tuple[float, ...], ...], ...]
    channel_groups: tuple[tuple[tuple[float, ...], ...], ...]


class LatencyRow(Frozen):
    """Coefficients [us] of the block latency model at one embed dim and precision, and its held-out error."""

    embed_dim: int = Field(ge=1)
    precision: Precision = "float32"
    fixed_us: float = Field(ge=0)
    attention_us: float = Field(ge=0)
    head_us: float = Field(ge=0)
    mlp_us: float = Field(ge=0)
    channel_us: float = Field(ge=0)
    mape: float | None = Field(None, ge=0)
    p95_error: float | None = Field(None, ge=0)
    source: str = "measured"


class Recovery(Frozen):
    """The retention floors at which the fused answer loses at most this much accuracy."""

    max_accuracy_drop: float = Field(ge=0, le=1)
    by_count: tuple[float, ...]
    class_need: tuple[float, ...]


class FusedAccuracy(Frozen):
    """The model that predicts fused accuracy, fitted to recovery probes; `planner.predict` says how it is read.

    `whole_error` is the share of errors of the whole model on images it was not trained on, if its card says so,
    `log_error` the root mean square of ln(predicted errors / measured errors) over the probes, each predicted from
    the others.
    """

    intercept: float
    log_num_classes: float = Field(ge=0)
    log_best_retention: float = Field(ge=0)
    log_other_retention: float = Field(ge=0)
    class_offset: tuple[float, ...]
    whole_error: float | None = Field(None, ge=0, le=1)
    log_error: float = Field(ge=0)
    num_probes: int = Field(ge=1)


class Profile(Document):
    """What a solver needs to know of a model; see the module for the shapes."""

    model: Name
    weights_sha256: str
    classes: tuple[Name, ...] = Field(min_length=1)
    num_tokens: int = Field(ge=1)
    depth: int = Field(ge=1)
    num_heads: int = Field(ge=0)
    head_dim: int = Field(ge=1)
    hidden_dim: int = Field(ge=0)
    input_bytes: int = Field(ge=0)
    feature_bytes_per_embed_dim: int = Field(ge=0)
    fusion_hidden: int = Field(128, ge=1)
    channel_groups: tuple[tuple[tuple[int, ...], ...], ...]
    widths: tuple[Width, ...] = Field(min_length=1)
    # Which embed dims a narrower sub-model keeps: the first of these.
    embed_dim_order: tuple[int, ...] = ()
    importance: Importance
    latency: dict[str, tuple[LatencyRow, ...]] = Field(default_factory=dict)
    recovery: tuple[Recovery, ...] = ()
    fused_accuracy: FusedAccuracy | None = None
    # The share of its retention that each class keeps at a precision, 0..1; all of it unless given.
    precision_retention: dict[Precision, tuple[float, ...]] = Field(default_factory=dict)
    provenance: dict[str, str] = Field(default_factory=dict)

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
