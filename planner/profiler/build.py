"""Profile of a model, built from the model and its data.

The steps: compare the whole model's accuracy with the card's, measure importance, group channels, recover some
sub-models in closed form to learn what half-blocks and embed dims are worth, count costs and memory at every embed
width, time this machine, execute trial plans. Slow steps save their progress in a work folder, so that an interrupted
profile can be continued. A card without weights still has costs: the importance of a unit is then assumed proportional
to its cost.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.errors import InputError, refuse_unless_finite
from planner.network import audit, counts, data
from planner.network.checkpoint import load_card, load_model, whole_shape
from planner.network.counts import Counts
from planner.network.data import Samples
from planner.network.vit import Shape, VisionTransformer
from planner.network.widths import embed_widths
from planner.profiler import grouping, importance, importance_shares, memory, series
from planner.profiler.budget import ProfileBudget, read_budget
from planner.profiler.calibration import calibrate_whole
from planner.profiler.device import local_latency
from planner.profiler.fused_accuracy import AccuracyMeasurement
from planner.profiler.importance_sums import UnitImportance
from planner.profiler.options import OnStage, ProfileOptions, Stage
from planner.profiler.recovered_loss import RecoveredLoss
from planner.profiler.stopwatch import Stopwatch
from planner.schema import ModelCard, Profile, is_audio
from planner.workers import Executor, InlineExecutor

OnBudget = Callable[[ProfileBudget], None]

_FLOAT_BYTES = 4


def build_profile(
    model_name: str,
    work: Path,
    options: ProfileOptions | None = None,
    on_stage: OnStage = lambda stage: None,
    workers: Executor | None = None,
    on_budget: OnBudget = lambda budget: None,
) -> Profile:
    """Profile a model on its own data and on this machine.

    Args:
        model_name: Name of a shipped model, or the path of a card.
        work: Folder for intermediate results until the profile is finished; it may exist already.
        options: Options of the measurement, the defaults if None.
        on_stage: Called as the work proceeds.
        workers: Executor of the trial plans, this process if None.
        on_budget: Called with the extent of the measurement once it is chosen; a card without weights has none.

    Raises:
        InputError: If the card, its weights or its data are invalid, the folder belongs to another measurement, or the
            budget is no number.
    """
    options = options or ProfileOptions()
    refuse_unless_finite(minutes=options.minutes, epochs=options.epochs)
    card = load_card(model_name)
    if card.weights is None:
        return Profile.model_validate(_profile_fields(card, _assumed_importance(card, options), options, on_stage))
    card, whole = load_model(model_name)
    if card.data is None:
        raise InputError(
            f"{model_name}: the card must name its data (and their preprocessing), so that it can be found out which "
            "class needs what; got none."
        )
    workers = workers or InlineExecutor()
    stopwatch = Stopwatch(work / "time.json")
    on_stage = _saving(stopwatch, on_stage)
    calibration = calibrate_whole(card, whole, _progress(on_stage, "run the whole model"))
    on_stage(Stage("time a few images", 0, 1))
    budget = read_budget(work / "budget.json", card, whole, options, workers.num_workers)
    on_budget(budget)
    samples = data.load(card, "train", budget.images_per_class)
    unit_importance = importance.measure_importance(
        options.method,
        whole,
        samples,
        _progress(on_stage, "measure importance"),
        work / "importance.safetensors",
        options.seed,
    )
    losses_of = _losses(whole, samples, work, options, on_stage, workers)
    shares = _measured_importance(unit_importance, whole, len(samples), options, losses_of)
    fields = _profile_fields(card, shares, options, on_stage)
    if not options.max_trials:
        return Profile.model_validate(fields)
    trial_options = budget.trial_options(options, stopwatch.seconds())
    measurement = AccuracyMeasurement(
        Profile.model_validate(fields), card, whole, calibration, work / "trials.json", trial_options
    )
    accuracy = measurement.measure(
        workers, _progress(on_stage, "execute trial plans"), _progress(on_stage, "prepare trial plans")
    )
    return accuracy.complete(fields)


def _saving(stopwatch: Stopwatch, on_stage: OnStage) -> OnStage:
    """Return a report of the work that also saves the time that it took."""

    def report(stage: Stage) -> None:
        stopwatch.save_if_due()
        on_stage(stage)

    return report


def _progress(on_stage: OnStage, name: str) -> Callable[[int, int], None]:
    """Return a callback that reports what is done of a step."""
    return lambda done, total: on_stage(Stage(name, done, total))


@dataclass(frozen=True)
class _ProfileImportance:
    """Importance as a profile holds it; rho: the share that each width retains of each class, (C,)."""

    groups: list[list[list[int]]]
    heads: list[list[list[float]]]
    channel_groups: list[list[list[float]]]
    embed_order: list[int]
    rho: dict[int, list[float]]
    provenance: str


def _losses(
    whole: VisionTransformer,
    samples: Samples,
    work: Path,
    options: ProfileOptions,
    on_stage: OnStage,
    workers: Executor,
) -> RecoveredLoss:
    """Return a measurement of losses right after recovery in closed form: what half-blocks and widths are worth."""
    report, total = _progress(on_stage, "recover in closed form"), series.num_losses(embed_widths(whole.shape))
    return RecoveredLoss(whole, samples, work / "losses.json", options.seed, lambda done: report(done, total), workers)


def _measured_importance(
    measured: UnitImportance,
    whole: VisionTransformer,
    num_images: int,
    options: ProfileOptions,
    losses_of: series.LossesOf,
) -> _ProfileImportance:
    """Return importance as a profile holds it, half-blocks and widths by what is lost without them."""
    shape, groups = whole.shape, _channel_groups(measured, whole.shape, options)
    widths = embed_widths(shape)
    half_exponent = series.best_half_exponent(measured, groups, shape, widths, losses_of)
    units = series.units_by_worth(measured, groups, half_exponent, shape)
    retained = series.width_retention(units, shape, widths, losses_of)
    heads, channel_groups = importance_shares.normalised_shares(measured, groups, half_exponent)
    return _ProfileImportance(
        groups,
        heads,
        channel_groups,
        importance_shares.embed_order(measured),
        {e: [share] * shape.num_classes for e, share in retained.items()},
        f"{options.method}, {num_images} training images; half-blocks to the power {half_exponent:g}",
    )


def _channel_groups(measured: UnitImportance, shape: Shape, options: ProfileOptions) -> list[list[list[int]]]:
    return grouping.group_channels(measured, grouping.group_size(shape.hidden_dim[0], options.multiple))


def _assumed_importance(card: ModelCard, options: ProfileOptions) -> _ProfileImportance:
    """Return the importance of a model without weights: proportional to a unit's MACs, the same for all classes."""
    shape = whole_shape(card)
    C, L, H, c = shape.num_classes, shape.depth, shape.num_heads[0], shape.hidden_dim[0]
    sizes = (C, L, H), (C, L, c), (C, shape.embed_dim)
    values = float(counts.per_head(shape).macs), float(counts.per_channel(shape).macs), 1.0
    heads, channels, dims = (np.full(size, value) for size, value in zip(sizes, values, strict=True))
    assumed = UnitImportance(heads, channels, dims, exponent=1.0)
    groups = _channel_groups(assumed, shape, options)
    of_heads, of_groups = importance_shares.normalised_shares(assumed, groups)
    order = importance_shares.embed_order(assumed)
    return _ProfileImportance(
        groups,
        of_heads,
        of_groups,
        order,
        {e: importance_shares.embed_retention(assumed, order, e) for e in embed_widths(shape)},
        "assumed: each unit matters as much as its MACs",
    )


