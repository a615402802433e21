"""Loader of a model card's data: the training, the calibration or the test part.

Predictions are calibrated on images that the whole model has not been trained on: the card's validation part if it has
one, else some of the stored test part, which the test part is then without.
"""

from typing import Literal

import numpy as np
import torch

from planner.arrays import Ints
from planner.errors import InputError
from planner.network.data import sources
from planner.network.data.samples import LazyImages, Samples, calibration_split, rank_in_class, stratified_split
from planner.network.data.sources import StoredImages
from planner.schema import ModelCard

DataPart = Literal["train", "calibration", "test"]

MAX_CALIBRATION_IMAGES = 4000
# Of the draws when a part is cut down or split: fixed, so that the images are the same every time.
_SEED = 0


def load(card: ModelCard, part: DataPart, max_per_class: int | None = None) -> Samples:
    """Return one part of a card's data; its images are decoded and normalised only when they are used.

    The parts never share an image.

    Args:
        card: A card as `load_card` returns it, its paths relative to the working folder.
        part: The training part, the calibration part, or the test part without the calibration part.
        max_per_class: At most so many images of each class, drawn at random but the same every time; all unless given.

    Raises:
        InputError: If the data are missing, damaged or not the card's, a class has no training
            image, the part has no image, a test part has too few to be split, or a package that reads them is not
            installed.
    """
    if part == "train":
        stored, indices, _ = _read_training(card)
    elif part == "test":
        stored, _, indices = _read_split_test(card)
    elif card.data is not None and card.data.has_validation_part:
        stored = sources.read(card, "validation")
        indices = np.arange(len(stored.labels))
    else:
        stored, indices, _ = _read_split_test(card)
    if max_per_class is not None:
        shuffled = np.random.default_rng(_SEED).permutation(indices)
        indices = np.sort(shuffled[rank_in_class(stored.labels[shuffled]) < max_per_class])
    return _samples(card, stored, indices)


def load_test(card: ModelCard) -> tuple[Samples, int]:
    """Return the test part as `load` does, and the number of images of the stored one that calibration took.

    Raises:
        InputError: As `load` does.
    """
    stored, calibration, test = _read_split_test(card)
    return _samples(card, stored, test), len(calibration)


def load_stored_test(card: ModelCard) -> Samples:
    """Return the whole test part, images for calibration included, on which cards state the model's accuracy.

    Raises:
        InputError: As `load` does.
    """
    return _samples(card, *_read_stored_test(card))


def _samples(card: ModelCard, stored: StoredImages, indices: Ints) -> Samples:
    if len(indices) == 0:
        raise InputError(f"{stored.where}: must have at least one image, got none.")
    assert card.preprocessing is not None
    images = LazyImages(stored.pixels, torch.from_numpy(indices), card.architecture, card.preprocessing)
    # Decode the first image, so that a wrong size is noticed before any work.
    images[:1]
    return Samples(images, torch.from_numpy(stored.labels[indices]))


def _read_training(card: ModelCard) -> tuple[StoredImages, Ints, Ints]:
    """Return the stored training part, the indices of what is for training, and of a test part that is split off."""
    stored, source = sources.read(card, "train"), card.data
    counts = np.bincount(stored.labels, minlength=len(card.classes))
    if (empty := np.flatnonzero(counts == 0)).size:
        raise InputError(f"{stored.where}: class {card.classes[empty[0]]!r} must have training images, got none.")
    if source is None or source.test_share is None or source.split_seed is None:
        return stored, np.arange(len(stored.labels)), np.arange(0)
    return stored, *stratified_split(stored.labels, source.test_share, source.split_seed)


def _read_stored_test(card: ModelCard) -> tuple[StoredImages, Ints]:
    """Return the stored images that hold the test part, and the indices of all of it."""
    if card.data is not None and not card.data.has_test_part:
        stored, _, test = _read_training(card)
        return stored, test
    stored = sources.read(card, "test")
    return stored, np.arange(len(stored.labels))


def _read_split_test(card: ModelCard) -> tuple[StoredImages, Ints, Ints]:
    """Return the stored images that hold the test part, and the indices of its images for calibration and for tests."""
    stored, indices = _read_stored_test(card)
    if card.data is not None and card.data.has_validation_part:
        return stored, indices[:0], indices
    if len(indices) < 2:
        raise InputError(
            f"{stored.where}: the test part must have at least 2 images, since some of it calibrates predictions, "
            f"got {len(indices)}; add images, or a validation part to the card's `data`."
        )
    calibration, test = calibration_split(stored.labels[indices], MAX_CALIBRATION_IMAGES, _SEED)
    return stored, indices[calibration], indices[test]
