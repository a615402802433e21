"""Calibration images of a profile: unseen by the whole model, and what it makes of them.

Legend: B images, C classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from planner.arrays import Floats
from planner.errors import InputError
from planner.network import data
from planner.network.data import Samples
from planner.network.evaluation import apply_in_batches
from planner.network.vit import VisionTransformer
from planner.schema import ModelCard

# An accuracy further below the card's than this, and than chance explains, is that of another preprocessing.
_MAX_DIFFERENCE, _MAX_DEVIATIONS = 0.05, 4.0


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration images, and which of them the whole model gets right."""

    samples: Samples  # B
    whole_is_right: Tensor  # (B,)

    def counts(self, num_classes: int) -> tuple[Floats, Floats]:
        """Return the number of images of each class, and of those that the whole model misclassifies, (C,) each."""
        labels = self.samples.labels.numpy()
        wrong = labels[~self.whole_is_right.numpy()]
        images, errors = (np.bincount(x, minlength=num_classes).astype(np.float64) for x in (labels, wrong))
        return images, errors


def calibrate_whole(
    card: ModelCard, whole: VisionTransformer, on_images: Callable[[int, int], None] = lambda done, total: None
) -> Calibration:
    """Run the whole model over the calibration images.

    Args:
        card: Card of the model; it names the data.
        whole: The whole model.
        on_images: Called with the number of images done, and of all.

    Raises:
        InputError: If the data cannot be used, or the accuracy is far below the card's.
    """
    samples = data.load(card, "calibration")
    num_done, num_images = 0, len(samples)
    on_images(0, num_images)

    def classes_of(images: Tensor) -> Tensor:
        nonlocal num_done
        classes: Tensor = whole(images).argmax(1)
        num_done += len(images)
        on_images(num_done, num_images)
        return classes

    is_right = apply_in_batches(classes_of, samples.images) == samples.labels
    found = float(is_right.float().mean())
    if found == 0:
        raise InputError(
            f"card of {card.model!r}: the whole model must be right on some of its {num_images:,} calibration images, "
            "got none; look whether preprocessing, class names and data are those of its training."
        )
    stated = (card.accuracy or {}).get("test")
    if stated is None:
        return Calibration(samples, is_right)
    tolerance = max(_MAX_DIFFERENCE, _MAX_DEVIATIONS * math.sqrt(stated * (1 - stated) / num_images))
    if found < stated - tolerance:
        raise InputError(
            f"card of {card.model!r}: the whole model must be about as accurate on its calibration images as the card "
            f"says, {100 * stated:.1f} %, got {100 * found:.1f} %; look whether preprocessing, class names and data "
            "are those of its training."
        )
    return Calibration(samples, is_right)
