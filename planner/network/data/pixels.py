"""Stored pixels, and their preprocessing for a network.

Legend: B images, ch channels, H height, W width, N images in store.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from planner.errors import InputError
from planner.schema import Architecture, Preprocessing

# ITU-R 601, as Pillow has it.
_LUMA = (0.299, 0.587, 0.114)


def not_installed(what: str, package: str) -> InputError:
    """Return the error that a package of the data extra is missing."""
    return InputError(f"{what} needs {package}, which is not installed: pip install 'vit-planner[data]'.")


class Pixels(Protocol):
    """Stored images of 8 bits a channel."""

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
            pixels = _decode(self.files[i])
            yield self.files[i], torch.from_numpy(pixels).permute(2, 0, 1)[None]


def _decode(path: Path) -> NDArray[np.uint8]:
    """Return an image file's pixels (H, W, 1 or 3)."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise not_installed("data source 'folder'", "Pillow") from None
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise InputError(f"{path}: must have 8 bits a channel, got Pillow's mode {image.mode!r}.")
            pixels = np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    # A damaged PNG is a SyntaxError to Pillow; an image of absurd size is an error of its own.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace(f" {str(path)!r}", "").rstrip(".")
        raise InputError(f"{path}: must be an image that Pillow can read ({reason}).") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def preprocess(where: Path | str, pixels: Tensor, architecture: Architecture, preprocessing: Preprocessing) -> Tensor:
    """Return the network's input for stored pixels.

    Args:
        where: Source of the pixels, for error messages.
        pixels: uint8, (B, ch, H, W).
        architecture: Number of channels and size of the network's images.
        preprocessing: Resize, scale, mean and standard deviation.

    Raises:
        InputError: If the size or the number of channels does not fit.
    """
    images, size = _with_channels(where, pixels.float(), architecture.in_channels), architecture.image_size
    if preprocessing.resize is not None:
        images = _crop(_resize(images, preprocessing.resize), size)
    height, width = images.shape[-2:]
    if (height, width) != (size, size):
        raise InputError(
            f"{where}: images must be {size} x {size} pixels, got {height} x {width}; "
            "let the card's preprocessing resize them."
        )
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
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


def _resize(images: Tensor, shorter: int) -> Tensor:
    height, width = images.shape[-2:]
    sides = [max(shorter, shorter * side // min(height, width)) for side in (height, width)]
    return F.interpolate(images, sides, mode="bilinear", antialias=True)


def _crop(images: Tensor, size: int) -> Tensor:
    top, left = ((side - size) // 2 for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]
