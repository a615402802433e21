"""Loader of the training or the test part of a model card's data."""

from typing import Literal

import numpy as np
import torch

from planner.arrays import Ints
from planner.errors import InputError
from planner.network.data import sources
from planner.network.data.samples import LazyImages, Samples, stratified_split
from planner.schema import ModelCard

DataPart = Literal["train", "test"]

# Of the draw when a part is cut down: fixed, so that the images are the same every time.
_SEED = 0


def load(card: ModelCard, part: DataPart, max_per_class: int | None = None) -> Samples:
    """Return one part of a card's data; its images are decoded and normalised only when they are used.

    Args:
        card: A card as `load_card` returns it, its paths relative to the working folder.
        part: The training or the test part.
        max_per_class: At most so many images of each class, drawn at random but the same every time; all unless given.

    Raises:
        InputError: If the data are missing, damaged or not the card's, a class has no training
            image, or a package that reads them is not installed.
    """
    source = card.data
    own_test = source is not None and source.has_test_part
    stored = sources.read(card, test=own_test and part == "test")
    indices = np.arange(len(stored.labels))
    if part == "train" or not own_test:
        _check_classes(stored, card)
    if source is not None and source.test_share is not None and source.split_seed is not None:
        train, test = stratified_split(stored.labels, source.test_share, source.split_seed)
        indices = train if part == "train" else test
    if max_per_class is not None:
        indices = _sample_per_class(indices, stored.labels, max_per_class)
    if len(indices) == 0:
        raise InputError(f"{stored.where}: must have at least one image, got none.")
    assert card.preprocessing is not None
    images = LazyImages(stored.pixels, torch.from_numpy(indices), card.architecture, card.preprocessing)
    # Decode the first image, so that a wrong size is noticed before any work.
    images[:1]
    return Samples(images, torch.from_numpy(stored.labels[indices]))


def _check_classes(stored: sources.StoredPart, card: ModelCard) -> None:
    counts = np.bincount(stored.labels, minlength=len(card.classes))
    if (empty := np.flatnonzero(counts == 0)).size:
        raise InputError(f"{stored.where}: class {card.classes[empty[0]]!r} must have training images, got none.")


def _sample_per_class(indices: Ints, labels: Ints, max_per_class: int) -> Ints:
    """Return at most so many of these indices for each class, in their order: the first of a shuffle."""
    shuffled = np.random.default_rng(_SEED).permutation(indices)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    kept = [by_class[start : start + min(size, max_per_class)] for start, size in zip(starts, sizes, strict=True)]
    return np.sort(np.concatenate(kept))
