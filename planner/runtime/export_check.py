"""Measurement of exported sub-models beside torch's, on the test part: features, fused answers, accuracy.

What is exported answers one image at a time, as on a device: in int8, the scale of activations depends on all images of
a batch.

Legend: B images, ch channels, H height, W width, F features of all devices together, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
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
from planner.network.export import INPUT
from planner.runtime.device.names import DTYPES
from planner.runtime.device.session import open_session
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
        feature_errors: Largest difference of a feature from torch's by device, relative to the largest feature.
        num_changed: Number of images with another fused answer than torch's.
    """

    accuracy: ExportedAccuracy
    feature_errors: tuple[float, ...]
    num_changed: int


def sent_values(images: Images, index: Any, image: ImageInput) -> NDArray[Any]:
    """Return images as they are sent to devices: pixels of the network's size, (B, ch, H, W) of the planned type."""
    assert isinstance(images, LazyImages), "a card's data are read lazily"
    values = images.pixel_values(index).numpy()
    if image.dtype == "uint8":
        # Scaled images have values between whole ones.
        values = np.rint(values)
    return np.asarray(values, dtype=DTYPES[image.dtype])


def onnx_features(path: Path, images: NDArray[Any]) -> NDArray[np.float32]:
    """Return the features (B, F) that an exported graph gives for images as sent, one at a time."""
    session = open_session(path)
    rows = [session.run(None, {INPUT: images[i : i + 1]})[0] for i in range(len(images))]
    return np.concatenate(rows)


def compare(
    bundle: Bundle, graphs: Sequence[Path], image: ImageInput, precisions: Sequence[Precision], on_progress: OnCompared
) -> Comparison:
    """Measure exported sub-models on the test part, beside torch's.

    Args:
        bundle: The bundle that was exported.
        graphs: Files of the exported graphs, in the plan's order.
        image: Image as it is sent.
        precisions: Precision of each graph; float32 features must equal torch's.
        on_progress: Called with the images that are done, and all of them.

    Raises:
        InputError: If the test part cannot be read.
        PlannerError: If float32 features differ from torch's, or fused answers do although all are float32.
    """
    test, _ = data.load_test(bundle.card)
    exported, expected = _joined_features(bundle, graphs, test, image, on_progress)
    dims = [a.embed_dim for a in bundle.plan.assignments]
    errors = [
        float(np.abs(got - of_torch).max() / max(np.abs(of_torch).max(), np.finfo(np.float32).tiny))
        for got, of_torch in zip(_split(exported, dims), _split(expected, dims), strict=True)
    ]
    for a, precision, error in zip(bundle.plan.assignments, precisions, errors, strict=True):
        if precision == "float32" and not error <= MAX_FEATURE_ERROR:
            raise PlannerError(
                f"{a.device}: exported features must equal torch's to {MAX_FEATURE_ERROR:g} of their scale, "
                f"got {error:.2g} on the test part; install the versions of constraints.txt and export again."
            )
    logits = apply_in_batches(bundle.fusion, torch.from_numpy(exported))
    of_torch = apply_in_batches(bundle.fusion, torch.from_numpy(expected))
    changed = logits.argmax(1) != of_torch.argmax(1)
    if set(precisions) == {"float32"}:
        _check_answers(changed, of_torch)
    accuracy = ExportedAccuracy(
        num_images=len(test),
        bundle=_bundle_accuracy(bundle, test, of_torch),
        exported=top1_accuracy(logits, test.labels),
    )
    return Comparison(accuracy, tuple(errors), int(changed.sum()))


def _joined_features(
    bundle: Bundle, graphs: Sequence[Path], test: Samples, image: ImageInput, on_progress: OnCompared
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the features (B, F) of all devices side by side, as exported and as torch gives them."""
    sessions = [open_session(path) for path in graphs]
    exported, expected = [], []
    for start in range(0, len(test), _BATCH_SIZE):
        on_progress(start, len(test))
        sent = sent_values(test.images, slice(start, start + _BATCH_SIZE), image)
        for i in range(len(sent)):
            exported.append(np.concatenate([s.run(None, {INPUT: sent[i : i + 1]})[0] for s in sessions], axis=1))
        images = normalise(torch.from_numpy(sent).float(), image.preprocessing)
        with torch.inference_mode():
            expected.append(torch.cat([m.features(images) for m in bundle.sub_models], dim=1).numpy())
    on_progress(len(test), len(test))
    return np.concatenate(exported), np.concatenate(expected)


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
