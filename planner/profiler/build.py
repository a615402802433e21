"""A model and its data become a profile.

The story: count, measure memory and time at every embed width, find out who needs what, group
the channels, probe what accuracy survives. What took long is kept as it is made, so that an
interrupted profile goes on. A card without weights still has costs: every unit is then assumed
to matter as much as it costs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.errors import InputError
from planner.network import audit, counts, data
from planner.network.checkpoint import load_card, load_model, whole_shape
from planner.network.counts import Counts
from planner.network.vit import Shape
from planner.network.widths import embed_widths
from planner.profiler import grouping, importance, importance_shares, memory, trial_plans, whole_accuracy
from planner.profiler.device import local_latency
from planner.profiler.importance import ImportanceMethod
from planner.profiler.importance_sums import UnitImportance
from planner.schema import ModelCard, Profile

IMAGES_PER_CLASS = 200

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Stage:
    """Where a profile stands, for a progress bar."""

    name: str
    done: int
    total: int


OnStage = Callable[[Stage], None]


@dataclass(frozen=True)
class Options:
    """How thoroughly to measure."""

    method: ImportanceMethod = importance.DEFAULT
    images_per_class: int = IMAGES_PER_CLASS
    num_probes: int = trial_plans.NUM_PROBES
    multiple: int = 8  # what the devices' kernels like: channels of a group
    seed: int = 0


def build_profile(
    model_name: str, work: Path, options: Options | None = None, on_stage: OnStage = lambda stage: None
) -> Profile:
    """Profile a model on its own training data and on this machine.

    Args:
        model_name: A shipped model, or the path of a card.
        work: A folder that holds what is finished until the profile is; it may be there already.
        options: How thoroughly to measure.
        on_stage: Called as the work goes on.

    Raises:
        InputError: If the card, its weights or its data are not what they must be, or the folder belongs to
            another measurement.
    """
    options = options or Options()
    card = load_card(model_name)
    if card.weights is None:
        return Profile.model_validate(_measured(card, _assumed(card, options), options, on_stage))
    card, whole = load_model(model_name)
    if card.data is None:
        raise InputError(
            f"{model_name}: the card must name its data (and their preprocessing), so that it can be found out which "
            "class needs what; got none."
        )
    samples = data.load(card, "train", options.images_per_class)
    found = importance.measure_importance(
        options.method,
        whole,
        samples,
        lambda done, total: on_stage(Stage("measure importance", done, total)),
        work / "importance.safetensors",
        options.seed,
    )
    needs = _needs(found, whole.shape, options, f"{options.method}, {len(samples)} training images")
    fields = _measured(card, needs, options, on_stage)
    if options.num_probes == 0:
        return Profile.model_validate(fields)
    accuracies = whole_accuracy.measure_accuracy(
        Profile.model_validate(fields),
        card,
        whole,
        samples,
        work / "probes.json",
        options.num_probes,
        options.seed,
        lambda done, total: on_stage(Stage("probe what accuracy survives", done, total)),
    )
    return accuracies.put_into(fields)


@dataclass(frozen=True)
class _Needs:
    """Which class needs what, as a profile holds it; rho: the share of the embed dims' importance at a width, (C,)."""

    groups: list[list[list[int]]]
    heads: list[list[list[float]]]
    channel_groups: list[list[list[float]]]
    embed_order: list[int]
    rho: dict[int, list[float]]
    said: str


def _needs(found: UnitImportance, shape: Shape, options: Options, said: str) -> _Needs:
    size = grouping.group_size(shape.hidden_dim[0], options.multiple)
    grouped = grouping.group_channels(found, size)
    heads, channel_groups = importance_shares.normalised(found, grouped)
    order = importance_shares.embed_order(found)
    rho = {e: importance_shares.embed_retention(found, order, e) for e in embed_widths(shape)}
    return _Needs(grouped, heads, channel_groups, order, rho, said)


def _assumed(card: ModelCard, options: Options) -> _Needs:
    """Return what is assumed of a model without weights: a unit matters as much as it costs, to all classes alike."""
    shape = whole_shape(card)
    C, L, H, c = shape.num_classes, shape.depth, shape.num_heads[0], shape.hidden_dim[0]
    sizes = (C, L, H), (C, L, c), (C, shape.embed_dim)
    worth = float(counts.per_head(shape).macs), float(counts.per_channel(shape).macs), 1.0
    heads, channels, dims = (np.full(size, value) for size, value in zip(sizes, worth, strict=True))
    alike = UnitImportance(heads, channels, dims, exponent=1.0)
    return _needs(alike, shape, options, "assumed: each unit matters as much as its MACs")


def _measured(card: ModelCard, needs: _Needs, options: Options, on_stage: OnStage) -> dict[str, Any]:
    """Return the fields of a profile without accuracies."""
    shape = whole_shape(card)
    widths = embed_widths(shape)
    entries = []
    for i, e in enumerate(widths):
        on_stage(Stage("count MACs, params, activations", i, len(widths)))
        entries.append(_width(replace(shape, embed_dim=e), needs.rho[e]))
    timed = 0

    def on_timed() -> None:
        nonlocal timed
        timed += 1
        on_stage(Stage("time this machine", timed, local_latency.num_probes()))

    rows = local_latency.measure_local_latency(shape, widths, options.seed, on_timed)
    return {
        "model": card.model,
        "weights_sha256": card.weights_sha256 or "none",
        "classes": card.classes,
        "num_tokens": shape.num_tokens,
        "depth": shape.depth,
        "num_heads": shape.num_heads[0],
        "head_dim": shape.head_dim,
        "hidden_dim": shape.hidden_dim[0],
        "input_bytes": shape.in_channels * shape.image_size**2 * _FLOAT_BYTES,
        "feature_bytes_per_embed_dim": _FLOAT_BYTES,
        "channel_groups": needs.groups,
        "widths": entries,
        "embed_dim_order": needs.embed_order,
        "importance": {"heads": needs.heads, "channel_groups": needs.channel_groups},
        "latency": {local_latency.KIND: [row.model_dump() for row in rows]},
        "provenance": {
            "counts": "fvcore, equal to the closed form and to torch's counter",
            "activations": "closed form of what ONNX Runtime holds at its peak, float32, one image",
            "importance": needs.said,
        },
    }


def _width(shape: Shape, retained: Sequence[float]) -> dict[str, Any]:
    """Return what a profile holds of one embed width."""
    fixed, head, channel = audit.audit(shape)
    activations = memory.measure_memory(shape)
    return {
        "embed_dim": shape.embed_dim,
        **_counted("macs", shape.depth, fixed, head, channel),
        **_counted("params", shape.depth, fixed, head, channel),
        "fixed_activation_bytes": activations.fixed,
        "head_activation_bytes": activations.per_head,
        "channel_activation_bytes": activations.per_channel,
        "embed_retention": retained,
    }


def _counted(what: str, depth: int, fixed: Counts, head: Counts, channel: Counts) -> dict[str, Any]:
    per_unit = {"head": head, "channel": channel}
    counted: dict[str, Any] = {f"fixed_{what}": getattr(fixed, what)}
    return counted | {f"{name}_{what}": [getattr(count, what)] * depth for name, count in per_unit.items()}
