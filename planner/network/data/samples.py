"""Images with labels, in memory or decoded when they are used.

Legend: B images, ch input channels, H height, W width.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from planner.arrays import Ints
from planner.errors import InputError
from planner.image_files import not_installed
from planner.network.data.pixels import Pixels, fit_to_network, normalise
from planner.schema import Architecture, Preprocessing


class Images(Protocol):
    """Preprocessed images by index: a tensor (B, ch, H, W), or `LazyImages`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class LazyImages:
    """Images that become float tensors only when they are indexed.

    Only bytes or file names are in memory, so that a training set of any size can be used in batches.
    """

    pixels: Pixels
    indices: Tensor  # (B,), of these among the stored images
    architecture: Architecture
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all images as a tensor, (B, ch, H, W)."""
        a = self.architecture
        return len(self), a.in_channels, *a.image_sides

    def __getitem__(self, index: Any) -> Tensor:
        """Return the images at any index that a tensor takes in its first dimension."""
        return normalise(self.pixel_values(index), self.preprocessing)

    def pixel_values(self, index: Any) -> Tensor:
        """Return the pixels of images in the network's size, as floats on their stored scale: not yet normalised."""
        stored = self.indices[index]
        batches = self.pixels.read(stored.flatten().tolist())
        images = [fit_to_network(where, pixels, self.architecture, self.preprocessing) for where, pixels in batches]
        return torch.cat(images).view(*stored.shape, *self.shape[1:])

    def take(self, indices: Tensor) -> "LazyImages":
        """Return the images at these indices, not yet decoded."""
        return LazyImages(self.pixels, self.indices[indices], self.architecture, self.preprocessing)


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


def stratified_split(labels: Ints, test_share: float, seed: int) -> tuple[Ints, Ints]:
    """Return the indices of the training and the test part: the same share of each class is for the test.

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


def rank_in_class(labels: Ints) -> Ints:
    """Return the number of images of the same class that come before each image, (B,)."""
    sizes = np.bincount(labels)
    ranks = np.empty_like(labels)
    ranks[np.argsort(labels, kind="stable")] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return ranks


def calibration_split(labels: Ints, max_images: int, seed: int) -> tuple[Ints, Ints]:
    """Return the indices of a stratified half, of at most so many images, and those of the rest.

    Classes share the half in proportion to their images. Each class with two images or more has one on both sides, if
    `max_images` allows one of each.

    Source:
        Apportionment by Webster's (Sainte-Laguë's) method, with a minimum of one.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    ranks, sizes = rank_in_class(labels[order]), np.bincount(labels)[labels[order]]
    quotients = (2 * ranks + 1) / sizes
    quotients[(ranks == 0) & (sizes > 1)] = 0
    # Of equal quotients, those drawn first.
    by_quotient = order[np.argsort(quotients, kind="stable")]
    size = min(len(labels) // 2, max_images)
    return np.sort(by_quotient[:size]), np.sort(by_quotient[size:])


def fold(samples: Samples, index: int, num_folds: int, seed: int) -> tuple[Samples, Samples]:
    """Return the training and the hold-out samples of one fold of a stratified cross-validation.

    Args:
        samples: Samples to split.
        index: Fold to hold out, 0 to num_folds - 1.
        num_folds: Number of folds; together they are all samples.
        seed: Seed of the shuffle that deals the samples out.
    """
    labels = samples.labels.numpy()
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # Dealt out one by one, class after class, so that each fold has equally much of each class.
    hold_out = np.sort(by_class[index::num_folds])
    training = np.setdiff1d(np.arange(len(labels)), hold_out)
    return samples.take(torch.from_numpy(training)), samples.take(torch.from_numpy(hold_out))
