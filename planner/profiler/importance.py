"""Importance of each head, hidden channel and embed dim for each class.

A method gives every image's values for every unit; they are summed class by class, batch by batch, and become means.
`planner.profiler.grouping` then groups channels that the same classes need, and
`planner.profiler.importance_shares` turns importance into the shares that a profile holds.

The methods, compared in docs/importance.md:

- thinned: squared gradients of the loss by the gates of units, in networks with a random quarter of all gates closed
  (the default: it predicts best what is lost after retraining, and plans are retrained).
- shapley: the first-order increase of the loss when a unit is removed, by the same gradients with their signs (it
  predicts best what is lost without retraining, but also values what retraining recovers).
- fisher: squared gradients of the whole model's loss (Fisher information).
- taylor: absolute values of the whole model's gradients (first-order Taylor expansion).
- kl: the method of ED-ViT; one unit at a time, for a few images of each class.
- magnitude: squared norm of a unit's weights, without any image; the same for all classes. The baseline.

Legend: C classes, L blocks, H heads, hd head dim, c hidden channels, E embed dims.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from planner.arrays import Floats
from planner.errors import InputError
from planner.network.data import Samples
from planner.network.vit import Shape, VisionTransformer
from planner.profiler import gradient_importance, kl_importance
from planner.profiler.importance_sums import (
    ImportanceSums,
    MeasurementIdentity,
    UnitImportance,
    UnitValues,
    labels_hash,
    weights_hash,
)

ImportanceMethod = Literal["thinned", "shapley", "fisher", "taylor", "kl", "magnitude"]

DEFAULT_METHOD: ImportanceMethod = "thinned"

# The power that predicted better of the root and the square; see `UnitImportance`.
EXPONENTS: dict[ImportanceMethod, float] = {
    "thinned": 1.0,
    "shapley": 1.0,
    "fisher": 1.0,
    "taylor": 1.0,
    "kl": 0.5,
    "magnitude": 0.5,
}


def measure_importance(
    method: ImportanceMethod,
    model: VisionTransformer,
    samples: Samples,
    on_images: Callable[[int, int], None] = lambda num_done, num_total: None,
    state: Path | None = None,
    seed: int = 0,
) -> UnitImportance:
    """Measure the importance of every unit of a model for every class.

    Args:
        method: See the module.
        model: A whole model: all its blocks have the same number of heads and of channels.
        samples: Training images, at least one of each class; read a batch at a time.
        on_images: Called with the number of images done and their total, after each batch.
        state: A file for the sums, written now and then and when the measurement ends or is interrupted; if it
            exists, the measurement continues from it.
        seed: For the thinned networks, and for the images that kl draws.

    Raises:
        InputError: If a class has no image, a gradient is not finite, or the state is another measurement's.
    """
    counts = torch.bincount(samples.labels, minlength=model.shape.num_classes)
    if not counts.all():
        raise InputError(f"every class must have images to measure importance on, class {counts.argmin()} has none.")
    if method == "magnitude":
        return magnitude_importance(model)
    selected = kl_importance.sample_images(samples, seed) if method == "kl" else torch.arange(len(samples))
    size = _batch_size(method, model.shape)
    identity = state and MeasurementIdentity(
        weights_hash(model), method, len(samples), labels_hash(samples.labels), seed
    )
    sums = ImportanceSums.zero(model.shape)
    if state and identity:
        sums.resume(state, identity)
    try:
        while sums.num_done < len(selected):
            batch = selected[sums.num_done : sums.num_done + size]
            # Seeded for each batch by itself, so that a measurement that continues here draws the same.
            generator = torch.Generator().manual_seed(seed * 1_000_003 + sums.num_done)
            images, labels = samples.images[batch], samples.labels[batch]
            sums.add(labels, _image_values(method, model, images, labels, generator))
            if state and identity:
                sums.save_if_due(state, identity)
            on_images(sums.num_done, len(selected))
    finally:
        if state and identity:
            sums.save(state, identity)
    return sums.means(torch.bincount(samples.labels[selected], minlength=len(counts)), EXPONENTS[method])


def measure_on(method: ImportanceMethod, model: VisionTransformer, images: Tensor, labels: Tensor, seed: int) -> None:
    """Do the work of a measurement on some images, to time it."""
    if method != "magnitude":
        _image_values(method, model, images, labels, torch.Generator().manual_seed(seed))


def _batch_size(method: ImportanceMethod, shape: Shape) -> int:
    if method == "kl":
        return kl_importance.kl_batch_size(shape)
    return gradient_importance.gradient_batch_size(shape)


def _image_values(
    method: ImportanceMethod, model: VisionTransformer, images: Tensor, labels: Tensor, generator: torch.Generator
) -> UnitValues:
    if method == "thinned":
        return gradient_importance.thinned_squared_gradients(model, images, labels, generator)
    if method == "shapley":
        return gradient_importance.loss_increases(model, images, labels, generator)
    if method == "kl":
        return kl_importance.kl_divergences(model, images)
    if method == "fisher":
        return gradient_importance.squared_gradients(model, images, labels)
    return gradient_importance.absolute_gradients(model, images, labels)


def magnitude_importance(model: VisionTransformer) -> UnitImportance:
    """Return the squared norm of each unit's weights, those that read for it and those that write its output."""
    shape = model.shape
    C, hd = shape.num_classes, shape.head_dim
    heads, channels = [], []
    dims = torch.zeros(shape.embed_dim, dtype=torch.float64)
    for name, p in model.named_parameters():
        if not name.endswith("weight") or p.ndim < 2:
            continue
        # Of all matrices, these write to the residual stream: their rows are its dims.
        writes = name.endswith(("attn.proj.weight", "mlp.fc2.weight", "patch_embed.proj.weight"))
        squared = p.detach().double().flatten(1) ** 2
        dims += squared.sum(1 if writes else 0)
        if name.endswith("attn.qkv.weight"):
            heads.append(squared.sum(1).view(3, -1, hd).sum((0, 2)))
        elif name.endswith("attn.proj.weight"):
            heads[-1] += squared.sum(0).view(-1, hd).sum(1)
        elif name.endswith("mlp.fc1.weight"):
            channels.append(squared.sum(1).view(shape.rows_per_channel, -1).sum(0))
        elif name.endswith("mlp.fc2.weight"):
            channels[-1] += squared.sum(0)

    def for_each_class(values: Tensor) -> Floats:
        return np.broadcast_to(values.numpy(), (C, *values.shape))

    of_heads, of_channels = torch.stack(heads), torch.stack(channels)
    return UnitImportance(
        for_each_class(of_heads), for_each_class(of_channels), for_each_class(dims), EXPONENTS["magnitude"]
    )
