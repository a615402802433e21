"""Answers and accuracies.

Legend: B images, C classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from planner.network.data import Images, Samples

# Enough to keep a core busy, few enough to hold the activations of a ViT-Base.
_BATCH = 256


def batched(function: Callable[[Tensor], Tensor], images: Images) -> Tensor:
    """Return a function's values for all images, a batch at a time, without gradients."""
    with torch.inference_mode():
        starts = range(0, len(images), _BATCH)
        answers = torch.cat([function(images[start : start + _BATCH]) for start in starts])
    # Cloned outside: what is made in inference mode cannot be part of a training.
    return answers.clone()


def accuracy(model: Callable[[Tensor], Tensor], samples: Samples) -> float:
    """Return the share of samples whose label has the highest logit."""
    return share_right(batched(model, samples.images), samples.labels)


def share_right(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows (B, C) whose highest logit is at the label (B,)."""
    return float((logits.argmax(1) == labels).float().mean())


def share_right_by_class(logits: Tensor, labels: Tensor) -> list[float]:
    """Return the share that is right among the samples of each class, (C,)."""
    right = (logits.argmax(1) == labels).float()
    return [float(right[labels == c].mean()) for c in range(logits.shape[1])]
