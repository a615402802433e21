"""The images a model card names, ready for the network.

Legend: B images, ch input channels, H height, W width.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from planner.errors import InputError
from planner.schema import ModelCard

Part = Literal["train", "test"]


@dataclass(frozen=True)
class Samples:
    """Preprocessed images (B, ch, H, W) and labels (B,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Samples":
        """Return the samples at these indices."""
        return Samples(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Jitter:
    """Random small shifts [pixels] and rotations [degrees], up to these."""

    shift: float
    rotation: float

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        draws = 2 * torch.rand(3, len(images), generator=generator) - 1
        angle = draws[0] * math.radians(self.rotation)
        dx, dy = draws[1:] * self.shift * 2 / images.shape[-1]
        rows = (torch.stack([angle.cos(), -angle.sin(), dx], 1), torch.stack([angle.sin(), angle.cos(), dy], 1))
        grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def load(card: ModelCard, part: Part) -> Samples:
    """Return one part of a card's data.

    Raises:
        InputError: If the package that holds the data is not installed.
    """
    images, labels = _digits()
    train, test = _stratified_split(labels, card.data.test_share, card.data.split_seed)
    chosen = train if part == "train" else test
    pixels = torch.from_numpy(images[chosen]).float()
    pre = card.preprocessing
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (pre.mean, pre.std))
    return Samples((pixels * pre.scale - mean) / std, torch.from_numpy(labels[chosen]).long())


def _digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise InputError(
            "data source 'sklearn-digits' needs scikit-learn, which is not installed: pip install 'vit-planner[data]'."
        ) from None
    digits = load_digits()
    return digits.images[:, None].astype(np.float32), digits.target


def _stratified_split(labels: np.ndarray, test_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the train and the test part: the same share of each class is test."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(len(labels)), test_size=test_share, random_state=seed, stratify=labels)
    return np.sort(train), np.sort(test)


def holdout(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Split samples once more: what is left, and a share of each class held out."""
    kept, held = _stratified_split(samples.labels.numpy(), share, seed)
    return samples.take(torch.from_numpy(kept)), samples.take(torch.from_numpy(held))
