"""How much each class needs each head, hidden channel and embed dim.

The story: a method gives every image's numbers for every unit; they are added up class by class, batch by batch,
and become means. `planner.profiler.grouping` then puts channels together that the same classes need,
`planner.profiler.importance_shares` turns importance into the shares that a profile holds.

The methods, compared in docs/importance.md:

- thinned: squared derivatives of the loss by the gates of units, in networks with a quarter of all gates closed at
  random (the default: it predicts best what is lost after retraining, which is what a plan does).
- shapley: the rise of the loss with a unit's closing, by the same derivatives with their signs (it predicts best what
  is lost without retraining, but takes for worth what retraining makes good).
- fisher: squared derivatives of the whole model's loss.
- taylor: absolute values of the whole model's derivatives.
- kl: what ED-ViT does; one unit at a time, for a few images of each class.
- magnitude: squares of a unit's weights, without any image; the same for all classes. The yardstick.

Legend: C classes, L blocks, H heads, hd head dim, c hidden channels, E embed dims.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from planner.errors import InputError
from planner.network.data import Samples
from planner.network.vit import VisionTransformer
from planner.profiler import gradient_importance, kl_importance
from planner.profiler.importance_sums import (
    Floats,
    Identity,
    Sums,
    UnitImportance,
    UnitValues,
    labels_hash,
    weights_hash,
)

ImportanceMethod = Literal["thinned", "shapley", "fisher", "taylor", "kl", "magnitude"]

DEFAULT: ImportanceMethod = "thinned"

# What of roots and squares predicts better; see `UnitImportance`.
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
        model: A whole model: its blocks have equally many heads and channels.
        samples: Training images, each class among them; read a batch at a time.
        on_images: Called with the images done and their total, after each batch.
        state: A file that keeps the sums now and then, and when the measurement ends or is interrupted; if it is
            there, the measurement goes on from it.
        seed: For the thinned networks, and for the images that kl draws.

    Raises:
        InputError: If a class has no image, an image's numbers are not finite, or the state is another measurement's.
    """
    counts = torch.bincount(samples.labels, minlength=model.shape.num_classes)
    if not counts.all():
        raise InputError(f"every class must have images to measure importance on, class {counts.argmin()} has none.")
    if method == "magnitude":
        return magnitude(model)
    chosen = kl_importance.sample(samples, seed) if method == "kl" else torch.arange(len(samples))
    size = (kl_importance if method == "kl" else gradient_importance).batch_size(model.shape)
    identity = state and Identity(weights_hash(model), method, len(samples), labels_hash(samples.labels), seed)
    sums = Sums.zero(model.shape)
    if state and identity:
        sums.resume(state, identity)
    try:
        while sums.num_done < len(chosen):
            batch = chosen[sums.num_done : sums.num_done + size]
            # Of this batch alone: one that goes on from here draws the same.
            generator = torch.Generator().manual_seed(seed * 1_000_003 + sums.num_done)
            images, labels = samples.images[batch], samples.labels[batch]
            sums.add(labels, _values(method, model, images, labels, generator))
            if state and identity:
                sums.save_at_times(state, identity)
            on_images(sums.num_done, len(chosen))
    finally:
        if state and identity:
            sums.save(state, identity)
    return sums.means(torch.bincount(samples.labels[chosen], minlength=len(counts)), EXPONENTS[method])


def _values(
    method: ImportanceMethod, model: VisionTransformer, images: Tensor, labels: Tensor, generator: torch.Generator
) -> UnitValues:
    if method == "thinned":
        return gradient_importance.thinned_squares(model, images, labels, generator)
    if method == "shapley":
        return gradient_importance.rises(model, images, labels, generator)
    if method == "kl":
        return kl_importance.divergences(model, images)
    return (gradient_importance.squares if method == "fisher" else gradient_importance.magnitudes)(
        model, images, labels
    )


def magnitude(model: VisionTransformer) -> UnitImportance:
    """Return the squared norm of each unit's weights: what reads for it, and what it writes with."""
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
            channels.append(squared.sum(1))
        elif name.endswith("mlp.fc2.weight"):
            channels[-1] += squared.sum(0)

    def for_each_class(values: Tensor) -> Floats:
        return np.broadcast_to(values.numpy(), (C, *values.shape))

    of_heads, of_channels = torch.stack(heads), torch.stack(channels)
    return UnitImportance(
        for_each_class(of_heads), for_each_class(of_channels), for_each_class(dims), EXPONENTS["magnitude"]
    )
