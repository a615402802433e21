"""Inference in batches, and accuracies.

Legend: B images, C classes.
"""

from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from threading import Event

import torch
from torch import Tensor

from planner.network.data import Images, Samples
from planner.network.side_by_side import num_threads_for

# Enough to keep a core busy; at 256, activations of ViT-Small leave the caches, which takes a sixth more time.
_BATCH_SIZE = 64


def apply_in_batches(function: Callable[[Tensor], Tensor], images: Images) -> Tensor:
    """Return a function's values for all images, a batch at a time, without gradients."""
    stopped = Event()

    def values_of(start: int) -> Tensor:
        if stopped.is_set():
            raise CancelledError
        # The mode is a thread's own.
        with torch.inference_mode():
            return function(images[start : start + _BATCH_SIZE])

    starts = range(0, len(images), _BATCH_SIZE)
    if (num_threads := num_threads_for(len(starts))) > 1:
        with ThreadPoolExecutor(num_threads) as pool:
            try:
                batches = list(pool.map(values_of, starts))
            except BaseException:
                # An interrupted command does not wait for batches that are still to come.
                stopped.set()
                raise
    else:
        batches = [values_of(start) for start in starts]
    # Cloned outside: a tensor that was made in inference mode cannot be part of a training.
    return torch.cat(batches).clone()


def right_answers(model: Callable[[Tensor], Tensor], images: Images, labels: Tensor) -> Tensor:
    """Return for each image whether its label has the highest logit, (B,); no logits but a batch's are held."""
    return apply_in_batches(lambda batch: model(batch).argmax(1), images) == labels


def accuracy(model: Callable[[Tensor], Tensor], samples: Samples) -> float:
    """Return the share of samples whose label has the highest logit."""
    return float(right_answers(model, samples.images, samples.labels).float().mean())


def top1_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows (B, C) whose highest logit is at the label (B,)."""
    return float((logits.argmax(1) == labels).float().mean())


def accuracy_by_class(logits: Tensor, labels: Tensor) -> list[float]:
    """Return the top-1 accuracy among the samples of each class, (C,); NaN for a class without samples."""
    correct = (logits.argmax(1) == labels).float()
    return [float(correct[labels == c].mean()) for c in range(logits.shape[1])]
