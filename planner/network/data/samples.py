"""Images with labels, for whoever trains and measures.

Legend: B images, ch input channels, H height, W width.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from planner.errors import InputError
from planner.network.data.pixels import Pixels, not_installed, prepared
from planner.schema import Architecture, Preprocessing


class Images(Protocol):
    """Preprocessed images by index: a tensor (B, ch, H, W), or `LazyImages`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class LazyImages:
    """Images that become float tensors only where they are asked for.

    What is held is bytes, or file names: as many images as a training set has can be walked
    through in batches.
    """

    pixels: Pixels
    chosen: Tensor  # (B,), which of the stored images these are
    architecture: Architecture
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, ch, H, W)."""
        a = self.architecture
        return len(self), a.in_channels, a.image_size, a.image_size

    def __getitem__(self, index: Any) -> Tensor:
        """Return the images at an index of any kind that a tensor takes in its first dimension."""
        stored = self.chosen[index]
        batches = self.pixels.read(stored.flatten().tolist())
        images = [prepared(where, pixels, self.architecture, self.preprocessing) for where, pixels in batches]
        return torch.cat(images).view(*stored.shape, *self.shape[1:])

    def take(self, indices: Tensor) -> "LazyImages":
        """Return the images at these indices, as lazy as these."""
        return LazyImages(self.pixels, self.chosen[indices], self.architecture, self.preprocessing)


@dataclass(frozen=True)
class Samples:
    """Preprocessed images (B, ch, H, W) and labels (B,): label i is the card's class i."""

    images: Images
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def tensor(self) -> Tensor:
        """Return all images in memory, (B, ch, H, W)."""
        return self.images[:]

    def take(self, indices: Tensor) -> "Samples":
        """Return the samples at these indices."""
        images = self.images.take(indices) if isinstance(self.images, LazyImages) else self.images[indices]
        return Samples(images, self.labels[indices])


def stratified_split(labels: NDArray[np.int64], test_share: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the indices of the train and the test part: the same share of each class is test.

    Raises:
        InputError: If there are too few images for each class to have some in both parts, or
            scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError:
        raise not_installed("splitting off a test part", "scikit-learn") from None
    everything = np.arange(len(labels))
    try:
        train, test = train_test_split(everything, test_size=test_share, random_state=seed, stratify=labels)
    except ValueError as error:
        raise InputError(f"{len(labels)} images cannot be split, {test_share:g} of each class apart: {error}") from None
    return np.sort(train), np.sort(test)


def fold(samples: Samples, index: int, count: int, seed: int) -> tuple[Samples, Samples]:
    """Split samples once more: all others, and one of so many parts that have equally much of each class.

    Args:
        samples: What to split.
        index: Which part to hold out, 0 to count - 1.
        count: How many parts there are; together they are all samples.
        seed: For who is in which part.
    """
    labels = samples.labels.numpy()
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # Dealt out one by one, class after class.
    held = np.sort(by_class[index::count])
    kept = np.setdiff1d(np.arange(len(labels)), held)
    return samples.take(torch.from_numpy(kept)), samples.take(torch.from_numpy(held))