def _profile_fields(
    card: ModelCard, shares: _ProfileImportance, options: ProfileOptions, on_stage: OnStage
) -> dict[str, Any]:
    """Return the fields of a profile without accuracies, counting and timing on the way."""
    shape = whole_shape(card)
    widths = embed_widths(shape)
    entries = []
    for i, e in enumerate(widths):
        on_stage(Stage("count MACs, params, activations", i, len(widths)))
        entries.append(_width_fields(replace(shape, embed_dim=e), shares.rho[e]))
    rows = local_latency.measure_local_latency(shape, widths, options.seed, _progress(on_stage, "time this machine"))
    return {
        "model": card.model,
        "weights_sha256": card.weights_sha256 or "none",
        "classes": card.classes,
        "num_tokens": shape.num_tokens,
        "depth": shape.depth,
        "num_heads": shape.num_heads[0],
        "head_dim": shape.head_dim,
        "hidden_dim": shape.hidden_dim[0],
        # Images are sent as they are stored: 8 bits a channel, spectrograms in float32.
        "input_bytes": shape.in_channels * math.prod(shape.image_sides) * (_FLOAT_BYTES if is_audio(card.data) else 1),
        "feature_bytes_per_embed_dim": _FLOAT_BYTES,
        "embedding": {
            "channels": shape.stem.channels,
            "image_size": shape.image_sides,
            "patch_size": shape.projected_patch,
            "norm_before_blocks": shape.norm_before_blocks,
            "stem_kernel": shape.stem_kernel,
            "stem_stride": shape.stem_stride,
            "stem_max_pool": shape.stem_max_pool,
        },
        "gated_mlp": shape.gated_mlp,
        "qk_norm": shape.qk_norm,
        "norm_between_halves": shape.norm_between_halves,
        "has_sequence_pooling": shape.pooling == "sequence",
        "channel_groups": shares.groups,
        "widths": entries,
        "embed_dim_order": shares.embed_order,
        "importance": {"heads": shares.heads, "channel_groups": shares.channel_groups},
        "latency": {local_latency.KIND: [row.model_dump() for row in rows]},
        "provenance": {
            "counts": "fvcore, equal to the closed form and to torch's counter",
            "activations": "closed form of what ONNX Runtime holds at its peak, float32, one image; for the C engine, "
            "the arena of its code follows from the sizes above",
            "importance": shares.provenance,
        },
    }


def _width_fields(shape: Shape, retention: Sequence[float]) -> dict[str, Any]:
    """Return a profile's entry for one embed width."""
    fixed, head, channel = audit.audit(shape)
    activations = memory.activation_memory(shape)
    return {
        "embed_dim": shape.embed_dim,
        **_count_fields("macs", shape.depth, fixed, head, channel),
        **_count_fields("params", shape.depth, fixed, head, channel),
        "fixed_activation_bytes": activations.fixed,
        "head_activation_bytes": activations.per_head,
        "channel_activation_bytes": activations.per_channel,
        "head_padding_bytes": activations.head_padding,
        "channel_padding_bytes": activations.channel_padding,
        "embed_retention": retention,
    }


def _count_fields(quantity: str, depth: int, fixed: Counts, head: Counts, channel: Counts) -> dict[str, Any]:
    """Return the fields of one quantity, MACs or parameters: the fixed part, and per block a unit's."""
    per_unit = {"head": head, "channel": channel}
    fields: dict[str, Any] = {f"fixed_{quantity}": getattr(fixed, quantity)}
    return fields | {f"{name}_{quantity}": [getattr(count, quantity)] * depth for name, count in per_unit.items()}
