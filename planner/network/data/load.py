"""One part of the data that a model card names."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from planner.errors import InputError
from planner.network.data import sources
from planner.network.data.samples import LazyImages, Samples, stratified_split
from planner.schema import ModelCard

DataPart = Literal["train", "test"]

# Of the draw when a part is cut down: the same images every time.
_SEED = 0


def load(card: ModelCard, part: DataPart, per_class: int | None = None) -> Samples:
    """Return one part of a card's data, its images decoded and normalised where they are asked for.

    Args:
        card: As `load_card` returns it, its paths seen from the working folder.
        part: The training or the test part.
        per_class: At most so many images of each class, drawn at random but the same every time.

    Raises:
        InputError: If the data are missing, damaged or not the card's, a class has no training
            image, or a package that reads them is not installed.
    """
    source = card.data
    own_test = source is not None and source.has_test_part
    stored = sources.read(card, test=own_test and part == "test")
    chosen = np.arange(len(stored.labels))
    if part == "train" or not own_test:
        _refuse_empty(stored, card)
    if source is not None and source.test_share is not None and source.split_seed is not None:
        train, test = stratified_split(stored.labels, source.test_share, source.split_seed)
        chosen = train if part == "train" else test
    if per_class is not None:
        chosen = _first_of_each(chosen, stored.labels, per_class)
    if len(chosen) == 0:
        raise InputError(f"{stored.where}: must have at least one image, got none.")
    assert card.preprocessing is not None
    images = LazyImages(stored.pixels, torch.from_numpy(chosen), card.architecture, card.preprocessing)
    # The first image, so that a wrong size is noticed before any work.
    images[:1]
    return Samples(images, torch.from_numpy(stored.labels[chosen]))


def _refuse_empty(stored: sources.Stored, card: ModelCard) -> None:
    counts = np.bincount(stored.labels, minlength=len(card.classes))
    if (empty := np.flatnonzero(counts == 0)).size:
        raise InputError(f"{stored.where}: class {card.classes[empty[0]]!r} must have training images, got none.")


def _first_of_each(chosen: NDArray[np.int64], labels: NDArray[np.int64], per_class: int) -> NDArray[np.int64]:
    """Return at most so many of the chosen indices for each class, in their order: the first of a shuffle."""
    shuffled = np.random.default_rng(_SEED).permutation(chosen)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    kept = [by_class[start : start + min(size, per_class)] for start, size in zip(starts, sizes, strict=True)]
    return np.sort(np.concatenate(kept))
