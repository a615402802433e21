"""Measurement of exported sub-models beside torch's, on the test part: features, fused answers, accuracy.

What is exported answers one image at a time, as on a device: in int8, the scale of activations depends on all images of
a batch.

Legend: B images, ch channels, H height, W width, F features of all devices together, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planner.errors import PlannerError
from planner.executor.bundle import Bundle
from planner.network import data
from planner.network.data import Images, LazyImages, Samples
from planner.network.data.pixels import normalise
from planner.network.evaluation import apply_in_batches, top1_accuracy
from planner.network.vit import VisionTransformer
from planner.runtime.device.names import DTYPES
from planner.runtime.engine_folders import FeaturesOf
from planner.schema import ExportedAccuracy, ImageInput, Precision

# Largest difference of a float32 feature from torch's, relative to the largest feature.
MAX_FEATURE_ERROR = 1e-4
_BATCH_SIZE = 64

OnCompared = Callable[[int, int], None]


@dataclass(frozen=True)
class Comparison:
    """Exported sub-models beside torch's, on the test part.

    Attributes:
        accuracy: Accuracies of the bundle and of what was exported.
        feature_errors: Largest difference of a feature from torch's by device, relative to the largest feature; None
            for a sub-model that cannot be run here.
        num_changed: Number of images with another fused answer than torch's; None if not every sub-model was run.
    """

    accuracy: ExportedAccuracy
    feature_errors: tuple[float | None, ...]
    num_changed: int | None


def sent_values(images: Images, index: Any, image: ImageInput) -> NDArray[Any]:
    """Return images as they are sent to devices: pixels of the network's size, (B, ch, H, W) of the planned type."""
    assert isinstance(images, LazyImages), "a card's data are read lazily"
    values = images.pixel_values(index).numpy()
    if image.dtype == "uint8":
        # Scaled images have values between whole ones.
        values = np.rint(values)
    return np.asarray(values, dtype=DTYPES[image.dtype])


def torch_features(network: VisionTransformer, images: NDArray[Any], image: ImageInput) -> NDArray[np.float32]:
    """Return the features (B, F) that torch gives for images as sent."""
    with torch.inference_mode():
        features: NDArray[np.float32] = network.features(
            normalise(torch.from_numpy(images).float(), image.preprocessing)
        ).numpy()
    return features


def compare(
    bundle: Bundle,
    exported_models: Sequence[FeaturesOf | None],
    image: ImageInput,
    precisions: Sequence[Precision],
    on_progress: OnCompared,
) -> Comparison:
    """Measure exported sub-models on the test part, beside torch's.

    Args:
        bundle: The bundle that was exported.
        exported_models: Exported sub-models in the plan's order; None for one that cannot be run here.
        image: Image as it is sent.
        precisions: Precision of each; float32 features must equal torch's.
        on_progress: Called with the images that are done, and all of them.

    Raises:
        InputError: If the test part cannot be read.
        PlannerError: If float32 features differ from torch's, or fused answers do although all are float32.
    """
    test, _ = data.load_test(bundle.card)
    exported, expected = _joined_features(bundle, exported_models, test, image, on_progress)
    dims = [a.embed_dim for a in bundle.plan.assignments]
    errors = [
        None if model is None else _error(got, of_torch)
        for model, got, of_torch in zip(exported_models, _split(exported, dims), _split(expected, dims), strict=True)
    ]
    for a, precision, error in zip(bundle.plan.assignments, precisions, errors, strict=True):
        if precision == "float32" and error is not None and not error <= MAX_FEATURE_ERROR:
            raise PlannerError(
                f"{a.device}: exported features must equal torch's to {MAX_FEATURE_ERROR:g} of their scale, "
                f"got {error:.2g} on the test part; install the versions of constraints.txt and export again."
            )
    logits = apply_in_batches(bundle.fusion, torch.from_numpy(exported))
    of_torch = apply_in_batches(bundle.fusion, torch.from_numpy(expected))
    changed = logits.argmax(1) != of_torch.argmax(1)
    if set(precisions) == {"float32"}:
        _check_answers(changed, of_torch)
    is_measured = None not in exported_models
    accuracy = ExportedAccuracy(
        num_images=len(test),
        bundle=_bundle_accuracy(bundle, test, of_torch),
        exported=top1_accuracy(logits, test.labels) if is_measured else None,
    )
    return Comparison(accuracy, tuple(errors), int(changed.sum()) if is_measured else None)


def _joined_features(
    bundle: Bundle,
    exported_models: Sequence[FeaturesOf | None],
    test: Samples,
    image: ImageInput,
    on_progress: OnCompared,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the features (B, F) of all devices side by side, as exported and as torch gives them."""
    exported, expected = [], []
    for start in range(0, len(test), _BATCH_SIZE):
        on_progress(start, len(test))
        sent = sent_values(test.images, slice(start, start + _BATCH_SIZE), image)
        of_torch = [torch_features(network, sent, image) for network in bundle.sub_models]
        got = [rows if f is None else f(sent) for f, rows in zip(exported_models, of_torch, strict=True)]
        exported.append(np.concatenate(got, axis=1))
        expected.append(np.concatenate(of_torch, axis=1))
    on_progress(len(test), len(test))
    return np.concatenate(exported), np.concatenate(expected)


def _error(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))


def _check_answers(changed: Tensor, logits: Tensor) -> None:
    """Refuse other answers than torch's, unless torch's two best logits are equal but for rounding."""
    best = logits.topk(min(2, logits.shape[1]), dim=1).values
    is_tie = best[:, 0] - best[:, -1] <= MAX_FEATURE_ERROR * logits.abs().max()
    if wrong := int((changed & ~is_tie).sum()):
        raise PlannerError(
            f"Exported sub-models must give torch's fused answer on each image of the test part, "
            f"got another one on {wrong} of {len(changed)}."
        )


def _bundle_accuracy(bundle: Bundle, test: Samples, logits: Tensor) -> float:
    """Return the accuracy as evaluated: of images that are not rounded to bytes, which only scaled ones differ from."""
    assert bundle.card.preprocessing is not None
    if bundle.card.preprocessing.resize is not None:
        joined = torch.cat([apply_in_batches(m.features, test.images) for m in bundle.sub_models], dim=1)
        logits = apply_in_batches(bundle.fusion, joined)
    return top1_accuracy(logits, test.labels)


def _split(features: NDArray[np.float32], dims: Sequence[int]) -> list[NDArray[np.float32]]:
    return np.split(features, np.cumsum(dims)[:-1], axis=1)
