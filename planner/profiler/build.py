"""A model and its data become a profile.

The story: count, measure memory and time, find out who needs what, group the channels, probe
what accuracy survives. Probes are kept as they are made, so an interrupted profile goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from planner.errors import InputError
from planner.network import audit, data, recover
from planner.network.checkpoint import load_model
from planner.network.evaluate import batched
from planner.network.vit import VisionTransformer
from planner.profiler import importance, latency, memory, recovery
from planner.profiler.groups import group_channels
from planner.profiler.recovery import Probe, Setting
from planner.profiler.shares import normalised
from planner.schema import Frozen, ModelCard, Profile, Recovery, read_document, write_document

GROUP_SIZE = 8

_HELD_OUT = 0.3
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Stage:
    """Where a profile stands, for a progress bar."""

    name: str
    done: int
    total: int


class Probes(Frozen):
    """The probes made so far, and what they belong to."""

    weights_sha256: str
    seed: int
    probes: tuple[Probe, ...] = Field(default=())


def build_profile(
    model_name: str, work: Path, seed: int = 0, on_stage: Callable[[Stage], None] = lambda stage: None
) -> Profile:
    """Profile a model on its own training data and on this machine.

    Args:
        model_name: A shipped model, or the path of a card.
        work: A file that holds the probes until the profile is finished; it may be there already.
        seed: For the split of the training part and for all trainings.
        on_stage: Called as the work goes on.
    """
    card, whole = load_model(model_name)
    shape = whole.shape
    samples = data.load(card, "train")
    num_images = torch.bincount(samples.labels, minlength=len(card.classes)).tolist()
    if 0 in num_images:
        name = card.classes[num_images.index(0)]
        raise InputError(f"class {name!r} of {card.model!r} must have training images, got none.")
    on_stage(Stage("count MACs and parameters", 0, 1))
    fixed, head, channel = audit.audit(shape)
    activations = memory.measure(shape)
    timed = 0

    def on_probe() -> None:
        nonlocal timed
        timed += 1
        on_stage(Stage("time this machine", timed, latency.num_probes(shape)))

    row = latency.measure(shape, seed, on_probe)
    on_stage(Stage("measure importance", 0, 1))
    measured = importance.measure(importance.DEFAULT, whole, samples)
    channel_groups = group_channels(measured, GROUP_SIZE)
    head_shares, group_shares = normalised(measured, channel_groups)
    depth, num_classes = shape.depth, shape.num_classes
    fields: dict[str, Any] = {
        "model": card.model,
        "weights_sha256": card.weights_sha256,
        "classes": card.classes,
        "num_tokens": shape.num_tokens,
        "depth": depth,
        "num_heads": shape.num_heads[0],
        "head_dim": shape.head_dim,
        "hidden_dim": shape.hidden_dim[0],
        "input_bytes": shape.in_channels * shape.image_size**2 * _FLOAT_BYTES,
        "feature_bytes_per_embed_dim": _FLOAT_BYTES,
        "channel_groups": channel_groups,
        "widths": [
            {
                "embed_dim": shape.embed_dim,
                "fixed_macs": fixed.macs,
                "head_macs": [head.macs] * depth,
                "channel_macs": [channel.macs] * depth,
                "fixed_params": fixed.params,
                "head_params": [head.params] * depth,
                "channel_params": [channel.params] * depth,
                "fixed_activation_bytes": activations.fixed,
                "head_activation_bytes": activations.per_head,
                "channel_activation_bytes": activations.per_channel,
                "embed_retention": [1.0] * num_classes,
            }
        ],
        "importance": {"heads": head_shares, "channel_groups": group_shares},
        "latency": {latency.KIND: [row.model_dump()]},
        "provenance": {
            "counts": "fvcore, equal to the closed form",
            "activations": "measured by torch's allocations, float32, one image",
            "importance": f"squared derivatives of gates in thinned networks, {len(samples)} training images",
            "recovery": f"{len(recovery.designs(num_classes))} plans cut, retrained and fused; "
            f"{_HELD_OUT:.0%} of the training part held out",
        },
    }
    profile = Profile.model_validate(fields)
    rows = _recover(profile, card, whole, samples, work, seed, on_stage)
    return Profile.model_validate(fields | {"recovery": [row.model_dump() for row in rows]})


def _recover(
    profile: Profile,
    card: ModelCard,
    whole: VisionTransformer,
    samples: data.Samples,
    work: Path,
    seed: int,
    on_stage: Callable[[Stage], None],
) -> list[Recovery]:
    taught, held = data.holdout(samples, _HELD_OUT, seed)
    jitter = data.Jitter(card.training.max_shift_pixels, card.training.max_rotation_degrees)
    lessons = recover.prepare_lessons(whole, taught, jitter, seed)
    setting = Setting(profile, whole, lessons, held, seed)
    known = _known_probes(work, card.weights_sha256, seed)
    designs = recovery.designs(len(card.classes))
    epochs = 0

    def on_epoch() -> None:
        nonlocal epochs
        epochs += 1
        on_stage(Stage("probe what accuracy survives", epochs, recovery.num_epochs(len(card.classes))))

    for i, (num_classes, share) in enumerate(designs):
        if i < len(known.probes):
            for _ in range(recovery.epochs_of(len(card.classes), num_classes)):
                on_epoch()
            continue
        probe = recovery.run_probe(setting, num_classes, share, on_epoch)
        known = Probes(weights_sha256=known.weights_sha256, seed=seed, probes=(*known.probes, probe))
        write_document(work, known)
    wrong = batched(whole, held.images).argmax(1) != held.labels
    held_by_class = torch.bincount(held.labels, minlength=len(card.classes)).tolist()
    whole_errors = torch.bincount(held.labels[wrong], minlength=len(card.classes)).tolist()
    return recovery.calibrate(known.probes, whole_errors, held_by_class)


def _known_probes(work: Path, weights_sha256: str, seed: int) -> Probes:
    fresh = Probes(weights_sha256=weights_sha256, seed=seed)
    if not work.exists():
        return fresh
    known = read_document(work, Probes)
    if (known.weights_sha256, known.seed) != (weights_sha256, seed):
        raise InputError(f"{work}: holds the probes of other weights or another seed; delete it to begin again.")
    return known
