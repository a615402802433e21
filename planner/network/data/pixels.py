"""Stored pixels, and their preprocessing for a network.

Legend: B images, ch channels, H height, W width, N images in store.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from planner.errors import InputError
from planner.image_files import decode_image
from planner.schema import Architecture, Preprocessing

# Of an image, below which no crop is proposed: most of a spectrogram's time would be cut away.
_MIN_KEPT_SHARE = Fraction(1, 2)
# ITU-R 601, as Pillow has it.
_LUMA = (0.299, 0.587, 0.114)


class Pixels(Protocol):
    """Stored images of 8 bits a channel, or spectrograms of floats."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Path | str, Tensor]]:
        """Yield the images at these indices in their order: their source, and (B, ch, H, W) of one size."""


@dataclass(frozen=True)
class ArrayPixels:
    """Images of one size in memory, (N, H, W, ch)."""

    source: Path | str
    array: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Path | str, Tensor]]:
        """Yield all images at once."""
        yield self.source, torch.from_numpy(self.array[list(indices)]).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class FilePixels:
    """Image files of any sizes, decoded each time they are read."""

    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[Path | str, Tensor]]:
        """Yield one image at a time.

        Raises:
            InputError: If a file is no image, or a damaged one.
        """
        for i in indices:
            pixels = decode_image(self.files[i], self.files[i], "data source 'folder'")
            yield self.files[i], torch.from_numpy(pixels).permute(2, 0, 1)[None]


def fit_to_network(
    where: Path | str, pixels: Tensor, architecture: Architecture, preprocessing: Preprocessing
) -> Tensor:
    """Return stored pixels in the channels and the size of the network's images, as floats on the same scale.

    Args:
        where: Source of the pixels, for error messages.
        pixels: uint8, (B, ch, H, W).
        architecture: Number of channels and size of the network's images.
        preprocessing: Resize; images that are not resized are returned as they are.

    Raises:
        InputError: If the size or the number of channels does not fit.
    """
    images, sides = _with_channels(where, pixels.float(), architecture.in_channels), architecture.image_sides
    if preprocessing.resize is not None:
        resized = preprocessing.resized(images.shape[-2], images.shape[-1], sides)
        return _centred(_scaled(images, resized), sides, preprocessing.letterbox_colour)
    height, width = images.shape[-2:]
    if (height, width) != sides:
        raise InputError(
            f"{where}: images must be {sides[0]} x {sides[1]} pixels, got {height} x {width}; "
            f"let the card's preprocessing resize them, {_advice((height, width), sides)}."
        )
    return images


def _advice(got: tuple[int, int], sides: tuple[int, int]) -> str:
    """Return how images of a size may be resized, without most of a longer side being cut away."""
    height, width = Preprocessing(mean=(), std=(), resize=max(sides)).resized(*got, sides)
    kept = Fraction(sides[0] * sides[1], height * width)
    if kept >= _MIN_KEPT_SHARE:
        return f'as by "resize": {max(sides)}'
    return f'as by "resize": "letterbox" or "resize": {list(sides)}: a crop would keep {float(kept):.0%} of them'


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return the network's input for pixels (..., ch, H, W) of its size: (pixel * scale - mean) / std."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return (images * preprocessing.scale - mean) / std


def _with_channels(where: Path | str, images: Tensor, count: int) -> Tensor:
    """Return images of this many channels: grey becomes equal red, green and blue, and colour becomes grey."""
    got = images.shape[1]
    if got == count:
        return images
    if (got, count) == (3, 1):
        return (images * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if (got, count) == (1, 3):
        return images.expand(-1, 3, -1, -1)
    raise InputError(f"{where}: images must have {count} channels, or be grey or RGB for the other, got {got}.")


def _scaled(images: Tensor, sides: tuple[int, int]) -> Tensor:
    """Return images (B, ch, H, W) in these sides, as Pillow scales them."""
    if sides[1] == 1:
        # Torch's antialiasing is wrong for a single column; for a single row it is not.
        return F.interpolate(images.mT, (1, sides[0]), mode="bilinear", antialias=True).mT
    return F.interpolate(images, sides, mode="bilinear", antialias=True)


def _centred(images: Tensor, sides: tuple[int, int], colour: Sequence[float]) -> Tensor:
    """Return the middle of images (B, ch, H, W) in these sides, a colour (ch,) around those that are smaller."""
    height, width = (min(side, wanted) for side, wanted in zip(images.shape[-2:], sides, strict=True))
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    middle = images[..., top : top + height, left : left + width]
    if (height, width) == sides:
        return middle
    centred = torch.tensor(colour).view(-1, 1, 1).repeat(len(images), 1, *sides)
    top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
    centred[..., top : top + height, left : left + width] = middle
    return centred
